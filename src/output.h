/*
 * output.h
 *
 * Makes the text of values the same in every session.
 */
#ifndef EO_OUTPUT_H
#define EO_OUTPUT_H

#define EO_OUTPUT_UTC		1	/* the time zone, too */
#define EO_OUTPUT_MONEY		2	/* for money */
#define EO_OUTPUT_NAMES		4	/* for types like regclass: names with their schema */
#define EO_OUTPUT_ALL		(EO_OUTPUT_UTC | EO_OUTPUT_MONEY | EO_OUTPUT_NAMES)

/*
 * Sets what the output of some types depends on to values that are the same
 * everywhere and lose nothing.  Returns what eo_output_unpin() takes back; an
 * error takes it back by itself.
 */
extern int	eo_output_pin(int which);
extern void eo_output_unpin(int nestlevel);

/* Which of them a type needs so that it can be read anywhere: MONEY or NAMES, for what is in it. */
extern int	eo_output_needs(Oid type);

/* Whether the settings of this session, those for all types, are such. */
extern bool eo_output_is_plain(void);

#endif							/* EO_OUTPUT_H */
