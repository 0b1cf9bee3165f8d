#!/bin/sh
# symbols.sh - the library exports what the server looks up, and nothing else.
cd "$(dirname "$0")/../.." || exit
[ -f pipeline.so ] || { echo "pipeline.so is not built"; exit 1; }
rc=0
extra=$(nm -D --defined-only pipeline.so | awk '{ print $3 }' |
	grep -vE '^(pipeline_.*|pg_finfo_pipeline_.*|_PG_init|_PG_output_plugin_init|Pg_magic_func)$')
[ -z "$extra" ] || { echo "exported without need:"; echo "$extra"; rc=1; }
for name in _PG_init Pg_magic_func; do
	nm -D --defined-only pipeline.so | grep -q " $name\$" ||
		{ echo "not exported: $name"; rc=1; }
done
# What the SQL parts name must be there, with its info record.
for name in $(sed -n "s/.*'MODULE_PATHNAME', *'\([^']*\)'.*/\1/p" sql/ext/[0-9]*.sql | sort -u); do
	[ "$(nm -D --defined-only pipeline.so | grep -cE " (pg_finfo_)?$name\$")" = 2 ] ||
		{ echo "named in sql/ext, not exported: $name"; rc=1; }
done
exit $rc
