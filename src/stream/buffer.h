/*
 * buffer.h
 *		Rows of streams that this backend has not written yet.
 */
#ifndef PPL_BUFFER_H
#define PPL_BUFFER_H

#include "executor/tuptable.h"

/* A statement that inserts into a stream. */
typedef struct PplInserter
{
	Oid			relid;			/* stream */
	uint64		secret;			/* of the messages */
	int			nest_level;		/* of transactions */
	uint64		began;			/* place among all of this backend */
	bool		row_by_row;		/* something runs after each row, or may */
} PplInserter;

extern void ppl_buffer_begin(PplInserter *inserter, Oid relid);
extern void ppl_buffer_add(PplInserter *inserter, TupleTableSlot *slot);
extern void ppl_buffer_flush(void);

#endif							/* PPL_BUFFER_H */
