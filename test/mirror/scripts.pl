# scripts.pl - run SQL scripts, or a command, in a mirrored database.
#
#   perl scripts.pl [--setting=value ...] FILE.sql ...
#   perl scripts.pl [--setting=value ...] -- COMMAND ARGUMENT ...
#
# Started by test/mirror/run, which says what the settings are.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl", $FindBin::RealBin;

use IPC::Run ();
use Mirror;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More ();

my %settings;
while (@ARGV && $ARGV[0] =~ /^--(\w+)=(.*)/)
{
	$settings{$1} = $2;
	shift;
}
my @command = @ARGV && $ARGV[0] eq '--' ? @ARGV[ 1 .. $#ARGV ] : ();
my @scripts = @command ? () : @ARGV;

my $node = PipelineTest->start_new('main', extension => 0, conf => <<'CONF');
max_worker_processes = 64
timezone = 'UTC'
pipeline.worker_idle_timeout = 2s
CONF
my $mirror = Mirror->new($node, 'mirrored', %settings);
my @runs = @command ? IPC::Run::start(
	\@command, '<', \undef, '>&', \my $output,
	init => sub {
		@ENV{qw(PGHOST PGPORT PGDATABASE)} = ($node->host, $node->port, 'mirrored');
	})
  : ();

$mirror->wait_for(sub { $mirror->sweep(1) }, @runs);
say_all($output) if defined $output;
for my $script (@scripts)
{
	say_all("running $script\n");
	$mirror->wait_for(sub { $mirror->sweep(1) }, $mirror->psql_start($script, \my $said));
	append_to_file("$PostgreSQL::Test::Utils::log_path/scripts.out", "-- $script\n$said");
}
$mirror->check;
say_all($mirror->report, 'comparisons: ', $mirror->counts, "\n");
my $rc = $mirror->differences eq '' && $mirror->counts =~ /equal/ ? 0 : 1;
$node->stop;
exit $rc;

# To the output that we were called with: PostgreSQL::Test keeps STDOUT for its log.
sub say_all
{
	print { Test::More->builder->output } @_;
	return;
}
