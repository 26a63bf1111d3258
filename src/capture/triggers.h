/*
 * triggers.h
 *
 * The triggers that eo.capture() makes.
 */
#ifndef EO_CAPTURE_TRIGGERS_H
#define EO_CAPTURE_TRIGGERS_H

#include "capture/spec.h"
#include "utils/relcache.h"

/* Their names begin so. */
#define EO_CAPTURE_TRIGGER	"eo_capture"

/* Whether one of these is on the table; *child tells if it is there for a parent. */
extern bool eo_captured(Relation rel, bool *child);

/*
 * Creates them as the current user, on the table and on those that inherit from
 * it.  `when` is the row filter, an expression over the columns, or NULL.
 * Caller holds ShareRowExclusiveLock.
 */
extern void eo_capture_create(Relation rel, const EoCaptureSpec *spec, const char *when);

/* Drops them, on the children, too. */
extern void eo_capture_drop(Relation rel);

/*
 * A table was created or altered: gives it what it lacks if it has become the
 * child of a captured one, and to its children if it is captured itself.
 */
extern void eo_capture_join(Oid relid);

/* Called once, by _PG_init: keeps the arguments right when columns are renamed. */
extern void eo_capture_rename_init(void);

#endif							/* EO_CAPTURE_TRIGGERS_H */
