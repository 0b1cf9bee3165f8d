/*
 * row.h
 *		Rows of events under the layout that the source has today.
 */
#ifndef PPL_ROW_H
#define PPL_ROW_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/bitmapset.h"

/* One event's columns. */
typedef struct PplRow
{
	Datum	   *values;
	bool	   *nulls;
} PplRow;

typedef struct PplRowMapper PplRowMapper;

extern PplRowMapper *ppl_row_mapper_create(TupleDesc today);
extern void ppl_row_mapper_keep(PplRowMapper *mapper, AttrNumber attnum,
								Oid type, int32 typmod, const char *missing);
extern const PplRow *ppl_row_today(PplRowMapper *mapper, TupleDesc then,
								   HeapTuple tuple, const Bitmapset *columns);
extern const PplRow *ppl_row_then(PplRowMapper *mapper, TupleDesc then,
								  HeapTuple tuple);
extern Bitmapset *ppl_row_unlogged(TupleDesc then, HeapTuple tuple);

#endif							/* PPL_ROW_H */
