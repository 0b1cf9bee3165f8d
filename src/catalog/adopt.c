/*
 * adopt.c
 *		Targets that were dropped and created again.
 *
 * A target is known by its OID, so that it may be renamed or moved.  When that
 * is gone, the table that now has the name under which it was declared takes
 * its place.  Runs in workers and backends, inside a transaction.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "catalog/adopt.h"
#include "catalog/names.h"
#include "catalog/sql.h"

/*
 * Whoever owns a table can have code of his run with the rights of those who
 * write it: only a role that has the rights of the pipeline's owner anyway may
 * put a table in the place of another.
 */
static bool
is_trusted(Oid relid, Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		trusted;

	if (!HeapTupleIsValid(tuple))
		return false;
	trusted = has_privs_of_role(((Form_pg_class) GETSTRUCT(tuple))->relowner,
								owner);
	ReleaseSysCache(tuple);
	return trusted;
}

/* The relation that has the name under which a target was declared, if any. */
static Oid
find_by_name(const PplOutput *output)
{
	List	   *names = stringToQualifiedNameList(output->target_name);

	return RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
}

/* Note in the definition and in the audit log that an output has a new target. */
static void
store(const PplPipeline *pipeline, const PplOutput *output)
{
	PplSqlArg	args[] = {
		ppl_sql_arg_int(output->output_id),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(output->target)),
		ppl_sql_arg_text(GetUserNameFromId(pipeline->owner, false)),
		ppl_sql_arg_text(pipeline->name),
	};

	(void) ppl_sql_run("WITH adopted AS ("
					   " UPDATE " PPL_OUTPUTS " SET target = $2"
					   " WHERE output_id = $1"
					   " RETURNING pipeline_id, name, target_name)"
					   " INSERT INTO " PPL_AUDIT_LOG
					   " (who, action, pipeline_id, pipeline, detail)"
					   " SELECT $3, 'adopt_target', pipeline_id, $4,"
					   " pg_catalog.jsonb_build_object('output', name, 'target', target_name)"
					   " FROM adopted",
					   lengthof(args), args);
}

/*
 * Put tables of the same names in the place of targets that are gone, here and
 * in the stored definition: true if there were any.  Those that have none stay
 * what they are, which is an error for whoever uses them.
 */
bool
ppl_adopt_targets(PplPipeline *pipeline)
{
	bool		any = false;
	ListCell   *lc;

	foreach(lc, pipeline->outputs)
	{
		PplOutput  *output = lfirst(lc);
		Oid			relid;

		if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(output->target)))
			continue;
		relid = find_by_name(output);
		if (!OidIsValid(relid) || !is_trusted(relid, pipeline->owner))
			continue;
		output->target = relid;
		store(pipeline, output);
		any = true;
	}
	return any;
}

/*
 * A target is gone, and nothing was put in its place: say what to do.
 */
void
ppl_adopt_refuse(const PplPipeline *pipeline, const PplOutput *output)
{
	if (OidIsValid(find_by_name(output)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("target %s was dropped and created again by another role",
						output->target_name),
				 errdetail("Its owner does not have the rights of the pipeline's owner."),
				 errhint("ALTER TABLE %s OWNER TO %s; and the pipeline goes on by itself.",
						 output->target_name,
						 quote_identifier(GetUserNameFromId(pipeline->owner, false)))));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("target %s does not exist any more", output->target_name),
			 errhint("Create the table again, and the pipeline goes on by itself; or SELECT pipeline.drop_output(%s, %s);",
					 quote_literal_cstr(pipeline->name),
					 quote_literal_cstr(output->name))));
}
