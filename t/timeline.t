# The timelines of the contract: cold start, reload, quit and stop.
use strict;
use warnings;
use Test::More;
use WorkerManager;

subtest 'cold start and quit' => sub {
    my $node = WorkerManager->new->up;
    is_deeply([ WorkerManager::told($node->events) ], [
        'master_start(1, -,0,-)', 'worker_start(1-, -,1,-)', 'worker_start(1-, -,2,-)',
        'master_ready(1, -,2,-)',
    ], 'cold start');
    is_deeply([ sort map { $_->{worker} } $node->kinds('worker_start') ], [ 0, 1 ], 'indexes');
    like($node->get('/'), qr/ok/, 'it serves');
    $node->down('QUIT');
    is(scalar $node->kinds('worker_draining'), 2, 'both drain');
    is_deeply([ (WorkerManager::told($node->events_but('worker_draining')))[ 4 .. 6 ] ], [
        'worker_exit(1-, -,2,-)', 'worker_exit(1-, -,1,-)', 'master_exit(1, -,0,-)',
    ], 'quit');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'stop' => sub {
    my $node = WorkerManager->new->up;
    $node->down('TERM');
    is_deeply([ (WorkerManager::told($node->events))[ 4 .. 6 ] ], [
        'worker_exit(1-, -,2,-)', 'worker_exit(1-, -,1,-)', 'master_exit(1, -,0,-)',
    ], 'stop');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'reload' => sub {
    my $node = WorkerManager->new->up;
    $node->reload(2);
    my @events = $node->events;
    is((WorkerManager::told($events[4]))[0], 'master_start(2, 2,0,-)', 'the new generation');
    is_deeply([ map { $_->{mine} } $node->kinds('worker_start', 2) ], [ 1, 2 ], 'its workers');
    my ($ready) = $node->kinds('master_ready', 2);
    is_deeply([ @$ready{qw(mine next)} ], [ 2, '-' ], 'which are all there then');
    like($ready->{duration}, qr/^\d+\.\d{3}$/, 'and how long that took');
    my @drain = $node->kinds('worker_draining', 1);
    is(scalar @drain, 2, 'the old ones drain');
    is_deeply([ map { $_->{next} } @drain ], [ 2, 2 ], 'once the new ones are there');
    is_deeply([ map { $_->{mine} } $node->kinds('worker_exit', 1) ], [ 2, 1 ], 'and go');
    my ($end) = $node->kinds('master_exit', 1);
    is_deeply([ @$end{qw(prev mine)} ], [ '-', 0 ], 'and with them the old one');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'three quick reloads' => sub {
    my $node = WorkerManager->new->up;
    # A connection to a worker keeps it, so that generations pile up.
    my @held;
    for my $generation (2 .. 4) {
        push @held, $node->hold_connection($generation - 1);
        $node->signal('HUP');
        $node->wait_events('worker_start', 2, $generation);
    }
    my @late = $node->kinds('worker_start', 4);
    ok(scalar(grep { $_->{older} > 0 } @late), 'older generations are counted');
    close $_ for @held;
    $node->wait_events('master_exit', 1, 3);
    $node->wait_events('master_exit', 1, $_) for 1, 2;
    $node->down;
    is(scalar $node->kinds('worker_exit'), 8, 'every worker exits');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'two reloads, one connection held in generation 1' => sub {
    my $node = WorkerManager->new->up;
    my $socket = $node->hold_connection(1);
    $node->reload_ready(2);
    $node->reload_ready(3);
    $node->wait_events('master_exit', 1, 2);
    $node->wait_events('worker_exit', 1, 1);
    close $socket;
    $node->wait_events('master_exit', 1, 1);
    is_deeply([ map { WorkerManager::told(($node->kinds($_, 1))[-1]) } 'worker_exit', 'master_exit' ],
        [ 'worker_exit(1-, -,1,2)', 'master_exit(1, -,0,2)' ], "the 2 are generation 3's");
    ok(!(grep { $_->{stopping} } $node->events), 'and nothing says that the node stops');
    $node->down;
    is_deeply([ map { $_->{stopping} } ($node->kinds('worker_exit', 3), $node->kinds('master_exit', 3)) ],
        [ 1, 1, 1 ], 'until it does');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker index is inherited, an id is not' => sub {
    my $node = WorkerManager->new->up;
    my ($victim) = grep { $_->{worker} == 1 } $node->kinds('worker_start');
    $node->signal('KILL', $victim->{pid});
    $node->wait_events('worker_start', 3);
    my $heir = ($node->kinds('worker_start'))[2];
    is($heir->{worker}, 1, 'index');
    is($heir->{respawn_of}, $victim->{pid}, 'it takes the place of the one that died');
    is_deeply([ map { $_->{respawn_of} } ($node->kinds('worker_start'))[ 0, 1 ] ], [ '-', '-' ],
        'others take the place of nobody');
    my ($lost) = $node->kinds('worker_lost');
    is_deeply([ @$lost{qw(mine left stopping)} ], [ 2, 1, 0 ], 'one is left, and the node goes on');
    isnt($heir->{id}, $victim->{id}, 'id');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'who starts at a reload takes nobody\'s place, also in a slot that another had' => sub {
    my $node = WorkerManager->new(workers => 2)->up;
    # nginx leaves the pid of the one that was last in its table where it was; the next but one gets its
    # entry.
    $node->reload($_) for 2 .. 5;
    my @places = map { "$_->{id} $_->{respawn_of}" } grep { $_->{respawn_of} ne '-' }
        $node->kinds('worker_start');
    is_deeply(\@places, [], 'respawn_of is nil at a first start');
    my ($victim) = $node->on_duty(5);
    $node->signal('KILL', $victim);
    $node->wait_events('worker_start', 3, 5);
    is(($node->kinds('worker_start', 5))[2]{respawn_of}, $victim, 'and that of the dead in its place');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
