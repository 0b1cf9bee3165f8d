/*
 * mark.h
 *		The mark of rows that nobody takes for events.
 *
 * A row that is written under the mark has the origin DoNotReplicateId in the
 * WAL, by which capture skips it before it is decoded (mark.c, adr/0014).
 */
#ifndef PPL_MARK_H
#define PPL_MARK_H

extern int64 ppl_mark_key(void);
extern void ppl_mark_set(int64 key);
extern void ppl_mark_clear(void);
extern bool ppl_mark_is(uint16 origin);

#endif							/* PPL_MARK_H */
