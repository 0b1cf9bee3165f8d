# Sessions write into a partitioned table and into its partitions, by all ways,
# while another one attaches and detaches these at random: each change of a
# partition that was attached is an event of the table, with its columns, and no
# other one is.  Triggers on the partitions say what was what.
#
# PIPELINE_PARTITIONS_SEED repeats the choices of an earlier run, but not how the
# sessions meet.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{PIPELINE_PARTITIONS_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_PARTITIONS_SEED=$seed";

my $node = PipelineTest->start_new('main');
my @parts = 0 .. 7;

# p0 to p3 directly below m, p4 to p7 below mid; a key, all columns or nothing is
# logged of their old rows; columns in any order, with dropped ones between.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE m (dropped int, id int NOT NULL, r int NOT NULL, v text, large text) PARTITION BY LIST (r);
ALTER TABLE m DROP COLUMN dropped;
CREATE TABLE mid (r int NOT NULL, id int NOT NULL, large text, v text) PARTITION BY LIST (r);
CREATE TABLE m_out (id int, r int, v text, large text);
CREATE TABLE mid_out (LIKE m_out);
CREATE TABLE oracle (source text, op text, id int, r int, v text, large text);
CREATE SEQUENCE ids;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	parent regclass := (SELECT inhparent FROM pg_inherits WHERE inhrelid = TG_RELID);
BEGIN
	WHILE parent IS NOT NULL LOOP
		IF TG_OP = 'DELETE' THEN
			INSERT INTO oracle VALUES (parent, TG_OP, OLD.id);
		ELSE
			INSERT INTO oracle VALUES (parent, TG_OP, NEW.id, NEW.r, NEW.v, NEW.large);
		END IF;
		parent := (SELECT inhparent FROM pg_inherits WHERE inhrelid = parent);
	END LOOP;
	RETURN NULL;
END $$;
SELECT pipeline.create_pipeline(s, s::regclass, operations => '{insert,update,delete}'),
	pipeline.add_stage(s, 's', 'transform', query => 'SELECT id, r, v, large FROM event'),
	pipeline.add_output(s, (s || '_out')::regclass, mode => 'append'),
	pipeline.start(s)
FROM unnest('{m,mid}'::text[]) s;
SQL
for my $i (@parts)
{
	my @columns = ('id int NOT NULL', 'r int NOT NULL', 'v text', 'large text', 'gone1 int', 'gone2 text');
	@columns = map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand, $_ ] } @columns;
	$node->safe_psql('postgres', join ";\n",
		"CREATE TABLE p$i (" . join(', ', @columns) . ')',
		"ALTER TABLE p$i DROP COLUMN gone1, DROP COLUMN gone2, ALTER large SET STORAGE EXTERNAL",
		"ALTER TABLE p$i REPLICA IDENTITY FULL",
		"CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON p$i FOR EACH ROW EXECUTE FUNCTION note()");
}

# What a client does: one transaction of some statements, each of which may fail
# and is taken back then.
my $client = $node->basedir . '/client.sql';
append_to_file($client, <<'SQL');
\set n random(1, 6)
\set stop random(0, 9)
SELECT client(:n, :stop);
SQL
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION statement() RETURNS text LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	t text := (ARRAY['m', 'm', 'mid', 'p'])[1 + floor(random() * 4)];
	r int := floor(random() * 8);
	large text := CASE WHEN random() < 0.3 THEN repeat(md5(random()::text), 100 + (random() * 200)::int) END;
BEGIN
	IF t = 'p' THEN
		t := 'p' || r;
	END IF;
	CASE floor(random() * 8)
	WHEN 0, 1, 2, 3 THEN
		RETURN format('INSERT INTO %s (id, r, v, large) SELECT nextval(''ids''), %s, md5(random()::text), %L FROM generate_series(1, %s)',
			t, r, large, 1 + floor(random() * 3));
	WHEN 4, 5 THEN
		RETURN format('UPDATE %s SET v = md5(random()::text) WHERE id = (SELECT min(id) FROM %1$s WHERE id > %s)',
			t, floor(random() * (SELECT last_value FROM ids)));
	WHEN 6 THEN
		RETURN format('UPDATE %s SET r = %s WHERE id = (SELECT max(id) FROM %1$s WHERE id < %s)',
			t, r, floor(random() * (SELECT last_value FROM ids)));
	ELSE
		RETURN format('DELETE FROM %s WHERE id IN (SELECT id FROM %1$s ORDER BY random() LIMIT %s)', t, floor(random() * 3));
	END CASE;
END $$;
CREATE FUNCTION client(n int, stop int) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	FOR i IN 1..n LOOP
		BEGIN
			EXECUTE statement();
			IF i = stop THEN
				RAISE division_by_zero;
			END IF;
		EXCEPTION
			-- no such partition now, or it moved away
			WHEN division_by_zero OR check_violation OR deadlock_detected OR serialization_failure OR lock_not_available THEN
				NULL;
		END;
	END LOOP;
END $$;

CREATE TABLE toggled (what text);
CREATE PROCEDURE toggle(rounds int) LANGUAGE plpgsql AS $$
DECLARE
	i int;
	what text;
	parent text;
BEGIN
	FOR round IN 1..rounds LOOP
		i := floor(random() * 9);
		what := CASE WHEN i = 8 THEN 'mid' ELSE 'p' || i END;
		parent := (SELECT inhparent::regclass FROM pg_inherits WHERE inhrelid = what::regclass);
		BEGIN
			SET LOCAL lock_timeout = '200ms';
			IF parent IS NOT NULL THEN
				EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', parent, what);
			ELSE
				EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES IN (%s)',
					CASE WHEN i BETWEEN 4 AND 7 THEN 'mid' ELSE 'm' END, what,
					CASE WHEN i = 8 THEN '4, 5, 6, 7' ELSE i::text END);
			END IF;
			IF random() < 0.2 THEN
				RAISE division_by_zero;
			END IF;
			INSERT INTO toggled VALUES (what);
		EXCEPTION WHEN division_by_zero OR lock_not_available OR deadlock_detected OR check_violation THEN
			NULL;
		END;
		COMMIT;
	END LOOP;
END $$;
SQL
# Rows of other regions than its own would keep a table from being attached.
$node->safe_psql('postgres', "ALTER TABLE p$_ ADD CHECK (r = $_)") for @parts;
$node->safe_psql('postgres', "ALTER TABLE m ATTACH PARTITION mid FOR VALUES IN (4, 5, 6, 7)");
$node->safe_psql('postgres', 'ALTER TABLE ' . ($_ < 4 ? 'm' : 'mid') . " ATTACH PARTITION p$_ FOR VALUES IN ($_)")
  for @parts;

my $toggler = $node->background_psql('postgres');
$toggler->query_until(qr/begun/, "\\echo begun\nCALL toggle(1000000);\n");
$node->command_ok(
	[ 'pgbench', '-n', '-c', '4', '-T', '12', "--random-seed=$seed", '-f', $client, 'postgres' ],
	'sessions write');
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE query ~ '^CALL toggle'});
eval { $toggler->quit };

my $toggled = $node->value('SELECT count(*) FROM toggled');
cmp_ok($toggled, '>', 50, "$toggled times a partition came or went");
for my $source ('m', 'mid')
{
	$node->caught_up($source);
	my $rows = $node->value("SELECT count(*) FROM oracle WHERE source = '$source'");
	cmp_ok($rows, '>', 500, "$source: $rows events");
	$node->same_rows("TABLE ${source}_out",
		"SELECT id, r, v, large FROM oracle WHERE source = '$source' AND op <> 'DELETE'",
		"$source: its rows are those that its partitions had while they were partitions");
	is( $node->value("SELECT concat_ws(' ', events, filtered) FROM pipeline.status WHERE pipeline = '$source'"),
		$node->value("SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE op = 'DELETE')) FROM oracle WHERE source = '$source'"),
		"$source: and nothing else happened to it");
}
$node->stop;
done_testing();
