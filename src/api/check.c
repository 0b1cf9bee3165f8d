/*
 * check.c
 *		Checks of what a definition names: roles, sources, targets, chains.
 *
 * Runs in the caller's backend, when a definition changes and again at start.
 * Privileges are those of the pipeline's owner, as whom the worker connects,
 * whoever the caller is.  Relations are locked in share mode until the end of
 * the transaction.  Every error names what is there, what is needed, and the
 * command that mends it.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "api/check.h"
#include "catalog/handler.h"
#include "catalog/names.h"
#include "catalog/source.h"
#include "catalog/sql.h"
#include "worker/compile.h"

static bool has_privilege(const char *sql, Oid owner, Oid object);
static Relation open_relation(Oid relid, const char *role_of_it,
							  const char *output);
static void refuse_kind(Relation rel, const char *role_of_it,
						const char *current, const char *needed,
						const char *hint) pg_attribute_noreturn();
static void refuse_other_sources(Relation rel);
static void require_logged_partitions(Relation rel);
static char *qualified_name(Relation rel);
static const char *quoted_role(Oid owner);
static void require_schema(Relation rel, Oid owner);
static void require_relation(Relation rel, Oid owner, AclMode mode,
							 const char *privilege);
static void require_key(Relation rel, Oid owner);

/*
 * The session's effective search_path without temporary schemas, quoted, as
 * the value of search_path.
 */
char *
ppl_check_current_path(void)
{
	StringInfoData path;
	ListCell   *lc;

	initStringInfo(&path);
	foreach(lc, fetch_search_path(false))
	{
		char	   *name;

		if (isAnyTempNamespace(lfirst_oid(lc)))
			continue;
		name = get_namespace_name(lfirst_oid(lc));
		if (name == NULL)
			continue;
		if (path.len > 0)
			appendStringInfoString(&path, ", ");
		appendStringInfoString(&path, quote_identifier(name));
	}
	return path.data;
}

/*
 * User code runs with the search_path of the pipeline's declaration: error
 * 55000 if it is added by somebody who sees other objects under their names.
 */
void
ppl_check_same_path(const PplPipeline *pipeline)
{
	char	   *current = ppl_check_current_path();

	if (strcmp(current, pipeline->search_path) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("search_path differs from that of pipeline \"%s\"",
						pipeline->name),
				 errdetail("search_path is effectively \"%s\", the pipeline was declared with \"%s\".",
						   current, pipeline->search_path),
				 errhint("SET search_path = %s;",
						 pipeline->search_path[0] != '\0' ?
						 pipeline->search_path : "''")));
}

/*
 * May a worker connect as owner and take its notes?  Error 42501 if not.
 */
void
ppl_check_owner(Oid owner)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
	bool		login;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of the pipeline does not exist any more"),
				 errhint("Drop the pipeline and declare it again as another role.")));
	login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);

	if (!login)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role %s may not log in", quoted_role(owner)),
				 errdetail("The worker connects as the owner of the pipeline, which is NOLOGIN and needs LOGIN."),
				 errhint("ALTER ROLE %s LOGIN;", quoted_role(owner))));
	if (!has_privilege("SELECT has_database_privilege($1, $2, 'CONNECT')",
					   owner, MyDatabaseId))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role %s may not connect to this database",
						quoted_role(owner)),
				 errdetail("The worker connects as the owner of the pipeline, which needs CONNECT."),
				 errhint("GRANT CONNECT ON DATABASE %s TO %s;",
						 quote_identifier(get_database_name(MyDatabaseId)),
						 quoted_role(owner))));
	if (!has_privilege("SELECT has_schema_privilege($1, $2, 'USAGE')",
					   owner, get_namespace_oid(PPL_SCHEMA, false)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role %s may not use schema %s", quoted_role(owner),
						PPL_SCHEMA),
				 errdetail("The statement of a pipeline runs as its owner and calls functions of this schema."),
				 errhint("GRANT USAGE ON SCHEMA %s TO %s;", PPL_SCHEMA,
						 quoted_role(owner))));
}

/* Asked in SQL, which is the same in every release. */
static bool
has_privilege(const char *sql, Oid owner, Oid object)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(owner)),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(object)),
	};

	return ppl_sql_bool(ppl_sql_run(sql, lengthof(args), args), 0, 0);
}

/*
 * Can this relation be the source of a pipeline of owner?  Of a partitioned
 * table the rows of all partitions are, without a privilege on these.  Errors:
 * 42P01, 42809 for what is no table or leaves no trace in the WAL, 42501.
 */
void
ppl_check_source(Oid relid, Oid owner)
{
	Relation	rel = open_relation(relid, "source", NULL);

	refuse_other_sources(rel);
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_kind(rel, "source", "unlogged", "a logged table, whose rows are in the WAL",
					rel->rd_rel->relkind == RELKIND_RELATION ?
					psprintf("ALTER TABLE %s SET LOGGED;", qualified_name(rel)) :
					"Create it without UNLOGGED.");
	require_logged_partitions(rel);
	require_schema(rel, owner);
	if (pg_class_aclcheck(relid, owner, ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, owner, ACL_SELECT,
								  ACLMASK_ALL) != ACLCHECK_OK)
		require_relation(rel, owner, ACL_SELECT, "SELECT");
	if (check_enable_rls(relid, owner, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("row security hides rows of source \"%s\" from role %s",
						RelationGetRelationName(rel), quoted_role(owner)),
				 errdetail("A pipeline sees every row of its source, so its owner must not be subject to row security there."),
				 errhint("ALTER ROLE %s BYPASSRLS;", quoted_role(owner))));
	relation_close(rel, NoLock);
}

/* Only the rows of tables are in the log. */
static void
refuse_other_sources(Relation rel)
{
	const char *needed = "an ordinary or partitioned table, or a stream";

	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
			return;
		case RELKIND_VIEW:
			refuse_kind(rel, "source", "a view", needed,
						"A view has no rows of its own: name the table that they are in, and look up the rest in a stage.");
		case RELKIND_MATVIEW:
			refuse_kind(rel, "source", "a materialized view", needed,
						"A refresh replaces it as a whole and is no event: name the table that its rows come from.");
		case RELKIND_FOREIGN_TABLE:
			if (ppl_source_is_stream(rel))
				return;
			refuse_kind(rel, "source", "a foreign table", needed,
						"Its rows are not in the log of this server: declare the pipeline where they are.");
		case RELKIND_SEQUENCE:
			refuse_kind(rel, "source", "a sequence", needed,
						"A sequence has no rows: name the table that uses its values.");
	}
	refuse_kind(rel, "source", "no table", needed,
				"Name the table that the rows are inserted into.");
}

/*
 * Can this relation be the target of an output of owner?  output is its name,
 * or NULL.  Errors: 42P01, 42809, 42501.
 */
void
ppl_check_target(Oid relid, Oid owner, const char *output)
{
	Relation	rel = open_relation(relid, "target", output);

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE &&
		!ppl_source_is_stream(rel))
		refuse_kind(rel, "target", "no table",
					"an ordinary or partitioned table, or a stream",
					"Name the table that the rows shall be inserted into.");
	require_schema(rel, owner);
	/* of which columns, ppl_target_resolve knows */
	if (pg_attribute_aclcheck_all(relid, owner, ACL_INSERT,
								  ACLMASK_ANY) != ACLCHECK_OK)
		require_relation(rel, owner, ACL_INSERT, "INSERT");
	require_key(rel, owner);
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(WARNING,
				(errmsg("target \"%s\" is unlogged", RelationGetRelationName(rel)),
				 errdetail("A crash of the server empties it, and the pipeline does not fill it again."),
				 errhint("ALTER TABLE %s SET LOGGED;", qualified_name(rel))));
	relation_close(rel, NoLock);
}

/*
 * Rows of an unlogged partition and of a foreign one that is no stream are not in the WAL, so they
 * could never be events.
 */
static void
require_logged_partitions(Relation rel)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(RelationGetRelid(rel))),
	};
	PplSqlResult *rows =
	ppl_sql_run("SELECT c.oid::regclass::text, c.relkind = 'f',"
				" t.parentrelid::regclass::text"
				" FROM pg_partition_tree($1) t JOIN pg_class c ON c.oid = t.relid"
				" WHERE t.isleaf AND t.level > 0"
				" AND (c.relkind = 'f' AND NOT EXISTS (SELECT FROM pg_foreign_table f"
				"  JOIN pg_foreign_server s ON s.oid = f.ftserver"
				"  JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw"
				"  JOIN pg_proc h ON h.oid = w.fdwhandler"
				"  WHERE f.ftrelid = c.oid AND h.proname = '" PPL_STREAM_HANDLER "'"
				"   AND h.pronamespace = '" PPL_PRIVATE_SCHEMA "'::regnamespace)"
				"  OR c.relpersistence = 'u')"
				" ORDER BY 1 LIMIT 1",
				lengthof(args), args);

	if (rows->nrows == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" cannot be a source",
					RelationGetRelationName(rel)),
			 errdetail("Its partition %s is %s, needed are logged tables, whose rows are in the WAL.",
					   ppl_sql_text(rows, 0, 0),
					   ppl_sql_bool(rows, 0, 1) ? "a foreign table" : "unlogged"),
			 ppl_sql_bool(rows, 0, 1) ?
			 errhint("ALTER TABLE %s DETACH PARTITION %s;",
					 ppl_sql_text(rows, 0, 2), ppl_sql_text(rows, 0, 0)) :
			 errhint("ALTER TABLE %s SET LOGGED;", ppl_sql_text(rows, 0, 0))));
}

/* Open a relation that a worker could open too. */
static Relation
open_relation(Oid relid, const char *role_of_it, const char *output)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);

	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 output != NULL ?
				 errmsg("the %s of output \"%s\" does not exist", role_of_it,
						output) :
				 errmsg("the %s does not exist", role_of_it),
				 errhint("Drop the pipeline or the output, and declare it again over another table.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse_kind(rel, role_of_it, "temporary", "a table that other sessions see",
					"Create it without TEMPORARY.");
	if (IsCatalogRelation(rel) ||
		RelationGetNamespace(rel) == get_namespace_oid(PPL_PRIVATE_SCHEMA, false))
		refuse_kind(rel, role_of_it, "a table of the system", "a table of users",
					"Name another table.");
	return rel;
}

static void
refuse_kind(Relation rel, const char *role_of_it, const char *current,
			const char *needed, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("\"%s\" cannot be a %s", RelationGetRelationName(rel),
					role_of_it),
			 errdetail("It is %s, needed is %s.", current, needed),
			 errhint("%s", hint)));
}

static char *
qualified_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

static const char *
quoted_role(Oid owner)
{
	return quote_identifier(GetUserNameFromId(owner, false));
}

static void
require_schema(Relation rel, Oid owner)
{
	Oid			namespace = RelationGetNamespace(rel);
	char	   *name = get_namespace_name(namespace);

	if (!has_privilege("SELECT has_schema_privilege($1, $2, 'USAGE')", owner,
					   namespace))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for schema %s", name),
				 errdetail("Owner %s of the pipeline needs USAGE on the schema of \"%s\".",
						   quoted_role(owner), RelationGetRelationName(rel)),
				 errhint("GRANT USAGE ON SCHEMA %s TO %s;",
						 quote_identifier(name), quoted_role(owner))));
}

static void
require_relation(Relation rel, Oid owner, AclMode mode, const char *privilege)
{
	if (pg_class_aclcheck(RelationGetRelid(rel), owner, mode) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s",
						RelationGetRelationName(rel)),
				 errdetail("Owner %s of the pipeline needs %s on it.",
						   quoted_role(owner), privilege),
				 errhint("GRANT %s ON TABLE %s TO %s;", privilege,
						 qualified_name(rel), quoted_role(owner))));
}

/* Lineage names each row by its primary key, which RETURNING reads. */
static void
require_key(Relation rel, Oid owner)
{
	Oid			relid = RelationGetRelid(rel);
	Bitmapset  *key;
	int			column = -1;

	if (pg_class_aclcheck(relid, owner, ACL_SELECT) == ACLCHECK_OK)
		return;
	key = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);
	while ((column = bms_next_member(key, column)) >= 0)
	{
		AttrNumber	attnum = column + FirstLowInvalidHeapAttributeNumber;
		char	   *name = get_attname(relid, attnum, false);

		if (pg_attribute_aclcheck(relid, attnum, owner, ACL_SELECT) == ACLCHECK_OK)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for column %s of table %s", name,
						RelationGetRelationName(rel)),
				 errdetail("Owner %s of the pipeline needs SELECT on the primary key of a target, by which lineage names its rows.",
						   quoted_role(owner)),
				 errhint("GRANT SELECT (%s) ON TABLE %s TO %s;",
						 quote_identifier(name), qualified_name(rel),
						 quoted_role(owner))));
	}
}

/*
 * Would a pipeline that writes target feed itself, at once or over other
 * pipelines?  Error 42P17 with the way round.  The caller holds the lock of
 * the graph (pipeline_id 0) exclusively, else two of them could close a
 * circle together.
 */
void
ppl_check_circle(const PplPipeline *pipeline, Oid target)
{
	PplSqlArg	args[] = {
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(pipeline->source)),
		ppl_sql_arg(OIDOID, ObjectIdGetDatum(target)),
		ppl_sql_arg_text(pipeline->name),
	};

	/*
	 * A row inserted into a partitioned table is an event of its partition,
	 * and one inserted into a partition an event of all above it.
	 */
	PplSqlResult *rows =
	ppl_sql_run("WITH RECURSIVE walk (relid, path, seen) AS ("
				" SELECT $2, format('%s -> %s (pipeline %I)',"
				"  $1::regclass, $2::regclass, $3), ARRAY[$2]"
				" UNION ALL"
				" SELECT o.target::oid, format('%s -> %s (pipeline %I)',"
				"  w.path, o.target, p.name), w.seen || o.target::oid"
				" FROM walk w"
				" JOIN " PPL_PIPELINES " p ON p.source = w.relid"
				"  OR p.source IN (SELECT t.relid FROM pg_partition_tree(w.relid) t)"
				"  OR p.source IN (SELECT a.relid FROM pg_partition_ancestors(w.relid) a)"
				" JOIN " PPL_OUTPUTS " o ON o.pipeline_id = p.pipeline_id"
				" WHERE o.target <> ALL (w.seen))"
				" SELECT w.path FROM walk w"
				" WHERE w.relid = $1"
				"  OR $1 IN (SELECT t.relid FROM pg_partition_tree(w.relid) t)"
				"  OR $1 IN (SELECT a.relid FROM pg_partition_ancestors(w.relid) a)"
				" ORDER BY cardinality(w.seen), w.path LIMIT 1",
				lengthof(args), args);

	if (rows->nrows == 0)
		return;
	if (target == pipeline->source)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("pipeline \"%s\" would write into its own source",
						pipeline->name),
				 errdetail("%s", ppl_sql_text(rows, 0, 0)),
				 errhint("Name another table as the target.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("pipeline \"%s\" would feed itself", pipeline->name),
			 errdetail("%s", ppl_sql_text(rows, 0, 0)),
			 errhint("Name another table as the target, or drop one of the outputs on the way.")));
}

/*
 * Do the stages and outputs of a definition still fit together, its outputs
 * their targets, and the source what is asked of it?  Errors: those of compiling
 * it.
 */
void
ppl_check_chain(const PplPipeline *pipeline)
{
	ListCell   *lc;

	foreach(lc, ppl_definition_segments(pipeline))
		ppl_compile_check(lfirst(lc));
}

/*
 * A function in language SQL that the planner cannot see through works, but
 * costs: say so, with the command that helps.
 */
void
ppl_check_inlining(const PplPipeline *pipeline, const char *signature)
{
	PplHandler *handler = ppl_handler_resolve(pipeline, signature);
	HeapTuple	tuple;
	Form_pg_proc proc;
	StringInfoData change;

	if (handler->inlinable)
		return;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(handler->oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", handler->oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prolang == SQLlanguageId)
	{
		initStringInfo(&change);
		if (proc->provolatile == PROVOLATILE_VOLATILE)
			appendStringInfoString(&change, " STABLE");
		if (proc->proisstrict)
			appendStringInfoString(&change, " CALLED ON NULL INPUT");
		if (proc->prosecdef)
			appendStringInfoString(&change, " SECURITY INVOKER");
		if (!heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL))
			appendStringInfoString(&change, " RESET ALL");

		ereport(NOTICE,
				(errmsg("function %s is not inlined into the statement of the pipeline",
						signature),
				 errdetail("It is called once an event, which costs about twice as much."),
				 change.len > 0 ?
				 errhint("ALTER FUNCTION %s%s;", signature, change.data) :
				 handler->retset || handler->result == NULL ?
				 errhint("Let its body be a single SELECT.") :
				 errhint("Declare it as RETURNS SETOF %s.",
						 format_type_be_qualified(handler->rettype))));
	}
	ReleaseSysCache(tuple);
}
