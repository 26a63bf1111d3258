/*
 * configuration.h
 *
 * Checks that the functions of subscribe.c and the validators share.
 */
#ifndef EO_CONFIGURATION_H
#define EO_CONFIGURATION_H

#include "shmem.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "wire/options.h"

/* An ERROR that names the option and lists the right ones, unless it is good. */
extern void eo_configuration_check_option(const EoBrokerKind *kind, EoOptionPlace place,
										  const char *name, const char *value);

/* A JSON scalar as text, palloc'd. */
extern char *eo_configuration_scalar(const JsonbValue *value);

/* The id of a subscription, and whether it has no server; an ERROR if there is none. */
extern int32 eo_configuration_subscription_id(text *name, bool *pull);

/* Milliseconds of an interval, from 0 to what a wait can take. */
extern long eo_configuration_interval_ms(const Interval *interval);

/* An ERROR unless the log still holds what follows seq. */
extern void eo_configuration_check_seq(EoDatabase *db, int64 seq);

#endif							/* EO_CONFIGURATION_H */
