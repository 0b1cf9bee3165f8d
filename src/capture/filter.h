/*
 * filter.h
 *		Which relations are wanted, and by which consumers.
 */
#ifndef PPL_FILTER_H
#define PPL_FILTER_H

#include "nodes/pg_list.h"

#include "spool/format.h"

/* A relation that capture has seen or that somebody wants. */
typedef struct PplSource
{
	Oid			relid;			/* hash key */
	uint16		operations;		/* union over the consumers; 0 = not wanted */
	bool		touched;		/* records since the last publication */
	struct PplSource *next_touched;
	List	   *consumers;		/* of the filter, that want it */
	bool		unfinished;		/* records of this transaction were published */
	uint32		schema_version; /* the last one that was given (route.c) */
	List	   *schemas;		/* PplSchemaVersion *, all with the same
								 * columns */
	PplSpoolPos last_pos;		/* end of its last record */
} PplSource;

extern void ppl_filter_init(void);
extern void ppl_filter_load(XLogRecPtr confirmed, PplSpoolPos start);
extern PplSource *ppl_filter_lookup(Oid relid);
extern void ppl_filter_touch(PplSource *source, PplSpoolPos end);
extern void ppl_filter_control(const PplControl *control, TransactionId xid,
							   XLogRecPtr commit_lsn, PplSpoolPos begin,
							   PplSpoolPos end);
extern void ppl_filter_catalog_changed(void);
extern void ppl_filter_publish(bool within);
extern bool ppl_filter_finish(PplSpoolPos end);
extern XLogRecPtr ppl_filter_confirmable(XLogRecPtr decoded, bool *progress_expected);
extern bool ppl_filter_request_moves(XLogRecPtr decoded);
extern uint32 ppl_filter_first_segment(PplSpoolPos spool_end);
extern void ppl_filter_forget_all(void);

#endif							/* PPL_FILTER_H */
