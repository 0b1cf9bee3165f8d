/*
 * route.c
 *		From a changed relation to the sources whose rows it holds.
 *
 * A source is a table, or a partitioned table: then each row of any of its
 * partitions is a row of it, with its columns and under its OID.  A partition may
 * be a source, too, as may a table between the two.
 *
 * Capture alone runs this, inside the callbacks of logical decoding: catalogs
 * are as they were at the change.  What was read of them is kept until an
 * invalidation message comes for the relation or for a table that it is a
 * partition of; ATTACH and DETACH send both.
 *
 * Memory: all is in "pipeline filter".  Relations that changed once and are
 * gone are forgotten all together when there are many (ppl_route_begin).
 */
#include "postgres.h"
#include "base/compat.h"

#include "access/sysattr.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "capture/route.h"

/* So many relations that changed their definition may be kept. */
#define MAX_STALE 1024

/* State of the routes. */
static struct
{
	MemoryContext context;
	HTAB	   *origins;		/* PplOrigin: wanted relations, and partitions
								 * wanted or not */
	HTAB	   *parents;		/* Oid: what some origin is a partition of */
	uint64		generation;		/* counts what makes all routes stale */
	int			nstale;			/* origins that became stale */
}			self;

static void create_tables(void);
static void relcache_callback(Datum arg, Oid relid);
static void make_routes(PplOrigin *origin, Relation relation);
static void add_route(PplOrigin *origin, Relation relation, PplSource *source,
					  Relation target);
static void forget_routes(PplOrigin *origin);
static bool *logged_columns(Relation relation);
static PplSchemaVersion *find_version(PplSource *source,
									  const PplSpoolSchema *schema);

/*
 * Begin without routes; all that they need is allocated in context.
 */
void
ppl_route_init(MemoryContext context)
{
	self.context = context;
	create_tables();
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
}

static void
create_tables(void)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(PplOrigin);
	ctl.hcxt = self.context;
	self.origins = hash_create("pipeline origins", 64, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.entrysize = sizeof(Oid);
	self.parents = hash_create("pipeline partitioned tables", 64, &ctl,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
relcache_callback(Datum arg, Oid relid)
{
	PplOrigin  *origin;

	if (!OidIsValid(relid) ||
		hash_search(self.parents, &relid, HASH_FIND, NULL) != NULL)
		self.generation++;
	origin = hash_search(self.origins, &relid, HASH_FIND, NULL);
	if (origin != NULL && !origin->stale)
	{
		origin->stale = true;
		self.nstale++;
	}
}

/*
 * A transaction begins: nobody has a route at hand.  Forget them all if many are
 * stale, since those of relations that are gone are never asked for again.
 */
void
ppl_route_begin(void)
{
	HASH_SEQ_STATUS scan;
	PplOrigin  *origin;

	if (self.nstale <= MAX_STALE)
		return;
	hash_seq_init(&scan, self.origins);
	while ((origin = hash_seq_search(&scan)) != NULL)
		forget_routes(origin);
	hash_destroy(self.origins);
	hash_destroy(self.parents);
	create_tables();
	self.nstale = 0;
}

/*
 * Other relations are wanted than before.
 */
void
ppl_route_sources_changed(void)
{
	self.generation++;
}

/*
 * Where the rows of a relation go, NULL if nobody wants them.  Valid until the
 * next call.
 */
PplOrigin *
ppl_route_find(Relation relation)
{
	Oid			relid = RelationGetRelid(relation);
	PplOrigin  *origin;
	bool		found;

	if (!relation->rd_rel->relispartition && ppl_filter_lookup(relid) == NULL)
		return NULL;
	origin = hash_search(self.origins, &relid, HASH_ENTER, &found);
	if (!found)
	{
		memset(origin, 0, sizeof(*origin));
		origin->relid = relid;
		origin->stale = true;
		self.nstale++;
	}
	if (origin->stale || origin->generation != self.generation)
		make_routes(origin, relation);
	return origin->routes != NIL ? origin : NULL;
}

/*
 * What comes of the catalogs while they are read makes the routes stale again.
 */
static void
make_routes(PplOrigin *origin, Relation relation)
{
	PplSource  *source = ppl_filter_lookup(origin->relid);
	List	   *parents = NIL;
	ListCell   *lc;
	bool	   *in_old;

	if (origin->stale)
		self.nstale--;
	origin->stale = false;
	origin->generation = self.generation;
	forget_routes(origin);

	if (relation->rd_rel->relispartition)
		parents = get_partition_ancestors(origin->relid);
	foreach(lc, parents)
		(void) hash_search(self.parents, &lfirst_oid(lc), HASH_ENTER, NULL);

	in_old = logged_columns(relation);
	origin->in_old = MemoryContextAlloc(self.context,
										RelationGetNumberOfAttributes(relation) * sizeof(bool));
	memcpy(origin->in_old, in_old,
		   RelationGetNumberOfAttributes(relation) * sizeof(bool));

	if (source != NULL)
		add_route(origin, relation, source, relation);
	foreach(lc, parents)
	{
		Relation	parent;

		source = ppl_filter_lookup(lfirst_oid(lc));
		if (source == NULL)
			continue;
		parent = RelationIdGetRelation(lfirst_oid(lc));
		if (!RelationIsValid(parent))
			elog(ERROR, "could not open partitioned table %u", lfirst_oid(lc));
		add_route(origin, relation, source, parent);
		RelationClose(parent);
	}
}

static void
add_route(PplOrigin *origin, Relation relation, PplSource *source,
		  Relation target)
{
	TupleDesc	desc = RelationGetDescr(target);
	AttrMap    *map = NULL;
	PplSpoolSchema schema;
	MemoryContext oldcontext;
	PplRoute   *route;

	schema.relid = source->relid;
	schema.desc = desc;
	schema.replident = relation->rd_rel->relreplident;
	schema.in_old = origin->in_old;
	oldcontext = MemoryContextSwitchTo(self.context);
	if (relation != target)
		map = build_attrmap_by_name_if_req(RelationGetDescr(relation), desc);
	MemoryContextSwitchTo(oldcontext);
	if (map != NULL)
	{
		schema.in_old = palloc0(desc->natts * sizeof(bool));
		for (int i = 0; i < desc->natts; i++)
		{
			if (map->attnums[i] != 0)
				schema.in_old[i] = origin->in_old[map->attnums[i] - 1];
		}
	}

	MemoryContextSwitchTo(self.context);
	route = palloc0(sizeof(*route));
	route->source = source;
	route->as = find_version(source, &schema);
	route->map = map;
	origin->routes = lappend(origin->routes, route);
	MemoryContextSwitchTo(oldcontext);
}

static void
forget_routes(PplOrigin *origin)
{
	ListCell   *lc;

	foreach(lc, origin->routes)
	{
		PplRoute   *route = lfirst(lc);

		if (route->map != NULL)
			free_attrmap(route->map);
	}
	list_free_deep(origin->routes);
	origin->routes = NIL;
	if (origin->in_old != NULL)
		pfree(origin->in_old);
	origin->in_old = NULL;
}

/*
 * Which columns does the server log of old rows?  By attribute number - 1.
 */
static bool *
logged_columns(Relation relation)
{
	TupleDesc	desc = RelationGetDescr(relation);
	bool	   *columns = palloc0(desc->natts * sizeof(bool));
	Bitmapset  *key = RelationGetIdentityKeyBitmap(relation);

	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		columns[i] = relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL ||
			bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber, key);
	}
	return columns;
}

/*
 * The version of a source's schema that says this, a new one if there is none.
 * Partitions may have several at a time, as what is logged is said of each of
 * them.  When the columns change, the versions before that are freed, and all
 * routes made anew.  Allocates in the current context.
 */
static PplSchemaVersion *
find_version(PplSource *source, const PplSpoolSchema *schema)
{
	PplSchemaVersion *version;
	ListCell   *lc;

	foreach(lc, source->schemas)
	{
		version = lfirst(lc);
		if (!equalTupleDescs(version->schema.desc, schema->desc))
			break;
		if (version->schema.replident == schema->replident &&
			memcmp(version->schema.in_old, schema->in_old,
				   schema->desc->natts * sizeof(bool)) == 0)
			return version;
	}
	if (lc != NULL)
	{
		foreach(lc, source->schemas)
		{
			version = lfirst(lc);
			FreeTupleDesc(version->schema.desc);
			pfree(version->schema.in_old);
		}
		list_free_deep(source->schemas);
		source->schemas = NIL;
		self.generation++;
	}

	version = palloc(sizeof(*version));
	version->schema = *schema;
	version->schema.desc = CreateTupleDescCopyConstr(schema->desc);
	version->schema.in_old = palloc(schema->desc->natts * sizeof(bool));
	memcpy(version->schema.in_old, schema->in_old,
		   schema->desc->natts * sizeof(bool));
	version->version = ++source->schema_version;
	source->schemas = lappend(source->schemas, version);
	return version;
}
