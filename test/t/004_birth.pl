# A definition holds from its own commit on: while several clients write, in
# single statements, with savepoints and as prepared transactions, pipelines
# are started and outputs are added to a running one, at once, in transactions
# that stay open for a while, after a rollback, and in prepared transactions,
# also while capture and worker are ended.  A logical slot of test_decoding,
# which knows nothing of pipelines, is the witness of the commit order: what it
# has after the definition is in, what it has before is out, exactly.
#
# PIPELINE_BIRTH_ROUNDS says how many rounds, PIPELINE_BIRTH_SEED repeats the
# choices of an earlier run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run;
use List::Util qw(shuffle);
use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $rounds = $ENV{PIPELINE_BIRTH_ROUNDS} // 10;
my $seed = $ENV{PIPELINE_BIRTH_SEED} // time % 1000000;
srand($seed);
diag "PIPELINE_BIRTH_SEED=$seed PIPELINE_BIRTH_ROUNDS=$rounds";

my $node = PipelineTest->start_new('main', conf => "max_prepared_transactions = 100\n");

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE src (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, note text);
CREATE TABLE base (id bigint, note text);
SELECT pipeline.create_pipeline('base', source => 'src');
SELECT pipeline.add_output('base', 'base');

-- Says in the WAL, at this place of this transaction, what was just defined.
CREATE FUNCTION witness(what text) RETURNS pg_lsn LANGUAGE sql VOLATILE AS
$$ SELECT pg_logical_emit_message(true, 'witness', what) $$;
SQL
$node->safe_psql('postgres',
	q{SELECT pg_create_logical_replication_slot('witness', 'test_decoding')});
$node->safe_psql('postgres', q{SELECT pipeline.start('base'), witness('base')});

# ---- writers ----------------------------------------------------------------

my %script = (
	single => <<'SQL',
INSERT INTO src (note) VALUES ('single');
SQL
	several => <<'SQL',
BEGIN;
INSERT INTO src (note) VALUES ('first');
SAVEPOINT a;
INSERT INTO src (note) VALUES ('undone');
ROLLBACK TO a;
SAVEPOINT b;
INSERT INTO src (note) SELECT 'several' FROM generate_series(1, 3);
COMMIT;
SQL
	rollback => <<'SQL',
BEGIN;
INSERT INTO src (note) VALUES ('rolled back');
ROLLBACK;
SQL
	prepared => <<'SQL');
\set r random(1, 1000000000)
BEGIN;
INSERT INTO src (note) VALUES ('prepared'), ('prepared');
PREPARE TRANSACTION 'g:client_id.:r';
COMMIT PREPARED 'g:client_id.:r';
SQL
my @scripts;
for my $name (sort keys %script)
{
	for my $sync ('on', 'off')
	{
		my $file = $node->basedir . "/${name}_$sync.sql";
		append_to_file($file, "SET synchronous_commit = $sync;\n$script{$name}");
		push @scripts, "--file=$file";
	}
}

my $output = '';
my $writers;

sub start_writers
{
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGAPPNAME} = 'writer';

	$writers = IPC::Run::start(
		[
			'pgbench', '--no-vacuum', '--client=6', '--time=3600', '--rate=600',
			"--random-seed=$seed", @scripts, 'postgres'
		],
		'<', '/dev/null', '>&', \$output,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return;
}

sub end_writers
{
	$writers->kill_kill(grace => 0);
	$node->poll(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'writer'},
		what => 'the writers to end');
	$node->safe_psql('postgres', "ROLLBACK PREPARED '$_'")
	  for split /\n/, $node->value('SELECT gid FROM pg_prepared_xacts');
	return;
}

# Return when the writers have done some more.
sub let_write
{
	my ($rows) = @_;
	my $upto = $rows + $node->value('SELECT coalesce(max(id), 0) FROM src');

	$node->poll("SELECT max(id) >= $upto FROM src", what => 'the writers');
	return;
}

# ---- ways to define ---------------------------------------------------------

# Each gets the two definitions of a round, in random order.
my $pause = sub { let_write(1 + int rand(60)) };
my $session = $node->background_psql('postgres');

my %way = (
	'at once' => sub { $session->query_safe("SELECT $_") for @_ },
	'at once, asynchronously' => sub {
		$session->query_safe('SET synchronous_commit = off');
		$session->query_safe("SELECT $_") for @_;
		$session->query_safe('RESET synchronous_commit');
	},
	'in a transaction' => sub {
		$session->query_safe('BEGIN');
		for (@_)
		{
			$pause->();
			$session->query_safe("SELECT $_");
		}
		$pause->();
		$session->query_safe('COMMIT');
	},
	'in a transaction with rows of its own' => sub {
		$session->query_safe(q{BEGIN; INSERT INTO src (note) VALUES ('own')});
		for (@_)
		{
			$session->query_safe("SELECT $_");
			$session->query_safe(q{INSERT INTO src (note) VALUES ('own')});
		}
		$pause->();
		$session->query_safe(q{INSERT INTO src (note) VALUES ('own')});
		$session->query_safe('COMMIT');
	},
	'in a savepoint, at the second try' => sub {
		my $both = join ', ', @_;
		$session->query_safe('BEGIN; SAVEPOINT a');
		$session->query_safe("SELECT $both");
		$pause->();
		$session->query_safe('ROLLBACK TO a');
		$pause->();
		$session->query_safe("SAVEPOINT b; SELECT $both; RELEASE b");
		$pause->();
		$session->query_safe('COMMIT');
	},
	'after a rollback' => sub {
		my $both = join ', ', @_;
		$session->query_safe("BEGIN; SELECT $both");
		$pause->();
		$session->query_safe('ROLLBACK');
		$pause->();
		$session->query_safe("SELECT $both");
	},
	'in a prepared transaction' => sub {
		$session->query_safe('BEGIN');
		$session->query_safe("SELECT $_") for @_;
		$session->query_safe(q{PREPARE TRANSACTION 'definition'});
		$pause->();
		$session->query_safe(q{COMMIT PREPARED 'definition'});
	});

# ---- the rounds -------------------------------------------------------------

my @deck;
my %how;

start_writers();
let_write(10);
for my $round (1 .. $rounds)
{
	my @definitions = shuffle(
		"pipeline.start('p$round'), witness('p$round')",
		"pipeline.add_output('base', 'added$round'), witness('added$round')");

	@deck = shuffle(sort keys %way) unless @deck;
	$how{$round} = shift @deck;
	$node->safe_psql('postgres', <<SQL);
CREATE TABLE p$round (id bigint, note text);
CREATE TABLE added$round (id bigint, note text);
SELECT pipeline.create_pipeline('p$round', source => 'src');
SELECT pipeline.add_output('p$round', 'p$round');
SQL
	note "round $round: $how{$round}";
	$pause->();
	$way{ $how{$round} }->(@definitions);
	my $end = ('pipeline capture', 'pipeline worker', '', '')[ int rand(4) ];
	note "end of a $end" if $end && $node->terminate_process($end);
}
$pause->();
end_writers();
$session->quit;

# ---- what the witness says --------------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE TABLE decoded AS
SELECT n, (regexp_match(line, '^table public.src: INSERT: id\[bigint\]:(\d+) '))[1]::bigint AS id,
	(regexp_match(line, 'prefix: witness, sz: \d+ content:(.*)$'))[1] AS definition
  FROM pg_logical_slot_get_binary_changes('witness', NULL, NULL)
       WITH ORDINALITY AS d(lsn, xid, data, n), encode(data, 'escape') AS line;
CREATE TABLE event AS
SELECT d.definition, s.id, s.note
  FROM decoded d JOIN decoded r ON r.id IS NOT NULL AND r.n > d.n JOIN src s ON s.id = r.id
 WHERE d.definition IS NOT NULL;
SQL
$node->same_rows('SELECT id FROM decoded WHERE id IS NOT NULL', 'SELECT id FROM src',
	'the witness saw every row');
is($node->value('SELECT count(*) FROM decoded WHERE definition IS NOT NULL'),
	1 + 2 * $rounds, 'and every definition');

$node->caught_up('base');
$node->same_rows('TABLE base', q{SELECT id, note FROM event WHERE definition = 'base'},
	'the output that was there from the start has every row');
for my $round (1 .. $rounds)
{
	$node->caught_up("p$round");
	for my $what ("p$round", "added$round")
	{
		$node->same_rows("TABLE $what",
			"SELECT id, note FROM event WHERE definition = '$what'",
			($what =~ /^p/ ? 'started' : 'added') . " $how{$round}, round $round");
	}
	$node->ledger_balanced("p$round", "and its ledger is balanced, round $round");
}
$node->ledger_balanced('base', 'the ledger of the outputs that were added is balanced');
$node->same_rows('SELECT output, events FROM pipeline.ledger($$base$$)',
	q{SELECT definition, count(*) FROM event WHERE definition !~ '^p' GROUP BY 1},
	'it counts the events since each was added');

# ---- a prepared start where nothing else runs -------------------------------

# Nobody asks how far the pipeline is: that would wake capture.
$node->create_database('quiet');
$node->safe_psql('quiet', <<'SQL');
CREATE TABLE src (id int);
CREATE TABLE dst (id int);
SELECT pipeline.create_pipeline('p', source => 'src');
SELECT pipeline.add_output('p', 'dst');
BEGIN;
SELECT pipeline.start('p');
INSERT INTO src VALUES (2);
PREPARE TRANSACTION 'birth';
INSERT INTO src VALUES (1);
SQL
$node->asleep($node->process_pid('pipeline capture', db => 'quiet'));
$node->safe_psql('quiet', q{COMMIT PREPARED 'birth'; INSERT INTO src VALUES (3)});
$node->poll('SELECT count(*) >= 2 FROM dst', db => 'quiet', what => 'rows after a prepared start');
$node->same_rows('TABLE dst', 'SELECT id FROM src WHERE id > 1', db => 'quiet',
	'a prepared start takes effect at COMMIT PREPARED');

# Rolled back, also by somebody else.
$node->safe_psql('quiet', <<'SQL');
SELECT pipeline.create_pipeline('never', source => 'src');
SELECT pipeline.add_output('never', 'dst');
BEGIN;
SELECT pipeline.start('never');
PREPARE TRANSACTION 'birth';
SQL
$node->restart;
$node->safe_psql('quiet', q{INSERT INTO src VALUES (4); ROLLBACK PREPARED 'birth'});
$node->safe_psql('quiet', q{INSERT INTO src VALUES (5)});
$node->caught_up('p', db => 'quiet');
$node->same_rows('TABLE dst', 'SELECT id FROM src WHERE id > 1', db => 'quiet',
	'a prepared start that is rolled back never happened');
is($node->value(q{SELECT running FROM pipeline.pipelines WHERE pipeline = 'never'}, db => 'quiet'),
	'f', 'and its pipeline is not running');

$node->stop;
done_testing();
