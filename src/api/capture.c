/*
 * capture.c
 *
 * eo.capture(), eo.uncapture(), and what lets children of captured tables be
 * captured as well.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/transam.h"
#include "api/api.h"
#include "capture/shape.h"
#include "capture/triggers.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "store/catalog.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(eo_outbox_capture);
PG_FUNCTION_INFO_V1(eo_outbox_uncapture);
PG_FUNCTION_INFO_V1(eo_outbox_capture_setting);
PG_FUNCTION_INFO_V1(eo_outbox_capture_children);

/* Tables that were created or altered by the command, and nothing else. */
#define TOUCHED_TABLES \
	"SELECT DISTINCT objid FROM pg_catalog.pg_event_trigger_ddl_commands()" \
	" WHERE classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass" \
	" AND object_type OPERATOR(pg_catalog.=) 'table'"

/*----------
 * Arguments
 *----------
 */

static void
refuse_null(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what)));
}

static char *
text_argument(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

static char *
required_argument(FunctionCallInfo fcinfo, int arg, const char *what)
{
	if (PG_ARGISNULL(arg))
		refuse_null(what);
	return text_argument(fcinfo, arg);
}

/* A name[] as a list of char *; NIL if it is NULL. */
static List *
names_argument(FunctionCallInfo fcinfo, int arg, const char *what)
{
	List	   *names = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;

	if (PG_ARGISNULL(arg))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(arg), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &nelements);
	if (nelements == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what),
				 errhint("Use NULL for the default.")));
	for (int i = 0; i < nelements; i++)
	{
		if (nulls[i])
			refuse_null(what);
		names = lappend(names, pstrdup(NameStr(*DatumGetName(elements[i]))));
	}
	return names;
}

static void
read_arguments(FunctionCallInfo fcinfo, EoCaptureSpec *spec)
{
	memset(spec, 0, sizeof(EoCaptureSpec));
	spec->topic = text_argument(fcinfo, 1);
	spec->mode = eo_capture_mode(required_argument(fcinfo, 2, "mode"));
	spec->key = names_argument(fcinfo, 3, "key_columns");
	spec->columns = names_argument(fcinfo, 4, "columns");
	spec->exclude = names_argument(fcinfo, 5, "exclude");
	spec->type_prefix = text_argument(fcinfo, 6);
	spec->format = eo_capture_format(required_argument(fcinfo, 8, "format"));
}

/*----------
 * The table
 *----------
 */

static void
check_table(Relation rel)
{
	if (RelationGetNamespace(rel) == eo_catalog_required()->schema ||
		RelationGetRelid(rel) < FirstNormalObjectId)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" cannot be captured", RelationGetRelationName(rel)),
				 errdetail("It belongs to PostgreSQL or to eo_outbox itself.")));
	if (rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" cannot be captured", RelationGetRelationName(rel)),
				 errdetail("It is %s: its rows go away without any event.",
						   rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP ? "temporary" : "unlogged"),
				 errhint("Capture a permanent table; see ALTER TABLE ... SET LOGGED.")));
}

static void
refuse_captured(Relation rel)
{
	bool		child;

	if (!eo_captured(rel, &child))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 child ? errmsg("table \"%s\" is captured with the table that it belongs to", RelationGetRelationName(rel)) :
			 errmsg("table \"%s\" is captured already", RelationGetRelationName(rel)),
			 child ? errhint("Detach it from that one first, or create another trigger with eo.capture_row().") :
			 errhint("Use eo.uncapture() first, in the same transaction, so that no change is missed; or create another trigger with eo.capture_row().")));
}

/*
 * eo.capture(relation regclass, topic text, mode text, key_columns name[],
 *			  columns name[], exclude name[], type_prefix text,
 *			  when_clause text, format text) RETURNS void
 */
Datum
eo_outbox_capture(PG_FUNCTION_ARGS)
{
	EoCaptureSpec spec;
	Relation	rel;
	Oid			relid;

	PreventCommandIfReadOnly("eo.capture()");
	if (PG_ARGISNULL(0))
		refuse_null("relation");
	relid = PG_GETARG_OID(0);
	read_arguments(fcinfo, &spec);
	eo_api_check_table_owner(relid, "captured");
	rel = table_open(relid, ShareRowExclusiveLock);
	check_table(rel);
	refuse_captured(rel);
	eo_shape_check(rel, &spec);
	eo_capture_create(rel, &spec, text_argument(fcinfo, 7));
	table_close(rel, NoLock);
	PG_RETURN_VOID();
}

/* eo.uncapture(relation regclass) RETURNS void */
Datum
eo_outbox_uncapture(PG_FUNCTION_ARGS)
{
	Oid			relid;
	Relation	rel;
	bool		child;

	PreventCommandIfReadOnly("eo.uncapture()");
	eo_api_refuse_null(fcinfo, 0, "relation");
	relid = PG_GETARG_OID(0);
	eo_api_check_table_owner(relid, "captured");
	rel = table_open(relid, AccessExclusiveLock);
	if (!eo_captured(rel, &child))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not captured", RelationGetRelationName(rel)),
				 errhint("See the view eo.captures; triggers made by hand are dropped with DROP TRIGGER.")));
	if (child)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is captured with the table that it belongs to", RelationGetRelationName(rel)),
				 errhint("Use eo.uncapture() with that one, or detach this one from it.")));
	eo_capture_drop(rel);
	table_close(rel, NoLock);
	PG_RETURN_VOID();
}

/* eo.capture_setting(arguments bytea, name text) RETURNS text */
Datum
eo_outbox_capture_setting(PG_FUNCTION_ARGS)
{
	bytea	   *arguments = PG_GETARG_BYTEA_PP(0);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	const char *at = VARDATA_ANY(arguments);
	const char *end = at + VARSIZE_ANY_EXHDR(arguments);
	Size		len = strlen(name);

	while (at < end)
	{
		Size		size = strnlen(at, end - at);

		if (size > len && at[len] == '=' && strncmp(at, name, len) == 0)
			PG_RETURN_TEXT_P(cstring_to_text_with_len(at + len + 1, size - len - 1));
		at += size + 1;
	}
	PG_RETURN_NULL();
}

/*----------
 * Commands that concern captured tables
 *----------
 */

static void
after_alter(Oid relid, const AlterTableStmt *stmt)
{
	ListCell   *lc;

	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);
		Oid			partition;

		switch (cmd->subtype)
		{
			case AT_AddInherit:
			case AT_AttachPartition:
				eo_capture_join(relid);
				break;
			case AT_DropInherit:
				eo_capture_leave(relid);
				break;
			case AT_DetachPartition:
			case AT_DetachPartitionFinalize:
				partition = RangeVarGetRelid(castNode(PartitionCmd, cmd->def)->name, NoLock, true);
				if (OidIsValid(partition))
					eo_capture_leave(partition);
				break;
			case AT_DropColumn:
				eo_capture_check_key(relid);
				break;
			default:
				break;
		}
	}
}

/*
 * Only what changes who inherits from whom is acted upon.  A dump that is being
 * restored alters tables, too, and has triggers of its own for their children.
 */
static void
after_command(Oid relid, Node *command)
{
	if (IsA(command, AlterTableStmt))
		after_alter(relid, (AlterTableStmt *) command);
	else
		eo_capture_join(relid);
}

/* eo.capture_children() RETURNS event_trigger, at the end of a command */
Datum
eo_outbox_capture_children(PG_FUNCTION_ARGS)
{
	EventTriggerData *trigdata = (EventTriggerData *) fcinfo->context;
	SPITupleTable *found;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("eo.capture_children() was not called as an event trigger")));
	if (eo_catalog() == NULL)
		PG_RETURN_NULL();
	SPI_connect();
	if (SPI_execute(TOUCHED_TABLES, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not find out what the command has changed");
	found = SPI_tuptable;
	for (uint64 i = 0; i < found->numvals; i++)
	{
		bool		isnull;
		Datum		relid = SPI_getbinval(found->vals[i], found->tupdesc, 1, &isnull);

		if (!isnull)
			after_command(DatumGetObjectId(relid), trigdata->parsetree);
	}
	SPI_finish();
	PG_RETURN_NULL();
}
