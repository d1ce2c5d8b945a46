# Heartbeats: workers that hang, and that come back.
use strict;
use warnings;
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Status;

my $QUICK = 'interval 200ms; failed 200ms;';

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

run_tests();

__DATA__

=== TEST 1: hang and recovery, once each
--- manager
interval 100ms;
failed 1s;
--- act
stop worker 0
wait worker_hung
continue worker 0
wait worker_recovered
--- timeline
worker_hung(1-A, nil,2,nil; worker 0; left 1)
worker_recovered(1-A, nil,2,nil; worker 0; left 2)



=== TEST 2: a hung worker that dies is lost once and not counted twice
There is time enough for the successor, which knows the cause, to come first.
--- manager
interval 200ms;
failed 2s;
--- act
stop worker 0
wait worker_hung
kill 9 worker 0
wait 3 worker_start
--- timeline
worker_hung(1-A, nil,2,nil; worker 0)
worker_lost(1-A, nil,1,nil; signal 9)
worker_start(1-C, nil,2,nil; respawn_of A)



=== TEST 3: a hung worker that is told to quit recovers first
--- manager
interval 100ms;
failed 1s;
--- act
stop worker 0
wait worker_hung
signal QUIT worker 0
continue worker 0
wait worker_exit
wait 3 worker_start
--- timeline
worker_hung(1-A, nil,2,nil; worker 0)
worker_recovered(1-A, nil,2,nil)
worker_draining(1-A, nil,2,nil)
worker_exit(1-A, nil,2,nil)
worker_start(1-C, nil,2,nil; respawn_of A)
