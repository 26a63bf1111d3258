/*
 * output.h
 *
 * Makes the text of values the same in every session.
 */
#ifndef EO_OUTPUT_H
#define EO_OUTPUT_H

/*
 * Sets what the output of some types depends on to values that are the same
 * everywhere and lose nothing; `utc` sets the time zone, too.  Returns what
 * eo_output_unpin() takes back; an error takes it back by itself.
 */
extern int	eo_output_pin(bool utc);
extern void eo_output_unpin(int nestlevel);

/* Whether the settings of this session, but for the time zone, are such. */
extern bool eo_output_is_plain(void);

#endif							/* EO_OUTPUT_H */
