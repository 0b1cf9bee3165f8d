/*
 * timeout.h
 *		The longest time that a stage may work on one event.
 */
#ifndef PPL_TIMEOUT_H
#define PPL_TIMEOUT_H

#include "catalog/definition.h"

extern void ppl_timeout_start(const PplPipeline *pipeline);
extern void ppl_timeout_stop(void);
extern bool ppl_timeout_expired(void);
extern void ppl_timeout_explain(void *arg);

#endif							/* PPL_TIMEOUT_H */
