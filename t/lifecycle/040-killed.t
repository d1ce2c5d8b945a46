# Workers and masters that are killed.
use strict;
use warnings;
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use WorkerManager;
use WorkerManager::Status;

my $QUICK = 'interval 200ms; failed 200ms;';

subtest 'all workers at once' => sub {
    my $node = WorkerManager->new(workers => 8)->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_lost', 8);
    $node->wait_events('worker_start', 16);
    is_deeply([ map { $_->{reason} } $node->kinds('worker_lost') ], [ ('signal 9') x 8 ], 'lost');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'all workers of a retired generation' => sub {
    my $node = WorkerManager->new(manager => $QUICK)->up;
    my $held = $node->hold_connection(1);
    my @old = $node->on_duty(1);
    $node->signal('HUP');
    $node->wait_events('worker_start', 2, 2);
    # One has no connection and may be gone; the other is killed.
    $node->kill_at_once(grep { WorkerManager::is_alive($_) } @old);
    $node->wait_events('master_exit', 1, 1);
    my @ends = ($node->kinds('worker_lost', 1), $node->kinds('worker_exit', 1));
    is(scalar @ends, 2, 'both ended');
    ok(scalar $node->kinds('worker_lost', 1), 'by being lost');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the last old worker is killed just before the node stops' => sub {
    my $node = WorkerManager->new(workers => 1);
    # Nobody is quicker than the master, which alone knows the cause on Linux before 6.15.
    $node->write('failpoints/no-pidfd', '');
    $node->up;
    my $held = $node->hold_connection(1);
    my ($old) = $node->on_duty(1);
    $node->signal('HUP');
    $node->wait_events('worker_start', 1, 2);
    $node->signal('KILL', $old);
    $node->down('TERM');
    is_deeply([ map { $_->{reason} } $node->kinds('worker_lost', 1) ], ['signal 9'], 'with the cause');
    is_deeply([ $node->log =~ / (\d+)#\d+: EV1 \d+ worker_lost /g ], [ $node->master ],
        'it is told by the master');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload while the only worker is being replaced' => sub {
    my $node = WorkerManager->new(workers => 1)->up;
    for my $generation (2 .. 31) {
        my ($victim) = $node->on_duty($generation - 1);
        $node->signal('KILL', $victim);
        $node->wait_for('its end', sub { !WorkerManager::is_alive($victim) });
        $node->reload($generation);
        $node->wait_for('old workers to end', sub { my @children = $node->children; @children == 1 });
    }
    my @forked = $node->log =~ /start worker process (\d+)/g;
    my %told = map { $_->{pid} => 1 } $node->kinds('worker_start');
    my @killed = grep { !$told{$_} } @forked;
    is("@killed", '', 'every worker was told of');
    unlike($node->log, qr/is not counted/, 'and counted');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the master is killed' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => $QUICK);
    $node->up;
    my @workers = $node->on_duty;
    $node->signal('KILL');
    $node->wait_events('master_lost', 1);
    is_deeply([ map { $_->{pid} } $node->kinds('master_lost') ], [ $node->master ], 'it is told');
    like($node->get('/'), qr/ok/, 'the workers serve on');
    # At which each sees once more that there is no master.
    $status->wait_beats($node);
    $node->signal('QUIT', $workers[0]);
    $node->wait_events('worker_exit', 1);
    is(scalar $node->kinds('master_exit'), 0, 'one is left');
    $node->signal('QUIT', $workers[1]);
    $node->wait_events('master_exit', 1);
    is(scalar $node->kinds('master_lost'), 1, 'once');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the master is killed, and all workers but one' => sub {
    my $node = WorkerManager->new(workers => 3, manager => 'interval 1m;')->up;
    my ($survivor, @others) = $node->on_duty;
    $node->signal('KILL');
    $node->signal('KILL', @others);
    $node->wait_for('their end',
        sub { !grep { WorkerManager::is_alive($_) } @others, $node->master });
    $node->signal('TERM', $survivor);
    $node->wait_events('master_exit', 1);
    is(scalar $node->kinds('worker_lost'), 2, 'the last one buries the dead');
    $node->laws_hold('the laws hold', final => 1);
};

run_tests();

__DATA__

=== TEST 1: kill -9 of a worker: lost, and another starts
--- act
kill 9 worker 0
wait 3 worker_start
--- timeline
worker_lost(1-A, nil,2,nil; signal 9; core 0; worker 0)
worker_start(1-C, nil,2,nil; respawn_of A)



=== TEST 2: stop kills a worker that does not end, and the master tells it as lost
--- act
stop worker 0
terminate
--- timeline
worker_exit(1-B, nil,2,nil; worker 1)
worker_lost(1-A, nil,1,nil; signal 9; worker 0)
master_exit(1, nil,0,nil; pid master)



=== TEST 3: workers that exit by themselves are replaced, and the generation goes on
--- act
signal QUIT worker 0
wait 3 worker_start
signal TERM worker 1
wait 4 worker_start
--- timeline
worker_draining(1-A, nil,2,nil)
worker_exit(1-A, nil,2,nil; worker 0)
worker_start(1-C, nil,2,nil; worker 0; respawn_of A)
worker_exit(1-B, nil,2,nil; worker 1)
worker_start(1-D, nil,2,nil; worker 1; respawn_of B)
