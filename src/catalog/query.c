/*-------------------------------------------------------------------------
 *
 * query.c
 *		Queries that are stages: check, and read another "event".
 *
 * A query sees the rows that reach its stage as the relation "event".  To
 * compile it, each such reference in its text is replaced by a subquery; the
 * rest of the text stays as its author wrote it.  Where the references are is
 * known from the raw parse tree, which also tells which of them mean a common
 * table expression of that name.  Runs in any backend and in workers, inside
 * a transaction; results are in CurrentMemoryContext.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "catalog/owner.h"
#include "catalog/query.h"

#define EVENT_NAME "event"

/* Names that the parser gives to columns without one. */
#define UNNAMED_COLUMN "?column?"

/* Walk over a raw parse tree in search of references to "event". */
typedef struct EventSearch
{
	bool		shadowed;		/* does "event" mean a CTE here? */
	List	   *found;			/* RangeVar * */
} EventSearch;

/* A query, what it is over another "event", and how positions map. */
typedef struct Rewrite
{
	const char *query;
	char	   *sql;
	int			start;			/* of the statement in query, in bytes */
	int			nedits;
	int		   *edit_at;		/* in query */
	int		   *edit_from;		/* bytes that it replaces */
	int		   *edit_to;		/* bytes that it puts there */
} Rewrite;

static void check_verdict(const PplShape *result);
static Rewrite *rewrite_query(const char *query, const char *event_subquery);
static RawStmt *parse_one(const char *query);
static bool is_change(const Node *node);
static bool find_events(Node *node, EventSearch *search);
static bool find_events_in_select(SelectStmt *select, EventSearch *search);
static bool is_table_command(const SelectStmt *select);
static bool is_event(const Node *node);
static void refuse_form(const char *form) pg_attribute_noreturn();
static void refuse_change(void) pg_attribute_noreturn();
static int	compare_location(const ListCell *a, const ListCell *b);
static int	reference_length(const char *written);
static char *null_event(const PplShape *input);
static PplShape *shape_of_targets(List *targets);
static void check_columns(const PplShape *result);
static void query_error_callback(void *arg);

/*
 * The text of a query without its final semicolon, with every reference to
 * "event" replaced by event_subquery, a SELECT in parentheses.  Errors: 42601
 * if it is not exactly one SELECT, 0A000 for what a stage cannot run.
 */
char *
ppl_query_over(const char *query, const char *event_subquery)
{
	return rewrite_query(query, event_subquery)->sql;
}

/*
 * Analyze the query of a stage over rows of this shape, with the rights and
 * the search_path of the pipeline; returns the rows that it makes, which for
 * a validation is one column.  Errors: those of ppl_query_over() and of parse
 * analysis, 42P16 for a column without a name or a usable type, 42701 for two
 * columns of one name, 42804 for a verdict that is none.
 */
PplShape *
ppl_query_shape(const PplPipeline *pipeline, const PplShape *input,
				const PplStage *stage)
{
	Rewrite    *rewrite;
	PplElevation saved;
	ErrorContextCallback callback;
	RawStmt    *raw;
	Query	   *analyzed;
	PplShape   *result;

	rewrite = rewrite_query(stage->query, null_event(input));
	callback.callback = query_error_callback;
	callback.arg = rewrite;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	ppl_owner_begin(&saved, pipeline->owner, pipeline->search_path);
	raw = linitial_node(RawStmt, raw_parser(rewrite->sql, RAW_PARSE_DEFAULT));
	analyzed = parse_analyze_fixedparams(raw, rewrite->sql, NULL, 0, NULL);
	ppl_owner_end(&saved);

	error_context_stack = callback.previous;
	result = shape_of_targets(analyzed->targetList);
	if (stage->kind == PPL_STAGE_VALIDATE)
		check_verdict(result);
	else
		check_columns(result);
	return result;
}

/*
 * A validation needs one value; nobody has to name it.
 */
static void
check_verdict(const PplShape *result)
{
	if (result->ncolumns != 1 ||
		(result->columns[0].type != BOOLOID &&
		 result->columns[0].type != TEXTOID))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 result->ncolumns == 1 ?
				 errmsg("query returns %s",
						format_type_be(result->columns[0].type)) :
				 errmsg("query returns %d columns", result->ncolumns),
				 errdetail("A stage of kind validate needs a query with one column of type boolean or text."),
				 errhint("Return true for a valid row, or null as text for a valid row and otherwise the reason.")));
}

/*
 * Replace the references to "event" in the text of a query.
 */
static Rewrite *
rewrite_query(const char *query, const char *event_subquery)
{
	Rewrite    *rewrite = palloc0(sizeof(*rewrite));
	EventSearch search = {false, NIL};
	StringInfoData buf;
	RawStmt    *raw;
	int			position;
	int			end;
	ListCell   *lc;

	rewrite->query = query;
	raw = parse_one(query);
	(void) find_events(raw->stmt, &search);
	list_sort(search.found, compare_location);

	rewrite->edit_at = palloc(mul_size(list_length(search.found) + 1, sizeof(int)));
	rewrite->edit_from = palloc(mul_size(list_length(search.found) + 1, sizeof(int)));
	rewrite->edit_to = palloc(mul_size(list_length(search.found) + 1, sizeof(int)));

	initStringInfo(&buf);
	position = raw->stmt_location;
	end = raw->stmt_len > 0 ? position + raw->stmt_len : strlen(query);
	rewrite->start = position;
	foreach(lc, search.found)
	{
		RangeVar   *reference = lfirst(lc);
		int			length = reference_length(query + reference->location);
		int			before;

		appendBinaryStringInfo(&buf, query + position,
							   reference->location - position);
		before = buf.len;
		appendStringInfoString(&buf, event_subquery);
		if (reference->alias == NULL)
			appendStringInfoString(&buf, " AS " EVENT_NAME);
		rewrite->edit_at[rewrite->nedits] = reference->location;
		rewrite->edit_from[rewrite->nedits] = length;
		rewrite->edit_to[rewrite->nedits] = buf.len - before;
		rewrite->nedits++;
		position = reference->location + length;
	}
	appendBinaryStringInfo(&buf, query + position, end - position);
	rewrite->sql = buf.data;
	return rewrite;
}

/*
 * Parse a query that must be one SELECT.
 */
static RawStmt *
parse_one(const char *query)
{
	Rewrite		unchanged = {query};
	ErrorContextCallback callback;
	List	   *parsed;
	RawStmt    *raw;

	callback.callback = query_error_callback;
	callback.arg = &unchanged;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	parsed = raw_parser(query, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;

	if (list_length(parsed) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a stage has %d statements",
						list_length(parsed)),
				 errdetail("It needs exactly one SELECT."),
				 errhint("Make each statement a stage of its own.")));
	raw = linitial_node(RawStmt, parsed);
	if (!IsA(raw->stmt, SelectStmt) && !is_change(raw->stmt))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the query of a stage is not a SELECT"),
				 errhint("Write a SELECT over the relation event.")));
	return raw;
}

/*
 * Is this a command that writes?  find_events() refuses it then.
 */
static bool
is_change(const Node *node)
{
	return IsA(node, InsertStmt) || IsA(node, UpdateStmt) ||
		IsA(node, DeleteStmt) || IsA(node, MergeStmt);
}

/*
 * Collect the references below node that mean the rows of the stage, and
 * refuse what a stage cannot run.  A raw_expression_tree_walker callback.
 */
static bool
find_events(Node *node, EventSearch *search)
{
	if (node == NULL)
		return false;
	if (is_change(node))
		refuse_change();

	switch (nodeTag(node))
	{
		case T_SelectStmt:
			return find_events_in_select((SelectStmt *) node, search);

		case T_RangeVar:
			if (is_event(node) && !search->shadowed)
			{
				if (!((RangeVar *) node)->inh)
					refuse_form("ONLY " EVENT_NAME);
				search->found = lappend(search->found, node);
			}
			return false;

		case T_RangeTableSample:
			if (is_event(((RangeTableSample *) node)->relation) &&
				!search->shadowed)
				refuse_form(EVENT_NAME " TABLESAMPLE");
			break;

		case T_LockingClause:
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the query of a stage must not lock rows"),
					 errhint("Leave out FOR UPDATE, FOR SHARE and their like.")));
			break;

		case T_IntoClause:
			refuse_change();
			break;

		default:
			break;
	}
	return raw_expression_tree_walker(node, find_events, search);
}

/*
 * The same for a SELECT, minding which parts of it see its own CTEs: a CTE
 * sees those before it, or with RECURSIVE all of them.
 */
static bool
find_events_in_select(SelectStmt *select, EventSearch *search)
{
	bool		shadowed = search->shadowed;
	WithClause *with = select->withClause;
	ListCell   *lc;

	if (with != NULL)
	{
		if (with->recursive)
		{
			foreach(lc, with->ctes)
			{
				if (strcmp(lfirst_node(CommonTableExpr, lc)->ctename,
						   EVENT_NAME) == 0)
					search->shadowed = true;
			}
		}
		foreach(lc, with->ctes)
		{
			CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

			(void) find_events(cte->ctequery, search);
			if (strcmp(cte->ctename, EVENT_NAME) == 0)
				search->shadowed = true;
		}
	}

	if (is_table_command(select) && is_event(linitial(select->fromClause)) &&
		!search->shadowed)
		refuse_form("TABLE " EVENT_NAME);

	select->withClause = NULL;
	(void) raw_expression_tree_walker((Node *) select, find_events, search);
	select->withClause = with;

	search->shadowed = shadowed;
	return false;
}

/*
 * TABLE x is parsed as SELECT * FROM x, with a star that is nowhere.
 */
static bool
is_table_command(const SelectStmt *select)
{
	return list_length(select->targetList) == 1 &&
		linitial_node(ResTarget, select->targetList)->location == -1 &&
		list_length(select->fromClause) == 1;
}

static bool
is_event(const Node *node)
{
	const RangeVar *relation = (const RangeVar *) node;

	return IsA(node, RangeVar) && relation->schemaname == NULL &&
		strcmp(relation->relname, EVENT_NAME) == 0;
}

static void
refuse_form(const char *form)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported in the query of a stage", form),
			 errhint("Write SELECT ... FROM event.")));
}

static void
refuse_change(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("the query of a stage must not change data"),
			 errhint("Add an output for each table that is to be written.")));
}

static int
compare_location(const ListCell *a, const ListCell *b)
{
	return lfirst_node(RangeVar, a)->location -
		lfirst_node(RangeVar, b)->location;
}

/*
 * Length of a reference as it was written: event or "event".
 */
static int
reference_length(const char *written)
{
	int			length = strlen(EVENT_NAME);

	if (written[0] == '"')
		return length + 2;
	if (pg_strncasecmp(written, EVENT_NAME, length) != 0)
		refuse_form("a name with Unicode escapes for " EVENT_NAME);
	return length;
}

/*
 * The rows of a shape as a subquery without rows behind it, for analysis.
 */
static char *
null_event(const PplShape *input)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "(SELECT");
	for (int i = 0; i < input->ncolumns; i++)
	{
		const PplColumn *column = &input->columns[i];

		appendStringInfo(&buf, "%s CAST(NULL AS %s) AS %s", i > 0 ? "," : "",
						 format_type_extended(column->type, column->typmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
											  FORMAT_TYPE_FORCE_QUALIFY),
						 quote_identifier(column->name));
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/*
 * The shape of what a query returns.
 */
static PplShape *
shape_of_targets(List *targets)
{
	PplShape   *shape = palloc0(sizeof(*shape));
	ListCell   *lc;

	shape->columns = palloc0(mul_size(list_length(targets) + 1,
									  sizeof(PplColumn)));
	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		PplColumn  *column = &shape->columns[shape->ncolumns];
		Node	   *value = (Node *) target->expr;

		if (target->resjunk)
			continue;
		column->name = pstrdup(target->resname);
		column->type = exprType(value);
		column->typmod = exprTypmod(value);
		column->collation = exprCollation(value);
		shape->ncolumns++;
	}
	return shape;
}

/*
 * Rows need columns that can be told apart and stored.
 */
static void
check_columns(const PplShape *result)
{
	for (int i = 0; i < result->ncolumns; i++)
	{
		const PplColumn *column = &result->columns[i];

		if (strcmp(column->name, UNNAMED_COLUMN) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("column %d of the query has no name", i + 1),
					 errhint("Name it with AS.")));
		if (ppl_shape_column(result, column->name) != column)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("the query has two columns \"%s\"", column->name),
					 errhint("Name one of them differently with AS, or list the columns instead of using a star.")));
		if (get_typtype(column->type) == TYPTYPE_PSEUDO)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("column \"%s\" of the query has pseudo-type %s",
							column->name, format_type_be(column->type)),
					 errhint("Cast it to the type that it should have.")));
	}
}

/*
 * Show an error where it is in the text that the user wrote.
 */
static void
query_error_callback(void *arg)
{
	const Rewrite *rewrite = arg;
	int			position = geterrposition();
	int			offset;

	if (position <= 0)
		return;

	/* characters from 1 to bytes from 0 */
	if (rewrite->sql != NULL)
	{
		offset = rewrite->start +
			pg_mbcharcliplen(rewrite->sql, strlen(rewrite->sql), position - 1);
		for (int i = 0; i < rewrite->nedits; i++)
		{
			if (offset <= rewrite->edit_at[i])
				break;
			if (offset < rewrite->edit_at[i] + rewrite->edit_to[i])
			{
				offset = rewrite->edit_at[i];
				break;
			}
			offset += rewrite->edit_from[i] - rewrite->edit_to[i];
		}
		position = pg_mbstrlen_with_len(rewrite->query, offset) + 1;
	}
	errposition(0);
	internalerrposition(position);
	internalerrquery(rewrite->query);
}
