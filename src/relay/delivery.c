/*
 * delivery.c
 *
 * From the log to the publisher.
 *
 * A step reads one batch in a transaction of its own, turns the events into
 * frames, and closes the transaction before anything is sent.  How much is
 * under way is bounded twice: by the events in flight, and by the bytes that
 * the socket has not taken.  So a publisher that does not keep up costs a
 * bounded amount of memory and no time of the other subscriptions.
 *
 * What is committed while a broker is at work is sent together, when that is
 * settled or some milliseconds have passed.  Otherwise each transaction would
 * wake the relay, the relay the publisher, and the publisher the broker, with a
 * request each, and all of them would be busy with that.  An event that comes
 * when nothing is in flight is sent at once, unless many have come just before,
 * of whatever topic.
 *
 * An event in flight is an entry in a ring: seq, topic and position, no
 * payload.  Acknowledging is cumulative, so settling takes entries off the
 * front.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "points.h"
#include "relay/dead_letters.h"
#include "relay/delivery.h"
#include "relay/json_text.h"
#include "relay/sql.h"
#include "relay/supervision.h"
#include "settings.h"
#include "store/topics.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* No more is read while this many bytes wait for the socket. */
#define OUTPUT_LIMIT	((size_t) 4 * 1024 * 1024)

/* A stall is looked at again after that, though its end should wake us. */
#define STALL_CHECK_MS	1000

/* Nobody tells that a synchronous standby has flushed: look that often. */
#define STANDBY_CHECK_MS	10

/*
 * More than a near broker needs when it is busy; to a far one it is the time
 * between two requests.  In a partition with many events nothing would arrive
 * earlier for being sent earlier: librdkafka's idempotent producer has one
 * request with five or more messages of a partition under way, and while others
 * wait behind it, its thread calls poll(2) without pause, which takes a processor.
 */
#define GATHER_MS		25

/*
 * From one read to the next, even if the broker has answered: half a millisecond
 * for each number passed, wanted or not.  Below 2,000 events/s fewer and fewer
 * come in that time, and there is no pause; above, they become as many as make
 * for the longest one, and the processor that fewer reads and requests leave is
 * the clients'.
 */
#define PAUSE_MS(passed)	Min((passed) / 2, 8)

#define TIME_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/*----------
 * Topics
 *----------
 */

typedef struct TopicKey
{
	const char *name;
	int			len;
} TopicKey;

typedef struct TopicEntry
{
	TopicKey	key;
	EoTopic    *topic;
	uint32		hash;
	char		status;
} TopicEntry;

#define SH_PREFIX		topics
#define SH_ELEMENT_TYPE	TopicEntry
#define SH_KEY_TYPE		TopicKey
#define SH_KEY			key
#define SH_HASH_KEY(tb, k)	hash_bytes((const unsigned char *) (k).name, (k).len)
#define SH_EQUAL(tb, a, b)	((a).len == (b).len && memcmp((a).name, (b).name, (a).len) == 0)
#define SH_SCOPE		static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)	(a)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

EoTopic *
eo_topic(EoSubscription *sub, const char *name, int len)
{
	TopicKey	key = {name, len};
	TopicEntry *entry;
	bool		found;
	EoTopic    *topic;

	if (sub->positions == NULL)
		sub->positions = topics_create(sub->context, 16, NULL);
	entry = topics_lookup(sub->positions, key);
	if (entry != NULL)
		return entry->topic;
	topic = MemoryContextAllocZero(sub->context, offsetof(EoTopic, name) + len + 1);
	topic->len = len;
	memcpy(topic->name, name, len);
	key.name = topic->name;
	entry = topics_insert(sub->positions, key, &found);
	entry->topic = topic;
	return topic;
}

void
eo_topics_each(EoSubscription *sub, void (*visit) (EoSubscription *sub, EoTopic *topic))
{
	topics_iterator it;
	TopicEntry *entry;

	if (sub->positions == NULL)
		return;
	topics_start_iterate(sub->positions, &it);
	while ((entry = topics_iterate(sub->positions, &it)) != NULL)
		visit(sub, entry->topic);
}

void
eo_topic_settled(EoSubscription *sub, EoTopic *topic, int64 position)
{
	topic->acked = position;
	if (!topic->dirty)
	{
		MemoryContext old = MemoryContextSwitchTo(sub->context);

		sub->dirty_topics = lappend(sub->dirty_topics, topic);
		topic->dirty = true;
		MemoryContextSwitchTo(old);
	}
}

/*----------
 * What is in flight
 *----------
 */

static inline EoInFlight *
in_flight_at(EoSubscription *sub, uint32 i)
{
	return &sub->in_flight[(sub->in_flight_head + i) & (sub->in_flight_size - 1)];
}

static EoInFlight *
in_flight_push(EoSubscription *sub)
{
	if (sub->in_flight_count == sub->in_flight_size)
	{
		uint32		size = Max(sub->in_flight_size * 2, 64);
		EoInFlight *ring = MemoryContextAllocHuge(sub->context, sizeof(EoInFlight) * size);

		for (uint32 i = 0; i < sub->in_flight_count; i++)
			ring[i] = *in_flight_at(sub, i);
		if (sub->in_flight != NULL)
			pfree(sub->in_flight);
		sub->in_flight = ring;
		sub->in_flight_size = size;
		sub->in_flight_head = 0;
	}
	return in_flight_at(sub, sub->in_flight_count++);
}

EoInFlight *
eo_in_flight_find(EoSubscription *sub, int64 seq)
{
	uint32		low = 0;
	uint32		high = sub->in_flight_count;

	while (low < high)
	{
		uint32		middle = low + (high - low) / 2;
		EoInFlight *entry = in_flight_at(sub, middle);

		if (entry->seq == seq)
			return entry;
		if (entry->seq < seq)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

EoInFlight *
eo_in_flight_first(EoSubscription *sub)
{
	return sub->in_flight_count > 0 ? in_flight_at(sub, 0) : NULL;
}

void
eo_in_flight_settle(EoSubscription *sub, int64 seq)
{
	while (sub->in_flight_count > 0)
	{
		EoInFlight *entry = in_flight_at(sub, 0);

		/* What was never sent goes with what was sent before it. */
		if (entry->seq > seq && !entry->never_sent)
			break;
		eo_topic_settled(sub, entry->topic, entry->position);
		sub->acked.seq = entry->seq;
		if (!entry->refused)
		{
			eo_dead_letter_forget(sub, entry->seq);
			sub->acked.published_seq = entry->seq;
			sub->published++;
			sub->published_bytes += entry->bytes;
		}
		sub->in_flight_head = (sub->in_flight_head + 1) & (sub->in_flight_size - 1);
		sub->in_flight_count--;
	}
	if (sub->in_flight_count == 0 && sub->read_seq > sub->acked.seq)
		sub->acked.seq = sub->read_seq;
}

void
eo_delivery_rewind(EoSubscription *sub)
{
	for (uint32 i = 0; i < sub->in_flight_count; i++)
	{
		EoTopic    *topic = in_flight_at(sub, i)->topic;

		topic->sent = topic->acked;
	}
	sub->in_flight_count = 0;
	sub->in_flight_head = 0;
	sub->skip_through = 0;

	/* Who counts events has the reader; it will put it where it belongs. */
	if (!sub->recount.active)
		eo_delivery_seek(sub, sub->acked.seq);
}

void
eo_delivery_seek(EoSubscription *sub, int64 seq)
{
	if (sub->reader == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(sub->context);

		sub->reader = eo_log_reader_create(eo_relay.db, seq);
		MemoryContextSwitchTo(old);
	}
	else
		eo_log_reader_seek(sub->reader, seq);
	sub->read_seq = seq;
	sub->at_tail = false;
	sub->stall_check = EO_NEVER;
}

/*----------
 * Encoding
 *----------
 */

static EoBytes
text_bytes(text *value)
{
	EoBytes		null = {0};

	if (value == NULL)
		return null;
	return eo_to_wire(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

static EoPairs
headers_pairs(struct varlena *headers)
{
	EoPairs		pairs = {0};
	EoPair	   *items;
	Jsonb	   *json;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	value;

	if (headers == NULL)
		return pairs;
	json = DatumGetJsonbP(PointerGetDatum(headers));
	items = palloc(sizeof(EoPair) * (JB_ROOT_COUNT(json) + 1));
	it = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			items[pairs.count].name = eo_to_wire(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE && value.type == jbvString)
			items[pairs.count++].value = eo_to_wire(value.val.string.val, value.val.string.len);
	}
	pairs.items = items;
	return pairs;
}

static void
set_payload(EoEventMessage *m, const EoEvent *event)
{
	static StringInfoData json;

	if (event->payload != NULL)
	{
		Jsonb	   *value = DatumGetJsonbP(PointerGetDatum(event->payload));

		/* One buffer for all events, unless a large one has blown it up */
		if (json.maxlen > (int) OUTPUT_LIMIT)
		{
			pfree(json.data);
			json.data = NULL;
			json.maxlen = 0;
		}
		if (json.data == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(eo_relay.context);

			initStringInfo(&json);
			MemoryContextSwitchTo(old);
		}
		resetStringInfo(&json);
		eo_json_text(&json, value);
		m->payload = eo_to_wire(json.data, json.len);
		m->content_type.data = "application/json";
		m->content_type.len = strlen("application/json");
		m->flags |= EO_EVENT_JSON;
	}
	else if (event->body != NULL)
	{
		bytea	   *body = DatumGetByteaPP(PointerGetDatum(event->body));

		m->payload.data = VARDATA_ANY(body);
		m->payload.len = VARSIZE_ANY_EXHDR(body);
		m->content_type = text_bytes(event->content_type);
	}
}

static bool
encode(EoSubscription *sub, const EoEvent *event, int64 position, int flags,
	   uint32 *bytes)
{
	EoEventMessage m = {.flags = flags};
	size_t		size;

	m.seq = event->seq;
	m.position = position;
	m.time = event->enqueued_at + TIME_OFFSET;
	m.event_id = (const char *) event->event_id.data;
	m.topic = text_bytes(event->topic);
	m.key = text_bytes(event->key);
	m.type = text_bytes(event->type);
	m.headers = headers_pairs(event->headers);
	set_payload(&m, event);
	*bytes = (uint32) m.payload.len;

	size = m.payload.len + 512;
	for (;;)
	{
		EoWriter	w = eo_channel_reserve(&sub->process.channel, size);

		eo_encode_event(&w, &m);
		if (w.len > EO_FRAME_MAX_LENGTH)
			return false;
		if (eo_channel_commit(&sub->process.channel, &w))
			return true;
		size = w.len;
	}
}

/*
 * Text of a database that is not in UTF-8 may have no form in it, which only a
 * conversion finds out, by throwing.
 */
const char *
eo_delivery_encode(EoSubscription *sub, const EoEvent *event, int64 position,
				   int flags, uint32 *bytes)
{
	MemoryContext context = CurrentMemoryContext;
	const char *volatile problem = NULL;

	PG_TRY();
	{
		if (!encode(sub, event, position, flags, bytes))
			problem = "the event does not fit a message to a publisher";
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_CHARACTER_NOT_IN_REPERTOIRE &&
			error->sqlerrcode != ERRCODE_UNTRANSLATABLE_CHARACTER)
			PG_RE_THROW();
		FlushErrorState();
		problem = error->message;
	}
	PG_END_TRY();
	return problem;
}

/*----------
 * The step
 *----------
 */

/* The broker has this event already: count it without sending it. */
static void
skip_event(EoSubscription *sub, const EoEvent *event, EoTopic *topic)
{
	topic->sent++;
	eo_topic_settled(sub, topic, topic->sent);
	sub->acked.seq = event->seq;
	if (!eo_dead_letter_noted(sub, event->seq))
		sub->acked.published_seq = event->seq;
}

static void
send_event(EoSubscription *sub, const EoEvent *event, EoTopic *topic)
{
	EoInFlight *entry = in_flight_push(sub);
	const char *problem;

	memset(entry, 0, sizeof(*entry));
	entry->seq = event->seq;
	entry->topic = topic;
	entry->position = ++topic->sent;
	entry->enqueued_at = event->enqueued_at;
	problem = eo_delivery_encode(sub, event, entry->position, 0, &entry->bytes);
	if (problem == NULL)
	{
		sub->sent_seq = Max(sub->sent_seq, event->seq);
		eo_supervision_expect_answer(sub);
		return;
	}
	entry->never_sent = true;
	entry->refused = true;
	eo_dead_letter_note(sub, entry, problem);
}

static void
note_stall(EoDatabase *db, EoSubscription *sub, const EoReadResult *result)
{
	if (result->stalled_on != InvalidTransactionId)
	{
		if (pg_atomic_read_u32(&db->stall_xid) != result->stalled_on)
			pg_atomic_write_u64(&db->stall_since, (uint64) GetCurrentTimestamp());
		pg_atomic_write_u64(&db->stall_seq, (uint64) result->stalled_seq);
		pg_atomic_write_u32(&db->stall_xid, result->stalled_on);
		sub->stall_check = eo_clock_ms() + STALL_CHECK_MS;
		return;
	}
	sub->stall_check = result->awaits_standbys ? eo_clock_ms() + STANDBY_CHECK_MS : EO_NEVER;
	if (pg_atomic_read_u32(&db->stall_xid) != 0 &&
		(result->at_tail || result->through_seq >= (int64) pg_atomic_read_u64(&db->stall_seq)))
		pg_atomic_write_u32(&db->stall_xid, 0);
}

/* Events that may be added to those in flight. */
static int
window_room(EoSubscription *sub)
{
	int			limit = sub->target->max_in_flight;
	int			room = limit - (int) sub->in_flight_count;

	/* Small batches cost more than they gain: let some acknowledgements come. */
	return room >= Max(limit / 4, 1) ? room : 0;
}

int64
eo_delivery_gathered_at(EoSubscription *sub)
{
	return sub->in_flight_count > 0 ? Max(sub->gather_least, sub->gather_most) : sub->gather_least;
}

bool
eo_delivery_gathers(EoSubscription *sub)
{
	return sub->phase == EO_PUBLISHER_RUNNING && !sub->recount.active && sub->gathering;
}

bool
eo_delivery_can_read(EoSubscription *sub)
{
	return sub->phase == EO_PUBLISHER_RUNNING && !sub->recount.active && !sub->flush_write &&
		eo_channel_pending(&sub->process.channel) < OUTPUT_LIMIT && window_room(sub) > 0;
}

/*
 * Only the end of the log gathers: a backlog is read as it can be.  The clock is
 * looked at here and nowhere else, or the time could be over for who decides how
 * long to sleep, while it was not for who decided not to read.
 */
static bool
read_is_due(EoSubscription *sub, uint64 ended)
{
	sub->gathering = sub->at_tail && eo_clock_ms() < eo_delivery_gathered_at(sub);
	if (!eo_delivery_can_read(sub))
		return false;
	if (sub->seen_ended != ended && !sub->gathering)
		return true;
	return !sub->at_tail || sub->stall_check <= eo_clock_ms();
}

static void
read_batch(EoSubscription *sub, uint64 ended)
{
	EoReadLimits limits = {0};
	EoReadResult result;
	int64		passed;

	limits.events = Min(eo_batch_events, window_room(sub));
	limits.bytes = (Size) eo_batch_bytes * 1024;
	limits.wants = sub->all_topics ? NULL : eo_topic_filter;
	limits.wants_arg = sub->topics;
	limits.subscription = sub->id;
	limits.standbys = sub->target->synchronous_standbys;

	eo_relay_begin(false);
	if (!eo_log_reader_next(sub->reader, &limits, &result))
		eo_relay_leave();
	EO_POINT(relay_read);
	passed = result.through_seq - sub->read_seq;
	sub->read_seq = result.through_seq;
	sub->at_tail = result.at_tail;
	sub->seen_ended = ended;
	sub->bytes_behind = result.bytes_behind;
	for (int i = 0; i < result.nevents; i++)
	{
		EoEvent    *event = &result.events[i];
		EoTopic    *topic = eo_topic(sub, VARDATA_ANY(event->topic),
									 VARSIZE_ANY_EXHDR(event->topic));

		if (event->seq <= sub->skip_through)
			skip_event(sub, event, topic);
		else
			send_event(sub, event, topic);
	}
	if (passed > 0)
		sub->gather_least = eo_clock_ms() + PAUSE_MS(passed);
	if (result.nevents > 0)
		sub->gather_most = eo_clock_ms() + GATHER_MS;
	note_stall(eo_relay.db, sub, &result);
	EO_POINT(relay_encoded);
	eo_relay_commit(false);
}

bool
eo_delivery_step(EoSubscription *sub, uint64 ended)
{
	if (!read_is_due(sub, ended))
		return false;
	read_batch(sub, ended);

	/* Nothing in flight, or nothing that was sent: that much is settled. */
	eo_in_flight_settle(sub, sub->acked.seq);
	eo_progress_note(sub);
	return read_is_due(sub, ended);
}
