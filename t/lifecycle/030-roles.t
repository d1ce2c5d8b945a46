# The roles of nginx's processes: who is a worker, who is a master, and who is neither.
use strict;
use warnings;
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use WorkerManager;

my $CACHE = 'proxy_cache_path cache keys_zone=c:1m loader_threshold=10ms;';

subtest 'cache manager and loader are not workers' => sub {
    my $node = WorkerManager->new(http => $CACHE)->up;
    my @helpers = $node->wait_for('the helpers',
        sub { my @h = grep { $_->{title} =~ /cache/ } $node->children; @h });
    my ($manager) = grep { $_->{title} =~ /cache manager/ } $node->children;
    ok($manager, 'there is a cache manager') or return;
    is(scalar $node->kinds('worker_start'), 2, 'two workers');
    $node->signal('KILL', $manager->{pid});
    $node->wait_for('another', sub {
        grep { $_->{title} =~ /cache manager/ && $_->{pid} != $manager->{pid} } $node->children });
    is(scalar $node->kinds('worker_lost'), 0, 'nobody is lost');
    $node->reload(2);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'USR2: a new binary is a node of its own' => sub {
    my $node = WorkerManager->new->up;
    my $old = $node->master;
    my $count = sub { my ($what) = @_; scalar(() = $node->log =~ /EV1 \d+ $what 1/g) };
    $node->signal('USR2');
    $node->wait_for('the new workers', sub { $count->('worker_start') == 4 });
    is($count->('master_start'), 2, 'a start of its own');
    $node->wait_for('the new pid file', sub {
        $node->read('logs/nginx.pid') =~ /^(\d+)/ && $1 != $old && ($node->{master} = $1) });
    $node->signal('QUIT', $old);
    $node->wait_for('the end of the old', sub { !WorkerManager::is_alive($old) });
    is($count->('worker_exit'), 2, 'the old workers exit');
    is($count->('master_exit'), 1, 'and their master');
    like($node->get('/'), qr/ok/, 'the new ones serve');
    $node->down;
    is($count->('worker_exit'), 4, 'the new workers exit');
    is($count->('master_exit'), 2, 'and theirs');
    unlike($node->log, qr/\[(alert|crit|emerg)\]/, 'without a fault');
};

run_tests();

__DATA__

=== TEST 1: daemon off: the launcher is the master
--- foreground
--- act
start
wait master_ready 1
reload
wait master_exit 1
--- timeline
master_start(1, nil,0,nil; pid master)
worker_start(1-A, nil,1,nil)  worker_start(1-B, nil,2,nil)  master_ready(1, nil,2,nil)
master_start(2, 2,0,nil; pid master)
worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
    worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)



=== TEST 2: daemon on: the launcher tells the start before it daemonizes, the master tells the end
--- act
start
wait master_ready 1
quit
--- timeline
master_start(1, nil,0,nil; pid launcher)
worker_start(1-A, nil,1,nil)  worker_start(1-B, nil,2,nil)  master_ready(1, nil,2,nil)
worker_draining(1-A, nil,2,nil)  worker_draining(1-B, nil,2,nil)  worker_exit(1-A, nil,2,nil)  worker_exit(1-B, nil,1,nil)
master_exit(1, nil,0,nil; pid master)



=== TEST 3: master_process off, with a reload: one process, two generations
Whether it serves on is nginx's affair: without a master it does not make its connections anew at a reload, with
this module or without.
--- single_process
--- manager
interval 100ms;
--- act
get /
reload
wait master_exit 1
--- timeline
master_start(2, 1,0,nil)
worker_start(2-A, 1,1,nil)  master_ready(2, 1,1,nil)  worker_exit(1-A, nil,1,1)  master_exit(1, nil,0,1)
--- answers
ok



=== TEST 4: a reload does not make a single process of a master, which forks all workers
--- workers: 3
--- main_config_2
master_process off;
--- act
configure 2
reload
wait master_exit 1
--- timeline
master_start(2, 3,0,nil)
worker_start(2-D, 3,1,nil)  worker_start(2-E, 3,2,nil)  worker_start(2-F, 3,3,nil)  master_ready(2, 3,3,nil)
    worker_draining(1-A, nil,3,3)  worker_draining(1-B, nil,3,3)  worker_draining(1-C, nil,3,3)
    worker_exit(1-A, nil,3,3)  worker_exit(1-B, nil,2,3)  worker_exit(1-C, nil,1,3)  master_exit(1, nil,0,3)



=== TEST 5: nor a master of a single process, with which the reload is complete
--- foreground
--- workers: 1
--- main_config
master_process off;
--- workers_2: 3
--- main_config_2
master_process on;
--- act
configure 2
reload
wait master_exit 1
--- timeline
master_start(2, 1,0,nil)
worker_start(2-A, 1,1,nil)  master_ready(2, 1,1,nil)  worker_exit(1-A, nil,1,1)  master_exit(1, nil,0,1)



=== TEST 6: -t, -T, -v and -s cause no event
--- act
nginx -t
nginx -T
nginx -v
nginx -s reopen
nginx -s reload
wait master_exit 1
nginx -s quit
wait for the end
--- timeline
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
    worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)
worker_draining(2-C, nil,2,nil)  worker_draining(2-D, nil,2,nil)  worker_exit(2-C, nil,2,nil)  worker_exit(2-D, nil,1,nil)
master_exit(2, nil,0,nil)



=== TEST 7: nginx -s works although a program is gone
--- files
>>> hook
#!/bin/sh
--- manager
on worker_lost exec hook;
--- act
remove hook
nginx -t fails
nginx -s stop
wait for the end



=== TEST 8: WINCH ends the workers, the master lives on, a reload brings new ones
--- act
signal WINCH
wait 2 worker_exit
reload
wait master_exit 1
--- timeline
worker_draining(1-A, nil,2,nil)  worker_draining(1-B, nil,2,nil)  worker_exit(1-A, nil,2,nil)  worker_exit(1-B, nil,1,nil)
master_start(2, 0,0,nil)
worker_start(2-C, 0,1,nil)  worker_start(2-D, 0,2,nil)  master_ready(2, 0,2,nil)  master_exit(1, nil,0,2)



=== TEST 9: reopening logs is no event
--- act
signal USR1
wait for 3 times : reopening logs
quit
--- timeline
worker_draining(1-A, nil,2,nil)  worker_draining(1-B, nil,2,nil)  worker_exit(1-A, nil,2,nil)  worker_exit(1-B, nil,1,nil)
master_exit(1, nil,0,nil)



=== TEST 10: without the block, nothing is told and nothing is said
--- without_manager
--- act
get / until ok
--- no_error_log
EV1
worker_manager:
