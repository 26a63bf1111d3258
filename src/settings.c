/*
 * settings.c
 *
 * The configuration parameters of eo_outbox.
 */
#include "postgres.h"

#include <limits.h>

#include "common/jsonapi.h"
#include "compat.h"
#include "mb/pg_wchar.h"
#include "settings.h"
#include "utils/guc.h"

int			eo_max_databases;
int			eo_max_subscriptions;
int			eo_max_consumers;
int			eo_max_event_size;
int			eo_buffer_memory;
int			eo_segment_size;
int			eo_segment_age;
int			eo_retention;
int			eo_on_new_timeline;
int			eo_batch_events;
int			eo_batch_bytes;
int			eo_max_in_flight;
int			eo_ack_timeout;
int			eo_restart_limit;
int			eo_restart_window;
int			eo_snapshot_delay;
char	   *eo_headers;
uint32		eo_headers_generation;

#ifdef EO_TEST_SWITCHES
bool		eo_test_no_flush;
bool		eo_test_no_stop;
bool		eo_test_no_target_reset;
bool		eo_test_no_epoch;
bool		eo_test_no_recheck;
bool		eo_test_no_begun;
#endif

static const struct config_enum_entry on_new_timeline_options[] = {
	{"continue", EO_NEW_TIMELINE_CONTINUE, false},
	{"pause", EO_NEW_TIMELINE_PAUSE, false},
	{NULL, 0, false}
};

/*
 * Whether a string is a JSON object of strings.  Reads PostgreSQL's JSON
 * tokens, because a check hook should not throw as jsonb's input function does.
 */
static bool
is_flat_object(char *json)
{
	JsonLexContext *lex = EoJsonLexer(json, strlen(json));
	static const JsonTokenType expected[] = {JSON_TOKEN_STRING, JSON_TOKEN_COLON, JSON_TOKEN_STRING};

	if (json_lex(lex) != JSON_SUCCESS || lex->token_type != JSON_TOKEN_OBJECT_START)
		return false;
	for (bool first = true;; first = false)
	{
		if (json_lex(lex) != JSON_SUCCESS)
			return false;
		if (lex->token_type == JSON_TOKEN_OBJECT_END)
			break;
		if (!first)
		{
			if (lex->token_type != JSON_TOKEN_COMMA || json_lex(lex) != JSON_SUCCESS)
				return false;
		}
		for (int i = 0; i < 3; i++)
		{
			if (i > 0 && json_lex(lex) != JSON_SUCCESS)
				return false;
			if (lex->token_type != expected[i])
				return false;
		}
	}
	return json_lex(lex) == JSON_SUCCESS && lex->token_type == JSON_TOKEN_END;
}

static bool
check_headers(char **newval, void **extra, GucSource source)
{
	if (*newval == NULL || (*newval)[0] == '\0' || is_flat_object(*newval))
		return true;
	GUC_check_errdetail("The value must be a JSON object whose values are strings.");
	GUC_check_errhint("For example: {\"traceparent\": \"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}.");
	return false;
}

static void
assign_headers(const char *newval, void *extra)
{
	eo_headers_generation++;
}

static void
define_log_settings(void)
{
	DefineCustomIntVariable("eo_outbox.max_event_size",
							"Largest payload of an event.",
							"A larger one is refused when it is enqueued.",
							&eo_max_event_size,
							1024 * 1024, 1024, 64 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.buffer_memory",
							"Memory for the events of a transaction before they spill to a temporary file.",
							NULL,
							&eo_buffer_memory,
							8 * 1024, 64, MAX_KILOBYTES,
							PGC_USERSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.segment_size",
							"Size at which appends move on to the next segment.",
							"A segment grows beyond it while the next one is still needed.",
							&eo_segment_size,
							128, 1, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.segment_age",
							"Age at which appends move on to the next segment.",
							"0 rotates by size alone.",
							&eo_segment_age,
							24 * 3600, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.retention",
							"How long published events stay in the log at least.",
							"They can be replayed for that long.",
							&eo_retention,
							3600, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("eo_outbox.on_new_timeline",
							 "What subscriptions do after a promotion or a point-in-time recovery.",
							 "\"pause\" waits for eo.adopt().",
							 &eo_on_new_timeline,
							 EO_NEW_TIMELINE_CONTINUE, on_new_timeline_options,
							 PGC_SIGHUP, 0,
							 NULL, NULL, NULL);
}

static void
define_relay_settings(void)
{
	DefineCustomIntVariable("eo_outbox.batch_events",
							"Most events that the relay reads at once.",
							NULL,
							&eo_batch_events,
							2000, 1, 100000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.batch_bytes",
							"Most bytes of events that the relay reads at once.",
							NULL,
							&eo_batch_bytes,
							1024, 8, 64 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.max_in_flight",
							"Events sent to a publisher before it has acknowledged any.",
							NULL,
							&eo_max_in_flight,
							50000, 1, 1000000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.ack_timeout",
							"Time without an acknowledgement after which a publisher is killed.",
							NULL,
							&eo_ack_timeout,
							60000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.restart_limit",
							"Crashes of a publisher within eo_outbox.restart_window before its subscription fails.",
							NULL,
							&eo_restart_limit,
							5, 1, 1000,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.restart_window",
							"Time in which eo_outbox.restart_limit crashes make a subscription fail.",
							NULL,
							&eo_restart_window,
							60, 1, 86400,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.snapshot_delay",
							"Pause of eo.snapshot() after each append.",
							"0 makes it as fast as it can be, at the cost of concurrent transactions.",
							&eo_snapshot_delay,
							2, 0, 1000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

#ifdef EO_TEST_SWITCHES
static void
define_test_switch(const char *name, bool *variable)
{
	DefineCustomBoolVariable(name, "Takes a safety mechanism away.", NULL,
							 variable, false, PGC_SIGHUP, GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);
}
#endif

/*
 * Defines all parameters.  Called by _PG_init while the libraries of
 * shared_preload_libraries are loaded.
 */
void
eo_settings_init(void)
{
	DefineCustomIntVariable("eo_outbox.max_databases",
							"Databases of this server that may have the extension.",
							NULL,
							&eo_max_databases,
							16, 1, 1024,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.max_subscriptions",
							"Subscriptions, over all databases, that can be watched.",
							NULL,
							&eo_max_subscriptions,
							256, 1, 65536,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("eo_outbox.max_consumers",
							"Consumers and idempotency scopes, over all databases, that can be counted at a time.",
							"Those that are too many work as well, but the views count less.",
							&eo_max_consumers,
							256, 1, 65536,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	define_log_settings();
	define_relay_settings();
	DefineCustomStringVariable("eo_outbox.headers",
							   "Headers added to every event, as a JSON object of strings.",
							   "Meant for SET LOCAL; a header given to eo.enqueue wins.",
							   &eo_headers,
							   "",
							   PGC_USERSET, GUC_NOT_IN_SAMPLE,
							   check_headers, assign_headers, NULL);
#ifdef EO_TEST_SWITCHES
	define_test_switch("eo_outbox.test_no_flush", &eo_test_no_flush);
	define_test_switch("eo_outbox.test_no_stop", &eo_test_no_stop);
	define_test_switch("eo_outbox.test_no_target_reset", &eo_test_no_target_reset);
	define_test_switch("eo_outbox.test_no_epoch", &eo_test_no_epoch);
	define_test_switch("eo_outbox.test_no_recheck", &eo_test_no_recheck);
	define_test_switch("eo_outbox.test_no_begun", &eo_test_no_begun);
#endif
	MarkGUCPrefixReserved("eo_outbox");
}
