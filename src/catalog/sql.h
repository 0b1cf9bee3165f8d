/*
 * sql.h
 *		Our own constant SQL, run with our own rights.
 */
#ifndef PPL_SQL_H
#define PPL_SQL_H

#include "nodes/pg_list.h"

/* One parameter of a statement. */
typedef struct PplSqlArg
{
	Oid			type;
	Datum		value;
	bool		isnull;
} PplSqlArg;

/* All rows of a result, row by row, copied into the caller's context. */
typedef struct PplSqlResult
{
	int64		nrows;			/* also those that a command touched */
	int			ncolumns;
	Datum	   *values;
	bool	   *nulls;
} PplSqlResult;

extern PplSqlArg ppl_sql_arg(Oid type, Datum value);
extern PplSqlArg ppl_sql_arg_null(Oid type);
extern PplSqlArg ppl_sql_arg_text(const char *value);
extern PplSqlArg ppl_sql_arg_int(int32 value);
extern PplSqlArg ppl_sql_arg_bool(bool value);
extern PplSqlArg ppl_sql_arg_words(const List *words);
extern PplSqlArg ppl_sql_arg_array(const PplSqlArg *elements, int count);

extern PplSqlResult *ppl_sql_run(const char *sql, int nargs,
								 const PplSqlArg *args);
extern PplSqlResult *ppl_sql_read(const char *sql, int nargs,
								  const PplSqlArg *args);

extern bool ppl_sql_isnull(const PplSqlResult *result, int64 row, int column);
extern Datum ppl_sql_value(const PplSqlResult *result, int64 row, int column);
extern char *ppl_sql_text(const PplSqlResult *result, int64 row, int column);
extern int32 ppl_sql_int(const PplSqlResult *result, int64 row, int column);
extern bool ppl_sql_bool(const PplSqlResult *result, int64 row, int column);
extern Oid	ppl_sql_oid(const PplSqlResult *result, int64 row, int column);

#endif							/* PPL_SQL_H */
