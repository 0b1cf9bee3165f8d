/*
 * failpoint.c
 *		Test stops in shared memory, switched by SQL.
 *
 * _pipeline.failpoint_set(name, action): off, wait, error, exit, crash
 *		or fail (what is to be done there does not work).
 * _pipeline.failpoint_wait(name): returns once a process stands at the stop.
 * A process that waits goes on when the action changes.  Any process may hit
 * a failpoint, also while it holds a lock manager lock, but none may while it
 * holds an LWLock.
 */
#include "postgres.h"
#include "base/compat.h"

#include <signal.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"

#include "base/failpoint.h"

PPL_FUNCTION(pipeline_failpoint_set);
PPL_FUNCTION(pipeline_failpoint_wait);

#ifdef PPL_FAILPOINTS

#define PPL_MAX_FAILPOINTS 16

typedef enum FailpointAction
{
	FAILPOINT_OFF = 0,
	FAILPOINT_WAIT,
	FAILPOINT_ERROR,
	FAILPOINT_EXIT,
	FAILPOINT_CRASH,
	FAILPOINT_FAIL
} FailpointAction;

static const char *const action_names[] = {"off", "wait", "error", "exit", "crash", "fail"};

typedef struct Failpoint
{
	char		name[NAMEDATALEN];	/* protected by mutex, like the rest */
	FailpointAction action;
	int			waiting;		/* processes that stand here */
} Failpoint;

typedef struct FailpointShared
{
	slock_t		mutex;
	ConditionVariable changed;
	Failpoint	points[PPL_MAX_FAILPOINTS];
} FailpointShared;

static FailpointShared *shared = NULL;

Size
ppl_failpoint_shmem_size(void)
{
	return MAXALIGN(sizeof(FailpointShared));
}

void
ppl_failpoint_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("pipeline failpoints", sizeof(FailpointShared),
							 &found);
	if (!found)
	{
		memset(shared, 0, sizeof(*shared));
		SpinLockInit(&shared->mutex);
		ConditionVariableInit(&shared->changed);
	}
}

/* Look a failpoint up; count is added to its waiting processes. */
static FailpointAction
inspect(const char *name, int count, int *waiting)
{
	FailpointAction action = FAILPOINT_OFF;

	if (waiting)
		*waiting = 0;
	SpinLockAcquire(&shared->mutex);
	for (int i = 0; i < PPL_MAX_FAILPOINTS; i++)
	{
		if (strcmp(shared->points[i].name, name) != 0)
			continue;
		action = shared->points[i].action;
		shared->points[i].waiting += count;
		if (waiting)
			*waiting = shared->points[i].waiting;
		break;
	}
	SpinLockRelease(&shared->mutex);
	return action;
}

/*
 * Do what a test ordered for this place.
 */
void
ppl_failpoint_hit(const char *name)
{
	FailpointAction action;

	if (shared == NULL)
		return;
	action = inspect(name, 0, NULL);
	switch (action)
	{
		case FAILPOINT_OFF:
		case FAILPOINT_FAIL:
			break;
		case FAILPOINT_WAIT:
			inspect(name, 1, NULL);
			ConditionVariableBroadcast(&shared->changed);
			ConditionVariablePrepareToSleep(&shared->changed);
			while (inspect(name, 0, NULL) == FAILPOINT_WAIT)
				ConditionVariableSleep(&shared->changed, PG_WAIT_EXTENSION);
			ConditionVariableCancelSleep();
			inspect(name, -1, NULL);
			break;
		case FAILPOINT_ERROR:
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("failpoint \"%s\" reached", name)));
			break;
		case FAILPOINT_EXIT:
			proc_exit(1);
			break;
		case FAILPOINT_CRASH:
			kill(MyProcPid, SIGKILL);
			break;
	}
}

/*
 * Shall what is to be done here not work?  A test can also name one database:
 * name@oid.
 */
bool
ppl_failpoint_fails(const char *name)
{
	char		here[NAMEDATALEN];

	if (shared == NULL)
		return false;
	snprintf(here, sizeof(here), "%s@%u", name, MyDatabaseId);
	return inspect(name, 0, NULL) == FAILPOINT_FAIL ||
		inspect(here, 0, NULL) == FAILPOINT_FAIL;
}

static bool
set_action(const char *name, FailpointAction action)
{
	Failpoint  *target = NULL;

	SpinLockAcquire(&shared->mutex);
	for (int i = 0; i < PPL_MAX_FAILPOINTS; i++)
	{
		Failpoint  *point = &shared->points[i];

		if (strcmp(point->name, name) == 0)
		{
			target = point;
			break;
		}
		if (point->name[0] == '\0' && target == NULL)
			target = point;
	}
	if (target)
	{
		strlcpy(target->name, name, NAMEDATALEN);
		target->action = action;
	}
	SpinLockRelease(&shared->mutex);
	ConditionVariableBroadcast(&shared->changed);
	return target != NULL;
}

#else

Size
ppl_failpoint_shmem_size(void)
{
	return 0;
}

void
ppl_failpoint_shmem_init(void)
{
}

#endif

static void
check_available(void)
{
#ifdef PPL_FAILPOINTS
	if (shared == NULL)
#endif
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("failpoints are not available"),
				 errhint("Build with \"make FAILPOINTS=1\" and preload the library.")));
}

/*
 * _pipeline.failpoint_set(name text, action text)
 */
Datum
pipeline_failpoint_set(PG_FUNCTION_ARGS)
{
#ifdef PPL_FAILPOINTS
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *action = text_to_cstring(PG_GETARG_TEXT_PP(1));
#endif

	check_available();
#ifdef PPL_FAILPOINTS
	for (int i = 0; i < lengthof(action_names); i++)
	{
		if (strcmp(action, action_names[i]) != 0)
			continue;
		if (!set_action(name, (FailpointAction) i))
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("too many failpoints")));
		PG_RETURN_VOID();
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown failpoint action \"%s\"", action)));
#endif
	PG_RETURN_VOID();
}

/*
 * _pipeline.failpoint_wait(name text): waits until a process stands there.
 */
Datum
pipeline_failpoint_wait(PG_FUNCTION_ARGS)
{
#ifdef PPL_FAILPOINTS
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int			waiting;
#endif

	check_available();
#ifdef PPL_FAILPOINTS
	ConditionVariablePrepareToSleep(&shared->changed);
	for (;;)
	{
		inspect(name, 0, &waiting);
		if (waiting > 0)
			break;
		ConditionVariableSleep(&shared->changed, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
#endif
	PG_RETURN_VOID();
}
