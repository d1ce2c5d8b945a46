# The roles of nginx's processes: who is a worker, who is a master, and who is neither.
use strict;
use warnings;
use Test::More;
use WorkerManager;

my $CACHE = 'proxy_cache_path cache keys_zone=c:1m loader_threshold=10ms;';

# How many events of each kind a node has told.
sub numbers {
    my ($node) = @_;
    my %numbers;
    $numbers{ $_->{event} }++ for $node->events;
    return \%numbers;
}

# The same for so many generations of two workers, of which each came and went.
sub numbers_of {
    my ($generations) = @_;
    return {
        (map { $_ => $generations } qw(master_start master_ready master_exit)),
        (map { $_ => 2 * $generations } qw(worker_start worker_draining worker_exit)),
    };
}

subtest 'daemon off' => sub {
    my $node = WorkerManager->new(daemon => 0)->up;
    $node->reload(2);
    $node->down;
    is(($node->kinds('master_start'))[0]{pid}, $node->master, 'the launcher is the master');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'daemon on: the launcher tells the start' => sub {
    my $node = WorkerManager->new->up;
    isnt(($node->kinds('master_start'))[0]{pid}, $node->master, 'before it daemonizes');
    $node->down;
    is(($node->kinds('master_exit'))[0]{pid}, $node->master, 'the master tells the end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'master_process off, with a reload' => sub {
    my $node = WorkerManager->new(
        workers => 1, daemon => 0, main => 'master_process off;', manager => 'interval 100ms;')->up;
    like($node->get('/'), qr/ok/, 'it serves');
    $node->signal('HUP');
    $node->wait_events('master_exit', 1, 1);
    is_deeply([ (WorkerManager::told($node->events_but('master_ready')))[ 2 .. 5 ] ], [
        'master_start(2, 1,0,-)', 'worker_start(2-, 1,1,-)', 'worker_exit(1-, -,1,1)',
        'master_exit(1, -,0,1)',
    ], 'one process, two generations');
    # Whether it serves on is nginx's affair: without a master it does not make its connections
    # anew at a reload, with this module or without.
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload does not make a single process of a master' => sub {
    my $node = WorkerManager->new(workers => 3)->up;
    $node->configure(main => 'master_process off;');
    $node->reload(2);
    my ($ready) = $node->kinds('master_ready', 2);
    is($ready->{mine}, 3, 'the master forks all workers, and with all of them the reload is complete');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'nor a master of a single process' => sub {
    my $node = WorkerManager->new(workers => 1, daemon => 0, main => 'master_process off;')->up;
    $node->configure(workers => 3, main => 'master_process on;');
    $node->reload_ready(2);
    $node->wait_events('master_exit', 1, 1);
    is(($node->kinds('master_ready', 2))[0]{mine}, 1, 'with the one process the reload is complete');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest '-t, -T, -v and -s cause no event' => sub {
    my $node = WorkerManager->new->up;
    is(($node->nginx('-t'))[0], 0, '-t');
    is(($node->nginx('-T'))[0], 0, '-T');
    is(($node->nginx('-v'))[0], 0, '-v');
    is(($node->nginx('-s', 'reopen'))[0], 0, '-s reopen');
    is(($node->nginx('-s', 'reload'))[0], 0, '-s reload');
    $node->wait_events('master_exit', 1, 1);
    is(($node->nginx('-s', 'quit'))[0], 0, '-s quit');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    # What any of them did is done now.
    is_deeply(numbers($node), numbers_of(2), 'no event but those of two generations');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'nginx -s works although a program and a library are gone' => sub {
    my $node = WorkerManager->new;
    $node->write('hook', "#!/bin/sh\n", 0755);
    $node->configure(manager => 'on worker_lost exec hook;');
    $node->up;
    unlink $node->path('hook');
    isnt(($node->nginx('-t'))[0], 0, '-t complains');
    is(($node->nginx('-s', 'stop'))[0], 0, '-s stop stops');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    $node->laws_hold('the laws hold', final => 1);
};

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

subtest 'WINCH ends the workers, a reload brings new ones' => sub {
    my $node = WorkerManager->new->up;
    $node->signal('WINCH');
    $node->wait_events('worker_exit', 2);
    is(scalar $node->kinds('master_exit'), 0, 'the master lives on');
    $node->signal('HUP');
    $node->wait_events('worker_start', 2, 2);
    $node->wait_events('master_exit', 1, 1);
    my ($start) = $node->kinds('master_start', 2);
    is($start->{prev}, 0, 'n_prev is a number at a reload');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'USR1' => sub {
    my $node = WorkerManager->new->up;
    $node->signal('USR1');
    $node->wait_for('reopened logs of all', sub { 3 == (() = $node->log =~ /\d: reopening logs/g) });
    $node->down;
    is_deeply(numbers($node), numbers_of(1), 'reopening logs is no event');
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

subtest 'without the block, and without the module' => sub {
    my $node = WorkerManager->new(manager => undef);
    $node->start;
    $node->wait_for('an answer', sub { $node->get('/') =~ /ok/ });
    $node->down;
    is(scalar(() = $node->events), 0, 'nothing is told');
    unlike($node->log, qr/worker_manager/, 'nothing is said');
};

done_testing;
