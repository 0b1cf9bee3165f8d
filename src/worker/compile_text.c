/*
 * compile_text.c
 *		Pieces of the statement that a segment is compiled to.
 *
 * Pure text, from shapes and handlers.  Runs in workers and in backends that explain
 * a pipeline, inside a transaction.  Results are in CurrentMemoryContext.
 */
#include "postgres.h"

#include "base/compat.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/formatting.h"

#include "catalog/query.h"
#include "worker/compile_text.h"

/*
 * The call of a handler on a row, as ROW(...) of the type it takes, and the
 * event if it takes that, too.
 */
char *
ppl_text_call(const PplHandler *handler, const char *alias, const char *ordinal)
{
	PplShape   *argument = ppl_shape_of_type(handler->argtype);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s(ROW(", handler->call_name);
	for (int i = 0; i < argument->ncolumns; i++)
		appendStringInfo(&buf, "%s%s.%s", i > 0 ? ", " : "", alias,
						 quote_identifier(argument->columns[i].name));
	appendStringInfo(&buf, ")::%s",
					 format_type_be_qualified(handler->argtype));
	if (handler->takes_event)
		appendStringInfo(&buf, ", pipeline._event(%s.%s)", alias,
						 ordinal);
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/*
 * An alias for the rows that a query reads, which its text does not hold:
 * nothing that the query names may come between.
 */
char *
ppl_text_query_alias(const char *query)
{
	char	   *lower = asc_tolower(query, strlen(query));
	char	   *alias = pstrdup("_p");

	while (strstr(lower, alias) != NULL)
		alias = psprintf("%s_", alias);
	return alias;
}

/*
 * The text of a query over one row, that with this alias.
 */
char *
ppl_text_query(const char *query, const PplShape *input, const char *alias)
{
	StringInfoData event;

	initStringInfo(&event);
	appendStringInfoString(&event, "(SELECT");
	for (int i = 0; i < input->ncolumns; i++)
	{
		const char *column = quote_identifier(input->columns[i].name);

		appendStringInfo(&event, "%s %s.%s AS %s", i > 0 ? "," : "", alias,
						 column, column);
	}
	appendStringInfoChar(&event, ')');
	return ppl_query_over(query, event.data);
}

/*
 * ", alias.a, alias.b" for the columns of a shape.
 */
char *
ppl_text_columns(const char *alias, const PplShape *shape)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < shape->ncolumns; i++)
		appendStringInfo(&buf, ", %s.%s", alias,
						 quote_identifier(shape->columns[i].name));
	return buf.data;
}

/*
 * ", _t.a, _t.b" for the key columns of a target.
 */
char *
ppl_text_key(const PplTarget *target)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < target->nkeys; i++)
		appendStringInfo(&buf, ", _t.%s", quote_identifier(target->keys[i]));
	return buf.data;
}
