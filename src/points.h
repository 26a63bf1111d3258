/*
 * points.h
 *
 * Named points where a test makes the process that comes there die, fail or
 * stand still.  Test builds have them; in others they are nothing.
 */
#ifndef EO_POINTS_H
#define EO_POINTS_H

#ifdef EO_TEST_SWITCHES

/* An error may be raised here. */
#define EO_POINT(name) \
	do { if (eo_points_armed) eo_point_reached(#name, false); } while (0)

/* No error may be raised here: the process dies instead. */
#define EO_POINT_CRITICAL(name) \
	do { if (eo_points_armed) eo_point_reached(#name, true); } while (0)

/* To be called by _PG_init. */
#define EO_POINTS_INIT()	eo_points_init()

extern bool eo_points_armed;

extern void eo_point_reached(const char *name, bool critical);
extern void eo_points_init(void);

#else

#define EO_POINT(name)			((void) 0)
#define EO_POINT_CRITICAL(name)	((void) 0)
#define EO_POINTS_INIT()		((void) 0)

#endif							/* EO_TEST_SWITCHES */

#endif							/* EO_POINTS_H */
