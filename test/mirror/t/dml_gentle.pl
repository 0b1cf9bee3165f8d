# test/t/023_mirror.pl for longer, PIPELINE_MIRROR_SECONDS, while workers and capture are ended.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../../perl", "$FindBin::RealBin/..";

$ENV{PIPELINE_MIRROR_KILLS} = 'gentle';
require "$FindBin::RealBin/../../t/023_mirror.pl";
