/*
 * subscribe.c
 *
 * Functions that configure subscriptions.
 *
 * They check as the caller and write eo.subscription as the extension's owner;
 * a trigger on that table tells the relay at commit.  They never touch the rows
 * that the relay writes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "api/api.h"
#include "api/configuration.h"
#include "api/pull.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "store/append.h"
#include "store/catalog.h"
#include "store/lineage.h"
#include "txn/event_buffer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "wire/options.h"

PG_FUNCTION_INFO_V1(eo_outbox_subscribe);
PG_FUNCTION_INFO_V1(eo_outbox_unsubscribe);
PG_FUNCTION_INFO_V1(eo_outbox_pause);
PG_FUNCTION_INFO_V1(eo_outbox_resume);
PG_FUNCTION_INFO_V1(eo_outbox_seek);
PG_FUNCTION_INFO_V1(eo_outbox_adopt);
PG_FUNCTION_INFO_V1(eo_outbox_retry_dead_letter);
PG_FUNCTION_INFO_V1(eo_outbox_configuration_changed);
PG_FUNCTION_INFO_V1(eo_outbox_installed);

#define NAME_MAX_LENGTH		63
#define PATTERN_MAX_LENGTH	249

/* The log's range, for checks of a seq. */
static EoDatabase *
ready_log(void)
{
	EoDatabase *db = eo_my_database();

	PreventCommandDuringRecovery("configuration of eo_outbox");
	eo_log_prepare(db);
	return db;
}

/* Checks a subscription's name. */
static void
check_subscription_name(const char *name)
{
	int			len = strlen(name);

	if (len == 0 || len > NAME_MAX_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("name of a subscription must have 1 to %d bytes", NAME_MAX_LENGTH)));
	for (int i = 0; i < len; i++)
	{
		if ((unsigned char) name[i] < 0x20 || name[i] == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_NAME),
					 errmsg("name of a subscription contains a control character")));
	}
}

static void
check_topics(ArrayType *topics)
{
	Datum	   *patterns;
	bool	   *nulls;
	int			n;

	deconstruct_array(topics, TEXTOID, -1, false, TYPALIGN_INT, &patterns, &nulls, &n);
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a subscription needs at least one topic pattern"),
				 errhint("Use '{*}' for all topics.")));
	for (int i = 0; i < n; i++)
	{
		int			len = nulls[i] ? 0 : VARSIZE_ANY_EXHDR(DatumGetPointer(patterns[i]));

		if (len == 0 || len > PATTERN_MAX_LENGTH)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("topic pattern %d must have 1 to %d bytes", i + 1, PATTERN_MAX_LENGTH)));
	}
}

/* The kind of a server of ours that the caller may use. */
static const EoBrokerKind *
check_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	ForeignDataWrapper *wrapper;
	const EoBrokerKind *kind;

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", name),
				 errhint("Create it with CREATE SERVER ... FOREIGN DATA WRAPPER eo_file or eo_kafka.")));
	wrapper = GetForeignDataWrapper(server->fdwid);
	kind = strncmp(wrapper->fdwname, "eo_", 3) == 0 ? eo_broker_kind(wrapper->fdwname + 3) : NULL;
	if (kind == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a broker", name),
				 errdetail("Its foreign-data wrapper is \"%s\".", wrapper->fdwname),
				 errhint("Use a server of the foreign-data wrapper eo_file or eo_kafka.")));
	if (!DatumGetBool(DirectFunctionCall2(has_server_privilege_id,
										  ObjectIdGetDatum(server->serverid),
										  PointerGetDatum(cstring_to_text("USAGE")))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", name),
				 errhint("GRANT USAGE ON FOREIGN SERVER is needed.")));
	return kind;
}

/* Checks the options of a subscription, a flat object of scalars. */
static void
check_options(const EoBrokerKind *kind, Jsonb *options)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	char	   *name = NULL;

	if (!JB_ROOT_IS_OBJECT(options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options of a subscription must be a JSON object")));
	if (kind == NULL && JB_ROOT_COUNT(options) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a subscription without a server takes no options")));
	it = JsonbIteratorInit(&options->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
		{
			if (value.type == jbvBinary || value.type == jbvNull)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("option \"%s\" must be a string, a number or a boolean", name)));
			eo_configuration_check_option(kind, EO_OPTION_SUBSCRIPTION, name,
										  eo_configuration_scalar(&value));
		}
	}
}

/* Turns 'now', 'beginning' or a number into the seq to start after. */
static int64
parse_start(EoDatabase *db, const char *start_at)
{
	int64		floor = (int64) pg_atomic_read_u64(&db->floor_seq);
	char	   *end;
	int64		seq;

	if (pg_strcasecmp(start_at, "now") == 0)
		return (int64) pg_atomic_read_u64(&db->last_seq);
	if (pg_strcasecmp(start_at, "beginning") == 0)
		return floor;
	errno = 0;
	seq = strtoll(start_at, &end, 10);
	if (errno != 0 || end == start_at || *end != '\0' || seq < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid start \"%s\" of a subscription", start_at),
				 errhint("Use 'now', 'beginning' or the seq after which to start.")));
	eo_configuration_check_seq(db, seq);
	return seq;
}

/*
 * With its cursor, which says where the log ended then: after a promotion, what
 * a broker has above that is of this subscription, even if this database does
 * not know that it was sent.  What is not above it may be of an earlier one.
 */
static void
insert_subscription(const char *name, Datum topics, const char *server,
					Datum options, int64 start_seq, int64 last_seq)
{
	Oid			cursor_types[] = {TEXTOID, INT8OID, INT8OID};
	Datum		cursor_values[3];
	Oid			types[] = {TEXTOID, TEXTARRAYOID, NAMEOID, JSONBOID, INT8OID, NAMEOID, TEXTOID};
	Datum		values[7];
	char		nulls[] = "       ";
	NameData	server_name;
	NameData	owner;
	EoOwnerScope scope;

	namestrcpy(&owner, GetUserNameFromId(GetUserId(), false));
	if (server != NULL)
		namestrcpy(&server_name, server);
	values[0] = CStringGetTextDatum(name);
	values[1] = topics;
	values[2] = NameGetDatum(&server_name);
	nulls[2] = server != NULL ? ' ' : 'n';
	values[3] = options;
	values[4] = Int64GetDatum(start_seq);
	values[5] = NameGetDatum(&owner);
	values[6] = CStringGetTextDatum(eo_lineage_home());

	eo_enter_owner(&scope);
	SPI_connect();
	if (SPI_execute_with_args("INSERT INTO eo.subscription"
							  " (name, topics, server, options, start_seq, owner, home)"
							  " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING",
							  7, types, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not store the subscription");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("subscription \"%s\" already exists", name),
				 errhint("Drop it with eo.unsubscribe() first, or choose another name.")));
	cursor_values[0] = values[0];
	cursor_values[1] = Int64GetDatum(server ? -1 : 0);
	cursor_values[2] = Int64GetDatum(server ? last_seq : 0);
	if (SPI_execute_with_args("INSERT INTO eo.cursor (subscription, seq, published_seq, replay_until)"
							  " SELECT id, start_seq, $2, $3 FROM eo.subscription"
							  " WHERE name OPERATOR(pg_catalog.=) $1",
							  3, cursor_types, cursor_values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not store the cursor");
	SPI_finish();
	eo_leave_owner(&scope);
}

/*
 * eo.subscribe(name text, topics text[], server name, handler regprocedure,
 *				options jsonb, start_at text) RETURNS bigint
 *
 * Returns the seq after which the subscription starts.
 */
Datum
eo_outbox_subscribe(PG_FUNCTION_ARGS)
{
	EoDatabase *db;
	const EoBrokerKind *kind;
	char	   *name;
	char	   *server;
	Jsonb	   *options;
	int64		start_seq;

	for (int i = 0; i < 6; i++)
	{
		if (PG_ARGISNULL(i) && i != 2 && i != 3)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("name, topics, options and start of a subscription must not be null")));
	}
	if (!PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("SQL handlers are not available in this version"),
				 errhint("Name a server, or neither, and read the events with eo.fetch().")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	check_subscription_name(name);
	check_topics(PG_GETARG_ARRAYTYPE_P(1));
	server = PG_ARGISNULL(2) ? NULL : pstrdup(NameStr(*PG_GETARG_NAME(2)));
	kind = server ? check_server(server) : NULL;
	options = PG_GETARG_JSONB_P(4);
	check_options(kind, options);
	db = ready_log();
	start_seq = parse_start(db, text_to_cstring(PG_GETARG_TEXT_PP(5)));
	insert_subscription(name, PG_GETARG_DATUM(1), server, JsonbPGetDatum(options), start_seq,
						(int64) pg_atomic_read_u64(&db->last_seq));
	PG_RETURN_INT64(start_seq);
}

/*
 * Runs a command on the subscription $1, with $2 a bigint, as the extension's
 * owner; an error if there is no such subscription.
 */
static void
change_subscription(const char *command, text *name, int64 number)
{
	Oid			types[] = {TEXTOID, INT8OID};
	Datum		values[] = {PointerGetDatum(name), Int64GetDatum(number)};
	EoOwnerScope scope;

	PreventCommandDuringRecovery("configuration of eo_outbox");
	eo_enter_owner(&scope);
	SPI_connect();
	if (SPI_execute_with_args(command, 2, types, values, NULL, false, 0) < 0)
		elog(ERROR, "could not change the subscription");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" does not exist", text_to_cstring(name)),
				 errhint("See the view eo.subscriptions.")));
	SPI_finish();
	eo_leave_owner(&scope);
}

/* eo.unsubscribe(name text) RETURNS void */
Datum
eo_outbox_unsubscribe(PG_FUNCTION_ARGS)
{
	eo_api_refuse_null(fcinfo, 0, "name of a subscription");
	change_subscription("DELETE FROM eo.subscription WHERE name OPERATOR(pg_catalog.=) $1 AND $2 OPERATOR(pg_catalog.=) 0",
						PG_GETARG_TEXT_PP(0), 0);
	PG_RETURN_VOID();
}

/* eo.pause(name text) RETURNS void */
Datum
eo_outbox_pause(PG_FUNCTION_ARGS)
{
	eo_api_refuse_null(fcinfo, 0, "name of a subscription");
	change_subscription("UPDATE eo.subscription SET paused = true WHERE name OPERATOR(pg_catalog.=) $1 AND $2 OPERATOR(pg_catalog.=) 0",
						PG_GETARG_TEXT_PP(0), 0);
	PG_RETURN_VOID();
}

/* eo.resume(name text) RETURNS void */
Datum
eo_outbox_resume(PG_FUNCTION_ARGS)
{
	eo_api_refuse_null(fcinfo, 0, "name of a subscription");
	change_subscription("UPDATE eo.subscription SET paused = false WHERE name OPERATOR(pg_catalog.=) $1 AND $2 OPERATOR(pg_catalog.=) 0",
						PG_GETARG_TEXT_PP(0), 0);
	PG_RETURN_VOID();
}

/* Whether a subscription has no server; false where there is none. */
static bool
is_pull(text *name)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(name)};
	EoOwnerScope scope;
	bool		pull;

	eo_enter_owner(&scope);
	SPI_connect();
	if (SPI_execute_with_args("SELECT FROM eo.subscription WHERE name OPERATOR(pg_catalog.=) $1 AND server IS NULL",
							  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look up the subscription");
	pull = SPI_processed > 0;
	SPI_finish();
	eo_leave_owner(&scope);
	return pull;
}

/* eo.seek(name text, seq bigint) RETURNS void */
Datum
eo_outbox_seek(PG_FUNCTION_ARGS)
{
	int64		seq;

	eo_api_refuse_null(fcinfo, 0, "name of a subscription");
	eo_api_refuse_null(fcinfo, 1, "seq");
	seq = PG_GETARG_INT64(1);
	eo_configuration_check_seq(ready_log(), seq);
	if (is_pull(PG_GETARG_TEXT_PP(0)))
	{
		eo_pull_seek(PG_GETARG_TEXT_PP(0), seq);
		PG_RETURN_VOID();
	}
	change_subscription("UPDATE eo.subscription SET seek_seq = $2, seek_number = seek_number OPERATOR(pg_catalog.+) 1"
						" WHERE name OPERATOR(pg_catalog.=) $1",
						PG_GETARG_TEXT_PP(0), seq);
	PG_RETURN_VOID();
}

/*
 * eo.adopt() RETURNS boolean
 *
 * Makes a copied or restored database publish on its own; true if it was one.
 */
Datum
eo_outbox_adopt(PG_FUNCTION_ARGS)
{
	EoDatabase *db = ready_log();
	EoOwnerScope scope;
	Oid			types[] = {TEXTOID};
	Datum		values[1];
	bool		adopted;

	eo_enter_owner(&scope);
	adopted = eo_lineage_adopt(db);
	values[0] = CStringGetTextDatum(eo_lineage_home());
	SPI_connect();
	if (SPI_execute_with_args("UPDATE eo.subscription SET home = $1 WHERE home OPERATOR(pg_catalog.<>) $1",
							  1, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not adopt the subscriptions");
	adopted |= SPI_processed > 0;
	SPI_finish();
	eo_leave_owner(&scope);
	eo_config_changed_at_commit();
	PG_RETURN_BOOL(adopted);
}

/*
 * eo.retry_dead_letter(subscription text, seq bigint) RETURNS bigint
 *
 * Asks for a dead letter, or all of a subscription with a null seq, to be sent
 * again; returns how many, those that were asked for already among them.
 */
Datum
eo_outbox_retry_dead_letter(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, INT8OID};
	Datum		values[2];
	char		nulls[] = "  ";
	EoOwnerScope scope;
	int64		count;
	bool		pull;
	bool		isnull;

	eo_api_refuse_null(fcinfo, 0, "subscription");
	PreventCommandDuringRecovery("eo.retry_dead_letter()");
	(void) eo_configuration_subscription_id(PG_GETARG_TEXT_PP(0), &pull);
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1);
	nulls[1] = PG_ARGISNULL(1) ? 'n' : ' ';
	eo_enter_owner(&scope);
	SPI_connect();
	if (SPI_execute_with_args("WITH chosen AS ("
							  " SELECT d.subscription, d.seq FROM eo.dead_letter AS d, eo.subscription AS s"
							  " WHERE s.name OPERATOR(pg_catalog.=) $1 AND d.subscription OPERATOR(pg_catalog.=) s.id"
							  " AND ($2 IS NULL OR d.seq OPERATOR(pg_catalog.=) $2)),"
							  " asked AS (INSERT INTO eo.dead_letter_retry (subscription, seq)"
							  " SELECT subscription, seq FROM chosen ON CONFLICT DO NOTHING)"
							  " SELECT pg_catalog.count(*) FROM chosen",
							  2, types, values, nulls, false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not store the request");
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	eo_leave_owner(&scope);
	if (count == 0 && !PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("subscription \"%s\" has no dead letter " INT64_FORMAT,
						text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT64(1)),
				 errhint("See the view eo.dead_letters.")));
	PG_RETURN_INT64(count);
}

/* Trigger of the tables that configure the relay. */
Datum
eo_outbox_configuration_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("eo.configuration_changed() must be called as a trigger")));
	if (strcmp(RelationGetRelationName(((TriggerData *) fcinfo->context)->tg_relation), "lineage") == 0)
		eo_lineage_changed_at_commit();
	else
		eo_config_changed_at_commit();
	PG_RETURN_POINTER(NULL);
}

/* Last statement of the extension's script: asks for a relay. */
Datum
eo_outbox_installed(PG_FUNCTION_ARGS)
{
	eo_log_created();
	PG_RETURN_VOID();
}
