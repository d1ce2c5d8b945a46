# What the harness itself has to find: timelines that are not what was told.
use strict;
use warnings;
use Test::More;
use WorkerManager::Scratch;
use WorkerManager::Timeline;

# What a reload of two workers may tell, and how it is written.
my @STARTED = events('master_start 1', 'worker_start 1 10', 'worker_start 1 11', 'master_ready 1');
my @TOLD = events('master_start 2', 'worker_start 2 20', 'worker_draining 1 11', 'worker_start 2 21', 'worker_exit 1 11',
    'master_ready 2', 'worker_draining 1 10', 'worker_exit 1 10', 'master_exit 1');
my $RELOAD = <<'END';
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil; worker 0)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
    worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)
END

sub events {
    return map {
        my ($event, $gen, $pid) = split;
        { event => $event, gen => $gen, pid => $pid // 1, reason => '-', worker => ($pid // 0) % 10, respawn_of => '-' }
    } @_;
}

sub differences {
    my ($text, @told) = @_;
    my %letters;
    my @lines = WorkerManager::Timeline::parse($text);
    return (\%letters, WorkerManager::Timeline::differences(\@lines, \@told, \@STARTED, \%letters));
}

my ($letters, @none) = differences($RELOAD, @TOLD);
is_deeply(\@none, [], 'the order on a line is free, the counts are those of the order that is written');
is_deeply($letters, { A => 11, B => 10, C => 20, D => 21 }, 'each letter has its pid');

sub finds {
    my ($name, $text, $expected, @told) = @_;
    my (undef, @found) = differences($text, @told ? @told : @TOLD);
    like("@found", $expected, $name);
}

finds('a wrong count', $RELOAD =~ s/B, nil,1,2/B, nil,2,2/r, qr/\Qworker_exit(1-B, nil,2,2): in this order n_mine is 1/);
finds('nil that is 0', $RELOAD =~ s/exit\(1, nil/exit(1, 0/r, qr/n_prev is -/);
finds('a reason that was not told', $RELOAD =~ s/B, nil,1,2/B, nil,1,2; signal 9/r, qr/no order/);
finds('a reason that is not written', $RELOAD, qr/no order/,
    map { { %$_, $_->{event} eq 'worker_exit' ? (reason => 'signal 9') : () } } @TOLD);
finds('another index', $RELOAD =~ s/worker 0/worker 7/r, qr/no order/);
finds('one letter for two', $RELOAD =~ s/start\(2-D/start(2-C/r, qr/no order/);
finds('two letters for one', $RELOAD =~ s/exit\(1-B/exit(1-E/r, qr/no order/);
finds('what is missing', $RELOAD, qr/8 events, not 9/, @TOLD[ 0 .. 7 ]);
finds('another generation', $RELOAD =~ s/ready\(2/ready(1/r, qr/no order/);
finds('an order that is not that of the lines', $RELOAD =~ s/^    worker_exit/worker_exit/mr, qr/no order/,
    @TOLD[ 0 .. 2, 4, 3, 5 .. 8 ]);
finds('an order that is not that of a worker', $RELOAD, qr/no order/, @TOLD[ 0, 1, 4, 3, 2, 5 .. 8 ]);
finds('an end before the start', $RELOAD, qr/no order/, @TOLD[ 1, 0, 2 .. 8 ]);
ok(!eval { WorkerManager::Timeline::parse('worker_start(2-C, 2,1)'); 1 }, 'a count is missing in what is written');
ok(!eval { WorkerManager::Timeline::parse('worker_start 2-C'); 1 }, 'what is no event');

# Ports are nobody else's, of this process or another.
my %ports = map { WorkerManager::Scratch::free_port() => 1 } 1 .. 20;
is(scalar keys %ports, 20, 'each port is another one');
my $pid = open my $child, '-|' or do {
    exec $^X, '-It/lib', '-MWorkerManager::Scratch', '-e', 'print join " ", map { WorkerManager::Scratch::free_port() } 1 .. 300';
};
my @of_another = split ' ', <$child>;
waitpid $pid, 0;
is_deeply([ grep { $ports{$_} } @of_another ], [], 'and no other process gets it');
isnt(WorkerManager::Scratch::folder('a'), WorkerManager::Scratch::folder('a'), 'nor is a folder given twice');

done_testing;
