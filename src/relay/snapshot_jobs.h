/*
 * snapshot_jobs.h
 *
 * The tables eo.snapshot_job and eo.snapshot_part, as the worker uses them.
 */
#ifndef EO_RELAY_SNAPSHOT_JOBS_H
#define EO_RELAY_SNAPSHOT_JOBS_H

#include "capture/snapshot.h"

typedef struct EoSnapshotJob
{
	int64		id;
	Oid			relation;
	char	   *name;			/* of the table, when the job was made */
	int32		subscription;	/* 0: all */
	bool		subscription_gone;
	bool		fresh;			/* no chunk has been made yet */
	int32		chunk_rows;
} EoSnapshotJob;

/* A table that belongs to a job */
typedef struct EoSnapshotPart
{
	int32		number;
	Oid			relation;
	EoSnapshotPlace place;
} EoSnapshotPart;

typedef enum EoSnapshotClaim
{
	EO_SNAPSHOT_NONE,			/* nothing is left to do */
	EO_SNAPSHOT_OTHERS,			/* only what was passed over, or is being stopped */
	EO_SNAPSHOT_CLAIMED
} EoSnapshotClaim;

/*
 * All in the caller's transaction, with SPI; the caller has locked the tables.
 * A job that was claimed is locked until the end of the transaction.
 */
extern bool eo_snapshot_jobs_lock(LOCKMODE mode);	/* does not wait */
extern bool eo_snapshot_jobs_pending(void);
extern EoSnapshotClaim eo_snapshot_jobs_claim(int64 after, EoSnapshotJob *job);	/* the oldest behind one */
extern bool eo_snapshot_jobs_part(const EoSnapshotJob *job, EoSnapshotPart *part);

/* Writes the place of a part down, and how long the chunk took. */
extern void eo_snapshot_jobs_advance(const EoSnapshotJob *job, const EoSnapshotPart *part,
									 bool anew, double seconds);
extern void eo_snapshot_jobs_skip(const EoSnapshotJob *job, const EoSnapshotPart *part);
extern void eo_snapshot_jobs_finish(const EoSnapshotJob *job);

/* An error ended the job, or if not `fatal` it is tried again. */
extern void eo_snapshot_jobs_error(int64 id, const char *message, bool fatal);

#endif							/* EO_RELAY_SNAPSHOT_JOBS_H */
