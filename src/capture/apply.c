/*
 * apply.c
 *
 * Applies events of changes to a table.
 *
 * What was applied last is recorded for each key (capture/applied.c), in the
 * same transaction.  An event that is not newer is stale, unless the row is not
 * there although the last event did not delete it: then somebody has emptied
 * the table to have it rebuilt, and the history of the key begins anew with the
 * event.  So a replay from the beginning leads to the same table, whether the
 * table was emptied before or not.
 *
 * The record is written first: whoever comes with another event of the key
 * waits for this transaction, without having a lock that this one might need.
 *
 * Events and truncations of a table exclude each other by locks on the table.
 */
#include "postgres.h"

#include "access/relation.h"
#include "capture/applied.h"
#include "capture/apply.h"
#include "capture/apply_event.h"
#include "capture/apply_target.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/rel.h"
#include "utils/rls.h"

/* A statement whose event is applied, for the context of errors */
typedef struct Application
{
	Relation	rel;
	EoTarget   *target;
	const EoChange *change;
} Application;

static bool
has_row_security(const Application *application)
{
	return check_enable_rls(RelationGetRelid(application->rel), InvalidOid, true) == RLS_ENABLED;
}

/*
 * Finds the record of a row's key, and returns whether the event counts.  If
 * not, the record is not open.  `there` tells whether the row is likely to be.
 */
static bool
is_due(const Application *application, const EoTargetRow *row, EoApplied *applied, bool *there)
{
	Oid			relid = RelationGetRelid(application->rel);
	int64		seq = application->change->seq;

	if (seq <= eo_applied_truncation(relid))
		return false;
	eo_applied_open(applied, relid, eo_target_key(application->target, row));
	*there = applied->known && !applied->deleted && seq > applied->seq;
	if (!applied->known || seq > applied->seq)
		return true;
	if (!applied->deleted && !eo_target_has(application->target, row))
		return true;
	eo_applied_close(applied);
	return false;
}

/*
 * Writes a row that others than us may insert and delete meanwhile.  What a
 * trigger keeps from being written stays as it is.
 */
static EoApplyResult
write_row(const Application *application, const EoTargetRow *row, bool there)
{
	EoTarget   *target = application->target;

	if (there && eo_target_update(target, row))
		return EO_APPLY_UPDATED;
	for (int attempt = 0; attempt < 2; attempt++)
	{
		if (there && attempt == 0 && eo_target_has(target, row))
			return EO_APPLY_UNCHANGED;
		if (eo_target_insert(target, row))
			return EO_APPLY_INSERTED;
		if (eo_target_update(target, row))
			return EO_APPLY_UPDATED;
	}
	if (has_row_security(application) && !eo_target_has(target, row))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security of table \"%s\" hides a row with this key",
						RelationGetRelationName(application->rel)),
				 errhint("Apply events as a role that row security does not apply to.")));
	return EO_APPLY_UNCHANGED;
}

static EoApplyResult
put_row(const Application *application)
{
	EoTargetRow row;
	EoApplied	applied;
	bool		there;

	eo_target_read_row(application->target, application->change, &row);
	if (!is_due(application, &row, &applied, &there))
		return EO_APPLY_STALE;
	eo_applied_store(&applied, application->change->seq, false);
	eo_applied_close(&applied);
	return write_row(application, &row, there);
}

/*
 * Where row security hides rows, that there is none to delete proves nothing:
 * to record it would let somebody keep others from writing rows that he cannot
 * even see.
 */
static EoApplyResult
delete_row(const Application *application)
{
	EoTargetRow row;
	EoApplied	applied;
	bool		hidden = has_row_security(application);
	bool		found = false;
	bool		there;

	eo_target_read_key(application->target, application->change, &row);
	if (!is_due(application, &row, &applied, &there))
		return EO_APPLY_STALE;
	if (hidden)
		found = eo_target_delete(application->target, &row);
	if (found || !hidden)
		eo_applied_store(&applied, application->change->seq, true);
	eo_applied_close(&applied);
	if (!hidden)
		found = eo_target_delete(application->target, &row);
	return found ? EO_APPLY_DELETED : EO_APPLY_UNCHANGED;
}

/* A row whose last event came after the truncation */
static bool
came_later(Oid relid, text *key)
{
	EoApplied	applied;

	eo_applied_open(&applied, relid, key);
	eo_applied_close(&applied);
	return applied.known && !applied.deleted;
}

static EoApplyResult
truncate_rows(const Application *application)
{
	Oid			relid = RelationGetRelid(application->rel);
	int64		seq = application->change->seq;

	if (has_row_security(application))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot apply a truncation to table \"%s\", of which row security hides rows",
						RelationGetRelationName(application->rel)),
				 errhint("Apply events as a role that row security does not apply to.")));
	if (seq <= eo_applied_truncation(relid))
		return EO_APPLY_STALE;
	if (eo_applied_truncate(relid, seq))
		eo_target_delete_but(application->target, came_later);
	else
		eo_target_delete_all(application->target);
	return EO_APPLY_TRUNCATED;
}

static EoApplyResult
apply(const Application *application)
{
	switch (application->change->op)
	{
		case EO_OP_INSERTED:
		case EO_OP_UPDATED:
		case EO_OP_READ:
			return put_row(application);
		case EO_OP_DELETED:
			return delete_row(application);
		case EO_OP_TRUNCATED:
			return truncate_rows(application);
	}
	pg_unreachable();
}

static void
error_context(void *arg)
{
	const Application *application = arg;

	errcontext("applying event " INT64_FORMAT " to table \"%s\"", application->change->seq,
			   RelationGetRelationName(application->rel));
}

static void
check_transaction(void)
{
	PreventCommandIfReadOnly("eo.apply_change()");
	PreventCommandIfParallelMode("eo.apply_change()");
	PreventCommandDuringRecovery("eo.apply_change()");
}

/*
 * Not before it is known that the caller may write the table, or anybody could
 * hold up those who do.  A truncation takes the lock that it needs at once: two
 * that have a weaker one would wait for each other.
 */
static Relation
open_target(Oid relid, EoCaptureOp op)
{
	LOCKMODE	lockmode = op == EO_OP_TRUNCATED ? ShareRowExclusiveLock : RowExclusiveLock;
	Relation	rel;

	eo_target_check_privileges(relid);
	rel = try_relation_open(relid, lockmode);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table with OID %u does not exist", relid)));
	return rel;
}

EoApplyResult
eo_apply_change(Oid target, Jsonb *event)
{
	EoChange	change;
	Application application = {.change = &change};
	ErrorContextCallback callback = {.callback = error_context,.arg = &application};
	EoApplyResult result;

	check_transaction();
	eo_change_read(&change, event);
	application.rel = open_target(target, change.op);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	application.target = eo_target_acquire(application.rel);
	SPI_connect();
	PG_TRY();
	{
		result = apply(&application);
	}
	PG_FINALLY();
	{
		eo_target_release(application.target);
	}
	PG_END_TRY();
	SPI_finish();
	error_context_stack = callback.previous;
	relation_close(application.rel, NoLock);
	return result;
}
