/*
 * compile.h
 *		The stages and outputs of a segment as one SQL statement.
 */
#ifndef PPL_COMPILE_H
#define PPL_COMPILE_H

#include "access/tupdesc.h"

#include "catalog/definition.h"
#include "catalog/target.h"

/* Name of the relation of the batch in the statement. */
#define PPL_BATCH_RELATION "_pipeline_batch"

/* Reasons for which a query of a validate stage rejects an event. */
#define PPL_REASON_NO_ROW "no row"
#define PPL_REASON_FALSE "validation returned false"
#define PPL_REASON_NULL "validation returned null"

/*
 * How an output of mode upsert is written, from what the statement hands to
 * pipeline._put(): rows of row_desc without the ordinal, and behind them the
 * values of the key.  Both statements read a relation whose first column is the
 * ordinal of an event.
 */
typedef struct PplUpsert
{
	PplOutput  *output;
	PplTarget  *target;
	TupleDesc	row_desc;		/* ordinal, columns of PPL_ROWS_RELATION */
	TupleDesc	gone_desc;		/* ordinal, key of PPL_GONE_RELATION */
	char	   *remove_sql;		/* the rows of these keys go */
	char	   *insert_sql;		/* these rows come, or replace others */
	char	   *clear_sql;		/* all rows go */
	AttrNumber *derived;		/* columns of the source that the key is made
								 * of, NULL of one that keeps */
} PplUpsert;

#define PPL_ROWS_RELATION "_pipeline_rows"
#define PPL_GONE_RELATION "_pipeline_gone"

/* What the outcome functions call a row's way through the statement. */
typedef struct PplStatement
{
	char	   *sql;
	int			nstages;
	char	  **stages_sql;		/* [k] runs the first k stages alone, from 1 */
	TupleDesc	batch_desc;		/* ordinal int4, then the source's columns */
	int			noutputs;
	PplOutput **outputs;		/* number i of _produced() is outputs[i] */
	bool	   *output_takes_deletes;	/* do old rows of deletes go to it? */
	bool		takes_deletes;	/* to any output? */
	int		   *output_nkeys;	/* key columns of each, 0 = no key */
	char	 ***output_keys;	/* their names */
	Oid		  **output_key_types;
	PplUpsert **upserts;		/* by output; NULL of append */
	bool		has_upserts;
	bool		has_appends;
	bool		keyed;			/* source rows are told apart, for outputs of
								 * mode upsert here or behind */
	bool		marks;			/* its texts have a parameter $1, bigint: with
								 * ppl_mark_key() the rows of all outputs are
								 * marked */
	PplShape   *hand;			/* what is handed over, NULL = nothing */
	List	   *relids;			/* tables and types that the text depends on:
								 * compile again when one is invalidated */
} PplStatement;

/*
 * Compile a definition for events that see version; the outputs with
 * since <= version take part.  Rows that nobody can take for events are marked, if
 * mark is set; what is shown to users does not.  Result in CurrentMemoryContext.  Throws what
 * the checks in catalog/shape throw, so a definition that no longer fits its
 * objects is an error with a hint.
 */
extern PplStatement *ppl_compile(const PplPipeline *pipeline, int version,
								 bool mark);
extern void ppl_compile_check(const PplPipeline *pipeline);

#endif							/* PPL_COMPILE_H */
