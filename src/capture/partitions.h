/*
 * partitions.h
 *		Consumers of segments whose number of workers changes.
 */
#ifndef PPL_PARTITIONS_H
#define PPL_PARTITIONS_H

#include "base/control.h"
#include "base/shm.h"
#include "catalog/definition.h"
#include "spool/format.h"

/* A consumer as capture sees it. */
typedef struct FilterConsumer
{
	PplConsumer *shared;
	Oid			source;
	uint16		operations;
	int			version;		/* of the definition that it has reached, as
								 * far as is known: no further */
	PplSpoolPos control_pos;	/* end of its last control record, until that
								 * is published; else 0 */
} FilterConsumer;

/* Partitions that begin at some place. */
typedef struct PplJoining
{
	List	   *shares;			/* PplShare * */
	bool		running;		/* as the others of the segment */
	bool		lost;
} PplJoining;

extern void ppl_partitions_retire(const List *consumers,
								  const PplControl *control, PplDatabase *db);
extern bool ppl_partitions_unborn(const List *consumers,
								  const PplControl *control);
extern void ppl_partitions_join(const List *consumers,
								const PplControl *control, PplJoining *joining);
extern List *ppl_partitions_gone(const List *consumers, PplDatabase *db);

#endif							/* PPL_PARTITIONS_H */
