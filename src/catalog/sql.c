/*
 * sql.c
 *		Run our own constant SQL with the rights of the bootstrap superuser.
 *
 * Runs in any backend and in capture and workers, inside a transaction.  The
 * statements are constants of this extension: they name every relation with
 * its schema, take values as parameters only, and touch nothing but the
 * catalogs and the tables of schema _pipeline, which have no user code on
 * them.  So nobody else's code runs while the rights are raised.
 */
#include "postgres.h"
#include "base/compat.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "catalog/definition.h"
#include "catalog/sql.h"

#define PPL_SQL_MAX_ARGS 32
#define PPL_SQL_MAX_SAVED 128

/* A statement that this process has run before. */
typedef struct SavedStatement
{
	const char *constant;		/* address of the caller's literal */
	char	   *text;
	SPIPlanPtr	plan;
} SavedStatement;

/* Saved statements of this process. */
static struct
{
	int			count;
	SavedStatement statements[PPL_SQL_MAX_SAVED];
}			self;

static PplSqlResult *run(const char *sql, int nargs, const PplSqlArg *args,
						 bool read_only);
static SPIPlanPtr saved_plan(const char *sql, int nargs, Oid *types);
static PplSqlResult *copy_result(MemoryContext context);

/*
 * Become the bootstrap superuser, with search_path pinned.  pg_temp stands
 * last, or it would be searched first.
 */
void
ppl_elevate_begin(PplElevation *elevation)
{
	GetUserIdAndSecContext(&elevation->userid, &elevation->sec_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID,
						   elevation->sec_context |
						   SECURITY_LOCAL_USERID_CHANGE);
	elevation->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Back to what was before ppl_elevate_begin.
 */
void
ppl_elevate_end(const PplElevation *elevation)
{
	AtEOXact_GUC(false, elevation->guc_level);
	SetUserIdAndSecContext(elevation->userid, elevation->sec_context);
}

/*
 * Run one constant statement, which sees all that is committed by now (in
 * READ COMMITTED) and all that this transaction did.  The result lives in
 * CurrentMemoryContext.
 */
PplSqlResult *
ppl_sql_run(const char *sql, int nargs, const PplSqlArg *args)
{
	return run(sql, nargs, args, false);
}

/*
 * Run one constant query under the active snapshot.
 */
PplSqlResult *
ppl_sql_read(const char *sql, int nargs, const PplSqlArg *args)
{
	return run(sql, nargs, args, true);
}

static PplSqlResult *
run(const char *sql, int nargs, const PplSqlArg *args, bool read_only)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[PPL_SQL_MAX_ARGS];
	Datum		values[PPL_SQL_MAX_ARGS];
	char		nulls[PPL_SQL_MAX_ARGS];
	PplElevation elevation;
	PplSqlResult *result;
	int			code;

	Assert(nargs <= PPL_SQL_MAX_ARGS);
	for (int i = 0; i < nargs; i++)
	{
		types[i] = args[i].type;
		values[i] = args[i].value;
		nulls[i] = args[i].isnull ? 'n' : ' ';
	}

	ppl_elevate_begin(&elevation);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	code = SPI_execute_plan(saved_plan(sql, nargs, types), values, nulls,
							read_only, 0);
	if (code < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(code), sql);
	result = copy_result(context);
	SPI_finish();
	ppl_elevate_end(&elevation);
	return result;
}

/*
 * The plan of a statement, prepared at its first use in this process.  A
 * caller's literal has one address and one list of parameter types.
 */
static SPIPlanPtr
saved_plan(const char *sql, int nargs, Oid *types)
{
	SavedStatement *saved;
	SPIPlanPtr	plan;

	for (int i = 0; i < self.count; i++)
	{
		saved = &self.statements[i];
		if (saved->constant == sql && strcmp(saved->text, sql) == 0)
			return saved->plan;
	}
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		elog(ERROR, "%s: %s", SPI_result_code_string(SPI_result), sql);
	if (self.count < PPL_SQL_MAX_SAVED)
	{
		SPI_keepplan(plan);
		saved = &self.statements[self.count++];
		saved->constant = sql;
		saved->text = MemoryContextStrdup(TopMemoryContext, sql);
		saved->plan = plan;
	}
	return plan;
}

static PplSqlResult *
copy_result(MemoryContext context)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	PplSqlResult *result = palloc0(sizeof(*result));

	result->nrows = (int64) SPI_processed;
	if (SPI_tuptable != NULL && SPI_tuptable->numvals > 0)
	{
		TupleDesc	desc = SPI_tuptable->tupdesc;
		Size		ncells = mul_size(SPI_tuptable->numvals, desc->natts);

		result->ncolumns = desc->natts;
		result->values = palloc0(mul_size(ncells, sizeof(Datum)));
		result->nulls = palloc0(mul_size(ncells, sizeof(bool)));
		for (Size i = 0; i < ncells; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i % desc->natts);
			Datum		value = SPI_getbinval(SPI_tuptable->vals[i / desc->natts],
											  desc, att->attnum,
											  &result->nulls[i]);

			if (result->nulls[i])
				continue;
			if (att->attlen == -1)
				result->values[i] = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
			else
				result->values[i] = datumCopy(value, att->attbyval, att->attlen);
		}
	}
	MemoryContextSwitchTo(oldcontext);
	return result;
}

/*
 * A parameter of any type.
 */
PplSqlArg
ppl_sql_arg(Oid type, Datum value)
{
	PplSqlArg	arg = {type, value, false};

	return arg;
}

/*
 * NULL as a parameter.
 */
PplSqlArg
ppl_sql_arg_null(Oid type)
{
	PplSqlArg	arg = {type, (Datum) 0, true};

	return arg;
}

/*
 * A text parameter; NULL is the null value.
 */
PplSqlArg
ppl_sql_arg_text(const char *value)
{
	if (value == NULL)
		return ppl_sql_arg_null(TEXTOID);
	return ppl_sql_arg(TEXTOID, CStringGetTextDatum(value));
}

/*
 * An integer parameter.
 */
PplSqlArg
ppl_sql_arg_int(int32 value)
{
	return ppl_sql_arg(INT4OID, Int32GetDatum(value));
}

/*
 * A boolean parameter.
 */
PplSqlArg
ppl_sql_arg_bool(bool value)
{
	return ppl_sql_arg(BOOLOID, BoolGetDatum(value));
}

/*
 * Values of one type (count > 0) as one array parameter.
 */
PplSqlArg
ppl_sql_arg_array(const PplSqlArg *elements, int count)
{
	Oid			type = elements[0].type;
	Datum	   *values = palloc(count * sizeof(Datum));
	bool	   *nulls = palloc(count * sizeof(bool));
	int			lower = 1;
	int16		len;
	bool		byval;
	char		align;

	for (int i = 0; i < count; i++)
	{
		Assert(elements[i].type == type);
		values[i] = elements[i].value;
		nulls[i] = elements[i].isnull;
	}
	get_typlenbyvalalign(type, &len, &byval, &align);
	return ppl_sql_arg(get_array_type(type),
					   PointerGetDatum(construct_md_array(values, nulls, 1, &count,
														  &lower, type, len,
														  byval, align)));
}

/*
 * Words, char *, as one array parameter; null if there are none.
 */
PplSqlArg
ppl_sql_arg_words(const List *words)
{
	PplSqlArg  *elements = palloc((list_length(words) + 1) * sizeof(PplSqlArg));

	if (words == NIL)
		return ppl_sql_arg_null(TEXTARRAYOID);
	for (int i = 0; i < list_length(words); i++)
		elements[i] = ppl_sql_arg_text(list_nth(words, i));
	return ppl_sql_arg_array(elements, list_length(words));
}

/*
 * Is this value null?
 */
bool
ppl_sql_isnull(const PplSqlResult *result, int64 row, int column)
{
	Assert(row < result->nrows && column < result->ncolumns);
	return result->nulls[row * result->ncolumns + column];
}

/*
 * A value that is not null, as it was copied.
 */
Datum
ppl_sql_value(const PplSqlResult *result, int64 row, int column)
{
	if (ppl_sql_isnull(result, row, column))
		elog(ERROR, "unexpected null in column %d", column);
	return result->values[row * result->ncolumns + column];
}

/*
 * A text as a new string, or NULL.
 */
char *
ppl_sql_text(const PplSqlResult *result, int64 row, int column)
{
	if (ppl_sql_isnull(result, row, column))
		return NULL;
	return TextDatumGetCString(ppl_sql_value(result, row, column));
}

/*
 * An integer that is not null.
 */
int32
ppl_sql_int(const PplSqlResult *result, int64 row, int column)
{
	return DatumGetInt32(ppl_sql_value(result, row, column));
}

/*
 * A boolean that is not null.
 */
bool
ppl_sql_bool(const PplSqlResult *result, int64 row, int column)
{
	return DatumGetBool(ppl_sql_value(result, row, column));
}

/*
 * An OID that is not null.
 */
Oid
ppl_sql_oid(const PplSqlResult *result, int64 row, int column)
{
	return DatumGetObjectId(ppl_sql_value(result, row, column));
}
