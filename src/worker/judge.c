/*
 * judge.c
 *		What kind of error is this?
 *
 * By its SQLSTATE alone, but for a statement that was cancelled because an event
 * exceeded the timeout of a stage; whether an error that looks like one of the
 * environment is a single event's all the same is for blame.c to find out.
 */
#include "postgres.h"
#include "base/compat.h"

#include "worker/judge.h"
#include "worker/timeout.h"

/*
 * The verdict on an error.  docs/reference.md has the same table.
 */
PplVerdict
ppl_judge(int sqlstate)
{
	if (sqlstate == ERRCODE_QUERY_CANCELED && ppl_timeout_expired())
		return PPL_VERDICT_EVENT;
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):
			return PPL_VERDICT_MOMENT;
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):
			/* most of it is wrong use, such as writing a view, and stays so */
			return sqlstate == ERRCODE_OBJECT_IN_USE ||
				sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ?
				PPL_VERDICT_MOMENT : PPL_VERDICT_ENVIRONMENT;
		case MAKE_SQLSTATE('0', 'A', '0', '0', '0'):
		case MAKE_SQLSTATE('2', '8', '0', '0', '0'):
		case MAKE_SQLSTATE('3', 'D', '0', '0', '0'):
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):
		case MAKE_SQLSTATE('5', '4', '0', '0', '0'):
		case MAKE_SQLSTATE('F', '0', '0', '0', '0'):
		case MAKE_SQLSTATE('X', 'X', '0', '0', '0'):
			return PPL_VERDICT_ENVIRONMENT;
		default:
			return PPL_VERDICT_EVENT;
	}
}
