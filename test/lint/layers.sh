#!/bin/sh
# layers.sh - the include table of docs/conventions.md: who may include whom.
cd "$(dirname "$0")/../.." || exit
awk '
BEGIN {
	may["base"] = "base"; may["catalog"] = "base catalog"; may["spool"] = "base spool"
	may["capture"] = "base spool catalog backlog/lost.h backlog/store.h stream/message.h capture"; may["backlog"] = "base spool catalog backlog"; may["stream"] = "base spool catalog stream"
	may["aggregate"] = "base catalog aggregate"
	may["worker"] = "base spool catalog aggregate backlog/lost.h backlog/store.h stream/message.h worker"
	may["launcher"] = "base spool catalog launcher"
	may["api"] = "base catalog spool backlog capture aggregate stream worker launcher api"
	may["pipeline.c"] = may["api"]
	# Headers of the server that only some layers may use.
	only["replication/"] = only["access/xlogreader.h"] = "capture"; except["replication/message.h"] = "base stream"; except["replication/origin.h"] = "base"
	only["executor/spi.h"] = "worker aggregate catalog"
	only["foreign/fdwapi.h"] = "stream"
}
function bad(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; failed = 1 }
function ours(name) { close("src/" name); return (getline line < ("src/" name)) > 0 }
function has(list, word) { return index(" " list " ", " " word " ") > 0 }
FNR == 1 {
	split(FILENAME, part, "/"); layer = part[2]; count = 0
	if (!(layer in may)) bad("not in the table: " layer)
}
/^[ \t]*#[ \t]*include[ \t]*["<]/ {
	split($0, quoted, /["<>]/)
	name = quoted[2]
	count++
	if (FILENAME ~ /\.c$/ && (count == 1 && name != "postgres.h" ||
							  count == 2 && name != "base/compat.h"))
		bad("the first includes are postgres.h and base/compat.h")
	for (header in only)
		if (index(name, header) == 1 && !has(only[header], layer) && !has(except[name], layer))
			bad(layer " may not include " name)
	split(name, part, "/")
	if (!has(may[layer], part[1]) && !has(may[layer], name) && part[1] in may && ours(name) ||
		layer == "api" && name ~ /^(capture|worker|backlog)\/main\.h$/)
		bad(layer " may not include " name)
}
END { exit failed }' $(find src -name '*.[ch]' | sort)
