/*
 * moves.h
 *
 * Owners whose window has come to be of another class.
 */
#ifndef EO_MOVES_H
#define EO_MOVES_H

#include "datatype/timestamp.h"

/*
 * For the relay: sees to the end of moves.  Runs in the caller's transaction,
 * with SPI connected and RowExclusiveLocks on the tables of owners.  Returns
 * when to look again, by GetCurrentTimestamp(); 0 if nobody moves.
 */
extern TimestampTz eo_moves_settle(void);

#endif							/* EO_MOVES_H */
