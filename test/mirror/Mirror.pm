# Mirror.pm - a database in which every table has a mirror (mirror.sql).
#
#   my $mirror = Mirror->new($node, 'm', types => 'same', follow => 'on');
#   $mirror->run_while(sub { ... });        # old pipelines are dropped meanwhile
#   $mirror->check;                         # compare all tables
#   exit 1 unless $mirror->report;          # print a line for each table
#
# Settings are those at the head of mirror.sql.

package Mirror;

use strict;
use warnings;

use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Utils;

my $here = dirname(__FILE__);

# Make the database, and mirror what will be in it.
sub new
{
	my ($class, $node, $db, %settings) = @_;
	my $self = bless { node => $node, db => $db }, $class;

	$node->safe_psql('postgres', qq{CREATE DATABASE "$db" TEMPLATE template0});
	$node->create_extension(db => $db);
	$self->set(%settings);
	$node->safe_psql($db, slurp_file("$here/mirror.sql"));
	return $self;
}

# Change settings, for sessions to come.
sub set
{
	my ($self, %settings) = @_;

	$self->{node}->safe_psql($self->{db}, qq{ALTER DATABASE "$self->{db}" SET "mirror.$_" = '$settings{$_}'})
	  for sort keys %settings;
	return;
}

sub attach
{
	my ($self) = @_;

	$self->{node}->safe_psql($self->{db}, 'CALL mirror.attach()');
	return;
}

# No table is mirrored, and new ones are not, until attach().
sub detach
{
	my ($self) = @_;

	$self->check;
	$self->{node}->safe_psql($self->{db}, 'CALL mirror.detach()');
	return;
}

# A psql of its own that reads a script; an IPC::Run harness.
sub psql_start
{
	my ($self, $script, $output, @options) = @_;
	my @command = ('psql', '-X', '-q', '-d', $self->{node}->connstr($self->{db}), '-f', $script, @options);

	return IPC::Run::start(\@command, '<', \undef, '>', $output, '2>&1');
}

# Wait for harnesses, and do something now and then; returns how they ended.
sub wait_for
{
	my ($self, $meanwhile, @harnesses) = @_;

	while (grep { $_->pumpable } @harnesses)
	{
		$_->pump_nb for grep { $_->pumpable } @harnesses;
		$meanwhile->();
		select undef, undef, undef, 0.05;
	}
	return map { $_->finish; $_->full_result(0) } @harnesses;
}

# Drop what is not needed any more.  An error (a lock, a restart) leaves it to the next call.
sub sweep
{
	my ($self, $seconds) = @_;

	return if defined $seconds && time - ($self->{swept} // 0) < $seconds;
	$self->{node}->psql($self->{db}, 'CALL mirror.sweep()', on_error_stop => 0, stderr => \my $err,
		extra_params => [ '-v', 'VERBOSITY=terse' ]);
	$self->{swept} = time;
	return;
}

# The same, once a second in a process of its own.
sub start_sweeper
{
	my ($self) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		# psql as a plain child: IPC::Run and the cluster's END block are the parent's.
		my $connstr = $self->{node}->connstr($self->{db});
		open STDOUT, '>', '/dev/null';
		open STDERR, '>', '/dev/null';
		exec '/bin/sh', '-c', 'while kill -0 $PPID; do psql -X -q -d "$1" -c "CALL mirror.sweep()"; sleep 1; done',
		  'sweeper', $connstr;
	}
	return $pid;
}

sub stop_sweeper
{
	my ($self, $pid) = @_;

	kill 'TERM', $pid;
	waitpid $pid, 0;
	$self->sweep;
	return;
}

# Compare the tables that a script made, and call all that is compared until now its own.
sub check_new
{
	my ($self, $script) = @_;
	my $from = $self->{checked} // 0;

	$self->{node}->safe_psql($self->{db}, "CALL mirror.check_all($from)");
	my $to = $self->{node}->safe_psql($self->{db}, 'SELECT coalesce(max(id), 0) FROM mirror.tables');
	$self->{checked} = $to;
	$self->{node}->safe_psql($self->{db}, "UPDATE mirror.results SET script = '$script' WHERE script IS NULL");
	return;
}

# What the comparisons of each script gave, as text.
sub by_script
{
	my ($self) = @_;
	my $rows = $self->{node}->safe_psql($self->{db}, <<'SQL');
SELECT script || '|' || string_agg(number || ' ' || verdict, ', ' ORDER BY verdict)
  FROM (SELECT script, verdict, count(*) AS number FROM mirror.results
         WHERE script IS NOT NULL GROUP BY script, verdict) x GROUP BY script
SQL
	return { map { split /\|/, $_, 2 } split /\n/, $rows };
}

# Compare all tables; returns those that are not equal to their source.
sub check
{
	my ($self) = @_;

	$self->{node}->safe_psql($self->{db}, 'CALL mirror.check_all()');
	return $self->differences;
}

sub differences
{
	my ($self) = @_;

	return $self->{node}->safe_psql($self->{db}, <<'SQL');
SELECT format(E'%s (%s, %s): %s\n%s', r.name, r.kind, coalesce(t.pipeline, r.table_id::text), r.verdict, r.detail)
  FROM mirror.results r LEFT JOIN mirror.tables t ON t.id = r.table_id
 WHERE r.verdict IN ('differs', 'stands') ORDER BY r.id LIMIT 20
SQL
}

# What was found, as text: a line for each table, with the worst that was found of it.
sub report
{
	my ($self) = @_;

	return $self->{node}->safe_psql($self->{db}, <<'SQL') . "\n";
WITH worst AS (
  SELECT DISTINCT ON (name, kind) name, kind, verdict, detail, count(*) OVER w AS times, max(rows) OVER w AS rows
    FROM mirror.results
  WINDOW w AS (PARTITION BY name, kind)
   ORDER BY name, kind, array_position('{differs,stands,paused,equal,not captured}', verdict), id)
SELECT format('%-12s %-7s %s %s', verdict, kind, name, CASE WHEN verdict = 'equal'
         THEN format('(%s rows, compared %s times)', rows, times) ELSE E'\n    ' || replace(detail, E'\n', E'\n    ') END)
  FROM worst ORDER BY verdict = 'equal', name, kind
SQL
}

# How many comparisons ended how, as text.
sub counts
{
	my ($self) = @_;

	return $self->{node}->safe_psql($self->{db}, q{SELECT coalesce(string_agg(number || ' ' || verdict, ', ' ORDER BY verdict), '')
		FROM (SELECT verdict, count(*) AS number FROM mirror.results GROUP BY verdict) x});
}

1;
