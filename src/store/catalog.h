/*
 * catalog.h
 *
 * The OIDs of the extension's own objects in this database.
 */
#ifndef EO_CATALOG_H
#define EO_CATALOG_H

#include "shmem.h"

typedef struct EoCatalog
{
	Oid			extension;
	Oid			schema;
	Oid			owner;			/* of the extension */
	Oid			log[EO_SEGMENTS];
	Oid			capture_row;	/* the trigger function */
} EoCatalog;

/*
 * Cached per backend and dropped when one of the relations changes.  NULL if
 * the extension is not installed here.  Needs a transaction.
 */
extern const EoCatalog *eo_catalog(void);

/* The same, but an ERROR if the extension is not installed. */
extern const EoCatalog *eo_catalog_required(void);

/*
 * Runs as the extension's owner with a safe search_path, for SPI on the
 * extension's tables; restore with eo_leave_owner().  An error restores both
 * by itself.
 */
typedef struct EoOwnerScope
{
	Oid			user;
	int			context;
	int			nestlevel;
} EoOwnerScope;

extern void eo_enter_owner(EoOwnerScope *scope);
extern void eo_leave_owner(EoOwnerScope *scope);

#endif							/* EO_CATALOG_H */
