# trouble.sh - parts of the benchmark that measure what failures cost.  Sourced by
# run.

# What bad events cost the pipeline that they are in.
bad_rows()
{
	local round kind every

	sql -f "$top/test/bench/trouble.sql"
	with_extension
	sql -c "ALTER SYSTEM SET pipeline.breaker_failures = 1" -c "SELECT pg_reload_conf()" >/dev/null
	for round in $(seq "$rounds"); do
		say "round $round of $rounds: bad rows"
		for kind in sql plpgsql deferred; do
			for every in 0 10000 1000 100 10 1; do
				[ $kind != deferred ] || [ $every = 0 ] || [ $every -ge 100 ] || continue
				sql -v round="$round" -v kind=$kind -v every=$every -v events="$readings" \
					-f "$top/test/bench/bad_rows.sql"
			done
		done
	done
	sql -c "ALTER SYSTEM RESET pipeline.breaker_failures" -c "SELECT pg_reload_conf()" >/dev/null
	without_extension
}

# How fresh one pipeline is beside another one that has a trouble.
neighbours()
{
	local round=$1 kind probe watch table

	for kind in healthy stopped broken poisoned hanging sleeping; do
		say "round $round of $rounds: beside a pipeline that is $kind"
		empty_tables
		with_extension
		define orders billing
		sql -c "SELECT pipeline.start('orders')" >/dev/null
		sql -v kind=$kind -f "$top/test/bench/neighbours.sql" >/dev/null
		watch="host=$work;port=5432;dbname=bench" table=billing
		start_probe --prefix "beside_$kind" --rate $probes --nap 50 --seconds "$beside_seconds"
		bench paced -R $pace -T "$beside_seconds" -f "$top/test/bench/insert_order.sql"
		wait $probe || die "the probe failed"
		figure "$round" $(cat "$work/tmp/probe")
		without_extension
	done
}
