/*
 * compile_upsert.h
 *		The statements that write an output of mode upsert.
 */
#ifndef PPL_COMPILE_UPSERT_H
#define PPL_COMPILE_UPSERT_H

#include "catalog/shape.h"
#include "worker/compile.h"

extern char *ppl_compile_put_row(const PplTarget *target, const char *alias);
extern PplUpsert *ppl_compile_upsert(const PplPipeline *pipeline,
									 PplOutput *output, PplTarget *target,
									 const PplShape *row, int number,
									 const char *ordinal, bool marks);

#endif							/* PPL_COMPILE_UPSERT_H */
