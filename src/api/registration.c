/*
 * registration.c
 *
 * Consumers and idempotency scopes: how long they recognise what they received.
 *
 * A window that comes to be of another class (store/generations.c) moves its
 * owner to other tables.  The row says then where else its keys are; until when
 * is for the relay to find out (store/moves.c).
 */
#include "postgres.h"

#include "api/api.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "store/catalog.h"
#include "store/registry.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(eo_outbox_create_consumer);
PG_FUNCTION_INFO_V1(eo_outbox_drop_consumer);
PG_FUNCTION_INFO_V1(eo_outbox_create_idempotency_scope);
PG_FUNCTION_INFO_V1(eo_outbox_drop_idempotency_scope);
PG_FUNCTION_INFO_V1(eo_outbox_registry_changed);

#define WINDOW_MIN_US		USECS_PER_SEC
#define WINDOW_MAX_DAYS		36500

/*
 * What an existing row becomes.  Bits of classes that count no more go.  A
 * window that grows does so for what a move has left behind, too.
 */
#define MOVE \
	" keep_for = EXCLUDED.keep_for, class = EXCLUDED.class," \
	" also_classes = CASE WHEN o.class OPERATOR(pg_catalog.=) EXCLUDED.class THEN o.also_classes" \
	" ELSE (CASE WHEN o.also_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN o.also_classes::integer ELSE 0 END" \
	" OPERATOR(pg_catalog.|) (1 OPERATOR(pg_catalog.<<) o.class::integer))::smallint END," \
	" also_until = CASE WHEN o.class OPERATOR(pg_catalog.=) EXCLUDED.class THEN o.also_until OPERATOR(pg_catalog.+)" \
	" CASE WHEN o.also_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()" \
	" THEN greatest(EXCLUDED.keep_for OPERATOR(pg_catalog.-) o.keep_for, '0') ELSE '0' END" \
	" ELSE 'infinity' END"

static const char *const drop_commands[EO_FAMILIES] = {
	"DELETE FROM eo.consumer WHERE name OPERATOR(pg_catalog.=) $1 RETURNING id",
	"DELETE FROM eo.idempotency_scope WHERE name OPERATOR(pg_catalog.=) $1 RETURNING id"
};

/*
 * The class of a window, with months of 30 days.  An ERROR for windows that
 * nobody can mean; `what` is their name.
 */
static int
class_of(const Interval *window, const char *what)
{
	double		us = (double) window->time +
		((double) window->day + (double) window->month * DAYS_PER_MONTH) * USECS_PER_DAY;

	if (us < WINDOW_MIN_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least one second", what)));
	if (us > (double) WINDOW_MAX_DAYS * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at most %d days", what, WINDOW_MAX_DAYS)));
	return eo_class_of_window((int64) us);
}

/* Runs a command with SPI connected; returns the number of rows. */
static uint64
execute(const char *command, int nargs, Oid *types, Datum *values, int expected)
{
	int			result = SPI_execute_with_args(command, nargs, types, values, NULL, false, 0);

	if (result != expected)
		elog(ERROR, "could not run \"%s\": %s", command, SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Registers or changes an owner, unless it is as it is to be: applications do
 * this whenever they start, and any change makes all sessions look.
 */
static void
create(EoFamily family, text *name, const char *same, const char *change,
	   int nargs, Oid *types, Datum *values)
{
	EoOwnerScope scope;

	eo_owner_lock(family, name);
	eo_enter_owner(&scope);
	SPI_connect();
	if (execute(same, nargs, types, values, SPI_OK_SELECT) == 0)
		(void) execute(change, nargs, types, values, SPI_OK_INSERT);
	SPI_finish();
	eo_leave_owner(&scope);
}

/* eo.create_consumer(consumer text, dedup_window interval) RETURNS void */
Datum
eo_outbox_create_consumer(PG_FUNCTION_ARGS)
{
	text	   *name;
	Oid			types[] = {TEXTOID, INTERVALOID, INT2OID};
	Datum		values[3];

	eo_api_refuse_null(fcinfo, 0, "consumer");
	eo_api_refuse_null(fcinfo, 1, "window");
	name = PG_GETARG_TEXT_PP(0);
	values[0] = PointerGetDatum(name);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = Int16GetDatum(class_of(PG_GETARG_INTERVAL_P(1), "window"));
	create(EO_INBOX, name,
		   "SELECT FROM eo.consumer WHERE name OPERATOR(pg_catalog.=) $1"
		   " AND keep_for OPERATOR(pg_catalog.=) $2 AND class OPERATOR(pg_catalog.=) $3",
		   "INSERT INTO eo.consumer AS o (name, keep_for, class) VALUES ($1, $2, $3)"
		   " ON CONFLICT (name) DO UPDATE SET" MOVE,
		   lengthof(types), types, values);
	PG_RETURN_VOID();
}

/*
 * eo.create_idempotency_scope(scope text, expiry interval, release_codes
 * int4multirange) RETURNS void
 */
Datum
eo_outbox_create_idempotency_scope(PG_FUNCTION_ARGS)
{
	text	   *name;
	Oid			types[] = {TEXTOID, INTERVALOID, INT2OID, INT4MULTIRANGEOID};
	Datum		values[4];

	eo_api_refuse_null(fcinfo, 0, "idempotency scope");
	eo_api_refuse_null(fcinfo, 1, "expiry");
	eo_api_refuse_null(fcinfo, 2, "release_codes");
	name = PG_GETARG_TEXT_PP(0);
	values[0] = PointerGetDatum(name);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = Int16GetDatum(class_of(PG_GETARG_INTERVAL_P(1), "expiry"));
	values[3] = PG_GETARG_DATUM(2);
	create(EO_IDEMPOTENCY, name,
		   "SELECT FROM eo.idempotency_scope WHERE name OPERATOR(pg_catalog.=) $1"
		   " AND keep_for OPERATOR(pg_catalog.=) $2 AND class OPERATOR(pg_catalog.=) $3"
		   " AND release_codes OPERATOR(pg_catalog.=) $4",
		   "INSERT INTO eo.idempotency_scope AS o (name, keep_for, class, release_codes)"
		   " VALUES ($1, $2, $3, $4)"
		   " ON CONFLICT (name) DO UPDATE SET release_codes = EXCLUDED.release_codes," MOVE,
		   lengthof(types), types, values);
	PG_RETURN_VOID();
}

/*
 * What an owner has received goes with it: ids stand under its number, which
 * comes never again, until their generation is emptied.  Its counts are the
 * relay's to delete, lest the relay waits for us.
 */
static void
drop(EoFamily family, text *name)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {PointerGetDatum(name)};
	Oid			id_types[] = {INT4OID};
	Datum		id;
	EoOwnerScope scope;
	bool		isnull;

	eo_owner_lock(family, name);
	eo_enter_owner(&scope);
	SPI_connect();
	if (execute(drop_commands[family], 1, types, values, SPI_OK_DELETE_RETURNING) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" does not exist", eo_owner_noun(family), text_to_cstring(name)),
				 errhint("See the view eo.%s.", family == EO_INBOX ? "inbox_status" : "idempotency_status")));
	id = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (family == EO_INBOX)
		(void) execute("DELETE FROM eo.received_position WHERE consumer OPERATOR(pg_catalog.=) $1",
					   1, id_types, &id, SPI_OK_DELETE);
	SPI_finish();
	eo_leave_owner(&scope);
}

/* eo.drop_consumer(consumer text) RETURNS void */
Datum
eo_outbox_drop_consumer(PG_FUNCTION_ARGS)
{
	eo_api_refuse_null(fcinfo, 0, "consumer");
	drop(EO_INBOX, PG_GETARG_TEXT_PP(0));
	PG_RETURN_VOID();
}

/* eo.drop_idempotency_scope(scope text) RETURNS void */
Datum
eo_outbox_drop_idempotency_scope(PG_FUNCTION_ARGS)
{
	eo_api_refuse_null(fcinfo, 0, "idempotency scope");
	drop(EO_IDEMPOTENCY, PG_GETARG_TEXT_PP(0));
	PG_RETURN_VOID();
}

/* eo.registry_changed() RETURNS trigger */
Datum
eo_outbox_registry_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("eo.registry_changed() must be called as a trigger")));
	eo_registry_changed();
	PG_RETURN_POINTER(NULL);
}
