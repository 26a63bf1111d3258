/*
 * page.h
 *
 * The rows of one page of a segment.
 */
#ifndef EO_PAGE_H
#define EO_PAGE_H

#include "access/htup.h"
#include "storage/buf.h"
#include "utils/relcache.h"

/*
 * Called for each row, in the order of line pointers, with a share lock on the
 * buffer: the tuple leads into it.  Must not throw for want of anything but
 * memory, nor touch other buffers.
 */
typedef void (*EoRowVisitor) (HeapTuple row, Buffer buffer, void *arg);

extern void eo_page_visit(Relation rel, BlockNumber block, EoRowVisitor visit, void *arg);

#endif							/* EO_PAGE_H */
