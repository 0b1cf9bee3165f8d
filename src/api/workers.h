/*
 * workers.h
 *		Several workers for one segment, as they are declared.
 */
#ifndef PPL_WORKERS_H
#define PPL_WORKERS_H

#include "catalog/definition.h"

extern List *ppl_workers_declare(const PplPipeline *pipeline);
extern void ppl_workers_check(const PplPipeline *pipeline);
extern void ppl_workers_settle(PplPipeline *pipeline);
extern void ppl_workers_check_stage(const PplPipeline *pipeline,
									const char *stage, bool begins, bool first);
extern void ppl_repartition_stage(PplPipeline *pipeline, const char *stage,
								  int workers);
extern bool ppl_workers_same_words(const List *a, const List *b);
extern void ppl_repartition_anew(PplPipeline *pipeline,
								 const char *consistency, List *columns,
								 int workers);
extern void ppl_repartition(PplPipeline *pipeline, int workers);

#endif							/* PPL_WORKERS_H */
