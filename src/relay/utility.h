/*
 * utility.h
 *
 * Commands that concern the relay: those on servers and user mappings, and
 * those that need a database to themselves.
 */
#ifndef EO_UTILITY_H
#define EO_UTILITY_H

/* Called once, by _PG_init. */
extern void eo_utility_init(void);

#endif							/* EO_UTILITY_H */
