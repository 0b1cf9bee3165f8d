/*
 * move.h
 *		Move events of one pipeline from the spool to the backlog.
 */
#ifndef PPL_MOVE_H
#define PPL_MOVE_H

#include "base/shm.h"
#include "spool/reader.h"

extern bool ppl_backlog_move(PplDatabase *db, PplConsumer *consumer,
							 PplSpoolReader *reader);

#endif							/* PPL_MOVE_H */
