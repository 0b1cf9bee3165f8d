/*
 * args.c
 *		Arguments of SQL functions that must not be null.
 *
 * The functions for users are not STRICT: a command that silently does nothing
 * because an argument was null helps nobody.  Runs in the caller's backend;
 * results are in CurrentMemoryContext.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "api/args.h"

/*
 * Error 22004 if an argument is null.
 */
void
ppl_args_require(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", name)));
}

/*
 * A text argument as a new string.
 */
char *
ppl_args_text(FunctionCallInfo fcinfo, int argno, const char *name)
{
	ppl_args_require(fcinfo, argno, name);
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * A text argument as a new string, or NULL.
 */
char *
ppl_args_text_or_null(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return NULL;
	return text_to_cstring(PG_GETARG_TEXT_PP(argno));
}

/*
 * A boolean argument.
 */
bool
ppl_args_bool(FunctionCallInfo fcinfo, int argno, const char *name)
{
	ppl_args_require(fcinfo, argno, name);
	return PG_GETARG_BOOL(argno);
}

/*
 * An integer argument.
 */
int32
ppl_args_int(FunctionCallInfo fcinfo, int argno, const char *name)
{
	ppl_args_require(fcinfo, argno, name);
	return PG_GETARG_INT32(argno);
}

/*
 * An argument of type oid, regclass or the like.
 */
Oid
ppl_args_oid(FunctionCallInfo fcinfo, int argno, const char *name)
{
	ppl_args_require(fcinfo, argno, name);
	return PG_GETARG_OID(argno);
}

/*
 * The elements of a text[] argument as new strings; NIL if it is null or
 * empty.  Error 22004 if an element is null.
 */
List *
ppl_args_text_array(FunctionCallInfo fcinfo, int argno, const char *name)
{
	List	   *result = NIL;
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;

	if (PG_ARGISNULL(argno))
		return NIL;
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &nelements);
	for (int i = 0; i < nelements; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" must not contain nulls", name)));
		result = lappend(result, TextDatumGetCString(elements[i]));
	}
	return result;
}
