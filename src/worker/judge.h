/*
 * judge.h
 *		What kind of error is this?
 */
#ifndef PPL_JUDGE_H
#define PPL_JUDGE_H

typedef enum PplVerdict
{
	PPL_VERDICT_EVENT,			/* one event's */
	PPL_VERDICT_ENVIRONMENT,	/* an object's, a right's, the code's */
	PPL_VERDICT_MOMENT			/* nobody's: try again */
} PplVerdict;

extern PplVerdict ppl_judge(int sqlstate);

#endif							/* PPL_JUDGE_H */
