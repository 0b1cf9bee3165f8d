/*
 * query.h
 *		Queries that are stages: check, and read another "event".
 */
#ifndef PPL_QUERY_H
#define PPL_QUERY_H

#include "catalog/shape.h"

extern char *ppl_query_over(const char *query, const char *event_subquery);
extern PplShape *ppl_query_shape(const PplPipeline *pipeline,
								 const PplShape *input, const PplStage *stage);

#endif							/* PPL_QUERY_H */
