/*
 * launcher.h
 *
 * The background worker that starts the relays.
 */
#ifndef EO_LAUNCHER_H
#define EO_LAUNCHER_H

/* Called by _PG_init. */
extern void eo_launcher_register(void);

/* Entry point of the background worker. */
extern PGDLLEXPORT void eo_launcher_main(Datum arg);

#endif							/* EO_LAUNCHER_H */
