# streams.sh - the part of the benchmark that measures how fast rows go into a
# stream and, decoded, out of it.  Sourced by run.

# One statement into the table or the stream, after which capture decodes it.
# into ROUND KIND HOW SQL
into()
{
	local round=$1 what=into_$2_$3 used

	[ "$2" = stream ] || sql -c "TRUNCATE stream_rival"
	sql -c "CALL wait_for_capture()" -c "CHECKPOINT"
	used=$(sql -At -c "SELECT used FROM processor('pipeline')")
	timed "$round" "$what" "$4;"
	sql -c "CALL wait_for_capture()"
	figure "$round" "${what}_capture" \
		"$(sql -At -c "SELECT used - $used FROM processor('pipeline')")"
}

# The same rows into an ordinary table without an index, and into a stream with the
# same columns.  A pipeline over each, which stands, has capture decode them.
streams()
{
	local round kinds kind

	say "streams: $orders rows by INSERT ... SELECT and by COPY"
	empty_tables
	sql -c "CALL write_orders(1, $orders)" -c "VACUUM ANALYZE orders" \
		-c "COPY orders TO '$work/tmp/orders.csv' (FORMAT csv)"
	with_extension
	sql -f "$top/test/bench/streams.sql" >/dev/null
	for round in $(seq "$rounds"); do
		kinds="table stream"
		[ $((round % 2)) = 1 ] || kinds="stream table"
		for kind in $kinds; do
			local name=stream_rival
			[ "$kind" = table ] || name=order_stream
			into "$round" "$kind" insert "INSERT INTO $name SELECT * FROM orders"
			into "$round" "$kind" copy "COPY $name FROM '$work/tmp/orders.csv' (FORMAT csv)"
		done
	done
	without_extension
	sql -c "DROP TABLE stream_rival, stream_output"
}
