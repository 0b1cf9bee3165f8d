/*
 * upserts.h
 *		Outputs of mode upsert, as they are declared.
 */
#ifndef PPL_UPSERTS_H
#define PPL_UPSERTS_H

#include "catalog/definition.h"

extern void ppl_upserts_settle(const PplPipeline *pipeline);
extern void ppl_upserts_begin_anew(const PplPipeline *pipeline, int segment);

#endif							/* PPL_UPSERTS_H */
