/*
 * change.c
 *		What all calls that change a definition have in common.
 *
 * Runs in the caller's backend, under the exclusive lock of the definition.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "api/change.h"
#include "api/check.h"
#include "api/segments.h"
#include "api/upserts.h"
#include "api/workers.h"
#include "catalog/log.h"

#define MAX_NAME_BYTES 1024
#define MAX_TIMEOUT_DAYS 24		/* in milliseconds it must fit an int */

/* Error 42602 or 42622 unless a name has 1 to 1024 bytes. */
void
ppl_change_check_name(const char *what, const char *name)
{
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("%s name must not be empty", what)));
	if (strlen(name) > MAX_NAME_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("%s name is too long", what),
				 errdetail("It has %zu bytes, at most %d are allowed.",
						   strlen(name), MAX_NAME_BYTES)));
}

/* Error 22023 unless word is one of a list. */
void
ppl_change_check_word(const char *what, const char *word, int nwords,
					  const char *const *words)
{
	char	   *list = "";

	for (int i = 0; i < nwords; i++)
	{
		if (strcmp(word, words[i]) == 0)
			return;
		list = psprintf("%s%s%s", list, i > 0 ? ", " : "", words[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown %s \"%s\"", what, word),
			 errhint("Use one of: %s.", list)));
}

/* Error 22023 unless a number is at least 1. */
void
ppl_change_check_positive(const char *what, int value)
{
	if (value < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least 1", what),
				 errdetail("It is %d.", value)));
}

/* A month counts as 30 days, as it does when the timeout is read. */
void
ppl_change_check_timeout(const Interval *timeout)
{
	double		days = timeout->time / (double) USECS_PER_DAY +
	timeout->day + timeout->month * 30.0;

	if (days <= 0 || days >= MAX_TIMEOUT_DAYS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must be more than 0 and less than %d days",
						MAX_TIMEOUT_DAYS),
				 errhint("Leave timeout out to let an event take as long as it takes.")));
}

/*
 * The signature of a function, qualified all over, or NULL.
 */
char *
ppl_change_handler(FunctionCallInfo fcinfo, int argno)
{
	Oid			oid;

	if (PG_ARGISNULL(argno))
		return NULL;
	oid = PG_GETARG_OID(argno);
	if (!SearchSysCacheExists1(PROCOID, ObjectIdGetDatum(oid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function with OID %u does not exist", oid),
				 errhint("Name it with the type of its argument, as in 'f(t)'.")));
	return format_procedure_qualified(oid);
}

/* An argument of type text[] as a parameter, which may be NULL. */
PplSqlArg
ppl_change_text_array(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return ppl_sql_arg_null(TEXTARRAYOID);
	return ppl_sql_arg(TEXTARRAYOID, PG_GETARG_DATUM(argno));
}

/*
 * Check the definition as it stands now, if asked to, and have everybody told
 * of it.  Brings *pipeline up to date, which is what it was before.
 */
void
ppl_change_finish(PplPipeline *pipeline, bool check)
{
	PplPipeline before = *pipeline;

	*pipeline = *ppl_access_reload(pipeline);
	ppl_segments_check(&before, pipeline);
	if (check)
	{
		ppl_logs_settle(pipeline);
		ppl_check_chain(pipeline);
		ppl_upserts_settle(pipeline);
		ppl_workers_settle(pipeline);
	}
	else
		ppl_logs_drop(pipeline, false);
	ppl_access_announce(pipeline);
	ppl_segments_change(&before, pipeline);
}

/* Error 42704: a stage or output that the pipeline does not have. */
void
ppl_change_refuse_unknown(const char *what, const char *name,
						  const PplPipeline *pipeline, const char *view)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("%s \"%s\" of pipeline \"%s\" does not exist", what, name,
					pipeline->name),
			 errhint("SELECT %s FROM pipeline.%s WHERE pipeline = %s; lists them.",
					 what, view, quote_literal_cstr(pipeline->name))));
}
