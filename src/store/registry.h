/*
 * registry.h
 *
 * Consumers and idempotency scopes: the owners of what was received.
 */
#ifndef EO_REGISTRY_H
#define EO_REGISTRY_H

#include "datatype/timestamp.h"
#include "compat.h"
#include "shmem.h"

#define EO_OWNER_NAME_MAX	128		/* bytes */

/* An owner as this backend knows it; belongs to the registry's cache. */
typedef struct EoOwner
{
	char		name[EO_OWNER_NAME_MAX + 1];	/* hash key */
	EoFamily	family;
	int32		id;
	int			class;			/* of its window: where new keys go */
	int			also_classes;	/* bits: where older ones may be ... */
	TimestampTz also_until;		/* ... until then */
	uint32		epoch;			/* of shmem's registry_epoch; 0: stale */
} EoOwner;

/*
 * Finds an owner, or registers it with the default window in the caller's
 * transaction.  An ERROR if the name is null, empty, too long or not printable.
 * The pointer is good for the rest of the session, its contents until the next
 * call or refresh.
 */
extern EoOwner *eo_owner(EoFamily family, struct varlena *name);

/*
 * The same, but does not wait for a transaction that is registering it: NULL
 * then.
 */
extern EoOwner *eo_owner_try(EoFamily family, struct varlena *name);

/*
 * For those who change the registry: checks a name, and waits for transactions
 * that are changing what it stands for.
 */
extern void eo_owner_lock(EoFamily family, struct varlena *name);

/*
 * Brings an owner up to date if anybody may have changed it since.  To be
 * called under the lock of the key that it is used for (store/claim.c).
 * Returns false if it has been dropped.
 */
extern bool eo_owner_refresh(EoOwner *owner);

/* The ERROR (40001) where it was dropped in between. */
EO_NORETURN extern void eo_owner_refuse_dropped(const EoOwner *owner);

/* "consumer" or "idempotency scope", for messages. */
extern const char *eo_owner_noun(EoFamily family);

/* The class that a window falls into. */
extern int	eo_class_of_window(int64 window_us);

/*
 * At the commit of this transaction, makes all backends read the registry and
 * the generations anew.
 */
extern void eo_registry_changed(void);

/* Called once, by _PG_init. */
extern void eo_registry_init(void);

#endif							/* EO_REGISTRY_H */
