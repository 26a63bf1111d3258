/*
 * pull.h
 *
 * Subscriptions that the application reads itself.
 */
#ifndef EO_PULL_H
#define EO_PULL_H

/*
 * Moves a pull subscription's cursor, in the caller's transaction.  The caller
 * has checked that the log still holds what follows seq.
 */
extern void eo_pull_seek(text *name, int64 seq);

#endif							/* EO_PULL_H */
