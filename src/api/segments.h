/*
 * segments.h
 *		Segments, as pipelines and their stages and outputs are declared.
 */
#ifndef PPL_SEGMENTS_H
#define PPL_SEGMENTS_H

#include "catalog/definition.h"

extern int	ppl_segments_take_number(const PplPipeline *pipeline);
extern int	ppl_segments_of_stage(const PplPipeline *pipeline, bool isolate);
extern void ppl_segments_join(const PplPipeline *pipeline, const char *stage);
extern void ppl_segments_check(const PplPipeline *before,
							   const PplPipeline *after);
extern void ppl_segments_change(const PplPipeline *before,
								const PplPipeline *after);
extern void ppl_segments_require_still(const PplPipeline *pipeline);
extern void ppl_segments_forget_position(int pipeline_id, int segment);
extern void ppl_segments_take_places(const PplPipeline *pipeline,
									 const List *shares);
extern void ppl_segments_emit_birth(const PplPipeline *pipeline,
									const PplShare *share);

#endif							/* PPL_SEGMENTS_H */
