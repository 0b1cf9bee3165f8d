/*
 * target.h
 *		Tables that outputs write: which columns, which key, which checks.
 */
#ifndef PPL_TARGET_H
#define PPL_TARGET_H

#include "catalog/key.h"
#include "catalog/shape.h"

typedef struct PplTarget
{
	char	   *qualified_name; /* quoted */
	int			ncolumns;		/* columns that the rows fill */
	char	  **columns;		/* their names, the same in row and target */
	bool		overriding;		/* one of them is GENERATED ALWAYS AS IDENTITY */
	int			nkeys;			/* columns of the primary key, 0 = none; of an
								 * upsert, those of its key */
	char	  **keys;
	Oid		   *key_types;
	PplKey	   *upsert;			/* NULL of append */
	int			nupdates;		/* columns that an upsert sets */
	char	  **updates;
	bool		partitioned;
	bool		plain;			/* may its rows be marked (own.h)? */
} PplTarget;

extern PplTarget *ppl_target_resolve(const PplPipeline *pipeline,
									 const PplShape *row,
									 const PplOutput *output);
extern bool ppl_target_derives(const PplPipeline *pipeline,
							   const PplOutput *output);

#endif							/* PPL_TARGET_H */
