/*
 * event.c
 *
 * An event as rows of a segment, and back.
 *
 * All columns have storage PLAIN, so the heap never toasts; large values are
 * compressed and cut here, before any lock is taken.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/heaptoast.h"
#include "access/toast_compression.h"
#include "access/toast_internals.h"
#include "store/event.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Payloads above this are worth a try at compression, as in TOAST. */
#define COMPRESS_ABOVE		2000

/* What a row may take of a page, and what of it a continuation may carry. */
#define ROW_MAX				MaxHeapTupleSize
#define PART_BYTES			8000

/*
 * Enough for the fixed columns, the headers of the others and the padding
 * between them; what a row takes besides its variable-length data.
 */
#define ROW_OVERHEAD		(MAXALIGN(SizeofHeapTupleHeader + 2) + 96)

/*
 * The columns of a row of a segment.  The owner may have added some to the
 * table, for which a commit must not fail: they are null.
 */
typedef struct Columns
{
	Datum		own_values[EO_LOG_COLUMNS];
	bool		own_nulls[EO_LOG_COLUMNS];
	Datum	   *values;
	bool	   *nulls;
} Columns;

static void
make_columns(Columns *columns, TupleDesc desc)
{
	bool		added = desc->natts > EO_LOG_COLUMNS;

	columns->values = added ? palloc(sizeof(Datum) * desc->natts) : columns->own_values;
	columns->nulls = added ? palloc(sizeof(bool) * desc->natts) : columns->own_nulls;
	for (int i = EO_LOG_COLUMNS; i < desc->natts; i++)
		columns->nulls[i] = true;
}

static void
free_columns(Columns *columns)
{
	if (columns->values == columns->own_values)
		return;
	pfree(columns->values);
	pfree(columns->nulls);
}

/* Compresses a plain value if that makes it smaller. */
static struct varlena *
compress_value(struct varlena *value)
{
	Datum		compressed;

	if (value == NULL || VARATT_IS_EXTENDED(value) || VARSIZE(value) <= COMPRESS_ABOVE)
		return value;
	compressed = toast_compress_datum(PointerGetDatum(value),
									  default_toast_compression);
	if (DatumGetPointer(compressed) == NULL)
		return value;
	return (struct varlena *) DatumGetPointer(compressed);
}

static Size
value_size(const void *value)
{
	return value == NULL ? 0 : VARSIZE_ANY(value) + sizeof(int32);
}

/* Forms one row; part is as in EO_COL_PART. */
static HeapTuple
form_row(TupleDesc desc, const EoEvent *event, int part,
		 struct varlena *payload, struct varlena *body)
{
	Columns		columns;
	HeapTuple	row;

#define SET_UNLESS(col, value, null) \
	(columns.values[(col) - 1] = (value), columns.nulls[(col) - 1] = (null))
#define SET(col, value) SET_UNLESS(col, value, false)
#define SET_OR_NULL(col, pointer) SET_UNLESS(col, PointerGetDatum(pointer), (pointer) == NULL)

	make_columns(&columns, desc);
	SET(EO_COL_SEQ, Int64GetDatum(event->seq));
	SET(EO_COL_ENQUEUED_AT, TimestampTzGetDatum(event->enqueued_at));
	SET(EO_COL_EVENT_ID, UUIDPGetDatum(&event->event_id));
	SET(EO_COL_PART, Int16GetDatum(part));
	SET(EO_COL_TOPIC, PointerGetDatum(event->topic));
	SET_OR_NULL(EO_COL_KEY, event->key);
	SET_OR_NULL(EO_COL_TYPE, event->type);
	SET_OR_NULL(EO_COL_HEADERS, event->headers);
	SET_OR_NULL(EO_COL_PAYLOAD, payload);
	SET_OR_NULL(EO_COL_BODY, body);
	SET_OR_NULL(EO_COL_CONTENT_TYPE, event->content_type);
	SET_UNLESS(EO_COL_SUBSCRIPTION, Int32GetDatum(event->subscription), event->subscription == 0);
	row = heap_form_tuple(desc, columns.values, columns.nulls);
	free_columns(&columns);
	return row;
}

HeapTuple *
eo_event_form(TupleDesc desc, const EoEvent *event, int *ntuples)
{
	struct varlena *headers = compress_value(event->headers);
	struct varlena *payload = compress_value(event->payload);
	struct varlena *body = compress_value(event->body);
	struct varlena *large = payload ? payload : body;
	Size		fixed;
	HeapTuple  *rows;
	EoEvent		head = *event;
	EoEvent		part;
	int			nparts;

	head.headers = headers;
	fixed = ROW_OVERHEAD + value_size(event->topic) + value_size(event->key) +
		value_size(event->type) + value_size(headers) + value_size(event->content_type);
	if (fixed + value_size(large) <= ROW_MAX)
	{
		rows = palloc(sizeof(HeapTuple));
		rows[0] = form_row(desc, &head, 0, payload, body);
		*ntuples = 1;
		return rows;
	}

	/* The head keeps everything but the large value, whose image is cut. */
	nparts = (VARSIZE_ANY(large) + PART_BYTES - 1) / PART_BYTES;
	rows = palloc(sizeof(HeapTuple) * (nparts + 1));
	rows[0] = form_row(desc, &head, -nparts, NULL, NULL);
	part = (EoEvent)
	{
		.seq = event->seq, .enqueued_at = event->enqueued_at,
			.event_id = event->event_id, .topic = cstring_to_text("")
	};
	for (int i = 0; i < nparts; i++)
	{
		Size		offset = (Size) i * PART_BYTES;
		Size		size = Min(PART_BYTES, VARSIZE_ANY(large) - offset);
		bytea	   *piece = palloc(VARHDRSZ + size);

		SET_VARSIZE(piece, VARHDRSZ + size);
		memcpy(VARDATA(piece), (char *) large + offset, size);
		rows[i + 1] = form_row(desc, &part, i + 1, NULL, piece);
		pfree(piece);
	}
	*ntuples = nparts + 1;
	return rows;
}

/* seq is the first column, never NULL, so it stands right behind the header. */
void
eo_event_set_seq(HeapTuple tuple, int64 seq)
{
	memcpy((char *) tuple->t_data + tuple->t_data->t_hoff, &seq, sizeof(seq));
}

int64
eo_event_row_seq(HeapTuple tuple)
{
	int64		seq;

	memcpy(&seq, (char *) tuple->t_data + tuple->t_data->t_hoff, sizeof(seq));
	return seq;
}

int
eo_event_deform(HeapTuple tuple, TupleDesc desc, EoEvent *event)
{
	Columns		columns;
	int			part;

#define IS_NULL(col) (columns.nulls[(col) - 1])
#define GET(col) (columns.values[(col) - 1])
#define GET_OR_NULL(col) (IS_NULL(col) ? NULL : (void *) DatumGetPointer(GET(col)))

	make_columns(&columns, desc);
	heap_deform_tuple(tuple, desc, columns.values, columns.nulls);
	event->seq = DatumGetInt64(GET(EO_COL_SEQ));
	event->enqueued_at = DatumGetTimestampTz(GET(EO_COL_ENQUEUED_AT));
	event->event_id = *DatumGetUUIDP(GET(EO_COL_EVENT_ID));
	event->topic = GET_OR_NULL(EO_COL_TOPIC);
	event->key = GET_OR_NULL(EO_COL_KEY);
	event->type = GET_OR_NULL(EO_COL_TYPE);
	event->headers = GET_OR_NULL(EO_COL_HEADERS);
	event->payload = GET_OR_NULL(EO_COL_PAYLOAD);
	event->body = GET_OR_NULL(EO_COL_BODY);
	event->content_type = GET_OR_NULL(EO_COL_CONTENT_TYPE);
	event->subscription = IS_NULL(EO_COL_SUBSCRIPTION) ? 0 : DatumGetInt32(GET(EO_COL_SUBSCRIPTION));
	event->size = tuple->t_len;
	part = DatumGetInt16(GET(EO_COL_PART));
	free_columns(&columns);
	if (part > 0)
		return -1;
	return -part;
}

void
eo_event_join(EoEvent *head, struct varlena **parts, int nparts)
{
	Size		size = 0;
	char	   *image;
	char	   *at;

	for (int i = 0; i < nparts; i++)
		size += VARSIZE_ANY_EXHDR(parts[i]);
	image = at = palloc(size);
	for (int i = 0; i < nparts; i++)
	{
		memcpy(at, VARDATA_ANY(parts[i]), VARSIZE_ANY_EXHDR(parts[i]));
		at += VARSIZE_ANY_EXHDR(parts[i]);
	}
	if (head->content_type != NULL)
		head->body = (struct varlena *) image;
	else
		head->payload = (struct varlena *) image;
}
