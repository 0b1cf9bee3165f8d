/*
 * version.h
 *		Versions of stages, and the bodies of their functions.
 */
#ifndef PPL_VERSION_H
#define PPL_VERSION_H

#include "access/xlogdefs.h"

#include "catalog/definition.h"

/* What a stage runs: a function with what the catalogs know it to call, or a query. */
typedef struct PplBody
{
	char	   *md5;			/* equal for equal code, in every database */
	char	   *source;			/* the command that makes the function; NULL
								 * of a query */
	int			nfunctions;
	Oid		   *functions;
	TransactionId *xmins;		/* of their rows in pg_proc */
}			PplBody;

extern PplBody * ppl_version_body(const PplPipeline *pipeline,
								  const char *handler, const char *query);
extern bool ppl_version_holds(const PplBody * body);
extern void ppl_version_add(const PplPipeline *pipeline, const PplStage *stage,
							const PplBody * body, const char *role);
extern void ppl_version_end(const PplPipeline *pipeline, int stage_id);
extern int	ppl_version_next(const PplPipeline *pipeline, int stage_id);
extern bool ppl_version_notice(int pipeline_id);
extern void ppl_version_reached(const PplPipeline *pipeline, int former,
								XLogRecPtr last, XLogRecPtr first);

#endif							/* PPL_VERSION_H */
