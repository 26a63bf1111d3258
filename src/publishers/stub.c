/*
 * stub.c
 *
 * eo-publish-stub: a publisher without a broker that does what the tests of
 * the relay tell it to.  Only test builds have it.
 *
 * Option `script`, of the subscription or else of the server:
 *
 *		script	= step { ";" step }
 *		step	= word [ ":" argument ] [ "@" when ]
 *		when	= N | N "-" M | N "-" | "seq=" N | "topic=" NAME | "retry"
 *
 * N counts the events that this process has got, from 1; 0 stands for the
 * start, after CONFIG and before READY.  Without "@" a step holds for every
 * event.  For each event the first step that holds decides; if none does, the
 * event is acknowledged.  Examples:
 *
 *		nack:permanent@7			refuse the seventh event, take the others
 *		ack:100;nack:retry			take 100 events, then fail
 *		stall@topic=slow			never settle what belongs to this topic
 *		position:50;log;die:9@100	claim 50, tell every event, die at the 100th
 *
 * Steps that settle the event or do not:
 *		ack[:N]			done; ":N" is short for "@1-N"
 *		nack:permanent[,REASON]		refuse it for good
 *		nack:retry[,REASON]			fail with the reason, exit with status 1
 *		stall			never settle it; everything else goes on
 *		hold			settle it at the next FLUSH or STOP
 *		busy[:N]		do not take it, nor read anything more; at the N-th
 *						attempt take it after all
 *		hang			do nothing at all any more, not even notice the end
 *		slow:MS			done after so many milliseconds
 *
 * Steps that end the process; what was settled before is acknowledged first:
 *		exit:STATUS, die:SIGNAL, abort
 *		vanish			SIGKILL, with the acknowledgements not sent
 *
 * Steps that break the protocol, and take the event as done:
 *		garbage			a frame of a type that does not exist
 *		zeroframe		a frame of length 0
 *		hugeframe		a frame of 4 GB
 *		shortframe		an ACK with half of its number
 *		forge			ACK of an event that was never sent
 *		backwards		the same ACK twice
 *		retried			RETRIED of an event that was not sent again
 *		ready			READY once more
 *		version:N		READY that names protocol version N; useful "@0"
 *		frame:HEX		a frame of that type and body; "@0" sends it before READY
 *		stderr:TEXT		no breach: a line on stderr
 *
 * Steps about the start, without "@":
 *		position:N		READY says that the broker has everything up to N
 *		noready			never READY
 *		fail[:REASON]	open() fails
 *		log				tell the configuration (names, not values) and each
 *						event as LOG frames at debug level
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "publishers/harness.h"

#define MAX_STEPS		32
#define NEVER			INT64_MAX

typedef enum StepScope
{
	SCOPE_RANGE,				/* from first to last */
	SCOPE_SEQ,					/* seq == first */
	SCOPE_TOPIC,				/* topic == name */
	SCOPE_RETRY,				/* dead letters that come again */
	SCOPE_START					/* settings, not looked at per event */
} StepScope;

typedef struct Step
{
	const char *word;
	const char *argument;		/* "" if none */
	StepScope	scope;
	int64_t		first;
	int64_t		last;
	const char *topic;
} Step;

typedef struct StubState
{
	char	   *script;			/* cut into the steps' strings */
	Step		steps[MAX_STEPS];
	int			count;
	int64_t		events;
	int64_t		busy;			/* how often an event was not taken in a row */
	bool		log;
	uint64_t   *held;			/* tokens of `hold` */
	size_t		held_count;
	size_t		held_cap;
} StubState;

static const char *const start_words[] = {"position", "noready", "fail", "log", NULL};
static const char *const event_words[] = {
	"ack", "nack", "stall", "hold", "busy", "hang", "slow", "exit", "die",
	"abort", "vanish", "garbage", "zeroframe", "hugeframe", "shortframe",
	"forge", "backwards", "retried", "ready", "version", "frame",
	"stderr", NULL
};

static bool
is_one_of(const char *word, const char *const *words)
{
	for (; *words != NULL; words++)
	{
		if (strcmp(*words, word) == 0)
			return true;
	}
	return false;
}

/*----------
 * The script
 *----------
 */

static int64_t
parse_count(Publisher *pub, const char *text, char **end)
{
	int64_t		n = strtoll(text, end, 10);

	if (*end == text || n < 0)
		publisher_fail(pub, "script: \"%s\" is not a number", text);
	return n;
}

static void
parse_when(Publisher *pub, Step *step, char *when)
{
	char	   *end;

	if (strncmp(when, "topic=", 6) == 0)
	{
		step->scope = SCOPE_TOPIC;
		step->topic = when + 6;
		return;
	}
	if (strcmp(when, "retry") == 0)
	{
		step->scope = SCOPE_RETRY;
		return;
	}
	step->scope = strncmp(when, "seq=", 4) == 0 ? SCOPE_SEQ : SCOPE_RANGE;
	step->first = parse_count(pub, step->scope == SCOPE_SEQ ? when + 4 : when, &end);
	step->last = step->first;
	if (*end == '-' && step->scope == SCOPE_RANGE)
		step->last = end[1] == '\0' ? NEVER : parse_count(pub, end + 1, &end);
}

static void
parse_step(Publisher *pub, StubState *state, char *text)
{
	Step	   *step = &state->steps[state->count++];
	char	   *when = strchr(text, '@');
	char	   *argument;
	char	   *end;

	if (state->count == MAX_STEPS)
		publisher_fail(pub, "script: too many steps");
	if (when)
		*when++ = '\0';
	argument = strchr(text, ':');
	if (argument)
		*argument++ = '\0';
	step->word = text;
	step->argument = argument ? argument : "";
	step->scope = SCOPE_RANGE;
	step->first = 1;
	step->last = NEVER;

	if (is_one_of(text, start_words) && when == NULL)
		step->scope = SCOPE_START;
	else if (!is_one_of(text, event_words))
		publisher_fail(pub, "script: step \"%s\" is not known", text);
	if (strcmp(text, "ack") == 0 && argument)
		step->last = parse_count(pub, argument, &end);
	if (when)
		parse_when(pub, step, when);
}

static void
parse_script(Publisher *pub, StubState *state, EoBytes script)
{
	char	   *rest;
	char	   *text;

	state->script = strndup(script.data ? script.data : "", script.len);
	if (state->script == NULL)
		publisher_fail(pub, "out of memory");
	rest = state->script;
	while ((text = strsep(&rest, ";")) != NULL)
	{
		text += strspn(text, " ");
		if (*text != '\0')
			parse_step(pub, state, text);
	}
}

static const Step *
setting(const StubState *state, const char *word)
{
	for (int i = 0; i < state->count; i++)
	{
		if (state->steps[i].scope == SCOPE_START &&
			strcmp(state->steps[i].word, word) == 0)
			return &state->steps[i];
	}
	return NULL;
}

/* The step for an event; NULL stands for the start. */
static const Step *
find_step(const StubState *state, const EoEventMessage *event)
{
	for (int i = 0; i < state->count; i++)
	{
		const Step *s = &state->steps[i];
		bool		holds = false;

		if (s->scope == SCOPE_RANGE)
			holds = state->events >= s->first && state->events <= s->last;
		else if (event != NULL && s->scope == SCOPE_SEQ)
			holds = event->seq == s->first;
		else if (event != NULL && s->scope == SCOPE_RETRY)
			holds = (event->flags & EO_EVENT_RETRY) != 0;
		else if (event != NULL && s->scope == SCOPE_TOPIC)
			holds = strlen(s->topic) == event->topic.len &&
				memcmp(s->topic, event->topic.data, event->topic.len) == 0;
		if (holds)
			return s;
	}
	return NULL;
}

/*----------
 * Faults
 *----------
 */

static void
send_frame(Publisher *pub, uint8_t type, const char *body, size_t len)
{
	char		data[256];
	EoWriter	w = {data, sizeof(data), 0};
	size_t		start = eo_frame_begin(&w, type);

	eo_put_raw(&w, body, len);
	eo_frame_end(&w, start);
	harness_send_raw(pub, data, w.len);
}

static void
send_number(Publisher *pub, EoMessageType type, int64_t number)
{
	char		data[32];
	EoWriter	w = {data, sizeof(data), 0};

	eo_encode_number(&w, type, number);
	harness_send_raw(pub, data, w.len);
}

static void
send_ready(Publisher *pub, uint32_t version)
{
	EoReadyMessage m = {version, false, 0};
	char		data[32];
	EoWriter	w = {data, sizeof(data), 0};

	eo_encode_ready(&w, &m);
	harness_send_raw(pub, data, w.len);
}

/* A frame as the script has it: its type and its body, two digits a byte. */
static void
send_hex(Publisher *pub, const char *digits)
{
	char		data[128];
	unsigned	byte;
	size_t		len = 0;

	for (; len < sizeof(data) && sscanf(digits, "%2x", &byte) == 1 && digits[1] != '\0'; digits += 2)
		data[len++] = (char) byte;
	if (len > 0)
		send_frame(pub, data[0], data + 1, len - 1);
}

/* Ends the process if the step says so. */
static void
maybe_end(Publisher *pub, const Step *step)
{
	const char *word = step->word;

	if (strcmp(word, "vanish") == 0)
		raise(SIGKILL);
	if (strcmp(word, "exit") != 0 && strcmp(word, "die") != 0 &&
		strcmp(word, "abort") != 0)
		return;
	harness_send_now(pub);
	if (strcmp(word, "exit") == 0)
		exit(atoi(step->argument));
	if (strcmp(word, "abort") == 0)
		abort();
	raise(atoi(step->argument));
}

/* Does what the step says against the protocol, if anything. */
static void
maybe_break(Publisher *pub, const Step *step, int64_t seq)
{
	const char *word = step->word;

	if (strcmp(word, "garbage") == 0)
		send_frame(pub, 'z', "what?", 5);
	else if (strcmp(word, "zeroframe") == 0)
		harness_send_raw(pub, "\0\0\0\0\0\0\0\0", 8);
	else if (strcmp(word, "hugeframe") == 0)
		harness_send_raw(pub, "\377\377\377\377A1234567", 12);
	else if (strcmp(word, "shortframe") == 0)
		send_frame(pub, EO_MSG_ACK, "\0\0\0\0", 4);
	else if (strcmp(word, "forge") == 0)
		send_number(pub, EO_MSG_ACK, seq + 1000000);
	else if (strcmp(word, "retried") == 0)
		send_number(pub, EO_MSG_RETRIED, seq);
	else if (strcmp(word, "ready") == 0)
		send_ready(pub, EO_PROTOCOL_VERSION);
	else if (strcmp(word, "version") == 0)
		send_ready(pub, (uint32_t) atoi(step->argument));
	else if (strcmp(word, "frame") == 0)
		send_hex(pub, step->argument);
	else if (strcmp(word, "stderr") == 0)
		fprintf(stderr, "%s\n", step->argument);
}

static void
wait_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	while (nanosleep(&ts, &ts) < 0)
		;
}

/* Waits for the relay to go away. */
static void
never_ready(void)
{
	struct pollfd pfd = {STDIN_FILENO, 0, 0};

	while (poll(&pfd, 1, -1) <= 0)
		;
	exit(0);
}

/*----------
 * Operations
 *----------
 */

static void
log_config(Publisher *pub, const EoConfigMessage *config)
{
	size_t		offset = 0;
	EoPair		pair;

	publisher_log(pub, EO_LOG_DEBUG,
				  "config subscription=%.*s identity=%.*s source=%.*s published_seq=%lld",
				  (int) config->subscription.len, config->subscription.data,
				  (int) config->identity.len, config->identity.data,
				  (int) config->source.len, config->source.data,
				  (long long) config->published_seq);
	while (eo_pairs_next(&config->secrets, &offset, &pair))
		publisher_log(pub, EO_LOG_DEBUG, "secret %.*s of %zu bytes",
					  (int) pair.name.len, pair.name.data, pair.value.len);
}

static void
stub_open(Publisher *pub, const EoConfigMessage *config)
{
	static StubState stub;
	StubState  *state = &stub;
	EoBytes		script = eo_pairs_get(&config->subscription_options, "script");
	const Step *step;

	pub->state = state;
	if (script.data == NULL)
		script = eo_pairs_get(&config->server_options, "script");
	parse_script(pub, state, script);

	state->log = setting(state, "log") != NULL;
	if (state->log)
		log_config(pub, config);
	step = setting(state, "fail");
	if (step)
		publisher_fail(pub, "%s", *step->argument ? step->argument : "told to fail");
	if (setting(state, "noready"))
		never_ready();
	step = setting(state, "position");
	if (step)
		publisher_position(pub, atoll(step->argument));
	step = find_step(state, NULL);
	if (step)
	{
		maybe_end(pub, step);
		maybe_break(pub, step, 1);
	}
}

static void
hold(Publisher *pub, StubState *state, uint64_t token)
{
	if (state->held_count == state->held_cap)
	{
		state->held_cap = state->held_cap * 2 + 64;
		state->held = realloc(state->held, state->held_cap * sizeof(uint64_t));
		if (state->held == NULL)
			publisher_fail(pub, "out of memory");
	}
	state->held[state->held_count++] = token;
}

static void
log_event(Publisher *pub, const EoEventMessage *event)
{
	char		id[37];

	cloudevents_id(event->event_id, id);
	publisher_log(pub, EO_LOG_DEBUG,
				  "event seq=%lld position=%lld id=%s topic=%.*s key=%.*s type=%.*s retry=%d payload=%.*s",
				  (long long) event->seq, (long long) event->position, id,
				  (int) event->topic.len, event->topic.data,
				  (int) event->key.len, event->key.data ? event->key.data : "",
				  (int) event->type.len, event->type.data ? event->type.data : "",
				  (event->flags & EO_EVENT_RETRY) != 0,
				  (int) (event->payload.len < 200 ? event->payload.len : 200),
				  event->payload.data ? event->payload.data : "");
}

/* nack:permanent or nack:retry */
static void
nack(Publisher *pub, const Step *step, uint64_t token)
{
	const char *comma = strchr(step->argument, ',');
	const char *reason = comma ? comma + 1 : "told to refuse it";

	if (strncmp(step->argument, "permanent", 9) != 0)
		publisher_fail(pub, "%s", reason);
	publisher_settle(pub, token, SETTLE_REFUSED, reason);
}

static PublishResult
stub_publish(Publisher *pub, const EoEventMessage *event, uint64_t token)
{
	StubState  *state = pub->state;
	const Step *step;
	const char *word;

	state->events++;
	step = find_step(state, event);
	word = step ? step->word : "ack";
	if (strcmp(word, "busy") == 0 &&
		(*step->argument == '\0' || ++state->busy < atoll(step->argument)))
	{
		state->events--;
		return PUBLISH_BUSY;
	}
	state->busy = 0;
	if (state->log)
		log_event(pub, event);

	if (strcmp(word, "hang") == 0)
		for (;;)
			pause();
	if (strcmp(word, "nack") == 0)
		nack(pub, step, token);
	else if (strcmp(word, "hold") == 0)
		hold(pub, state, token);
	else if (strcmp(word, "stall") != 0)
	{
		if (strcmp(word, "slow") == 0)
			wait_ms(atol(step->argument));
		if (step)
		{
			maybe_end(pub, step);
			maybe_break(pub, step, event->seq);
		}
		publisher_settle(pub, token, SETTLE_DURABLE, NULL);
		if (strcmp(word, "backwards") == 0)
		{
			harness_send_now(pub);
			send_number(pub, EO_MSG_ACK, event->seq);
		}
	}
	return PUBLISH_TAKEN;
}

static void
stub_flush(Publisher *pub)
{
	StubState  *state = pub->state;

	for (size_t i = 0; i < state->held_count; i++)
		publisher_settle(pub, state->held[i], SETTLE_DURABLE, NULL);
	state->held_count = 0;
}

static const PublisherOps stub_ops = {
	.kind = "stub",
	.open = stub_open,
	.publish = stub_publish,
	.flush = stub_flush
};

int
main(void)
{
	return publisher_main(&stub_ops);
}
