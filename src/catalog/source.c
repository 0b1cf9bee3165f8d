/*
 * source.c
 *		What a table must be, to be the source of a pipeline.
 *
 * Runs in any backend and in workers, inside a transaction, on a relation that
 * the caller has opened; results are in CurrentMemoryContext.
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/sysattr.h"
#include "utils/rel.h"

#include "catalog/source.h"

/*
 * The columns by which the log tells old rows apart: those of the index that
 * the replica identity names.  NULL if there is none, as with FULL.
 */
Bitmapset *
ppl_source_identity(Relation rel)
{
	Bitmapset  *columns = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_IDENTITY_KEY);
	Bitmapset  *attnums = NULL;
	int			column = -1;

	while ((column = bms_next_member(columns, column)) >= 0)
		attnums = bms_add_member(attnums, column + FirstLowInvalidHeapAttributeNumber);
	bms_free(columns);
	return attnums;
}
