/*
 * idempotency.c
 *
 * eo.idempotency_begin() and what ends it, and eo.idempotent().
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "api/api.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "txn/idempotency.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(eo_outbox_idempotency_begin);
PG_FUNCTION_INFO_V1(eo_outbox_idempotency_complete);
PG_FUNCTION_INFO_V1(eo_outbox_idempotency_release);
PG_FUNCTION_INFO_V1(eo_outbox_idempotency_checkpoint);
PG_FUNCTION_INFO_V1(eo_outbox_idempotent);

/* What eo.idempotent() says of a function that has returned */
#define CODE_RETURNED		200

static void
refuse_null_key(FunctionCallInfo fcinfo)
{
	eo_api_refuse_null(fcinfo, 0, "idempotency scope");
	eo_api_refuse_null(fcinfo, 1, "idempotency key");
}

static Jsonb *
jsonb_or_null(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_JSONB_P(arg);
}

static pg_uuid_t *
uuid_or_null(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_UUID_P(arg);
}

static Interval *
interval_or_null(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_INTERVAL_P(arg);
}

static Datum
answer_to_row(FunctionCallInfo fcinfo, const EoIdempotencyAnswer *answer)
{
	Datum		values[5] = {0};
	bool		nulls[5];
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != 5)
		elog(ERROR, "eo.idempotency_begin() must return a row of five columns");
	memset(nulls, true, sizeof(nulls));
	values[0] = CStringGetTextDatum(answer->is_new ? "new" : "replay");
	nulls[0] = false;
	if (answer->has_answer)
	{
		values[1] = Int32GetDatum(answer->code);
		nulls[1] = false;
	}
	if (answer->response != NULL)
	{
		values[2] = JsonbPGetDatum(answer->response);
		nulls[2] = false;
	}
	if (answer->token != NULL)
	{
		values[3] = UUIDPGetDatum(answer->token);
		nulls[3] = false;
	}
	if (answer->recovery_point != NULL)
	{
		values[4] = PointerGetDatum(answer->recovery_point);
		nulls[4] = false;
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * eo.idempotency_begin(scope text, key text, request jsonb, wait boolean,
 * lease interval) RETURNS (state text, code integer, response jsonb,
 * token uuid, recovery_point text)
 */
Datum
eo_outbox_idempotency_begin(PG_FUNCTION_ARGS)
{
	EoIdempotencyAnswer answer;

	refuse_null_key(fcinfo);
	eo_api_refuse_null(fcinfo, 3, "wait");
	eo_idempotency_begin(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), jsonb_or_null(fcinfo, 2),
						 PG_GETARG_BOOL(3), interval_or_null(fcinfo, 4), &answer);
	PG_RETURN_DATUM(answer_to_row(fcinfo, &answer));
}

/*
 * eo.idempotency_complete(scope text, key text, response jsonb, code integer,
 * token uuid) RETURNS void
 */
Datum
eo_outbox_idempotency_complete(PG_FUNCTION_ARGS)
{
	refuse_null_key(fcinfo);
	eo_api_refuse_null(fcinfo, 3, "code");
	eo_idempotency_complete(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), jsonb_or_null(fcinfo, 2),
							PG_GETARG_INT32(3), uuid_or_null(fcinfo, 4));
	PG_RETURN_VOID();
}

/* eo.idempotency_release(scope text, key text, token uuid) RETURNS void */
Datum
eo_outbox_idempotency_release(PG_FUNCTION_ARGS)
{
	refuse_null_key(fcinfo);
	eo_idempotency_release(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1), uuid_or_null(fcinfo, 2));
	PG_RETURN_VOID();
}

/*
 * eo.idempotency_checkpoint(scope text, key text, recovery_point text,
 * token uuid, lease interval) RETURNS void
 */
Datum
eo_outbox_idempotency_checkpoint(PG_FUNCTION_ARGS)
{
	refuse_null_key(fcinfo);
	eo_idempotency_checkpoint(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1),
							  PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2),
							  uuid_or_null(fcinfo, 3), interval_or_null(fcinfo, 4));
	PG_RETURN_VOID();
}

/* An ERROR unless the caller may call function(jsonb) RETURNS jsonb. */
static void
check_function(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	AclResult	allowed;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", function)));
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION || proc->proretset || proc->prorettype != JSONBOID ||
		proc->pronargs != 1 || proc->proargtypes.values[0] != JSONBOID)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a function that can answer a request", format_procedure(function)),
				 errdetail("It must take one argument of type jsonb and return jsonb.")));
	ReleaseSysCache(tuple);
	allowed = EoExecuteCheck(function, GetUserId());
	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_FUNCTION, get_func_name(function));
}

/* NULL if the function returns null. */
static Jsonb *
call_function(Oid function, Jsonb *request)
{
	LOCAL_FCINFO(call, 1);
	FmgrInfo	info;
	PgStat_FunctionCallUsage usage;
	Datum		result;

	fmgr_info(function, &info);
	InitFunctionCallInfoData(*call, &info, 1, InvalidOid, NULL, NULL);
	call->args[0].value = request == NULL ? (Datum) 0 : JsonbPGetDatum(request);
	call->args[0].isnull = request == NULL;
	if (info.fn_strict && request == NULL)
		return NULL;
	pgstat_init_function_usage(call, &usage);
	result = FunctionCallInvoke(call);
	pgstat_end_function_usage(&usage, true);
	return call->isnull ? NULL : DatumGetJsonbP(result);
}

/*
 * eo.idempotent(scope text, key text, request jsonb, function regprocedure)
 * RETURNS jsonb
 */
Datum
eo_outbox_idempotent(PG_FUNCTION_ARGS)
{
	struct varlena *scope;
	struct varlena *key;
	Jsonb	   *request = jsonb_or_null(fcinfo, 2);
	EoIdempotencyAnswer answer;

	refuse_null_key(fcinfo);
	eo_api_refuse_null(fcinfo, 3, "function");
	scope = (struct varlena *) PG_GETARG_TEXT_PP(0);
	key = (struct varlena *) PG_GETARG_TEXT_PP(1);
	check_function(PG_GETARG_OID(3));
	eo_idempotency_begin(scope, key, request, true, NULL, &answer);
	if (answer.is_new)
	{
		answer.response = call_function(PG_GETARG_OID(3), request);
		eo_idempotency_complete(scope, key, answer.response, CODE_RETURNED, NULL);
	}
	if (answer.response == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(answer.response);
}
