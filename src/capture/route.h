/*
 * route.h
 *		From a changed relation to the sources whose rows it holds.
 */
#ifndef PPL_ROUTE_H
#define PPL_ROUTE_H

#include "access/attmap.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

#include "capture/filter.h"
#include "spool/record.h"

/* Columns of a source, and what is logged of its rows. */
typedef struct PplSchemaVersion
{
	PplSpoolSchema schema;
	uint32		version;		/* of the source */
} PplSchemaVersion;

/* How rows of a relation become rows of a source. */
typedef struct PplRoute
{
	PplSource  *source;			/* the relation, or a partitioned table that
								 * it is a partition of */
	PplSchemaVersion *as;
	AttrMap    *map;			/* from the relation's columns to the
								 * source's; NULL = they are the same */
} PplRoute;

/* A relation that changes. */
typedef struct PplOrigin
{
	Oid			relid;			/* hash key */
	bool		stale;			/* the catalogs changed */
	uint64		generation;		/* of all routes, when these were made */
	bool	   *in_old;			/* as in PplSpoolSchema, of the relation */
	List	   *routes;			/* PplRoute *; the relation's own first */
} PplOrigin;

extern void ppl_route_init(MemoryContext context);
extern void ppl_route_begin(void);
extern void ppl_route_sources_changed(void);
extern PplOrigin *ppl_route_find(Relation relation);

#endif							/* PPL_ROUTE_H */
