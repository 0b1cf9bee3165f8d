# Each event is processed by exactly one version of a stage, and its lineage names
# it: while several sessions write, a stage is deployed, taken back, broken and
# repaired, its functions are replaced, and processes are killed.  Each row of the
# output says which code made it; that must be the code that lineage and
# stage_versions say, for a pipeline with one worker and for one with several.  No process of a worker is another one because of a deployment,
# and writers do not wait for one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_DEPLOY_ROUNDS} // 30;
my $seed = $ENV{PIPELINE_DEPLOY_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_DEPLOY_SEED=$seed PIPELINE_DEPLOY_ROUNDS=$rounds";

my $node = PipelineTest->start_new('main', conf => <<'CONF');
pipeline.batch_rows = 50
pipeline.worker_idle_timeout = 0
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id bigserial PRIMARY KEY, v int);
CREATE TABLE dst (id bigint PRIMARY KEY, v int, by text, noise int);
CREATE TABLE many (LIKE dst INCLUDING ALL);
CREATE TABLE other (id bigint PRIMARY KEY, v int);
CREATE TYPE made AS (id bigint, v int, by text);
CREATE TABLE looked_up (n int);
INSERT INTO looked_up VALUES (1);
SQL

# The code of a stage, which leaves its name in the rows.
sub handler
{
	my ($language, $tag) = @_;
	my $body = $language eq 'sql' ? "SELECT s.id, s.v, '<$tag>'" :
	  "BEGIN PERFORM FROM looked_up; RETURN QUERY SELECT s.id, s.v, '<$tag>'; END";

	return "CREATE OR REPLACE FUNCTION by_$language(s src) RETURNS SETOF made LANGUAGE $language STABLE AS \$\$ $body \$\$";
}

sub query
{
	my ($tag) = @_;

	return "SELECT id, v, '<$tag>' AS by FROM event";
}

# In both pipelines that it is about: one with one worker, one with several.
my %target = (p => 'dst', m => 'many');

sub deploy
{
	my ($what) = @_;

	return $node->value("SELECT pipeline.deploy_stage('p', 'make', $what), pipeline.deploy_stage('m', 'make', $what)");
}

# Every row of the output is of the version that lineage and stage_versions name.
# It needs no order of versions, so it also sees one that came back.
sub agree
{
	my ($name) = @_;

	agree_one($_, "$name, $_") for 'p', 'm';
	is($node->value(q{SELECT count(*) FROM pipeline.dead_letters}), '0', "$name: nothing failed");
	return;
}

sub agree_one
{
	my ($pipeline, $name) = @_;
	$node->caught_up($pipeline);
	$node->same_rows("SELECT id, v FROM $target{$pipeline}", 'SELECT id, v FROM src', "$name: every event once");
	my $right = is($node->value(<<"SQL"), '0|0|0', "$name: by the version that lineage names, at its positions");
CREATE TEMP TABLE l AS SELECT * FROM pipeline.lineage WHERE pipeline = '$pipeline';
CREATE TEMP TABLE v AS SELECT * FROM pipeline.stage_versions WHERE pipeline = '$pipeline' AND stage = 'make';
SELECT count(*) FILTER (WHERE v.version IS NULL),
	count(*) FILTER (WHERE position(d.by in coalesce(v.query, v.definition)) = 0),
	count(*) FILTER (WHERE l.commit_lsn BETWEEN v.first_lsn AND v.last_lsn IS NOT TRUE)
FROM $target{$pipeline} d
	LEFT JOIN l ON (l.output_key->>'id')::bigint = d.id
	LEFT JOIN v ON l.version >= v.since AND (l.version < v.until) IS NOT FALSE
SQL
	$node->ledger_balanced($pipeline, "$name: the ledger is balanced");
	diag $node->value(<<"SQL") if !$right;
SELECT d.id, d.by, l.commit_lsn, l.batch_id, b.partition, b.processed_at, l.version, v.version, v.since, v.deployed_at, coalesce(v.query, v.definition)
FROM $target{$pipeline} d
	JOIN pipeline.lineage l ON l.pipeline = '$pipeline' AND (l.output_key->>'id')::bigint = d.id
	JOIN pipeline.batches b USING (batch_id)
	LEFT JOIN pipeline.stage_versions v ON v.pipeline = '$pipeline' AND v.stage = 'make' AND l.version >= v.since AND (l.version < v.until) IS NOT FALSE
WHERE position(d.by in coalesce(v.query, v.definition)) = 0 ORDER BY l.batch_id, l.seq LIMIT 5;
SELECT version, since, until, deployed_by, deployed_at, first_lsn, last_lsn, coalesce(query, substring(definition from '<.*>'))
FROM pipeline.stage_versions WHERE pipeline = '$pipeline' AND stage = 'make' ORDER BY since;
SQL
	return;
}

sub worker_pids
{
	return $node->value("SELECT string_agg(concat_ws(' ', pipeline, partition, pid), ', ' ORDER BY pipeline, partition) FROM pipeline.workers");
}

$node->safe_psql('postgres', handler('sql', 'sql 0'));
$node->safe_psql('postgres', handler('plpgsql', 'plpgsql 0'));
$node->safe_psql('postgres', <<'SQL');
SELECT pipeline.create_pipeline('p', 'src'),
	pipeline.add_stage('p', 'make', 'transform', 'by_sql(src)'),
	pipeline.add_stage('p', 'noise', 'transform', query => 'SELECT id, v, by, (random() * 100)::int AS noise FROM event'),
	pipeline.add_output('p', 'dst'),
	pipeline.create_pipeline('q', 'src'), pipeline.add_output('q', 'other'),
	pipeline.create_pipeline('m', 'src', consistency => 'eventual', partition_by => '{v}', workers => 3),
	pipeline.add_stage('m', 'make', 'transform', 'by_sql(src)'),
	pipeline.add_output('m', 'many'),
	pipeline.start('p'), pipeline.start('m'), pipeline.start('q');
INSERT INTO src (v) VALUES (1);
INSERT INTO src (v) SELECT n FROM generate_series(1001, 1040) n;
SQL
$node->caught_up($_) for 'p', 'm', 'q';
$node->poll('SELECT count(*) = 5 FROM pipeline.workers', what => 'the workers');

# ---- neither writers nor others wait for a deployment -------------------------

my $pids = worker_pids();
my $open = $node->background_psql('postgres', on_error_stop => 0);
$open->query_safe('BEGIN');
$open->query_safe("SELECT pipeline.deploy_stage('p', 'make', query => \$\$@{[ query('open') ]}\$\$)");
$node->safe_psql('postgres', q{SET lock_timeout = '10ms'; INSERT INTO src (v) VALUES (2), (3)});
$node->caught_up('q');
is($node->value('SELECT count(*) FROM other'), '43', 'another pipeline does not wait');
is($node->value(q{SELECT pipeline.wait_for('p', timeout => '50 ms')}), 'f', 'this one does');
$open->query_safe('COMMIT');
agree('deployed before the events were processed');
is($node->value('SELECT by FROM dst WHERE v = 2'), '<open>', 'and they ran the new version');
$open->query_safe("BEGIN; SELECT pipeline.deploy_stage('p', 'make', version => 1); ROLLBACK");
$open->quit;
$node->safe_psql('postgres', 'INSERT INTO src (v) VALUES (4)');
agree('a deployment that was rolled back');
is($node->value('SELECT by FROM dst WHERE v = 4'), '<open>', 'nothing happened');

# ---- a function that is replaced within a batch -------------------------------

# The batch stands at a row; what it runs after it may be another function.
$node->safe_psql('postgres', <<'SQL');
CREATE OR REPLACE FUNCTION by_plpgsql(s src) RETURNS SETOF made LANGUAGE plpgsql STABLE AS $$
BEGIN
	PERFORM pg_advisory_xact_lock_shared(5) FROM looked_up;
	RETURN QUERY SELECT s.id, s.v, '<before>';
END $$;
SQL
deploy(q{'by_plpgsql(src)'});
my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(5)');
$node->safe_psql('postgres', 'INSERT INTO src (v) SELECT n FROM generate_series(100, 120) n');
$node->poll(q{SELECT count(*) = 4 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted},
	what => 'the batches to stand in the handler');
$node->safe_psql('postgres', handler('plpgsql', 'within'));
$gate->quit;
agree('replaced within a batch');
is($node->value('SELECT string_agg(DISTINCT by, $$ $$) FROM dst WHERE v BETWEEN 100 AND 120'),
	'<within>', 'all of it ran the new one');
is($node->value('SELECT sum(retries) FROM pipeline.workers'), '0', 'and that is no error');

# ---- under load ---------------------------------------------------------------

my $script = $node->basedir . '/insert.sql';
PostgreSQL::Test::Utils::append_to_file($script, <<'SQL');
\set n random(1, 20)
INSERT INTO src (v) SELECT n FROM generate_series(1, :n) n;
SQL

sub start_load
{
	my %run;
	my $before = $node->value('SELECT count(*) FROM src');

	$run{out} = '';
	$run{handle} = IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client=3', '--time=600', '--rate=150',
			"--file=$script", '-h', $node->host, '-p', $node->port, 'postgres'
		],
		'<', '/dev/null', '>&', \$run{out},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default * 2));
	$node->poll("SELECT count(*) > $before + 50 FROM src", what => 'the writers to write');
	return \%run;
}

sub end_load
{
	my ($run) = @_;

	$run->{handle}->kill_kill;
	return;
}

# Some events more have gone through.
sub flows
{
	my $before = $node->value('SELECT count(*) FROM dst');

	$node->poll("SELECT count(*) > $before + 20 FROM dst", what => 'events to flow');
	return;
}

my $tag = 0;
my %do = (
	query => sub { deploy('query => $$' . query("query $tag") . '$$') },
	sql => sub {
		$node->safe_psql('postgres', handler('sql', "sql $tag"));
		deploy(q{'by_sql(src)'});
	},
	plpgsql => sub {
		$node->safe_psql('postgres', handler('plpgsql', "plpgsql $tag"));
		deploy(q{'by_plpgsql(src)'});
	},

	# Either is in force, maybe.
	replace => sub {
		$node->safe_psql('postgres', handler($_, "replaced $tag")) for 'sql', 'plpgsql';
	},

	# To some version that can be had; a function of that name may be another one now.
	back => sub {
		my $pipeline = ('p', 'm')[ rand 2 ];
		my $version = $node->value(qq{SELECT version FROM pipeline.stage_versions
			WHERE pipeline = '$pipeline' AND stage = 'make' AND handler IS DISTINCT FROM 'public.broken(public.src)' ORDER BY random() LIMIT 1});
		my ($rc, $out, $err) = $node->psql('postgres',
			"SELECT pipeline.deploy_stage('$pipeline', 'make', version => $version)");
		like($err, qr/^(.*NOTICE:.*in force already|.*ERROR:  version $version .* was replaced since.*)?$/s,
			"back to version $version") if $err ne '';
	},

	# What stands before the repair is repaired, too.
	broken => sub {
		$node->safe_psql('postgres', 'CREATE OR REPLACE FUNCTION broken(s src) RETURNS SETOF made LANGUAGE plpgsql STABLE AS
			$$ BEGIN RETURN QUERY SELECT s.id, s.v, c.by FROM not_there c; END $$');
		$node->value(q{SELECT pipeline.deploy_stage('p', 'make', 'broken(src)')});
		$node->reached('p', 'failed');
		my $before = $node->value('SELECT count(*) FROM src');
		$node->poll("SELECT count(*) > $before FROM src", what => 'the writers to go on');
		deploy('query => $$' . query("repaired $tag") . '$$');
		$node->poll(q{SELECT processed_lsn > (SELECT max(first_lsn) FROM pipeline.stage_versions WHERE pipeline = 'p')
			FROM pipeline.status WHERE pipeline = 'p'}, what => 'the repair');
	});

$node->caught_up($_) for 'p', 'm', 'q';
my $load = start_load();
for my $round (1 .. $rounds)
{
	my @kinds = sort keys %do;
	my $kind = $round <= @kinds ? $kinds[ $round - 1 ] : $kinds[ rand @kinds ];

	$tag = $round;
	note "round $round: $kind";
	$do{$kind}->();
	flows();
}
end_load($load);
is(worker_pids(), $pids, 'the same workers all the time');
agree('under load');
cmp_ok($node->value(q{SELECT count(*) FROM pipeline.stage_versions WHERE pipeline = 'p' AND first_lsn IS NOT NULL}),
	'>', $rounds / 3, 'there were many versions');
$node->caught_up('q');
$node->same_rows('TABLE other', 'SELECT id, v FROM src', 'the other pipeline has it all');

# ---- killed around a deployment -------------------------------------------------

# The worker takes the server down at a point that it comes to because of a statement.
sub crash_at
{
	my ($point, $sql) = @_;
	my $pid = $node->value(q{SELECT pid FROM pipeline.workers WHERE pipeline = 'p'});

	$node->failpoint_set($point, 'crash');
	$node->psql('postgres', $sql);
	$node->poll("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid",
		what => 'the restart after a crash');
	return;
}

SKIP:
{
	my ($rc) = $node->psql('postgres', q{SELECT _pipeline.failpoint_set('none', 'off')});
	skip 'needs a build with FAILPOINTS=1', 1 if $rc != 0;

	my $some = 'INSERT INTO src (v) SELECT n FROM generate_series(1, 30) n';
	my $deploy = q{SELECT pipeline.deploy_stage('p', 'make', };

	for my $point ('worker-before-commit', 'worker-after-commit', 'worker-before-control')
	{
		deploy('query => $$' . query("before $point") . '$$');
		$node->safe_psql('postgres', $some);
		$node->caught_up('p');
		my $sql = "$deploy query => \$\$" . query("after $point") . '$$)';
		if ($point eq 'worker-before-control')
		{
			crash_at($point, $sql);
		}
		else
		{
			crash_at($point, $some);
			$node->safe_psql('postgres', $sql);
		}
		$node->safe_psql('postgres', $some);
		agree("crash at $point");
	}

	# The function is replaced, and that is not noted yet.
	deploy(q{'by_plpgsql(src)'});
	$node->safe_psql('postgres', $some);
	$node->caught_up('p');
	crash_at('worker-before-notice', handler('plpgsql', 'not noted') . "; $some");
	agree('crash at worker-before-notice');
}

$load = start_load();
for my $round (1 .. 3)
{
	$tag = "killed $round";
	$do{$_}->() for 'query', 'plpgsql', 'replace';
	$node->kill9_process($round == 2 ? 'pipeline capture' : 'pipeline worker');
	$load->{handle}->kill_kill;
	$load = start_load();
}
end_load($load);
agree('kill -9 under load');

$node->stop;
done_testing();
