/*
 * event.h
 *		Operations that make an event, as bits.
 */
#ifndef PPL_EVENT_H
#define PPL_EVENT_H

#define PPL_OP_INSERT	0x01
#define PPL_OP_UPDATE	0x02
#define PPL_OP_DELETE	0x04
#define PPL_OP_TRUNCATE	0x08
#define PPL_OP_ALL		0x0f

#endif							/* PPL_EVENT_H */
