/*
 * share.h
 *		Which events of a segment are this worker's.
 */
#ifndef PPL_SHARE_H
#define PPL_SHARE_H

#include "worker/worker.h"

extern void ppl_share_prepare(PplWorker *worker, const PplPipeline *pipeline);
extern bool ppl_share_counts(const PplGatherRequest *request);
extern bool ppl_share_begin(const PplGatherRequest *request);
extern void ppl_share_end(void);
extern bool ppl_share_passes(const PplGatherRequest *request,
							 const PplRecordHeader *header);
extern PplConcern ppl_share_concern(const PplGatherRequest *request,
									const PplSpoolRecord *record,
									uint64 *hash, bool *arrives);
extern void ppl_share_resolve(PplWorker *worker, const PplBatch *batch);
extern uint64 ppl_share_hash(PplWorker *worker, const PplBatch *batch,
							 int ordinal);
extern void ppl_share_check_key(PplWorker *worker, const PplBatch *batch,
								int ordinal, const PplUpsert *upsert,
								const Datum *values, const bool *nulls);

#endif							/* PPL_SHARE_H */
