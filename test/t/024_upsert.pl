# Upsert outputs equal their source at rest, whatever is done to it and whatever
# ends meanwhile: writers insert, change and delete rows, change and swap keys,
# truncate; some rows are rejected, others fail in the target.  One output is a
# mirror, whose keys are told from old rows; the other one has several rows a
# source row, made by functions and a look-up, and keeps them.  In the end the
# failed ones are run again.
#
# PIPELINE_UPSERT_ROUNDS says how many rounds, PIPELINE_UPSERT_SEED repeats the
# choices of an earlier run, as far as the scheduling lets it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_UPSERT_ROUNDS} // 12;
my $seed = $ENV{PIPELINE_UPSERT_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_UPSERT_SEED=$seed PIPELINE_UPSERT_ROUNDS=$rounds";

my $node = PipelineTest->start_new('main', conf => <<'CONF');
wal_writer_delay = 10s
pipeline.batch_rows = 100
pipeline.dead_letter_limit = 0
pipeline.breaker_failures = 1
max_prepared_transactions = 20
CONF

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id int PRIMARY KEY, amount int, u int UNIQUE, n serial);
CREATE TABLE tiers (amount int PRIMARY KEY, tier text NOT NULL);
INSERT INTO tiers SELECT n, 'tier ' || n % 3 FROM generate_series(0, 90) n;
CREATE TABLE mirror (LIKE src INCLUDING ALL);
CREATE TYPE tiered AS (id int, amount int, tier text);
CREATE TABLE lines (tier text, id int, part int, amount int CONSTRAINT not_77 CHECK (amount <> 77),
	PRIMARY KEY (id, part));
CREATE FUNCTION valid(s src) RETURNS text LANGUAGE sql STABLE AS
$$ SELECT CASE WHEN s.amount < 0 THEN 'negative' END $$;
CREATE FUNCTION tier(s src) RETURNS SETOF tiered LANGUAGE sql STABLE AS
$$ SELECT s.id, s.amount, t.tier FROM tiers t WHERE t.amount = s.amount $$;
CREATE FUNCTION parts(t tiered) RETURNS SETOF lines LANGUAGE sql STABLE ROWS 2 AS
$$ SELECT t.tier, t.id, g, t.amount FROM generate_series(1, t.amount % 4) g $$;
SELECT pipeline.create_pipeline('mirror', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_output('mirror', 'mirror'),
	pipeline.create_pipeline('lines', 'src', operations => '{insert,update,delete,truncate}'),
	pipeline.add_stage('lines', 'valid', 'validate', 'valid(src)'),
	pipeline.add_stage('lines', 'tier', 'enrich', 'tier(src)'),
	pipeline.add_output('lines', 'lines', transform => 'parts(tiered)'),
	pipeline.start('mirror'), pipeline.start('lines');
CREATE VIEW expected AS
SELECT p.* FROM src s, tier(s) t, parts(t) p WHERE s.amount >= 0;

-- 95 to 99 have no tier, 77 is refused, -1 rejected
CREATE FUNCTION some_amount() RETURNS int LANGUAGE sql VOLATILE AS
$$ SELECT CASE WHEN r < 0.03 THEN -1 WHEN r < 0.06 THEN 77 ELSE (r * 99)::int END FROM (SELECT random() r OFFSET 0) x $$;
SQL

# One transaction each; ids are few, so that keys meet.
my %script = (
	write => 'INSERT INTO src (id, amount) SELECT (random() * 300)::int, some_amount() FROM generate_series(1, 5)
		ON CONFLICT (id) DO UPDATE SET amount = excluded.amount',
	change => 'UPDATE src SET amount = some_amount() WHERE id % 17 = (random() * 16)::int',
	delete => 'DELETE FROM src WHERE id % 29 = :r % 29',
	move => 'UPDATE src s SET id = id + 1 WHERE id % 23 = :r % 23 AND NOT EXISTS (SELECT FROM src o WHERE o.id = s.id + 1)',
	swap => 'UPDATE src SET u = NULL WHERE u = 1; UPDATE src SET u = 1 WHERE u = 2;
		UPDATE src SET u = 2 WHERE id = (SELECT min(id) FROM src WHERE u IS NULL)',
	back => 'SAVEPOINT a; DELETE FROM src WHERE id % 5 = 0; ROLLBACK TO a;
		UPDATE src SET amount = some_amount() WHERE id = (SELECT max(id) FROM src)',
	rewrite => 'CREATE TEMPORARY TABLE was ON COMMIT DROP AS SELECT * FROM src WHERE id % 7 = :r % 7;
		DELETE FROM src WHERE id % 7 = :r % 7; INSERT INTO src SELECT * FROM was ON CONFLICT DO NOTHING',
	truncate => 'TRUNCATE src; INSERT INTO src (id, amount) SELECT i, some_amount() FROM generate_series(1, 50) i');
my %weight = (write => 50, change => 30, delete => 10, move => 15, swap => 10, back => 5, rewrite => 5, truncate => 1);
my @scripts;
for my $name (sort keys %script)
{
	my $file = $node->basedir . "/$name.sql";
	append_to_file($file, "\\set r random(0, 1000000)\nBEGIN;\n$script{$name};\nCOMMIT;\n");
	push @scripts, "--file=$file\@$weight{$name}";
}

my %end = (
	worker => sub { $node->kill9_process('pipeline worker') },
	ended => sub { $node->terminate_process('pipeline worker') },
	capture => sub { $node->kill9_process('pipeline capture') },
	nothing => sub { },
	restart => sub { $node->stop('immediate'); $node->start },
	lookup => sub {
		$node->safe_psql('postgres', 'ALTER TABLE tiers RENAME TO gone');
		$node->safe_psql('postgres', 'ALTER TABLE gone RENAME TO tiers');
	});

sub check
{
	my ($what) = @_;

	$node->caught_up($_) for ('mirror', 'lines');
	$node->same_rows('TABLE mirror', 'TABLE src', "$what: the mirror equals the source");
	$node->same_rows('SELECT tier, id, part, amount FROM lines', 'TABLE expected', "$what: so do the lines");
	$node->ledger_balanced($_, "$what: the ledger of $_ is balanced") for ('mirror', 'lines');
	is($node->value('SELECT count(*) FROM _pipeline.kept'), $node->value('SELECT count(*) FROM lines'),
		"$what: what is kept is what is there");
	return;
}

$node->safe_psql('postgres', "CREATE OR REPLACE VIEW expected AS
SELECT p.* FROM src s, tier(s) t, parts(t) p WHERE s.amount >= 0 AND s.amount <> 77");
for my $round (1 .. $rounds)
{
	my $what = (sort keys %end)[ int rand keys %end ];
	my $load = IPC::Run::start(
		[ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 3, '-j', 1, '-t', 40,
			'--max-tries=100', "--random-seed=" . ($seed + $round), @scripts, 'postgres' ],
		'>', \my $out, '2>', \my $err);

	$end{$what}->();
	IPC::Run::finish($load);
	check("round $round, $what");
}

# what failed for a value of the target goes through once that is allowed
$node->safe_psql('postgres', 'ALTER TABLE lines DROP CONSTRAINT not_77');
$node->safe_psql('postgres', "CREATE OR REPLACE VIEW expected AS
SELECT p.* FROM src s, tier(s) t, parts(t) p WHERE s.amount >= 0");
$node->safe_psql('postgres', "SELECT pipeline.redrive('lines')");
check('in the end');
is($node->value("SELECT count(*) FROM pipeline.dead_letters WHERE state = 'open' AND kind = 'failed'"), 0,
	'no letter of an error is left');

$node->stop;
done_testing();
