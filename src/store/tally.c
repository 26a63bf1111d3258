/*
 * tally.c
 */
#include "postgres.h"

#include "store/tally.h"

void
eo_tally_held(const EoOwner *owner, int generation, int64 bytes)
{
}

void
eo_tally_repeat(const EoOwner *owner)
{
}

void
eo_tally_truncated(EoDatabase *db, EoFamily family, int class, int generation)
{
}

void
eo_tally_init(void)
{
}
