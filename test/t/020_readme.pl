# README is true: its SQL blocks run in order on a fresh server, and give the
# results printed below them.  docs/reference.md is complete: it names every
# function, view, column and setting of the extension.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";

use PipelineTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/../..";
my $node = PipelineTest->start_new('main', extension => 0);

# ---- README.md -----------------------------------------------------------------

# A block marked "sql" is run; a block marked "text" right after it is what
# psql prints for it.
my $readme = slurp_file("$top/README.md");
my $blocks = 0;

while ($readme =~ /^```sql\n(.*?)^```\n(?:```text\n(.*?)^```\n)?/msg)
{
	my ($sql, $expected) = ($1, $2);
	my $line = 1 + (substr($readme, 0, $-[0]) =~ tr/\n//);
	my ($out, $err);
	my $rc = $node->psql('postgres', $sql,
		stdout => \$out,
		stderr => \$err,
		on_error_stop => 1,
		extra_params => [ '-P', 'format=aligned', '-P', 'tuples_only=off' ]);

	is($rc, 0, "README.md, line $line runs") or diag $err;
	is(trimmed($out), trimmed($expected), "README.md, line $line prints what it says")
	  if defined $expected;
	$blocks++;
}
ok($blocks > 10, 'README.md has SQL blocks');

# The last block but one drops the extension: nothing is left.
$node->nothing_left('after the uninstall of README.md');

# Without spaces at ends of lines and empty lines at the end.
sub trimmed
{
	my ($text) = @_;

	$text =~ s/ +$//mg;
	$text =~ s/\s+\z//;
	return $text;
}

# ---- docs/reference.md -----------------------------------------------------------

my $reference = slurp_file("$top/docs/reference.md");

# All names that a query gives and that are not in the reference.
sub unnamed
{
	my ($sql) = @_;

	return join ', ', grep { index($reference, $_) < 0 } split /\n/, $node->value($sql);
}

$node->create_extension;
is( unnamed(
		q{SELECT 'pipeline.' || proname || '(' FROM pg_proc
		   WHERE pronamespace = 'pipeline'::regnamespace AND proname NOT LIKE '\_%'}),
	'', 'docs/reference.md has every function');
is( unnamed(
		q{SELECT DISTINCT unnest(proargnames) FROM pg_proc
		   WHERE pronamespace = 'pipeline'::regnamespace AND proname NOT LIKE '\_%'}),
	'', 'docs/reference.md has every argument');
is( unnamed(
		q{SELECT 'pipeline.' || relname FROM pg_class
		   WHERE relnamespace = 'pipeline'::regnamespace AND relkind = 'v'}),
	'', 'docs/reference.md has every view');

# Columns stand in the section of their view.
my @columns = grep {
	my ($view, $column) = split / /;
	my ($section) = $reference =~ /^### pipeline\.$view\n(.*?)(?=^#|\z)/ms;
	($section // '') !~ /`$column`/
} split /\n/, $node->value(
	q{SELECT relname || ' ' || attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	   WHERE relnamespace = 'pipeline'::regnamespace AND relkind = 'v' AND attnum > 0});
is("@columns", '', 'docs/reference.md has every column of the views');

# Settings stand with their defaults, in both files.
for my $file ('README.md', 'docs/reference.md')
{
	my $text = slurp_file("$top/$file");
	my @settings = grep { my $row = $_; index($text, "\n| $row |") < 0 } split /\n/,
	  $node->value(
		q{SELECT format('`%s` | %s', name, current_setting(name))
		    FROM pg_settings WHERE name LIKE 'pipeline.%'});
	is("@settings", '', "$file has every setting with its default");
}

done_testing();
