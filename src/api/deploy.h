/*
 * deploy.h
 *		Versions of stages, as they are deployed.
 */
#ifndef PPL_DEPLOY_H
#define PPL_DEPLOY_H

#include "catalog/definition.h"

extern void ppl_deploy_version(const PplPipeline *pipeline,
							   const PplStage *stage);

#endif							/* PPL_DEPLOY_H */
