# PipelineSpool.pm - what the records of a spool file, or of a chunk of the
# backlog, say; docs/internals.md describes both.
#
#   use PipelineSpool qw(node_records records);
#   my @records = node_records($node, 'postgres');	# of the spool's files
#   my @records = records($bytes);			# of one file or chunk
#
# A record is a hash: kind, flags, relid, seq, xid, commit_lsn; for changes also
# replident and logged (of its schema: REPLICA_IDENTITY_* and the names of the
# columns that old rows have), columns (names), old and new: the tuples as array
# refs, undef if there is none.  Values: integers as numbers, text as strings,
# null as undef, an on-disk toast pointer as 'TOAST', others as hex.

package PipelineSpool;

use strict;
use warnings;

use Exporter qw(import);
use PostgreSQL::Test::Utils qw(slurp_file);

our @EXPORT_OK = qw(node_records records);

my @kinds = qw(none insert update delete truncate control schema commit next);
my %align = (c => 1, s => 2, i => 4, d => 8);

# All records of a database's spool that are still there, in their order.
sub node_records
{
	my ($node, $db) = @_;
	my $oid = $node->value(q{SELECT oid FROM pg_database WHERE datname = current_database()}, db => $db);

	return map { records(slurp_file($node->data_dir . "/$_")) } $node->spool_files(oid => $oid);
}

sub records
{
	my ($bytes) = @_;
	my $at = 40;
	my (%schemas, @records);

	while ($at + 64 <= length $bytes)
	{
		my ($len, $kind, $flags, undef, $relid, $xid, $seq, $schema_at, $old_len, $new_len,
			undef, $writer, $lsn) = unpack('L C C S L L L L L L L l Q', substr($bytes, $at, 64));
		last if $len == 0;
		my $old = substr($bytes, $at + 64, $old_len);
		my $new = substr($bytes, $at + 64 + aligned($old_len, 8), $new_len);

		if ($kinds[$kind] eq 'schema')
		{
			$schemas{$at} = schema($new);
		}
		elsif ($kinds[$kind] ne 'next')
		{
			my %record = (kind => $kinds[$kind], flags => $flags, relid => $relid, xid => $xid,
				seq => $seq, writer => $writer, commit_lsn => $lsn);
			if ($schema_at)
			{
				my $schema = $schemas{$schema_at} or die "no schema at $schema_at";
				$record{replident} = $schema->{replident};
				$record{columns} = [ map { $_->{name} } @{ $schema->{columns} } ];
				$record{logged} =
				  [ map { $_->{name} } grep { $_->{replident} } @{ $schema->{columns} } ];
				$record{old} = tuple($old, $schema) if $old_len;
				$record{new} = tuple($new, $schema) if $new_len;
			}
			push @records, \%record;
		}
		$at += $len;
	}
	return @records;
}

sub aligned
{
	my ($offset, $to) = @_;
	return ($offset + $to - 1) & ~($to - 1);
}

sub schema
{
	my ($body) = @_;
	my ($natts, $replident) = unpack('L A', $body);
	my @columns;

	for my $i (0 .. $natts - 1)
	{
		my %column;
		@column{qw(name type typmod collation len byval align storage generated identity
			  notnull dropped hasmissing replident)} =
		  unpack('Z64 L l L s C A A A A C C C C', substr($body, 8 + 88 * $i, 88));
		push @columns, \%column;
	}
	return { replident => $replident, columns => \@columns };
}

sub tuple
{
	my ($data, $schema) = @_;
	my ($infomask2, $infomask, $hoff) = unpack('x18 S S C', $data);
	my $natts = $infomask2 & 0x07FF;
	my $bits = $infomask & 0x0001 ? unpack('b*', substr($data, 23, $hoff - 23)) : '1' x $natts;
	my $at = $hoff;
	my @values;

	for my $i (0 .. $natts - 1)
	{
		my $column = $schema->{columns}[$i];
		my $value;

		if (substr($bits, $i, 1) eq '1')
		{
			# a short or external value is not aligned, and its header is never 0
			$at = aligned($at, $align{ $column->{align} })
			  unless $column->{len} == -1 && ord substr($data, $at, 1);
			($value, my $len) = value(substr($data, $at), $column);
			$at += $len;
		}
		push @values, $value;
	}
	return \@values;
}

# A value and its length.
sub value
{
	my ($data, $column) = @_;

	if ($column->{len} > 0)
	{
		my $format = { 1 => 'c', 2 => 's', 4 => 'l', 8 => 'q' }->{ $column->{len} };
		return ($format ? unpack($format, $data) : unpack("H$column->{len}", $data), $column->{len});
	}
	my $first = ord $data;
	return ('TOAST', 18) if $first == 1;
	return (substr($data, 1, ($first >> 1) - 1), $first >> 1) if $first & 1;
	my $len = unpack('L', $data) >> 2;
	my $bytes = substr($data, 4, $len - 4);
	return ($first & 2 ? 'compressed ' . unpack('H*', $bytes) : $bytes, $len);
}

1;
