#!/bin/sh
# tests.sh - no sleeps in tests, nothing in expected files that differs from run
# to run, and each test has its expected output.
cd "$(dirname "$0")/../.." || exit
rc=0
bad=$(grep -rnE 'pg_sleep|usleep|(^|[^_a-z.])sleep *[(0-9;]' sql/*.sql test/isolation test/t test/perl 2>/dev/null)
[ -z "$bad" ] || { echo "sleep in a test:"; echo "$bad"; rc=1; }
bad=$(grep -nE '/tmp/|\b[0-9A-F]{1,8}/[0-9A-F]{4,8}\b|\b20[0-9]{2}-[01][0-9]-[0-3][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+' \
	expected/*.out test/isolation/expected/*.out 2>/dev/null)
[ -z "$bad" ] || { echo "path, LSN or time in expected output:"; echo "$bad"; rc=1; }
need()
{
	for file in $1/*.$2; do
		[ ! -f "$file" ] || [ -f "$3/$(basename "$file" ".$2").out" ] ||
			{ echo "$file has no expected output in $3"; rc=1; }
	done
}
need sql sql expected
need test/isolation/specs spec test/isolation/expected
for file in sql/*.sql test/isolation/specs/*.spec test/t/*.pl; do
	[ ! -f "$file" ] || head -n 1 "$file" | grep -qE '^(--|#)' ||
		{ echo "$file does not begin with a comment that says what it proves"; rc=1; }
done
exit $rc
