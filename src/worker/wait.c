/*
 * wait.c
 *		A worker that has events and cannot go on waits.
 *
 * Runs outside transactions.  New events do not shorten the wait, but what may
 * be the repair does: a change of any definition or object, of the settings, or
 * a word about dead letters, whose control record lies behind the events that
 * the worker cannot process.  If others wait for a process, it does not wait but
 * ends; then capture and the launcher shorten the time until its successor comes.
 */
#include "postgres.h"
#include "base/compat.h"

#include "utils/inval.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/process.h"
#include "worker/turn.h"
#include "worker/wait.h"

/*
 * Wait for so many milliseconds, or until there is a reason to look again.  Any
 * change of an object may be the repair; but on a server where objects change
 * all the time, the more of these were none, the longer it takes to believe one.
 */
PplWaitEnd
ppl_wait(PplWorker *worker, int64 delay)
{
	int64		begin = ppl_clock_ms();
	TimestampTz reloaded_at = PgReloadTime;
	bool		shortened = false;

	(void) ppl_program_objects_changed();
	for (;;)
	{
		int64		passed = ppl_clock_ms() - begin;
		uint32		repairs = pg_atomic_read_u32(&worker->consumer->repairs);
		TransactionId letters = pg_atomic_read_u32(&worker->consumer->letters_xid);

		if (ppl_worker_disturbed(worker))
			return PPL_WAIT_DISTURBED;
		if (letters != worker->letters_seen)
		{
			worker->letters_seen = letters;
			return PPL_WAIT_LETTERS;
		}
		pg_read_barrier();
		AcceptInvalidationMessages();
		if (!shortened && ppl_program_objects_changed())
		{
			shortened = true;
			delay = Min(delay, (int64) PPL_REPAIR_MS <<
						Min(worker->shortcuts++, PPL_REPAIR_SHIFT));
		}
		if (passed >= delay || PgReloadTime != reloaded_at)
			return PPL_WAIT_OVER;
		ppl_turn_spare(worker, delay - passed, repairs);
		ppl_process_wait_spare((long) (delay - passed));
	}
}
