/*
 * spec.h
 *
 * What a capture trigger was told to do: its arguments, 'name=value' each.
 *
 * They are all the configuration there is, so that a dump takes it along, a
 * dropped table takes it with it, and a renamed one keeps it.
 */
#ifndef EO_CAPTURE_SPEC_H
#define EO_CAPTURE_SPEC_H

#include "nodes/pg_list.h"
#include "utils/reltrigger.h"

typedef enum EoCaptureMode
{
	EO_MODE_FACT,				/* the whole new row */
	EO_MODE_DELTA,				/* what has changed */
	EO_MODE_CHANGELOG			/* the whole row, or a tombstone, under its key */
} EoCaptureMode;

typedef enum EoCaptureFormat
{
	EO_FORMAT_PLAIN,
	EO_FORMAT_DEBEZIUM
} EoCaptureFormat;

typedef enum EoCaptureOp
{
	EO_OP_INSERTED,
	EO_OP_UPDATED,
	EO_OP_DELETED,
	EO_OP_TRUNCATED,
	EO_OP_READ					/* was there when eo.snapshot() came by */
} EoCaptureOp;

#define EO_CAPTURE_OPS	(EO_OP_READ + 1)

/* A NULL string or list: the default. */
typedef struct EoCaptureSpec
{
	char	   *topic;
	char	   *type_prefix;
	EoCaptureMode mode;
	EoCaptureFormat format;
	List	   *key;			/* of char *: columns */
	List	   *columns;
	List	   *exclude;
	bool		as_given;		/* an UPDATE is ... */
	EoCaptureOp as;				/* ... to be taken for that */
	bool		child;			/* made for a child of a captured table */
} EoCaptureSpec;

/* Names of modes, formats and operations, by their numbers */
extern const char *const eo_capture_modes[];
extern const char *const eo_capture_formats[];
extern const char *const eo_capture_ops[];

/* Parse a name; an ERROR that lists the names there are. */
extern EoCaptureMode eo_capture_mode(const char *name);
extern EoCaptureFormat eo_capture_format(const char *name);

/* The trigger's arguments, in the current memory context; an ERROR if one is unfit. */
extern void eo_capture_spec(EoCaptureSpec *spec, const Trigger *trigger);

/* As arguments in a CREATE TRIGGER command. */
extern char *eo_capture_spec_sql(const EoCaptureSpec *spec);

/* Lists of columns, as in the arguments. */
extern char *eo_capture_names(List *names);
extern List *eo_capture_split_names(const char *names);

/* The arguments that are such lists; NULL at the end. */
extern const char *const eo_capture_lists[];

#endif							/* EO_CAPTURE_SPEC_H */
