# pgbench's tables, filled, and written by many clients with both its modes of updating, have
# mirrors that are equal to them.
#
# Environment: PIPELINE_MIRROR_SECONDS, five times as long as each part takes (50).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../perl", "$FindBin::RealBin/..";

use Mirror;
use PipelineTest;
use Test::More;

my $seconds = int(($ENV{PIPELINE_MIRROR_SECONDS} // 50) / 5);
my $node = PipelineTest->start_new('main', extension => 0, conf => <<'CONF');
pipeline.worker_idle_timeout = 2s
max_worker_processes = 30
timezone = 'UTC'
CONF
my $mirror = Mirror->new($node, 'bank', logs => 'on');

for my $run (
	[ 'fills its tables', '-i', '-s', 2, '--foreign-keys' ],
	[ 'as TPC-B', '-n', '-c', 8, '-j', 2, '-T', $seconds ],
	[ 'without its hot spots, prepared', '-n', '-c', 8, '-j', 2, '-T', $seconds, '-N', '-M', 'prepared' ],
	[ 'fills partitioned tables', '-i', '-s', 1, '--partitions=3' ],
	[ 'as TPC-B with partitions', '-n', '-c', 8, '-j', 2, '-T', $seconds ],
	[ 'fills its tables on the server', '-i', '-s', 1, '-I', 'dtGvp' ])
{
	my ($name, @options) = @$run;

	$node->command_ok([ 'pgbench', @options, $node->connstr('bank') ], "pgbench $name");
	is($mirror->check, '', "pgbench $name: every mirror is equal to its source");
	$mirror->sweep;
}
is( $node->safe_psql('bank', q{SELECT DISTINCT name || ': ' || reason FROM mirror.tables WHERE kind = 'none'}),
	'', 'every table is captured');
note $mirror->report;
$node->stop;
done_testing();
