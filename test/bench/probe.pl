# probe.pl - how long until a committed order is in the output?
#
# One session inserts single orders at random times; another one looks for those that are
# not there yet, more and more seldom the longer it takes: a loop that asks all the time
# would keep a core busy.  Ends on SIGTERM, when all that it inserted has been seen.
# Prints figures, in milliseconds, and the processor seconds of its two sessions.
use strict;
use warnings;
use DBI;
use Getopt::Long;
use Time::HiRes qw(time usleep);

my %opt = (rate => 50, nap => 1000, seconds => 3600, prefix => 'probe');
GetOptions(\%opt, 'insert=s', 'watch=s', 'table=s', 'rate=f', 'nap=i', 'seconds=f', 'prefix=s', 'ready=s') or exit 1;
my %attributes = (RaiseError => 1, PrintError => 0, AutoCommit => 1);
my $writer = DBI->connect("dbi:Pg:$opt{insert}", 'postgres', '', \%attributes);
my $watcher = $opt{table} && DBI->connect("dbi:Pg:$opt{watch}", 'postgres', '', \%attributes);
my $insert = $writer->prepare(q{INSERT INTO orders
	(customer_id, product_id, quantity, price, currency, channel, country, ordered_at, note)
	VALUES (1 + floor(random() * 100000), 1 + floor(random() * 10000), 1, 10, 'EUR', 'web', 'de', now(), 'a probe')
	RETURNING order_id});
my $look;
if ($watcher)
{
	$watcher->do('SET enable_seqscan = off');
	$look = $watcher->prepare("SELECT order_id FROM $opt{table} WHERE order_id = ANY (?::bigint[])");
}

my (%pending, %took);
my $over = 0;
$SIG{TERM} = sub { $over = time unless $over };

sub insert_one
{
	$writer->begin_work;
	$insert->execute;
	my ($id) = $insert->fetchrow_array;
	my $begun = time;
	$writer->commit;
	my $returned = time;
	push @{ $took{commit} }, $returned - $begun;
	$pending{$id} = [ $begun, $returned ] if $watcher;
}

sub look_for_all
{
	$look->execute('{' . join(',', keys %pending) . '}');
	my $found = $look->fetchall_arrayref;
	my $now = time;
	for (@$found)
	{
		my ($begun, $returned) = @{ delete $pending{ $_->[0] } };
		push @{ $took{begun} }, $now - $begun;
		push @{ $took{fresh} }, $now - $returned;
	}
}

# The time until the next look: a twentieth of what the oldest has waited.
sub nap
{
	my ($oldest) = sort { $a <=> $b } map { $_->[1] } values %pending;
	my $nap = (time - $oldest) / 20;
	return $nap > $opt{nap} / 1e6 ? $nap : $opt{nap} / 1e6;
}

sub processor
{
	my $used = 0;
	for (grep { $_ } @_)
	{
		open my $file, '<', "/proc/$_->{pg_pid}/schedstat" or next;
		$used += (split ' ', <$file>)[0] / 1e9;
	}
	return $used;
}

if ($opt{ready}) { open my $file, '>', $opt{ready} or die; }
my $start = time;
my $due = $start;
while (!$over || %pending)
{
	my $now = time;
	$over ||= $now if $now > $start + $opt{seconds};
	die "rows do not arrive\n" if $over && $now > $over + 600;
	if (!$over && $now >= $due)
	{
		insert_one();
		$due += -log(1 - rand) / $opt{rate};
		next;
	}
	look_for_all() if %pending;
	my $until = %pending ? nap() : $over ? 0 : 0.05;
	my $left = $due - time;
	$until = $left if !$over && $left < $until;
	usleep($until * 1e6) if $until > 0;
}
for my $what (sort keys %took)
{
	my @sorted = sort { $a <=> $b } @{ $took{$what} };
	printf "%s_%s_p%d %.3f\n", $opt{prefix}, $what, 100 * $_, 1000 * $sorted[ int($_ * $#sorted + 0.5) ] for 0.5, 0.99;
}
printf "%s_probes %d\n%s_probe_cpu %.3f\n", $opt{prefix}, scalar(@{ $took{commit} || [] }), $opt{prefix}, processor($writer, $watcher);
