/*
 * access.c
 *		Who may do what to which pipeline, and what every change has to do.
 *
 * Runs in the caller's backend.  A change takes the lock of the definition
 * exclusively, which waits for the batch under way and for other changes, and
 * reads the definition after it.  Then it writes, has the relcache entry of
 * the table of pipelines invalidated at commit so that workers reload, and,
 * once the pipeline is born, tells capture by a control message.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "api/access.h"
#include "base/control.h"
#include "catalog/names.h"
#include "catalog/sql.h"

#define MAX_AUDIT_PAIRS 8

PPL_FUNCTION(pipeline_may_see);
PPL_FUNCTION(pipeline_may_see_payload);

static bool is_member(const char *role_name);
static int	find_visible(const char *name, PplRight right);
static void refuse(const char *name, Oid owner,
				   PplRight right) pg_attribute_noreturn();
static PplPipeline *load_latest(int pipeline_id);
static Datum text_array(const char **words, int nwords);

/*
 * _pipeline.may_see(owner oid)
 */
Datum
pipeline_may_see(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(ppl_access_allows(PG_GETARG_OID(0), PPL_RIGHT_SEE));
}

/*
 * _pipeline.may_see_payload(owner oid)
 */
Datum
pipeline_may_see_payload(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(ppl_access_allows(PG_GETARG_OID(0), PPL_RIGHT_OPERATE));
}

/*
 * Has the current user this right on the pipelines of owner?  Superusers are
 * members of every role.
 */
bool
ppl_access_allows(Oid owner, PplRight right)
{
	if (is_member_of_role(GetUserId(), owner) || is_member(PPL_ROLE_ADMIN))
		return true;
	switch (right)
	{
		case PPL_RIGHT_SEE:
			return is_member(PPL_ROLE_READER) || is_member(PPL_ROLE_OPERATOR);
		case PPL_RIGHT_OPERATE:
			return is_member(PPL_ROLE_OPERATOR);
		case PPL_RIGHT_ALTER:
			return false;
	}
	pg_unreachable();
}

/* Somebody may have dropped the role: then nobody is a member. */
static bool
is_member(const char *role_name)
{
	Oid			role = get_role_oid(role_name, true);

	return OidIsValid(role) && is_member_of_role(GetUserId(), role);
}

/*
 * Find a pipeline by name, check the right of the current user, lock the
 * definition (unless lockmode is NoLock) and read what is committed by then.
 * Errors: 42704 if there is none, 42501 if the right is missing.
 */
PplPipeline *
ppl_access_open(const char *name, PplRight right, LOCKMODE lockmode)
{
	for (;;)
	{
		int			pipeline_id = find_visible(name, right);
		PplPipeline *pipeline;

		if (lockmode != NoLock)
			ppl_definition_lock(pipeline_id, lockmode);
		pipeline = load_latest(pipeline_id);
		if (pipeline != NULL)
			return pipeline;
		/* dropped while we waited; there may be a new one of that name */
	}
}

static int
find_visible(const char *name, PplRight right)
{
	PplSqlArg	args[] = {ppl_sql_arg_text(name)};
	PplSqlResult *rows = ppl_sql_run("SELECT pipeline_id, owner::oid"
									 " FROM " PPL_PIPELINES
									 " WHERE name = $1",
									 lengthof(args), args);
	Oid			owner;

	if (rows->nrows == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pipeline \"%s\" does not exist", name),
				 errhint("SELECT pipeline FROM pipeline.pipelines; lists the pipelines.")));

	owner = ppl_sql_oid(rows, 0, 1);
	if (!ppl_access_allows(owner, right))
		refuse(name, owner, right);
	return ppl_sql_int(rows, 0, 0);
}

/* The owner may be gone: nothing keeps a role that has declared pipelines. */
static void
refuse(const char *name, Oid owner, PplRight right)
{
	const char *role = quote_identifier(GetUserNameFromId(GetUserId(), false));
	const char *owner_name = GetUserNameFromId(owner, true);
	const char *needed = right == PPL_RIGHT_ALTER ? PPL_ROLE_ADMIN :
	right == PPL_RIGHT_OPERATE ? PPL_ROLE_OPERATOR : PPL_ROLE_READER;

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for pipeline \"%s\"", name),
			 owner_name != NULL ?
			 errdetail("Needed is membership of its owner %s or of %s.",
					   quote_identifier(owner_name), needed) :
			 errdetail("Its owner does not exist any more; needed is membership of %s.",
					   needed),
			 errhint("GRANT %s TO %s;", needed, role)));
}

static PplPipeline *
load_latest(int pipeline_id)
{
	PplPipeline *pipeline;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	pipeline = ppl_definition_load(pipeline_id);
	PopActiveSnapshot();
	return pipeline;
}

/*
 * The definition as it is now, with what this transaction changed.
 */
PplPipeline *
ppl_access_reload(const PplPipeline *pipeline)
{
	PplPipeline *result = load_latest(pipeline->pipeline_id);

	if (result == NULL)
		elog(ERROR, "pipeline %d is gone", pipeline->pipeline_id);
	return result;
}

/*
 * Begin a change of stages or outputs: the definition has a new version.  The
 * caller holds its lock exclusively, and calls ppl_access_announce when the
 * change is written and checked.
 */
void
ppl_access_bump_version(PplPipeline *pipeline)
{
	PplSqlArg	args[] = {ppl_sql_arg_int(pipeline->pipeline_id)};
	PplSqlResult *rows = ppl_sql_run("UPDATE " PPL_PIPELINES
									 " SET version = version + 1"
									 " WHERE pipeline_id = $1"
									 " RETURNING version",
									 lengthof(args), args);

	if (rows->nrows != 1)
		elog(ERROR, "pipeline %d is gone", pipeline->pipeline_id);
	pipeline->version = ppl_sql_int(rows, 0, 0);
}

/*
 * Let workers and capture hear of a change of stages or outputs when it
 * commits.
 */
void
ppl_access_announce(const PplPipeline *pipeline)
{
	CacheInvalidateRelcacheByRelid(ppl_definition_relid());
	ppl_access_tell(pipeline, PPL_CONTROL_CHANGE);
}

/*
 * Tell capture and all workers of a pipeline, if it was ever started, at the
 * commit of this transaction.
 */
void
ppl_access_tell(const PplPipeline *pipeline, PplControlAction action)
{
	PplControl	control = {0};

	if (!pipeline->born)
		return;
	control.action = action;
	control.pipeline_id = pipeline->pipeline_id;
	control.version = pipeline->version;
	control.source = pipeline->source;
	control.owner = pipeline->owner;
	control.operations = pipeline->operations;
	ppl_control_emit(&control);
}

/*
 * Note in the audit log what the current user does.  Details follow as pairs
 * of strings, name and value, up to a NULL name.
 */
void
ppl_access_audit(const PplPipeline *pipeline, const char *action,...)
{
	const char *names[MAX_AUDIT_PAIRS + 1];
	const char *values[MAX_AUDIT_PAIRS + 1];
	int			npairs = 0;
	va_list		ap;

	va_start(ap, action);
	for (;;)
	{
		const char *name = va_arg(ap, const char *);

		if (name == NULL)
			break;
		Assert(npairs < MAX_AUDIT_PAIRS);
		names[npairs] = name;
		values[npairs++] = va_arg(ap, const char *);
	}
	va_end(ap);
	if (GetSessionUserId() != GetUserId())
	{
		names[npairs] = "session_user";
		values[npairs++] = GetUserNameFromId(GetSessionUserId(), false);
	}

	{
		PplSqlArg	args[] = {
			ppl_sql_arg_text(GetUserNameFromId(GetUserId(), false)),
			ppl_sql_arg_text(action),
			ppl_sql_arg_int(pipeline->pipeline_id),
			ppl_sql_arg_text(pipeline->name),
			ppl_sql_arg(TEXTARRAYOID, text_array(names, npairs)),
			ppl_sql_arg(TEXTARRAYOID, text_array(values, npairs)),
		};

		(void) ppl_sql_run("INSERT INTO " PPL_AUDIT_LOG
						   " (who, action, pipeline_id, pipeline, detail)"
						   " VALUES ($1, $2, $3, $4,"
						   " nullif(jsonb_object($5, $6), '{}'))",
						   lengthof(args), args);
	}
}

static Datum
text_array(const char **words, int nwords)
{
	Datum		elements[MAX_AUDIT_PAIRS + 1];
	bool		nulls[MAX_AUDIT_PAIRS + 1];
	int			dims[1] = {nwords};
	int			lbs[1] = {1};

	if (nwords == 0)
		return PointerGetDatum(construct_empty_array(TEXTOID));
	for (int i = 0; i < nwords; i++)
	{
		nulls[i] = (words[i] == NULL);
		elements[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(words[i]);
	}
	return PointerGetDatum(construct_md_array(elements, nulls, 1, dims, lbs,
											  TEXTOID, -1, false,
											  TYPALIGN_INT));
}
