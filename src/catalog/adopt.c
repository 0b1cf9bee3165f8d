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

/*
 * Put tables of the same names in the place of targets that are gone, here and
 * in the stored definition.  Those that have none stay what they are, which is
 * an error for whoever uses them.
 */
void
ppl_adopt_targets(PplPipeline *pipeline)
{
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

		{
			PplSqlArg	args[] = {
				ppl_sql_arg_int(output->output_id),
				ppl_sql_arg(OIDOID, ObjectIdGetDatum(relid)),
			};

			(void) ppl_sql_run("UPDATE " PPL_OUTPUTS " SET target = $2"
							   " WHERE output_id = $1",
							   lengthof(args), args);
		}
	}
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
