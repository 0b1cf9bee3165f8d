/*-------------------------------------------------------------------------
 *
 * handler.c
 *		Functions that are stages or transforms: look up, check, call.
 *
 * A definition stores the signature of a handler as text, all of it
 * qualified, because an OID would not survive pg_upgrade.  Whether the
 * planner will see through a handler is asked of the planner itself, so the
 * answer follows its rules in every release.  Runs in any backend and in
 * workers, inside a transaction; results are in CurrentMemoryContext.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "catalog/handler.h"
#include "catalog/names.h"
#include "catalog/owner.h"

/* What is being looked up, for errors. */
typedef struct Lookup
{
	const char *signature;
	const char *role;			/* quoted */
} Lookup;

static Oid	find_renamed(const PplPipeline *pipeline, const char *signature);
static void lookup_callback(void *arg);
static void check_form(const PplHandler *handler, Form_pg_proc proc);
static bool is_event_type(Oid type);
static void check_privilege(const PplHandler *handler, Oid owner);
static PplShape *result_shape(Oid funcid, Oid rettype);
static bool is_inlinable(const PplPipeline *pipeline,
						 const PplHandler *handler, Form_pg_proc proc);
static Node *sample_argument(Oid argtype);
static Node *sample_event(Oid type);
static void refuse_input(const PplHandler *handler, const PplShape *input,
						 const char *column, const char *current,
						 const char *needed) pg_attribute_noreturn();

/*
 * The handler with this stored signature, as pipeline's owner may call it.
 * Errors: 42883 if there is none, 42809 if it is not a plain function, 42P13
 * if it takes anything but the row and the event, 42804 if it takes no row,
 * 42501 if the owner may not call it, and what analysis of its body throws if
 * it is in language SQL.
 */
PplHandler *
ppl_handler_resolve(const PplPipeline *pipeline, const char *signature)
{
	PplHandler *handler = palloc0(sizeof(*handler));
	HeapTuple	tuple;
	Form_pg_proc proc;

	handler->oid = ppl_handler_find(pipeline, signature);
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(handler->oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", handler->oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);

	handler->signature = format_procedure_qualified(handler->oid);
	handler->call_name =
		quote_qualified_identifier(get_namespace_name(proc->pronamespace),
								   NameStr(proc->proname));
	check_form(handler, proc);
	handler->argtype = proc->proargtypes.values[0];
	handler->takes_event = proc->pronargs == 2;
	handler->rettype = proc->prorettype;
	handler->retset = proc->proretset;
	check_privilege(handler, pipeline->owner);
	handler->result = result_shape(handler->oid, handler->rettype);
	handler->inlinable = is_inlinable(pipeline, handler, proc);

	ReleaseSysCache(tuple);
	return handler;
}

/*
 * Check that a handler takes these rows: their own type, or one with columns
 * of the same names and types in any order.  Error 42804 names the column.
 */
void
ppl_handler_check_input(const PplHandler *handler, const PplShape *input)
{
	PplShape   *needed;

	if (handler->argtype == input->rowtype)
		return;

	needed = ppl_shape_of_type(handler->argtype);
	for (int i = 0; i < needed->ncolumns; i++)
	{
		const PplColumn *want = &needed->columns[i];
		const PplColumn *have = ppl_shape_column(input, want->name);
		char	   *want_type = format_type_with_typemod(want->type,
														 want->typmod);

		if (have == NULL)
			refuse_input(handler, input, want->name, "no such column",
						 psprintf("type %s", want_type));

		/* a cast to a shorter type would cut values without a word */
		if (have->type != want->type ||
			(want->typmod != have->typmod && want->typmod != -1))
			refuse_input(handler, input, want->name,
						 psprintf("type %s",
								  format_type_with_typemod(have->type,
														   have->typmod)),
						 psprintf("type %s", want_type));
	}
	for (int i = 0; i < input->ncolumns; i++)
	{
		const PplColumn *have = &input->columns[i];

		if (ppl_shape_column(needed, have->name) == NULL)
			refuse_input(handler, input, have->name,
						 psprintf("type %s",
								  format_type_with_typemod(have->type,
														   have->typmod)),
						 "no such column");
	}
}

/*
 * Check that a handler returns what its kind of stage needs, else 42804.
 */
void
ppl_handler_check_result(const PplHandler *handler, PplStageKind kind)
{
	const char *returns = psprintf("%s%s", handler->retset ? "SETOF " : "",
								   format_type_be(handler->rettype));

	if (kind == PPL_STAGE_VALIDATE)
	{
		if (handler->retset ||
			(handler->rettype != BOOLOID && handler->rettype != TEXTOID))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("handler %s returns %s", handler->signature, returns),
					 errdetail("A stage of kind validate needs a handler that returns boolean or text."),
					 errhint("Return true for a valid row, or null as text for a valid row and otherwise the reason.")));
	}
	else if (handler->result == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("handler %s returns %s", handler->signature, returns),
				 errdetail("An enrichment or a transform needs a handler that returns rows of a composite type."),
				 errhint("Declare it as RETURNS SETOF with a composite type or the name of a table.")));
}

/*
 * OID of the function, looked up with the owner's rights.  Error 42883 if there is
 * none.
 */
Oid
ppl_handler_find(const PplPipeline *pipeline, const char *signature)
{
	PplElevation saved;
	Lookup		lookup;
	ErrorContextCallback callback;
	Oid			funcid;

	lookup.signature = signature;
	lookup.role = quote_identifier(GetUserNameFromId(pipeline->owner, false));
	callback.callback = lookup_callback;
	callback.arg = &lookup;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	ppl_owner_begin(&saved, pipeline->owner, "pg_catalog");
	funcid = find_renamed(pipeline, signature);
	if (!OidIsValid(funcid))
		funcid = DatumGetObjectId(DirectFunctionCall1(regprocedurein,
													  CStringGetDatum(signature)));
	ppl_owner_end(&saved);

	if (!OidIsValid(funcid) || !SearchSysCacheExists1(PROCOID, funcid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function \"%s\" does not exist", signature)));

	error_context_stack = callback.previous;
	return funcid;
}

/* Length of what stands before one of these characters, outside of quotes. */
static size_t
length_before(const char *string, const char *stops)
{
	bool		quoted = false;
	size_t		len = 0;

	for (; string[len] != '\0'; len++)
	{
		if (string[len] == '"')
			quoted = !quoted;
		else if (!quoted && strchr(stops, string[len]) != NULL)
			break;
	}
	return len;
}

/*
 * A function over the row type of the source, when that has another name since
 * the signature was stored; InvalidOid if this is not so.
 */
static Oid
find_renamed(const PplPipeline *pipeline, const char *signature)
{
	size_t		name_len = length_before(signature, "(");
	const char *type = signature[name_len] ? signature + name_len + 1 : "";
	size_t		type_len = length_before(type, ",)");
	Oid			rowtype = get_rel_type_id(pipeline->origin);
	FuncCandidateList candidates;
	Oid			typid;
	int32		typmod;

	if (type_len == 0 || !OidIsValid(rowtype))
		return InvalidOid;
	parseTypeString(pnstrdup(type, type_len), &typid, &typmod, true);
	if (OidIsValid(typid))
		return InvalidOid;
	candidates = FuncnameGetCandidates(stringToQualifiedNameList(pnstrdup(signature, name_len)),
									   -1, NIL, false, false, false, true);
	for (; candidates != NULL; candidates = candidates->next)
	{
		if (candidates->nargs > 0 && candidates->args[0] == rowtype)
			return candidates->oid;
	}
	return InvalidOid;
}

/*
 * Whatever part of a signature is missing, to us the function is.
 */
static void
lookup_callback(void *arg)
{
	const Lookup *lookup = arg;

	switch (geterrcode())
	{
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_UNDEFINED_OBJECT:
		case ERRCODE_UNDEFINED_SCHEMA:
			errcode(ERRCODE_UNDEFINED_FUNCTION);
			errhint("Create the function, or name another one.");
			errcontext("handler %s", lookup->signature);
			break;
		case ERRCODE_INSUFFICIENT_PRIVILEGE:
			errhint("GRANT USAGE ON SCHEMA ... TO %s;", lookup->role);
			errcontext("handler %s", lookup->signature);
			break;
	}
}

/*
 * Check kind and arguments of a function.
 */
static void
check_form(const PplHandler *handler, Form_pg_proc proc)
{
	Oid			argtype;

	if (proc->prokind != PROKIND_FUNCTION)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("handler %s is not a plain function",
						handler->signature),
				 errhint("Procedures, aggregates and window functions cannot be handlers.")));

	if (proc->pronargs != 1 &&
		!(proc->pronargs == 2 && is_event_type(proc->proargtypes.values[1])))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 proc->pronargs == 2 ?
				 errmsg("handler %s takes type %s as a second argument",
						handler->signature,
						format_type_be(proc->proargtypes.values[1])) :
				 errmsg("handler %s takes %d arguments",
						handler->signature, proc->pronargs),
				 errdetail("A handler takes one argument, the row, and maybe a second one of type pipeline.event."),
				 errhint("Declare it with the row as its only argument, or with the row and pipeline.event.")));

	argtype = proc->proargtypes.values[0];
	if (get_typtype(argtype) != TYPTYPE_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("handler %s takes type %s", handler->signature,
						format_type_be(argtype)),
				 errdetail("The first argument of a handler is of a composite type, the row."),
				 errhint("Declare it with the row type of the source or of the stage before as its argument.")));
}

/*
 * Is this pipeline.event?
 */
static bool
is_event_type(Oid type)
{
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;
	bool		result;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_type) GETSTRUCT(tuple);
	result = strcmp(NameStr(form->typname), "event") == 0 &&
		form->typnamespace == get_namespace_oid(PPL_SCHEMA, true);
	ReleaseSysCache(tuple);
	return result;
}

/*
 * The owner calls the function.  That it may use the schema was seen when the
 * function was looked up.
 */
static void
check_privilege(const PplHandler *handler, Oid owner)
{
	const char *role = quote_identifier(GetUserNameFromId(owner, false));

	if (!DatumGetBool(DirectFunctionCall3(has_function_privilege_id_id,
										  ObjectIdGetDatum(owner),
										  ObjectIdGetDatum(handler->oid),
										  CStringGetTextDatum("EXECUTE"))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of the pipeline may not execute handler %s",
						handler->signature),
				 errhint("GRANT EXECUTE ON FUNCTION %s TO %s;",
						 handler->signature, role)));
}

/*
 * The rows that a function returns; NULL if it returns scalars, or records
 * whose columns only the call would tell.
 */
static PplShape *
result_shape(Oid funcid, Oid rettype)
{
	Oid			restype;
	TupleDesc	desc;

	switch (get_func_result_type(funcid, &restype, &desc))
	{
		case TYPEFUNC_COMPOSITE:
			return ppl_shape_of_desc(desc, rettype == RECORDOID ?
									 InvalidOid : rettype);
		case TYPEFUNC_COMPOSITE_DOMAIN:
			return ppl_shape_of_type(rettype);
		case TYPEFUNC_SCALAR:
		case TYPEFUNC_RECORD:
		case TYPEFUNC_OTHER:
			return NULL;
	}
	return NULL;
}

/*
 * Would the planner put the body in the place of the call?  Ask it: the call
 * is built as the compiled statement has it, with parameters for columns, and
 * given to the very functions that decide it (optimizer/util/clauses.c).
 */
static bool
is_inlinable(const PplPipeline *pipeline, const PplHandler *handler,
			 Form_pg_proc proc)
{
	PplElevation saved;
	List	   *arguments;
	FuncExpr   *call;
	bool		result;

	if (proc->prolang != SQLlanguageId)
		return false;

	arguments = list_make1(sample_argument(handler->argtype));
	if (handler->takes_event)
		arguments = lappend(arguments, sample_event(proc->proargtypes.values[1]));
	call = makeFuncExpr(handler->oid, handler->rettype, arguments,
						get_typcollation(handler->rettype), InvalidOid,
						COERCE_EXPLICIT_CALL);
	call->funcretset = handler->retset;

	ppl_owner_begin(&saved, pipeline->owner, pipeline->search_path);
	if (handler->retset)
	{
		PlannerInfo *root = makeNode(PlannerInfo);
		RangeTblEntry *rte = makeNode(RangeTblEntry);
		RangeTblFunction *function = makeNode(RangeTblFunction);

		root->glob = makeNode(PlannerGlobal);
		function->funcexpr = (Node *) call;
		rte->rtekind = RTE_FUNCTION;
		rte->functions = list_make1(function);
		result = inline_set_returning_function(root, rte) != NULL;
	}
	else
	{
		Node	   *node = eval_const_expressions(NULL, (Node *) call);

		result = !IsA(node, FuncExpr) ||
			((FuncExpr *) node)->funcid != handler->oid;
	}
	ppl_owner_end(&saved);
	return result;
}

/*
 * ROW($1, ...)::argtype, which the planner can take apart but not compute.
 */
static Node *
sample_argument(Oid argtype)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(argtype, -1);
	RowExpr    *row = makeNode(RowExpr);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Param	   *param;

		if (att->attisdropped)
		{
			row->args = lappend(row->args,
								makeNullConst(INT4OID, -1, InvalidOid));
			continue;
		}
		param = makeNode(Param);
		param->paramkind = PARAM_EXTERN;
		param->paramid = i + 1;
		param->paramtype = att->atttypid;
		param->paramtypmod = att->atttypmod;
		param->paramcollid = att->attcollation;
		param->location = -1;
		row->args = lappend(row->args, param);
	}
	ReleaseTupleDesc(desc);

	row->row_typeid = argtype;
	row->row_format = COERCE_EXPLICIT_CAST;
	row->location = -1;
	return (Node *) row;
}

/*
 * pipeline._event($1), the second argument.
 */
static Node *
sample_event(Oid type)
{
	Oid			argtypes[] = {INT4OID};
	Oid			funcid =
	LookupFuncName(list_make2(makeString(PPL_SCHEMA),
							  makeString("_event")),
				   lengthof(argtypes), argtypes, false);
	Param	   *ordinal = makeNode(Param);

	ordinal->paramkind = PARAM_EXTERN;
	ordinal->paramid = 1;
	ordinal->paramtype = INT4OID;
	ordinal->paramtypmod = -1;
	ordinal->location = -1;
	return (Node *) makeFuncExpr(funcid, type, list_make1(ordinal), InvalidOid,
								 InvalidOid, COERCE_EXPLICIT_CALL);
}

static void
refuse_input(const PplHandler *handler, const PplShape *input,
			 const char *column, const char *current, const char *needed)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("handler %s does not accept column \"%s\" of the rows that reach it",
					handler->signature, column),
			 errdetail("In the rows: %s; in the argument of type %s: %s.",
					   current, format_type_be_qualified(handler->argtype),
					   needed),
			 errhint("Declare the argument as %s, or let the stage before return %s.",
					 OidIsValid(input->rowtype) ? ppl_shape_describe(input) :
					 psprintf("a composite type %s", ppl_shape_describe(input)),
					 format_type_be_qualified(handler->argtype))));
}
