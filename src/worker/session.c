/*
 * session.c
 *		The worker's session as its pipeline's owner.
 *
 * User code runs in it, batch after batch, and must find it the same each
 * time: settings are reset by a GUC nest level around each batch (batch.c),
 * what is left is cleaned here between batches.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "worker/session.h"

static void
override(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_SESSION);
}

/*
 * Override what ALTER ROLE or ALTER DATABASE may have set and a worker cannot
 * live with.  Called once, after the connection is made.
 */
void
ppl_session_setup(void)
{
	override("role", "none");
	override("lock_timeout", "0");
	override("session_replication_role", "origin");
	override("default_transaction_isolation", "read committed");
	override("default_transaction_read_only", "off");
	override("default_transaction_deferrable", "off");
	override("synchronous_commit", "off");
	override("row_security", "on");
	override("standard_conforming_strings", "on");
	override("transform_null_equals", "off");
}

/*
 * User code sees this search_path from now on, or until the transaction is
 * rolled back, which brings the former one back.
 */
void
ppl_session_search_path(const char *search_path)
{
	const char *current = GetConfigOption("search_path", false, false);

	if (strcmp(current, search_path) != 0)
		override("search_path", search_path);
}

/*
 * Settings of a pipeline's own hold until the GUC nest level of the caller ends, whatever
 * user code sets meanwhile.
 */
void
ppl_session_settings(const PplPipeline *pipeline)
{
	int			work_mem = ppl_definition_setting(pipeline, PPL_SETTING_WORK_MEM);

	if (work_mem != 0)
		(void) set_config_option("work_mem", psprintf("%d", work_mem),
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * From here on values have the same text on every day and in every session, until
 * the formats are unpinned with what is returned, or the subtransaction ends: so that
 * what was stored as text is understood.  layout_of in SQL pins the same.
 */
int
ppl_session_pin_formats(void)
{
	static const char *const formats[][2] = {
		{"datestyle", "ISO, MDY"},
		{"intervalstyle", "postgres"},
		{"timezone", "UTC"},
		{"extra_float_digits", "1"},
		{"bytea_output", "hex"},
		{"lc_monetary", "C"}
	};
	int			level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(formats); i++)
		(void) set_config_option(formats[i][0], formats[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return level;
}

/* See ppl_session_pin_formats. */
void
ppl_session_unpin_formats(int level)
{
	AtEOXact_GUC(true, level);
}

/*
 * Take away what a handler made in this transaction and would outlive it:
 * temporary objects, cursors WITH HOLD.  Just before the commit.
 */
void
ppl_session_discard(void)
{
	PortalHashTableDeleteAll();

	/* to delete a temporary table that is toasted, the catalogs are read */
	PushActiveSnapshot(GetTransactionSnapshot());
	ResetTempTableNamespace();
	PopActiveSnapshot();
}

/*
 * Take away what a handler may have left behind in the session, whether its
 * transaction was committed or not.  Outside transactions.
 */
void
ppl_session_clean(void)
{
	LockReleaseAll(USER_LOCKMETHOD, true);
	DropAllPreparedStatements();
}
