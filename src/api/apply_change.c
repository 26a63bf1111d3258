/*
 * apply_change.c
 *
 * eo.apply_change().
 */
#include "postgres.h"

#include "capture/apply.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(eo_outbox_apply_change);

static const char *
name_of(EoApplyResult result)
{
	switch (result)
	{
		case EO_APPLY_INSERTED:
			return "inserted";
		case EO_APPLY_UPDATED:
			return "updated";
		case EO_APPLY_DELETED:
			return "deleted";
		case EO_APPLY_TRUNCATED:
			return "truncated";
		case EO_APPLY_STALE:
			return "stale";
		case EO_APPLY_UNCHANGED:
			return "unchanged";
	}
	pg_unreachable();
}

/* eo.apply_change(target regclass, event jsonb) RETURNS text */
Datum
eo_outbox_apply_change(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", PG_ARGISNULL(0) ? "target" : "event")));
	PG_RETURN_TEXT_P(cstring_to_text(name_of(eo_apply_change(PG_GETARG_OID(0), PG_GETARG_JSONB_P(1)))));
}
