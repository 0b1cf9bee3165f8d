# PostgreSQL's own isolation tests print the same when every table has a mirror that
# a pipeline keeps, and each mirror is equal to its source.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../perl", "$FindBin::RealBin/..";

use Suites;
use Test::More;

my $suite = Suites->new('isolation');
$suite->run_plain;
$suite->run_mirrored;
$suite->compare;
done_testing();
