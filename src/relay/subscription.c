/*
 * subscription.c
 *
 * A subscription's turn in the relay's loop, its life, and its statistics.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "points.h"
#include "relay/dead_letters.h"
#include "relay/delivery.h"
#include "relay/replies.h"
#include "relay/sql.h"
#include "relay/supervision.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* The delay before a publisher is started again. */
#define FIRST_DELAY_MS	100
#define LAST_DELAY_MS	30000

EoSubscription *
eo_subscription_create(int32 id)
{
	MemoryContext context = AllocSetContextCreate(eo_relay.context, "eo_outbox subscription",
												  ALLOCSET_DEFAULT_SIZES);
	EoSubscription *sub = MemoryContextAllocZero(context, sizeof(EoSubscription));

	sub->id = id;
	sub->context = context;
	sub->process.channel.sock = PGINVALID_SOCKET;
	sub->process.errors = PGINVALID_SOCKET;
	sub->next_start = EO_NEVER;
	sub->write_at = EO_NEVER;
	sub->stall_check = EO_NEVER;
	sub->retries_at = EO_NEVER;
	sub->deadline = EO_NEVER;
	sub->sent_seq = (int64) pg_atomic_read_u64(&eo_relay.db->last_seq);
	eo_backoff_init(&sub->backoff, FIRST_DELAY_MS, LAST_DELAY_MS);

	sub->slot = eo_subscription_slot(MyDatabaseId, id, true);
	if (sub->slot == NULL)
		ereport(WARNING,
				(errmsg("no statistics for subscription %d, because there are too many subscriptions", id),
				 errhint("Increase eo_outbox.max_subscriptions (now %d) and restart the server.",
						 eo_max_subscriptions)));
	else
	{
		/* Counters go on from where an earlier relay left them. */
		EoSubscriptionStats stats = eo_subscription_stats(sub->slot);

		sub->published = stats.published;
		sub->published_bytes = stats.published_bytes;
		sub->refused = stats.refused;
		sub->restarts = stats.restarts;
		sub->last_ack_at = stats.last_ack_at;
		sub->last_error_at = stats.last_error_at;
		strlcpy(sub->last_error, stats.last_error, sizeof(sub->last_error));
	}
	return sub;
}

void
eo_subscription_destroy(EoSubscription *sub)
{
	eo_publisher_finish(&sub->process);
	eo_relay.fds_changed = true;
	eo_subscription_slot_free(MyDatabaseId, sub->id);
	MemoryContextDelete(sub->context);
}

/* Whether it should publish; otherwise sets the state that says why not. */
static bool
should_run(EoSubscription *sub)
{
	EoLineageState lineage = pg_atomic_read_u32(&eo_relay.db->lineage);

	if (sub->pull)
		sub->state = EO_SUB_PULL;
	else if (sub->paused)
		sub->state = EO_SUB_PAUSED;
	else if (!sub->at_home || !sub->has_cursor || lineage == EO_LINEAGE_FOREIGN || lineage == EO_LINEAGE_UNKNOWN)
		sub->state = EO_SUB_WAITING_ADOPTION;
	else if (sub->failed)
		sub->state = EO_SUB_FAILED;
	else
		return true;
	return false;
}

static void
set_running_state(EoSubscription *sub)
{
	if (sub->phase == EO_PUBLISHER_NONE && sub->next_start != EO_NEVER)
		sub->state = EO_SUB_BACKOFF;
	else if (sub->phase != EO_PUBLISHER_RUNNING || sub->recount.active)
		sub->state = EO_SUB_STARTING;
	else if (!sub->at_tail)
		sub->state = EO_SUB_CATCHING_UP;
	else
		sub->state = EO_SUB_STREAMING;
}

static bool
seek_is_due(EoSubscription *sub)
{
	return sub->seek_number != sub->acked.seek_number &&
		!(sub->recount.active && sub->recount.result.seek_number == sub->seek_number);
}

/* There is no publisher.  Returns true if there is more to do at once. */
static bool
prepare(EoSubscription *sub, uint64 ended)
{
	if (sub->next_start != EO_NEVER && eo_clock_ms() < sub->next_start)
		return false;
	sub->next_start = EO_NEVER;
	if (seek_is_due(sub))
		eo_recount_seek(sub);
	if (sub->recount.active)
		return eo_recount_step(sub, ended);
	if (sub->target->problem != NULL)
		eo_supervision_fail(sub, sub->target->problem);
	else
		eo_supervision_start(sub);
	return false;
}

static bool
publish(EoSubscription *sub, uint64 ended)
{
	if (sub->restart_wanted || seek_is_due(sub) || sub->target->problem != NULL)
	{
		eo_supervision_stop(sub);
		return false;
	}
	if (sub->phase != EO_PUBLISHER_RUNNING)
		return false;
	if (sub->recount.active)
		return eo_recount_step(sub, ended);
	eo_retries_send(sub);
	return eo_delivery_step(sub, ended);
}

bool
eo_subscription_serve(EoSubscription *sub, uint64 ended)
{
	bool		more = false;

	if (sub->errors_readable)
		eo_replies_read_errors(sub);
	if (sub->socket_readable)
		eo_replies_read(sub);
	sub->errors_readable = sub->socket_readable = false;
	eo_supervision_check(sub);

	if (!should_run(sub))
		eo_supervision_stop(sub);
	else
	{
		if (sub->phase == EO_PUBLISHER_NONE)
		{
			sub->restart_wanted = false;
			more = prepare(sub, ended);
		}
		else
			more = publish(sub, ended);
		if (sub->failed)
			sub->state = EO_SUB_FAILED;
		else
			set_running_state(sub);
	}

	if (eo_channel_pending(&sub->process.channel) > 0)
	{
		EO_POINT(relay_send);
		eo_channel_send(&sub->process.channel);
		EO_POINT(relay_sent);
	}
	more |= eo_progress_step(sub);
	eo_subscription_report(sub);
	return more;
}

void
eo_subscription_broken(EoSubscription *sub, const char *message)
{
	sub->recount.active = false;
	if (sub->phase != EO_PUBLISHER_NONE)
		eo_supervision_break(sub, EO_ENDING_ORDERLY, "%s", message);
	else
	{
		eo_supervision_back_off(sub, message);
		sub->state = EO_SUB_BACKOFF;
	}

	/* What has just failed should not be tried in every turn. */
	if (sub->write_at != EO_NEVER)
		sub->write_at = eo_clock_ms() + EO_RETRY_MS * 10;

	/* The error has kept the turn from it. */
	eo_subscription_report(sub);
}

void
eo_subscription_renew(EoSubscription *sub)
{
	sub->failed = false;
	sub->next_start = EO_NEVER;
	eo_backoff_reset(&sub->backoff);
	eo_crash_window_reset(&sub->crashes);
}

/* Whether eo_recount_step() is called in every turn. */
static bool
recounts(EoSubscription *sub)
{
	return sub->recount.active && sub->state == EO_SUB_STARTING &&
		(sub->phase == EO_PUBLISHER_NONE || sub->phase == EO_PUBLISHER_RUNNING);
}

/*
 * A point in time that nobody acts upon when it has come would be waited for
 * without a pause: each belongs to those who look at it.
 */
int64
eo_subscription_deadline(EoSubscription *sub)
{
	int64		deadline = sub->write_at;

	if (sub->phase != EO_PUBLISHER_NONE)
		deadline = Min(deadline, sub->deadline);
	if (sub->state == EO_SUB_BACKOFF)
		deadline = Min(deadline, sub->next_start);
	if (eo_delivery_can_read(sub) || recounts(sub))
		deadline = Min(deadline, sub->stall_check);
	if (eo_delivery_gathers(sub))
		deadline = Min(deadline, eo_delivery_gathered_at(sub));
	if (sub->phase == EO_PUBLISHER_RUNNING && !sub->recount.active && sub->load_retries && sub->retries == NIL)
		deadline = Min(deadline, sub->retries_at);
	return deadline;
}

bool
eo_subscription_reads(EoSubscription *sub)
{
	return recounts(sub) || (eo_delivery_can_read(sub) && !eo_delivery_gathers(sub));
}

void
eo_subscription_report(EoSubscription *sub)
{
	EoSubscriptionSlot *slot = sub->slot;
	EoSubscriptionStats *stats;
	EoInFlight *oldest = eo_in_flight_first(sub);
	int64		acked_seq = sub->pull ? 0 : eo_progress_published(sub);
	bool		advanced;

	/* A CREATE EXTENSION that was rolled back has freed the slots. */
	if (slot != NULL && sub->state != EO_SUB_NONE &&
		(slot->dboid != MyDatabaseId || slot->id != sub->id))
		slot = sub->slot = eo_subscription_slot(MyDatabaseId, sub->id, true);
	if (slot == NULL || slot->dboid != MyDatabaseId || slot->id != sub->id)
		return;
	stats = &slot->stats;
	SpinLockAcquire(&slot->mutex);
	advanced = stats->acked_seq != acked_seq || stats->state != sub->state;
	stats->state = sub->state;
	stats->publisher_pid = sub->process.pid;
	stats->read_seq = sub->read_seq;
	stats->acked_seq = acked_seq;
	stats->published = sub->published;
	stats->published_bytes = sub->published_bytes;
	stats->refused = sub->refused;
	stats->in_flight = sub->in_flight_count;
	stats->lag_bytes = sub->bytes_behind;
	stats->restarts = sub->restarts;
	stats->oldest_unpublished = oldest == NULL ? 0 : oldest->enqueued_at;
	stats->last_ack_at = sub->last_ack_at;
	stats->next_start_at = sub->state == EO_SUB_BACKOFF ? sub->next_start_at : 0;
	if (sub->error_changed)
	{
		stats->last_error_at = sub->last_error_at;
		strlcpy(stats->last_error, sub->last_error, sizeof(stats->last_error));
	}
	SpinLockRelease(&slot->mutex);
	sub->error_changed = false;
	if (advanced)
		ConditionVariableBroadcast(&slot->advanced);
}
