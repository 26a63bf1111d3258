/*
 * idempotency.h
 *
 * Claims idempotency keys, and keeps the answers.
 */
#ifndef EO_IDEMPOTENCY_H
#define EO_IDEMPOTENCY_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* Named after what an HTTP handler should answer. */
#define EO_ERRCODE_KEY_IN_USE		MAKE_SQLSTATE('E', 'O', '4', '0', '9')
#define EO_ERRCODE_LEASE_LOST		MAKE_SQLSTATE('E', 'O', '4', '1', '0')
#define EO_ERRCODE_OTHER_REQUEST	MAKE_SQLSTATE('E', 'O', '4', '2', '2')

typedef struct EoIdempotencyAnswer
{
	bool		is_new;			/* claimed; the rest of its kind is below */
	pg_uuid_t  *token;			/* with a lease */
	text	   *recovery_point; /* of the one whose lease was taken over */

	bool		has_answer;		/* not new, and completed; below is with what */
	int32		code;
	Jsonb	   *response;		/* or NULL */
} EoIdempotencyAnswer;

/*
 * Claims a key for this transaction or, with a lease, for whoever gets the
 * token; or finds out what was answered.  `request` and `lease` may be NULL.
 * Where somebody else is at it: waits, or an ERROR if not `wait`.
 */
extern void eo_idempotency_begin(struct varlena *scope, struct varlena *key, Jsonb *request,
								 bool wait, Interval *lease, EoIdempotencyAnswer *answer);

/*
 * For who has claimed a key: in this transaction (`token` may be NULL), or with
 * a lease that nobody has taken over.  An ERROR for others.
 */

/* Stores the answer; `response` may be NULL.  Some codes release the key. */
extern void eo_idempotency_complete(struct varlena *scope, struct varlena *key,
									Jsonb *response, int32 code, pg_uuid_t *token);

/* Gives the key back. */
extern void eo_idempotency_release(struct varlena *scope, struct varlena *key, pg_uuid_t *token);

/* Notes how far the work is, and extends the lease; NULL leaves as it is. */
extern void eo_idempotency_checkpoint(struct varlena *scope, struct varlena *key,
									  text *recovery_point, pg_uuid_t *token, Interval *lease);

/* Called once, by _PG_init. */
extern void eo_idempotency_init(void);

#endif							/* EO_IDEMPOTENCY_H */
