# No statement that sqlsmith thinks of crashes a server with live pipelines, and when it
# is done every mirror is equal to its source.
#
# sqlsmith rolls back what it does, so sessions of Dml.pm write meanwhile.  One sqlsmith is
# a superuser, the other the owner of a pipeline.
#
# Environment: PIPELINE_SQLSMITH_SECONDS (60), PIPELINE_MIRROR_SEED.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../perl", "$FindBin::RealBin/..";

use Dml;
use Mirror;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{PIPELINE_SQLSMITH_SECONDS} // 60;
my $seed = $ENV{PIPELINE_MIRROR_SEED} // time % 1000000;
diag "PIPELINE_MIRROR_SEED=$seed PIPELINE_SQLSMITH_SECONDS=$seconds";
plan skip_all => 'sqlsmith is not installed' if !grep { -x "$_/sqlsmith" } split /:/, $ENV{PATH};

my $node = PipelineTest->start_new('main', extension => 0, conf => <<'CONF');
max_worker_processes = 40
timezone = 'UTC'
log_min_messages = error
log_min_error_statement = fatal
pipeline.worker_idle_timeout = 5s
statement_timeout = 10s
CONF
my $log = $PostgreSQL::Test::Utils::log_path;
my $mirror = Mirror->new($node, 'mirrored', types => 'same', follow => 'on', logs => 'on',
	identity => 'off', compare_before => 'off');
my $dml = Dml->new(seed => $seed, ddl => 0, prepared => 0);

$node->safe_psql('mirrored', $dml->setup);
$node->safe_psql('mirrored', <<'SQL');
CREATE ROLE smith LOGIN;
GRANT pipeline_operator TO smith;
GRANT USAGE ON SCHEMA pipeline, dml TO smith;
CREATE SCHEMA smith AUTHORIZATION smith;
SET ROLE smith;
CREATE TABLE smith.orders (id int PRIMARY KEY, n int, t timestamptz DEFAULT now());
CREATE TABLE smith.twin (LIKE smith.orders INCLUDING ALL);
SELECT pipeline.create_pipeline('smith', source => 'smith.orders', operations => '{insert,update,delete,truncate}');
SELECT pipeline.add_output('smith', 'smith.twin');
SELECT pipeline.start('smith');
SQL

# Each runs until it is stopped; it goes on when the server has restarted.
sub sqlsmith
{
	my ($user, $number) = @_;
	my $target = $node->connstr('mirrored') . " user=$user";

	return IPC::Run::start([ 'timeout', $seconds, 'sqlsmith', "--target=$target", "--seed=" . ($seed + $number), '--verbose' ],
		'<', \undef, '>', "$log/sqlsmith_$user.out", '2>', "$log/sqlsmith_$user.err");
}

my $superuser = $node->safe_psql('mirrored', 'SELECT current_user');
my @smiths = (sqlsmith($superuser, 1), sqlsmith('smith', 2));
my ($round, $end) = (0, time + $seconds);
while (time < $end)
{
	my @said = ('', '');
	my @sessions = map {
		my $file = "$log/dml_$_.sql";
		unlink $file;
		append_to_file($file, $dml->session(2 * $round + $_, 60));
		$mirror->psql_start($file, \$said[ $_ - 1 ])
	} 1 .. 2;

	$mirror->wait_for(sub { $_->pump_nb for grep { $_->pumpable } @smiths }, @sessions);
	$round++;
}
$mirror->wait_for(sub { }, @smiths);

my $statements = 0;
for my $user ($superuser, 'smith')
{
	my ($number) = slurp_file("$log/sqlsmith_$user.err") =~ /.*queries: (\d+)/s;

	cmp_ok($number // 0, '>', $seconds, "sqlsmith as $user ran " . ($number // 0) . ' statements');
}
unlike(slurp_file($node->logfile), qr/TRAP: |PANIC: |terminated by signal (?:4|6|7|8|11)\b/, 'the server did not crash');
is($mirror->check, '', 'every mirror is equal to its source');
note $mirror->report;
$node->stop;
done_testing();
