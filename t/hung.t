# Heartbeats: workers that hang, and that come back.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Status;

my $QUICK = 'interval 200ms; failed 200ms;';

subtest 'hang and recovery' => sub {
    my $node = WorkerManager->new(manager => $QUICK)->up;
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    $node->signal('CONT', $stopped);
    $node->wait_events('worker_recovered', 1);
    is_deeply([ (WorkerManager::told($node->events))[ 4, 5 ] ], [
        'worker_hung(1-, -,2,-)', 'worker_recovered(1-, -,2,-)',
    ], 'once each');
    is(($node->events)[$_]{pid}, $stopped, 'it is the one') for 4, 5;
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a hung worker that dies is lost once and not counted twice' => sub {
    # Time enough for the successor, which knows the cause, to come first.
    my $node = WorkerManager->new(manager => 'interval 200ms; failed 2s;')->up;
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    $node->signal('KILL', $stopped);
    $node->wait_events('worker_start', 3);
    is((WorkerManager::told($node->kinds('worker_lost')))[0],
        'worker_lost(1-, -,1,-; signal 9)', 'lost');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a hung worker that is told to quit recovers first' => sub {
    my $node = WorkerManager->new(manager => $QUICK)->up;
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    $node->signal('QUIT', $stopped);
    $node->signal('CONT', $stopped);
    $node->wait_events('worker_exit', 1);
    is(scalar $node->kinds('worker_recovered'), 1, 'recovered');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'nobody is hung after all were stopped' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 4, manager => 'interval 1500ms; failed 1500ms;');
    $node->up;
    my ($first, @others) = $node->on_duty;
    my $wait = sub { my $until = time + $_[0]; $node->wait_for('time to pass', sub { time > $until }) };
    $node->signal('STOP', $first, @others);
    # Past interval and overrun, by this process's own clock.
    $wait->(3.3);
    # Half way between the moments at which the first one would judge the others: 750 ms after its late
    # heartbeat, if that counted, and 750 ms after the next one.
    $node->signal('CONT', $first);
    $wait->(1.5);
    $node->signal('CONT', @others);
    $status->wait_beats($node);
    is(scalar $node->kinds('worker_hung'), 0, 'who slept itself judges nobody');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the heartbeat delays no graceful shutdown' => sub {
    my $node = WorkerManager->new(manager => 'interval 1h; failed 1h;')->up;
    my $started = time;
    $node->down('QUIT');
    cmp_ok(time - $started, '<', 10, 'no wait for the timer');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload to a quicker rhythm judges nobody by it' => sub {
    my $node = WorkerManager->new(manager => 'interval 30s; failed 30s;')->up;
    my $held = $node->hold_connection(1);
    $node->configure(manager => $QUICK);
    $node->signal('HUP');
    $node->wait_events('worker_start', 2, 2);
    my $until = time + 1.5;
    $node->wait_for('time to pass', sub { time > $until });
    is(scalar $node->kinds('worker_hung', 1), 0, 'old workers keep their own');
    close $held;
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
