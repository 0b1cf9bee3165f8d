/*
 * settle.h
 *		Wait until the transactions of a batch are visible.
 */
#ifndef PPL_SETTLE_H
#define PPL_SETTLE_H

#include "worker/gather.h"

extern void ppl_settle(const PplBatch *batch);
extern void ppl_settle_xid(TransactionId xid);

#endif							/* PPL_SETTLE_H */
