/*
 * supervision.c
 *
 * The life of a subscription's publisher.
 *
 * How it ended decides what follows.  We asked for it: nothing.  It gave a
 * reason and exited with status 1, or did not answer in time: the broker is out
 * of reach, so it is started again, for ever, ever less often.  It crashed,
 * exited in any other way or broke the protocol: the same, but when that
 * happens too often in a row, the subscription fails.  Any progress forgives
 * what was before.
 *
 * A publisher is never waited for.  SIGCHLD wakes the relay.
 */
#include "postgres.h"

#include <sys/wait.h>

#include "common/pg_prng.h"
#include "relay/dead_letters.h"
#include "relay/delivery.h"
#include "relay/replies.h"
#include "relay/sql.h"
#include "relay/supervision.h"
#include "store/lineage.h"
#include "utils/timestamp.h"
#include "wire/message.h"

#define READY_TIMEOUT_MS	60000
#define STOP_TIMEOUT_MS		5000	/* after STOP, or after it said it leaves */
#define EXIT_TIMEOUT_MS		1000	/* after its socket was closed */

/* Turns of reading what a publisher that has ended left in the socket. */
#define LAST_WORDS_TURNS	16

static EoBytes
wire_string(const char *text)
{
	return eo_to_wire(text, strlen(text));
}

static void
note_error(EoSubscription *sub, const char *reason)
{
	strlcpy(sub->last_error, reason, sizeof(sub->last_error));
	sub->last_error_at = GetCurrentTimestamp();
	sub->error_changed = true;
}

void
eo_supervision_fail(EoSubscription *sub, const char *reason)
{
	if (sub->phase != EO_PUBLISHER_NONE)
	{
		eo_publisher_kill(&sub->process);
		sub->phase = EO_PUBLISHER_ENDING;
		sub->ending = EO_ENDING_ASKED;
		sub->deadline = EO_NEVER;
	}
	sub->failed = true;
	note_error(sub, reason);
	ereport(WARNING,
			(errmsg("subscription \"%s\" has failed: %s", sub->name, reason),
			 errdetail("It keeps its place in the log."),
			 errhint("Remove the cause, then run eo.resume().")));
}

void
eo_supervision_back_off(EoSubscription *sub, const char *reason)
{
	int64		delay = eo_backoff_next(&sub->backoff, pg_prng_double(&pg_global_prng_state));

	sub->next_start = eo_clock_ms() + delay;
	sub->next_start_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
	sub->restarting = true;
	note_error(sub, reason);
	ereport(LOG,
			(errmsg("subscription \"%s\": %s", sub->name, reason),
			 errdetail("Everything since the last acknowledgement is sent again in " INT64_FORMAT " ms.",
					   delay)));
}

static void
send_config(EoSubscription *sub)
{
	char		source[128];
	EoConfigMessage m = {.version = EO_PROTOCOL_VERSION};
	size_t		size = 4096;

	snprintf(source, sizeof(source), "urn:eo-outbox:%s", eo_relay.home);
	/* In a transaction, which a conversion of text needs to find its function */
	eo_relay_begin(false);
	m.subscription = wire_string(sub->name);
	m.identity = wire_string(sub->identity);
	m.source = wire_string(source);
	m.published_seq = Max(sub->acked.published_seq, 0);
	m.server_options = sub->target->server_options;
	m.secrets = sub->target->secrets;
	m.subscription_options = sub->target->subscription_options;
	for (;;)
	{
		EoWriter	w = eo_channel_reserve(&sub->process.channel, size);

		eo_encode_config(&w, &m);
		if (eo_channel_commit(&sub->process.channel, &w))
			break;
		size = w.len;
	}
	eo_relay_commit(false);
}

void
eo_supervision_start(EoSubscription *sub)
{
	char	   *problem;

	/* The cursor must be on disk before anything is sent from there. */
	if (sub->flush_write || (sub->next_start != EO_NEVER && eo_clock_ms() < sub->next_start))
		return;
	problem = eo_publisher_missing(sub->target->kind);
	if (problem != NULL)
	{
		eo_supervision_fail(sub, problem);
		return;
	}
	problem = eo_publisher_start(&sub->process, sub->target->kind, sub->context);
	if (problem != NULL)
	{
		eo_supervision_back_off(sub, problem);
		return;
	}
	sub->phase = EO_PUBLISHER_STARTING;
	sub->ending = EO_ENDING_OWN;
	sub->reason[0] = '\0';
	sub->last_line[0] = '\0';
	sub->deadline = eo_clock_ms() + READY_TIMEOUT_MS;
	sub->next_start = EO_NEVER;
	if (sub->restarting)
		sub->restarts++;
	sub->restarting = false;
	eo_relay.fds_changed = true;
	eo_delivery_rewind(sub);
	send_config(sub);
}

void
eo_supervision_stop(EoSubscription *sub)
{
	EoWriter	w;

	if (sub->phase == EO_PUBLISHER_STARTING)
	{
		/* Nothing was sent, and it may be waiting for its broker. */
		eo_publisher_kill(&sub->process);
		sub->phase = EO_PUBLISHER_ENDING;
		sub->deadline = EO_NEVER;
		sub->ending = EO_ENDING_ASKED;
	}
	else if (sub->phase == EO_PUBLISHER_RUNNING)
	{
		w = eo_channel_reserve(&sub->process.channel, 16);
		eo_encode_empty(&w, EO_MSG_STOP);
		eo_channel_commit(&sub->process.channel, &w);
		sub->phase = EO_PUBLISHER_STOPPING;
		sub->deadline = eo_clock_ms() + STOP_TIMEOUT_MS;
		sub->ending = EO_ENDING_ASKED;
	}
}

void
eo_supervision_break(EoSubscription *sub, EoEnding ending, const char *format,...)
{
	va_list		args;

	if (sub->phase == EO_PUBLISHER_NONE)
		return;
	if (sub->ending != EO_ENDING_ASKED)
	{
		va_start(args, format);
		vsnprintf(sub->reason, sizeof(sub->reason), format, args);
		va_end(args);
		sub->ending = ending;
	}
	sub->phase = EO_PUBLISHER_ENDING;
	sub->deadline = EO_NEVER;
	eo_publisher_kill(&sub->process);
}

void
eo_supervision_leaving(EoSubscription *sub, const char *reason)
{
	if (sub->ending == EO_ENDING_ASKED)
		return;
	strlcpy(sub->reason, reason, sizeof(sub->reason));
	sub->ending = EO_ENDING_ORDERLY;
	sub->phase = EO_PUBLISHER_ENDING;
	sub->deadline = eo_clock_ms() + STOP_TIMEOUT_MS;
}

void
eo_supervision_closed(EoSubscription *sub)
{
	eo_publisher_close_channel(&sub->process);
	eo_relay.fds_changed = true;
	if (sub->phase == EO_PUBLISHER_STARTING || sub->phase == EO_PUBLISHER_RUNNING)
	{
		sub->phase = EO_PUBLISHER_ENDING;
		sub->deadline = eo_clock_ms() + EXIT_TIMEOUT_MS;
	}
}

void
eo_supervision_expect_answer(EoSubscription *sub)
{
	if (sub->phase == EO_PUBLISHER_RUNNING && sub->deadline == EO_NEVER)
		sub->deadline = eo_clock_ms() + sub->target->ack_timeout;
}

void
eo_supervision_answered(EoSubscription *sub)
{
	eo_backoff_reset(&sub->backoff);
	eo_crash_window_reset(&sub->crashes);
	if (sub->phase != EO_PUBLISHER_RUNNING)
		return;
	sub->deadline = EO_NEVER;
	if (sub->in_flight_count > 0 || eo_retries_unsettled(sub))
		eo_supervision_expect_answer(sub);
}

static void
check_deadline(EoSubscription *sub)
{
	if (eo_clock_ms() < sub->deadline)
		return;
	switch (sub->phase)
	{
		case EO_PUBLISHER_STARTING:
			eo_supervision_break(sub, EO_ENDING_TIMEOUT,
								 "the publisher was not ready within %d s",
								 READY_TIMEOUT_MS / 1000);
			break;
		case EO_PUBLISHER_RUNNING:
			eo_supervision_break(sub, EO_ENDING_TIMEOUT,
								 "no event was acknowledged for %d ms",
								 sub->target->ack_timeout);
			break;
		case EO_PUBLISHER_ENDING:
			if (sub->ending == EO_ENDING_OWN)
			{
				eo_supervision_break(sub, EO_ENDING_CRASH,
									 "the publisher closed its socket and did not exit");
				break;
			}
			/* FALLTHROUGH */
		case EO_PUBLISHER_STOPPING:
			eo_publisher_kill(&sub->process);
			sub->deadline = EO_NEVER;
			break;
		case EO_PUBLISHER_NONE:
			break;
	}
}

/* Why it ended, if nobody has said so yet. */
static void
explain_ending(EoSubscription *sub)
{
	int			status = sub->process.status;

	if (sub->ending != EO_ENDING_OWN)
		return;
	sub->ending = WIFEXITED(status) && WEXITSTATUS(status) == 1 ?
		EO_ENDING_ORDERLY : EO_ENDING_CRASH;
	snprintf(sub->reason, sizeof(sub->reason), "the publisher %s%s%s",
			 eo_publisher_ending(&sub->process),
			 sub->last_line[0] != '\0' ? ": " : "", sub->last_line);
}

/* The process is gone, and all that it said has been read. */
static void
publisher_ended(EoSubscription *sub)
{
	EoEnding	ending;

	explain_ending(sub);
	ending = sub->ending;
	eo_publisher_close(&sub->process);
	sub->phase = EO_PUBLISHER_NONE;
	sub->deadline = EO_NEVER;
	eo_relay.fds_changed = true;
	eo_delivery_rewind(sub);
	eo_retries_rewind(sub);
	if (ending == EO_ENDING_ASKED)
		return;
	if (ending == EO_ENDING_CRASH &&
		eo_crash_window_note(&sub->crashes, eo_clock_ms(), sub->target->max_restarts,
							 sub->target->restart_window))
		eo_supervision_fail(sub, psprintf("%s, after %d restarts", sub->reason,
										  sub->target->max_restarts));
	else
		eo_supervision_back_off(sub, sub->reason);
}

void
eo_supervision_check(EoSubscription *sub)
{
	if (sub->phase == EO_PUBLISHER_NONE)
		return;
	check_deadline(sub);
	if (!eo_relay.child_ended && sub->phase != EO_PUBLISHER_ENDING)
		return;
	if (!eo_publisher_reap(&sub->process))
		return;
	for (int i = 0; i < LAST_WORDS_TURNS && sub->process.channel.sock != PGINVALID_SOCKET; i++)
		eo_replies_read(sub);
	for (int i = 0; i < LAST_WORDS_TURNS && sub->process.errors != PGINVALID_SOCKET; i++)
		eo_replies_read_errors(sub);
	publisher_ended(sub);
}
