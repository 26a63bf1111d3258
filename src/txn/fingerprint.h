/*
 * fingerprint.h
 *
 * Digests of requests, to tell whether two are the same.
 */
#ifndef EO_FINGERPRINT_H
#define EO_FINGERPRINT_H

#include "utils/jsonb.h"

/* SHA-256, palloc'd; equal for what the operator = of jsonb calls equal. */
extern bytea *eo_fingerprint(Jsonb *request);

extern bool eo_fingerprint_equal(const bytea *a, const bytea *b);

#endif							/* EO_FINGERPRINT_H */
