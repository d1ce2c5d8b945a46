# The timelines of the contract: cold start, reload, quit and stop.
use Test::Nginx::WorkerManager 'no_plan';

run_tests();

__DATA__

=== TEST 1: cold start and quit
--- act
start
wait master_ready 1
get /
quit
--- timeline
master_start(1, nil,0,nil)
worker_start(1-A, nil,1,nil; worker 0; respawn_of nil)  worker_start(1-B, nil,2,nil; worker 1; respawn_of nil)
master_ready(1, nil,2,nil; duration)
worker_draining(1-A, nil,2,nil)  worker_draining(1-B, nil,2,nil)  worker_exit(1-A, nil,2,nil)  worker_exit(1-B, nil,1,nil)
master_exit(1, nil,0,nil)
--- answers
ok



=== TEST 2: stop: nobody drains
--- act
terminate
--- timeline
worker_exit(1-A, nil,2,nil; stopping 1)  worker_exit(1-B, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)



=== TEST 3: reload
--- act
reload
--- timeline
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil; duration)
    worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
    worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)



=== TEST 4: three quick reloads, each with a connection to the generation before
--- workers: 1
--- act
hold a connection
reload
wait worker_draining 1
hold a connection
reload
wait worker_draining 2
hold a connection
reload
wait worker_draining 3
release the connections
wait master_exit 1
wait master_exit 2
wait master_exit 3
quit
--- timeline
master_start(2, 1,0,nil)
worker_start(2-B, 1,1,nil)  master_ready(2, 1,1,nil)  worker_draining(1-A, nil,1,1; connections 1)
master_start(3, 1,0,nil; older 1)
worker_start(3-C, 1,1,nil; older 1)  master_ready(3, 1,1,nil; older 1)  worker_draining(2-B, 1,1,1; connections 1)
master_start(4, 1,0,nil; older 2)
worker_start(4-D, 1,1,nil; older 2)  master_ready(4, 1,1,nil; older 2)  worker_draining(3-C, 1,1,1; connections 1)
worker_exit(1-A, nil,1,1)  master_exit(1, nil,0,1)  worker_exit(2-B, nil,1,1)  master_exit(2, nil,0,1)
    worker_exit(3-C, nil,1,1)  master_exit(3, nil,0,1)
worker_draining(4-D, nil,1,nil)
worker_exit(4-D, nil,1,nil; stopping 1)
master_exit(4, nil,0,nil; stopping 1)



=== TEST 5: two reloads, one connection held in generation 1: the 2 are generation 3's
--- act
hold a connection
reload
wait 1 worker_exit 1
reload
wait master_exit 2
release the connection
wait master_exit 1
quit
--- timeline
master_start(2, 2,0,nil; stopping 0)
worker_start(2-C, 2,1,nil; stopping 0)  worker_start(2-D, 2,2,nil; stopping 0)  master_ready(2, 2,2,nil; stopping 0)
    worker_draining(1-A, nil,2,2; stopping 0)  worker_draining(1-B, nil,2,2; stopping 0)  worker_exit(1-B, nil,2,2; stopping 0)
master_start(3, 2,0,nil; stopping 0)
worker_start(3-E, 2,1,nil; stopping 0)  worker_start(3-F, 2,2,nil; stopping 0)  master_ready(3, 2,2,nil; stopping 0)
    worker_draining(2-C, 1,2,2; stopping 0)  worker_draining(2-D, 1,2,2; stopping 0)
    worker_exit(2-C, 1,2,2; stopping 0)  worker_exit(2-D, 1,1,2; stopping 0)  master_exit(2, 1,0,2; stopping 0)
worker_exit(1-A, nil,1,2; stopping 0; duration)
master_exit(1, nil,0,2; stopping 0)
worker_draining(3-E, nil,2,nil)  worker_draining(3-F, nil,2,nil)
    worker_exit(3-E, nil,2,nil; stopping 1)  worker_exit(3-F, nil,1,nil; stopping 1)
master_exit(3, nil,0,nil; stopping 1)



=== TEST 6: a worker index is inherited, an id is not
--- act
start
wait master_ready 1
kill 9 worker 1
wait 3 worker_start
--- timeline
master_start(1, nil,0,nil)
worker_start(1-A, nil,1,nil; worker 0; respawn_of nil)  worker_start(1-B, nil,2,nil; worker 1; respawn_of nil)
master_ready(1, nil,2,nil)
worker_lost(1-B, nil,2,nil; signal 9; worker 1; left 1; stopping 0)
worker_start(1-C, nil,2,nil; worker 1; respawn_of B)



=== TEST 7: who starts at a reload takes nobody's place, also in a slot that another had
nginx leaves the pid of the one that was last in its table where it was; the next but one gets its
entry.
--- act
reload
wait master_exit 1
reload
wait master_exit 2
reload
wait master_exit 3
reload
wait master_exit 4
kill 9 worker 0
wait 3 worker_start 5
--- timeline
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil; respawn_of nil)  worker_start(2-D, 2,2,nil; respawn_of nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
    worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)
master_start(3, 2,0,nil)
worker_start(3-E, 2,1,nil; respawn_of nil)  worker_start(3-F, 2,2,nil; respawn_of nil)  master_ready(3, 2,2,nil)
    worker_draining(2-C, nil,2,2)  worker_draining(2-D, nil,2,2)
    worker_exit(2-C, nil,2,2)  worker_exit(2-D, nil,1,2)  master_exit(2, nil,0,2)
master_start(4, 2,0,nil)
worker_start(4-G, 2,1,nil; respawn_of nil)  worker_start(4-H, 2,2,nil; respawn_of nil)  master_ready(4, 2,2,nil)
    worker_draining(3-E, nil,2,2)  worker_draining(3-F, nil,2,2)
    worker_exit(3-E, nil,2,2)  worker_exit(3-F, nil,1,2)  master_exit(3, nil,0,2)
master_start(5, 2,0,nil)
worker_start(5-I, 2,1,nil; respawn_of nil; worker 0)  worker_start(5-J, 2,2,nil; respawn_of nil)  master_ready(5, 2,2,nil)
    worker_draining(4-G, nil,2,2)  worker_draining(4-H, nil,2,2)
    worker_exit(4-G, nil,2,2)  worker_exit(4-H, nil,1,2)  master_exit(4, nil,0,2)
worker_lost(5-I, nil,2,nil; signal 9)
worker_start(5-K, nil,2,nil; respawn_of I)
