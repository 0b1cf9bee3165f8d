# Suites.pm - PostgreSQL's own regression and isolation tests, with and without mirrors.
#
#   my $suite = Suites->new('regress');           # or 'isolation'
#   $suite->run_plain;                            # a server without the extension
#   $suite->run_mirrored;                         # one with a mirror of every table
#   $suite->compare;                              # what each file printed: tests
#
# Each file's output must be the same in both servers.  So it does not matter what
# differs from the expected output for other reasons: the minor version, the settings.
#
# Environment: PIPELINE_SUITE_TESTS, names of the files to run.

package Suites;

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Path qw(make_path);
use IPC::Run ();
use Mirror;
use PipelineTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Files in which tables are left as they are, since it is replica identities that they
# test: a table without a key, or with large values, is not captured there.
my %own_identity = map { $_ => 1 } qw(replica_identity publication);

# Files that list all security definers, all event triggers, and all locks of a transaction that
# altered a table and so compared it: these lines, and widths and numbers of rows, are not compared.
my %ours = (
	event_trigger => qr/^ *pipeline_schema_\w+ +\| event trigger .*\n/m,
	opr_sanity => qr/^ *\d+ \| (?:declare_table|settle|at_commit|check_table|before_ddl|after_ddl|on_rewrite|on_drop) *\n/m,
	alter_table => qr/^ *(?:(?:pending|results|results_id_seq|layouts|layouts_pkey|schema_events\w*) +\| \w+Lock|\S+ +\| AccessShareLock) *\n/m,
);

# Files that have event triggers for all that happens: they run without mirrors.
my %bare = map { $_ => 1 } qw(event_trigger);

my $conf = <<'CONF';
max_worker_processes = 64
max_replication_slots = 10
max_wal_senders = 10
wal_level = logical
max_prepared_transactions = 2
max_connections = 60
timezone = 'UTC'
CONF
my $mirror_conf = <<'CONF';
pipeline.worker_idle_timeout = 2s
pipeline.max_segments = 4000
pipeline.max_retained_wal = 4GB
log_line_prefix = '%m [%p] %b %q%a '
CONF

sub new
{
	my ($class, $kind) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { kind => $kind, dir => $dir }, $class;

	system_or_bail(dirname(__FILE__) . '/source', $dir);
	$self->{input} = "$dir/postgresql/src/test/$kind";
	my $schedule = "$self->{input}/" . ($kind eq 'regress' ? 'parallel_schedule' : 'isolation_schedule');
	$self->{tests} = [ map { split ' ' } slurp_file($schedule) =~ /^test: (.*)/mg ];
	my %only = map { $_ => 1 } split ' ', $ENV{PIPELINE_SUITE_TESTS} // '';
	$self->{tests} = [ grep { $only{$_} || $_ eq 'test_setup' } @{ $self->{tests} } ] if %only;
	$self->_make_library if $kind eq 'regress';
	return $self;
}

# The functions in C that the regression tests use.
sub _make_library
{
	my ($self) = @_;
	my $config = $ENV{PG_CONFIG} // 'pg_config';
	my $lib = $self->{lib} = "$self->{dir}/lib";
	chomp(my ($include, $pkglib) = map { scalar `$config $_` } '--includedir-server', '--pkglibdir');

	make_path($lib);
	system_or_bail('cc', '-O1', '-fPIC', '-shared', '-w', "-I$include", '-o', "$lib/regress.so",
		"$self->{input}/regress.c");
	symlink("$pkglib/$_.so", "$lib/$_.so") for qw(autoinc refint);
	return;
}

# Run files, one after the other, with one call of pg_regress or a call for each.
sub _run
{
	my ($self, $node, $name, @tests) = @_;
	my $program = dirname($ENV{PG_REGRESS}) . '/'
	  . ($self->{kind} eq 'regress' ? 'pg_regress' : '../isolation/pg_isolation_regress');
	my $bindir = $node->config_data('--bindir');
	my $output = "$self->{dir}/$name";

	make_path("$output/results") unless -d $output;
	my @command = ($program, '--use-existing', "--dbname=$self->{kind}", "--inputdir=$self->{input}",
		"--outputdir=$output", "--bindir=$bindir", '--host=' . $node->host, '--port=' . $node->port,
		'--max-concurrent-tests=60');
	push @command, "--dlpath=$self->{lib}" if $self->{lib};
	IPC::Run::run([ @command, @tests ], '<', \undef, '>', \my $said, '2>&1');
	append_to_file("$PostgreSQL::Test::Utils::log_path/$self->{kind}_$name.out", $said);
	for my $test (@tests)
	{
		$self->{$name}{$test} = $said =~ /^(?:test )?\s*\Q$test\E\s+\.\.\. (ok|FAILED)/m ? $1 : 'no result';
	}
	return;
}

# As pg_regress sets it in a database that it makes.
sub _settings
{
	my ($self, $node) = @_;

	$node->safe_psql('postgres', join '', map { "ALTER DATABASE $self->{kind} SET $_;\n" }
		q{lc_messages TO 'C'}, q{lc_monetary TO 'C'}, q{lc_numeric TO 'C'}, q{lc_time TO 'C'},
		q{bytea_output TO 'hex'}, q{timezone_abbreviations TO 'Default'});
	return;
}

sub run_plain
{
	my ($self) = @_;
	my $node = PostgreSQL::Test::Cluster->new('plain');

	$node->init(extra => [ '--no-locale', '-E', 'UTF8' ]);
	$node->append_conf('postgresql.conf', $conf);
	$node->start;
	$node->safe_psql('postgres', "CREATE DATABASE $self->{kind} TEMPLATE template0");
	$self->_settings($node);
	$self->_run($node, 'plain', $_) for @{ $self->{tests} };
	$node->stop;
	return;
}

sub run_mirrored
{
	my ($self) = @_;
	my $node = PipelineTest->start_new('mirrored', extension => 0, conf => $conf . $mirror_conf);
	my $mirror = Mirror->new($node, $self->{kind});
	my $sweeper = $mirror->start_sweeper;

	$self->{node} = $node;
	$self->{mirror} = $mirror;
	$self->_settings($node);
	for my $test (@{ $self->{tests} })
	{
		$mirror->set(identity => 'off', logs => 'never') if $own_identity{$test};
		$mirror->detach if $bare{$test};
		$self->_run($node, 'mirrored', $test);
		$mirror->check_new($test);
		$mirror->set(identity => 'on', logs => 'off') if $own_identity{$test};
		$mirror->attach if $bare{$test};
	}
	$mirror->stop_sweeper($sweeper);
	$mirror->check;
	return;
}

sub _output
{
	my ($self, $name, $test) = @_;
	my $file = "$self->{dir}/$name/results/$test.out";

	return undef unless -f $file;
	my $text = slurp_file($file);
	$text =~ s/^Replica Identity: FULL\n//mg unless $own_identity{$test};
	if ($ours{$test})
	{
		$text =~ s/$ours{$test}//g;
		$text =~ s/^\(\d+ rows?\)$/(rows)/mg;
		$text =~ s/ +|-+/ /g;
	}
	return $text;
}

# A test for each file, and a table of what came of it.
sub compare
{
	my ($self) = @_;
	my $log = $PostgreSQL::Test::Utils::log_path;
	my $mirrors = $self->{mirror}->by_script;

	for my $test (@{ $self->{tests} })
	{
		my ($plain, $mirrored) = map { $self->_output($_, $test) } qw(plain mirrored);
		my $same = defined $plain && defined $mirrored && $plain eq $mirrored;

		ok($same, "$self->{kind} $test prints the same");
		next if $same;
		system "diff -U3 '$self->{dir}/plain/results/$test.out' '$self->{dir}/mirrored/results/$test.out'"
		  . " >'$log/$self->{kind}_$test.diff'";
		diag "see log/$self->{kind}_$test.diff";
	}
	my $table = sprintf "%-28s %-8s %-6s %s\n", 'file', 'expected', 'same', 'mirrors';
	for my $test (@{ $self->{tests} })
	{
		my ($plain, $mirrored) = map { $self->_output($_, $test) // '' } qw(plain mirrored);
		$table .= sprintf "%-28s %-8s %-6s %s\n", $test, $self->{plain}{$test},
		  $plain eq $mirrored ? 'yes' : 'no', $mirrors->{$test} // '';
	}
	append_to_file("$log/$self->{kind}_table.txt", $table);
	diag $table if $ENV{PIPELINE_SUITE_TABLE};
	is($self->{mirror}->differences, '', "$self->{kind}: every mirror is equal to its source");
	return;
}

1;
