/*
 * module.c
 *
 * What happens when the library is loaded.
 */
#include "postgres.h"

#include "api/row_movement.h"
#include "capture/triggers.h"
#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "points.h"
#include "relay/launcher.h"
#include "relay/utility.h"
#include "settings.h"
#include "shmem.h"
#include "store/registry.h"
#include "store/tally.h"
#include "txn/causation.h"
#include "txn/event_buffer.h"
#include "txn/idempotency.h"

EO_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	/*
	 * pg_upgrade starts servers to copy the catalogs, with fsync off; nothing
	 * may be published there, but the library has to load.
	 */
	if (!process_shared_preload_libraries_in_progress)
	{
		if (IsBinaryUpgrade)
			return;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("eo_outbox must be loaded when the server starts"),
				 errhint("Add eo_outbox to shared_preload_libraries in postgresql.conf and restart the server.")));
	}
	EO_POINTS_INIT();
	eo_settings_init();
	eo_shmem_init();
	eo_buffer_init();
	eo_registry_init();
	eo_tally_init();
	eo_causation_init();
	eo_idempotency_init();
	eo_row_movement_init();
	eo_capture_rename_init();
	eo_utility_init();
	if (!IsBinaryUpgrade)
		eo_launcher_register();
}
