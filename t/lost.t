# Why workers die: from the kernel, from the successor, from the heartbeat; whoever is first, once.
use strict;
use warnings;
use Test::More;
use WorkerManager;

# So long that no heartbeat can be what tells.
my $SLOW = 'interval 10m; failed 10m;';

subtest 'signals and exit codes' => sub {
    my $node = WorkerManager->new(workers => 2, manager => $SLOW,
        main => 'worker_rlimit_core 0;')->up;
    my $lost = 0;
    for my $signal (qw(KILL SEGV ABRT BUS)) {
        my ($victim) = $node->on_duty;
        $node->signal($signal, $victim);
        $node->wait_events('worker_lost', ++$lost);
        $node->wait_events('worker_start', 2 + $lost);
    }
    is_deeply([ map { "$_->{reason} $_->{core}" } $node->kinds('worker_lost') ],
        [ 'signal 9 0', 'signal 11 0', 'signal 6 0', 'signal 7 0' ], 'exact causes');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a core dump' => sub {
    # Where the pattern is a pipe the kernel pays no heed to the limit of size.
    my $node = WorkerManager->new(workers => 1, manager => $SLOW);
    $node->configure(main => "worker_rlimit_core 500m; working_directory $node->{root}/out;");
    $node->up;
    $node->signal('SEGV', $node->on_duty);
    $node->wait_events('worker_lost', 1);
    my ($dumped) = $node->log =~ /exited on signal 11( \(core dumped\))?/;
    is(($node->kinds('worker_lost'))[0]{core}, $dumped ? 1 : 0, 'as nginx sees it');
    $node->wait_events('worker_start', 2);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that drains has no successor' => sub {
    my $node = WorkerManager->new(workers => 2, manager => $SLOW)->up;
    my @held = ($node->hold_connection(1));
    my ($held) = map { $_->{pid} } $node->held;
    $node->reload_ready(2);
    $node->wait_events('worker_draining', 2, 1);
    $node->signal('KILL', $held);
    $node->wait_events('worker_lost', 1, 1);
    my ($lost) = $node->kinds('worker_lost', 1);
    is("$lost->{pid} $lost->{reason}", "$held " . cause(9), 'told by another at once');
    like($lost->{duration}, qr/^\d+\.\d{3}$/, 'how long it drained');
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'all that drain at once, also when two generations do' => sub {
    my $node = WorkerManager->new(workers => 4, manager => $SLOW)->up;
    my @held = map { $node->hold_connection(1) } 1 .. 6;
    $node->reload_ready(2);
    push @held, map { $node->hold_connection(2) } 1 .. 6;
    $node->reload_ready(3);
    $node->wait_events('worker_draining', 4, $_) for 1, 2;
    my @old = ($node->on_duty(1), $node->on_duty(2));
    cmp_ok(scalar @old, '>', 1, 'some are held');
    $node->signal('KILL', @old);
    $node->wait_events('master_exit', 1, $_) for 1, 2;
    is(scalar $node->kinds('worker_lost'), scalar @old, 'each is lost, once');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a whole node drains, and one is killed' => sub {
    my $node = WorkerManager->new(workers => 3, manager => $SLOW)->up;
    my @held = map { $node->hold_connection(1) } 1 .. 12;
    my %held = map { $_->{pid} => 1 } $node->held;
    my ($victim, @others) = sort keys %held;
    plan skip_all => 'one worker took all connections' unless @others;
    $node->signal('QUIT');
    $node->wait_events('worker_draining', 3);
    $node->signal('KILL', $victim);
    $node->wait_events('worker_lost', 1);
    is(($node->kinds('worker_lost'))[0]{pid}, $victim, 'a sibling tells it');
    close $_ for @held;
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    $node->laws_hold('the laws hold', final => 1);
};

for my $lack ('no-pidfd', 'no-exit-info') {
    subtest "on a kernel with $lack" => sub {
        my $node = WorkerManager->new(workers => 2, manager => 'interval 200ms; failed 200ms;');
        $node->write("kill/$lack", '');
        $node->up;
        my ($victim) = $node->on_duty;
        $node->signal('SEGV', $victim);
        $node->wait_events('worker_start', 3);
        is(($node->kinds('worker_lost'))[0]{reason}, 'signal 11', 'the successor knows the cause');
        my $held = $node->hold_connection(1);
        my ($draining) = map { $_->{pid} } $node->held;
        $node->reload_ready(2);
        $node->wait_events('worker_draining', 2, 1);
        $node->signal('KILL', $draining);
        $node->wait_events('worker_lost', 2);
        is(($node->kinds('worker_lost'))[1]{reason}, 'unknown', 'who drains has none');
        $node->wait_events('master_exit', 1, 1);
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'descriptors per worker are few, however many workers there are' => sub {
    my %open;
    for my $workers (2, 16) {
        my $node = WorkerManager->new(workers => $workers, manager => $SLOW)->up;
        $node->reload(2);
        my @pids = $node->on_duty(2);
        $node->wait_for('pidfds', sub { @pids == grep { pidfds($_) } @pids });
        $open{$workers} = (sort { $b <=> $a } map { pidfds($_) } @pids)[0];
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    }
    cmp_ok($open{16}, '<=', 3, "at most three, not $open{16}");
};

sub pidfds {
    my ($pid) = @_;
    return scalar grep { (readlink($_) // '') =~ /pidfd/ } glob "/proc/$pid/fd/*";
}

# What the kernel tells of a death nobody but a sibling sees: since Linux 6.15 the cause.
sub cause {
    my ($signal) = @_;
    open my $file, '<', '/proc/sys/kernel/osrelease' or return 'unknown';
    my ($major, $minor) = <$file> =~ /^(\d+)\.(\d+)/;
    return $major > 6 || ($major == 6 && $minor >= 15) ? "signal $signal" : 'unknown';
}

done_testing;
