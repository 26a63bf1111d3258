/*
 * settings.h
 *
 * The configuration parameters (eo_outbox.*), defined in settings.c.
 */
#ifndef EO_SETTINGS_H
#define EO_SETTINGS_H

typedef enum EoOnNewTimeline
{
	EO_NEW_TIMELINE_CONTINUE,
	EO_NEW_TIMELINE_PAUSE
} EoOnNewTimeline;

/* fixed at server start */
extern int	eo_max_databases;
extern int	eo_max_subscriptions;
extern int	eo_max_consumers;

/* the log */
extern int	eo_max_event_size;	/* bytes */
extern int	eo_buffer_memory;	/* kB, then events spill to a file */
extern int	eo_segment_size;	/* MB */
extern int	eo_segment_age;		/* s; 0: never rotate by age */
extern int	eo_retention;		/* s */
extern int	eo_on_new_timeline;

/* the relay */
extern int	eo_batch_events;	/* most events a read may return */
extern int	eo_batch_bytes;		/* kB */
extern int	eo_max_in_flight;	/* unacknowledged events per publisher */
extern int	eo_ack_timeout;		/* ms without progress before a kill */
extern int	eo_restart_limit;	/* restarts ... */
extern int	eo_restart_window;	/* ... in that many seconds, then failed */

/* eo.snapshot() */
extern int	eo_snapshot_delay;	/* ms between two appends */

/* the transaction */
extern char *eo_headers;		/* flat JSON object of strings, or "" */

/* Bumped whenever eo_headers is assigned, for caches of its parsed form. */
extern uint32 eo_headers_generation;

#ifdef EO_TEST_SWITCHES
/*
 * Each takes one guarantee's mechanism away, to prove that a test notices.
 * They exist in test builds only.
 */
extern bool eo_test_no_flush;
extern bool eo_test_no_stop;
extern bool eo_test_no_target_reset;
extern bool eo_test_no_epoch;
extern bool eo_test_no_recheck;
extern bool eo_test_no_begun;
#define EO_MUTANT(name) (eo_test_##name)
#else
#define EO_MUTANT(name) (false)
#endif

extern void eo_settings_init(void);

#endif							/* EO_SETTINGS_H */
