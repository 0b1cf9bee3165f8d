#!/bin/sh
# reference.sh - docs/reference.md has every function, view, column and setting
# of the source, and no heading or setting that the source has not.
cd "$(dirname "$0")/../.." || exit
awk '
FILENAME == "docs/reference.md" {
	if (/^#/) section = ""
	if (/^### /) {
		rest = $0
		while (match(rest, /pipeline\.[a-z_]+\(?/)) {
			section = substr(rest, RSTART, RLENGTH)
			has[section] = FNR
			rest = substr(rest, RSTART + RLENGTH)
		}
	} else if (/^\| `/) {
		split($0, cell, "|")
		n = split(cell[2], name, "`")
		for (i = 2; i <= n; i += 2)
			has[name[i] ~ /^pipeline\./ ? name[i] : section " " name[i]] = FNR
	}
	next
}
/^CREATE FUNCTION pipeline\.[a-z]/ || /DefineCustom[A-Za-z]*Variable\(/ {
	match($0, /pipeline\.[a-z_]+\(?/)
	needs[substr($0, RSTART, RLENGTH)] = 1
}
/^CREATE VIEW pipeline\./ { view = $3; needs[view] = 1 }
/^FROM / && view != "" { needs[view " " column] = 1; view = "" }
view != "" && /^(SELECT |\t[^\t])/ {		# a column, if it ends with a comma
	column = $NF
	sub(/^.*\./, "", column)
	if (sub(/,$/, "", column)) needs[view " " column] = 1
}
END {
	for (item in needs) if (!(item in has))
		{ print "docs/reference.md lacks " item; failed = 1 }
	for (item in has) if (item ~ /^pipeline\.[a-z_]+\(?$/ && !(item in needs))
		{ print "docs/reference.md:" has[item] ": " item " does not exist"; failed = 1 }
	exit failed
}' docs/reference.md sql/ext/*.sql src/base/guc.c
