/*
 * log.h
 *		Row types of what segments hand over.
 */
#ifndef PPL_LOG_H
#define PPL_LOG_H

#include "catalog/shape.h"

extern bool ppl_log_settle(PplPipeline *segment, const PplShape *rows);
extern void ppl_logs_settle(const PplPipeline *pipeline);
extern void ppl_logs_drop(const PplPipeline *pipeline, bool all);

#endif							/* PPL_LOG_H */
