/*-------------------------------------------------------------------------
 *
 * owner.c
 *		Look at user code as the owner of a pipeline sees it.
 *
 * Names in handlers and queries are resolved, and queries are planned, with
 * the rights of the pipeline's owner and the pipeline's search_path, whoever
 * asks.  Planning can run user code (functions that claim to be immutable),
 * so it happens in a security-restricted operation: what it does ends with
 * it.  Runs in any backend that checks a definition, and in workers.  Takes
 * no locks and blocks on nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "miscadmin.h"
#include "utils/guc.h"

#include "catalog/owner.h"

/*
 * Become owner with the given search_path until ppl_owner_end().  Temporary
 * objects of this session come last on the path: a worker has none, so none
 * may win here.  After an error the end of the (sub)transaction restores
 * everything.
 */
void
ppl_owner_begin(PplElevation *saved, Oid owner, const char *search_path)
{
	char	   *path = "pg_temp";

	if (search_path != NULL && search_path[0] != '\0')
		path = psprintf("%s, pg_temp", search_path);

	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	saved->guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(owner,
						   saved->sec_context | SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Undo ppl_owner_begin().
 */
void
ppl_owner_end(const PplElevation *saved)
{
	AtEOXact_GUC(false, saved->guc_level);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}
