/*
 * shape.h
 *		The type of the rows between two stages, and the checks of a chain.
 *
 * handler.h has the checks of functions, query.h those of queries, target.h
 * those of the tables that outputs write.
 */
#ifndef PPL_SHAPE_H
#define PPL_SHAPE_H

#include "access/tupdesc.h"

#include "catalog/definition.h"

typedef struct PplColumn
{
	char	   *name;
	Oid			type;
	int32		typmod;
	Oid			collation;
} PplColumn;

typedef struct PplShape
{
	Oid			rowtype;		/* composite type, or InvalidOid of a query */
	int			ncolumns;
	PplColumn  *columns;		/* without dropped columns */
} PplShape;

extern PplShape *ppl_shape_of_type(Oid rowtype);
extern PplShape *ppl_shape_of_desc(TupleDesc desc, Oid rowtype);
extern PplShape *ppl_shape_of_relation(Oid relid);
extern PplShape *ppl_shape_of_source(const PplPipeline *pipeline);
extern PplShape *ppl_shape_after_stage(const PplPipeline *pipeline,
									   const PplShape *input,
									   const PplStage *stage);
extern PplShape *ppl_shape_after_stages(const PplPipeline *pipeline);
extern PplShape *ppl_shape_after_transform(const PplPipeline *pipeline,
										   const PplShape *input,
										   const PplOutput *output);
extern const PplColumn *ppl_shape_column(const PplShape *shape,
										 const char *name);
extern char *ppl_shape_describe(const PplShape *shape);

#endif							/* PPL_SHAPE_H */
