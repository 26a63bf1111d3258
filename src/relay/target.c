/*
 * target.c
 *
 * Where a broker subscription publishes to.
 *
 * The server and the mapping may have been dropped, renamed or altered since
 * the subscription was made, and options checked by an older version of the
 * extension; so everything is checked again here, and what is wrong becomes
 * the subscription's problem, never an error.
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "relay/target.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "wire/options.h"

#define FDW_PREFIX	"eo_"

EoBytes
eo_to_wire(const char *text, int len)
{
	char	   *converted = pg_server_to_any(text, len, PG_UTF8);
	EoBytes		bytes = {converted, converted == text ? len : strlen(converted)};

	return bytes;
}

char *
eo_from_wire(EoBytes text, int limit)
{
	int			len = (int) Min(text.len, (size_t) limit);
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;
	char	   *result;

	if (utf8)
	{
		/* It believes the length that the first byte of a character tells. */
		len = Min(len, pg_encoding_mbcliplen(PG_UTF8, text.data, (int) Min(text.len, (size_t) limit + 1), limit));
		utf8 = pg_verify_mbstr(PG_UTF8, text.data, len, true);
	}
	result = pnstrdup(text.data, len);
	for (int i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) text.data[i];

		if (c < ' ' || c == 0x7f)
			result[i] = ' ';
		else if (c >= 0x80 && !utf8)
			result[i] = '?';
	}
	return result;
}

static void pg_attribute_printf(2, 3)
set_problem(EoTarget *target, const char *format,...)
{
	va_list		args;
	char		text[512];

	if (target->problem != NULL)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	target->problem = pstrdup(text);
}

/* Options that the relay itself obeys; publishers do not see them. */
static bool
take_relay_option(EoTarget *target, const char *name, const char *value)
{
	if (strcmp(name, "max_in_flight") == 0)
		target->max_in_flight = atoi(value);
	else if (strcmp(name, "synchronous_standbys") == 0)
		target->synchronous_standbys = strcmp(value, "true") == 0;
	else if (strcmp(name, "ack_timeout") == 0)
		target->ack_timeout = atoi(value);
	else if (strcmp(name, "max_restarts") == 0)
		target->max_restarts = atoi(value);
	else if (strcmp(name, "restart_window") == 0)
		target->restart_window = atoi(value);
	else
		return false;
	return true;
}

typedef struct OptionList
{
	EoTarget   *target;
	const EoBrokerKind *kind;
	EoOptionPlace place;
	const char *what;			/* for messages */
	EoPair	   *items;
	int			count;
	int			size;
} OptionList;

static void
start_options(OptionList *list, EoTarget *target, const EoBrokerKind *kind,
			  EoOptionPlace place, const char *what)
{
	memset(list, 0, sizeof(*list));
	list->target = target;
	list->kind = kind;
	list->place = place;
	list->what = what;
	list->size = 16;
	list->items = palloc(sizeof(EoPair) * list->size);
}

static void
add_option(OptionList *list, const char *name, const char *value)
{
	bool		found;
	const char *wrong = eo_option_check(list->kind, list->place, name, value, &found);

	if (wrong != NULL)
	{
		set_problem(list->target, "option \"%s\" of the %s %s", name, list->what,
					found ? wrong : "is not known");
		return;
	}
	if (take_relay_option(list->target, name, value))
		return;
	if (list->count == list->size)
	{
		list->size *= 2;
		list->items = repalloc(list->items, sizeof(EoPair) * list->size);
	}
	list->items[list->count].name = eo_to_wire(name, strlen(name));
	list->items[list->count].value = eo_to_wire(value, strlen(value));
	list->count++;
}

static EoPairs
finish_options(OptionList *list)
{
	EoPairs		pairs = {.count = list->count,.items = list->items};

	for (const EoOption *option = list->kind->options; option->name != NULL; option++)
	{
		bool		present = false;

		if (!option->required || (option->places & list->place) == 0)
			continue;
		for (int i = 0; i < list->count; i++)
		{
			if (strncmp(list->items[i].name.data, option->name, list->items[i].name.len) == 0 &&
				strlen(option->name) == list->items[i].name.len)
				present = true;
		}
		if (!present)
			set_problem(list->target, "option \"%s\" of the %s is missing",
						option->name, list->what);
	}
	return pairs;
}

static EoPairs
options_of_list(EoTarget *target, const EoBrokerKind *kind, EoOptionPlace place,
				const char *what, List *options)
{
	OptionList	list;
	ListCell   *lc;

	start_options(&list, target, kind, place, what);
	foreach(lc, options)
	{
		DefElem    *def = lfirst_node(DefElem, lc);

		add_option(&list, def->defname, defGetString(def));
	}
	return finish_options(&list);
}

static char *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

static EoPairs
options_of_json(EoTarget *target, const EoBrokerKind *kind, Jsonb *options)
{
	OptionList	list;
	JsonbIterator *it = JsonbIteratorInit(&options->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	start_options(&list, target, kind, EO_OPTION_SUBSCRIPTION, "subscription");
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char	   *text;

		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		if (token != WJB_VALUE || name == NULL)
			continue;
		text = scalar_text(&value);
		if (text != NULL)
			add_option(&list, name, text);
		else
			set_problem(target, "option \"%s\" of the subscription is not a string, number or boolean", name);
	}
	return finish_options(&list);
}

/* The mapping of the owner, or of PUBLIC, or no options. */
static List *
user_mapping_options(const char *owner, Oid server)
{
	Oid			role = get_role_oid(owner, true);

	if (OidIsValid(role) &&
		SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(role),
							  ObjectIdGetDatum(server)))
		return GetUserMapping(role, server)->options;
	if (SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							  ObjectIdGetDatum(server)))
		return GetUserMapping(InvalidOid, server)->options;
	return NIL;
}

static void
print_pairs(StringInfo out, const EoPairs *pairs)
{
	for (uint32 i = 0; i < pairs->count; i++)
	{
		const EoPair *pair = &pairs->items[i];

		appendStringInfo(out, "%zu:", pair->name.len);
		appendBinaryStringInfo(out, pair->name.data, (int) pair->name.len);
		appendStringInfo(out, "%zu:", pair->value.len);
		appendBinaryStringInfo(out, pair->value.data, (int) pair->value.len);
	}
	appendStringInfoChar(out, ';');
}

/* Changes when the publisher has to be told something else. */
static char *
make_fingerprint(const EoTarget *target)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfo(&out, "%s;%s;", target->kind ? target->kind : "",
					 target->problem ? target->problem : "");
	print_pairs(&out, &target->server_options);
	print_pairs(&out, &target->secrets);
	print_pairs(&out, &target->subscription_options);
	return out.data;
}

static void
read_options(EoTarget *target, const char *server_name, const char *owner, Jsonb *options)
{
	ForeignServer *server = GetForeignServerByName(server_name, true);
	const char *wrapper;
	const EoBrokerKind *kind;

	if (server == NULL)
	{
		set_problem(target, "server \"%s\" does not exist", server_name);
		return;
	}
	wrapper = GetForeignDataWrapper(server->fdwid)->fdwname;
	if (strncmp(wrapper, FDW_PREFIX, strlen(FDW_PREFIX)) != 0 ||
		(kind = eo_broker_kind(wrapper + strlen(FDW_PREFIX))) == NULL)
	{
		set_problem(target, "server \"%s\" is not of a kind that can be published to", server_name);
		return;
	}
	target->kind = kind->name;
	target->server_options = options_of_list(target, kind, EO_OPTION_SERVER,
											 "server", server->options);
	target->secrets = options_of_list(target, kind, EO_OPTION_USER_MAPPING,
									  "user mapping",
									  user_mapping_options(owner, server->serverid));
	target->subscription_options = options_of_json(target, kind, options);
}

EoTarget *
eo_target_read(const char *server, const char *owner, Jsonb *options)
{
	EoTarget   *target = palloc0(sizeof(EoTarget));

	target->max_in_flight = eo_max_in_flight;
	target->ack_timeout = eo_ack_timeout;
	target->max_restarts = eo_restart_limit;
	target->restart_window = (int64) eo_restart_window * 1000;
	read_options(target, server, owner, options);
	target->fingerprint = make_fingerprint(target);
	return target;
}
