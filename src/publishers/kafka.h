/*
 * kafka.h
 *
 * What the files of the Kafka publisher share.
 *
 * Every event that was handed over is kept as a copy until it is settled, in
 * the order in which it came (pending list).  The client library sends from the
 * copies, and when a client instance has to be given up (a fatal error, a
 * broken transaction, a batch that the broker refused) a new one gets the rest
 * of the list again, in the same order.
 *
 * The broker judges a batch as a whole, so when it refuses one for good, the
 * guilty message is found by sending one message a batch for a while: the list
 * is then being "isolated".
 */
#ifndef EO_KAFKA_H
#define EO_KAFKA_H

#include <librdkafka/rdkafka.h>

#include "publishers/publisher.h"

/* The prefix of transactional ids and of groups that hold positions */
#define KAFKA_ID_PREFIX			"eo_outbox."

#define KAFKA_MAX_SECRETS		8

/*
 * Above the largest frame with room for headers: what the client itself takes.
 * The limit that counts is the topic's.
 */
#define KAFKA_CLIENT_MAX_BYTES	"100000000"

/* What Kafka takes beside an offset, and how much of it we use */
#define KAFKA_METADATA_MAX		4096
#define KAFKA_METADATA_SIZE		4000

#define KAFKA_TXN_NAME			33

typedef struct KafkaTopic KafkaTopic;
typedef struct KafkaState KafkaState;

struct KafkaTopic
{
	KafkaTopic *next;
	char	   *event_topic;	/* as the events say */
	char	   *name;			/* with the prefix */
	bool		known;			/* limits have been asked for */
	size_t		max_bytes;		/* of a batch; 0: not known */
	bool		compacted;		/* takes no message without a key */
	char	   *refusal;		/* why nothing can be sent to it */
	int64_t		refused_at;		/* monotonic ms */
	rd_kafka_topic_t *handle;	/* of the current client instance */
};

typedef struct KafkaEntry
{
	struct KafkaEntry *prev;
	struct KafkaEntry *next;
	uint64_t	token;
	KafkaTopic *topic;
	size_t		bytes;
	rd_kafka_resp_err_t error;	/* what became of it in this instance */
	bool		refused;		/* for good, by the broker */
	EoEventMessage event;		/* spans point into data */
	char		data[];
} KafkaEntry;

struct KafkaState
{
	Publisher  *pub;

	/* Configuration, kept for further instances */
	rd_kafka_conf_t *conf;
	bool		exactly_once;
	char	   *topic_prefix;
	char	   *source;
	char	   *identity;		/* with KAFKA_ID_PREFIX */
	char	   *position_topic;
	size_t		max_bytes;		/* message.max.bytes; 0: not given */
	long		batch_size;		/* what the next instance will have */
	int			connect_timeout_ms;
	char	   *secrets[KAFKA_MAX_SECRETS];
	int			secret_count;

	/* The client instance */
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	int			wakeup[2];		/* pipe: the library writes, we wait */
	bool		isolating;		/* one message a batch */
	bool		opening;		/* connection errors are final */
	char		last_error[512];
	rd_kafka_resp_err_t broken; /* set when the instance must be given up */
	bool		disturbed;		/* a connection broke since last looked at */

	KafkaTopic *topics[256];
	KafkaTopic *last_topic;

	/* The pending list */
	KafkaEntry *head;
	KafkaEntry *tail;
	KafkaEntry *free_entries;
	size_t		count;
	size_t		bytes;

	/* At least once */
	bool		guilty_found;	/* by the isolation under way */
	int			replays;		/* without progress */

	/* Exactly once */
	rd_kafka_consumer_group_metadata_t *group;
	int64_t		published_seq;	/* what the relay knew at the start */
	int64_t		stored_seq;		/* the position in the broker; -1: none */
	int64_t		last_seq;		/* what the next commit will store */
	int64_t		reported_seq;	/* what the relay was told */
	int64_t		skip_seq;		/* events up to it are in the broker */
	char		txn_name[KAFKA_TXN_NAME];	/* of the latest transaction */
	int64_t    *refused;		/* see kafka_position.c */
	size_t		refused_count;
	int64_t		txn_start;		/* monotonic ms */
	int64_t		waited_ms;		/* for more input, in this transaction */
	int64_t		stored_at;		/* monotonic ms */
	int64_t		end_ms;			/* what the latest commit took */
};

/* kafka.c */
extern int64_t kafka_now_ms(void);
extern void kafka_connect(KafkaState *state);
extern void kafka_disconnect(KafkaState *state);
extern rd_kafka_t *kafka_open_reader(KafkaState *state);
extern void kafka_close_reader(rd_kafka_t *reader);
extern bool kafka_is_refusal(rd_kafka_resp_err_t error);
extern KafkaEntry *kafka_entry_add(KafkaState *state, KafkaTopic *topic,
								   const EoEventMessage *event, uint64_t token);
extern void kafka_entry_remove(KafkaState *state, KafkaEntry *entry);

/* kafka_config.c */
extern void kafka_configure(KafkaState *state, const EoConfigMessage *config);
extern rd_kafka_conf_t *kafka_instance_conf(KafkaState *state);
extern void kafka_scrub(const KafkaState *state, char *text);
extern void kafka_check_version(KafkaState *state);

/* kafka_message.c */
extern size_t kafka_message_size(const KafkaState *state,
								 const EoEventMessage *event);
extern rd_kafka_resp_err_t kafka_produce(KafkaState *state, KafkaEntry *entry);

/* kafka_topic.c */
extern KafkaTopic *kafka_topic_get(KafkaState *state, EoBytes name);
extern const char *kafka_topic_refusal(KafkaState *state, KafkaTopic *topic,
									   const EoEventMessage *event);
extern void kafka_topics_release(KafkaState *state);
extern void kafka_topics_forget(KafkaState *state);
extern rd_kafka_resp_err_t kafka_topic_lookup(KafkaState *state, const char *name,
											  int timeout_ms);

/* kafka_position.c */
extern void kafka_position_prepare(KafkaState *state);
extern void kafka_position_read(KafkaState *state,
								char metadata[KAFKA_METADATA_MAX + 1]);
extern void kafka_position_describe(KafkaState *state, int64_t seq,
									char out[KAFKA_METADATA_SIZE]);
extern void kafka_refused_add(KafkaState *state, int64_t seq);
extern bool kafka_refused_has(const KafkaState *state, int64_t seq);
extern void kafka_refused_read(KafkaState *state, const char *metadata);

/* kafka_txn.c */
extern void kafka_txn_open(KafkaState *state, const EoConfigMessage *config);
extern PublishResult kafka_txn_publish(KafkaState *state, KafkaTopic *topic,
									   const EoEventMessage *event, uint64_t token);
extern bool kafka_txn_skips(KafkaState *state, const EoEventMessage *event,
							uint64_t token);
extern void kafka_txn_refused(KafkaState *state, const EoEventMessage *event);
extern void kafka_txn_poll(KafkaState *state);
extern void kafka_txn_commit(KafkaState *state);

#endif							/* EO_KAFKA_H */
