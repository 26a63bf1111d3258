/*
 * deduplicate.c
 *
 * eo.deduplicate(), a trigger that skips rows whose message id was received
 * before, and eo.deduplicate_table(), which creates it.
 *
 * What is the same for all rows of a statement is found out for the first one.
 * Partitions may number their columns differently, but each has a trigger, and
 * so a place to remember that, of its own.
 */
#include "postgres.h"

#include "access/table.h"
#include "api/api.h"
#include "api/row_movement.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "output.h"
#include "store/registry.h"
#include "txn/inbox.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(eo_outbox_deduplicate);
PG_FUNCTION_INFO_V1(eo_outbox_deduplicate_table);

#define EXAMPLE \
	"For example: CREATE TRIGGER dedup BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION eo.deduplicate('billing', 'message_id')."

/* One trigger in one statement */
typedef struct Deduplication
{
	text	   *consumer;
	AttrNumber	attnum;
	Oid			type;			/* of the column, below domains */
	FmgrInfo	output;
	bool		repeated;		/* another trigger of the table does the same */
	EoRowOrigin origin;
} Deduplication;

/*----------
 * The trigger and its table
 *----------
 */

static void
check_call(FunctionCallInfo fcinfo)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("eo.deduplicate() was not called as a trigger"),
				 errhint(EXAMPLE)));
	if (!TRIGGER_FIRED_BEFORE(trigdata->tg_event) || !TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be BEFORE INSERT and FOR EACH ROW", trigdata->tg_trigger->tgname),
				 errhint(EXAMPLE)));
	if (trigdata->tg_trigger->tgnargs != 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger \"%s\" must have two arguments, the consumer and the column of the message id",
						trigdata->tg_trigger->tgname),
				 errhint(EXAMPLE)));
}

static AttrNumber
find_column(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attisdropped || strcmp(NameStr(column->attname), name) != 0)
			continue;
		if (column->attgenerated != '\0')
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("column \"%s\" of table \"%s\" is generated and cannot be the message id",
							name, RelationGetRelationName(rel)),
					 errdetail("It has no value yet when the trigger is fired."),
					 errhint("Name a column that it is generated from.")));
		return column->attnum;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s\" does not exist", name, RelationGetRelationName(rel)),
			 errhint("The second argument of eo.deduplicate() is the name of the column of the message id.")));
}

static bool
is_enabled(const Trigger *trigger)
{
	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		return trigger->tgenabled == TRIGGER_FIRES_ALWAYS || trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA;
	return trigger->tgenabled == TRIGGER_FIRES_ALWAYS || trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN;
}

/*
 * A partition may have a trigger of its own besides that of its parent.  To the
 * second one every row would be a duplicate, namely of itself.
 */
static bool
is_repeated(const Trigger *trigger, Relation rel)
{
	TriggerDesc *desc = rel->trigdesc;

	for (int i = 0; i < desc->numtriggers; i++)
	{
		Trigger    *earlier = &desc->triggers[i];

		if (earlier->tgoid == trigger->tgoid)
			return false;
		if (earlier->tgfoid != trigger->tgfoid || earlier->tgtype != trigger->tgtype ||
			earlier->tgnargs != 2 || !is_enabled(earlier) ||
			strcmp(earlier->tgargs[0], trigger->tgargs[0]) != 0 ||
			strcmp(earlier->tgargs[1], trigger->tgargs[1]) != 0)
			continue;
		if (earlier->tgqual != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("triggers \"%s\" and \"%s\" of table \"%s\" do the same under different conditions",
							earlier->tgname, trigger->tgname, RelationGetRelationName(rel)),
					 errhint("Drop one of them.")));
		return true;
	}
	return false;
}

static Deduplication *
first_row(FunctionCallInfo fcinfo)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rel = trigdata->tg_relation;
	char	  **args = trigdata->tg_trigger->tgargs;
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	Deduplication *this = palloc(sizeof(Deduplication));
	Oid			output;
	bool		varlena;

	this->attnum = find_column(rel, args[1]);
	this->type = getBaseType(TupleDescAttr(RelationGetDescr(rel), this->attnum - 1)->atttypid);
	getTypeOutputInfo(this->type, &output, &varlena);
	fmgr_info(output, &this->output);
	this->consumer = cstring_to_text(args[0]);
	this->repeated = is_repeated(trigdata->tg_trigger, rel);
	this->origin = eo_row_origin(fcinfo->flinfo, rel);
	MemoryContextSwitchTo(old);
	fcinfo->flinfo->fn_extra = this;
	return this;
}

/*----------
 * The message id
 *----------
 */

static text *
fixed_output(FmgrInfo *output, Datum value)
{
	int			nestlevel = eo_output_pin(EO_OUTPUT_UTC);
	text	   *result = cstring_to_text(OutputFunctionCall(output, value));

	eo_output_unpin(nestlevel);
	return result;
}

static text *
message_id(Deduplication *this, TriggerData *trigdata)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);
	bool		isnull;
	Datum		value = heap_getattr(trigdata->tg_trigtuple, this->attnum, desc, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("message id must not be null"),
				 errdetail("Column \"%s\" of table \"%s\" has no value.",
						   trigdata->tg_trigger->tgargs[1], RelationGetRelationName(trigdata->tg_relation)),
				 errhint("To let such rows pass, give the trigger a condition: WHEN (NEW.%s IS NOT NULL).",
						 quote_identifier(trigdata->tg_trigger->tgargs[1]))));
	switch (this->type)
	{
		case TEXTOID:
		case VARCHAROID:
			return DatumGetTextPP(value);
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
			return cstring_to_text(OutputFunctionCall(&this->output, value));
		default:
			return fixed_output(&this->output, value);
	}
}

/* eo.deduplicate() RETURNS trigger */
Datum
eo_outbox_deduplicate(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Deduplication *this;
	bool		is_new;

	check_call(fcinfo);
	this = fcinfo->flinfo->fn_extra;
	if (this == NULL)
		this = first_row(fcinfo);
	if (this->repeated || this->origin == EO_ROW_MOVED)
		return PointerGetDatum(trigdata->tg_trigtuple);
	is_new = eo_inbox_receive_row(this->consumer, message_id(this, trigdata));
	if (!is_new && this->origin == EO_ROW_UNKNOWN)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot tell a duplicate from a row that moves to another partition"),
				 errdetail("The statement both inserts into table \"%s\" and moves rows to it.",
						   RelationGetRelationName(trigdata->tg_relation)),
				 errhint("Insert and update in two statements.")));
	return PointerGetDatum(is_new ? trigdata->tg_trigtuple : NULL);
}

/*----------
 * Creating the trigger
 *----------
 */

/* As the caller, who needs what CREATE TRIGGER needs. */
static void
create_trigger(Relation rel, text *consumer, const char *column)
{
	char	   *command = psprintf("CREATE TRIGGER eo_deduplicate BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION eo.deduplicate(%s, %s)",
								   quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
															  RelationGetRelationName(rel)),
								   quote_literal_cstr(text_to_cstring(consumer)),
								   quote_literal_cstr(column));

	SPI_connect();
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not execute \"%s\"", command);
	SPI_finish();
}

/*
 * eo.deduplicate_table(relation regclass, consumer text, column_name name)
 * RETURNS void
 */
Datum
eo_outbox_deduplicate_table(PG_FUNCTION_ARGS)
{
	Oid			relid;
	text	   *consumer;
	const char *column;
	Relation	rel;

	PreventCommandIfReadOnly("eo.deduplicate_table()");
	eo_api_refuse_null(fcinfo, 0, "relation");
	eo_api_refuse_null(fcinfo, 1, "consumer");
	eo_api_refuse_null(fcinfo, 2, "column_name");
	relid = PG_GETARG_OID(0);
	consumer = PG_GETARG_TEXT_PP(1);
	column = NameStr(*PG_GETARG_NAME(2));
	eo_api_check_table_owner(relid, "deduplicated");
	rel = table_open(relid, ShareRowExclusiveLock);
	(void) find_column(rel, column);
	(void) eo_owner(EO_INBOX, consumer);
	create_trigger(rel, consumer, column);
	table_close(rel, NoLock);
	PG_RETURN_VOID();
}
