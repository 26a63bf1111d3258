/*
 * output.c
 *
 * Makes the text of values the same in every session.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "output.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* What the output of some types depends on */
static const struct
{
	const char *name;
	const char *value;
	int			which;			/* 0: always */
}			settings[] = {
	{"bytea_output", "hex", 0},
	{"DateStyle", "ISO, YMD", 0},
	{"extra_float_digits", "1", 0},
	{"IntervalStyle", "postgres", 0},
	{"lc_monetary", "C", EO_OUTPUT_MONEY},
	{"search_path", "pg_catalog", EO_OUTPUT_NAMES},
	{"TimeZone", "UTC", EO_OUTPUT_UTC}
};

static void
set(const char *name, const char *value)
{
	if (strcmp(GetConfigOption(name, false, false), value) != 0)
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

int
eo_output_pin(int which)
{
	int			nestlevel = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
	{
		if (settings[i].which == 0 || (settings[i].which & which) != 0)
			set(settings[i].name, settings[i].value);
	}
	return nestlevel;
}

void
eo_output_unpin(int nestlevel)
{
	AtEOXact_GUC(true, nestlevel);
}

bool
eo_output_is_plain(void)
{
	return bytea_output == BYTEA_OUTPUT_HEX && DateStyle == USE_ISO_DATES &&
		extra_float_digits >= 1 && IntervalStyle == INTSTYLE_POSTGRES;
}

/* Of the attributes of a composite type */
static int
needs_of_row(Oid type)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);
	int			needs = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			needs |= eo_output_needs(TupleDescAttr(desc, i)->atttypid);
	}
	ReleaseTupleDesc(desc);
	return needs;
}

int
eo_output_needs(Oid type)
{
	Oid			inner;

	check_stack_depth();
	type = getBaseType(type);
	switch (type)
	{
		case MONEYOID:
			return EO_OUTPUT_MONEY;
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGOPERATOROID:
		case REGOPEROID:
		case REGPROCEDUREOID:
		case REGPROCOID:
		case REGTYPEOID:
			return EO_OUTPUT_NAMES;
	}
	inner = get_element_type(type);
	if (!OidIsValid(inner))
		inner = type_is_range(type) ? get_range_subtype(type) : get_multirange_range(type);
	if (OidIsValid(inner))
		return eo_output_needs(inner);
	return type != RECORDOID && type_is_rowtype(type) ? needs_of_row(type) : 0;
}
