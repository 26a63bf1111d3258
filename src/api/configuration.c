/*
 * configuration.c
 *
 * Checks of options and seqs, and the validators of the foreign-data wrappers.
 *
 * A broker is a foreign server of the wrapper eo_<kind>, its credentials are a
 * user mapping.  Which options there are is in wire/options.c, which the
 * publishers share.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "api/configuration.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "store/catalog.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(eo_outbox_validate_file);
PG_FUNCTION_INFO_V1(eo_outbox_validate_kafka);
PG_FUNCTION_INFO_V1(eo_outbox_validate_stub);

static const char *
place_name(EoOptionPlace place)
{
	switch (place)
	{
		case EO_OPTION_SERVER:
			return "server";
		case EO_OPTION_USER_MAPPING:
			return "user mapping";
		case EO_OPTION_SUBSCRIPTION:
			return "subscription";
	}
	return "object";
}

/* The names that a place takes, as a list for a hint. */
static char *
valid_options(const EoBrokerKind *kind, EoOptionPlace place)
{
	StringInfoData list;

	initStringInfo(&list);
	for (const EoOption *option = kind->options; option->name != NULL; option++)
	{
		if (option->places & place)
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", option->name);
	}
	return list.data;
}

void
eo_configuration_check_option(const EoBrokerKind *kind, EoOptionPlace place,
							  const char *name, const char *value)
{
	bool		found;
	const char *problem = eo_option_check(kind, place, name, value, &found);

	if (problem == NULL)
		return;
	if (!found)
	{
		char	   *valid = valid_options(kind, place);

		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("invalid option \"%s\" for a %s of kind \"%s\"",
						name, place_name(place), kind->name),
				 valid[0] != '\0' ? errhint("Valid options are: %s.", valid) :
				 errhint("It takes no options.")));
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("option \"%s\" %s", name, problem)));
}

char *
eo_configuration_scalar(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		default:
			elog(ERROR, "not a JSON scalar");
	}
}

long
eo_configuration_interval_ms(const Interval *interval)
{
	double		ms = (double) interval->time / 1000.0 +
		((double) interval->day + (double) interval->month * 30.0) * 86400000.0;

	return ms <= 0 ? 0 : ms > (double) INT_MAX ? INT_MAX : (long) ms;
}

void
eo_configuration_check_seq(EoDatabase *db, int64 seq)
{
	int64		floor = (int64) pg_atomic_read_u64(&db->floor_seq);
	int64		last = (int64) pg_atomic_read_u64(&db->last_seq);

	if (seq < floor)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the log no longer holds the events after seq " INT64_FORMAT, seq),
				 errdetail("Everything up to " INT64_FORMAT " has been truncated.", floor),
				 errhint("Use " INT64_FORMAT " or more; eo_outbox.retention keeps events for longer.", floor)));
	if (seq > last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("seq " INT64_FORMAT " lies beyond the end of the log", seq),
				 errdetail("The last one is " INT64_FORMAT ".", last),
				 errhint("Use " INT64_FORMAT " or less.", last)));
}

int32
eo_configuration_subscription_id(text *name, bool *pull)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(name)};
	EoOwnerScope scope;
	bool		isnull;
	int32		id = 0;

	eo_enter_owner(&scope);
	SPI_connect();
	if (SPI_execute_with_args("SELECT id, server IS NULL FROM eo.subscription WHERE name OPERATOR(pg_catalog.=) $1",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up the subscription");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", text_to_cstring(name)),
				 errhint("See the view eo.subscriptions.")));
	id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	*pull = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	SPI_finish();
	eo_leave_owner(&scope);
	return id;
}

/*
 * A file server makes the server write to a path of the creator's choice, so
 * it needs what COPY TO a file needs.
 */
static void
check_file_privilege(void)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_WRITE_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set the path of a file server"),
				 errhint("Only roles with privileges of the \"%s\" role may do so.",
						 "pg_write_server_files")));
}

static void
validate(FunctionCallInfo fcinfo, const char *kind_name)
{
	const EoBrokerKind *kind = eo_broker_kind(kind_name);
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	EoOptionPlace place;
	ListCell   *cell;

	if (catalog == ForeignServerRelationId)
		place = EO_OPTION_SERVER;
	else if (catalog == UserMappingRelationId)
		place = EO_OPTION_USER_MAPPING;
	else if (options == NIL)
		return;
	else
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
				 errmsg("foreign-data wrapper eo_%s takes no options here", kind_name),
				 errhint("Options belong to the server or the user mapping.")));

	foreach(cell, options)
	{
		DefElem    *def = lfirst(cell);

		eo_configuration_check_option(kind, place, def->defname, defGetString(def));
	}
	for (const EoOption *option = kind->options; option->name != NULL; option++)
	{
		bool		given = false;

		if (!option->required || !(option->places & place))
			continue;
		foreach(cell, options)
			given |= strcmp(((DefElem *) lfirst(cell))->defname, option->name) == 0;
		if (!given)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
					 errmsg("option \"%s\" is required for a %s of kind \"%s\"",
							option->name, place_name(place), kind_name)));
	}
	if (place == EO_OPTION_SERVER && strcmp(kind_name, "file") == 0)
		check_file_privilege();
}

/* eo.validate_file(text[], oid) RETURNS void, and so on for each kind */
Datum
eo_outbox_validate_file(PG_FUNCTION_ARGS)
{
	validate(fcinfo, "file");
	PG_RETURN_VOID();
}

Datum
eo_outbox_validate_kafka(PG_FUNCTION_ARGS)
{
	validate(fcinfo, "kafka");
	PG_RETURN_VOID();
}

Datum
eo_outbox_validate_stub(PG_FUNCTION_ARGS)
{
	validate(fcinfo, "stub");
	PG_RETURN_VOID();
}
