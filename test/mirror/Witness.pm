# Witness.pm - wal2json reads the same WAL from a slot of its own (witness.sql).
#
#   my $witness = Witness->new($node, $db);    # before the first change
#   $witness->compare;                         # when all is done: tests
#
# Without Debian's package postgresql-15-wal2json the tests are skipped, unless
# PIPELINE_WITNESS=1 demands them.

package Witness;

use strict;
use warnings;

use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

sub new
{
	my ($class, $node, $db) = @_;
	my $self = bless { node => $node, db => $db }, $class;
	my $there = -f $node->config_data('--pkglibdir') . '/wal2json.so';

	BAIL_OUT('wal2json is not installed') if !$there && $ENV{PIPELINE_WITNESS};
	$self->{active} = $there;
	# Where the server has a list of the plugins that may be used.
	if ($there && $node->safe_psql($db, q{SELECT current_setting('output_plugin_libraries', true)}) ne '')
	{
		$node->safe_psql($db, q{ALTER SYSTEM SET output_plugin_libraries = 'pgoutput', 'test_decoding', 'wal2json'});
		$node->safe_psql($db, 'SELECT pg_reload_conf()');
	}
	return $self;
}

# From here on.
sub start
{
	my ($self) = @_;

	$self->{node}->safe_psql($self->{db}, q{SELECT pg_create_logical_replication_slot('witness', 'wal2json')})
	  if $self->{active};
	return;
}

sub compare
{
	my ($self) = @_;
	my ($node, $db) = ($self->{node}, $self->{db});

  SKIP:
	{
		skip 'wal2json is not installed', 2 unless $self->{active};
		$node->safe_psql($db, slurp_file(dirname(__FILE__) . '/witness.sql'));
		my $number = $node->safe_psql($db, 'SELECT count(*) FROM mirror.witness_log');
		cmp_ok($number, '>', 100, "wal2json tells of $number changes");
		is( $node->safe_psql($db, 'SELECT * FROM mirror.witness_differences ORDER BY n LIMIT 3'),
			'', 'wal2json tells the same changes in the same order');
	}
	return;
}

1;
