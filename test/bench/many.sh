# many.sh - the part of the benchmark that measures many pipelines on few
# processes, and how busy a source keeps capture.  Sourced by run.

many_few=12
many_rows=100

# Start or restart the server with settings of this part; seconds until capture of
# the database says that it is ready.
many_restart()
{
	local what=$1 begun

	"$bindir/pg_ctl" -D "$work/data" -w -s -m fast stop || die "the server did not stop"
	begun=$(date +%s%N)
	"$bindir/pg_ctl" -D "$work/data" -w -s -l "$work/out/server.log" start || die "the server did not start"
	while [ "$(sql -At -c "SELECT state FROM _pipeline.databases() d JOIN pg_database b ON b.oid = d.database
		WHERE datname = current_database()")" != ready ]; do
		sleep 0.01
	done
	figure 0 "$what" "$(((($(date +%s%N) - begun)) / 1000000))"
}

# How often our processes wake up in some seconds, and the processor time they use.
many_wakeups()
{
	local pid total=0

	for pid in $(sql -At -c "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pipeline %'"); do
		total=$((total + $(sed -n 's/^voluntary_ctxt_switches:\s*//p' "/proc/$pid/status")))
	done
	echo $total
}

# Milliseconds of a query, the best of five.
many_time()
{
	sql -At -c '\timing on' -c "$1" -c "$1" -c "$1" -c "$1" -c "$1" -o /dev/null |
		sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | sort -n | head -n 1
}

# Processor milliseconds of capture while rows of one table become events: so many
# transactions of so many rows.
many_fan_out()
{
	local transactions=$1 rows=$2 used

	sql -c "CALL many_wait()"
	used=$(sql -At -c "SELECT used FROM processor('capture')")
	"$bindir/pgbench" -n -M prepared -c 4 -j 2 -t $((transactions / 4)) -D rows="$rows" -f "$top/test/bench/many_row.sql" \
		>"$work/out/fan.log" 2>&1 || { tail -n 5 "$work/out/fan.log"; die "pgbench failed"; }
	sql -c "CALL many_wait()"
	sql -At -c "SELECT 1000 * (used - $used) FROM processor('capture')"
}

# The same of pipelines that are stopped, whose outputs capture has not to read past.
many_decode()
{
	local used

	sql -c "SELECT count(pipeline.stop(pipeline)) FROM pipeline.status WHERE pipeline LIKE 'fan\_%'" -c "CALL wait_for_capture()" >/dev/null
	used=$(sql -At -c "SELECT used FROM processor('capture')")
	"$bindir/pgbench" -n -M prepared -c 4 -j 2 -t $((many / 4)) -D rows=200 -f "$top/test/bench/many_row.sql" \
		>"$work/out/fan.log" 2>&1 || { tail -n 5 "$work/out/fan.log"; die "pgbench failed"; }
	sql -c "CALL wait_for_capture()"
	sql -At -c "SELECT 1000 * (used - $used) FROM processor('capture')"
	sql -c "SELECT count(pipeline.start(pipeline)) FROM pipeline.status WHERE pipeline LIKE 'fan\_%'" >/dev/null
}

many()
{
	local wakeups

	say "many pipelines: $many on $many_sources tables"
	with_extension
	sql -f "$top/test/bench/many.sql"
	sql -c "ALTER SYSTEM SET max_worker_processes = 16" -c "ALTER SYSTEM SET pipeline.worker_idle_timeout = '1s'"
	sql -c "CALL many_tables('few', $many_few, $many_few)" -c "CALL many_tables('fan', 1, 20)" \
		-c "CALL many_tables('many', $many_sources, $many)"
	many_restart many_start_none
	sql -c "CALL many_define('many', $many_sources, 1, $many)" >/dev/null 2>&1 || die "could not declare"
	sql -c "CALL many_wait()"
	many_restart many_start_all
	sql -c "ANALYZE"
	figure 0 many_shared "$(sql -At -c "SELECT size FROM pg_shmem_allocations WHERE name = 'pipeline'")" \
		many_segments "$(sql -At -c "SHOW pipeline.max_segments")" \
		many_status "$(many_time 'SELECT * FROM pipeline.status')" \
		many_health "$(many_time 'SELECT * FROM pipeline.health()')" \
		many_ping "$(many_time 'SELECT 1')"

	say "many pipelines: idle, then a few"
	while [ "$(sql -At -c "SELECT count(*) FROM pipeline.workers")" != 0 ]; do sleep 0.1; done
	sleep 2
	wakeups=$(many_wakeups)
	sleep 5
	figure 0 many_wakeups "$(($(many_wakeups) - wakeups))" \
		many_processes "$(sql -At -c "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pipeline %'")"
	timed 0 many_one "INSERT INTO many_src_1 SELECT 0, 0;" "SELECT pipeline.wait_for('many_1', timeout => '1 min');"
	sql -c "CALL many_wait()"
	figure 0 many_woken "$(sql -At -c "SELECT count(*) FROM _pipeline.consumers() WHERE batches > 0")"

	say "many pipelines: all busy at once"
	sql -c "CALL many_define('few', $many_few, 1, $many_few)" >/dev/null 2>&1 || die "could not declare"
	sql -c "CALL many_wait()" -c "CHECKPOINT"
	sql -c "CALL many_burst('few', $many_few, 1, $((many_rows * many / many_few)))"
	sql -c "CHECKPOINT"
	sql -c "CALL many_burst('many', $many_sources, 1, $many_rows)"
	[ "$(sql -At -c "SELECT many_wrong('few', $many_few, $many_few) + many_wrong('many', $many_sources, $many)")" = 0 ] ||
		die "outputs of many pipelines are wrong"

	say "many pipelines: one and twenty on one table"
	sql -c "CALL many_define('fan', 1, 1, 1)" >/dev/null 2>&1 || die "could not declare"
	many_fan_out 2000 1 >/dev/null
	figure 0 fan_one "$(many_fan_out $((many * 20)) 1)" fan_one_bulk "$(many_fan_out "$many" 200)" \
		fan_one_decode "$(many_decode)"
	sql -c "CALL many_define('fan', 1, 2, 20)" >/dev/null 2>&1 || die "could not declare"
	many_fan_out 2000 1 >/dev/null
	figure 0 fan_twenty "$(many_fan_out $((many * 20)) 1)" fan_twenty_bulk "$(many_fan_out "$many" 200)" \
		fan_twenty_decode "$(many_decode)"
	sql -c "CALL many_wait()"
	[ "$(sql -At -c "SELECT count(*) FROM fan_dst_20")" -ge $((many * 20)) ] || die "rows are missing in the fan"

	without_extension
	sql -c "ALTER SYSTEM RESET max_worker_processes" -c "ALTER SYSTEM RESET pipeline.worker_idle_timeout"
	"$bindir/pg_ctl" -D "$work/data" -w -s -m fast stop || die "the server did not stop"
	"$bindir/pg_ctl" -D "$work/data" -w -s -l "$work/out/server.log" start || die "the server did not start"
}
