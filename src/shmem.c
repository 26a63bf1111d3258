/*
 * shmem.c
 *
 * Allocation of the shared memory, of the slots in it, and the wake-ups that
 * pass through it.  What each lock protects is said in shmem.h.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "settings.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

EoShared   *eo_shared = NULL;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* The slot of MyDatabaseId: slots are never moved while somebody is connected. */
static EoDatabase *my_database = NULL;

static Size
shared_size(void)
{
	Size		size = MAXALIGN(sizeof(EoShared));

	size = add_size(size, MAXALIGN(mul_size(eo_max_databases, sizeof(EoDatabase))));
	size = add_size(size, MAXALIGN(mul_size(eo_max_subscriptions, sizeof(EoSubscriptionSlot))));
	size = add_size(size, MAXALIGN(mul_size(eo_max_consumers, sizeof(EoTallySlot))));
	return add_size(size, mul_size(MaxBackends, sizeof(pg_atomic_uint64)));
}

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("eo_outbox", 2);
}

/* Sets the fields that say something about one database to "nothing known". */
static void
init_database_slot(EoDatabase *db)
{
	db->dboid = InvalidOid;
	pg_atomic_write_u32(&db->log_ready, 0);
	pg_atomic_write_u32(&db->lineage, EO_LINEAGE_UNKNOWN);
	pg_atomic_write_u32(&db->lineage_stale, 0);
	pg_atomic_write_u32(&db->epoch, 0);
	pg_atomic_write_u64(&db->last_seq, 0);
	pg_atomic_write_u64(&db->floor_seq, 0);
	pg_atomic_write_u32(&db->active_segment, 0);
	for (int i = 0; i < EO_SEGMENTS; i++)
	{
		EoSegment  *segment = &db->segments[i];

		pg_atomic_write_u64(&segment->first_seq, 0);
		pg_atomic_write_u64(&segment->last_seq, 0);
		pg_atomic_write_u64(&segment->first_append, 0);
		pg_atomic_write_u64(&segment->last_append, 0);
		pg_atomic_write_u32(&segment->native_filenode, InvalidOid);
		pg_atomic_write_u32(&segment->generation, 0);
		segment->tail_block = InvalidBlockNumber;
		segment->filenode = InvalidOid;
	}
	pg_atomic_write_u64(&db->ended, 0);
	pg_atomic_write_u32(&db->generations_ready, 0);
	pg_atomic_write_u32(&db->registry_changing, 0);
	pg_atomic_fetch_add_u32(&db->registry_epoch, 1);
	for (int f = 0; f < EO_FAMILIES; f++)
	{
		for (int c = 0; c < EO_CLASSES; c++)
		{
			pg_atomic_write_u32(&db->generations[f][c].current, 0);
			pg_atomic_write_u64(&db->generations[f][c].switched_at, 0);
			pg_atomic_write_u64(&db->generations[f][c].first_at, 0);
		}
	}
	db->relay_pid = 0;
	db->relay_latch = NULL;
	pg_atomic_write_u32(&db->relay_sleeping, 0);
	pg_atomic_write_u32(&db->config_generation, 0);
	pg_atomic_write_u32(&db->chores, 0);
	pg_atomic_write_u32(&db->config_prepared, 0);
	db->relay_wanted = false;
	db->relay_failed = false;
	db->holds = 0;
	db->snapshot_pid = 0;
	db->snapshot_failed = false;
	pg_atomic_write_u32(&db->stall_xid, 0);
	pg_atomic_write_u64(&db->stall_seq, 0);
	pg_atomic_write_u64(&db->stall_since, 0);
}

static void
init_shared(void)
{
	char	   *memory = (char *) eo_shared + MAXALIGN(sizeof(EoShared));

	memset(eo_shared, 0, sizeof(EoShared));
	eo_shared->lock = &(GetNamedLWLockTranche("eo_outbox"))[0].lock;
	eo_shared->tally_lock = &(GetNamedLWLockTranche("eo_outbox"))[1].lock;
	eo_shared->ndatabases = eo_max_databases;
	eo_shared->nsubscriptions = eo_max_subscriptions;
	eo_shared->databases = (EoDatabase *) memory;
	memory += MAXALIGN(eo_max_databases * sizeof(EoDatabase));
	eo_shared->subscriptions = (EoSubscriptionSlot *) memory;
	memory += MAXALIGN(eo_max_subscriptions * sizeof(EoSubscriptionSlot));
	eo_shared->ntallies = eo_max_consumers;
	eo_shared->tallies = (EoTallySlot *) memory;
	memset(eo_shared->tallies, 0, eo_max_consumers * sizeof(EoTallySlot));
	memory += MAXALIGN(eo_max_consumers * sizeof(EoTallySlot));
	eo_shared->nbackends = MaxBackends;
	eo_shared->appended = (pg_atomic_uint64 *) memory;
	for (int i = 0; i < MaxBackends; i++)
		pg_atomic_init_u64(&eo_shared->appended[i], 0);
	for (int i = 0; i < eo_max_databases; i++)
	{
		EoDatabase *db = &eo_shared->databases[i];

		memset(db, 0, sizeof(EoDatabase));
		pg_atomic_init_u32(&db->log_ready, 0);
		pg_atomic_init_u32(&db->lineage, 0);
		pg_atomic_init_u32(&db->lineage_stale, 0);
		pg_atomic_init_u32(&db->epoch, 0);
		pg_atomic_init_u64(&db->last_seq, 0);
		pg_atomic_init_u64(&db->floor_seq, 0);
		pg_atomic_init_u32(&db->active_segment, 0);
		for (int s = 0; s < EO_SEGMENTS; s++)
		{
			pg_atomic_init_u64(&db->segments[s].first_seq, 0);
			pg_atomic_init_u64(&db->segments[s].last_seq, 0);
			pg_atomic_init_u64(&db->segments[s].first_append, 0);
			pg_atomic_init_u64(&db->segments[s].last_append, 0);
			pg_atomic_init_u32(&db->segments[s].native_filenode, 0);
			pg_atomic_init_u32(&db->segments[s].generation, 0);
		}
		pg_atomic_init_u64(&db->ended, 0);
		pg_atomic_init_u32(&db->waiters, 0);
		ConditionVariableInit(&db->events_ended);
		pg_atomic_init_u32(&db->registry_epoch, 1);
		pg_atomic_init_u32(&db->registry_changing, 0);
		pg_atomic_init_u32(&db->generations_ready, 0);
		for (int f = 0; f < EO_FAMILIES; f++)
		{
			for (int c = 0; c < EO_CLASSES; c++)
			{
				pg_atomic_init_u32(&db->generations[f][c].current, 0);
				pg_atomic_init_u64(&db->generations[f][c].switched_at, 0);
				pg_atomic_init_u64(&db->generations[f][c].first_at, 0);
			}
		}
		pg_atomic_init_u64(&db->lease_changes, 0);
		ConditionVariableInit(&db->leases_changed);
		pg_atomic_init_u32(&db->relay_sleeping, 0);
		pg_atomic_init_u32(&db->config_generation, 0);
		pg_atomic_init_u32(&db->chores, 0);
		pg_atomic_init_u32(&db->config_prepared, 0);
		pg_atomic_init_u32(&db->stall_xid, 0);
		pg_atomic_init_u64(&db->stall_seq, 0);
		pg_atomic_init_u64(&db->stall_since, 0);
		ConditionVariableInit(&db->relay_changed);
		init_database_slot(db);
	}
	for (int i = 0; i < eo_max_subscriptions; i++)
	{
		EoSubscriptionSlot *slot = &eo_shared->subscriptions[i];

		memset(slot, 0, sizeof(EoSubscriptionSlot));
		SpinLockInit(&slot->mutex);
		ConditionVariableInit(&slot->advanced);
	}
}

static void
shmem_startup(void)
{
	bool		found;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	eo_shared = ShmemInitStruct("eo_outbox", shared_size(), &found);
	if (!found)
		init_shared();
	LWLockRelease(AddinShmemInitLock);
}

void
eo_shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* Caller holds eo_shared->lock. */
static EoDatabase *
find_database(Oid dboid)
{
	for (int i = 0; i < eo_shared->ndatabases; i++)
	{
		if (eo_shared->databases[i].dboid == dboid)
			return &eo_shared->databases[i];
	}
	return NULL;
}

EoDatabase *
eo_database_slot_try(Oid dboid)
{
	EoDatabase *db;

	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	db = find_database(dboid);
	if (db == NULL)
	{
		db = find_database(InvalidOid);
		if (db != NULL)
		{
			init_database_slot(db);
			db->dboid = dboid;
		}
	}
	LWLockRelease(eo_shared->lock);
	return db;
}

EoDatabase *
eo_database_slot(Oid dboid, bool create)
{
	EoDatabase *db;

	LWLockAcquire(eo_shared->lock, LW_SHARED);
	db = find_database(dboid);
	LWLockRelease(eo_shared->lock);
	if (db != NULL || !create)
		return db;
	db = eo_database_slot_try(dboid);
	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases use eo_outbox"),
				 errhint("Increase eo_outbox.max_databases (now %d) and restart the server.",
						 eo_max_databases)));
	return db;
}

EoDatabase *
eo_my_database(void)
{
	if (my_database == NULL || my_database->dboid != MyDatabaseId)
		my_database = eo_database_slot(MyDatabaseId, true);
	return my_database;
}

/* Caller holds eo_shared->lock. */
static void
free_subscriptions(Oid dboid)
{
	for (int i = 0; i < eo_shared->nsubscriptions; i++)
	{
		if (eo_shared->subscriptions[i].dboid == dboid)
			eo_shared->subscriptions[i].dboid = InvalidOid;
	}
}

static void
free_tallies(Oid dboid)
{
	LWLockAcquire(eo_shared->tally_lock, LW_EXCLUSIVE);
	for (int i = 0; i < eo_shared->ntallies; i++)
	{
		if (eo_shared->tallies[i].dboid == dboid)
			eo_shared->tallies[i].dboid = InvalidOid;
	}
	LWLockRelease(eo_shared->tally_lock);
}

void
eo_database_slot_free(Oid dboid)
{
	EoDatabase *db;

	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	db = find_database(dboid);
	if (db != NULL)
		init_database_slot(db);
	free_subscriptions(dboid);
	LWLockRelease(eo_shared->lock);
	free_tallies(dboid);
}

void
eo_database_forget_log(EoDatabase *db)
{
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	free_subscriptions(db->dboid);
	LWLockRelease(eo_shared->lock);
	free_tallies(db->dboid);
	pg_atomic_write_u64(&db->floor_seq, 0);
	pg_atomic_write_u32(&db->log_ready, 0);
	eo_database_forget_registry(db);
}

void
eo_database_forget_registry(EoDatabase *db)
{
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	pg_atomic_fetch_add_u32(&db->registry_epoch, 1);
	pg_atomic_write_u32(&db->generations_ready, 0);
	LWLockRelease(eo_shared->lock);
	/* The leases of a scope that was dropped are gone. */
	eo_leases_changed(db);
}

void
eo_leases_changed(EoDatabase *db)
{
	pg_atomic_fetch_add_u64(&db->lease_changes, 1);
	ConditionVariableBroadcast(&db->leases_changed);
}

void
eo_relay_request(Oid dboid)
{
	EoDatabase *db;
	Latch	   *latch;

	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	db = find_database(dboid);
	if (db != NULL)
		db->relay_wanted = true;
	latch = eo_shared->launcher_latch;
	LWLockRelease(eo_shared->lock);
	if (latch != NULL)
		SetLatch(latch);
}

void
eo_relay_wake(EoDatabase *db)
{
	/*
	 * The addition is a full barrier: either we see the relay asleep, or the
	 * relay, which looks at the counter after it has set relay_sleeping, sees
	 * that we have ended.
	 */
	pg_atomic_fetch_add_u64(&db->ended, 1);
	if (pg_atomic_read_u32(&db->waiters) != 0)
		ConditionVariableBroadcast(&db->events_ended);
	if (pg_atomic_read_u32(&db->relay_sleeping) != 0)
	{
		Latch	   *latch = db->relay_latch;

		if (latch != NULL)
			SetLatch(latch);
	}
}

void
eo_relay_rouse(EoDatabase *db)
{
	Latch	   *latch;

	pg_atomic_fetch_add_u32(&db->chores, 1);
	latch = db->relay_latch;
	if (latch != NULL)
		SetLatch(latch);
}

void
eo_relay_config_changed(EoDatabase *db)
{
	Latch	   *latch;

	pg_atomic_fetch_add_u32(&db->config_generation, 1);
	latch = db->relay_latch;
	if (latch != NULL)
		SetLatch(latch);
	else
		eo_relay_request(db->dboid);
}

EoSubscriptionSlot *
eo_subscription_slot(Oid dboid, int32 id, bool create)
{
	EoSubscriptionSlot *slot = NULL;
	EoSubscriptionSlot *free_slot = NULL;

	LWLockAcquire(eo_shared->lock, create ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < eo_shared->nsubscriptions; i++)
	{
		EoSubscriptionSlot *candidate = &eo_shared->subscriptions[i];

		if (candidate->dboid == dboid && candidate->id == id)
		{
			slot = candidate;
			break;
		}
		if (free_slot == NULL && candidate->dboid == InvalidOid)
			free_slot = candidate;
	}
	if (slot == NULL && create && free_slot != NULL)
	{
		slot = free_slot;
		slot->dboid = dboid;
		slot->id = id;
		SpinLockAcquire(&slot->mutex);
		memset(&slot->stats, 0, sizeof(slot->stats));
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(eo_shared->lock);
	return slot;
}

void
eo_subscription_slot_free(Oid dboid, int32 id)
{
	EoSubscriptionSlot *slot = eo_subscription_slot(dboid, id, false);

	if (slot == NULL)
		return;
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	if (slot->dboid == dboid && slot->id == id)
		slot->dboid = InvalidOid;
	LWLockRelease(eo_shared->lock);
	ConditionVariableBroadcast(&slot->advanced);
}

EoSubscriptionStats
eo_subscription_stats(EoSubscriptionSlot *slot)
{
	EoSubscriptionStats stats;

	SpinLockAcquire(&slot->mutex);
	stats = slot->stats;
	SpinLockRelease(&slot->mutex);
	return stats;
}
