/*
 * subscriptions.c
 *
 * Brings the relay's list of subscriptions in line with the tables.
 *
 * Only the relay writes cursors and positions (but those of pull subscriptions,
 * which their readers move), so it reads them once, when it takes a subscription
 * up.  Configuration it reads again whenever somebody says that it changed, by
 * eo_relay_config_changed().  It is all read in one transaction and then
 * applied: a publisher is only disturbed if what it was told is different now.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "relay/delivery.h"
#include "relay/sql.h"
#include "relay/subscriptions.h"
#include "relay/supervision.h"
#include "store/append.h"
#include "store/lineage.h"
#include "store/topics.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * Cursors of subscriptions that were restored from a dump, and rows of those
 * that were removed.  Whatever a broker has was not sent by the former.
 */
static EoStatement insert_cursors = {
	"INSERT INTO eo.cursor (subscription, seq, published_seq, replay_until)"
	" SELECT id, start_seq, -1, 9223372036854775807 FROM eo.subscription WHERE home = $1"
	" AND NOT EXISTS (SELECT FROM eo.cursor c WHERE c.subscription = id)",
	1, {TEXTOID}
};

static EoStatement delete_orphans[] = {
	{"DELETE FROM eo.cursor t WHERE NOT EXISTS"
	" (SELECT FROM eo.subscription s WHERE s.id = t.subscription)", 0, {0}},
	{"DELETE FROM eo.position t WHERE NOT EXISTS"
	" (SELECT FROM eo.subscription s WHERE s.id = t.subscription)", 0, {0}},
	{"DELETE FROM eo.dead_letter t WHERE NOT EXISTS"
	" (SELECT FROM eo.subscription s WHERE s.id = t.subscription)", 0, {0}},
	{"DELETE FROM eo.dead_letter_retry t WHERE NOT EXISTS"
	" (SELECT FROM eo.dead_letter d WHERE d.subscription = t.subscription AND d.seq = t.seq)", 0, {0}},
};

enum
{
	COL_ID = 1, COL_NAME, COL_TOPICS, COL_SERVER, COL_OPTIONS, COL_PAUSED,
	COL_OWNER, COL_HOME, COL_SEEK_SEQ, COL_SEEK_NUMBER, COL_CREATED_AT, COL_XMIN,
	COL_CURSOR_SEQ, COL_PUBLISHED_SEQ, COL_REPLAY_UNTIL, COL_CURSOR_SEEK_NUMBER, COL_KEPT_AS
};

static EoStatement select_subscriptions = {
	"SELECT s.id, s.name, s.topics, s.server, s.options, s.paused, s.owner, s.home,"
	" s.seek_seq, s.seek_number, s.created_at, s.xmin,"
	" c.seq, c.published_seq, c.replay_until, c.seek_number, c.kept_as"
	" FROM eo.subscription s LEFT JOIN eo.cursor c ON c.subscription = s.id ORDER BY s.id",
	0, {0}
};

static EoStatement select_positions = {
	"SELECT topic, position FROM eo.position WHERE subscription = $1",
	1, {INT4OID}
};

static EoStatement select_low_seq = {
	"SELECT min(least(coalesce(c.seq, s.start_seq),"
	" CASE WHEN s.seek_number <> coalesce(c.seek_number, 0) THEN s.seek_seq END))"
	" FROM eo.subscription s LEFT JOIN eo.cursor c ON c.subscription = s.id",
	0, {0}
};

static EoSubscription *
find(int32 id)
{
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		if (sub->id == id)
			return sub;
	}
	return NULL;
}

/* New ones go to the end, so that the order of turns is that of the ids. */
static EoSubscription *
add(int32 id)
{
	EoSubscription *sub = eo_subscription_create(id);
	EoSubscription **end = &eo_relay.subscriptions;

	while (*end != NULL)
		end = &(*end)->next;
	*end = sub;
	return sub;
}

static Datum
column(uint64 row, int number)
{
	bool		isnull;

	return eo_statement_column(row, number, &isnull);
}

static bool
is_null(uint64 row, int number)
{
	bool		isnull;

	(void) eo_statement_column(row, number, &isnull);
	return isnull;
}

/* The cursor of a subscription that is taken up, or of a pull subscription. */
static void
read_cursor(EoSubscription *sub, uint64 row)
{
	EoCursor   *cursor = &sub->durable;

	cursor->seq = DatumGetInt64(column(row, COL_CURSOR_SEQ));
	cursor->published_seq = DatumGetInt64(column(row, COL_PUBLISHED_SEQ));
	cursor->replay_until = DatumGetInt64(column(row, COL_REPLAY_UNTIL));
	cursor->seek_number = DatumGetInt32(column(row, COL_CURSOR_SEEK_NUMBER));
	cursor->position_kept = !is_null(row, COL_KEPT_AS) &&
		strcmp(TextDatumGetCString(column(row, COL_KEPT_AS)), sub->identity) == 0;
	sub->acked = *cursor;
	sub->has_cursor = true;
}

/*
 * What a broker may keep our position under: the same for the same
 * subscription on whatever server this database runs, and never again for
 * another one, not even after DROP EXTENSION.
 */
static char *
make_identity(uint64 row, int32 id)
{
	return psprintf("%s/%d-" UINT64_FORMAT, eo_relay.home, id,
					(uint64) DatumGetTimestampTz(column(row, COL_CREATED_AT)));
}

/* Takes over one row.  The memory context is the new configuration's. */
static void
read_configuration(EoSubscription *sub, uint64 row)
{
	NameData   *server = is_null(row, COL_SERVER) ? NULL : DatumGetName(column(row, COL_SERVER));
	TransactionId xmin = DatumGetTransactionId(column(row, COL_XMIN));
	EoTarget   *target = NULL;
	bool		renewed = sub->row_xmin != InvalidTransactionId && sub->row_xmin != xmin;

	sub->name = TextDatumGetCString(column(row, COL_NAME));
	sub->topics = eo_topic_patterns(DatumGetArrayTypeP(column(row, COL_TOPICS)));
	sub->all_topics = false;
	for (int i = 0; i < list_length(sub->topics); i++)
		sub->all_topics |= strcmp(list_nth(sub->topics, i), "*") == 0;
	sub->paused = DatumGetBool(column(row, COL_PAUSED));
	sub->at_home = strcmp(TextDatumGetCString(column(row, COL_HOME)), eo_relay.home) == 0;
	sub->identity = make_identity(row, sub->id);
	sub->seek_number = DatumGetInt32(column(row, COL_SEEK_NUMBER));
	sub->seek_seq = is_null(row, COL_SEEK_SEQ) ? 0 : DatumGetInt64(column(row, COL_SEEK_SEQ));
	sub->row_xmin = xmin;
	sub->pull = server == NULL;
	if (!sub->pull)
		target = eo_target_read(NameStr(*server),
								NameStr(*DatumGetName(column(row, COL_OWNER))),
								DatumGetJsonbP(column(row, COL_OPTIONS)));
	if (target != NULL && sub->target != NULL &&
		strcmp(target->fingerprint, sub->target->fingerprint) != 0)
	{
		sub->restart_wanted = true;
		sub->acked.position_kept = false;
		eo_progress_note(sub);
		renewed = true;
	}
	sub->target = target;
	sub->load_retries = true;
	if (renewed)
		eo_subscription_renew(sub);
}

static void
read_row(uint64 row)
{
	int32		id = DatumGetInt32(column(row, COL_ID));
	EoSubscription *sub = find(id);
	MemoryContext before;
	MemoryContext old;

	if (sub == NULL)
		sub = add(id);
	sub->seen = true;

	/* The old configuration goes when the new one has been compared with it. */
	before = sub->config_context;
	sub->config_context = AllocSetContextCreate(sub->context, "eo_outbox configuration",
												ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(sub->config_context);
	read_configuration(sub, row);
	MemoryContextSwitchTo(old);
	if (before != NULL)
		MemoryContextDelete(before);

	if (!is_null(row, COL_CURSOR_SEQ) && (!sub->has_cursor || sub->pull))
		read_cursor(sub, row);
}

static void
read_positions(EoSubscription *sub)
{
	Datum		id = Int32GetDatum(sub->id);
	uint64		n = eo_statement_run(&select_positions, &id, NULL, SPI_OK_SELECT);

	for (uint64 row = 0; row < n; row++)
	{
		text	   *name = DatumGetTextPP(column(row, 1));
		EoTopic    *topic = eo_topic(sub, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));

		topic->acked = topic->sent = DatumGetInt64(column(row, 2));
	}
	sub->has_positions = true;
}

static void
remove_unseen(void)
{
	EoSubscription **link = &eo_relay.subscriptions;

	while (*link != NULL)
	{
		EoSubscription *sub = *link;

		if (sub->seen)
		{
			link = &sub->next;
			continue;
		}
		ereport(LOG,
				(errmsg("subscription \"%s\" was removed", sub->name ? sub->name : "?")));
		*link = sub->next;
		eo_subscription_destroy(sub);
	}
}

/* The rows that the relay keeps for subscriptions come and go with them. */
static void
tidy_tables(void)
{
	Datum		home = CStringGetTextDatum(eo_relay.home);

	eo_statement_run(&insert_cursors, &home, NULL, SPI_OK_INSERT);
	for (int i = 0; i < lengthof(delete_orphans); i++)
		eo_statement_run(&delete_orphans[i], NULL, NULL, SPI_OK_DELETE);
}

bool
eo_subscriptions_load(void)
{
	uint64		n;

	/*
	 * Who changed something tells us before the invalidation messages are out,
	 * so the caches may be stale.
	 */
	InvalidateSystemCaches();
	eo_relay_begin(true);
	if (!eo_relay_lock_tables(RowExclusiveLock) || !eo_relay_lock_lineage() ||
		!eo_lineage_refresh(eo_relay.db, false))
	{
		eo_relay_abort(true);
		return false;
	}
	if (pg_atomic_read_u32(&eo_relay.db->lineage) == EO_LINEAGE_CONTINUED)
		eo_relay_record_lineage();
	tidy_tables();
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
		sub->seen = false;
	n = eo_statement_run(&select_subscriptions, NULL, NULL, SPI_OK_SELECT);
	for (uint64 row = 0; row < n; row++)
		read_row(row);
	for (EoSubscription *sub = eo_relay.subscriptions; sub != NULL; sub = sub->next)
	{
		if (sub->seen && !sub->pull && !sub->has_positions)
			read_positions(sub);
	}
	eo_relay_commit(true);
	remove_unseen();
	eo_relay.truncate_due = true;
	eo_relay.wrote = true;
	return true;
}

int64
eo_subscriptions_low_seq(void)
{
	bool		isnull;
	Datum		low;

	eo_statement_run(&select_low_seq, NULL, NULL, SPI_OK_SELECT);
	low = eo_statement_column(0, 1, &isnull);
	return isnull ? (int64) pg_atomic_read_u64(&eo_relay.db->last_seq) : DatumGetInt64(low);
}
