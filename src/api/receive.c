/*
 * receive.c
 *
 * eo.receive() and eo.receive_at().
 */
#include "postgres.h"

#include "api/api.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "txn/inbox.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(eo_outbox_receive);
PG_FUNCTION_INFO_V1(eo_outbox_receive_batch);
PG_FUNCTION_INFO_V1(eo_outbox_receive_at);

/* eo.receive(consumer text, message_id text, headers jsonb) RETURNS boolean */
Datum
eo_outbox_receive(PG_FUNCTION_ARGS)
{
	eo_api_refuse_null(fcinfo, 0, "consumer");
	eo_api_refuse_null(fcinfo, 1, "message id");
	PG_RETURN_BOOL(eo_inbox_receive(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1),
									PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2)));
}

/* eo.receive(consumer text, message_ids text[]) RETURNS SETOF text */
Datum
eo_outbox_receive_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	struct varlena **ids;
	Datum	   *values;
	bool	   *nulls;
	bool	   *is_new;
	int			n;

	eo_api_refuse_null(fcinfo, 0, "consumer");
	eo_api_refuse_null(fcinfo, 1, "message ids");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &n);
	ids = palloc(sizeof(struct varlena *) * Max(n, 1));
	is_new = palloc0(Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("message id must not be null"),
					 errdetail("It is number %d of the array.", i + 1)));
		ids[i] = (struct varlena *) DatumGetTextPP(values[i]);
	}
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	eo_inbox_receive_batch(PG_GETARG_TEXT_PP(0), ids, n, is_new);
	for (int i = 0; i < n; i++)
	{
		bool		null = false;

		if (is_new[i])
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &values[i], &null);
	}
	return (Datum) 0;
}

/*
 * eo.receive_at(consumer text, source text, position bigint, dense boolean)
 * RETURNS text
 */
Datum
eo_outbox_receive_at(PG_FUNCTION_ARGS)
{
	eo_api_refuse_null(fcinfo, 0, "consumer");
	eo_api_refuse_null(fcinfo, 1, "source");
	eo_api_refuse_null(fcinfo, 2, "position");
	eo_api_refuse_null(fcinfo, 3, "dense");
	switch (eo_inbox_receive_at(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1),
								PG_GETARG_INT64(2), PG_GETARG_BOOL(3)))
	{
		case EO_POSITION_NEW:
			return CStringGetTextDatum("new");
		case EO_POSITION_DUPLICATE:
			return CStringGetTextDatum("duplicate");
		case EO_POSITION_GAP:
			return CStringGetTextDatum("gap");
	}
	pg_unreachable();
}
