/*
 * source.h
 *		What a table must be, to be the source of a pipeline.
 */
#ifndef PPL_SOURCE_H
#define PPL_SOURCE_H

#include "utils/relcache.h"

extern bool ppl_source_is_stream(Relation rel);
extern void ppl_source_check(Oid relid, uint16 operations, bool whole,
							 bool partitions);

#endif							/* PPL_SOURCE_H */
