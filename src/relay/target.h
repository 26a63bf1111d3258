/*
 * target.h
 *
 * Where a broker subscription publishes to: the server and its options.
 */
#ifndef EO_TARGET_H
#define EO_TARGET_H

#include "utils/jsonb.h"
#include "wire/message.h"

typedef struct EoTarget
{
	char	   *problem;		/* NULL: usable; otherwise what is wrong */
	const char *kind;			/* "kafka" */
	EoPairs		server_options;
	EoPairs		secrets;
	EoPairs		subscription_options;
	int			max_in_flight;
	bool		synchronous_standbys;	/* publish only what they have on disk */
	int			ack_timeout;	/* ms */
	int			max_restarts;	/* in ... */
	int64		restart_window; /* ... ms */
	char	   *fingerprint;	/* of all that a publisher is told */
} EoTarget;

/*
 * Reads the server, the user mapping of the owner or of PUBLIC, and the
 * subscription's own options.  Never throws for what users got wrong.  Needs a
 * transaction; the result is in the current memory context.
 */
extern EoTarget *eo_target_read(const char *server, const char *owner, Jsonb *options);

/*
 * Text in the encoding of this database as bytes for the wire, which is UTF-8;
 * and the other way round, for texts that nobody has checked, with a length
 * limit.  Both in the current memory context.
 */
extern EoBytes eo_to_wire(const char *text, int len);
extern char *eo_from_wire(EoBytes text, int limit);

#endif							/* EO_TARGET_H */
