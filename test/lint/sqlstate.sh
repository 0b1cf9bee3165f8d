#!/bin/sh
# sqlstate.sh - every ereport that raises an error has an errcode, and messages
# keep the style: no capital first letter, no final period.
cd "$(dirname "$0")/../.." || exit
awk '
function check()
{
	if (call ~ /ereport(_domain)?\((ERROR|FATAL|PANIC|elevel|level)/ && call !~ /errcode(_for_[a-z_]+)?\(/)
		bad("ereport without errcode")
	if (call ~ /errmsg(_plural)?\("[A-Z][a-z]/)
		bad("message begins with a capital letter")
	if (call ~ /errmsg\("[^"]*[^.]\."[,)]/)
		bad("message ends with a period")
	call = ""
}
function bad(text) { printf "%s:%d: %s\n", FILENAME, first, text; failed = 1 }
FNR == 1 { call = "" }
call == "" && /(^|[^a-z_])ereport\(/ && !/^[ \t]*(\/)?\*/ { first = FNR; collect = 1 }
collect {
	line = $0
	gsub(/^[ \t]+/, "", line)
	call = call line
	if (line ~ /;[ \t]*(\/\*.*\*\/)?$/) { collect = 0; check() }
}
END { exit failed }' $(find src -name '*.[ch]' | sort)
