# Random transactions, some of whose events are bad: a property of every one of
# them, against an oracle in plain SQL.  The seed is printed;
# PIPELINE_BLAME_SEED=n repeats a run.
#
# For each transaction of the source, in commit order, the events that fail are
# the least set without which the rest can be committed by plain inserts in
# order.  The data are such that there is only one such set:
#
# - No two events of the run collide with each other: ids are unique, and those
#   of the events that collide are those of rows that were there from the start,
#   which are no events and are no one's parents.  So whether an event's own rows
#   raise an error depends on nothing but the event.
# - An event that has a parent has one only, which is an event of any transaction,
#   or nothing at all.  Only a child may need another event, so those that must
#   fail for want of a parent are found by leaving out one generation after the
#   other, in any order.
# - An event has at most one defect of its own, so that its error is one only.
#   It may lack a parent besides, but errors of rows come first.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use Test::More;

my $seed = $ENV{PIPELINE_BLAME_SEED} // int(rand(2**31));
note "PIPELINE_BLAME_SEED=$seed";
srand($seed);

my $batch_rows = 20;
my $node = PipelineTest->start_new('main', conf => <<"CONF");
pipeline.batch_rows = $batch_rows
pipeline.breaker_failures = 1
autovacuum = off
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, txn int, place int, parent int, makes text, bad text);
CREATE TABLE parents (place int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY, txn int, parent int,
	bad text CHECK (bad <> 'check parent'),
	CONSTRAINT has_parent FOREIGN KEY (parent) REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE children (place int GENERATED ALWAYS AS IDENTITY, id int PRIMARY KEY, txn int,
	parent int REFERENCES parents DEFERRABLE INITIALLY DEFERRED, bad text CHECK (bad <> 'check child'));
CREATE TYPE made AS (id int, txn int, parent int, bad text);
CREATE FUNCTION taken(s src, tab text) RETURNS int LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN s.bad = 'taken ' || tab THEN -1 ELSE s.id END $$;
CREATE FUNCTION to_parent(s src) RETURNS SETOF made LANGUAGE sql STABLE AS
$$ SELECT taken(s, 'parent'), s.txn, CASE WHEN s.makes = 'parent' THEN s.parent END, s.bad
   WHERE s.makes IN ('parent', 'both') $$;
CREATE FUNCTION to_child(s src) RETURNS SETOF made LANGUAGE sql STABLE AS
$$ SELECT taken(s, 'child'), s.txn, s.parent, s.bad WHERE s.makes IN ('child', 'both') $$;
CREATE FUNCTION first(s src) RETURNS SETOF src LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF s.bad = 'raise' THEN
		RAISE 'bad event';
	ELSIF s.bad = 'internal' THEN
		RAISE 'bad event' USING ERRCODE = 'XX000';
	END IF;
	RETURN NEXT s;
END $$;
CREATE FUNCTION second(s src) RETURNS SETOF src LANGUAGE sql STABLE AS
$$ SELECT s.id, s.txn, s.place / CASE WHEN s.bad = 'divide' THEN 0 ELSE 1 END, s.parent, s.makes, s.bad $$;
INSERT INTO parents (id) VALUES (-1);
INSERT INTO children (id) VALUES (-1);
CREATE TABLE expected_parents (id int PRIMARY KEY, txn int, parent int);
CREATE TABLE expected_children (id int PRIMARY KEY, txn int, parent int);
CREATE TABLE expected_letters (id int, stage text, output text, sqlstate text);

-- An event's own errors.
CREATE VIEW own_errors AS
SELECT id, txn, stage, output, sqlstate FROM src JOIN (VALUES
	('raise', NULL, 'first', NULL, 'P0001'),
	('internal', NULL, 'first', NULL, 'XX000'),
	('divide', NULL, 'second', NULL, '22012'),
	('check parent', '{parent,both}', NULL, 'parents', '23514'),
	('taken parent', '{parent,both}', NULL, 'parents', '23505'),
	('check child', '{child,both}', NULL, 'children', '23514'),
	('taken child', '{child,both}', NULL, 'children', '23505')) d(bad, makes, stage, output, sqlstate)
	ON src.bad = d.bad AND (d.makes IS NULL OR src.makes = ANY (d.makes::text[]));

CREATE PROCEDURE oracle() LANGUAGE plpgsql AS $$
DECLARE
	number int;
	orphans int[];
BEGIN
	FOR number IN SELECT DISTINCT txn FROM src ORDER BY txn LOOP
		INSERT INTO expected_letters
		SELECT id, stage, output, sqlstate FROM own_errors WHERE txn = number;
		INSERT INTO expected_parents
		SELECT id, txn, CASE WHEN makes = 'parent' THEN parent END FROM src
		WHERE txn = number AND makes IN ('parent', 'both') AND id NOT IN (SELECT id FROM own_errors);
		INSERT INTO expected_children
		SELECT id, txn, parent FROM src
		WHERE txn = number AND makes IN ('child', 'both') AND id NOT IN (SELECT id FROM own_errors);
		LOOP
			SELECT array_agg(id) INTO orphans FROM (
				SELECT id, txn, parent FROM expected_parents UNION ALL SELECT id, txn, parent FROM expected_children) r
			WHERE txn = number AND parent IS NOT NULL AND parent NOT IN (SELECT id FROM expected_parents);
			EXIT WHEN orphans IS NULL;
			INSERT INTO expected_letters
			SELECT id, NULL, CASE WHEN makes = 'parent' THEN 'parents' ELSE 'children' END, '23503'
			FROM src WHERE id = ANY (orphans);
			DELETE FROM expected_parents WHERE id = ANY (orphans);
			DELETE FROM expected_children WHERE id = ANY (orphans);
		END LOOP;
	END LOOP;
END $$;

SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_stage('p', 'first', 'transform', 'first(src)');
SELECT pipeline.add_stage('p', 'second', 'transform', 'second(src)');
SELECT pipeline.add_output('p', 'children', transform => 'to_child(src)');
SELECT pipeline.add_output('p', 'parents', transform => 'to_parent(src)');
SELECT pipeline.start('p');
SQL

sub one_of
{
	return $_[ int(rand(@_)) ];
}

sub literal
{
	my ($value) = @_;

	return defined $value ? "'$value'" : 'NULL';
}

my @defects = (
	'raise', 'internal', 'divide', 'check parent',
	'check child', 'taken parent', 'taken child');
my $next_id = 1;
my $ntxns = 0;

# A transaction: its events know of each other, and of those before.  Returns the
# statement.
sub transaction
{
	my ($nevents, $share_bad, $share_lost) = @_;
	my $first = $next_id;
	my @rows;

	$next_id += $nevents;
	$ntxns++;
	for my $i (0 .. $nevents - 1)
	{
		my $id = $first + $i;
		my $makes = one_of('parent', 'parent', 'child', 'child', 'both', 'nothing');
		my $bad = rand() < $share_bad ? one_of(@defects) : undef;
		my $parent;

		if (rand() < $share_lost)
		{
			$parent = 1_000_000 + $id;
		}
		elsif (rand() < 0.7)
		{
			# within the transaction in any direction, or one of before
			$parent = rand() < 0.7 ? $first + int(rand($nevents)) : 1 + int(rand($id));
		}
		push @rows,
		  '(' . join(', ', $id, $ntxns, $i, literal($parent), literal($makes), literal($bad)) . ')';
	}
	return 'INSERT INTO src VALUES ' . join(', ', @rows) . ';';
}

# One round: transactions that come in one piece, so that a batch has many of
# them, with a share of bad events.
for my $round (1 .. 8)
{
	my $share_bad = one_of(0, 0.02, 0.2, 0.5);
	my $share_lost = one_of(0, 0.02, 0.2);
	my @sql;

	for (1 .. 12)
	{
		my $size = rand() < 0.1 ? $batch_rows + int(rand(2 * $batch_rows)) : 1 + int(rand(8));
		push @sql, transaction($size, $share_bad, $share_lost);
	}
	# an error of the environment's class needs a witness, also at the end
	push @sql, transaction(3, 0, 0);
	$node->safe_psql('postgres', q{SELECT pipeline.stop('p')}) if $round % 2;
	$node->safe_psql('postgres', join("\n", @sql));
	$node->safe_psql('postgres', q{SELECT pipeline.start('p')}) if $round % 2;
	$node->caught_up('p');
}

$node->safe_psql('postgres', 'CALL oracle()');
$node->same_rows(
	'SELECT id, txn, parent FROM parents WHERE id > 0',
	'TABLE expected_parents', "parents (seed $seed)");
$node->same_rows(
	'SELECT id, txn, parent FROM children WHERE id > 0',
	'TABLE expected_children', "children (seed $seed)");
$node->same_rows(
	q{SELECT (event->>'id')::int, stage, output, sqlstate FROM pipeline.dead_letters},
	'TABLE expected_letters', "dead letters (seed $seed)");
for my $table ('parents', 'children')
{
	is( $node->value(
			"SELECT count(*) FROM (SELECT id < lag(id) OVER (ORDER BY place) AS back FROM $table WHERE id > 0) o WHERE back"),
		'0',
		"$table in the order of the events");
}
is($node->value("SELECT count(*) > 0 FROM expected_letters WHERE sqlstate = '23503'"),
	't', 'there were orphans');
is($node->value('SELECT bool_and(events = (SELECT count(*) FROM src)) FROM pipeline.ledger(\'p\')'),
	't', 'every event is in the ledger');
$node->ledger_balanced('p', "ledger balanced (seed $seed)");

done_testing();
