/*
 * key.h
 *		Columns that tell the rows of a table apart.
 */
#ifndef PPL_KEY_H
#define PPL_KEY_H

#include "utils/rel.h"

typedef struct PplKeyColumn
{
	AttrNumber	attnum;
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;		/* of the index */
	char	   *equals;			/* its operator, as SQL */
	bool		nullable;		/* nulls count as equal then */
} PplKeyColumn;

typedef struct PplKey
{
	int			ncolumns;
	PplKeyColumn *columns;
} PplKey;

extern PplKey *ppl_key_of_source(Relation source);
extern bool ppl_key_is_index(Relation rel, Relation index);
extern PplKey *ppl_key_of_target(Relation target, List *columns);
extern List *ppl_key_words(const PplKey *key);
extern const PplKeyColumn *ppl_key_column(const PplKey *key, const char *name);

#endif							/* PPL_KEY_H */
