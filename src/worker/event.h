/*
 * event.h
 *		What handlers see of an event beside its row: pipeline.event.
 */
#ifndef PPL_WORKER_EVENT_H
#define PPL_WORKER_EVENT_H

#include "worker/plan.h"

extern void ppl_event_begin(PplProgram *program, const PplBatch *batch);
extern const char *ppl_event_operation(PplRecordKind kind);
extern PplRecordKind ppl_event_kind(const char *operation);

#endif							/* PPL_WORKER_EVENT_H */
