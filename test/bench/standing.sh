# standing.sh - the part of the benchmark that measures what a pipeline that
# stands keeps of the WAL.  Sourced by run.

# One row of the table: figures at a step, after a checkpoint.
kept_at()
{
	local step=$1

	sql -c "CHECKPOINT"
	figure "$step" $(sql -At -F ' ' -v begun="$2" <<-END
		SELECT 'kept_written', pg_current_wal_insert_lsn() - :'begun',
			'kept_pg_wal', (SELECT sum(size) FROM pg_ls_waldir()),
			'kept_retained', max(retained_wal_bytes), 'kept_backlog', max(backlog_bytes)
		FROM pipeline.status WHERE pipeline = 'standing';
	END
	)
}

# Orders are written while one of two pipelines is stopped; then it starts again.
standing()
{
	local step=0 first=1 begun wal

	say "WAL kept while a pipeline stands: $kept_mb MB are written"
	empty_tables
	with_extension
	sql -c "CREATE TABLE standing (LIKE billing INCLUDING ALL)"
	define orders billing
	define standing standing
	sql -c "SELECT pipeline.start('orders'), pipeline.start('standing')" >/dev/null
	behind standing >/dev/null
	sql -c "SELECT pipeline.stop('standing')" \
		-c "ALTER SYSTEM SET pipeline.max_retained_wal = '$((kept_mb / 8))MB'" \
		-c "ALTER SYSTEM SET max_wal_size = '$((kept_mb / 8 + 32))MB'" \
		-c "ALTER SYSTEM SET min_wal_size = '32MB'" -c "SELECT pg_reload_conf()" >/dev/null
	begun=$(sql -At -c "SELECT pg_current_wal_insert_lsn()")
	kept_at 0 "$begun"
	for step in $(seq 8); do
		while :; do
			sql -c "CALL write_orders($first, $((first + 9999)))"
			first=$((first + 10000))
			wal=$(sql -At -c "SELECT (pg_current_wal_insert_lsn() - '$begun')::bigint / 1048576")
			[ "$wal" -lt $((kept_mb * step / 8)) ] || break
		done
		kept_at "$step" "$begun"
	done
	behind orders >/dev/null
	kept_at 9 "$begun"
	figure 0 kept_rows "$((first - 1))"
	timed 0 kept_again "SELECT pipeline.start('standing');" \
		"SELECT 1 / pipeline.wait_for('standing', timeout => '10 min')::int;"
	kept_at 10 "$begun"
	sql -c "CALL in_one_statement()"
	check 0 billing busy
	check 0 standing standing
	sql -c "ALTER SYSTEM RESET pipeline.max_retained_wal" -c "ALTER SYSTEM RESET max_wal_size" \
		-c "ALTER SYSTEM RESET min_wal_size" -c "SELECT pg_reload_conf()" >/dev/null
	without_extension
	sql -c "DROP TABLE standing"
}
