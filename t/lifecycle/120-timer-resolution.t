# timer_resolution: nginx looks at its timers at ticks only, here far apart. Who comes back to an event that
# others wait for does not wait for a tick.
use strict;
use warnings;
use Test::More;
use WorkerManager;

# So long that no heartbeat can be what tells.
my $SLOW = 'interval 10m; failed 10m;';

# A node of which an old worker drains, and then one of the new ones is killed, whose successor has to tell
# what the old one has begun, if that does not come back to it in time.
sub drain_and_kill {
    my (%options) = @_;
    my $node = WorkerManager->new(%options);
    $node->write("failpoints/$options{lack}", '') if $options{lack};
    $node->write('out/programs', '', 0666);
    my $program = "exec /bin/sh -c 'echo \"\$0 \$1\" >> $node->{root}/out/programs' \$seq \$event;";
    $node->configure(manager => "$SLOW on * $program on * $program");
    $node->up;
    my $held = $node->hold_connection(1);
    my ($draining) = map { $_->{pid} } $node->held;
    $node->reload_ready(2);
    $node->wait_event_of('worker_draining', $draining);
    for my $turn (1 .. 2) {
        my ($victim) = $node->on_duty(2);
        $node->signal('KILL', $victim);
        $node->wait_event_of('worker_lost', $victim);
    }
    close $held;
    $node->wait_events('master_exit', 1, 1);
    $node->wait_events('worker_start', 4, 2);
    $node->down;
    return $node;
}

# That nothing was interrupted, nothing told twice, and every program ran.
sub all_was_told {
    my ($node) = @_;
    my @warnings = grep { /\[(?:warn|alert)\] \S+ worker_manager|gone on with the event/ } split /\n/, $node->log;
    # On a busy machine somebody may wait for a second, whatever the timers.
    @warnings = grep { !/: blocked for/ } @warnings;
    is_deeply(\@warnings, [], 'no warning, so no failure');
    my %runs;
    my $ran = sub {
        %runs = ();
        $runs{$_}++ for split /\n/, $node->read('out/programs');
        return !grep { $_ != 2 } values %runs;
    };
    my @events = map { "$_->{seq} $_->{event}" } $node->events;
    $node->wait_for('the programs', sub { $ran->() && keys %runs == @events });
    is_deeply([ sort keys %runs ], [ sort @events ], 'each program ran, of each event');
    $node->laws_hold('the laws hold', final => 1);
}

subtest 'with epoll, no tick is waited for' => sub {
    # No tick comes in the time of the test.
    my $node = drain_and_kill(workers => 4, main => 'timer_resolution 10m;');
    all_was_told($node);
};

subtest 'a heartbeat does not wait for it either' => sub {
    my $node = WorkerManager->new(workers => 2, main => 'timer_resolution 10m;',
        manager => 'interval 100ms; failed 300ms;')->up;
    my ($hung, $other) = $node->on_duty;
    $node->signal('STOP', $hung);
    $node->wait_event_of('worker_hung', $hung);
    $node->signal('CONT', $hung);
    $node->wait_event_of('worker_recovered', $hung);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'without a timer of the kernel, as with other event methods, others wait for the tick' => sub {
    my $node = drain_and_kill(workers => 2, main => 'timer_resolution 3s;', lack => 'no-timerfd');
    all_was_told($node);
};

done_testing;
