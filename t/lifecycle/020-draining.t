# Workers that drain: the moment, how long, how many connections; and those that drain for too long.
use strict;
use warnings;
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use WorkerManager;

subtest 'what comes up while an awaited program runs is told right after it' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('hook', <<"END", 0755);
#!/bin/sh
touch $node->{root}/out/begun
while [ ! -e $node->{root}/out/go ]; do sleep 0.01; done
END
    $node->configure(manager => 'interval 10m; on master_exit exec hook;');
    $node->up;
    my $old = $node->hold_connection(1);
    my ($victim) = map { $_->{pid} } $node->held;
    $node->reload_ready(2);
    $node->wait_events('worker_draining', 1, 1);
    my $held = $node->hold_connection(2);
    my ($teller) = $node->on_duty(2);
    # The new worker tells the loss, and the end of the old generation, from its event loop.
    $node->signal('KILL', $victim);
    $node->wait_for('the program', sub { -e $node->path('out/begun') });
    # Not by a reload: for that the master needs the lock, which the program's event holds.
    $node->signal('QUIT', $teller);
    $node->wait_for('the order', sub { $node->log =~ / $teller#$teller: gracefully shutting down/ });
    is(scalar $node->kinds('worker_draining', 2), 0, 'not while the program runs');
    $node->write('out/go', '');
    $node->wait_events('worker_draining', 1, 2);
    is_deeply([ map { $_->{pid} } $node->kinds('worker_draining', 2) ], [$teller], 'it drains');
    is(scalar $node->kinds('worker_exit', 2), 0, 'and has not ended');
    close $held;
    $node->wait_events('worker_start', 2, 2);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

run_tests();

__DATA__

=== TEST 1: a connection keeps an old worker; nobody is stuck unless asked
--- workers: 1
--- act
hold a connection
reload
wait worker_draining 1
release the connection
wait master_exit 1
--- timeline
master_start(2, 1,0,nil)
worker_start(2-B, 1,1,nil)  master_ready(2, 1,1,nil)  worker_draining(1-A, nil,1,1; connections 1)
worker_exit(1-A, nil,1,1; duration)
master_exit(1, nil,0,1)
--- no_error_log
open socket



=== TEST 2: idle connections are not counted, nginx closes them
--- workers: 1
--- act
keep a connection alive
hold a connection
reload
wait worker_draining 1
release the connection
wait master_exit 1
--- timeline
master_start(2, 1,0,nil)
worker_start(2-B, 1,1,nil)  master_ready(2, 1,1,nil)  worker_draining(1-A, nil,1,1; connections 1)
worker_exit(1-A, nil,1,1)
master_exit(1, nil,0,1)



=== TEST 3: draining_warn: stuck once, after the time
--- workers: 1
--- manager
draining_warn 300ms;
--- act
hold a connection
reload
wait worker_stuck 1
reload
wait master_exit 2
release the connection
wait master_exit 1
--- timeline
master_start(2, 1,0,nil)
worker_start(2-B, 1,1,nil)  master_ready(2, 1,1,nil)  worker_draining(1-A, nil,1,1; connections 1)
worker_stuck(1-A, nil,1,1; connections 1; duration 0.3)
master_start(3, 1,0,nil; older 1)
worker_start(3-C, 1,1,nil)  master_ready(3, 1,1,nil)  worker_draining(2-B, 1,1,1; connections 0)
    worker_exit(2-B, 1,1,1)  master_exit(2, 1,0,1)
worker_exit(1-A, nil,1,1; duration 0.3)
master_exit(1, nil,0,1)



=== TEST 4: a whole node that quits
--- manager
draining_warn 100ms;
--- act
hold a connection
signal QUIT
wait 2 worker_draining 1
wait worker_stuck 1
wait worker_exit 1
release the connection
wait for the end
--- timeline
worker_draining(1-A, nil,2,nil; connections 1)  worker_draining(1-B, nil,2,nil; connections 0)
    worker_stuck(1-A, nil,2,nil)  worker_exit(1-B, nil,2,nil)
worker_exit(1-A, nil,1,nil)
master_exit(1, nil,0,nil)



=== TEST 5: a worker told to quit alone drains, and the generation is not ready once more
--- act
signal QUIT worker 0
wait 3 worker_start
--- timeline
worker_draining(1-A, nil,2,nil; worker 0)
worker_exit(1-A, nil,2,nil)
worker_start(1-C, nil,2,nil; worker 0; respawn_of A)



=== TEST 6: as few connections as nginx allows
One for the listening socket and one for the channel to the master: none is left to notice by.
--- workers: 1
--- connections: 2
--- act
kill 9 worker 0
wait 2 worker_start
--- timeline
worker_lost(1-A, nil,1,nil; signal 9)
worker_start(1-B, nil,1,nil; respawn_of A)
--- no_error_log
not enough
fatal code



=== TEST 7: fast stop: nobody drains
--- act
terminate
--- timeline
worker_exit(1-A, nil,2,nil)  worker_exit(1-B, nil,1,nil)
master_exit(1, nil,0,nil)
