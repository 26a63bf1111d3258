/*
 * debezium_value.h
 *
 * Values as Debezium's connector for PostgreSQL tells them with its default
 * options.
 */
#ifndef EO_DEBEZIUM_VALUE_H
#define EO_DEBEZIUM_VALUE_H

#include "fmgr.h"
#include "utils/date.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

typedef enum EoDebeziumKind
{
	EO_DBZ_BOOL,
	EO_DBZ_INT2,
	EO_DBZ_INT4,
	EO_DBZ_INT8,
	EO_DBZ_OID,
	EO_DBZ_FLOAT4,
	EO_DBZ_FLOAT8,
	EO_DBZ_DECIMAL,				/* of a fixed scale: the unscaled integer's bytes */
	EO_DBZ_VARIABLE_DECIMAL,	/* {scale, value} */
	EO_DBZ_MONEY,
	EO_DBZ_DATE,				/* days */
	EO_DBZ_TIME_MS,
	EO_DBZ_TIME_US,
	EO_DBZ_TIMETZ,				/* text in UTC */
	EO_DBZ_TIMESTAMP_MS,
	EO_DBZ_TIMESTAMP_US,
	EO_DBZ_TIMESTAMPTZ,			/* text in UTC */
	EO_DBZ_INTERVAL,			/* microseconds, more or less */
	EO_DBZ_TEXT,				/* what is stored */
	EO_DBZ_OUTPUT,				/* what the output function gives */
	EO_DBZ_BYTEA,
	EO_DBZ_BIT,					/* one bit: a boolean */
	EO_DBZ_BITS,				/* bytes, the last bits first */
	EO_DBZ_POINT,
	EO_DBZ_HSTORE,				/* the text of a JSON object */
	EO_DBZ_ARRAY,
	EO_DBZ_UNKNOWN				/* the bytes of what the output function gives */
} EoDebeziumKind;

typedef struct EoDebeziumType
{
	EoDebeziumKind kind;
	int			digits;			/* scale of a decimal, of seconds */
	FmgrInfo	output;			/* EO_DBZ_OUTPUT, _HSTORE, _UNKNOWN */
	bool		zoned;			/* output depends on the time zone */
	struct EoDebeziumType *element; /* EO_DBZ_ARRAY */
	int16		elmlen;
	bool		elmbyval;
	char		elmalign;
	Oid			elmtype;
} EoDebeziumType;

/* Finds out what a type becomes; in the current memory context. */
extern void eo_debezium_type(EoDebeziumType *type, Oid oid, int32 typmod);

/* A value that is not NULL. */
extern void eo_debezium_value(EoDebeziumType *type, Datum value, JsonbValue *out);

/* A number, and a string that is not copied. */
extern void eo_debezium_integer(JsonbValue *out, int64 integer);
extern void eo_debezium_string(JsonbValue *out, const char *string, int len);

/* in debezium_time.c */
extern void eo_debezium_date(JsonbValue *out, DateADT date);
extern void eo_debezium_timetz(JsonbValue *out, TimeTzADT *time);
extern void eo_debezium_timestamp(JsonbValue *out, Timestamp timestamp, int unit);
extern void eo_debezium_timestamptz(JsonbValue *out, TimestampTz timestamp, int digits);
extern void eo_debezium_interval(JsonbValue *out, Interval *interval);

/* in debezium_decimal.c: a decimal's text as the unscaled integer in base64. */
extern void eo_debezium_decimal(JsonbValue *out, const char *digits);
extern void eo_debezium_base64(JsonbValue *out, const void *bytes, int len);

#endif							/* EO_DEBEZIUM_VALUE_H */
