/*
 * output.c
 *
 * Makes the text of values the same in every session.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "output.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"

/* What the output of some types depends on */
static const struct
{
	const char *name;
	const char *value;
}			settings[] = {
	{"bytea_output", "hex"},
	{"DateStyle", "ISO, YMD"},
	{"extra_float_digits", "1"},
	{"IntervalStyle", "postgres"}
};

static void
set(const char *name, const char *value)
{
	if (strcmp(GetConfigOption(name, false, false), value) != 0)
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

int
eo_output_pin(bool utc)
{
	int			nestlevel = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		set(settings[i].name, settings[i].value);
	if (utc)
		set("TimeZone", "UTC");
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
