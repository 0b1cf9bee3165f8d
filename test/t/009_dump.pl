# Copies of a database: pg_dump and pg_restore bring definitions, lineage and
# dead letters into another database, where every pipeline is stopped and starts
# from then on, next to the one that it was copied from; restored into the
# database it was dumped from, or started from a base backup, a pipeline that
# ran is "lost", says so, and goes on with start(skip_to_now => true).  A base
# backup leaves the spool out.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PipelineTest->start_new('main');

# ---- pipelines of two owners ------------------------------------------------

# Something of everything: stages, outputs, rows in them, dead letters.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
GRANT USAGE ON SCHEMA pipeline TO alice, bob;
SQL
for my $role ('alice', 'bob')
{
	$node->safe_psql('postgres', <<SQL);
CREATE SCHEMA $role AUTHORIZATION $role;
SET ROLE $role;
SET search_path = $role;
CREATE TABLE src (id int PRIMARY KEY, v int);
CREATE TABLE dst (id int PRIMARY KEY, v int CHECK (v < 100), who name DEFAULT session_user);
CREATE TABLE odd (id int PRIMARY KEY);
CREATE FUNCTION only_odd(d dst) RETURNS SETOF odd LANGUAGE sql STABLE AS
\$\$ SELECT d.id WHERE d.id % 2 = 1 \$\$;
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS
\$\$ SELECT CASE WHEN s.v < 0 THEN 'negative' END \$\$;
SELECT pipeline.create_pipeline('of_$role', source => 'src');
SELECT pipeline.add_stage('of_$role', 'check', 'validate', 'valid(src)');
SELECT pipeline.add_stage('of_$role', 'double', 'transform', query => 'SELECT id, 2 * v AS v, session_user AS who FROM event');
SELECT pipeline.add_output('of_$role', 'dst');
SELECT pipeline.add_output('of_$role', 'odd', transform => 'only_odd(dst)');
SELECT pipeline.start('of_$role');
INSERT INTO src SELECT n, n FROM generate_series(1, 9) n;
SELECT pipeline.wait_for('of_$role');
SELECT pipeline.deploy_stage('of_$role', 'double', query => 'SELECT id, v + v AS v, session_user AS who FROM event');
SELECT pipeline.alter_stage('of_$role', 'check', settings => '{"batch_rows": 7}');
INSERT INTO src SELECT n, n FROM generate_series(10, 20) n;
INSERT INTO src VALUES (21, -1), (22, 50);
SQL
}

# The results of a pipeline, from the rows that count.
sub is_right
{
	my ($on, $db, $role, $where, $name) = @_;

	$on->caught_up("of_$role", db => $db);
	$on->same_rows("SELECT id, v, who FROM $role.dst",
		"SELECT id, 2 * v, '$role' FROM $role.src WHERE v BETWEEN 0 AND 49 AND ($where)",
		db => $db, "$name: output");
	$on->same_rows(
		"SELECT (event->>'id')::int FROM pipeline.dead_letters WHERE pipeline = 'of_$role' AND state <> 'discarded'",
		"SELECT id FROM $role.src WHERE NOT v BETWEEN 0 AND 49 AND ($where)",
		db => $db, "$name: dead letters");
	$on->ledger_balanced("of_$role", "$name: ledger", db => $db);
	return;
}

# All that describes pipelines, but whether they run.
sub described
{
	my ($on, $db) = @_;

	return $on->value(<<'SQL', db => $db);
SELECT pipeline, owner, source, operations, consistency, lineage, search_path, version, created_at
  FROM pipeline.pipelines ORDER BY 1;
SELECT * FROM pipeline.stages ORDER BY 1, 2;
SELECT * FROM pipeline.outputs ORDER BY 1, 2;
SELECT * FROM pipeline.stage_versions ORDER BY pipeline, since;
SELECT pipeline, id, stage, kind, reason, event, state FROM pipeline.dead_letters ORDER BY 1, 2;
SELECT pipeline, output, commit_lsn, seq, outcome, source_key, output_key
  FROM pipeline.lineage ORDER BY 1, 2, 3, 4;
SELECT at, who, action, pipeline, detail FROM pipeline.audit_log WHERE action <> 'lost' ORDER BY id;
SELECT pipeline, events, produced, filtered, rejected, failed FROM pipeline.status ORDER BY 1;
SQL
}

is_right($node, 'postgres', $_, 'true', "the original, $_") for 'alice', 'bob';
$node->safe_psql('postgres', q{SELECT pipeline.stop('of_bob')});
$node->safe_psql('postgres', 'INSERT INTO bob.src VALUES (30, 3)');

# ---- into another database, and two at once ---------------------------------

my $dump = $node->basedir . '/dump';
$node->command_ok([ 'pg_dump', '--format=custom', "--file=$dump", $node->connstr('postgres') ],
	'pg_dump');
$node->command_ok([ 'pg_dump', '--format=plain', "--file=$dump.sql", $node->connstr('postgres') ],
	'pg_dump as a script');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->safe_psql('postgres', 'CREATE DATABASE scripted');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', "--dbname=" . $node->connstr('restored'), $dump ],
	'pg_restore');
$node->command_ok(
	[
		'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('scripted'),
		'-f', "$dump.sql", '-o', '/dev/null'
	],
	'the script');

my $original = described($node, 'postgres');
for my $db ('restored', 'scripted')
{
	is(described($node, $db), $original, "$db: everything is there");
	is($node->value(q{SELECT string_agg(state, ' ') FROM pipeline.status}, db => $db),
		'stopped stopped', "$db: and stopped");
	is($node->fingerprint(db => $db), $node->fingerprint, "$db: the extension is the same");
}
$node->poll(
	q{SELECT count(*) = 3 FROM pg_replication_slots WHERE slot_name LIKE 'pipeline%' AND confirmed_flush_lsn IS NOT NULL},
	what => 'the slots of the copies');
$node->safe_psql($_, 'INSERT INTO alice.src VALUES (31, 3); INSERT INTO bob.src VALUES (31, 3)')
  for 'restored', 'scripted';

# The functions are what they were, so there is no other version of a stage, and
# versions go on where they were.
sub versions_go_on
{
	my ($on, $db) = @_;

	is($on->value(q{SELECT string_agg(concat(stage, version, deployed_by IS NULL), ' ' ORDER BY since)
		FROM pipeline.stage_versions WHERE pipeline = 'of_alice'}, db => $db),
		'check1f double1f double2f', "$db: no function is another one");
	is($on->value(q{SET search_path = alice;
		SELECT pipeline.deploy_stage('of_alice', 'check', version => 1),
			pipeline.deploy_stage('of_alice', 'double', version => 1)}, db => $db),
		'1|1', "$db: back to the versions that were restored");
	return;
}

# Each copy starts from now on, and the original does not notice.
for my $db ('restored', 'scripted')
{
	$node->safe_psql($db, q{SELECT pipeline.start('of_alice'); SELECT pipeline.start('of_bob')});
	$node->safe_psql($db, 'INSERT INTO alice.src VALUES (32, 4), (33, -2), (34, 77);
		INSERT INTO bob.src VALUES (32, 4), (33, -2), (34, 77)');
	is_right($node, $db, $_, 'id <> 31 AND id <> 30', "$db, started, $_") for 'alice', 'bob';
	$node->safe_psql($db, <<'SQL');
ALTER TABLE alice.dst DROP CONSTRAINT dst_v_check;
SELECT pipeline.redrive('of_alice', ids => ARRAY(
	SELECT id FROM pipeline.dead_letters WHERE pipeline = 'of_alice' AND kind = 'failed'));
SQL
	$node->caught_up('of_alice', db => $db);
	is($node->value('SELECT string_agg(id::text, \' \' ORDER BY id) FROM alice.dst WHERE v >= 100', db => $db),
		'22 34', "$db: dead letters from before and after are redriven");
	$node->safe_psql($db, <<'SQL');
CREATE TABLE new_src (id int);
CREATE TABLE new_dst (id int);
SELECT pipeline.create_pipeline('new', source => 'new_src');
SELECT pipeline.add_output('new', 'new_dst');
SELECT pipeline.start('new');
INSERT INTO new_src VALUES (1);
SQL
	versions_go_on($node, $db);
	$node->caught_up('new', db => $db);
	$node->same_rows('TABLE new_dst', 'TABLE new_src', db => $db, "$db: a new pipeline works");
}
$node->safe_psql('postgres', 'INSERT INTO alice.src VALUES (35, 5)');
is_right($node, 'postgres', 'alice', 'true', 'the original goes on, alice');
$node->safe_psql('postgres', q{SELECT pipeline.start('of_bob')});
is_right($node, 'postgres', 'bob', 'true', 'and keeps its position, bob');
$node->safe_psql('postgres', "DROP DATABASE $_") for 'restored', 'scripted';

# ---- into the same database -------------------------------------------------

# It says itself how to go on; gives the function call of the hint.
sub hint_of
{
	my ($on, $db, $pipeline) = @_;
	my $hint = $on->value("SELECT last_error FROM pipeline.status WHERE pipeline = '$pipeline'", db => $db);

	like($hint, qr/slot.*SELECT pipeline\.start\('$pipeline', skip_to_now => true\)/,
		"$pipeline in $db says how to go on");
	return $hint =~ /(SELECT pipeline\.start\([^)]*\))/ ? $1 : 'SELECT 1/0';
}

sub goes_on
{
	my ($on, $db, $role, $what) = @_;
	my $pipeline = "of_$role";
	my ($rc, $out, $err) = $on->psql($db, "\\set VERBOSITY verbose\nSELECT pipeline.start('$pipeline')");
	my $start = hint_of($on, $db, $pipeline);

	like($err, qr/ERROR:  55000: .*is lost.*HINT:  .*skip_to_now/s, "$what: start alone is refused");
	is($on->value("SELECT pipeline.wait_for('$pipeline', timeout => '50 ms')", db => $db),
		'f', "$what: wait_for is not true");
	my $done = $on->value("SELECT count(*) FROM $role.dst", db => $db);
	$on->safe_psql($db, "INSERT INTO $role.src VALUES (41, 1)");
	$on->safe_psql($db, $start);
	$on->safe_psql($db, "INSERT INTO $role.src VALUES (42, 2)");
	$on->caught_up($pipeline, db => $db);
	$on->reached($pipeline, 'running', db => $db);
	is($on->value("SELECT count(*) FROM $role.dst", db => $db), $done + 1, "$what: it goes on");
	is($on->value("SELECT string_agg(id::text, ' ') FROM $role.dst WHERE id IN (41, 42)", db => $db),
		'42', "$what: from now on");
	is( $on->value(
			"SELECT count(*) FROM pipeline.audit_log WHERE pipeline = '$pipeline' AND detail ? 'skipped_from'",
			db => $db),
		'1', "$what: the gap is in the audit log");
	$on->ledger_balanced($pipeline, "$what: the ledger is balanced", db => $db);
	return;
}

# ---- base backup ------------------------------------------------------------

# Copied while the spool has what a stopped pipeline has not read.
$node->safe_psql('postgres', q{SELECT pipeline.stop('of_bob')});
$node->safe_psql('postgres', 'INSERT INTO bob.src SELECT n, 1 FROM generate_series(100, 5000) n');
$node->caught_up('of_alice');
isnt(scalar($node->spool_files), 0, 'there is a spool');
$node->backup('backup');
my $found = '';
File::Find::find(sub { $found .= " $_" if /pipeline/ && !/^pipeline(\.|--)/ },
	$node->backup_dir . '/backup');
is($found, '', 'a base backup has neither spool nor slot');

my $copy = PipelineTest->new('copy');
$copy->init_from_backup($node, 'backup');
$copy->start;
$copy->poll(q{SELECT count(*) = 1 FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL},
	what => 'the slot of the copy');
$copy->reached('of_alice', 'lost');
is($copy->value(q{SELECT state FROM pipeline.status WHERE pipeline = 'of_bob'}),
	'lost', 'what was stopped is lost in the copy, too');
is(described($copy, 'postgres'), described($node, 'postgres'), 'and everything is there');
goes_on($copy, 'postgres', 'alice', 'base backup');

# One that was stopped is lost as well.
my ($rc, $out, $err) = $copy->psql('postgres', q{SELECT pipeline.start('of_bob')});
like($err, qr/is lost/, 'a stopped one is not started at a position that is gone');
$copy->safe_psql('postgres', q{SELECT pipeline.start('of_bob', skip_to_now => true)});
$copy->safe_psql('postgres', 'INSERT INTO bob.src VALUES (6000, 6)');
$copy->caught_up('of_bob');
is($copy->value('SELECT count(*) FROM bob.dst WHERE id >= 100'), '1', 'but from now on');
$copy->restart;
$copy->safe_psql('postgres', 'INSERT INTO bob.src VALUES (6001, 6)');
$copy->caught_up('of_bob');
is($copy->value('SELECT count(*) FROM bob.dst WHERE id >= 100'), '2', 'also after a restart');
$copy->stop;

# The original has all of it.
$node->safe_psql('postgres', q{SELECT pipeline.start('of_bob')});
is_right($node, 'postgres', $_, 'true', "the original after the backup, $_") for 'alice', 'bob';

# ---- back into the same database --------------------------------------------

$node->command_ok([ 'pg_dump', '--format=custom', "--file=$dump.2", $node->connstr('postgres') ],
	'another pg_dump');
$node->safe_psql('postgres',
	'DROP EXTENSION pipeline; DROP SCHEMA alice CASCADE; DROP SCHEMA bob CASCADE');
$node->nothing_left('the extension is dropped');
$node->command_ok(
	[ 'pg_restore', '--exit-on-error', "--dbname=" . $node->connstr('postgres'), "$dump.2" ],
	'pg_restore into the same database');
$node->reached('of_alice', 'lost');
goes_on($node, 'postgres', 'alice', 'same database');
$node->restart;
$node->reached('of_bob', 'lost');
goes_on($node, 'postgres', 'bob', 'same database, after a restart');

$node->stop;
done_testing();
