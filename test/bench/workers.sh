# workers.sh - the part of the benchmark that measures what several workers do.
# Sourced by run.

# The same orders through 1, 2 and 4 workers: by a handler that waits, by one that
# computes, and by none, where what a worker spends on events of others shows.
workers()
{
	local round kind n count

	say "workers: 1, 2 and 4 of them"
	empty_tables
	with_extension
	sql -f "$top/test/bench/workers.sql" >/dev/null
	for round in $(seq "$rounds"); do
		for kind in waits computes passes; do
			count=$((orders / 1000))
			[ "$kind" != computes ] || count=$((orders / 100))
			[ "$kind" != passes ] || count=$orders
			for n in 1 2 4; do
				sql -v kind="$kind" -v n="$n" -v count="$count" -v round="$round" \
					-f "$top/test/bench/workers_run.sql" >/dev/null
			done
		done
	done
	without_extension
	sql -c "SET client_min_messages = warning" -c "DROP TABLE work, worked CASCADE"
}
