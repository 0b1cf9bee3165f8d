# A pipeline that stands still: it says why it does now, and is not worn out by
# changes of objects that are no repair.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use Test::More;

my $node = PipelineTest->start_new('main', conf => <<'CONF');
pipeline.breaker_window = 100
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, divisor int);
CREATE TABLE dst (id int PRIMARY KEY, n int);
CREATE FUNCTION divide(s src) RETURNS SETOF dst LANGUAGE sql STABLE AS
$$ SELECT s.id, 100 / s.divisor $$;
SELECT pipeline.create_pipeline('p', 'src');
SELECT pipeline.add_stage('p', 'divide', 'transform', 'divide(src)');
SELECT pipeline.add_output('p', 'dst');
SELECT pipeline.start('p');
SQL

sub last_error
{
	return $node->value(q{SELECT last_error FROM pipeline.status WHERE pipeline = 'p'});
}

# ---- one reason to pause after another -------------------------------------------

$node->safe_psql('postgres',
	'DO $$ BEGIN FOR i IN 101 .. 180 LOOP INSERT INTO src VALUES (i, 0); COMMIT; END LOOP; END $$');
$node->reached('p', 'paused');
like(last_error(), qr/of the last 100 events failed/, 'too many fail');

$node->safe_psql('postgres', 'ALTER SYSTEM SET pipeline.dead_letter_limit = 5');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION divide(s src) RETURNS SETOF dst LANGUAGE sql STABLE AS
$$ SELECT s.id, 100 / nullif(s.divisor, 0) $$;
SQL
$node->poll(
	q{SELECT state = 'paused' AND last_error ~ 'pipeline.dead_letter_limit is 5'
	    FROM pipeline.status WHERE pipeline = 'p'},
	what => 'the other reason to be told');
pass('when that is mended, too many dead letters are the reason');
$node->safe_psql('postgres', q{SELECT pipeline.redrive('p')});
$node->caught_up('p');
is($node->value('SELECT count(*) FROM dst'), 80, 'and after the redrive all goes on');

# ---- changes that are no repair ----------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION divide(s src) RETURNS SETOF dst LANGUAGE plpgsql STABLE AS
$$ BEGIN RETURN QUERY SELECT s.id, m.n FROM missing m; END $$;
INSERT INTO src VALUES (1001, 1);
SQL
$node->reached('p', 'failed');
my $before = $node->value(q{SELECT retries FROM pipeline.workers WHERE pipeline = 'p'});
$node->safe_psql('postgres', 'CREATE TEMP TABLE x (n int); DROP TABLE x') for 1 .. 100;
my $after = $node->value(q{SELECT retries FROM pipeline.workers WHERE pipeline = 'p'});
note "$before attempts before, $after after";
cmp_ok($after - $before, '<', 10, 'changes all the time do not make it try all the time');

# ---- a stop counts though a start follows at once --------------------------------------

my $pid = $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'p'});
$node->safe_psql('postgres', q{SELECT pipeline.restart('p')});
$node->poll("SELECT pid <> $pid FROM pipeline.workers WHERE pipeline = 'p'",
	what => 'another worker');
$node->reached('p', 'failed');
pass('a restart is a new process');

$node->safe_psql('postgres', 'CREATE TABLE missing AS SELECT 7 AS n');
$node->caught_up('p');
is($node->value('SELECT n FROM dst WHERE id = 1001'), 7, 'the repair is noticed all the same');

$node->stop;
done_testing();
