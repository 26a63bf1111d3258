/*
 * spec.c
 *
 * The arguments of a capture trigger, parsed and written.
 */
#include "postgres.h"

#include "capture/spec.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#define EXAMPLE \
	"For example: CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW EXECUTE FUNCTION eo.capture_row('topic=orders', 'mode=fact', 'key=id')."

const char *const eo_capture_modes[] = {"fact", "delta", "changelog", NULL};
const char *const eo_capture_formats[] = {"plain", "debezium", NULL};
const char *const eo_capture_ops[] = {"inserted", "updated", "deleted", "truncated", "read", NULL};
const char *const eo_capture_lists[] = {"key", "columns", "exclude", NULL};

static int
find_name(const char *const *names, const char *name, const char *what, const char *hint)
{
	for (int i = 0; names[i] != NULL; i++)
	{
		if (strcmp(names[i], name) == 0)
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no capture %s \"%s\"", what, name),
			 errhint("%s", hint)));
}

EoCaptureMode
eo_capture_mode(const char *name)
{
	return find_name(eo_capture_modes, name, "mode", "Use fact, delta or changelog.");
}

EoCaptureFormat
eo_capture_format(const char *name)
{
	return find_name(eo_capture_formats, name, "format", "Use plain or debezium.");
}

List *
eo_capture_split_names(const char *names)
{
	List	   *list;

	if (!SplitIdentifierString(pstrdup(names), ',', &list))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid list of columns: \"%s\"", names),
				 errhint("Separate names by commas, and put those that are not all lower-case into double quotes.")));
	return list;
}

char *
eo_capture_names(List *names)
{
	StringInfoData out;
	ListCell   *lc;

	initStringInfo(&out);
	foreach(lc, names)
	{
		if (out.len > 0)
			appendStringInfoChar(&out, ',');
		appendStringInfoString(&out, quote_identifier(lfirst(lc)));
	}
	return out.data;
}

static void
take_argument(EoCaptureSpec *spec, const char *name, const char *value, const char *argument)
{
	if (strcmp(name, "topic") == 0)
		spec->topic = pstrdup(value);
	else if (strcmp(name, "type_prefix") == 0)
		spec->type_prefix = pstrdup(value);
	else if (strcmp(name, "mode") == 0)
		spec->mode = eo_capture_mode(value);
	else if (strcmp(name, "format") == 0)
		spec->format = eo_capture_format(value);
	else if (strcmp(name, "key") == 0)
		spec->key = eo_capture_split_names(value);
	else if (strcmp(name, "columns") == 0)
		spec->columns = eo_capture_split_names(value);
	else if (strcmp(name, "exclude") == 0)
		spec->exclude = eo_capture_split_names(value);
	else if (strcmp(name, "as") == 0)
	{
		spec->as_given = true;
		spec->as = find_name(eo_capture_ops, value, "operation", "Use inserted, updated or deleted.");
		if (spec->as > EO_OP_DELETED)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("an update cannot be captured as \"%s\"", value),
					 errhint("Use inserted, updated or deleted.")));
	}
	else if (strcmp(name, "child") == 0)
		spec->child = true;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("eo.capture_row() has no argument \"%s\"", argument),
				 errdetail("There are topic, type_prefix, mode, format, key, columns and exclude, as in eo.capture()."),
				 errhint(EXAMPLE)));
}

void
eo_capture_spec(EoCaptureSpec *spec, const Trigger *trigger)
{
	memset(spec, 0, sizeof(EoCaptureSpec));
	for (int i = 0; i < trigger->tgnargs; i++)
	{
		const char *argument = trigger->tgargs[i];
		const char *equals = strchr(argument, '=');

		if (equals == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("argument \"%s\" of eo.capture_row() must have the form name=value", argument),
					 errhint(EXAMPLE)));
		take_argument(spec, pnstrdup(argument, equals - argument), equals + 1, argument);
	}
}

static void
add_argument(StringInfo out, const char *name, const char *value)
{
	if (value == NULL)
		return;
	if (out->len > 0)
		appendStringInfoString(out, ", ");
	appendStringInfoString(out, quote_literal_cstr(psprintf("%s=%s", name, value)));
}

char *
eo_capture_spec_sql(const EoCaptureSpec *spec)
{
	StringInfoData out;

	initStringInfo(&out);
	add_argument(&out, "topic", spec->topic);
	add_argument(&out, "type_prefix", spec->type_prefix);
	add_argument(&out, "mode", eo_capture_modes[spec->mode]);
	add_argument(&out, "format", eo_capture_formats[spec->format]);
	add_argument(&out, "key", spec->key ? eo_capture_names(spec->key) : NULL);
	add_argument(&out, "columns", spec->columns ? eo_capture_names(spec->columns) : NULL);
	add_argument(&out, "exclude", spec->exclude ? eo_capture_names(spec->exclude) : NULL);
	add_argument(&out, "as", spec->as_given ? eo_capture_ops[spec->as] : NULL);
	add_argument(&out, "child", spec->child ? "yes" : NULL);
	return out.data;
}
