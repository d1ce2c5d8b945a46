# The field stopping: whether the node ends with an event or goes on, whoever ended the worker and how.
use strict;
use warnings;
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use WorkerManager;

# What the events of a kind say, in the order of telling.
sub stopping {
    my ($node, $kind, $generation) = @_;
    return [ map { $_->{stopping} } $node->kinds($kind, $generation) ];
}

for my $signal (qw(TERM INT QUIT)) {
    # As killall, Ctrl-C and the manager of a service do. Workers that are stopped find both, the signal
    # first.
    subtest "every process gets $signal" => sub {
        my $node = WorkerManager->new->up;
        my @workers = $node->on_duty;
        my $held = $signal eq 'QUIT' ? $node->hold_connection(1) : undef;
        $node->signal('STOP', @workers);
        $node->wait_for('them to stop', sub { !grep { WorkerManager::state_of($_) ne 'T' } @workers });
        $node->signal($signal, @workers, $node->master);
        # It logs the signal, tells the workers, and sleeps again.
        my $master = $node->master;
        $node->wait_for('the master to have told them', sub {
            $node->log =~ /\] $master#\S+ signal \d+ \(SIG$signal\) received/
                && WorkerManager::state_of($master) eq 'S';
        });
        $node->signal('CONT', @workers);
        $node->wait_events('worker_draining', 2) if $held;
        close $held if $held;
        $node->wait_for('the end of the master', sub { !WorkerManager::is_alive($node->master) });
        is_deeply(stopping($node, 'worker_exit'), [ 1, 1 ], 'exits');
        is_deeply(stopping($node, 'worker_draining'), [ $held ? (1, 1) : () ], 'draining');
        is_deeply(stopping($node, 'master_exit'), [1], 'the end');
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'another zone' => sub {
    my $node = WorkerManager->new->up;
    my ($start) = $node->events;
    $node->configure(manager => 'zone other;');
    $node->signal('HUP');
    $node->wait_events('master_ready', 1, 2);
    $node->wait_events('master_exit', 1, 1);
    is_deeply(stopping($node, 'worker_exit', 1), [ 0, 0 ], 'the node goes on');
    is_deeply(stopping($node, 'master_exit', 1), [0], 'in another history');
    my ($new) = $node->kinds('master_start', 2);
    is($new->{prev}, 0, 'which begins with a reload');
    cmp_ok($new->{history}, 'gt', $start->{history}, 'and has a name of its own, which sorts after');
    $node->down;
    is_deeply(stopping($node, 'worker_exit', 2), [ 1, 1 ], 'until it stops');
};

subtest 'histories' => sub {
    my $node = WorkerManager->new->up;
    $node->reload(2);
    my ($first, @more) = map { $_->{history} } $node->events;
    like($first, qr/^[0-9a-f]{16}$/, 'a name');
    is_deeply([ grep { $_ ne $first } @more ], [], 'the same over a reload');
    $node->down;
    $node->write('logs/error.log', '');
    $node->up;
    cmp_ok(($node->events)[0]{history}, 'gt', $first, 'another one after a restart');
    $node->down;
};

subtest 'master_process off' => sub {
    my $node = WorkerManager->new(workers => 1, main => 'master_process off;')->up;
    $node->reload(2);
    is_deeply(stopping($node, 'worker_exit'), [0], 'a reload');
    $node->down('TERM');
    is_deeply(stopping($node, 'worker_exit'), [ 0, 1 ], 'stop');
    is_deeply(stopping($node, 'master_exit'), [ 0, 1 ], 'the end');
    $node->laws_hold('the laws hold', final => 1);
};

# Starts a new binary beside the node, and returns its master. Each has a history of its own.
sub upgrade {
    my ($node) = @_;
    $node->signal('USR2');
    $node->wait_for('the new master', sub { $node->read('logs/nginx.pid') =~ /^(?!@{[ $node->master ]}\n)\d+\n/ });
    my ($new) = $node->read('logs/nginx.pid') =~ /^(\d+)/;
    $node->wait_for('its workers', sub { scalar(grep { $_->{event} eq 'master_ready' } $node->events) == 2 });
    return $new;
}

sub of_history {
    my ($node, $history, $kind) = @_;
    return [ map { $_->{stopping} }
            grep { $_->{event} eq $kind && $_->{history} eq $history } $node->events ];
}

subtest 'an upgrade' => sub {
    my $node = WorkerManager->new->up;
    my $old = ($node->events)[0]{history};
    my $new = upgrade($node);
    my ($history) = grep { $_ ne $old } map { $_->{history} } $node->events;
    $node->signal('WINCH');
    $node->wait_for('the old workers to go', sub { @{ of_history($node, $old, 'worker_exit') } == 2 });
    is_deeply(of_history($node, $old, 'worker_exit'), [ 0, 0 ], 'the old workers make way');
    $node->down('QUIT');
    is_deeply(of_history($node, $old, 'master_exit'), [0], 'and so does their master');
    $node->{master} = $new;
    $node->down('QUIT');
    is_deeply(of_history($node, $history, 'worker_exit'), [ 1, 1 ], 'the new ones are the end');
    is_deeply(of_history($node, $history, 'master_exit'), [1], 'of everything');
};

subtest 'an upgrade that is taken back' => sub {
    my $node = WorkerManager->new->up;
    my $old = ($node->events)[0]{history};
    my ($master, $new) = ($node->master, upgrade($node));
    my ($history) = grep { $_ ne $old } map { $_->{history} } $node->events;
    $node->{master} = $new;
    $node->down('QUIT');
    is_deeply(of_history($node, $history, 'worker_exit'), [ 0, 0 ], 'the old ones go on');
    is_deeply(of_history($node, $history, 'master_exit'), [0], 'and their master');
    $node->{master} = $master;
    $node->wait_for('the pid file', sub { !-e $node->path('logs/nginx.pid.oldbin') });
    $node->down('TERM');
    is_deeply(of_history($node, $old, 'worker_exit'), [ 1, 1 ], 'until they stop');
};

run_tests();

__DATA__

=== TEST 1: the master gets TERM
--- act
signal TERM
wait for the end
--- timeline
worker_exit(1-A, nil,2,nil; stopping 1)  worker_exit(1-B, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)



=== TEST 2: the master gets INT
--- act
signal INT
wait for the end
--- timeline
worker_exit(1-A, nil,2,nil; stopping 1)  worker_exit(1-B, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)



=== TEST 3: the master gets QUIT
--- act
signal QUIT
wait for the end
--- timeline
worker_draining(1-A, nil,2,nil; stopping 1)  worker_draining(1-B, nil,2,nil; stopping 1)
    worker_exit(1-A, nil,2,nil; stopping 1)  worker_exit(1-B, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)



=== TEST 4: one worker gets TERM, and the node goes on until it does not
--- act
signal TERM worker 0
wait 3 worker_start
signal TERM
wait for the end
--- timeline
worker_exit(1-A, nil,2,nil; left 1; stopping 0)
worker_start(1-C, nil,2,nil; respawn_of A; stopping 0)
worker_exit(1-B, nil,2,nil; stopping 1)  worker_exit(1-C, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)



=== TEST 5: one worker gets INT, and the node goes on until it does not
--- act
signal INT worker 0
wait 3 worker_start
signal INT
wait for the end
--- timeline
worker_exit(1-A, nil,2,nil; left 1; stopping 0)
worker_start(1-C, nil,2,nil; respawn_of A; stopping 0)
worker_exit(1-B, nil,2,nil; stopping 1)  worker_exit(1-C, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)



=== TEST 6: one worker gets QUIT, and the node goes on until it does not
--- act
signal QUIT worker 0
wait 3 worker_start
signal QUIT
wait for the end
--- timeline
worker_draining(1-A, nil,2,nil; stopping 0)
worker_exit(1-A, nil,2,nil; left 1; stopping 0)
worker_start(1-C, nil,2,nil; respawn_of A; stopping 0)
worker_draining(1-B, nil,2,nil; stopping 1)  worker_draining(1-C, nil,2,nil; stopping 1)
    worker_exit(1-B, nil,2,nil; stopping 1)  worker_exit(1-C, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)



=== TEST 7: a reload, and a stop while an old worker drains, which knows of it
--- act
hold a connection
reload
wait worker_exit 1
wait 2 worker_draining 1
terminate
--- timeline
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2; stopping 0)  worker_draining(1-B, nil,2,2; stopping 0)
    worker_exit(1-B, nil,2,2; stopping 0)
worker_exit(1-A, nil,1,2; stopping 1)  master_exit(1, nil,0,2; stopping 1)
    worker_exit(2-C, nil,2,nil; stopping 1)  worker_exit(2-D, nil,1,nil; stopping 1)  master_exit(2, nil,0,nil; stopping 1)



=== TEST 8: an old worker that outlives the others
--- act
hold a connection
reload
wait worker_exit 1
wait 2 worker_draining 1
signal QUIT
wait 2 worker_exit 2
release the connection
wait for the end
--- timeline
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2; stopping 0)  worker_draining(1-B, nil,2,2; stopping 0)
    worker_exit(1-B, nil,2,2; stopping 0)
worker_draining(2-C, 1,2,nil)  worker_draining(2-D, 1,2,nil)
    worker_exit(2-C, 1,2,nil; stopping 1)  worker_exit(2-D, 1,1,nil; stopping 1)
worker_exit(1-A, nil,1,0; stopping 1)
master_exit(1, nil,0,0)  master_exit(2, nil,0,nil)



=== TEST 9: the master is gone: the last worker stops the node
--- act
kill 9 the master
wait master_lost
signal TERM worker 0
wait worker_exit
signal TERM worker 1
wait master_exit
--- timeline
master_lost(1, nil,2,nil)
worker_exit(1-A, nil,2,nil; stopping 0)
worker_exit(1-B, nil,1,nil; stopping 1)
master_exit(1, nil,0,nil; stopping 1)
