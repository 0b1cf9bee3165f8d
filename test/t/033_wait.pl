# Who waits without a timeout for a pipeline that cannot go on is released when what
# it waits for is dropped: an isolated output, or the pipeline.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use Test::More;

my $node = PipelineTest->start_new('main');

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int);
CREATE TABLE quick (id int);
CREATE TABLE broken (id int);
SELECT pipeline.create_pipeline('p', 'src');
SELECT pipeline.add_stage('p', 'all', 'transform', query => 'SELECT * FROM event');
SELECT pipeline.add_output('p', 'quick');
SELECT pipeline.add_output('p', 'broken', isolate => true);
SELECT pipeline.start('p');
ALTER TABLE broken RENAME COLUMN id TO other;
INSERT INTO src VALUES (1);
SQL
$node->reached('p', 'failed');

# A session that waits, and does so when this returns.
sub waiter
{
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query('SELECT pg_backend_pid()');

	$session->query_until(qr/^waits$/m, "\\echo waits\nSELECT 'all done: ' || pipeline.wait_for('p', timeout => NULL);\n");
	$node->poll("SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $pid", what => 'the waiter');
	return $session;
}

my $session = waiter();
$node->safe_psql('postgres', q{SELECT pipeline.drop_output('p', 'broken')});
ok($session->query_until(qr/^all done: true$/m, ''), 'without the output there is nothing to wait for');
$session->quit;

$node->safe_psql('postgres', 'ALTER TABLE quick RENAME COLUMN id TO other; INSERT INTO src VALUES (2)');
$node->reached('p', 'failed');
$session = waiter();
$node->safe_psql('postgres', q{SELECT pipeline.drop_pipeline('p')});
like($session->query(q{SELECT 'next'}), qr/next/, 'nor without the pipeline');
like($session->{stderr}, qr/was dropped while it was waited for/, 'which is an error');
$session->quit;

$node->stop;
done_testing();
