/*
 * relay.h
 *
 * The background worker of one database that feeds its subscriptions.
 */
#ifndef EO_RELAY_H
#define EO_RELAY_H

#include "compat.h"
#include "shmem.h"

/* Entry point of the background worker; the argument is the database's OID. */
extern PGDLLEXPORT void eo_relay_main(Datum arg);

/* What the files of src/relay share; of this process. */
typedef struct EoRelay
{
	EoDatabase *db;
	Oid			extension;		/* whose tables this relay serves */
	MemoryContext context;		/* lives as long as the process */
	MemoryContext scratch;		/* reset in every turn of the loop; current
								 * outside of transactions */
	char	   *home;			/* what subscriptions of this database have */
	struct EoSubscription *subscriptions;	/* a list, by next */
	bool		child_ended;	/* some publisher has, as of this turn */
	bool		fds_changed;	/* the wait event set has to be made anew */
	bool		truncate_due;	/* settings or subscriptions have changed */
	bool		wrote;			/* table statistics have to be reported */
} EoRelay;

extern EoRelay eo_relay;

/*
 * For a worker of this database: its settings must not change how it works.
 */
extern void eo_relay_set_options(const char *application_name);

/*
 * To be called where a worker has caught an error: reports it, ends the
 * transaction and returns a copy, in scratch memory.
 */
extern ErrorData *eo_relay_take_error(void);

/*
 * Writes the epoch in force down, to be on disk when the caller's transaction
 * has committed.  With SPI connected or not.
 */
extern void eo_relay_record_lineage(void);

/*
 * The extension is gone, or is another one than at the start: ends the process.
 */
EO_NORETURN extern void eo_relay_leave(void);

#endif							/* EO_RELAY_H */
