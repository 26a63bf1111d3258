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

/* Whether a trigger was made by eo.capture(). */
extern bool eo_capture_is_ours(const Trigger *trigger);

/*
 * Creates them as the current user, on the table and on those that inherit from
 * it.  `when` is the row filter, an expression over the columns, or NULL.
 * Caller holds ShareRowExclusiveLock.
 */
extern void eo_capture_create(Relation rel, const EoCaptureSpec *spec, const char *when);

/* Drops them, and those that children have for them.  Caller holds AccessExclusiveLock. */
extern void eo_capture_drop(Relation rel);

/* Only on the table itself; perhaps only those that it has for its parents. */
extern void eo_capture_drop_triggers(Relation rel, bool only_of_parents);

/*
 * In children.c: a table was created, or has got a parent: gives it what it
 * lacks if it has become the child of a captured one, and to its children.
 */
extern void eo_capture_join(Oid relid);
extern void eo_capture_join_children(Oid relid);

/*
 * A table has lost a parent, or this one has lost its triggers: takes away what
 * it, or its children, had for it.
 */
extern void eo_capture_leave(Oid relid);
extern void eo_capture_leave_children(Oid relid);

/* A table has lost a column: an ERROR if that was of the key. */
extern void eo_capture_check_key(Oid relid);

/* Called once, by _PG_init: keeps the arguments right when columns are renamed. */
extern void eo_capture_rename_init(void);

#endif							/* EO_CAPTURE_TRIGGERS_H */
