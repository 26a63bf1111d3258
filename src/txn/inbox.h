/*
 * inbox.h
 *
 * Receives messages once, by id or by position.
 */
#ifndef EO_INBOX_H
#define EO_INBOX_H

#include "utils/jsonb.h"

/*
 * Checks a message id: an ERROR if it is empty, too long or not printable.
 */
extern void eo_inbox_check_id(struct varlena *message_id);

/*
 * Whether this is the first time that the consumer receives the message.  Waits
 * for transactions that are receiving it.  If so, it becomes the cause of the
 * events to come, with what its headers (NULL: none) say.
 */
extern bool eo_inbox_receive(struct varlena *consumer, struct varlena *message_id,
							 Jsonb *headers);

/* The same without being a cause, for rows of a table. */
extern bool eo_inbox_receive_row(struct varlena *consumer, struct varlena *message_id);

/*
 * The same for many, in one go: sets is_new for each.  Of equal ones in the
 * list the first is new.
 */
extern void eo_inbox_receive_batch(struct varlena *consumer, struct varlena **message_ids,
								   int count, bool *is_new);

typedef enum EoPositionResult
{
	EO_POSITION_NEW,
	EO_POSITION_DUPLICATE,
	EO_POSITION_GAP				/* not recorded */
} EoPositionResult;

/* How a position compares with the last one received of a source. */
extern EoPositionResult eo_inbox_receive_at(struct varlena *consumer, struct varlena *source,
											int64 position, bool dense);

#endif							/* EO_INBOX_H */
