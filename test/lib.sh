# shellcheck shell=bash disable=SC2154
# lib.sh - what test/run, test/demo/run and test/bench/run share; sourced.
#
# All work in a throw-away directory $work: a copy of the tree in src/, the
# staged installation in stage/, temporary files in tmp/, and what is worth
# keeping in out/.  The sourcing script sets $top (the tree) and defines die().

# Nothing of the caller's environment may lead to another server.
clean_environment()
{
	unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGOPTIONS
	unset PGDATA MAKEFLAGS MFLAGS MAKELEVEL
	export LC_ALL=C.UTF-8
}

# Make $work.
make_work()
{
	work=$(mktemp -d /tmp/ppl.XXXXXX) || exit
	chmod 755 "$work"
	mkdir "$work/out" "$work/src" "$work/tmp" "$work/stage"
	export work TMPDIR=$work/tmp
}

# ---- packages (Debian) -----------------------------------------------------

# A server and headers of different minor versions do not fit together, so
# they are installed or upgraded as one.  A new server gets no cluster.
# Arguments: further packages.
install_packages()
{
	local server="" missing="" package versions conf=""

	command -v dpkg-query apt-get >/dev/null || return 0
	[ -z "$major" ] ||
		server="postgresql-$major postgresql-client-$major postgresql-server-dev-$major"
	for package in $server gcc make libc6-dev "$@"; do
		dpkg-query -W -f '${db:Status-Status}' $package 2>/dev/null |
			grep -qx installed || missing="$missing $package"
	done
	versions=$(dpkg-query -W -f '${Version}\n' $server libpq5 2>/dev/null | sort -u | wc -l)
	if [ -n "$server" ] && { [ "$versions" -gt 1 ] || [[ $missing == *postgresql* ]]; }; then
		missing="$server libpq5 $missing"
	fi
	[ -n "$missing" ] || return 0

	if [ "$(id -u)" != 0 ]; then
		die "install these packages first (root would do it itself):$missing"
	fi
	echo "installing:$missing"
	if [ ! -d /etc/postgresql ]; then
		conf=/etc/postgresql-common/createcluster.d/pipeline-check.conf
		mkdir -p "${conf%/*}" && echo "create_main_cluster = false" >$conf
	fi
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } \
		>"$work/out/apt.log" 2>&1
	local rc=$?
	[ -z "$conf" ] || rm -f "$conf"
	if [ $rc != 0 ]; then
		tail -n 20 "$work/out/apt.log"
		die "could not install the packages"
	fi
}

# ---- server, user, build ---------------------------------------------------

# Set PG_CONFIG and bindir, after installing what is missing.
find_server()
{
	local default=/usr/lib/postgresql/15/bin/pg_config

	major=""
	: "${PG_CONFIG:=pg_config}"
	[ "$PG_CONFIG" != pg_config ] || ! command -v dpkg-query >/dev/null || PG_CONFIG=$default
	[[ ! $PG_CONFIG =~ ^/usr/lib/postgresql/([0-9]+)/bin/pg_config$ ]] || major=${BASH_REMATCH[1]}
	install_packages "$@"
	PG_CONFIG=$(command -v "$PG_CONFIG") || die "no pg_config; set PG_CONFIG=path"
	bindir=$("$PG_CONFIG" --bindir)
	export PG_CONFIG bindir
}

copy_tree()
{
	tar -C "$top" --exclude=./.git --exclude=./tmp_check --exclude='*.o' \
		--exclude='*.so' --exclude='*.d' --exclude=.build-flags -cf - . |
		tar -C "$work/src" --no-same-owner -xf - || die "could not copy the tree"
}

# Root hands $work to an unprivileged user, as whom step() runs everything.
choose_user()
{
	user=""
	as_user=(env)
	if [ "$(id -u)" = 0 ]; then
		user=$(getent passwd postgres nobody | head -n 1 | cut -d: -f1)
		chown -R "$user:" "$work"
		as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups
			env HOME="$work/tmp" USER="$user" LOGNAME="$user")
	fi
}

has_guc()
{
	"$bindir/postgres" --describe-config | grep -q "^$1	"
}

# Settings with which a server finds the staged files, one a line.
staged_conf()
{
	local stage=$1

	if has_guc extension_destdir; then
		echo "extension_destdir = '$stage'"
		echo "dynamic_library_path = '$stage$("$PG_CONFIG" --pkglibdir):\$libdir'"
	elif has_guc extension_control_path; then
		echo "extension_control_path = '$stage$("$PG_CONFIG" --sharedir):\$system'"
		echo "dynamic_library_path = '$stage$("$PG_CONFIG" --pkglibdir):\$libdir'"
	fi
}

# Build the copy and stage it; $work/staged.conf leads a server there.
# Arguments: variables for make.
build_and_stage()
{
	local build=(make -C "$work/src" PG_CONFIG="$PG_CONFIG" "$@")
	local install=("${build[@]}" install)

	echo "building for $("$PG_CONFIG" --version)"
	if ! step "${build[@]}" -j "$(nproc 2>/dev/null || echo 2)" all >"$work/out/build.log" 2>&1; then
		tail -n 30 "$work/out/build.log"
		die "the build failed"
	fi
	grep -h 'warning:' "$work/out/build.log"
	staged_conf "$work/stage" >"$work/staged.conf"
	if [ -s "$work/staged.conf" ]; then
		step "${install[@]}" DESTDIR="$work/stage" >>"$work/out/build.log" 2>&1 || {
			tail -n 30 "$work/out/build.log"
			die "could not stage the build"
		}
	else
		# A server that can load extensions from its own prefix only.
		"${install[@]}" >>"$work/out/build.log" 2>&1 || {
			tail -n 30 "$work/out/build.log"
			die "could not install into the server's prefix"
		}
	fi
	[ -z "$user" ] || chown "$user:" "$work/staged.conf"
}

# ---- steps and their end ---------------------------------------------------

# A step as the unprivileged user, in a process group of its own, so that an
# interrupt ends all of it.
step()
{
	set -m
	"${as_user[@]}" "$@" </dev/null &
	child=$!
	set +m
	wait "$child"
	local rc=$?
	child=""
	return $rc
}

# End the step under way.
end_step()
{
	[ -n "${child:-}" ] || return 0
	kill -TERM -- "-$child" 2>/dev/null
	wait "$child" 2>/dev/null
	child=""
}

# End the servers whose data are in $work.
stop_servers()
{
	local file pid

	find "$work" -name postmaster.pid 2>/dev/null | while read -r file; do
		pid=$(head -n 1 "$file")
		[[ $(readlink "/proc/$pid/cwd") == "$work"/* ]] || continue
		kill -QUIT "$pid" 2>/dev/null && timeout 30 tail -s 0.1 --pid="$pid" -f /dev/null
	done
}
