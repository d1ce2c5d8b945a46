# Nothing is left behind by reloads, as many as there may be: not in the zone, not in the master, not
# in what its workers inherit. WORKER_MANAGER_RELOADS says how many, 1,000 in `make test-asan`.
use strict;
use warnings;
use Test::More;
use WorkerManager;
use WorkerManager::Status;

my $RELOADS = $ENV{WORKER_MANAGER_RELOADS} // 200;
# Until pools, buffers and the ring of events have the size that they keep.
my $WARM_UP = $RELOADS < 200 ? 20 : 100;
# Of the master's memory per reload, over a hundred. A leak of 1 KB per reload is above it, glibc's noise below.
my $BOUND_KB = 0.5;

my %broken = (
    'syntax'              => { main => 'no_such_directive on;' },
    'a directive of ours' => { manager => 'interval never;' },
    'an unknown user'     => { main => 'user nobody-of-that-name;' },
);

sub median {
    my @sorted = sort { $a <=> $b } @_;
    return $sorted[ @sorted / 2 ];
}

sub descriptors {
    my ($pid) = @_;
    opendir my $dir, "/proc/$pid/fd" or return 0;
    return scalar grep { !/^\./ } readdir $dir;
}

# Memory that is the process's own, in KB: what is mapped from files comes and goes with what runs.
sub memory {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/status" or die "/proc/$pid/status: $!";
    my ($kb) = join('', <$file>) =~ /^RssAnon:\s+(\d+) kB/m;
    return $kb;
}

my $port = WorkerManager::free_port();
my $node = WorkerManager->new(workers => 2, log => 0, http => WorkerManager::Status::http($port));
$node->write('hook', "#!/bin/sh\nexit 0\n", 0755);
my %good = (main => '', manager => <<"END");
    interval 200ms;
    event_log logs/workers.log;
    on * log info "\$event \$id \$n_prev \$n_mine \$n_next \$reason";
    on * call $ENV{WORKER_MANAGER_OBJS}/hooks.so note "$node->{root}/out/notes";
    on master_start exec $node->{root}/hook "\$event \$id";
    on worker_start exec $node->{root}/hook "\$event \$id";
    on master_ready exec $node->{root}/hook "\$event \$id";
    on worker_exit exec $node->{root}/hook "\$event \$id";
END
$node->configure(%good);
my $status = WorkerManager::Status->new($port);
$node->start;

# Waits until one generation runs alone.
sub settled {
    my ($generation) = @_;
    return $node->wait_for("generation $generation alone", sub {
        my $is = $status->json or return;
        return unless $is->{node}{generation} == $generation && @{ $is->{generations} } == 1;
        return unless $is->{generations}[0]{state} eq 'ready' && @{ $is->{workers} } == 2;
        return $is;
    });
}

settled(1);
my (@zone, @master, @memory, @worker);
my ($failed, $generation, $stream, $streams) = (0, 1, undef, 0);

# A worker's descriptors. It opens those by which it watches others a moment after its start, and those
# of clients that have just gone are closed soon: it is given the time to have what the last one had.
sub of_a_worker {
    my ($is) = @_;
    my ($pid) = grep { $_ != ($stream->{worker} // 0) } map { $_->{pid} } @{ $is->{workers} };
    my $count;
    WorkerManager::Process::wait_until(sub { ($count = descriptors($pid)) == ($worker[-1] // $count) }, 10);
    return $count;
}

for my $reload (1 .. $RELOADS) {
    if (!$stream || $stream->is_over) {
        $stream = $status->stream(after => 0);
        $streams++;
    }
    if ($reload % 5 == 0) {
        my $kind = (sort keys %broken)[ $failed % keys %broken ];
        $node->configure(%{ $broken{$kind} });
        $node->signal('HUP');
        $failed++;
        $node->wait_for("a failure: $kind", sub {
            my $is = $status->json; $is && $is->{node}{reloads}{failed} == $failed }) or last;
        $node->configure(%good);
    }
    $node->wait_for('the stream', sub { $stream->read; $stream->{worker} || $stream->is_over });
    $node->signal('HUP');
    my $is = settled(++$generation) or last;
    push @zone, $is->{zone}{workers}{used} + $is->{zone}{generations}{used};
    push @worker, of_a_worker($is);
    push @master, descriptors($node->master);
    push @memory, memory($node->master);
}

is(scalar @zone, $RELOADS, "$RELOADS reloads, and $failed that failed");
cmp_ok($streams, '>=', $RELOADS / 4, "streams were open over them ($streams)");

# What holds at the end of the warm-up holds to the end.
for ([ 'use of the zone' => @zone ], [ 'descriptors of the master' => @master ],
    [ 'descriptors of a worker' => @worker ])
{
    my ($name, @samples) = @$_;
    my ($most) = sort { $b <=> $a } @samples[ $WARM_UP / 2 .. $WARM_UP - 1 ];
    my @above = grep { $_ > $most } @samples[ $WARM_UP .. $#samples ];
    is(scalar @above, 0, "$name: flat, at most $most") or diag "@samples";
}

my @rest = @memory[ $WARM_UP .. $#memory ];
my $quarter = int(@rest / 4);
my ($first, $last) = (median(@rest[ 0 .. $quarter - 1 ]), median(@rest[ -$quarter .. -1 ]));
my $growth = ($last - $first) / (@rest - $quarter);
SKIP: {
    # What was freed stays in its quarantine.
    skip 'AddressSanitizer keeps what was freed', 1 if $ENV{WORKER_MANAGER_REPORTS};
    cmp_ok($growth, '<', $BOUND_KB, "memory of the master: flat, $first KB, then $last KB")
        or diag "@memory";
}

$node->down;
my @alerts = grep { /\[(?:alert|crit)\]|panicked/ } split /\n/, $node->log;
is(scalar @alerts, 0, 'no alert') or diag join "\n", @alerts;
done_testing;
