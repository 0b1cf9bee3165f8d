/*
 * adopt.h
 *		Targets that were dropped and created again.
 */
#ifndef PPL_ADOPT_H
#define PPL_ADOPT_H

#include "catalog/definition.h"

extern bool ppl_adopt_targets(PplPipeline *pipeline);
extern void ppl_adopt_refuse(const PplPipeline *pipeline,
							 const PplOutput *output) pg_attribute_noreturn();

#endif							/* PPL_ADOPT_H */
