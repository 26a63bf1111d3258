/*
 * causation.h
 *
 * What this transaction's events were caused by.
 */
#ifndef EO_CAUSATION_H
#define EO_CAUSATION_H

#include "utils/jsonb.h"

/*
 * The message that was received now is the cause of the events to come.
 * `headers` are those it came with, or NULL; those of interest are kept.  An
 * ERROR if one of them is not fit for a header.
 */
extern void eo_causation_set(struct varlena *message_id, Jsonb *headers);

/*
 * Headers for events of this transaction, below those that it sets itself; NULL
 * if it has received nothing.  Good until the transaction receives again.
 */
extern Jsonb *eo_causation_headers(void);

/* Called once, by _PG_init. */
extern void eo_causation_init(void);

#endif							/* EO_CAUSATION_H */
