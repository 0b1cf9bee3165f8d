/*
 * catchup.h
 *		What a worker does first: the events that were moved to the backlog.
 */
#ifndef PPL_CATCHUP_H
#define PPL_CATCHUP_H

#include "worker/worker.h"

extern PplSpoolReader *ppl_catchup_reader(PplWorker *worker);
extern bool ppl_catchup_due(const PplWorker *worker);
extern bool ppl_catchup_seek(PplWorker *worker);

#endif							/* PPL_CATCHUP_H */
