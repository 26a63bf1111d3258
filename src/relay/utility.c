/*
 * utility.c
 *
 * Commands that concern the relay.
 *
 * Servers, user mappings and roles are configuration of the relay that lives in
 * PostgreSQL's own catalogs: after a command that may change them, the relay is
 * told at commit.  DROP EXTENSION is a change of that kind.
 *
 * DROP DATABASE and its like need a database without connections, and wait five
 * seconds for them to go away.  A relay would not, nor would the worker of
 * eo.snapshot(), so they are put on hold: told to leave, and not started again
 * before the transaction is over, whichever way it ends.  Only who may run the
 * command can do that.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "compat.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "relay/backoff.h"
#include "relay/utility.h"
#include "shmem.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* The longest wait for a relay to leave; the command itself waits as long. */
#define HOLD_WAIT_MS	5000

/* A template that CREATE DATABASE copies when it names none */
#define DEFAULT_TEMPLATE	"template1"

static ProcessUtility_hook_type previous_hook = NULL;

/* A command of this transaction may have changed configuration. */
static bool config_changed = false;

/* Databases that this transaction has put on hold */
static List *held = NIL;

/*----------
 * Configuration
 *----------
 */

static bool
is_configuration(ObjectType type)
{
	switch (type)
	{
		case OBJECT_FDW:
		case OBJECT_FOREIGN_SERVER:
		case OBJECT_USER_MAPPING:
		case OBJECT_EXTENSION:
		case OBJECT_SCHEMA:
		case OBJECT_ROLE:
			return true;
		default:
			return false;
	}
}

/*
 * Whether what is to be committed now may have been prepared with such a
 * command.  That is not remembered across a restart, after which the relay
 * would learn of the change with the next one.
 */
static bool
commits_configuration(TransactionStmt *statement)
{
	EoDatabase *db;

	if (statement->kind != TRANS_STMT_COMMIT_PREPARED)
		return false;
	db = eo_database_slot(MyDatabaseId, false);
	return db != NULL && pg_atomic_read_u32(&db->config_prepared) != 0;
}

static bool
changes_configuration(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_CreateForeignServerStmt:
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
		case T_DropUserMappingStmt:
		case T_DropOwnedStmt:
		case T_ReassignOwnedStmt:
		case T_DropRoleStmt:
		case T_AlterExtensionStmt:
			return true;
		case T_TransactionStmt:
			return commits_configuration((TransactionStmt *) parsetree);
		case T_DropStmt:
			return is_configuration(((DropStmt *) parsetree)->removeType);
		case T_RenameStmt:
			return is_configuration(((RenameStmt *) parsetree)->renameType);
		case T_AlterOwnerStmt:
			return is_configuration(((AlterOwnerStmt *) parsetree)->objectType);
		default:
			return false;
	}
}

/*----------
 * Holds
 *----------
 */

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = superuser();

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may |= ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

static bool
is_template(Oid dboid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	bool		result = false;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* Whether the user may do to a database what the command does. */
static bool
may_run(Oid dboid, bool as_template)
{
	if (as_template)
		return may_create_databases() &&
			(is_template(dboid) || EoOwnsDatabase(dboid, GetUserId()));
	return EoOwnsDatabase(dboid, GetUserId());
}

/*
 * The database that a command needs to itself, if the user may run it;
 * InvalidOid if it is not such a command.  *command is set where it may not run
 * inside a transaction block.
 */
static Oid
database_of_command(Node *parsetree, const char **command)
{
	const char *name = NULL;
	bool		template = false;
	Oid			dboid;
	ListCell   *lc;

	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			*command = "DROP DATABASE";
			name = ((DropdbStmt *) parsetree)->dbname;
			break;
		case T_RenameStmt:
			*command = NULL;
			if (((RenameStmt *) parsetree)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) parsetree)->subname;
			break;
		case T_AlterDatabaseStmt:
			*command = "ALTER DATABASE SET TABLESPACE";
			foreach(lc, ((AlterDatabaseStmt *) parsetree)->options)
			{
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) parsetree)->dbname;
			}
			break;
		case T_CreatedbStmt:
			*command = "CREATE DATABASE";
			name = DEFAULT_TEMPLATE;
			template = true;
			foreach(lc, ((CreatedbStmt *) parsetree)->options)
			{
				DefElem    *option = lfirst_node(DefElem, lc);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					name = defGetString(option);
			}
			break;
		default:
			break;
	}
	if (name == NULL)
		return InvalidOid;
	dboid = get_database_oid(name, true);
	if (!OidIsValid(dboid) || (dboid == MyDatabaseId && !template) ||
		!may_run(dboid, template))
		return InvalidOid;
	return dboid;
}

/* Takes a hold.  Returns false if no relay was ever there. */
static bool
take_hold(Oid dboid)
{
	EoDatabase *db = eo_database_slot(dboid, false);
	MemoryContext old;

	if (db == NULL)
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	held = lappend_oid(held, dboid);
	MemoryContextSwitchTo(old);
	LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
	db->holds++;
	LWLockRelease(eo_shared->lock);
	return true;
}

/* The transaction is over.  Must not throw. */
static void
release_holds(void)
{
	ListCell   *lc;

	foreach(lc, held)
	{
		EoDatabase *db = eo_database_slot(lfirst_oid(lc), false);

		if (db == NULL)
			continue;
		LWLockAcquire(eo_shared->lock, LW_EXCLUSIVE);
		if (db->holds > 0)
			db->holds--;
		LWLockRelease(eo_shared->lock);

		/* The launcher starts a relay, or finds that the database is gone. */
		eo_relay_request(lfirst_oid(lc));
	}
	list_free(held);
	held = NIL;
}

static void
terminate(pid_t pid)
{
	if (pid != 0)
		(void) kill(pid, SIGTERM);
}

/* Tells the relay and its worker to leave and waits until they have, for a while. */
static void
stop_relay(Oid dboid)
{
	EoDatabase *db = eo_database_slot(dboid, false);
	int64		until = eo_clock_ms() + HOLD_WAIT_MS;

	if (db == NULL)
		return;
	ConditionVariablePrepareToSleep(&db->relay_changed);
	for (;;)
	{
		pid_t		relay;
		pid_t		worker;
		int64		left = until - eo_clock_ms();

		LWLockAcquire(eo_shared->lock, LW_SHARED);
		relay = db->relay_pid;
		worker = db->snapshot_pid;
		LWLockRelease(eo_shared->lock);
		if ((relay == 0 && worker == 0) || left <= 0)
			break;
		terminate(relay);
		terminate(worker);
		(void) ConditionVariableTimedSleep(&db->relay_changed, left, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/*----------
 * The hook
 *----------
 */

static void
run_command(PlannedStmt *statement, const char *text, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *environment, DestReceiver *dest,
			QueryCompletion *completion)
{
	if (previous_hook)
		previous_hook(statement, text, read_only_tree, context, params,
					  environment, dest, completion);
	else
		standard_ProcessUtility(statement, text, read_only_tree, context, params,
								environment, dest, completion);
}

static void
xact_callback(XactEvent event, void *arg)
{
	EoDatabase *db;

	switch (event)
	{
		case XACT_EVENT_PREPARE:
			if (config_changed && (db = eo_database_slot(MyDatabaseId, false)) != NULL)
				pg_atomic_write_u32(&db->config_prepared, 1);
			config_changed = false;
			release_holds();
			break;
		case XACT_EVENT_COMMIT:
			if (config_changed && (db = eo_database_slot(MyDatabaseId, false)) != NULL)
				eo_relay_config_changed(db);
			/* FALLTHROUGH */
		case XACT_EVENT_ABORT:
			config_changed = false;
			release_holds();
			break;
		default:
			break;
	}
}

static void
process_utility(PlannedStmt *statement, const char *text, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *dest,
				QueryCompletion *completion)
{
	const char *command = NULL;
	Oid			dboid = InvalidOid;

	if (IsTransactionState() && !RecoveryInProgress())
	{
		config_changed |= changes_configuration(statement->utilityStmt);
		dboid = database_of_command(statement->utilityStmt, &command);
	}
	/* It would fail there anyway: do not stop anything for it. */
	if (OidIsValid(dboid) && command != NULL)
		PreventInTransactionBlock(context == PROCESS_UTILITY_TOPLEVEL, command);
	if (OidIsValid(dboid) && take_hold(dboid))
		stop_relay(dboid);
	run_command(statement, text, read_only_tree, context, params,
				environment, dest, completion);
}

void
eo_utility_init(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(xact_callback, NULL);
}
