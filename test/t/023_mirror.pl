# An upsert output without stages equals its source at rest, and an append output
# that takes pipeline.event tells every change, whatever eight sessions do at random:
# all types, all replica identities, changes of keys, savepoints, rollbacks, prepared
# transactions, TRUNCATE, MERGE, COPY, DDL in between (test/mirror/Dml.pm).
#
# Where wal2json is installed, it reads the same WAL from a slot of its own, and must
# tell the same changes in the same order.
#
# Environment: PIPELINE_MIRROR_SEED repeats an earlier run; PIPELINE_MIRROR_SECONDS,
# how long to write (20); PIPELINE_MIRROR_KILLS, what is killed meanwhile: none,
# gentle (workers and capture are terminated) or hard (and the server crashes);
# PIPELINE_MIRROR_DDL=0, none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl", "$FindBin::RealBin/../mirror";

use Dml;
use Mirror;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Witness;

my $seed = $ENV{PIPELINE_MIRROR_SEED} // time % 1000000;
my $seconds = $ENV{PIPELINE_MIRROR_SECONDS} // 20;
my $kills = $ENV{PIPELINE_MIRROR_KILLS} // 'gentle';
my $ddl = $ENV{PIPELINE_MIRROR_DDL} // 1;
srand($seed);
diag "PIPELINE_MIRROR_SEED=$seed PIPELINE_MIRROR_SECONDS=$seconds PIPELINE_MIRROR_KILLS=$kills PIPELINE_MIRROR_DDL=$ddl";

my $sessions = 8;
my $node = PipelineTest->start_new('main', extension => 0, conf => <<'CONF');
max_worker_processes = 40
timezone = 'UTC'
pipeline.batch_rows = 500
pipeline.worker_idle_timeout = 5s
max_wal_size = 128MB
CONF
my $mirror = Mirror->new($node, 'mirrored', types => 'same', follow => 'on', logs => 'on',
	leaves => 'on', identity => 'off', compare_before => 'off', line => 'stable',
	timeout => '90 s', patience => '75 s');
my $witness = Witness->new($node, 'mirrored');
my $dml = Dml->new(seed => $seed, ddl => $ddl, partitions => $ENV{PIPELINE_MIRROR_PARTITIONS} // 1);
my $dir = PostgreSQL::Test::Utils::tempdir();

# A mirror that lacks a row, or has an old one, is seen.
$node->safe_psql('mirrored', 'CREATE TABLE canary (id int PRIMARY KEY, n int); INSERT INTO canary VALUES (1, 1), (2, 2)');
is($mirror->check, '', 'a mirror is equal');
my $twin = $node->safe_psql('mirrored', q{SELECT twin FROM mirror.tables WHERE name = 'public.canary'});
$node->safe_psql('mirrored', "DELETE FROM $twin WHERE id = 1; UPDATE $twin SET n = 3 WHERE id = 2");
like($mirror->check, qr/only mirror.*2,3.*only source.*1,1/s, 'a mirror that differs is seen');
$node->safe_psql('mirrored', 'DROP TABLE canary; TRUNCATE mirror.results');

# A script of its own for each session and round.
sub script
{
	my ($name, $text) = @_;

	open my $fh, '>:utf8', "$dir/$name" or die "$name: $!";
	print $fh $text;
	close $fh or die "$name: $!";
	return "$dir/$name";
}

# Once a second something ends.
my $last_kill = time;

sub kill_something
{
	my $hard = $kills eq 'hard' && rand() < 0.15;
	my $type = rand() < 0.15 ? 'pipeline capture' : 'pipeline worker';

	return if $kills eq 'none' || time == $last_kill;
	$last_kill = time;
	if ($hard)
	{
		$node->kill9_process($type);
	}
	else
	{
		$node->psql('mirrored', qq{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = '$type' ORDER BY random() LIMIT 1}, stdout => \my $out, stderr => \my $err);
	}
	return;
}

$node->safe_psql('mirrored', $dml->setup, on_error_die => 1);
my $not_captured = $node->safe_psql('mirrored',
	q{SELECT name, reason FROM mirror.tables WHERE dead IS NULL AND kind = 'none' ORDER BY name});
is($not_captured, '', 'every table is captured');
$witness->start;

my ($round, $end) = (0, time + $seconds);
my $errors = '';
while (time < $end)
{
	my @output = map { '' } 1 .. $sessions;
	my @harnesses = map {
		$mirror->psql_start(script("$round.$_", $dml->session($round * $sessions + $_, 150)), \$output[$_ - 1])
	} 1 .. $sessions;

	$mirror->wait_for(\&kill_something, @harnesses);
	$errors .= join '', @output;
	$node->poll('SELECT true', db => 'mirrored', what => 'the server');
	$mirror->sweep;
	$round++;
	last if $mirror->check ne '';
}
note 'round ' . $round;

# Did anything happen?  Each kind of change, on each table.
is( $node->safe_psql('mirrored', q{
		SELECT s.relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
		 WHERE schemaname = 'dml' AND c.relkind = 'r' AND least(n_tup_ins, n_tup_upd, n_tup_del) = 0}),
	'', 'every table was changed in each way')
  if $kills ne 'hard';
is($mirror->differences, '', 'every mirror is equal to its source');
note $mirror->report if $mirror->differences eq '';
like($mirror->counts, qr/\b\d\d+ equal/, 'there is something to compare: ' . $mirror->counts);
$witness->compare;

my %count;
$count{$_}++ for map { s/"[^"]*"/""/gr =~ s/ at character.*//r } $errors =~ /ERROR:  (.*)/g;
note "errors of sessions: $count{$_} $_" for sort { $count{$b} <=> $count{$a} } keys %count;
$node->stop;
done_testing();
