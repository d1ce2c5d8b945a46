# Workers that drain: the moment, how long, how many connections; and those that drain for too long.
use strict;
use warnings;
use Test::More;
use WorkerManager;

subtest 'a connection keeps an old worker' => sub {
    my $node = WorkerManager->new(workers => 1)->up;
    my $held = $node->hold_connection(1);
    $node->signal('HUP');
    $node->wait_events('worker_draining', 1, 1);
    my ($drain) = $node->kinds('worker_draining', 1);
    is($drain->{connections}, 1, 'one connection');
    is($drain->{mine}, 1, 'it is counted on');
    is(scalar $node->kinds('worker_exit'), 0, 'it has not ended');
    close $held;
    $node->wait_events('master_exit', 1, 1);
    my ($exit) = $node->kinds('worker_exit', 1);
    like($exit->{duration}, qr/^\d+\.\d{3}$/, 'how long it drained');
    is(scalar $node->kinds('worker_stuck'), 0, 'nobody is stuck unless asked');
    unlike($node->log, qr/open socket/, 'nginx finds nothing left open');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'idle connections are not counted, nginx closes them' => sub {
    my $node = WorkerManager->new(workers => 1)->up;
    my $idle = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $node->{port});
    print $idle "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    my $line = <$idle>;
    my $held = $node->hold_connection(1);
    $node->signal('HUP');
    $node->wait_events('worker_draining', 1, 1);
    is(($node->kinds('worker_draining', 1))[0]{connections}, 1, 'only the one in use');
    close $held;
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'draining_warn' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'draining_warn 300ms;')->up;
    my $held = $node->hold_connection(1);
    $node->signal('HUP');
    $node->wait_events('worker_stuck', 1, 1);
    my ($stuck) = $node->kinds('worker_stuck', 1);
    is($stuck->{connections}, 1, 'its connections');
    cmp_ok($stuck->{duration}, '>=', 0.3, 'after the time');
    $node->reload_ready(3);
    close $held;
    $node->wait_events('master_exit', 1, 1);
    is(scalar $node->kinds('worker_stuck'), 1, 'once');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a whole node that quits' => sub {
    my $node = WorkerManager->new(workers => 2, manager => 'draining_warn 100ms;')->up;
    my $held = $node->hold_connection(1);
    $node->signal('QUIT');
    $node->wait_events('worker_draining', 2, 1);
    $node->wait_events('worker_stuck', 1, 1);
    $node->wait_events('worker_exit', 1, 1);
    close $held;
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker told to quit alone' => sub {
    my $node = WorkerManager->new(workers => 2)->up;
    my ($one) = $node->on_duty;
    $node->signal('QUIT', $one);
    $node->wait_events('worker_start', 3);
    is_deeply([ map { $_->{pid} } $node->kinds('worker_draining') ], [$one], 'it drains');
    is(scalar $node->kinds('master_ready'), 1, 'the generation is not ready once more');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

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

subtest 'as few connections as nginx allows' => sub {
    # One for the listening socket and one for the channel to the master: none is left to notice by.
    my $node = WorkerManager->new(workers => 1, connections => 2)->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 2);
    unlike($node->log, qr/not enough|fatal code/, 'the worker starts');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'fast stop: nobody drains' => sub {
    my $node = WorkerManager->new->up;
    $node->down('TERM');
    is(scalar $node->kinds('worker_draining'), 0, 'none');
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
