/*
 * replies.c
 *
 * What publishers say.
 *
 * A publisher is not trusted: a hostile broker may have taken it over.  Each
 * message is checked against what was sent, and what does not fit is a protocol
 * error, which ends the publisher.  Its texts reach the log and a table, so
 * they are cut and cleaned.
 */
#include "postgres.h"

#include "points.h"
#include "relay/dead_letters.h"
#include "relay/delivery.h"
#include "relay/replies.h"
#include "relay/supervision.h"
#include "store/append.h"
#include "utils/timestamp.h"
#include "wire/message.h"

/* Bytes taken from one publisher before others have their turn. */
#define TURN_BYTES		((size_t) 256 * 1024)

#define REASON_LIMIT	400
#define LOG_LIMIT		1000

static void
protocol_error(EoSubscription *sub, const char *what)
{
	eo_supervision_break(sub, EO_ENDING_CRASH, "protocol error: %s", what);
}

/*----------
 * READY
 *----------
 */

/*
 * The broker has less than it acknowledged: it lost something, or was restored
 * from a backup.  Send that again, if the log still has it.
 */
static void
broker_is_behind(EoSubscription *sub, int64 last_seq)
{
	int64		floor_seq = (int64) pg_atomic_read_u64(&eo_relay.db->floor_seq);

	if (last_seq < floor_seq)
	{
		char		reason[EO_ERROR_LENGTH];

		snprintf(reason, sizeof(reason),
				 "the broker has lost what came after event " INT64_FORMAT
				 " (it had acknowledged " INT64_FORMAT "), and the log begins after "
				 INT64_FORMAT "; eo.seek() accepts the loss",
				 last_seq, sub->acked.published_seq, floor_seq);
		eo_supervision_fail(sub, reason);
		return;
	}
	ereport(WARNING,
			(errmsg("subscription \"%s\": the broker has lost what came after event " INT64_FORMAT,
					sub->name, last_seq),
			 errdetail("It had acknowledged event " INT64_FORMAT "; what is missing is sent again.",
					   sub->acked.published_seq)));
	eo_recount_back(sub, last_seq);
}

/*
 * The broker has no position.  That is nothing new if it never had one, as when
 * the events before were published with other options, or to another broker.
 */
static void
no_position(EoSubscription *sub)
{
	char		reason[EO_ERROR_LENGTH];

	if (!sub->acked.position_kept || sub->acked.published_seq == 0)
		return;
	snprintf(reason, sizeof(reason),
			 "the broker no longer keeps a position of this subscription (it had acknowledged "
			 INT64_FORMAT "): it has lost its data, or is another one; eo.seek() says where to go on",
			 sub->acked.published_seq);
	eo_supervision_fail(sub, reason);
}

/*
 * Finds out where to go on, from what the broker has.
 */
static void
take_position(EoSubscription *sub, int64 last_seq)
{
	EoDatabase *db = eo_relay.db;
	EoCursor   *acked = &sub->acked;

	/*
	 * Before anything was sent, what the broker remembers is of another
	 * subscription or of an earlier pass, and we remember how far that goes.
	 * But what was made since the subscription began, and in an earlier epoch,
	 * is our own: it was sent by a primary, or after a backup, of which this
	 * database is the heir without knowing all.
	 */
	if (acked->published_seq == -1)
	{
		bool		is_ours = last_seq > acked->replay_until &&
			EO_SEQ_EPOCH(last_seq) < (int32) pg_atomic_read_u32(&db->epoch);

		acked->published_seq = 0;
		acked->replay_until = !is_ours && last_seq > acked->seq ? last_seq : 0;
		acked->position_kept = last_seq > 0;
		sub->flush_write = true;
		eo_progress_note(sub);
		if (!is_ours)
			return;
	}
	if (last_seq == 0)
	{
		no_position(sub);
		return;
	}
	acked->position_kept = true;
	if (acked->seq < acked->replay_until && last_seq >= acked->replay_until)
		return;

	/* What nobody here can have sent is another's, though the numbers be ours. */
	if (last_seq > sub->sent_seq &&
		EO_SEQ_EPOCH(last_seq) >= (int32) pg_atomic_read_u32(&db->epoch))
	{
		char		reason[EO_ERROR_LENGTH];

		snprintf(reason, sizeof(reason),
				 "the broker has events up to " INT64_FORMAT ", which did not come from this database"
				 " (it sent none after " INT64_FORMAT "): it was restored from an older state, or another"
				 " database publishes there; eo.seek() goes on anyway",
				 last_seq, sub->sent_seq);
		eo_supervision_fail(sub, reason);
	}
	else if (last_seq > acked->seq)
		sub->skip_through = last_seq;
	else if (last_seq < acked->published_seq)
		broker_is_behind(sub, last_seq);
}

static void
handle_ready(EoSubscription *sub, EoBytes body)
{
	EoReadyMessage m;

	if (sub->ending == EO_ENDING_ASKED)
		return;
	if (sub->phase != EO_PUBLISHER_STARTING)
	{
		protocol_error(sub, "READY came twice");
		return;
	}
	if (!eo_decode_ready(body, &m))
	{
		protocol_error(sub, "malformed READY");
		return;
	}
	if (m.version != EO_PROTOCOL_VERSION)
	{
		protocol_error(sub, "the publisher is of another version of eo_outbox");
		return;
	}
	sub->phase = EO_PUBLISHER_RUNNING;
	sub->deadline = EO_NEVER;
	sub->load_retries = true;
	sub->tells_position = m.knows_position;
	if (m.knows_position)
		take_position(sub, m.last_seq);
	else if (sub->acked.published_seq == -1)
	{
		sub->acked.published_seq = 0;
		sub->flush_write = true;
		eo_progress_note(sub);
	}
}

/*----------
 * Settlements
 *----------
 */

static void
handle_ack(EoSubscription *sub, EoBytes body)
{
	int64		seq;
	EoInFlight *entry;

	if (!eo_decode_number(body, &seq))
	{
		protocol_error(sub, "malformed ACK");
		return;
	}
	entry = eo_in_flight_find(sub, seq);
	if (entry == NULL || entry->never_sent)
	{
		protocol_error(sub, psprintf("ACK of event " INT64_FORMAT ", which is not in flight", seq));
		return;
	}
	EO_POINT(relay_ack);
	eo_in_flight_settle(sub, seq);
	EO_POINT(relay_acked);
	sub->acked.position_kept = sub->tells_position;
	sub->last_ack_at = GetCurrentTimestamp();
	eo_supervision_answered(sub);
	eo_progress_note(sub);
}

static void
handle_retried(EoSubscription *sub, EoBytes body)
{
	int64		seq;
	EoRetry    *retry = NULL;

	if (eo_decode_number(body, &seq))
		retry = eo_retry_find(sub, seq);
	if (retry == NULL)
	{
		protocol_error(sub, "RETRIED of an event that was not sent again");
		return;
	}
	retry->state = EO_RETRY_DELIVERED;
	eo_supervision_answered(sub);
	eo_progress_note(sub);
}

static void
handle_refusal(EoSubscription *sub, int64 seq, const char *reason)
{
	EoInFlight *entry = eo_in_flight_find(sub, seq);
	EoRetry    *retry = eo_retry_find(sub, seq);

	if (entry != NULL && !entry->refused)
	{
		entry->refused = true;
		eo_dead_letter_note(sub, entry, reason);
	}
	else if (entry == NULL && retry != NULL)
		eo_retry_refused(sub, retry, reason);
	else
	{
		protocol_error(sub, psprintf("NACK of event " INT64_FORMAT ", which is not in flight", seq));
		return;
	}
	eo_supervision_answered(sub);
	eo_progress_note(sub);
}

static void
handle_nack(EoSubscription *sub, EoBytes body)
{
	EoNackMessage m;
	char	   *reason;

	if (!eo_decode_nack(body, &m))
	{
		protocol_error(sub, "malformed NACK");
		return;
	}
	reason = eo_from_wire(m.reason, REASON_LIMIT);
	if (m.permanent)
		handle_refusal(sub, m.seq, reason);
	else if (m.seq != 0 && eo_in_flight_find(sub, m.seq) == NULL &&
			 eo_retry_find(sub, m.seq) == NULL)
		protocol_error(sub, psprintf("NACK of event " INT64_FORMAT ", which is not in flight", m.seq));
	else
		eo_supervision_leaving(sub, reason);
}

/*----------
 * The rest
 *----------
 */

static void
handle_log(EoSubscription *sub, EoBytes body)
{
	EoLogMessage m;

	if (!eo_decode_log(body, &m))
	{
		protocol_error(sub, "malformed LOG");
		return;
	}
	ereport(m.level == EO_LOG_DEBUG ? DEBUG1 : LOG,
			(errmsg("subscription \"%s\": publisher: %s", sub->name,
					eo_from_wire(m.text, LOG_LIMIT))));
}

static void
handle_stat(EoSubscription *sub, EoBytes body)
{
	EoStatMessage m;

	if (!eo_decode_stat(body, &m))
		protocol_error(sub, "malformed STAT");
}

static void
handle_frame(EoSubscription *sub, const EoFrame *frame)
{
	if (sub->phase == EO_PUBLISHER_STARTING && frame->type != EO_MSG_READY &&
		frame->type != EO_MSG_LOG && frame->type != EO_MSG_NACK)
	{
		protocol_error(sub, psprintf("message of type 0x%02x before READY", frame->type));
		return;
	}
	switch (frame->type)
	{
		case EO_MSG_READY:
			handle_ready(sub, frame->body);
			break;
		case EO_MSG_ACK:
			handle_ack(sub, frame->body);
			break;
		case EO_MSG_RETRIED:
			handle_retried(sub, frame->body);
			break;
		case EO_MSG_NACK:
			handle_nack(sub, frame->body);
			break;
		case EO_MSG_LOG:
			handle_log(sub, frame->body);
			break;
		case EO_MSG_STAT:
			handle_stat(sub, frame->body);
			break;
		default:
			protocol_error(sub, psprintf("message of unknown type 0x%02x", frame->type));
	}
}

/* Handles the frames that have come whole. */
static void
handle_frames(EoSubscription *sub)
{
	EoFrame		frame;

	while (sub->ending != EO_ENDING_CRASH)
	{
		EoFrameStatus status = eo_channel_peek(&sub->process.channel, &frame);

		if (status == EO_FRAME_INCOMPLETE)
			return;
		if (status == EO_FRAME_INVALID)
		{
			protocol_error(sub, "impossible frame length");
			return;
		}
		handle_frame(sub, &frame);
		eo_channel_consume(&sub->process.channel, &frame);
	}
}

void
eo_replies_read(EoSubscription *sub)
{
	size_t		before;

	for (size_t taken = 0; taken < TURN_BYTES && sub->ending != EO_ENDING_CRASH;)
	{
		EoChannel  *channel = &sub->process.channel;

		if (channel->sock == PGINVALID_SOCKET)
			return;
		before = channel->in.end - channel->in.start;
		switch (eo_channel_receive(channel))
		{
			case EO_CHANNEL_DRY:
				return;
			case EO_CHANNEL_CLOSED:
				eo_supervision_closed(sub);
				return;
			case EO_CHANNEL_DATA:
				taken += channel->in.end - channel->in.start - before;
				handle_frames(sub);
		}
	}
}

static void
error_line(const char *line, void *arg)
{
	EoSubscription *sub = arg;
	EoBytes		bytes = {line, strlen(line)};
	char	   *text = eo_from_wire(bytes, LOG_LIMIT);

	strlcpy(sub->last_line, text, sizeof(sub->last_line));
	ereport(LOG,
			(errmsg("subscription \"%s\": publisher: %s", sub->name, text)));
}

void
eo_replies_read_errors(EoSubscription *sub)
{
	eo_publisher_read_errors(&sub->process, error_line, sub);
	if (sub->process.errors == PGINVALID_SOCKET)
		eo_relay.fds_changed = true;
}
