/*
 * retention.h
 *
 * What the relay does about what was received.
 */
#ifndef EO_RETENTION_H
#define EO_RETENTION_H

/* Does what is due; in every turn of the loop. */
extern void eo_retention_step(void);

/* The nearest point in time that is planned, by eo_clock_ms(). */
extern int64 eo_retention_deadline(void);

/* Whether something has come up since the latest step. */
extern bool eo_retention_wanted(void);

/* The relay is leaving in good order. */
extern void eo_retention_leave(void);

#endif							/* EO_RETENTION_H */
