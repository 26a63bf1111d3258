/*
 * options.h
 *
 * The options that each kind of broker takes, in one table for the validator
 * inside PostgreSQL and for the publishers.
 */
#ifndef EO_OPTIONS_H
#define EO_OPTIONS_H

#include <stdbool.h>

typedef enum EoOptionPlace
{
	EO_OPTION_SERVER = 1,		/* CREATE SERVER ... OPTIONS */
	EO_OPTION_USER_MAPPING = 2, /* CREATE USER MAPPING ... OPTIONS; secret */
	EO_OPTION_SUBSCRIPTION = 4	/* eo.subscribe(options => ...) */
} EoOptionPlace;

typedef enum EoOptionType
{
	EO_OPTION_TEXT,				/* not empty */
	EO_OPTION_PATH,				/* an absolute path on the server: whoever
								 * sets it needs pg_write_server_files */
	EO_OPTION_BOOL,				/* true or false */
	EO_OPTION_INT,				/* from min to max */
	EO_OPTION_ENUM				/* one of choices, separated by '|' */
} EoOptionType;

typedef struct EoOption
{
	const char *name;
	int			places;			/* of EoOptionPlace */
	EoOptionType type;
	long		min;			/* EO_OPTION_INT */
	long		max;
	const char *choices;		/* EO_OPTION_ENUM */
	bool		required;		/* in the place that it belongs to */
} EoOption;

typedef struct EoBrokerKind
{
	const char *name;			/* "kafka": executable eo-publish-kafka, foreign
								 * data wrapper eo_kafka */
	const EoOption *options;	/* ends with a NULL name */
} EoBrokerKind;

/* NULL where there is no such kind. */
extern const EoBrokerKind *eo_broker_kind(const char *name);

/*
 * Checks one option.  Returns NULL if it is good, otherwise what is wrong with
 * it, as a phrase in lower case ("must be an integer from 1 to 60000"), in a
 * static buffer.  `found` tells an unknown name apart.
 */
extern const char *eo_option_check(const EoBrokerKind *kind, EoOptionPlace place,
								   const char *name, const char *value,
								   bool *found);

#endif							/* EO_OPTIONS_H */
