# The field stopping: whether the node ends with an event or goes on, whoever ended the worker and how.
use strict;
use warnings;
use Test::More;
use WorkerManager;

# What the events of a kind say, in the order of telling.
sub stopping {
    my ($node, $kind, $generation) = @_;
    return [ map { $_->{stopping} } $node->kinds($kind, $generation) ];
}

for my $signal (qw(TERM INT QUIT)) {
    subtest "the master gets $signal" => sub {
        my $node = WorkerManager->new->up;
        $node->down($signal);
        is_deeply(stopping($node, 'worker_draining'), [ $signal eq 'QUIT' ? (1, 1) : () ], 'draining');
        is_deeply(stopping($node, 'worker_exit'), [ 1, 1 ], 'exits');
        is_deeply(stopping($node, 'master_exit'), [1], 'the end');
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "one worker gets $signal" => sub {
        my $node = WorkerManager->new->up;
        my ($victim) = $node->on_duty;
        $node->signal($signal, $victim);
        $node->wait_events('worker_start', 3);
        my ($exit) = $node->kinds('worker_exit');
        is_deeply([ @$exit{qw(pid mine left next stopping)} ], [ $victim, 2, 1, '-', 0 ],
            'it exits, the node goes on');
        is_deeply(stopping($node, 'worker_draining'), [ $signal eq 'QUIT' ? 0 : () ], 'draining');
        is(($node->kinds('worker_start'))[2]{respawn_of}, $victim, 'another takes its place');
        $node->down($signal);
        is_deeply(stopping($node, 'worker_exit'), [ 0, 1, 1 ], 'until it does not');
        $node->laws_hold('the laws hold', final => 1);
    };

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

subtest 'a reload, and a stop while an old worker drains' => sub {
    my $node = WorkerManager->new->up;
    my $held = $node->hold_connection(1);
    $node->reload_ready(2);
    $node->wait_events('worker_exit', 1, 1);
    $node->wait_events('worker_draining', 2, 1);
    is_deeply(stopping($node, 'worker_draining'), [ 0, 0 ], 'draining');
    is_deeply(stopping($node, 'worker_exit'), [0], 'exits');
    $node->down('TERM');
    is_deeply(stopping($node, 'worker_exit', 1), [ 0, 1 ], 'the old worker knows of the stop');
    is_deeply(stopping($node, 'worker_exit', 2), [ 1, 1 ], 'the others too');
    is_deeply(stopping($node, 'master_exit'), [ 1, 1 ], 'the end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'an old worker that outlives the others' => sub {
    my $node = WorkerManager->new->up;
    my $held = $node->hold_connection(1);
    $node->reload_ready(2);
    $node->wait_events('worker_exit', 1, 1);
    $node->signal('QUIT');
    $node->wait_events('worker_exit', 2, 2);
    close $held;
    $node->wait_for('the end of the master', sub { !WorkerManager::is_alive($node->master) });
    is_deeply(stopping($node, 'worker_exit', 1), [ 0, 1 ], 'the old worker knows of the stop');
    $node->laws_hold('the laws hold', final => 1);
};

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

subtest 'the master is gone' => sub {
    my $node = WorkerManager->new->up;
    my ($first, $last) = $node->on_duty;
    $node->signal('KILL');
    $node->wait_for('the end of the master', sub { !WorkerManager::is_alive($node->master) });
    $node->wait_events('master_lost', 1);
    $node->signal('TERM', $first);
    $node->wait_events('worker_exit', 1);
    is_deeply(stopping($node, 'worker_exit'), [0], 'another worker serves');
    $node->signal('TERM', $last);
    $node->wait_events('master_exit', 1);
    is_deeply(stopping($node, 'worker_exit'), [ 0, 1 ], 'until the last goes');
    is_deeply(stopping($node, 'master_exit'), [1], 'the end');
    $node->laws_hold('the laws hold', final => 1);
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

done_testing;
