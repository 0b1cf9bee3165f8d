# spike.sh - the part of the benchmark in which a table gets ten times its traffic for a
# while.  Sourced by run.

spike()
{
	local capacity calm events=200000 watch begun

	[ -z "$quick" ] || events=50000
	say "a spike of traffic: what the pipeline can do"
	with_extension
	sql -f "$top/test/bench/spike.sql" >/dev/null
	behind spike >/dev/null
	sql -c "SELECT pipeline.stop('spike')" >/dev/null
	sql -c "INSERT INTO spike_src (v) SELECT i FROM generate_series(1, $events) i" -c "CALL wait_for_capture()"
	timed 0 spike_alone "SELECT pipeline.start('spike');" \
		"SELECT 1 / pipeline.wait_for('spike', timeout => '10 min')::int;"
	capacity=$(sql -At -c "SELECT round($events / median('spike_alone'))")
	calm=$((capacity / 5))

	say "a spike of traffic: $calm rows a second, and ten times as many for $spike_seconds s"
	sql -c "CHECKPOINT" -c "CALL spike_write($calm, 2)"
	behind spike >/dev/null
	begun=$(sql -At -c "SELECT clock_timestamp()")
	sql -c "CALL spike_watch()" &
	watch=$!
	sql -c "CALL spike_write($calm, $((spike_seconds / 3 + 1)))"
	sql -v begun="$begun" -c "INSERT INTO figures SELECT 0, 'spike_from', extract(epoch FROM clock_timestamp() - '$begun')"
	sql -c "CALL spike_write($((10 * calm)), $spike_seconds)"
	sql -c "INSERT INTO figures SELECT 0, 'spike_to', extract(epoch FROM clock_timestamp() - '$begun')"
	sql -c "CALL spike_write($calm, $((spike_seconds * 2)))"
	behind spike >/dev/null
	sql -c "DROP TABLE spike_over"
	wait $watch || die "the watch failed"
	sql <<-END
		INSERT INTO figures SELECT 0, 'spike_capacity', $capacity;
		INSERT INTO figures SELECT 0, 'spike_calm', $calm;
		INSERT INTO figures SELECT 0, 'spike_lag', max(lag) FROM spike_samples;
		INSERT INTO figures SELECT 0, 'spike_behind', max(written - done) FROM spike_samples;
		INSERT INTO figures SELECT 0, 'spike_after',
			greatest(extract(epoch FROM coalesce(max(at) FILTER (WHERE lag >= 1), '$begun') - '$begun') - (SELECT median('spike_to')), 0)
		FROM spike_samples;
	END
	[ "$(sql -At -c "SELECT (SELECT count(*) FROM (SELECT id FROM spike_src EXCEPT ALL SELECT id FROM spike_dst) x)
		+ (SELECT count(*) FROM spike_dst) - (SELECT count(*) FROM spike_src)")" = 0 ] || die "rows were lost in the spike"
	sql -At -F ' ' -c "SELECT extract(epoch FROM at - '$begun')::numeric(9,2), lag::numeric(9,2), written, done
		FROM spike_samples ORDER BY at" |
		awk -v from="$(sql -At -c "SELECT median('spike_from')")" -v to="$(sql -At -c "SELECT median('spike_to')")" \
			-f "$top/test/bench/spike_svg.awk" >"$work/out/spike.svg"
	without_extension
}
