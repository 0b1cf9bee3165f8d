# PipelineTest.pm - a PostgreSQL::Test::Cluster with what tests of pipeline need.
#
#   use PipelineTest;
#   use Test::More;
#
#   my $node = PipelineTest->start_new('main', conf => "wal_keep_size = 1GB\n");
#   $node->safe_psql('postgres', q{SELECT pipeline.create_pipeline(...)});
#   $node->caught_up('p');
#   $node->same_rows('TABLE target', 'SELECT ... FROM source', 'target is right');
#   done_testing();
#
# Every wait has a timeout (PG_TEST_TIMEOUT_DEFAULT, 180 s) and prints the state
# of the pipelines when it ends in vain.  Functions that test something take the
# name of the test last and return whether it passed.  The database is the
# option "db", "postgres" unless given.

package PipelineTest;

use strict;
use warnings;

use parent 'PostgreSQL::Test::Cluster';

use File::Basename qw(dirname);
use File::Find ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $conf_file = dirname(__FILE__) . '/../conf/pipeline.conf';

# ---- nodes -------------------------------------------------------------------

# A node with test/conf/pipeline.conf, not started.  Options: conf => text for
# postgresql.conf, all others go to init().
sub init_new
{
	my ($class, $name, %opt) = @_;
	my $conf = delete $opt{conf} // '';
	my $node = $class->new($name);

	$node->init(allows_streaming => 'logical', extra => ['--no-locale', '-E', 'UTF8'],
		%opt);
	$node->append_conf('postgresql.conf', <<"CONF");
@{[ slurp_file($conf_file) ]}
max_connections = 50
restart_after_crash = on
log_statement = none
log_replication_commands = off
$conf
CONF
	return $node;
}

# The same, started, with the extension in database "postgres" unless
# extension => 0.
sub start_new
{
	my ($class, $name, %opt) = @_;
	my $extension = delete $opt{extension} // 1;
	my $node = $class->init_new($name, %opt);

	$node->start;
	$node->create_extension if $extension;
	return $node;
}

# CREATE EXTENSION, and wait until the slot of the database is there.
sub create_extension
{
	my ($self, %opt) = @_;
	my $db = $opt{db} // 'postgres';

	$self->safe_psql($db, 'CREATE EXTENSION pipeline');
	$self->poll(
		q{SELECT EXISTS (SELECT FROM pg_replication_slots
		   WHERE database = current_database() AND slot_name LIKE 'pipeline\_%'
		     AND confirmed_flush_lsn IS NOT NULL)},
		db => $db,
		what => "the slot of database $db");
	return;
}

sub create_database
{
	my ($self, $db, %opt) = @_;

	$self->safe_psql('postgres', "CREATE DATABASE $db");
	$self->create_extension(db => $db) if $opt{extension} // 1;
	return;
}

# One value, from a statement that must work.
sub value
{
	my ($self, $sql, %opt) = @_;

	return $self->safe_psql($opt{db} // 'postgres', $sql);
}

# ---- waiting -----------------------------------------------------------------

# Poll until sql gives expected ('t').  Works through restarts of the server.
# Dies with the state of the pipelines after the timeout.
sub poll
{
	my ($self, $sql, %opt) = @_;
	my $db = $opt{db} // 'postgres';

	# psql may find no server, and end before it is told the query.
	for (1 .. 100)
	{
		return 1 if eval { $self->poll_query_until($db, $sql, $opt{expected} // 't') };
		last if $@ !~ /Broken pipe/;
	}
	$self->show_state(db => $db);
	die 'timed out waiting for ' . ($opt{what} // $sql);
}

# Wait until all that is committed so far went through the pipeline.  Asks
# again when the server restarts meanwhile.
sub caught_up
{
	my ($self, $pipeline, %opt) = @_;

	return $self->poll(
		"SELECT pipeline.wait_for(\$p\$$pipeline\$p\$, timeout => '200 ms')",
		%opt,
		what => "pipeline \"$pipeline\" to catch up");
}

# Wait for a state in pipeline.status; state may be an alternative like 'a|b'.
sub reached
{
	my ($self, $pipeline, $state, %opt) = @_;

	return $self->poll(
		"SELECT state ~ '^($state)\$' FROM pipeline.status WHERE pipeline = \$p\$$pipeline\$p\$",
		%opt,
		what => "pipeline \"$pipeline\" to be $state");
}

# Let time go by: a statement that waits for a lock which nobody gives it.
# For tests that nothing happens meanwhile.
sub let_pass
{
	my ($self, $seconds, %opt) = @_;
	my $db = $opt{db} // 'postgres';
	my $holder = $self->background_psql($db);
	my ($err);

	$holder->query_safe('SELECT pg_advisory_lock(20150213)');
	$self->psql($db, "SET lock_timeout = '$seconds s'; SELECT pg_advisory_lock(20150213)",
		stderr => \$err);
	$holder->quit;
	die "no lock timeout: $err" if $err !~ /lock timeout/;
	return;
}

# What one wants to know when a wait was in vain.
sub show_state
{
	my ($self, %opt) = @_;
	my $db = $opt{db} // 'postgres';

	for my $sql (
		'TABLE pipeline.status',
		'TABLE pipeline.workers',
		'SELECT pipeline, id, stage, kind, reason, sqlstate, detail, state
		   FROM pipeline.dead_letters ORDER BY id DESC LIMIT 5',
		'SELECT slot_name, active_pid, restart_lsn, confirmed_flush_lsn, wal_status,
		        pg_current_wal_lsn(), pg_current_wal_flush_lsn()
		   FROM pg_replication_slots',
		q{SELECT pid, backend_type, datname, state, wait_event_type, wait_event,
		         left(query, 60) AS query
		    FROM pg_stat_activity WHERE pid <> pg_backend_pid()})
	{
		my ($out, $err);

		$self->psql($db, $sql, stdout => \$out, stderr => \$err,
			extra_params => [ '-P', 'format=aligned', '-P', 'tuples_only=off', '-x' ]);
		diag "$sql\n$out$err";
	}
	my @log = split /\n/, slurp_file($self->logfile);
	diag join "\n", 'last lines of the log:', @log[ ($#log > 30 ? -30 : -@log) .. -1 ];
	return;
}

# ---- failpoints (builds with FAILPOINTS=1) -----------------------------------

# Skip all tests of the file where the build has no failpoints.
sub need_failpoints
{
	my ($self) = @_;
	my ($rc) = $self->psql('postgres',
		q{SELECT _pipeline.failpoint_set('none', 'off')}, stdout => \my $out, stderr => \my $err);

	plan skip_all => 'needs a build with FAILPOINTS=1' if $rc != 0;
	return;
}

# action: off, wait, error, exit or crash
sub failpoint_set
{
	my ($self, $name, $action, %opt) = @_;

	my $sql = "SELECT _pipeline.failpoint_set('$name', '$action')";

	# The crash may come before this session has got its answer.
	if ($action eq 'crash')
	{
		$self->psql($opt{db} // 'postgres', $sql);
	}
	else
	{
		$self->safe_psql($opt{db} // 'postgres', $sql);
	}
	return;
}

sub failpoint_clear
{
	my ($self, $name, %opt) = @_;

	return $self->failpoint_set($name, 'off', %opt);
}

# Return once a process stands at the failpoint.
sub failpoint_wait
{
	my ($self, $name, %opt) = @_;
	my $db = $opt{db} // 'postgres';
	my $timeout = $PostgreSQL::Test::Utils::timeout_default;
	my ($rc) = $self->psql($db,
		"SET statement_timeout = '${timeout}s'; SELECT _pipeline.failpoint_wait('$name')",
		stdout => \my $out, stderr => \my $err, on_error_stop => 1);

	return 1 if $rc == 0;
	$self->show_state(db => $db);
	die "no process came to failpoint \"$name\": $err";
}

# ---- processes ---------------------------------------------------------------

# Pid of a process by its backend_type ("pipeline capture"), or undef.  Without
# a database: of any.  With wait => 1 it waits until there is one.
sub process_pid
{
	my ($self, $type, %opt) = @_;
	my $sql = "FROM pg_stat_activity WHERE backend_type = '$type'"
	  . (defined $opt{db} ? " AND datname = '$opt{db}'" : '');

	$self->poll("SELECT count(*) > 0 $sql", what => "a process \"$type\"") if $opt{wait};
	my $pid = $self->safe_psql('postgres', "SELECT pid $sql ORDER BY random() LIMIT 1");
	return $pid eq '' ? undef : $pid;
}

# How often a process has waited so far: it stays the same while it is asleep.
sub wakeups
{
	my ($self, $pid) = @_;

	slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m
	  or die "no context switches of process $pid";
	return $1;
}

# Return when processes are asleep: none of them woke up within some seconds.
sub asleep
{
	my ($self, @pids) = @_;
	my $tries = $PostgreSQL::Test::Utils::timeout_default / 2;

	for (;;)
	{
		my @before = map { $self->wakeups($_) } @pids;
		$self->let_pass(1.2);
		return 1 if "@before" eq join ' ', map { $self->wakeups($_) } @pids;
		next if $tries-- > 0;
		$self->show_state;
		die "processes @pids do not fall asleep";
	}
}

# kill -9 one process.  The postmaster then restarts everything: returns after
# that, so that the next statement meets the new life of the server.  False if
# there was no such process.
sub kill9_process
{
	my ($self, $type, %opt) = @_;
	my $pid = $self->process_pid($type, %opt);

	return 0 unless defined $pid && kill('KILL', $pid);
	note "killed \"$type\" $pid";
	# The entry of a killed process leaves only with the old shared memory.
	$self->poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid",
		what => 'the restart after a crash');
	return 1;
}

# End one process the gentle way: it exits, the server goes on, and the
# launcher starts another one.
sub terminate_process
{
	my ($self, $type, %opt) = @_;
	my $pid = $self->process_pid($type, %opt);

	return 0 unless defined $pid;
	$self->safe_psql('postgres', "SELECT pg_terminate_backend($pid, 60000)");
	return 1;
}

# kill -9 of the postmaster.  Its children notice and end by themselves;
# returns when all are gone, so that start() finds the shared memory free.
# Where init is slow to reap, the dead postmaster would keep its lock files valid.
sub kill9_postmaster
{
	my ($self) = @_;
	my $pid = $self->{_pid};
	my @processes = ($pid, grep { (_process($_))[1] == $pid } _processes());
	my $tries = 100 * $PostgreSQL::Test::Utils::timeout_default;

	$self->kill9;
	for my $process (@processes)
	{
		while ((_process($process))[0] ne 'Z')
		{
			BAIL_OUT("process $process outlived the postmaster") if $tries-- == 0;
			select undef, undef, undef, 0.01;
		}
	}
	unlink $self->data_dir . '/postmaster.pid',
	  $self->host . '/.s.PGSQL.' . $self->port . '.lock';
	return;
}

# The same, and start again.
sub kill9_server
{
	my ($self) = @_;

	$self->kill9_postmaster;
	$self->start;
	return;
}

sub _processes
{
	return map { m{(\d+)} } glob '/proc/[0-9]*';
}

# State and parent of a process; one that is gone counts as a zombie of nobody.
sub _process
{
	my ($pid) = @_;

	open my $fh, '<', "/proc/$pid/stat" or return ('Z', 0);
	return (<$fh> // '') =~ /^\d+ .*\) (\S) (\d+) / ? ($1, $2) : ('Z', 0);
}

# ---- tests -------------------------------------------------------------------

# Two queries give the same rows, duplicates counted.
sub same_rows
{
	my ($self, $left, $right, @rest) = @_;
	my $name = pop @rest;
	my %opt = @rest;
	my $db = $opt{db} // 'postgres';
	my $differ = sub {
		my ($what, $one, $two) = @_;
		return "SELECT '$what', x::text FROM (($one) EXCEPT ALL ($two)) x";
	};
	my $rows = $self->safe_psql($db,
		'(' . $differ->('only left', $left, $right) . ' LIMIT 10) UNION ALL ('
		. $differ->('only right', $right, $left) . ' LIMIT 10)');

	return is($rows, '', $name);
}

# Every event of every output ended as exactly one thing.
sub ledger_balanced
{
	my ($self, $pipeline, $name, %opt) = @_;
	my $rows = $self->safe_psql($opt{db} // 'postgres',
		"SELECT * FROM pipeline.ledger(\$p\$$pipeline\$p\$) WHERE NOT balanced");

	return is($rows, '', $name);
}

# After DROP EXTENSION or DROP DATABASE: no slot, no process, no file of any
# database, unless oid => the database's oid limits it to that one.
sub nothing_left
{
	my ($self, $name, %opt) = @_;
	my $oid = $opt{oid};
	my $slot = defined $oid ? "pipeline_$oid" : 'pipeline_%';
	my $ok = $self->poll_query_until('postgres',
		    'SELECT (SELECT count(*) FROM pg_replication_slots'
		  . " WHERE slot_name LIKE '$slot') + (SELECT count(*) FROM pg_stat_activity"
		  . q{ WHERE backend_type LIKE 'pipeline %' AND backend_type <> 'pipeline launcher'
		     AND NOT (backend_type = 'pipeline mover' AND datid IS NULL)}
		  . (defined $oid ? " AND datid = $oid" : '') . ')',
		'0');
	my @files = $self->spool_files(defined $oid ? (oid => $oid) : ());

	diag "left: $_" for @files;
	return ok($ok && !@files, $name);
}

# The spool's files, relative to the data directory.
sub spool_files
{
	my ($self, %opt) = @_;
	my $data = $self->data_dir;
	my @files;

	File::Find::find(
		{
			no_chdir => 1,
			wanted => sub {
				my $file = substr($_, length($data) + 1);
				return unless -f $_ && $file =~ m{pgsql_tmp[^/]*pipeline};
				push @files, $file
				  if !defined $opt{oid} || $file =~ m{pipeline[._]?$opt{oid}\b};
			}
		},
		"$data/base/pgsql_tmp") if -d "$data/base/pgsql_tmp";
	return sort @files;
}

# All that a catalog says about the extension, as text without oids; two
# databases with the same version give the same.
sub fingerprint
{
	my ($self, %opt) = @_;

	return $self->safe_psql($opt{db} // 'postgres', <<'SQL');
SET search_path = pg_catalog;
WITH member AS (
  SELECT d.classid, d.objid
    FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
   WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
     AND e.extname = 'pipeline'),
rel AS (
  SELECT c.* FROM pg_class c JOIN member m
      ON m.classid = 'pg_class'::regclass AND m.objid = c.oid),
line(kind, what) AS (
  SELECT 'object', pg_describe_object(classid, objid, 0)
         || coalesce(' -- ' || obj_description(objid, classid::regclass::name), '')
    FROM member
  UNION ALL
  SELECT 'function', pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '')
    FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
   WHERE p.prokind IN ('f', 'p')
  UNION ALL
  SELECT 'relation', concat_ws(' ', oid::regclass, relkind, relpersistence, relrowsecurity,
                               reloptions, relacl, pg_get_viewdef(oid))
    FROM rel
  UNION ALL
  SELECT 'column', concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod),
                             attnotnull, attidentity, attgenerated, attstorage, attacl,
                             pg_get_expr(d.adbin, d.adrelid), col_description(attrelid, attnum))
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE attrelid IN (SELECT oid FROM rel) AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT 'constraint', concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid IN (SELECT oid FROM rel)
  UNION ALL
  SELECT 'index', pg_get_indexdef(indexrelid)
    FROM pg_index WHERE indrelid IN (SELECT oid FROM rel)
  UNION ALL
  SELECT 'policy', concat_ws(' ', polrelid::regclass, polname, polcmd,
                             pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
    FROM pg_policy WHERE polrelid IN (SELECT oid FROM rel)
  UNION ALL
  SELECT 'schema', concat_ws(' ', nspname, nspacl) FROM pg_namespace
   WHERE nspname IN ('pipeline', '_pipeline')
  UNION ALL
  SELECT 'dumped', concat_ws(' ', c::regclass, w)
    FROM pg_extension, unnest(extconfig, extcondition) AS u(c, w) WHERE extname = 'pipeline')
SELECT kind || ': ' || what FROM line ORDER BY (kind || ': ' || what) COLLATE "C";
SQL
}

1;
