/*
 * control.h
 *		Control messages: how a change of a definition reaches capture, and how
 *		it tells the writes of a pipeline's own batches.
 */
#ifndef PPL_CONTROL_H
#define PPL_CONTROL_H

#include "base/place.h"

#define PPL_CONTROL_PREFIX "pipeline"

/* What a definition's change tells capture and the workers. */
typedef enum PplControlAction
{
	PPL_CONTROL_BIRTH = 1,		/* events count from here on; running */
	PPL_CONTROL_CHANGE,			/* stages or outputs changed */
	PPL_CONTROL_START,			/* running again, at its checkpoint */
	PPL_CONTROL_STOP,
	PPL_CONTROL_REDRIVE,		/* dead letters are queued */
	PPL_CONTROL_DROP,
	PPL_CONTROL_BATCH,			/* this transaction is a batch of the pipeline */
	PPL_CONTROL_DISCARD,		/* dead letters were given up on */
	PPL_CONTROL_SCHEMA,			/* the source was changed */
	PPL_CONTROL_ACCEPT			/* go on after a change of the source */
} PplControlAction;

#define PPL_CONTROL_VERSION	1

#define PPL_CONTROL_PAUSES	0x01	/* of SCHEMA: stop before what follows */

/* Payload of a control message in the WAL, and of a PPL_REC_CONTROL. */
typedef struct PplControl
{
	uint8		format;			/* PPL_CONTROL_VERSION */
	uint8		action;			/* PplControlAction */
	uint16		operations;		/* PPL_OP_* bits wanted of the source */
	int32		pipeline_id;
	int32		version;		/* of the definition, from this change on */
	Oid			source;
	Oid			owner;
	uint16		flags;			/* PPL_CONTROL_PAUSES */
	uint16		workers;		/* of the segment, from here on; 0 = as many
								 * as before */
	uint32		segment;		/* 0 = all of the pipeline */
	uint32		partition;		/* 0 = all of the segment */
	uint64		secret;			/* proves that the extension wrote it */
} PplControl;

StaticAssertDecl(sizeof(PplControl) == 40, "control message has padding");

/*
 * Write a transactional control message and have this transaction's commit
 * wake capture.  Assigns an xid.  Capture acts on it at its place in the
 * commit order; a rollback (also to a savepoint) takes it back.  The caller fills in
 * all but format and secret.
 */
extern void ppl_control_emit(PplControl *control);

/*
 * The same to tell a pipeline that its source was changed.
 */
extern void ppl_control_schema(int32 pipeline_id, Oid source, bool pauses);

/*
 * Say that what this transaction writes from here on is the work of a batch:
 * the pipeline itself will not take it for events.  Assigns an xid.
 */
extern void ppl_control_batch(int32 pipeline_id);

/*
 * Is this a control message, whoever wrote it?  size bytes at text are that of a
 * message in the WAL.
 */
extern bool ppl_control_read(const char *prefix, const char *text, Size size,
							 PplControl *control);

/* Is a message for the worker at this place? */
extern bool ppl_control_concerns(const PplControl *control, PplPlace place);

#endif							/* PPL_CONTROL_H */
