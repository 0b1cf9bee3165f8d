/*
 * source.h
 *		What a table must be, to be the source of a pipeline.
 */
#ifndef PPL_SOURCE_H
#define PPL_SOURCE_H

extern void ppl_source_check(Oid relid, uint16 operations, bool whole,
							 bool partitions);

#endif							/* PPL_SOURCE_H */
