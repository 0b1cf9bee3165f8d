/*-------------------------------------------------------------------------
 *
 * target.c
 *		Tables that outputs write: which columns, which key, which checks.
 *
 * Rows find the columns of their target by name.  What would fail for every
 * row is an error here, when the output is added and when a worker compiles
 * it, and not for each event on its own.  Runs in any backend and in workers,
 * inside a transaction, whose end releases the share lock on the target;
 * results are in CurrentMemoryContext.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/parse_coerce.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/prs2lock.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/adopt.h"
#include "catalog/own.h"
#include "catalog/source.h"
#include "catalog/target.h"

static void output_callback(void *arg);
static PplTarget *resolve(const PplPipeline *pipeline, const PplShape *row,
						  const PplOutput *output);
static void check_relation(Relation rel, bool upsert);
static void map_columns(PplTarget *target, Relation rel, const PplShape *row);
static Form_pg_attribute find_attribute(Relation rel, const char *name);
static void check_assignment(const PplTarget *target, const PplColumn *column,
							 Form_pg_attribute att);
static void check_missing(const PplTarget *target, Relation rel,
						  const PplShape *row);
static bool rejects_null(Form_pg_attribute att);
static void find_key(PplTarget *target, Relation rel);
static void find_upsert_key(PplTarget *target, Relation rel,
							const PplOutput *output);
static char *quoted_list(List *names);
static void find_updates(PplTarget *target, Relation rel);
static void check_privileges(const PplTarget *target, Relation rel, Oid owner);
static bool may(Oid owner, Relation rel, int ncolumns, char **columns,
				const char *privilege);

/*
 * How rows of this shape go into the target of an output.  Errors: 42P01 if
 * the target is gone, 42809 and 0A000 if it cannot be one, 42703 for a column
 * that it lacks, 42804 for one of another type, 42P16 for one that must be
 * filled and is not, 42501 if the pipeline's owner may not write it.
 */
PplTarget *
ppl_target_resolve(const PplPipeline *pipeline, const PplShape *row,
				   const PplOutput *output)
{
	ErrorContextCallback callback;
	PplTarget  *target;

	callback.callback = output_callback;
	callback.arg = unconstify(PplOutput *, output);
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	target = resolve(pipeline, row, output);
	error_context_stack = callback.previous;
	return target;
}

static void
output_callback(void *arg)
{
	const PplOutput *output = arg;

	errcontext("output \"%s\"", output->name);
}

static PplTarget *
resolve(const PplPipeline *pipeline, const PplShape *row,
		const PplOutput *output)
{
	PplTarget  *target = palloc0(sizeof(*target));
	Relation	rel = try_relation_open(output->target, AccessShareLock);

	if (rel == NULL)
		ppl_adopt_refuse(pipeline, output);

	target->qualified_name =
		quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
								   RelationGetRelationName(rel));
	check_relation(rel, output->upsert);
	map_columns(target, rel, row);
	check_missing(target, rel, row);
	if (output->upsert)
	{
		find_upsert_key(target, rel, output);
		find_updates(target, rel);
	}
	else
		find_key(target, rel);
	target->partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	target->plain = ppl_own_is_plain(rel, target, row);
	check_privileges(target, rel, pipeline->owner);

	relation_close(rel, NoLock);
	return target;
}

/*
 * Check that a relation can be written by INSERT ... RETURNING from a worker, and
 * for an upsert by UPDATE and DELETE.
 */
static void
check_relation(Relation rel, bool upsert)
{
	const char *name = RelationGetRelationName(rel);
	bool		is_stream = ppl_source_is_stream(rel);

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE && !is_stream)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("target \"%s\" is not a table", name),
				 errhint("Name an ordinary or a partitioned table, or a stream.")));
	if (is_stream && upsert)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("target \"%s\" of mode upsert is a stream", name),
				 errdetail("Rows of a stream are events, and cannot be replaced."),
				 errhint("Give the output mode => 'append'.")));

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("target \"%s\" is a temporary table", name),
				 errdetail("The process that runs a pipeline cannot see it."),
				 errhint("Create it without TEMPORARY.")));

	for (int i = 0; rel->rd_rules != NULL && i < rel->rd_rules->numLocks; i++)
	{
		if (rel->rd_rules->rules[i]->event == CMD_INSERT || upsert)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 rel->rd_rules->rules[i]->event == CMD_INSERT ?
					 errmsg("target \"%s\" has a rule on INSERT", name) :
					 errmsg("target \"%s\" of mode upsert has a rule", name),
					 errhint("Replace the rule with a trigger.")));
	}
}

/*
 * Give each column of the rows its place in the target.
 */
static void
map_columns(PplTarget *target, Relation rel, const PplShape *row)
{
	target->columns = palloc(mul_size(row->ncolumns + 1, sizeof(char *)));
	for (int i = 0; i < row->ncolumns; i++)
	{
		const PplColumn *column = &row->columns[i];
		Form_pg_attribute att = find_attribute(rel, column->name);

		if (att == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("target %s has no column \"%s\"",
							target->qualified_name, column->name),
					 errdetail("The rows for it are %s.",
							   ppl_shape_describe(row)),
					 errhint("ALTER TABLE %s ADD COLUMN %s %s; or give the output a transform without this column.",
							 target->qualified_name,
							 quote_identifier(column->name),
							 format_type_extended(column->type, column->typmod,
												  FORMAT_TYPE_TYPEMOD_GIVEN |
												  FORMAT_TYPE_FORCE_QUALIFY))));

		/* the table computes it, as for every INSERT */
		if (att->attgenerated != '\0')
			continue;

		check_assignment(target, column, att);
		if (att->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			target->overriding = true;
		target->columns[target->ncolumns++] = pstrdup(column->name);
	}
}

/*
 * The column of this name that is not dropped, or NULL.
 */
static Form_pg_attribute
find_attribute(Relation rel, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att;
	}
	return NULL;
}

/*
 * Check that a column of the rows can be assigned to one of the target.
 */
static void
check_assignment(const PplTarget *target, const PplColumn *column,
				 Form_pg_attribute att)
{
	Oid			from = column->type;
	Oid			to = att->atttypid;

	if (!can_coerce_type(1, &from, &to, COERCION_ASSIGNMENT))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of target %s is of type %s but the rows have type %s",
						column->name, target->qualified_name,
						format_type_be(to), format_type_be(from)),
				 errhint("Cast it in a transform of the output.")));
}

/*
 * Check that columns of the target that the rows lack can do without.
 */
static void
check_missing(const PplTarget *target, Relation rel, const PplShape *row)
{
	TupleDesc	desc = RelationGetDescr(rel);

	/* a trigger may fill what neither the rows nor a default do */
	if (rel->trigdesc != NULL && rel->trigdesc->trig_insert_before_row)
		return;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || att->attgenerated != '\0' ||
			att->attidentity != '\0' || !rejects_null(att) ||
			ppl_shape_column(row, NameStr(att->attname)) != NULL ||
			build_column_default(rel, i + 1) != NULL)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("column \"%s\" of target %s would be null",
						NameStr(att->attname), target->qualified_name),
				 errdetail("It is not null and has no default, and the rows are %s.",
						   ppl_shape_describe(row)),
				 errhint("Give the output a transform that fills the column, or the column a default.")));
	}
}

/*
 * Does a column refuse nulls, by itself or by its domain?
 */
static bool
rejects_null(Form_pg_attribute att)
{
	Oid			type = att->atttypid;
	bool		notnull = att->attnotnull;

	while (!notnull && get_typtype(type) == TYPTYPE_DOMAIN)
	{
		HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
		Form_pg_type form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for type %u", type);
		form = (Form_pg_type) GETSTRUCT(tuple);
		notnull = form->typnotnull;
		type = form->typbasetype;
		ReleaseSysCache(tuple);
	}
	return notnull;
}

/*
 * The columns of the primary key, in the order of the table's columns.
 */
static void
find_key(PplTarget *target, Relation rel)
{
	Oid			constraint;
	Bitmapset  *key = get_primary_key_attnos(RelationGetRelid(rel), true,
											 &constraint);
	int			member = -1;

	target->keys = palloc(mul_size(bms_num_members(key) + 1, sizeof(char *)));
	target->key_types = palloc(mul_size(bms_num_members(key) + 1, sizeof(Oid)));
	while ((member = bms_next_member(key, member)) >= 0)
	{
		int			attnum = member + FirstLowInvalidHeapAttributeNumber;
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);

		target->keys[target->nkeys] = pstrdup(NameStr(att->attname));
		target->key_types[target->nkeys] = att->atttypid;
		target->nkeys++;
	}
}

/*
 * The columns by which an upsert finds rows.
 */
static void
find_upsert_key(PplTarget *target, Relation rel, const PplOutput *output)
{
	PplKey	   *key = ppl_key_of_target(rel, output->key);

	if (key == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 output->key == NIL ?
				 errmsg("target %s has no primary key", target->qualified_name) :
				 errmsg("target %s has no unique index on the key of the output",
						target->qualified_name),
				 errdetail("An output of mode upsert finds rows by a unique index that is not deferrable, has no WHERE clause, and whose columns are NOT NULL or NULLS NOT DISTINCT."),
				 output->key == NIL ?
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (...); or give the output a key, or mode => 'append'.",
						 target->qualified_name) :
				 errhint("CREATE UNIQUE INDEX ON %s (%s);",
						 target->qualified_name, quoted_list(output->key))));

	target->upsert = key;
	target->nkeys = key->ncolumns;
	target->keys = palloc(key->ncolumns * sizeof(char *));
	target->key_types = palloc(key->ncolumns * sizeof(Oid));
	for (int i = 0; i < key->ncolumns; i++)
	{
		bool		filled = false;

		for (int j = 0; j < target->ncolumns; j++)
			filled |= strcmp(target->columns[j], key->columns[i].name) == 0;
		if (!filled)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("the rows for target %s do not fill key column \"%s\"",
							target->qualified_name, key->columns[i].name),
					 errhint("Give the output a transform that fills the column, or another key.")));
		target->keys[i] = key->columns[i].name;
		target->key_types[i] = key->columns[i].type;
	}
}

/* "a, b" for names of columns. */
static char *
quoted_list(List *names)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, names)
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "",
						 quote_identifier(lfirst(lc)));
	return buf.data;
}

/*
 * The columns that an upsert sets: all that the rows fill, the key too, as equal
 * values may look different.  One that is GENERATED ALWAYS cannot be set; in the
 * key that does no harm.
 */
static void
find_updates(PplTarget *target, Relation rel)
{
	target->updates = palloc(mul_size(target->ncolumns + 1, sizeof(char *)));
	for (int i = 0; i < target->ncolumns; i++)
	{
		char	   *name = target->columns[i];

		if (find_attribute(rel, name)->attidentity != ATTRIBUTE_IDENTITY_ALWAYS)
			target->updates[target->nupdates++] = name;
		else if (ppl_key_column(target->upsert, name) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_GENERATED_ALWAYS),
					 errmsg("column \"%s\" of target %s cannot be updated",
							name, target->qualified_name),
					 errdetail("It is an identity column GENERATED ALWAYS."),
					 errhint("ALTER TABLE %s ALTER COLUMN %s SET GENERATED BY DEFAULT;",
							 target->qualified_name, quote_identifier(name))));
	}
	if (target->nupdates == 0)
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("no column of target %s can be updated",
						target->qualified_name),
				 errhint("ALTER TABLE %s ALTER COLUMN %s SET GENERATED BY DEFAULT;",
						 target->qualified_name,
						 quote_identifier(target->columns[0]))));
}

/*
 * Can what a source row produced in an upsert output be told from its old row?
 * So it is where the row itself goes there, maybe after validations, under a key
 * that is a key of the source as well, all of which the replica identity has.
 * Otherwise it must be kept.
 */
bool
ppl_target_derives(const PplPipeline *pipeline, const PplOutput *output)
{
	Relation	source = relation_open(pipeline->source, AccessShareLock);
	Relation	rel = relation_open(output->target, AccessShareLock);
	PplKey	   *have = ppl_key_of_source(source);
	PplKey	   *want = ppl_key_of_target(rel, output->key);
	bool		full = source->rd_rel->relreplident == REPLICA_IDENTITY_FULL;
	bool		derives = output->transform == NULL && have && want;
	ListCell   *lc;

	foreach(lc, pipeline->stages)
		derives &= ((PplStage *) lfirst(lc))->kind == PPL_STAGE_VALIDATE;
	for (int i = 0; derives && i < have->ncolumns; i++)
		derives = ppl_key_column(want, have->columns[i].name) != NULL;
	for (int i = 0; derives && i < want->ncolumns; i++)
	{
		const PplKeyColumn *column = &want->columns[i];
		Form_pg_attribute att = find_attribute(source, column->name);

		derives = att != NULL && att->atttypid == column->type &&
			(att->atttypmod == column->typmod || column->typmod == -1) &&
			(full || ppl_key_column(have, column->name) != NULL);
	}
	relation_close(rel, NoLock);
	relation_close(source, NoLock);
	return derives;
}

/*
 * The owner inserts, and reads the key of what it inserted.
 */
static void
check_privileges(const PplTarget *target, Relation rel, Oid owner)
{
	const char *role = quote_identifier(GetUserNameFromId(owner, false));
	Oid			namespace = RelationGetNamespace(rel);

	if (!DatumGetBool(DirectFunctionCall3(has_schema_privilege_id_id,
										  ObjectIdGetDatum(owner),
										  ObjectIdGetDatum(namespace),
										  CStringGetTextDatum("USAGE"))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the pipeline may not use the schema of target %s",
						target->qualified_name),
				 errhint("GRANT USAGE ON SCHEMA %s TO %s;",
						 quote_identifier(get_namespace_name(namespace)), role)));

	if (!may(owner, rel, target->ncolumns, target->columns, "INSERT"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the pipeline may not insert into target %s",
						target->qualified_name),
				 errhint("GRANT INSERT ON %s TO %s;",
						 target->qualified_name, role)));

	if (target->upsert != NULL &&
		!may(owner, rel, target->nupdates, target->updates, "UPDATE"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the pipeline may not update target %s",
						target->qualified_name),
				 errdetail("An output of mode upsert replaces rows."),
				 errhint("GRANT UPDATE ON %s TO %s;",
						 target->qualified_name, role)));

	if (target->upsert != NULL && !may(owner, rel, 0, NULL, "DELETE"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the pipeline may not delete from target %s",
						target->qualified_name),
				 errdetail("An output of mode upsert removes rows."),
				 errhint("GRANT DELETE ON %s TO %s;",
						 target->qualified_name, role)));

	if (target->upsert != NULL &&
		!may(owner, rel, target->ncolumns, target->columns, "SELECT"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the pipeline may not read target %s",
						target->qualified_name),
				 errdetail("An output of mode upsert looks for rows of the same key."),
				 errhint("GRANT SELECT ON %s TO %s;",
						 target->qualified_name, role)));

	if (target->nkeys > 0 &&
		!may(owner, rel, target->nkeys, target->keys, "SELECT"))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the pipeline may not read the key of target %s",
						target->qualified_name),
				 errdetail("Lineage records the keys of the rows that were written."),
				 errhint("GRANT SELECT ON %s TO %s;",
						 target->qualified_name, role)));
}

/*
 * Does the owner have a privilege on the table, or on all of these columns?
 */
static bool
may(Oid owner, Relation rel, int ncolumns, char **columns,
	const char *privilege)
{
	Datum		role = ObjectIdGetDatum(owner);
	Datum		relid = ObjectIdGetDatum(RelationGetRelid(rel));
	Datum		what = CStringGetTextDatum(privilege);

	if (DatumGetBool(DirectFunctionCall3(has_table_privilege_id_id, role,
										 relid, what)))
		return true;
	for (int i = 0; i < ncolumns; i++)
	{
		AttrNumber	attnum = find_attribute(rel, columns[i])->attnum;

		if (!DatumGetBool(DirectFunctionCall4(has_column_privilege_id_id_attnum,
											  role, relid,
											  Int16GetDatum(attnum), what)))
			return false;
	}
	return ncolumns > 0;
}
