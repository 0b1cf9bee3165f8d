/*
 * pipeline.c
 *		Loading of the library: settings, shared memory, hooks, the launcher.
 *
 * Everything here runs once, in the postmaster, when the library is in
 * shared_preload_libraries.  Loaded later (CREATE EXTENSION without the
 * setting), the library installs nothing, and the functions that need more say
 * so with a hint.
 */
#include "postgres.h"
#include "base/compat.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "backlog/main.h"
#include "base/guc.h"
#include "base/shm.h"
#include "base/wake.h"
#include "launcher/ddl.h"
#include "launcher/main.h"

PPL_MODULE_MAGIC;

extern PPL_EXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;

	ppl_guc_define();
	ppl_shm_install();
	ppl_wake_install();
	ppl_ddl_install();
	ppl_launcher_register();
	ppl_mover_register();
}
