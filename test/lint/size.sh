#!/bin/sh
# size.sh - a file has at most 800 lines, a function 80, a lint script 40, and
# pipeline.c 150; the Makefile 120.
cd "$(dirname "$0")/../.." || exit
awk '
function limit(file)
{
	if (file == "src/pipeline.c") return 150
	if (file == "Makefile") return 120
	return file ~ /^test\/lint\// ? 40 : 800
}
function close_file()
{
	if (last_file != "" && lines > limit(last_file)) {
		printf "%s: %d lines, at most %d\n", last_file, lines, limit(last_file)
		failed = 1
	}
}
FNR == 1 { close_file(); last_file = FILENAME; name = ""; start = 0 }
{ lines = FNR }
# pgindent puts the name, the opening and the closing brace into column 1.
/^[a-zA-Z_][a-zA-Z0-9_]*\(/ { name = $0; sub(/\(.*/, "", name) }
/^{$/ { start = FNR }
/^}$/ && start && FILENAME ~ /\.c$/ {
	if (FNR - start - 1 > 80) {
		printf "%s:%d: %s has %d lines, at most 80\n", FILENAME, start, name, FNR - start - 1
		failed = 1
	}
	start = 0
}
END { close_file(); exit failed }' Makefile $(find src test/lint -name '*.[ch]' -o -name '*.sh' | sort)
