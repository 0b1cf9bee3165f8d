/*
 * args.h
 *		Arguments of SQL functions that must not be null.
 */
#ifndef PPL_ARGS_H
#define PPL_ARGS_H

#include "fmgr.h"
#include "nodes/pg_list.h"

extern void ppl_args_require(FunctionCallInfo fcinfo, int argno,
							 const char *name);
extern char *ppl_args_text(FunctionCallInfo fcinfo, int argno,
						   const char *name);
extern char *ppl_args_text_or_null(FunctionCallInfo fcinfo, int argno);
extern bool ppl_args_bool(FunctionCallInfo fcinfo, int argno,
						  const char *name);
extern int32 ppl_args_int(FunctionCallInfo fcinfo, int argno,
						  const char *name);
extern Oid	ppl_args_oid(FunctionCallInfo fcinfo, int argno,
						 const char *name);
extern List *ppl_args_text_array(FunctionCallInfo fcinfo, int argno,
								 const char *name);

#endif							/* PPL_ARGS_H */
