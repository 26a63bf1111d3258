/*
 * change.h
 *
 * A change of a row as events.
 */
#ifndef EO_CAPTURE_CHANGE_H
#define EO_CAPTURE_CHANGE_H

#include "capture/shape.h"
#include "executor/tuptable.h"
#include "store/event.h"

/* Takes an event, complete but for its seq; must copy what it keeps. */
typedef void (*EoCaptureEmit) (const EoEvent *event, void *arg);

/*
 * Calls `emit` for the events of a change, in order; none if there is nothing to
 * tell.  `before` and `after` are the rows, or NULL where the operation has none.
 * Leaves what it allocates to the current memory context.  Errors name the table
 * and the key in their context.
 */
extern void eo_capture_change(EoShape *shape, EoCaptureOp op, TupleTableSlot *before,
							  TupleTableSlot *after, EoCaptureEmit emit, void *arg);

#endif							/* EO_CAPTURE_CHANGE_H */
