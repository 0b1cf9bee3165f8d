/*
 * check.h
 *		Checks of what a definition names: roles, sources, targets, chains.
 */
#ifndef PPL_CHECK_H
#define PPL_CHECK_H

#include "catalog/definition.h"

extern char *ppl_check_current_path(void);
extern void ppl_check_same_path(const PplPipeline *pipeline);
extern void ppl_check_owner(Oid owner);
extern void ppl_check_source(Oid relid, Oid owner);
extern void ppl_check_target(Oid relid, Oid owner, const char *output);
extern void ppl_check_circle(const PplPipeline *pipeline, Oid target);
extern void ppl_check_chain(const PplPipeline *pipeline);
extern void ppl_check_inlining(const PplPipeline *pipeline,
							   const char *signature);

#endif							/* PPL_CHECK_H */
