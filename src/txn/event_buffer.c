/*
 * event_buffer.c
 *
 * The events of the current transaction, from eo.enqueue() to the log.
 *
 * 1. eo.enqueue() forms the rows of an event and keeps them in this backend's
 *	  memory.  Nothing is shared, locked or written.
 *
 * 2. When there are more than eo_outbox.buffer_memory of them, they go to a
 *	  temporary file, oldest first: the file holds the front of the buffer, the
 *	  memory its end.
 *
 * 3. Events of a subtransaction stand behind those of its parents, so that
 *	  rolling it back is to cut the buffer where the subtransaction began to
 *	  enqueue.  A mark remembers that place; a subtransaction that commits hands
 *	  its mark to its parent.
 *
 * 4. A trigger may be fired for an earlier command than the one that has run
 *	  last: what it captures belongs before what the later one enqueued.  Each
 *	  event remembers its command; if one came late, the events are sorted when
 *	  they are read back.  A command may also have run in the middle of an earlier
 *	  one, and have deleted the row in whose place that has put another: a trigger
 *	  before INSERT does so.  What comes late is thus looked for among what was
 *	  removed, and not put before that.
 *
 * 5. At XACT_EVENT_PRE_COMMIT the rows are appended to the log (store/append.c)
 *	  in batches, each under the append lock for a moment only.  An error there
 *	  still rolls the transaction back.  Deferred triggers have run by then.
 *
 * 6. At XACT_EVENT_COMMIT, after the transaction has left the ProcArray, the
 *	  relay is woken if it sleeps.  It is also woken when a transaction aborts
 *	  after its append: the relay may have stopped at its rows.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "points.h"
#include "settings.h"
#include "store/append.h"
#include "store/catalog.h"
#include "txn/event_buffer.h"
#include "txn/removals.h"
#include "txn/spill.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* Rows appended under one hold of the append lock, if events are that small. */
#define BATCH_ROWS		256
#define BATCH_BYTES		(256 * 1024)

/* What stands before each row in the buffer; rows are MAXALIGNed. */
typedef struct RowHeader
{
	uint32		length;			/* of the tuple */
	CommandId	cid;			/* of the event */
	bool		is_head;		/* starts an event */
	bool		is_last;		/* ends one */
	bool		removes;		/* see EoEventPlace */
	bool		first;
} RowHeader;

#define ROW_HEADER_SIZE		MAXALIGN(sizeof(RowHeader))

/* Where a subtransaction began to enqueue. */
typedef struct Mark
{
	SubTransactionId subid;
	int64		offset;
	int64		events;
} Mark;

typedef struct EventBuffer
{
	int64		events;
	CommandId	last_cid;		/* the highest so far */
	bool		unordered;		/* one came with a lower one than that, or first */
	EoRemovals	removals;		/* of the events up to this offset, */
	int64		searched;		/* if anything had to be looked for there */
	EoSpill		rows;			/* each behind its header */
	Mark	   *marks;			/* in TopTransactionContext */
	int			nmarks;
	int			maxmarks;
	bool		appending;		/* PRE_COMMIT has been reached */
	bool		appended;		/* rows are in the log */
	bool		request_relay;
	bool		config_changed;
	bool		log_created;	/* CREATE EXTENSION has run */
	bool		lineage_changed;	/* the next append has to read eo.lineage */
	int64		appended_seq;
} EventBuffer;

static EventBuffer buffer;
static int64 session_last_seq = 0;
static TupleDesc log_desc = NULL;	/* of eo.log_N, made once per backend */

static TupleDesc
get_log_desc(void)
{
	if (log_desc == NULL)
	{
		Relation	rel = table_open(eo_catalog_required()->log[0], AccessShareLock);
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		log_desc = CreateTupleDescCopy(RelationGetDescr(rel));
		MemoryContextSwitchTo(old);
		table_close(rel, AccessShareLock);
	}
	return log_desc;
}

/* Remembers where the current subtransaction begins to enqueue. */
static void
set_mark(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Mark	   *mark;

	if (subid == TopSubTransactionId ||
		(buffer.nmarks > 0 && buffer.marks[buffer.nmarks - 1].subid == subid))
		return;
	if (buffer.nmarks == buffer.maxmarks)
	{
		buffer.maxmarks = buffer.maxmarks ? buffer.maxmarks * 2 : 8;
		buffer.marks = buffer.marks ?
			repalloc(buffer.marks, sizeof(Mark) * buffer.maxmarks) :
			MemoryContextAlloc(TopTransactionContext, sizeof(Mark) * buffer.maxmarks);
	}
	mark = &buffer.marks[buffer.nmarks++];
	mark->subid = subid;
	mark->offset = eo_spill_end(&buffer.rows);
	mark->events = buffer.events;
}

/* Forgets everything from a mark on.  Must not fail: runs in an abort. */
static void
cut(const Mark *mark)
{
	eo_spill_cut(&buffer.rows, mark->offset);
	buffer.events = mark->events;
	buffer.searched = Min(buffer.searched, mark->offset);
	eo_removals_cut(&buffer.removals, mark->offset);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId subid,
				 SubTransactionId parent, void *arg)
{
	Mark	   *mark;

	/* That may bring back an extension which was dropped in between. */
	if (event == SUBXACT_EVENT_ABORT_SUB && buffer.log_created)
		eo_database_forget_log(eo_my_database());
	if (buffer.nmarks == 0)
		return;
	mark = &buffer.marks[buffer.nmarks - 1];
	if (mark->subid != subid)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		cut(mark);
		buffer.nmarks--;
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		if (parent == TopSubTransactionId ||
			(buffer.nmarks > 1 && buffer.marks[buffer.nmarks - 2].subid == parent))
			buffer.nmarks--;
		else
			mark->subid = parent;
	}
}

/*----------
 * Reading it back
 *----------
 */

/* Where an event is */
typedef struct Place
{
	int64		offset;
	CommandId	cid;
	bool		first;
} Place;

typedef struct Cursor
{
	int64		offset;			/* of the next row */
	bool		in_event;		/* it belongs to the one before */
	Place	   *places;			/* in order; NULL: as they stand */
	int64		next_place;
} Cursor;

/* The header of the row at the cursor, which is moved on to the row itself. */
static bool
next_header(Cursor *cursor, RowHeader *header)
{
	char		raw[ROW_HEADER_SIZE];

	if (cursor->offset >= eo_spill_end(&buffer.rows))
		return false;
	eo_spill_copy(&buffer.rows, cursor->offset, raw, ROW_HEADER_SIZE);
	memcpy(header, raw, sizeof(RowHeader));
	cursor->offset += ROW_HEADER_SIZE;
	return true;
}

static int
compare_places(const void *a, const void *b)
{
	const Place *x = a;
	const Place *y = b;

	if (x->cid != y->cid)
		return x->cid < y->cid ? -1 : 1;
	if (x->first != y->first)
		return x->first ? -1 : 1;
	return x->offset < y->offset ? -1 : 1;
}

/* The places of all events, in the order of their commands; to be freed. */
static Place *
sort_places(void)
{
	Place	   *places = MemoryContextAllocHuge(CurrentMemoryContext,
												sizeof(Place) * (buffer.events + 1));
	Cursor		cursor = {0};
	RowHeader	header;
	int64		n = 0;

	for (;;)
	{
		int64		offset = cursor.offset;

		eo_spill_seek(&buffer.rows, offset);
		if (!next_header(&cursor, &header))
			break;
		if (header.is_head)
		{
			Assert(n < buffer.events);
			places[n++] = (Place) {.offset = offset,.cid = header.cid,.first = header.first};
		}
		cursor.offset += MAXALIGN(header.length);
	}
	if (n != buffer.events)
		elog(ERROR, "event buffer ends early");
	qsort(places, n, sizeof(Place), compare_places);
	return places;
}

static void
rewind_buffer(Cursor *cursor)
{
	memset(cursor, 0, sizeof(Cursor));
	if (buffer.unordered)
		cursor->places = sort_places();
	eo_spill_seek(&buffer.rows, 0);
}

/*
 * The row at the cursor, which is moved on.  A row from the file is copied into
 * the current memory context; one in memory is used where it is.
 */
static void
read_row(Cursor *cursor, HeapTuple tuple, const RowHeader *header)
{
	tuple->t_data = eo_spill_get(&buffer.rows, cursor->offset, MAXALIGN(header->length));
	cursor->offset += MAXALIGN(header->length);
	tuple->t_len = header->length;
	tuple->t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&tuple->t_self);
}

/* The next row, or false at the end. */
static bool
next_row(Cursor *cursor, HeapTuple tuple, RowHeader *header)
{
	if (cursor->places != NULL && !cursor->in_event)
	{
		if (cursor->next_place == buffer.events)
			return false;
		cursor->offset = cursor->places[cursor->next_place++].offset;
		eo_spill_seek(&buffer.rows, cursor->offset);
	}
	if (!next_header(cursor, header))
		return false;
	read_row(cursor, tuple, header);
	cursor->in_event = !header->is_last;
	return true;
}

/*----------
 * Adding
 *----------
 */

/* Notes the removals that were added since the last search. */
static void
search_removals(void)
{
	Cursor		cursor = {.offset = buffer.searched};

	for (;;)
	{
		int64		offset = cursor.offset;
		RowHeader	header;
		HeapTupleData row;
		EoEvent		event;

		eo_spill_seek(&buffer.rows, offset);
		if (!next_header(&cursor, &header))
			break;
		if (!header.is_head || !header.removes)
		{
			cursor.offset += MAXALIGN(header.length);
			continue;
		}
		read_row(&cursor, &row, &header);
		(void) eo_event_deform(&row, get_log_desc(), &event);
		if (event.key != NULL)
			eo_removals_note(&buffer.removals, &event, offset, header.cid);
		if (eo_spill_in_file(&buffer.rows, offset))
			pfree(row.t_data);
	}
	buffer.searched = cursor.offset;
}

/*
 * The command among whose events one that comes late is put: its own, or a
 * later one that has removed the row that had the key before.
 */
static CommandId
late_place(const EoEvent *event, const EoEventPlace *place)
{
	if (place->removes || event->key == NULL)
		return place->cid;
	search_removals();
	return eo_removals_latest(&buffer.removals, event, place->cid, place->until);
}

void
eo_buffer_add(const EoEvent *event, const EoEventPlace *place)
{
	HeapTuple  *rows;
	int			nrows;
	Size		total = 0;
	CommandId	cid = place->cid;

	if (buffer.appending)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot enqueue events while the transaction commits"),
				 errhint("Enqueue before COMMIT, or from a deferred trigger.")));

	if (cid < buffer.last_cid)
		cid = late_place(event, place);
	rows = eo_event_form(get_log_desc(), event, &nrows);
	for (int i = 0; i < nrows; i++)
		total += ROW_HEADER_SIZE + MAXALIGN(rows[i]->t_len);
	set_mark();
	EO_POINT(buffer_add);
	eo_spill_reserve(&buffer.rows, total, (Size) eo_buffer_memory * 1024);
	for (int i = 0; i < nrows; i++)
	{
		RowHeader	header = {
			.length = rows[i]->t_len,.cid = cid,
			.is_head = (i == 0),.is_last = (i == nrows - 1),
			.removes = place->removes,.first = place->first
		};

		eo_spill_put(&buffer.rows, &header, sizeof(header));
		eo_spill_put(&buffer.rows, rows[i]->t_data, rows[i]->t_len);
		heap_freetuple(rows[i]);
	}
	pfree(rows);
	buffer.events++;
	if (cid < buffer.last_cid || (cid == buffer.last_cid && place->first))
		buffer.unordered = true;
	else
		buffer.last_cid = cid;
	EO_POINT(buffer_added);
}

/*----------
 * Appending
 *----------
 */

/* Appends the only event of a transaction, if it is a single row. */
static bool
append_single_row(EoDatabase *db)
{
	Cursor		cursor;
	HeapTupleData row;
	HeapTuple	pointer = &row;
	RowHeader	header;

	if (buffer.events != 1 || eo_spill_in_file(&buffer.rows, 0))
		return false;
	rewind_buffer(&cursor);
	if (!next_row(&cursor, &row, &header) || !header.is_last)
		return false;
	buffer.appended = true;
	buffer.appended_seq = eo_append(db, &pointer, &header.is_head, 1);
	return true;
}

/* Appends the buffer in batches of whole events. */
static void
append_batches(EoDatabase *db)
{
	MemoryContext context = AllocSetContextCreate(TopTransactionContext, "eo_outbox append",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	Cursor		cursor;
	RowHeader	header;
	HeapTupleData row;
	HeapTuple  *rows = NULL;
	bool	   *heads = NULL;
	int			nrows = 0;
	int			maxrows = 0;
	Size		bytes = 0;

	rewind_buffer(&cursor);
	old = MemoryContextSwitchTo(context);
	while (next_row(&cursor, &row, &header))
	{
		if (nrows == maxrows)
		{
			maxrows = maxrows ? maxrows * 2 : BATCH_ROWS;
			rows = rows ? repalloc(rows, sizeof(HeapTuple) * maxrows) : palloc(sizeof(HeapTuple) * maxrows);
			heads = heads ? repalloc(heads, sizeof(bool) * maxrows) : palloc(sizeof(bool) * maxrows);
		}
		rows[nrows] = palloc(sizeof(HeapTupleData));
		*rows[nrows] = row;
		heads[nrows++] = header.is_head;
		bytes += row.t_len;
		if (!header.is_last || (nrows < BATCH_ROWS && bytes < BATCH_BYTES))
			continue;
		buffer.appended = true;
		buffer.appended_seq = eo_append(db, rows, heads, nrows);
		MemoryContextReset(context);
		rows = NULL;
		heads = NULL;
		nrows = maxrows = 0;
		bytes = 0;
		EO_POINT(append_between);
		CHECK_FOR_INTERRUPTS();
	}
	if (nrows > 0)
	{
		buffer.appended = true;
		buffer.appended_seq = eo_append(db, rows, heads, nrows);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
append_to_log(void)
{
	EoDatabase *db;

	buffer.appending = true;
	if (buffer.events > 0)
	{
		db = eo_my_database();
		EO_POINT(pre_commit);
		if (!append_single_row(db))
			append_batches(db);
		EO_POINT(appended);
	}
	eo_spill_close(&buffer.rows);
}

void
eo_buffer_walk(EoBufferVisitor visit, void *arg)
{
	MemoryContext context;
	Cursor		cursor;
	HeapTupleData row;
	RowHeader	header;

	if (buffer.events == 0)
		return;
	context = AllocSetContextCreate(CurrentMemoryContext, "eo_outbox pending",
									ALLOCSET_DEFAULT_SIZES);
	rewind_buffer(&cursor);
	for (int64 i = 0; i < buffer.events; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		EoEvent		event;
		int			nparts;

		if (!next_row(&cursor, &row, &header))
			elog(ERROR, "event buffer ends early");
		nparts = eo_event_deform(&row, get_log_desc(), &event);
		if (nparts > 0)
		{
			struct varlena **parts = palloc(sizeof(struct varlena *) * nparts);

			for (int p = 0; p < nparts; p++)
			{
				EoEvent		part;

				if (!next_row(&cursor, &row, &header))
					elog(ERROR, "event buffer ends early");
				(void) eo_event_deform(&row, get_log_desc(), &part);
				parts[p] = part.body;
			}
			eo_event_join(&event, parts, nparts);
		}
		MemoryContextSwitchTo(old);
		visit(&event, arg);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	if (cursor.places != NULL)
		pfree(cursor.places);
}

/* Empties the buffer at the end of a transaction; must not fail. */
static void
reset_buffer(void)
{
	EoSpill		rows = buffer.rows;

	eo_spill_reset(&rows);
	memset(&buffer, 0, sizeof(buffer));
	buffer.rows = rows;
}

/* The transaction is over and has left the ProcArray. */
static void
after_end(bool committed)
{
	EoDatabase *db;

	if (!committed && buffer.log_created)
		eo_database_forget_log(eo_my_database());
	if (committed && buffer.appended)
	{
		EO_POINT_CRITICAL(committed);
		session_last_seq = buffer.appended_seq;
	}
	if (buffer.appended)
		eo_relay_wake(eo_my_database());
	if (committed && buffer.config_changed)
	{
		db = eo_database_slot(MyDatabaseId, false);
		if (db != NULL && buffer.lineage_changed)
			pg_atomic_write_u32(&db->lineage_stale, 1);
		if (db != NULL)
			eo_relay_config_changed(db);
	}
	if (committed && buffer.request_relay)
		eo_relay_request(MyDatabaseId);
	reset_buffer();
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			append_to_log();
			break;
		case XACT_EVENT_COMMIT:
			after_end(true);
			break;
		case XACT_EVENT_ABORT:
			after_end(false);
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (buffer.events > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has enqueued events"),
						 errhint("Commit it in one phase; the events would hold up all later ones until COMMIT PREPARED.")));
			if (buffer.config_changed || buffer.request_relay)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has configured eo_outbox"),
						 errhint("Commit it in one phase; nobody would tell the relay at COMMIT PREPARED.")));
			eo_spill_close(&buffer.rows);
			break;
		case XACT_EVENT_PREPARE:
			/* its memory and its file go with the transaction */
			reset_buffer();
			break;
		default:
			break;
	}
}

int64
eo_buffer_last_seq(void)
{
	return session_last_seq;
}

void
eo_log_created(void)
{
	eo_database_forget_log(eo_my_database());
	buffer.log_created = true;
	buffer.request_relay = true;
}

void
eo_config_changed_at_commit(void)
{
	(void) eo_my_database();
	buffer.config_changed = true;
}

void
eo_lineage_changed_at_commit(void)
{
	eo_config_changed_at_commit();
	buffer.lineage_changed = true;
}

void
eo_buffer_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
