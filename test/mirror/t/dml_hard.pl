# test/t/023_mirror.pl for longer, PIPELINE_MIRROR_SECONDS, while the server crashes now and then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../perl", "$FindBin::RealBin/..";

use PostgreSQL::Test::Cluster;    # whose INIT blocks must come before the script is read
use PostgreSQL::Test::Utils;

$ENV{PIPELINE_MIRROR_KILLS} = 'hard';
require "$FindBin::RealBin/../../t/023_mirror.pl";
