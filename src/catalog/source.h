/*
 * source.h
 *		What a table must be, to be the source of a pipeline.
 */
#ifndef PPL_SOURCE_H
#define PPL_SOURCE_H

#include "nodes/bitmapset.h"
#include "utils/relcache.h"

extern Bitmapset *ppl_source_identity(Relation rel);

#endif							/* PPL_SOURCE_H */
