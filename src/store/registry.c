/*
 * registry.c
 *
 * Consumers and idempotency scopes, by name.
 *
 * Each backend caches the ones that it uses.  What matters about them, in which
 * class of tables their keys are, may change; a backend that went by the old
 * class would not see the keys that others put into the new one.  So a cached
 * owner is checked under the lock of the key that it is used for: it is read
 * again if registry_epoch has changed, or as long as a transaction is about to
 * commit such a change.  For keys of one owner that makes one order: who comes
 * after somebody that has seen the change, sees it, too.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "store/catalog.h"
#include "store/registry.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Columns that both tables of owners have */
enum
{
	COL_ID = 1, COL_NAME, COL_KEEP_FOR, COL_CLASS, COL_ALSO_CLASSES, COL_ALSO_UNTIL
};

/* The kind of advisory lock; see store/keyed_table.c for the other one. */
#define REGISTRATION_LOCK_KIND	102

/* Up to these, in us */
static const int64 class_limits[EO_CLASSES - 1] = {
	USECS_PER_DAY, 8 * USECS_PER_DAY
};

static const struct
{
	const char *table;
	const char *index;
	const char *noun;
	const char *insert;			/* with the default window */
}			families[EO_FAMILIES] = {
	{"consumer", "consumer_name_key", "consumer",
	"INSERT INTO eo.consumer (name, keep_for, class) VALUES ($1, '7 days', 1) ON CONFLICT DO NOTHING"},
	{"idempotency_scope", "idempotency_scope_name_key", "idempotency scope",
	"INSERT INTO eo.idempotency_scope (name, keep_for, class) VALUES ($1, '24 hours', 0) ON CONFLICT DO NOTHING"}
};

static HTAB *caches[EO_FAMILIES];

/* This transaction has changed the registry, and has said so in shared memory. */
static bool changed = false;
static bool announced = false;

const char *
eo_owner_noun(EoFamily family)
{
	return families[family].noun;
}

int
eo_class_of_window(int64 window_us)
{
	int			class = 0;

	while (class < EO_CLASSES - 1 && window_us > class_limits[class])
		class++;
	return class;
}

/*----------
 * Reading
 *----------
 */

static void
take_row(EoOwner *owner, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;

	owner->id = DatumGetInt32(heap_getattr(tuple, COL_ID, desc, &isnull));
	owner->class = DatumGetInt16(heap_getattr(tuple, COL_CLASS, desc, &isnull));
	owner->also_classes = DatumGetInt16(heap_getattr(tuple, COL_ALSO_CLASSES, desc, &isnull));
	owner->also_until = DatumGetTimestampTz(heap_getattr(tuple, COL_ALSO_UNTIL, desc, &isnull));
	if (isnull)
		owner->also_until = 0;

	/*
	 * Others do not see the move yet: they would not look where we put a key.
	 */
	if (owner->also_until == DT_NOEND &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("window of %s \"%s\" was changed by this transaction",
						families[owner->family].noun, owner->name),
				 errhint("Commit the change before you use it.")));
	if (owner->class < 0 || owner->class >= EO_CLASSES)
		elog(ERROR, "%s \"%s\" has no class %d", families[owner->family].noun,
			 owner->name, owner->class);
}

/* Reads the row as it is now, whatever the transaction's snapshot says. */
static bool
read_owner(EoOwner *owner)
{
	Oid			schema = eo_catalog_required()->schema;
	Relation	rel = table_open(get_relname_relid(families[owner->family].table, schema),
								 AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	ScanKeyInit(&key, COL_NAME, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(owner->name));
	scan = systable_beginscan(rel, get_relname_relid(families[owner->family].index, schema),
							  true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
		take_row(owner, tuple, RelationGetDescr(rel));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * In this order: a change is announced, committed, numbered, and no longer
 * announced.
 */
static bool
is_fresh(const EoOwner *owner, EoDatabase *db)
{
	bool		changing;

	pg_memory_barrier();
	changing = pg_atomic_read_u32(&db->registry_changing) != 0;
	pg_memory_barrier();
	return !changing && owner->epoch == pg_atomic_read_u32(&db->registry_epoch);
}

bool
eo_owner_refresh(EoOwner *owner)
{
	EoDatabase *db = eo_my_database();
	uint32		epoch;

	if (is_fresh(owner, db))
		return true;
	epoch = pg_atomic_read_u32(&db->registry_epoch);
	pg_memory_barrier();
	owner->epoch = 0;
	if (!read_owner(owner))
		return false;
	owner->epoch = epoch;
	return true;
}

/*----------
 * Looking up
 *----------
 */

static void
check_name(EoFamily family, text *name)
{
	const char *article = family == EO_INBOX ? "a" : "an";
	const char *data = VARDATA_ANY(name);
	int			len = VARSIZE_ANY_EXHDR(name);

	if (len == 0 || len > EO_OWNER_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("name of %s %s must have 1 to %d bytes", article, families[family].noun, EO_OWNER_NAME_MAX)));
	for (int i = 0; i < len; i++)
	{
		if ((unsigned char) data[i] < 0x20 || data[i] == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("name of %s %s contains a control character", article, families[family].noun)));
	}
}

static EoOwner *
cached_owner(EoFamily family, text *name)
{
	char		key[EO_OWNER_NAME_MAX + 1];
	EoOwner    *owner;
	bool		found;

	if (caches[family] == NULL)
	{
		HASHCTL		info = {.keysize = sizeof(key),.entrysize = sizeof(EoOwner),.hcxt = TopMemoryContext};

		caches[family] = hash_create("eo_outbox owners", 16, &info,
									 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	check_name(family, name);
	text_to_cstring_buffer(name, key, sizeof(key));
	owner = hash_search(caches[family], key, HASH_ENTER, &found);
	if (!found)
	{
		owner->family = family;
		owner->epoch = 0;
	}
	return owner;
}

/*
 * Of two that register the same owner one waits for the other's end.  Not in
 * the index, where nobody could refuse to wait.
 */
static bool
lock_registration(EoFamily family, text *name, bool wait)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
										   VARSIZE_ANY_EXHDR(name), (uint64) family);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash, REGISTRATION_LOCK_KIND);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
register_owner(EoOwner *owner)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(owner->name)};
	EoOwnerScope scope;

	eo_enter_owner(&scope);
	SPI_connect();
	if (SPI_execute_with_args(families[owner->family].insert, 1, types, values,
							  NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not register %s \"%s\"", families[owner->family].noun, owner->name);
	SPI_finish();
	eo_leave_owner(&scope);
}

static EoOwner *
find_or_register(EoFamily family, struct varlena *name, bool wait)
{
	EoOwner    *owner = cached_owner(family, (text *) name);

	if (eo_owner_refresh(owner))
		return owner;
	if (!lock_registration(family, (text *) name, wait))
		return NULL;
	if (eo_owner_refresh(owner))
		return owner;
	register_owner(owner);
	if (!eo_owner_refresh(owner))
		eo_owner_refuse_dropped(owner);
	return owner;
}

EoOwner *
eo_owner(EoFamily family, struct varlena *name)
{
	return find_or_register(family, name, true);
}

EoOwner *
eo_owner_try(EoFamily family, struct varlena *name)
{
	return find_or_register(family, name, false);
}

void
eo_owner_lock(EoFamily family, struct varlena *name)
{
	check_name(family, (text *) name);
	(void) lock_registration(family, (text *) name, true);
}

void
eo_owner_refuse_dropped(const EoOwner *owner)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("%s \"%s\" was dropped at the same time", families[owner->family].noun, owner->name),
			 errhint("Try again.")));
}

/*----------
 * Changes
 *----------
 */

/* What is cached was changed, or seen by a transaction that is rolled back. */
static void
distrust(void)
{
	HASH_SEQ_STATUS scan;
	EoOwner    *owner;

	for (int f = 0; f < EO_FAMILIES; f++)
	{
		if (caches[f] == NULL)
			continue;
		hash_seq_init(&scan, caches[f]);
		while ((owner = hash_seq_search(&scan)) != NULL)
			owner->epoch = 0;
	}
}

void
eo_registry_changed(void)
{
	(void) eo_my_database();
	distrust();
	changed = true;
}

static void
xact_callback(XactEvent event, void *arg)
{
	EoDatabase *db;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (changed)
			{
				pg_atomic_fetch_add_u32(&eo_my_database()->registry_changing, 1);
				announced = true;
			}
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (changed)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot prepare a transaction that has configured eo_outbox"),
						 errhint("Commit it in one phase; create consumers and scopes beforehand.")));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			if (event == XACT_EVENT_ABORT && changed)
				distrust();
			if (changed && (db = eo_database_slot(MyDatabaseId, false)) != NULL)
			{
				eo_database_forget_registry(db);
				if (announced)
					pg_atomic_fetch_sub_u32(&db->registry_changing, 1);
				if (event == XACT_EVENT_COMMIT)
					eo_relay_config_changed(db);
			}
			changed = announced = false;
			break;
		default:
			break;
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB && changed)
		distrust();
}

void
eo_registry_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
