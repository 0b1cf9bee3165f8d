/*
 * change.h
 *		What all calls that change a definition have in common.
 */
#ifndef PPL_CHANGE_H
#define PPL_CHANGE_H

#include "datatype/timestamp.h"
#include "fmgr.h"

#include "api/access.h"
#include "catalog/sql.h"

extern void ppl_change_check_name(const char *what, const char *name);
extern void ppl_change_check_word(const char *what, const char *word,
								  int nwords, const char *const *words);
extern void ppl_change_refuse_yet(const char *what, const char *current,
								  const char *needed) pg_attribute_noreturn();
extern void ppl_change_check_lineage(const char *lineage);
extern void ppl_change_check_consistency(const char *consistency);
extern void ppl_change_check_policy(const char *policy);
extern void ppl_change_check_on_error(const char *on_error);
extern void ppl_change_check_positive(const char *what, int value);
extern void ppl_change_check_timeout(const Interval *timeout);
extern char *ppl_change_handler(FunctionCallInfo fcinfo, int argno);
extern uint16 ppl_change_operations(FunctionCallInfo fcinfo, int argno);
extern PplSqlArg ppl_change_operations_arg(uint16 operations);
extern List *ppl_change_partition_by(FunctionCallInfo fcinfo, int argno);
extern PplSqlArg ppl_change_text_array(FunctionCallInfo fcinfo, int argno);
extern PplSqlArg ppl_change_settings(FunctionCallInfo fcinfo, int argno);
extern void ppl_change_finish(PplPipeline *pipeline, bool check);
extern PplStage *ppl_change_find_stage(const PplPipeline *pipeline,
									   const char *name);
extern void ppl_change_refuse_unknown(const char *what, const char *name,
									  const PplPipeline *pipeline,
									  const char *view) pg_attribute_noreturn();

#endif							/* PPL_CHANGE_H */
