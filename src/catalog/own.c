/*
 * own.c
 *		Which rows of outputs can be marked, so that nobody takes them for events.
 *
 * While the mark is set (base/mark.h), nothing but the row of the target may be
 * written.  A target is plain if all that runs between is known: no trigger but
 * those that check, no rule, no row security, no partitions, and no function of
 * users in defaults, generated columns, constraints, indexes or casts.  What is
 * not known for sure is not plain; nothing is lost by that but some time of capture.
 * A change of any of it needs a lock on the target that conflicts with the one
 * which a batch has, or waits for its end (CREATE INDEX CONCURRENTLY).
 *
 * A target that is a source is never marked.  That it becomes one is kept away from
 * batches that mark by an object lock of its own, on the relation: share for the
 * batch, exclusive for the birth of a pipeline over it.
 *
 * Runs in any backend and in workers, inside a transaction.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/amapi.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "rewrite/prs2lock.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "catalog/names.h"
#include "catalog/own.h"
#include "catalog/sql.h"

static bool has_known_triggers(Relation rel);
static bool has_known_columns(Relation rel);
static bool has_known_casts(Relation rel, const PplTarget *target,
							const PplShape *row);
static bool has_known_constraints(Relation rel);
static bool has_known_indexes(Relation rel);
static bool is_known_index(Relation rel, Relation index);
static bool is_known_expression(const char *nodes);
static bool runs_unknown(Node *node, void *context);
static bool is_unknown_function(Oid function, void *context);
static bool is_built_in(Oid function);
static bool is_known_type(Oid type);

/*
 * Is it known that nothing but rows of the target is written while one of this
 * shape is?  Takes share locks on its indexes.
 */
bool
ppl_own_is_plain(Relation rel, const PplTarget *target, const PplShape *row)
{
	return rel->rd_rel->relkind == RELKIND_RELATION &&
		rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT &&
		rel->rd_rel->relam == HEAP_TABLE_AM_OID &&
		!rel->rd_rel->relispartition &&
		!rel->rd_rel->relrowsecurity &&
		rel->rd_rules == NULL &&
		has_known_triggers(rel) &&
		has_known_columns(rel) &&
		has_known_casts(rel, target, row) &&
		has_known_constraints(rel) &&
		has_known_indexes(rel);
}

/*
 * Is a pipeline declared over this table, started or not?  Elevates itself.
 */
bool
ppl_own_is_source(Oid relid)
{
	PplSqlArg	args[] = {ppl_sql_arg(OIDOID, ObjectIdGetDatum(relid))};

	return ppl_sql_bool(ppl_sql_run("SELECT EXISTS (SELECT FROM " PPL_PIPELINES
									" WHERE source = $1)",
									lengthof(args), args), 0, 0);
}

/*
 * Keep a target from becoming a source until the end of the transaction, if that
 * can be had at once.
 */
bool
ppl_own_try_lock(Oid relid)
{
	return ConditionalLockDatabaseObject(RelationRelationId, relid, 0,
										 AccessShareLock);
}

/*
 * Before a table becomes a source: wait for batches that mark rows of it, and keep
 * others from doing so until they can see that it is one.
 */
void
ppl_own_lock_source(Oid relid)
{
	LockDatabaseObject(RelationRelationId, relid, 0, AccessExclusiveLock);
}

/* Only triggers that check: of foreign keys and deferrable constraints. */
static bool
has_known_triggers(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (!trigger->tgisinternal)
			return false;
		switch (trigger->tgfoid)
		{
			case F_RI_FKEY_CHECK_INS:
			case F_RI_FKEY_CHECK_UPD:
			case F_RI_FKEY_NOACTION_DEL:
			case F_RI_FKEY_NOACTION_UPD:
			case F_RI_FKEY_RESTRICT_DEL:
			case F_RI_FKEY_RESTRICT_UPD:
			case F_UNIQUE_KEY_RECHECK:
				break;
			default:
				return false;
		}
	}
	return true;
}

/* No domains, which check what comes without a default, too. */
static bool
has_known_columns(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && get_typtype(att->atttypid) == TYPTYPE_DOMAIN)
			return false;
	}
	return true;
}

/*
 * Casts into the columns.  Those that are written by the system's own functions
 * are in the catalog from the beginning, so nobody can add others in their place.
 */
static bool
has_known_casts(Relation rel, const PplTarget *target, const PplShape *row)
{
	for (int i = 0; i < target->ncolumns; i++)
	{
		const PplColumn *column = ppl_shape_column(row, target->columns[i]);
		AttrNumber	attnum = get_attnum(RelationGetRelid(rel), target->columns[i]);
		Form_pg_attribute att;
		Oid			function = InvalidOid;

		if (column == NULL || attnum <= 0)
			return false;
		att = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
		if (column->type != att->atttypid)
		{
			Oid			cast = get_cast_oid(column->type, att->atttypid, true);

			if (!is_known_type(column->type) || !is_known_type(att->atttypid) ||
				!OidIsValid(cast) || cast >= FirstNormalObjectId)
				return false;
			switch (find_coercion_pathway(att->atttypid, column->type,
										  COERCION_ASSIGNMENT, &function))
			{
				case COERCION_PATH_RELABELTYPE:
					break;
				case COERCION_PATH_FUNC:
					if (is_built_in(function))
						break;
					return false;
				default:
					return false;
			}
		}
		if (att->atttypmod < 0)
			continue;
		switch (find_typmod_coercion_function(att->atttypid, &function))
		{
			case COERCION_PATH_NONE:
				break;
			case COERCION_PATH_FUNC:
				if (is_built_in(function))
					break;
				return false;
			default:
				return false;
		}
	}
	return true;
}

/* Defaults, generated columns and CHECK constraints. */
static bool
has_known_constraints(Relation rel)
{
	const TupleConstr *constr = RelationGetDescr(rel)->constr;

	if (constr == NULL)
		return true;
	for (int i = 0; i < constr->num_defval; i++)
	{
		if (!is_known_expression(constr->defval[i].adbin))
			return false;
	}
	for (int i = 0; i < constr->num_check; i++)
	{
		if (!is_known_expression(constr->check[i].ccbin))
			return false;
	}
	return true;
}

static bool
has_known_indexes(Relation rel)
{
	ListCell   *lc;
	bool		known = true;

	foreach(lc, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		known = is_known_index(rel, index);
		index_close(index, NoLock);
		if (!known)
			break;
	}
	return known;
}

/* Text of an attribute of pg_index, or NULL. */
static char *
index_text(Relation index, int attribute)
{
	bool		isnull;
	Datum		value = SysCacheGetAttr(INDEXRELID, index->rd_indextuple,
										attribute, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * Types, support functions and operators of the system.  Expressions are read
 * from the catalog: those in the relcache are simplified, so that functions may
 * be missing which run when that is made anew.
 */
static bool
is_known_index(Relation rel, Relation index)
{
	int			nkeys = IndexRelationGetNumberOfKeyAttributes(index);
	int			nprocs = nkeys * index->rd_indam->amsupport;
	char	   *nodes = index_text(index, Anum_pg_index_indexprs);

	if (index->rd_rel->relam >= FirstNormalObjectId ||
		!is_known_expression(nodes) ||
		!is_known_expression(index_text(index, Anum_pg_index_indpred)))
		return false;
	for (int i = 0; i < nprocs; i++)
	{
		if (OidIsValid(index->rd_support[i]) && !is_built_in(index->rd_support[i]))
			return false;
	}
	for (int i = 0; i < nkeys; i++)
	{
		AttrNumber	attnum = index->rd_index->indkey.values[i];

		/* of expressions, the types were looked at above */
		if (attnum != 0 &&
			(attnum < 0 ||
			 !is_known_type(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid)))
			return false;
	}
	if (index->rd_index->indisexclusion)
	{
		Oid		   *operators;
		Oid		   *procs;
		uint16	   *strategies;

		RelationGetExclusionInfo(index, &operators, &procs, &strategies);
		for (int i = 0; i < nkeys; i++)
		{
			if (!is_built_in(procs[i]))
				return false;
		}
	}
	return true;
}

/* An expression as it is stored, or none. */
static bool
is_known_expression(const char *nodes)
{
	Node	   *node = nodes ? stringToNode(nodes) : NULL;

	/* a value alone, of whatever type, is only copied */
	return node == NULL || IsA(node, Const) || !runs_unknown(node, NULL);
}

/* Does an expression run anything that is not known to write nothing? */
static bool
runs_unknown(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Const:
		case T_Var:
			return !is_known_type(exprType(node));
		case T_NextValueExpr:
		case T_SQLValueFunction:
			return false;
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			if (check_functions_in_node(node, is_unknown_function, NULL) ||
				!is_known_type(exprType(node)))
				return true;
			break;
		case T_ScalarArrayOpExpr:
			{
				ScalarArrayOpExpr *expr = (ScalarArrayOpExpr *) node;
				Node	   *array = lsecond(expr->args);

				/* its elements are compared, not the array */
				if (check_functions_in_node(node, is_unknown_function, NULL) ||
					runs_unknown(linitial(expr->args), context) ||
					!is_known_type(get_element_type(exprType(array))))
					return true;
				if (IsA(array, Const))
					return false;
				return !IsA(array, ArrayExpr) ||
					runs_unknown((Node *) ((ArrayExpr *) array)->elements, context);
			}
		case T_List:
		case T_BoolExpr:
		case T_RelabelType:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_NullTest:
		case T_BooleanTest:
			break;
		default:
			return true;
	}
	return expression_tree_walker(node, runs_unknown, context);
}

/*
 * Functions that are not immutable may run text as a query, or look up casts and
 * output functions; of these only some that are often used in defaults are known.
 */
static bool
is_unknown_function(Oid function, void *context)
{
	if (!is_built_in(function))
		return true;
	switch (function)
	{
		case F_NEXTVAL:
		case F_NOW:
		case F_TRANSACTION_TIMESTAMP:
		case F_STATEMENT_TIMESTAMP:
		case F_CLOCK_TIMESTAMP:
		case F_DATE_TIMESTAMPTZ:
		case F_TIMESTAMP_TIMESTAMPTZ:
		case F_RANDOM:
		case F_GEN_RANDOM_UUID:
			return false;
		case F_SATISFIES_HASH_PARTITION:
			/* calls the functions of any partitioned table */
			return true;
	}
	return func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

/* Of the system, and not replaced by somebody's own. */
static bool
is_built_in(Oid function)
{
	HeapTuple	tuple;
	bool		built_in;

	if (function >= FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	built_in = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == INTERNALlanguageId;
	ReleaseSysCache(tuple);
	return built_in;
}

/*
 * Types that bring no functions of users with them.  Arrays and composites use those
 * of what they are made of; a configuration of text search those of its
 * dictionaries.
 */
static bool
is_known_type(Oid type)
{
	switch (get_typtype(type))
	{
		case TYPTYPE_BASE:
			return type < FirstNormalObjectId && type != REGCONFIGOID &&
				type != REGDICTIONARYOID && !OidIsValid(get_element_type(type));
		case TYPTYPE_ENUM:
			return true;
		case TYPTYPE_RANGE:
		case TYPTYPE_MULTIRANGE:
			return type < FirstNormalObjectId;
		default:
			return false;
	}
}
