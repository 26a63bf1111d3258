/*
 * recount.c
 *
 * Moves a cursor without sending: eo.seek(), and a broker that lost its latest
 * events.
 *
 * Positions are dense counts per topic, and a replayed event keeps its own.
 * So the events between the old place and the new one are read, and what they
 * add to each topic is taken off when the cursor goes back, or put on when it
 * goes forward (the consumer sees the gap).  That may be a large part of the
 * log, so it is done in batches between which other subscriptions have their
 * turn; nothing is sent to this one meanwhile, and nothing is changed before
 * all is counted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "relay/delivery.h"
#include "relay/sql.h"
#include "settings.h"
#include "store/append.h"
#include "store/topics.h"

static void
clear_delta(EoSubscription *sub, EoTopic *topic)
{
	topic->delta = 0;
}

static void
apply_delta(EoSubscription *sub, EoTopic *topic)
{
	if (topic->delta == 0)
		return;
	topic->sent = Max(topic->acked + topic->delta, 0);
	eo_topic_settled(sub, topic, topic->sent);
	topic->delta = 0;
}

/* Plans to count what is in (from, through]. */
static void
start(EoSubscription *sub, int sign, int64 from, int64 through, EoCursor result)
{
	eo_delivery_seek(sub, from);
	eo_topics_each(sub, clear_delta);
	sub->recount.active = true;
	sub->recount.sign = sign;
	sub->recount.through = through;
	sub->recount.result = result;
	sub->recount.waits = false;
}

/*
 * The highest seq handed out, all up to which is in the log: nobody who has
 * one is still about to insert it.
 */
static int64
settled_last_seq(void)
{
	int64		last_seq;

	eo_relay_begin(false);
	eo_log_prepare(eo_relay.db);
	eo_append_lock();
	last_seq = (int64) pg_atomic_read_u64(&eo_relay.db->last_seq);
	eo_append_unlock();
	eo_relay_commit(false);
	return last_seq;
}

void
eo_recount_seek(EoSubscription *sub)
{
	int64		target = Max(Min(sub->seek_seq, settled_last_seq()), 0);
	EoCursor	result = {.seq = target,.published_seq = -1,.replay_until = PG_INT64_MAX};
	bool		back = target < sub->acked.seq;

	result.seek_number = sub->seek_number;
	ereport(LOG,
			(errmsg("subscription \"%s\" goes %s from " INT64_FORMAT " to " INT64_FORMAT,
					sub->name, back ? "back" : "forward", sub->acked.seq, target)));
	start(sub, back ? -1 : 1, Min(target, sub->acked.seq), Max(target, sub->acked.seq), result);
}

void
eo_recount_back(EoSubscription *sub, int64 seq)
{
	EoCursor	result = sub->acked;

	result.seq = seq;
	result.published_seq = seq;
	start(sub, -1, seq, sub->acked.seq, result);
}

static void
finish(EoSubscription *sub)
{
	eo_topics_each(sub, apply_delta);
	sub->recount.active = false;
	sub->acked = sub->recount.result;
	sub->flush_write = true;
	eo_delivery_seek(sub, sub->acked.seq);
	eo_progress_note(sub);
}

bool
eo_recount_step(EoSubscription *sub, uint64 ended)
{
	EoReadLimits limits = {.events = eo_batch_events,.bytes = (Size) eo_batch_bytes * 1024};
	EoReadResult result;
	bool		complete;

	if (sub->recount.waits && sub->seen_ended == ended && sub->stall_check > eo_clock_ms())
		return false;
	if (sub->read_seq >= sub->recount.through)
	{
		finish(sub);
		return true;
	}

	limits.wants = eo_topic_filter;
	limits.wants_arg = sub->topics;
	limits.subscription = sub->id;
	limits.through_seq = sub->recount.through;
	eo_relay_begin(false);
	if (!eo_log_reader_next(sub->reader, &limits, &result))
		eo_relay_leave();
	for (int i = 0; i < result.nevents; i++)
	{
		text	   *name = result.events[i].topic;

		eo_topic(sub, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name))->delta += sub->recount.sign;
	}
	eo_relay_commit(false);
	sub->read_seq = result.through_seq;
	sub->seen_ended = ended;

	/* A read that neither stalls nor returns anything has seen the rest. */
	sub->recount.waits = result.stalled_on != InvalidTransactionId;
	sub->stall_check = sub->recount.waits ? eo_clock_ms() + EO_RETRY_MS : EO_NEVER;
	complete = !sub->recount.waits && (result.at_tail || result.nevents == 0);
	if (complete)
		finish(sub);
	return !sub->recount.waits;
}
