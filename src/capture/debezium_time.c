/*
 * debezium_time.c
 *
 * Dates and times as Debezium's connector for PostgreSQL tells them: numbers
 * since 1970 where there is no zone, ISO 8601 in UTC where there is one.
 */
#include "postgres.h"

#include <math.h>

#include "capture/debezium_value.h"
#include "common/int.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#define DAYS_TO_UNIX	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE))
#define DAYS_PER_MONTH_AVERAGE	(365.25 / 12)

/* More than the text of any time takes */
#define TEXT_ROOM	64

/* What the connector has for infinity */
#define INFINITE_DAYS	INT64CONST(-2147472692)
#define MINUS_INFINITE_DAYS	INT64CONST(-2147472691)
#define INFINITE_MICROS	INT64CONST(9223372036825200000)
#define MINUS_INFINITE_MICROS	INT64CONST(-9223372036832400000)

/* ".5" for half a second; `digits` of them, or as many as it takes when -1 */
static int
format_fraction(char *text, int micros, int digits)
{
	char		all[8];
	int			len = digits;

	snprintf(all, sizeof(all), ".%06d", micros);
	if (digits < 0)
	{
		len = 6;
		while (len > 0 && all[len] == '0')
			len--;
	}
	if (len == 0)
		return 0;
	memcpy(text, all, len + 1);
	return len + 1;
}

void
eo_debezium_date(JsonbValue *out, DateADT date)
{
	if (DATE_IS_NOBEGIN(date))
		eo_debezium_integer(out, MINUS_INFINITE_DAYS);
	else if (DATE_IS_NOEND(date))
		eo_debezium_integer(out, INFINITE_DAYS);
	else
		eo_debezium_integer(out, date + DAYS_TO_UNIX);
}

void
eo_debezium_timetz(JsonbValue *out, TimeTzADT *time)
{
	char	   *text = palloc(TEXT_ROOM);
	int64		micros = time->time + time->zone * USECS_PER_SEC;
	int			seconds;
	int			len;

	micros = (micros % USECS_PER_DAY + USECS_PER_DAY) % USECS_PER_DAY;
	seconds = micros / USECS_PER_SEC;
	len = snprintf(text, TEXT_ROOM, "%02d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
	len += format_fraction(text + len, micros % USECS_PER_SEC, -1);
	text[len++] = 'Z';
	eo_debezium_string(out, text, len);
}

/* Years above 294246 are further from 1970 than fits an int64. */
static void
put_distant(JsonbValue *out, Timestamp timestamp)
{
	out->type = jbvNumeric;
	out->val.numeric = DatumGetNumeric(DirectFunctionCall2(numeric_add,
														   NumericGetDatum(int64_to_numeric(timestamp)),
														   NumericGetDatum(int64_to_numeric(DAYS_TO_UNIX * USECS_PER_DAY))));
}

/* Since 1970, in units of so many microseconds */
void
eo_debezium_timestamp(JsonbValue *out, Timestamp timestamp, int unit)
{
	int64		micros;

	if (TIMESTAMP_IS_NOBEGIN(timestamp))
		eo_debezium_integer(out, MINUS_INFINITE_MICROS / unit);
	else if (TIMESTAMP_IS_NOEND(timestamp))
		eo_debezium_integer(out, INFINITE_MICROS / unit);
	else if (!pg_add_s64_overflow(timestamp, DAYS_TO_UNIX * USECS_PER_DAY, &micros))
		eo_debezium_integer(out, micros / unit);
	else if (unit == 1)
		put_distant(out, timestamp);
	else
		eo_debezium_integer(out, timestamp / unit + DAYS_TO_UNIX * USECS_PER_DAY / unit);
}

/* "2024-02-29T12:34:56.789012Z" */
void
eo_debezium_timestamptz(JsonbValue *out, TimestampTz timestamp, int digits)
{
	char	   *text;
	struct pg_tm tm;
	fsec_t		micros;
	int			len;

	if (TIMESTAMP_NOT_FINITE(timestamp))
	{
		const char *name = TIMESTAMP_IS_NOBEGIN(timestamp) ? "-infinity" : "infinity";

		eo_debezium_string(out, name, strlen(name));
		return;
	}
	if (timestamp2tm(timestamp, NULL, &tm, &micros, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	text = palloc(TEXT_ROOM);
	len = snprintf(text, TEXT_ROOM, "%s%04d-%02d-%02dT%02d:%02d:%02d",
				   tm.tm_year < 0 ? "-" : tm.tm_year > 9999 ? "+" : "", abs(tm.tm_year),
				   tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	len += format_fraction(text + len, micros, digits);
	text[len++] = 'Z';
	eo_debezium_string(out, text, len);
}

/* In the connector's own arithmetic, so that it comes to the same. */
void
eo_debezium_interval(JsonbValue *out, Interval *interval)
{
	double		days = interval->month * DAYS_PER_MONTH_AVERAGE + interval->day;
	int64		hours = interval->time / USECS_PER_HOUR;
	int64		minutes = interval->time % USECS_PER_HOUR / USECS_PER_MINUTE;
	double		seconds = (interval->time % USECS_PER_MINUTE) / 1000000.0;
	double		micros;

	seconds += ((days * 24 + hours) * 60 + minutes) * 60;
	micros = floor(seconds * 1e6 + 0.5);
	if (micros >= -(double) PG_INT64_MIN)
		eo_debezium_integer(out, PG_INT64_MAX);
	else if (micros <= (double) PG_INT64_MIN)
		eo_debezium_integer(out, PG_INT64_MIN);
	else
		eo_debezium_integer(out, (int64) micros);
}
