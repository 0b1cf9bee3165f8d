# w1.sh - the part of the benchmark that does the work W1 by every method.  Sourced by run.
#
# Each run has a database of its own, w1, a copy of w1_clean: nothing of one run is left for
# the next.  What belongs to a method is in w1/METHOD.sql.

w1_methods=${BENCH_METHODS:-alone statement batches_10000 batches_1000 pipeline pipeline_none trigger pgq
	replication replica_trigger watermark jobs alone_half pipeline_half}
second_port=5433

# Unpack PgQ beside the extension, so that nothing is installed; called as the user of make.
fetch_pgq()
{
	(cd "$work/tmp" && apt-get -q download "postgresql-${major:-15}-pgq3" &&
		dpkg -x postgresql-*-pgq3_*.deb "$work/stage") >"$work/out/pgq.log" 2>&1
	[ -f "$work/stage$("$PG_CONFIG" --sharedir)/extension/pgq.control" ] ||
		say "PgQ is skipped: the package postgresql-${major:-15}-pgq3 could not be had"
	rm -f "$work"/tmp/*.deb
}

w1_has()
{
	[ "$1" != pgq ] || [ -f "$work/stage$("$PG_CONFIG" --sharedir)/extension/pgq.control" ]
}

w1_sql()
{
	sql -d w1 "$@"
}

second_sql()
{
	sql -p $second_port -d "${database:-w1}" "$@"
}

w1_prepare()
{
	start_server second $second_port
	sql -c "CREATE DATABASE w1_clean"
	PGPORT=$second_port PGDATABASE=postgres sql -c "CREATE DATABASE w1_clean"
	for PGPORT in 5432 $second_port; do
		export PGPORT
		sql -d w1_clean -f "$top/test/bench/orders.sql" -f "$top/test/bench/w1/tables.sql"
	done
	export PGPORT=5432
}

# A new database for a method, with all that the method needs.
w1_begin()
{
	local method=$1 file=${1%_half} settings=""

	case $method in
		pipeline_none) file=pipeline settings="-v lineage=none" ;;
		pipeline*) file=pipeline settings="-v lineage=row" ;;
		batches_*) file=batches settings="-v size=${method#batches_}" ;;
	esac
	sql -c "CREATE DATABASE w1 TEMPLATE w1_clean"
	w1_sql -c "ALTER SEQUENCE orders_order_id_seq RESTART 1000000001"
	watch="host=$work;port=5432;dbname=w1"
	table=valid_orders
	servers=("$work/data")
	case $method in
		alone*|statement|batches*) table="" ;;
		replica*)
			database=w1_clean second_sql -d postgres -c "CREATE DATABASE w1 TEMPLATE w1_clean"
			watch="host=$work;port=$second_port;dbname=w1"
			[ "$method" != replication ] || table=orders
			servers+=("$work/second")
			;;
	esac
	[ "$file" = alone ] || w1_sql $settings -v second="host=$work port=$second_port dbname=w1" \
		-f "$top/test/bench/w1/$file.sql" >/dev/null
	consumer=""
	ending="UPDATE rival.state SET over = true"
	case "$(w1_sql -At -c "SELECT to_regproc('rival.consume'), to_regproc('rival.finish')")" in
		"|") ending="" ;;
		*"|rival.finish") ending="CALL rival.finish()" ;;
		*)
			w1_sql -c "CALL rival.consume()" &
			consumer=$!
			;;
	esac
	sql -c "CHECKPOINT"
	if [[ $method == replica* ]]; then
		w1_sql -c "CALL rival.finish()"	# the subscription takes seconds to begin
		second_sql -c "CHECKPOINT"
	fi
}

# Are the outputs those of the batch query?
w1_check()
{
	local what=$1 method=$2 run=w1_sql differences

	if [[ $method == replica* ]]; then
		run=second_sql
		second_sql -c "CREATE TABLE sent (LIKE orders)"
		w1_sql -c "COPY orders TO STDOUT" | second_sql -c "COPY sent FROM STDIN"
		differences=$(second_sql -At -c "SELECT differences('orders', 'sent')")
		[ "$differences" = 0 ] || die "$method is disqualified: $differences raw rows differ"
	fi
	case $method in
		alone*|replication) return ;;
	esac
	differences=$($run -At -c "SELECT differences('valid_orders', 'batch_valid') + differences('large_orders', 'batch_large')")
	[ "$differences" = 0 ] || die "$what is disqualified: $differences rows differ from the batch query's"
	[[ $method != pipeline* ]] || w1_sql -c "SELECT 1 / (count(*) = 2 AND bool_and(balanced))::int FROM pipeline.ledger('w1')" >/dev/null
}

w1_end()
{
	local method=$1

	if [[ $method == replica* ]]; then
		second_sql -c "ALTER SUBSCRIPTION w1 DISABLE" -c "ALTER SUBSCRIPTION w1 SET (slot_name = NONE)" \
			-c "DROP SUBSCRIPTION w1"
		second_sql -d postgres -c "DROP DATABASE w1 WITH (FORCE)"
		w1_sql -c "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_replication" \
			-c "SELECT pg_drop_replication_slot('w1')" >/dev/null
	fi
	[[ $method != pipeline* ]] || PGDATABASE=w1 without_extension
	sql -c "DROP DATABASE w1 WITH (FORCE)"
}

# Until all that was written is in the outputs.
w1_finish()
{
	[ -z "$ending" ] || w1_sql -c "$ending"
	[ -z "$consumer" ] || wait "$consumer" || die "$method failed"
}

# Processor seconds of the servers so far, those of processes that have ended included.
w1_processor()
{
	local server

	for server in "${servers[@]}"; do
		head -n 1 "$server/postmaster.pid"
	done | awk -v tick="$(getconf CLK_TCK)" '
		{ postmaster[$1] = 1 }
		END {
			while (("cat /proc/[0-9]*/stat 2>/dev/null" | getline) > 0)
				if ($4 in postmaster || $1 in postmaster)
					used += $14 + $15 + ($1 in postmaster ? $16 + $17 : 0)
			print used / tick
		}'
}

w1_wal()
{
	local server wal=0

	wal=$(sql -At -c "SELECT pg_current_wal_insert_lsn() - '0/0'")
	if [ ${#servers[@]} = 2 ]; then
		wal=$((wal + $(second_sql -At -c "SELECT pg_current_wal_insert_lsn() - '0/0'")))
	fi
	echo "$wal"
}

# Note the clock, the processor time and the WAL: reading NAME
reading()
{
	at[$1]=$EPOCHREALTIME
	cpu[$1]=$(w1_processor)
	wal[$1]=$(w1_wal)
}

start_probe()
{
	rm -f "$work/tmp/probe.ready"
	perl "$top/test/bench/probe.pl" --insert "host=$work;port=5432;dbname=${watch##*=}" --watch "$watch" \
		--table "$table" --ready "$work/tmp/probe.ready" "$@" >"$work/tmp/probe" &
	probe=$!
	until [ -e "$work/tmp/probe.ready" ]; do
		kill -0 $probe 2>/dev/null || die "the probe did not start"
		sleep 0.02
	done
}

# All orders of a writer by one method.  Whatever is not the writer's ends with the last
# order's row in the output; methods that work afterwards begin after VACUUM ANALYZE, which
# does not count.
w1_run()
{
	local round=$1 method=$2 count=$orders every=0 consumer ending probe watch table database
	local -a servers
	local -A at cpu wal

	say "round $round of $rounds: $method"
	if [[ $method == *_half ]]; then
		every=$(sql -At -c "SELECT 2 * 1000 * median('alone_load') / ($orders / 100.0)")
		count=$((orders / 2))
	fi
	w1_begin "$method"
	start_probe --prefix "$method"
	reading begun
	w1_sql -c "CALL write_orders(1, $count, $every)"
	at[written]=$EPOCHREALTIME
	kill -TERM $probe
	case $method in
		statement|batches*)
			wait $probe || die "the probe failed"
			reading written
			w1_sql -c "VACUUM ANALYZE orders"
			[ "$method" != batches_10000 ] || w1_decode "$round"
			reading later
			;;
	esac
	w1_finish
	at[done]=$EPOCHREALTIME
	[ -z "${at[later]:-}" ] && { wait $probe || die "the probe failed"; }
	cpu[done]=$(w1_processor)
	wal[done]=$(w1_wal)
	figure "$round" $(cat "$work/tmp/probe") $(
		awk -v m="$method" -v n="$count" -v begun="${at[begun]}" -v written="${at[written]}" \
			-v later="${at[later]:-${at[written]}}" -v over="${at[done]}" \
			-v cpu_begun="${cpu[begun]}" -v cpu_written="${cpu[written]:-0}" \
			-v cpu_later="${cpu[later]:-0}" -v cpu_done="${cpu[done]}" \
			-v wal="$((wal[done] - ${wal[later]:-0} + ${wal[written]:-0} - wal[begun]))" \
			-v probe="$(sed -n 's/.*_probe_cpu //p' "$work/tmp/probe")" '
			BEGIN {
				print m "_load", written - begun, m "_rest", over - later, m "_whole", over - later + written - begun
				print m "_cpu", cpu_done - cpu_later + cpu_written - cpu_begun - probe
				print m "_rest_cpu", cpu_done - cpu_later, m "_wal", wal / n
			}')
	figure "$round" $(w1_sql -At -F ' ' -c "SELECT '${method}_writer_mean', avg(ms), '${method}_writer_p99',
		percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) FROM writer_ms")
	[[ $method != pipeline* ]] || w1_lineage "$round" "$method"
	w1_check "$method" "$method"
	w1_end "$method"
}

# What decoding costs with built-in means, and how fresh lineage says that it was.
w1_decode()
{
	figure "$1" pgoutput_cpu "$(w1_sql -At <<-END
		SELECT used FROM processor('this') \gset
		SELECT count(*) FROM pg_logical_slot_peek_binary_changes('decode', NULL, NULL,
			'proto_version', '1', 'publication_names', 'decode') \g /dev/null
		SELECT used - :used FROM processor('this');
	END
	)"
}

w1_lineage()
{
	[ "$2" != pipeline_none ] || return 0
	figure "$1" $(w1_sql -At -F ' ' -c "SELECT '$2_lineage_p50', p[1], '$2_lineage_p99', p[2]
		FROM (SELECT percentile_cont(ARRAY[0.5, 0.99])
			WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM processed_at - committed_at)) AS p
			FROM pipeline.lineage WHERE output = 'large_orders') x")
}

# The pipeline is stopped while all orders are written, in transactions of 100 or in one.
w1_catch_up()
{
	local round=$1 kind=$2 method=pipeline consumer ending watch table database
	local -a servers

	say "round $round of $rounds: catching up, $kind"
	[ "$kind" != none ] || method=pipeline_none
	w1_begin $method
	w1_sql -c "SELECT pipeline.stop('w1')" >/dev/null
	if [ "$kind" = one ]; then
		w1_sql -c "INSERT INTO orders SELECT * FROM make_orders(1, $orders)"
	else
		w1_sql -c "CALL write_orders(1, $orders)"
	fi
	w1_sql -c "CALL wait_for_capture()"
	sql -c "CHECKPOINT"
	figure "$round" $(w1_sql -At -F ' ' <<-END
		SELECT 'catch_up_${kind}_capture_cpu', used FROM processor('capture');
		SELECT clock_timestamp() AS begun \gset
		SELECT pipeline.start('w1') \g /dev/null
		CALL rival.finish();
		SELECT 'catch_up_$kind', extract(epoch FROM clock_timestamp() - :'begun');
	END
	)
	w1_check "catching up" pipeline
	w1_end pipeline
}

# Single orders at a rate, and how fresh they are.
w1_single()
{
	local round=$1 method=$2 rate=$3 commit=$4 name lsn consumer ending probe watch table database
	local -a servers

	name=single_${rate}_${method}_$commit
	say "round $round of $rounds: $rate single orders a second, $method, synchronous_commit = $commit"
	w1_begin "$method"
	lsn=$(sql -At -c "SELECT pg_current_wal_insert_lsn()")
	export PGOPTIONS="-c synchronous_commit=$commit"
	start_probe --prefix "$name" --rate $probes --nap 50 --seconds "$paced_seconds"
	PGDATABASE=w1 bench paced -R "$rate" -T "$paced_seconds" -f "$top/test/bench/insert_order.sql" \
		-l --log-prefix="$work/tmp/paced"
	unset PGOPTIONS
	wait $probe || die "the probe failed"
	# what a transaction took once it had begun
	figure "$round" $(cat "$work/tmp/probe") $(cat "$work"/tmp/paced.* |
		awk '{ print ($3 - $7) / 1000 }' | sort -n | awk -v name="$name" '
			{ v[NR] = $1 }
			END {
				print name "_writer_p50", v[int(NR * 0.50 + 0.5)]
				print name "_writer_p99", v[int(NR * 0.99 + 0.5)]
			}')
	rm -f "$work"/tmp/paced.*
	w1_finish
	figure "$round" "${name}_wal" \
		"$(w1_sql -At -c "SELECT (pg_current_wal_insert_lsn() - '$lsn') / count(*) FROM orders")"
	w1_check "$name" "$method"
	w1_end "$method"
}

# A list, begun at another place each round, so that none is always first.
rotated()
{
	local by=$(($1 - 1)) list

	shift
	list=("$@")
	by=$((by % ${#list[@]}))
	echo "${list[@]:by}" "${list[@]:0:by}"
}

w1()
{
	local round method rate

	say "W1: preparing"
	w1_prepare
	for round in $(seq "$rounds"); do
		for method in $(rotated "$round" $w1_methods); do
			! w1_has "$method" || w1_run "$round" "$method"
		done
		for method in $(rotated "$round" row none one); do
			w1_catch_up "$round" "$method"
		done
		for rate in 300 2000; do
			for method in $(rotated "$round" alone:on pipeline:on replica_trigger:on pipeline:off); do
				w1_single "$round" "${method%:*}" $rate "${method#*:}"
			done
		done
	done
	"$bindir/pg_ctl" -D "$work/second" -m fast -w -s stop
	sql -At -c "SELECT label, median(m || '_whole') / median('alone_whole'),
			median(m || '_fresh_p50'), median(m || '_fresh_p99')
		FROM w1_methods WHERE median(m || '_whole') IS NOT NULL ORDER BY n" |
		awk -f "$top/test/bench/w1_svg.awk" >"$work/out/w1.svg"
}
