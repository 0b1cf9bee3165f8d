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

#include "api/args.h"
#include "api/change.h"
#include "api/check.h"
#include "api/segments.h"
#include "api/upserts.h"
#include "api/workers.h"
#include "catalog/log.h"

#define MAX_NAME_BYTES 1024
#define MAX_TIMEOUT_DAYS 24		/* in milliseconds it must fit an int */

static const char *const operation_words[] = {"insert", "update", "delete", "truncate"};

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

/* Error 0A000: the contract has it, and it is still to come. */
void
ppl_change_refuse_yet(const char *what, const char *current, const char *needed)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s %s is not supported yet", what, current),
			 errhint("Use %s %s.", what, needed)));
}

/* Error 22023 for a word that lineage of a pipeline cannot be. */
void
ppl_change_check_lineage(const char *lineage)
{
	static const char *const lineages[] = {"row", "none"};

	ppl_change_check_word("lineage", lineage, lengthof(lineages), lineages);
}

/* The same of consistency of a pipeline. */
void
ppl_change_check_consistency(const char *consistency)
{
	static const char *const consistencies[] = {"strong", "causal", "eventual"};

	ppl_change_check_word("consistency", consistency, lengthof(consistencies),
						  consistencies);
}

/* The same of on_schema_change of a pipeline; 0A000 for one that is to come. */
void
ppl_change_check_policy(const char *policy)
{
	static const char *const policies[] = {"adapt", "pause", "dead_letter"};

	ppl_change_check_word("on_schema_change", policy, lengthof(policies), policies);
	if (strcmp(policy, "dead_letter") == 0)
		ppl_change_refuse_yet("on_schema_change", policy, "adapt or pause");
}

/* The same of on_error of a stage. */
void
ppl_change_check_on_error(const char *on_error)
{
	static const char *const reactions[] = {"dead_letter", "halt", "skip"};

	ppl_change_check_word("on_error", on_error, lengthof(reactions), reactions);
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

/*
 * An argument with operations as bits; a word that comes twice is no error.  Error 22023
 * if there is none, or one that is not known.
 */
uint16
ppl_change_operations(FunctionCallInfo fcinfo, int argno)
{
	List	   *words = ppl_args_text_array(fcinfo, argno, "operations");
	uint16		operations = 0;
	ListCell   *lc;

	if (words == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("operations must not be empty"),
				 errhint("Use operations => '{insert}'.")));
	foreach(lc, words)
	{
		ppl_change_check_word("operation", lfirst(lc), lengthof(operation_words),
							  operation_words);
		operations |= ppl_definition_operation(lfirst(lc));
	}
	return operations;
}

/* Operations as a parameter: each word once, in one order. */
PplSqlArg
ppl_change_operations_arg(uint16 operations)
{
	PplSqlArg	words[lengthof(operation_words)];
	int			n = 0;

	for (int i = 0; i < lengthof(operation_words); i++)
	{
		if (operations & ppl_definition_operation(operation_words[i]))
			words[n++] = ppl_sql_arg_text(operation_words[i]);
	}
	return ppl_sql_arg_array(words, n);
}

/*
 * The argument partition_by of a pipeline, NIL if it is null.  Error 22023 if it is empty.
 */
List *
ppl_change_partition_by(FunctionCallInfo fcinfo, int argno)
{
	List	   *columns = ppl_args_text_array(fcinfo, argno, "partition_by");

	if (!PG_ARGISNULL(argno) && columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition_by must not be empty"),
				 errhint("Name columns of the source, or leave partition_by out.")));
	return columns;
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
 * An argument with settings as a parameter, which may be NULL.  Error 22023 for what
 * is not known or out of range.
 */
PplSqlArg
ppl_change_settings(FunctionCallInfo fcinfo, int argno)
{
	PplSettings settings;

	if (PG_ARGISNULL(argno))
		return ppl_sql_arg_null(JSONBOID);
	ppl_setting_parse(PG_GETARG_JSONB_P(argno), &settings);
	return ppl_sql_arg(JSONBOID, PG_GETARG_DATUM(argno));
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

/* The stage of this name; error 42704 if there is none. */
PplStage *
ppl_change_find_stage(const PplPipeline *pipeline, const char *name)
{
	ListCell   *lc;

	foreach(lc, pipeline->stages)
	{
		PplStage   *stage = lfirst(lc);

		if (strcmp(stage->name, name) == 0)
			return stage;
	}
	ppl_change_refuse_unknown("stage", name, pipeline, "stages");
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
