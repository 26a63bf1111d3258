/*
 * exclusive.c
 *
 * Locks a table for TRUNCATE.
 *
 * Who waits for an AccessExclusiveLock makes all wait that come after him.  If
 * one of those who have the table keeps it, such as pg_dump or a transaction
 * that somebody forgot, that could be hours.  So the lock is taken only if it is
 * free at once.
 *
 * Under load it never is: there is always one of many who looks something up.
 * All of those are quick, though.  If nobody who had the table at the last
 * attempt has it now, it is worth to wait in line, for a moment.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "store/exclusive.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

static TimeoutId moment = MAX_TIMEOUTS;

/* Notes who has the table.  Returns whether one of them had it before, too. */
static bool
note_holders(Oid relid, EoHolders *holders)
{
	EoHolders	before = *holders;
	VirtualTransactionId *ids;
	bool		lasting = false;
	LOCKTAG		tag;
	int			n;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	ids = GetLockConflicts(&tag, AccessExclusiveLock, &n);
	holders->count = Min(n, lengthof(holders->ids));
	for (int i = 0; i < holders->count; i++)
	{
		holders->ids[i] = ids[i];
		for (int j = 0; j < before.count; j++)
			lasting |= VirtualTransactionIdEquals(ids[i], before.ids[j]);
	}
	return lasting;
}

/* Ends the wait as pg_cancel_backend() would. */
static void
moment_over(void)
{
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
end_moment(void)
{
	disable_timeout(moment, false);
	QueryCancelPending = false;
}

/* The ERROR that ends the wait takes a subtransaction along. */
static bool
wait_for_a_moment(Oid relid)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool taken = false;

	if (moment == MAX_TIMEOUTS)
		moment = RegisterTimeout(USER_TIMEOUT, moment_over);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		enable_timeout_after(moment, EO_EXCLUSIVE_MOMENT_MS);
		LockRelationOid(relid, AccessExclusiveLock);
		end_moment();
		ReleaseCurrentSubTransaction();
		taken = true;
	}
	PG_CATCH();
	{
		end_moment();
		MemoryContextSwitchTo(context);
		if (CopyErrorData()->sqlerrcode != ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return taken;
}

/* Whoever has one of a table's indexes has the table, as a rule. */
static bool
lock_indexes(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	bool		taken = true;
	ListCell   *lc;

	foreach(lc, indexes)
		taken = taken && ConditionalLockRelationOid(lfirst_oid(lc), AccessExclusiveLock);
	list_free(indexes);
	return taken;
}

static bool
lock_parts(Oid relid)
{
	Relation	rel = relation_open(relid, NoLock);
	Oid			toast = rel->rd_rel->reltoastrelid;
	bool		taken = lock_indexes(rel);

	relation_close(rel, NoLock);
	if (!taken || !OidIsValid(toast))
		return taken;
	if (!ConditionalLockRelationOid(toast, AccessExclusiveLock))
		return false;
	rel = relation_open(toast, NoLock);
	taken = lock_indexes(rel);
	relation_close(rel, NoLock);
	return taken;
}

EoExclusiveResult
eo_exclusive_lock(Oid relid, EoHolders *holders)
{
	if (!ConditionalLockRelationOid(relid, AccessExclusiveLock))
	{
		bool		first = holders->count == 0;

		if (note_holders(relid, holders))
			return EO_EXCLUSIVE_HELD;
		if (first || !wait_for_a_moment(relid))
			return EO_EXCLUSIVE_BUSY;
	}
	holders->count = 0;
	return lock_parts(relid) ? EO_EXCLUSIVE_TAKEN : EO_EXCLUSIVE_BUSY;
}
