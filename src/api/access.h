/*
 * access.h
 *		Who may do what to which pipeline, and what every change has to do.
 */
#ifndef PPL_ACCESS_H
#define PPL_ACCESS_H

#include "storage/lockdefs.h"

#include "base/control.h"
#include "catalog/definition.h"

typedef enum PplRight
{
	PPL_RIGHT_SEE,				/* definition, status, statistics */
	PPL_RIGHT_OPERATE,			/* start, stop, dead letters and other data */
	PPL_RIGHT_ALTER				/* everything */
} PplRight;

extern bool ppl_access_allows(Oid owner, PplRight right);
extern PplPipeline *ppl_access_open(const char *name, PplRight right,
									LOCKMODE lockmode);
extern PplPipeline *ppl_access_reload(const PplPipeline *pipeline);
extern void ppl_access_bump_version(PplPipeline *pipeline);
extern void ppl_access_announce(const PplPipeline *pipeline);
extern void ppl_access_tell(const PplPipeline *pipeline,
							PplControlAction action);
extern void ppl_access_audit(const PplPipeline *pipeline, const char *action,
							 ...);

#endif							/* PPL_ACCESS_H */
