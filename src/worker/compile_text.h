/*
 * compile_text.h
 *		Pieces of the statement that a segment is compiled to.
 */
#ifndef PPL_COMPILE_TEXT_H
#define PPL_COMPILE_TEXT_H

#include "catalog/handler.h"
#include "catalog/shape.h"
#include "catalog/target.h"

extern char *ppl_text_call(const PplHandler *handler, const char *alias,
						   const char *ordinal);
extern char *ppl_text_query_alias(const char *query);
extern char *ppl_text_query(const char *query, const PplShape *input,
							const char *alias);
extern char *ppl_text_columns(const char *alias, const PplShape *shape);
extern char *ppl_text_key(const PplTarget *target);

#endif							/* PPL_COMPILE_TEXT_H */
