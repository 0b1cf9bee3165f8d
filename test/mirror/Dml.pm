# Dml.pm - random changes of random tables, as scripts for psql.
#
#   my $dml = Dml->new(seed => 42, partitions => 1);
#   print $dml->setup;                   # types and tables, in schema dml
#   print $dml->session(7, $seconds);    # one session's statements
#
# The text depends on the seed and on the number of the session only.  Statements
# may fail, of conflicts with other sessions above all: the transaction is then
# rolled back, and the session goes on.  Columns named x_... come, go and change;
# no other column does.

package Dml;

use strict;
use warnings;

# Values of each type: what is likely to be got wrong.  The types after the first
# group can be longer than a row, so tables that have them need a full identity.
my @short_types = (
	[ 'int2', -32768, 0, 32767 ],
	[ 'int4', -2147483648, 0, 2147483647, 17 ],
	[ 'int8', '-9223372036854775808', 0, '9223372036854775807' ],
	[ 'float4', '-0', 'NaN', '-Infinity', '1e-45', '3.4028235e38', '0.1' ],
	[ 'float8', '-0', '0', 'NaN', 'Infinity', '5e-324', '1.7976931348623157e308', '0.1' ],
	[ 'bool', 't', 'f' ],
	[ '"char"', 'x', '', '\\200' ],
	[ 'name', 'a name', '' ],
	[ 'date', '0044-03-15 BC', 'infinity', '-infinity', '2024-02-29', '5874897-12-31' ],
	[ 'time', '24:00:00', '00:00:00', '12:34:56.789012' ],
	[ 'timetz', '24:00:00-15:59', '12:00:00+05:30' ],
	[ 'timestamp', '4713-01-01 00:00:00 BC', 'infinity', '294276-12-31 23:59:59.999999' ],
	[ 'timestamptz', '0001-12-31 23:59:59 BC', '-infinity', '2023-03-26 01:30:00+00' ],
	[ 'interval', '-178000000 years', '1 mon -1 day +00:00:00.000001', '0' ],
	[ 'uuid', '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff' ],
	[ 'macaddr', '08:00:2b:01:02:03' ],
	[ 'macaddr8', '08:00:2b:01:02:03:04:05' ],
	[ 'money', '-92233720368547758.08', '0.01' ],
	[ 'point', '(0,-0)', '(NaN,Infinity)', '(1e300,-1e-300)' ],
	[ 'lseg', '[(0,0),(1,1)]' ],
	[ 'oid', 0, '4294967295' ],
	[ 'pg_lsn', '0/0', 'FFFFFFFF/FFFFFFFF' ],
	[ 'xid8', '18446744073709551615' ],
	[ 'tid', '(4294967295,65535)' ],
	[ 'dml.mood', 'sad', 'ok', 'so happy, "really"' ],
	[ 'dml.posint', 1, 2147483647 ]);
my @long_types = (
	[ 'numeric', 'NaN', 'Infinity', '-Infinity', '0.00', '-1e-100', '1.50', '9' x 500, "1e1000" ],
	[ 'numeric(12,3)', '1.5', '-999999999.999', 'NaN' ],
	[ 'text', '', 'null', 'NULL', "tab\tnew\nline", "quo'te\"\\", "\x{e9}\x{4e2d}\x{1f600}", '\\N', '(,)' ],
	[ 'varchar(10)', '', '0123456789' ],
	[ 'char(5)', 'ab', '', '     ' ],
	[ 'bytea', '\\x', '\\x00', '\\x00ff5c', '\\x' . 'de' x 300 ],
	[ 'json', 'null', '{"a": 1,   "a": 2}', '[1, 2.50, "x"]' ],
	[ 'jsonb', 'null', '{"a": [1, {"b": null}], "c": 1e400}', '[]', '1.50' ],
	[ 'jsonpath', '$."a"[*] ? (@ > 1)' ],
	[ 'inet', '::1/128', '192.168.0.1/24' ],
	[ 'cidr', '10.0.0.0/8' ],
	[ 'bit(5)', '10101' ],
	[ 'varbit', '', '1' x 77 ],
	[ 'path', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))' ],
	[ 'polygon', '((0,0),(1,1),(2,0))' ],
	[ 'circle', '<(0,0),Infinity>' ],
	[ 'int4[]', '{}', '{1,NULL,3}', '[0:1]={1,2}', '{{1,2},{3,4}}' ],
	[ 'text[]', '{}', '{"",NULL,"NULL","a,b\\"c"}' ],
	[ 'int4range', 'empty', '[1,10)', '(,)' ],
	[ 'numrange', '[1.0,2.00]', '(,NaN]' ],
	[ 'tstzrange', '[-infinity,infinity]', '["2024-01-01 00:00:00+00",)' ],
	[ 'int4multirange', '{}', '{[1,3),[5,7)}' ],
	[ 'nummultirange', '{[1.5,1.50],(2,3)}' ],
	[ 'tsvector', "a:1A b:2 'c d'", '' ],
	[ 'tsquery', "a & !b | 'c d'", '' ],
	[ 'hstore', '', 'a=>1, b=>NULL, "c d"=>""' ],
	[ 'citext', 'MiXeD', '', 'mixed' ],
	[ 'ltree', '', 'Top.Science.Astronomy' ],
	[ 'dml.shortname', 'n', 'nn' ],
	[ 'dml.numbers', '{1,2}', '{}' ],
	[ 'dml.addr', '("High St, 1",12,)', '(,,)', '("",0,"{happy,sad}")' ],
	[ 'dml.addr[]', '{}', '{"(a,1,)",NULL}' ],
	[ 'dml.place', '("x",1,)' ],
	[ 'dml.posint[]', '{1,2,NULL}' ],
	[ 'dml.mood[]', '{ok,sad}' ],
	[ 'dml.textrange', '[a,b)', 'empty' ]);
# a server may be built without it
push @long_types, [ 'xml', '<a b="c">d</a>', '' ] if `pg_config --configure` =~ /--with-libxml/;
my %key_values = (
	int4 => [ 1 .. 60 ],
	int8 => [ map { 10**15 + $_ } 1 .. 40 ],
	numeric => [ 'NaN', 'Infinity', map { ($_, "$_.0", "$_.00") } 1 .. 15 ],
	float8 => [ '-0', '0', 'NaN', 'Infinity', 1 .. 30 ],
	text => [ '', 'NULL', map { "key $_" } 1 .. 40 ],
	date => [ 'infinity', '-infinity', '0044-03-15 BC', map { "2024-01-$_" } 1 .. 31 ],
	citext => [ map { ("k$_", "K$_") } 1 .. 20 ],
	'varchar(10)' => [ map { "v$_" } 1 .. 40 ],
	uuid => [ map { sprintf '00000000-0000-0000-0000-%012d', $_ } 1 .. 40 ],
	'dml.mood' => [ 'sad', 'ok', 'so happy, "really"' ],
	'dml.posint' => [ 1 .. 40 ],
	bytea => [ map { sprintf '\\x%02x', $_ } 0 .. 40 ],
	int4range => [ 'empty', map { "[$_,$_]" } 1 .. 20 ]);
my %short_key = map { $_ => 1 } qw(int4 int8 float8 date uuid dml.mood dml.posint);

# ---- chance --------------------------------------------------------------------

# A generator of our own: the same numbers with every version of Perl.
sub _chance
{
	my ($self, $n) = @_;

	$self->{state} = ($self->{state} * 1103515245 + 12345) % 2147483648;
	return int($self->{state} / 65536) % $n;
}

sub _one_of
{
	my ($self, @list) = @_;

	return $list[ $self->_chance(scalar @list) ];
}

sub _quote
{
	my ($value, $type) = @_;

	$value =~ s/'/''/g;
	return "'$value'::$type";
}

sub new
{
	my ($class, %opt) = @_;
	my $self = bless { ddl => 1, prepared => 1, truncate => 1, %opt, tables => [] }, $class;

	$self->{state} = $self->{seed} % 2147483648;
	$self->_chance(2) for 1 .. 5;
	$self->_make_tables;
	return $self;
}

# ---- tables ----------------------------------------------------------------------

sub _column
{
	my ($self, $name, $type) = @_;

	return { name => $name, type => $type->[0], values => [ @$type[ 1 .. $#$type ] ] };
}

sub _key_column
{
	my ($self, $name, $type) = @_;

	return { name => $name, type => $type, values => $key_values{$type}, key => 1 };
}

sub _make_tables
{
	my ($self) = @_;
	my @key_types = sort keys %key_values;
	my $add = sub { push @{ $self->{tables} }, {@_} };

	# Every type once; no key, an index as identity, a key of two columns, ...
	$add->(name => 'wide', identity => 'FULL', columns => [ $self->_key_column('k1', 'int4'),
		map { $self->_column("c$_", ((@short_types, @long_types)[ $_ - 1 ])) } 1 .. @short_types + @long_types ]);
	$add->(name => 'short', identity => 'DEFAULT', columns => [ $self->_key_column('k1', 'int4'),
		map { $self->_column("c$_", $self->_one_of(@short_types)) } 1 .. 6 ]);
	$add->(name => 'by_index', identity => 'USING INDEX by_index_other', extra => 'other int4 NOT NULL',
		after => 'CREATE UNIQUE INDEX by_index_other ON dml.by_index (other);',
		columns => [ $self->_key_column('k1', 'int4'), { name => 'other', type => 'int4', values => [ 1 .. 100 ] },
			map { $self->_column("c$_", $self->_one_of(@short_types)) } 1 .. 4 ]);
	$add->(name => 'keyless', identity => 'FULL', keyless => 1, columns => [
		map { $self->_column("c$_", $self->_one_of(@short_types, @long_types)) } 1 .. 5 ]);
	$add->(name => 'large', identity => 'FULL', large => 1, columns => [ $self->_key_column('k1', 'int4'),
		$self->_column('c1', [ 'int4', 1 .. 9 ]), map { $self->_column("c$_", [ 'text', 'short' ]) } 2 .. 4 ]);
	$self->_make_partitioned if $self->{partitions};
	for my $n (1 .. 4)
	{
		my $short = $self->_chance(2);
		my @types = $short ? @short_types : (@short_types, @long_types);
		my @keys = $short ? grep { $short_key{$_} } @key_types : @key_types;

		$add->(name => "t$n", identity => $short ? 'DEFAULT' : 'FULL', columns => [
			(map { $self->_key_column("k$_", $self->_one_of(@keys)) } 1 .. 1 + $self->_chance(2)),
			map { $self->_column("c$_", $self->_one_of(@types)) } 1 .. 3 + $self->_chance(6) ]);
	}
	return;
}

# Two levels, and leaves whose columns are in another order than the root's.
sub _make_partitioned
{
	my ($self) = @_;
	my @types = ($self->_one_of(@short_types), $self->_one_of(@long_types), $self->_one_of(@long_types));
	my ($a, $b, $c) = map { $_->[0] } @types;

	push @{ $self->{tables} }, {
		name => 'parts',
		identity => 'FULL',
		partition_by => 'PARTITION BY LIST (k2)',
		leaves => [qw(parts_1 parts_2 parts_3a parts_3b parts_rest)],
		columns => [ $self->_key_column('k1', 'int4'),
			{ name => 'k2', type => 'int4', values => [ 1 .. 5 ], key => 1 },
			map { $self->_column('c' . ($_ + 1), $types[$_]) } 0 .. 2 ],
		after => <<"SQL" };
CREATE TABLE dml.parts_1 PARTITION OF dml.parts FOR VALUES IN (1);
CREATE TABLE dml.parts_2 (gone text, c3 $c, k2 int4 NOT NULL, c1 $a, gone2 int, k1 int4 NOT NULL, c2 $b);
ALTER TABLE dml.parts_2 DROP COLUMN gone, DROP COLUMN gone2;
ALTER TABLE dml.parts ATTACH PARTITION dml.parts_2 FOR VALUES IN (2);
CREATE TABLE dml.parts_3 PARTITION OF dml.parts FOR VALUES IN (3) PARTITION BY HASH (k1);
CREATE TABLE dml.parts_3a PARTITION OF dml.parts_3 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE dml.parts_3b (c2 $b, c1 $a, k1 int4 NOT NULL, k2 int4 NOT NULL, c3 $c);
ALTER TABLE dml.parts_3 ATTACH PARTITION dml.parts_3b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE dml.parts_rest PARTITION OF dml.parts DEFAULT;
SQL
	return;
}

# Types and tables.
sub setup
{
	my ($self) = @_;
	my $sql = <<'SQL';
CREATE SCHEMA dml;
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE EXTENSION ltree;
CREATE TYPE dml.mood AS ENUM ('sad', 'ok', 'so happy, "really"', 'happy');
CREATE DOMAIN dml.posint AS int4 CHECK (VALUE > 0);
CREATE DOMAIN dml.shortname AS varchar(8) CHECK (length(VALUE) < 6);
CREATE DOMAIN dml.numbers AS int4[] CHECK (cardinality(VALUE) < 9);
CREATE TYPE dml.addr AS (street text, number int, moods dml.mood[]);
CREATE DOMAIN dml.place AS dml.addr CHECK ((VALUE).number > 0);
CREATE TYPE dml.textrange AS RANGE (subtype = text);
-- Text that does not compress, so that it is kept out of line.
CREATE FUNCTION dml.noise(seed int, length int) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT string_agg(md5((seed * 1000 + n)::text), '') FROM generate_series(1, length / 32) n $$;
SQL

	for my $table (@{ $self->{tables} })
	{
		my @columns = map { "$_->{name} $_->{type}" . ($_->{key} || $_->{name} eq 'other' ? ' NOT NULL' : '') }
		  @{ $table->{columns} };
		my @key = map { $_->{name} } grep { $_->{key} } @{ $table->{columns} };

		push @columns, 'PRIMARY KEY (' . join(', ', @key) . ')' if @key;
		# Dropped, generated and identity columns, and one with a fast default.
		unshift @columns, 'gone int4' unless $table->{partition_by};
		push @columns, 'twice int8 GENERATED ALWAYS AS (k1 * 2) STORED'
		  if @key && $table->{columns}[0]{type} eq 'int4' && !$table->{partition_by};
		push @columns, 'number int8 GENERATED BY DEFAULT AS IDENTITY'
		  if $table->{name} =~ /^(?:wide|t1|keyless)$/;
		$sql .= "BEGIN;\nCREATE TABLE dml.$table->{name} (" . join(', ', @columns) . ') '
		  . ($table->{partition_by} // '') . ";\n";
		$sql .= $table->{after} // '';
		$sql .= "ALTER TABLE dml.$_ REPLICA IDENTITY $table->{identity};\n"
		  for $table->{name}, @{ $table->{leaves} // [] };
		for (1 .. 3)
		{
			(my $insert = $self->insert($table, 3)) =~ s/(?: ON CONFLICT.*)?;$/ ON CONFLICT DO NOTHING;/;
			$sql .= $insert;
		}
		$sql .= "ALTER TABLE dml.$table->{name} DROP COLUMN gone;\n" unless $table->{partition_by};
		$sql .= "ALTER TABLE dml.$table->{name} ADD COLUMN fast int4 DEFAULT 42;\n"
		  if $table->{name} =~ /^(?:wide|short|t\d|parts)$/;
		$sql .= "COMMIT;\n";
	}
	return $sql;
}

# ---- statements -------------------------------------------------------------------

sub _value
{
	my ($self, $table, $column) = @_;

	return "NULL::$column->{type}" unless $column->{key} || $column->{name} eq 'other' || $self->_chance(5);
	return sprintf 'dml.noise(%d, %d)', $self->_chance(10000), 1 << 5 + $self->_chance(11)
	  if $table->{large} && $column->{type} eq 'text' && $self->_chance(2);
	return _quote($self->_one_of(@{ $column->{values} }), $column->{type});
}

# Columns of a table that a statement uses: those of the key, and some others.
sub _some_columns
{
	my ($self, $table) = @_;
	my $all = $self->_chance(3) == 0;

	return grep { $all || $_->{key} || $_->{name} eq 'other' || $self->_chance(3) } @{ $table->{columns} };
}

sub _where
{
	my ($self, $table) = @_;
	my ($first, @rest) = @{ $table->{columns} };

	if ($table->{keyless})
	{
		my @values = @{ $first->{values} };
		return "$first->{name}::text = " . _quote($self->_one_of(@values), $first->{type}) . '::text'
		  if $self->_chance(2);
		return sprintf 'ctid IN (SELECT ctid FROM dml.keyless ORDER BY ctid OFFSET %d LIMIT %d)', $self->_chance(20),
		  1 + $self->_chance(4);
	}
	my $operator = $self->_one_of('=', '=', '=', '=', '=', '<');
	return "$first->{name} $operator " . $self->_value($table, $first);
}

sub insert
{
	my ($self, $table, $rows) = @_;
	my @columns = $self->_some_columns($table);
	my $list = join ', ', map { $_->{name} } @columns;
	my @key = map { $_->{name} } grep { $_->{key} } @columns;
	my @values = map { '(' . join(', ', map { $self->_value($table, $_) } @columns) . ')' } 1 .. $rows;
	my $conflict = '';

	if (@key && $self->_chance(4))
	{
		my @set = grep { $self->_chance(2) } @columns;
		$conflict = @set && $self->_chance(2) && !$table->{partition_by}
		  ? ' ON CONFLICT (' . join(', ', @key) . ') DO UPDATE SET '
		  . join(', ', map { "$_->{name} = EXCLUDED.$_->{name}" } @set)
		  : ' ON CONFLICT DO NOTHING';
	}
	return "INSERT INTO dml.$table->{name} ($list) VALUES\n\t" . join(",\n\t", @values) . "$conflict;\n";
}

sub _update
{
	my ($self, $table, $key) = @_;
	my @columns = grep { $key ? $_->{key} : !$_->{key} } @{ $table->{columns} };

	@columns = grep { $self->_chance(3) == 0 } @columns if !$key;
	@columns = $table->{columns}[-1] unless @columns;
	return "UPDATE dml.$table->{name} SET "
	  . join(', ', map { "$_->{name} = " . $self->_value($table, $_) } @columns)
	  . ' WHERE ' . $self->_where($table) . ";\n";
}

# Two rows change their keys with each other, by way of a third value.
sub _swap
{
	my ($self, $table) = @_;
	my $key = $table->{columns}[0];

	return $self->_update($table) if $table->{keyless} || $key->{type} !~ /^(?:int\d|numeric)$/;
	my ($one, $other) = map { $self->_value($table, $key) } 1 .. 2;
	return join '', map { "UPDATE dml.$table->{name} SET $key->{name} = $_->[1] WHERE $key->{name} = $_->[0];\n" }
	  [ $one, '-99' ], [ $other, $one ], [ '-99', $other ];
}

sub _merge
{
	my ($self, $table) = @_;
	my @columns = $self->_some_columns($table);
	my @key = grep { $_->{key} } @columns;
	my @set = grep { !$_->{key} } @columns;

	return $self->insert($table, 2) if !@key || !@set;
	my @rows = map { '(' . join(', ', map { $self->_value($table, $_) } @columns) . ')' } 1 .. 3;
	my $names = join ', ', map { $_->{name} } @columns;
	return "MERGE INTO dml.$table->{name} t USING (VALUES\n\t" . join(",\n\t", @rows) . ") s ($names)\n\tON "
	  . join(' AND ', map { "t.$_->{name} = s.$_->{name}" } @key)
	  . "\n\tWHEN MATCHED AND length(t.$key[0]{name}::text) % 3 = 0 THEN DELETE\n\tWHEN MATCHED THEN UPDATE SET "
	  . join(', ', map { "$_->{name} = s.$_->{name}" } @set)
	  . "\n\tWHEN NOT MATCHED THEN INSERT ($names) VALUES (" . join(', ', map { "s.$_->{name}" } @columns) . ");\n";
}

# Many rows at once, by COPY or from a query.
sub _bulk
{
	my ($self, $table) = @_;
	my $key = $table->{columns}[0];
	my $from = 1000 + $self->_chance(2000);

	return $self->insert($table, 20) if $table->{keyless} || $key->{type} !~ /^int\d$/;
	my @others = grep { $_->{key} || $_->{name} eq 'other' } @{ $table->{columns} }[ 1 .. $#{ $table->{columns} } ];
	my $names = join ', ', map { $_->{name} } $key, @others;
	if ($self->_chance(2) || grep { $_->{type} !~ /^int\d$/ } @others)
	{
		return "INSERT INTO dml.$table->{name} ($names) SELECT n"
		  . join('', map { $_->{name} eq 'other' ? ', n' : ', ' . $self->_value($table, $_) } @others)
		  . " FROM generate_series($from, $from + 200) n ON CONFLICT DO NOTHING;\n";
	}
	return "COPY dml.$table->{name} ($names) FROM stdin;\n"
	  . join('', map { my $n = $from + $_; join("\t", $n, map { $_->{name} eq 'other' ? $n : 1 } @others) . "\n" } 1 .. 20)
	  . "\\.\n";
}

sub _statement
{
	my ($self, $table) = @_;
	my $kind = $self->_chance(100);

	return $self->insert($table, 1 + $self->_chance(4)) if $kind < 35;
	return $self->_update($table, 0) if $kind < 58;
	return $self->_update($table, 1) if $kind < 68;
	return "DELETE FROM dml.$table->{name} WHERE " . $self->_where($table) . ";\n" if $kind < 80;
	return $self->_swap($table) if $kind < 86;
	return $self->_merge($table) if $kind < 92;
	return $self->_bulk($table) if $kind < 95;
	return $self->{truncate} ? "TRUNCATE dml.$table->{name};\n" : '' if $kind < 96;
	# A subtransaction that fails, and what it did with it.
	return "DO \$\$ BEGIN\n" . $self->insert($table, 2) . "\tRAISE EXCEPTION 'undo';\nEXCEPTION WHEN OTHERS THEN\n"
	  . $self->_update($table, 0) . "END \$\$;\n";
}

# Columns come and go; nothing changes the text of values that are there.
sub _ddl
{
	my ($self) = @_;
	my @tables = grep { !$_->{partition_by} } @{ $self->{tables} };
	my $table = $self->_one_of(@tables);
	my $name = "dml.$table->{name}";
	my $n = $self->_chance(3);
	# What can be longer than a row would need a full identity.
	my $long = $table->{identity} eq 'FULL';

	return $self->_one_of(
		"ALTER TABLE $name ADD COLUMN x_$n int4 DEFAULT " . $self->_chance(100) . ";\n",
		"ALTER TABLE $name ADD COLUMN x_$n " . ($long ? 'varchar(10)' : 'date') . " DEFAULT '2024-01-01';\n",
		"ALTER TABLE $name ADD COLUMN x_$n int4;\n",
		"ALTER TABLE $name DROP COLUMN x_$n;\n",
		"ALTER TABLE $name RENAME x_$n TO x_" . ($n + 1) % 3 . ";\n",
		"ALTER TABLE $name ALTER x_$n TYPE int8;\n",
		"ALTER TABLE $name ALTER x_$n TYPE " . ($long ? 'text' : 'timestamp') . ";\n",
		"ALTER TABLE $name ALTER x_$n SET DEFAULT 7;\n",
		"UPDATE $name SET x_$n = '11' WHERE " . $self->_where($table) . ";\n",
		"UPDATE $name SET x_$n = '12' WHERE " . $self->_where($table) . ";\n",
		"BEGIN;\n" . $self->insert($table, 2) . "ALTER TABLE $name ADD COLUMN x_$n int4 DEFAULT 5;\n"
		  . $self->insert($table, 2) . "UPDATE $name SET x_$n = 6 WHERE " . $self->_where($table) . ";\nCOMMIT;\n",
		"BEGIN;\n" . $self->insert($table, 2) . "ALTER TABLE $name DROP COLUMN x_$n;\n"
		  . $self->insert($table, 2) . $self->_one_of("COMMIT;\n", "ROLLBACK;\n"),
		"VACUUM FULL $name;\n",
		"VACUUM $name;\n",
		$table->{keyless} ? '' : "CLUSTER $name USING $table->{name}_pkey;\n",
		"REINDEX TABLE $name;\n",
		"CREATE INDEX extra_$n ON $name ($table->{columns}[0]{name});\n",
		"DROP INDEX dml.extra_$n;\n",
		"ANALYZE $name;\n");
}

# ---- sessions -----------------------------------------------------------------------

sub _transaction
{
	my ($self, $name) = @_;
	my $sql = '';
	my $length = 1 + $self->_chance($self->_chance(4) ? 4 : 15);
	my @savepoints;

	return $self->_statement($self->_one_of(@{ $self->{tables} })) if $length == 1;
	$sql .= $self->_one_of('BEGIN', 'BEGIN', 'BEGIN', 'BEGIN ISOLATION LEVEL REPEATABLE READ',
		'BEGIN ISOLATION LEVEL SERIALIZABLE') . ";\n";
	for my $n (1 .. $length)
	{
		my $chance = $self->_chance(12);
		if ($chance == 0)
		{
			push @savepoints, "s$n";
			$sql .= "SAVEPOINT s$n;\n";
		}
		elsif ($chance == 1 && @savepoints)
		{
			$sql .= "ROLLBACK TO $savepoints[-1];\n";
		}
		elsif ($chance == 2 && @savepoints)
		{
			$sql .= 'RELEASE ' . pop(@savepoints) . ";\n";
		}
		# An error costs the statement alone, if a savepoint is before it.
		$sql .= "SAVEPOINT each;\n" if $n % 3 == 0;
		$sql .= $self->_statement($self->_one_of(@{ $self->{tables} }));
	}
	my $end = $self->_chance(20);
	return "${sql}ROLLBACK;\n" if $end < 2;
	return "${sql}PREPARE TRANSACTION '$name';\nCOMMIT PREPARED '$name';\nROLLBACK PREPARED '$name';\n"
	  if $end == 2 && $self->{prepared};
	return "${sql}COMMIT;\n";
}

# The statements of a session: as many transactions as asked for.
sub session
{
	my ($self, $number, $transactions) = @_;
	my $sql = "\\set VERBOSITY terse\n\\set ON_ERROR_ROLLBACK " . ($number % 4 ? 'on' : 'off') . "\nSET lock_timeout = '3s';\nSET deadlock_timeout = '100ms';\n"
	  . "SET client_min_messages = error;\nSET statement_timeout = '60s';\n";

	$self->{state} = ($self->{seed} * 7919 + $number * 104729) % 2147483648;
	$self->_chance(2) for 1 .. 5;
	for my $n (1 .. $transactions)
	{
		$sql .= $self->{ddl} && $self->_chance(25) == 0 ? $self->_ddl : $self->_transaction("dml_${number}_$n");
	}
	return $sql;
}

1;
