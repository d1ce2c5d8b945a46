# Death at every named point of a transition, in workers and in the master. See src/nginx/failpoint.rs.
use strict;
use warnings;
use Test::More;
use WorkerManager;

my $QUICK = 'interval 150ms; failed 150ms;';
my @POINTS = qw(planned journaled applying recorded begun called delivered);

# Arms a point: the first process that gets there dies.
sub arm {
    my ($node, $point) = @_;
    $node->write("failpoints/$point", '', 0666);
}

sub fired {
    my ($node, $point) = @_;
    $node->wait_for("death at $point", sub { !-e $node->path("failpoints/$point") });
}

for my $point (@POINTS) {
    subtest "worker_start, $point, at a cold start" => sub {
        my $node = WorkerManager->new(manager => $QUICK);
        arm($node, "worker_start.$point");
        $node->start;
        fired($node, "worker_start.$point");
        # Planned leaves no trace; everything else starts and is lost.
        my $lost = $point eq 'planned' ? 0 : 1;
        $node->wait_events('worker_start', 2 + $lost);
        $node->wait_events('worker_lost', $lost);
        $node->down;
        is(scalar $node->kinds('worker_lost'), $lost, 'lost');
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "worker_exit, $point, at a reload" => sub {
        my $node = WorkerManager->new(manager => $QUICK)->up;
        arm($node, "worker_exit.$point");
        $node->signal('HUP');
        fired($node, "worker_exit.$point");
        $node->wait_events('master_exit', 1, 1);
        $node->wait_events('worker_start', 2, 2);
        my ($exits, $lost) = map { scalar $node->kinds($_, 1) } qw(worker_exit worker_lost);
        # After the first callback has begun, other generations run none.
        is($exits + $lost, 2, "both ended ($exits exits, $lost lost)");
        is($lost, $point eq 'planned' ? 1 : 0, 'an exit that was recorded is one');
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    } unless $point =~ /begun|called/;

    subtest "worker_exit, $point, of one worker alone" => sub {
        my $node = WorkerManager->new(manager => $QUICK)->up;
        arm($node, "worker_exit.$point");
        my ($victim) = $node->on_duty;
        $node->signal('QUIT', $victim);
        fired($node, "worker_exit.$point");
        $node->wait_events('worker_start', 3);
        $node->down;
        my ($exits, $lost) = map { scalar $node->kinds($_) } qw(worker_exit worker_lost);
        is($exits + $lost, 3, "each ended once ($exits exits, $lost lost)");
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "worker_lost, $point" => sub {
        my $node = WorkerManager->new(manager => $QUICK)->up;
        arm($node, "worker_lost.$point");
        my ($victim) = $node->on_duty;
        $node->signal('KILL', $victim);
        fired($node, "worker_lost.$point");
        # On a busy machine it may be the heartbeat of the other worker that finds the death and
        # dies at it.
        $node->wait_event_of('worker_lost', $victim);
        $node->wait_for('two workers', sub { my @duty = $node->on_duty; @duty == 2 });
        $node->down;
        is(scalar(grep { $_->{pid} == $victim } $node->kinds('worker_lost')), 1, 'lost once');
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "master_exit, $point, in the last old worker" => sub {
        my $node = WorkerManager->new(manager => $QUICK)->up;
        arm($node, "master_exit.$point");
        $node->signal('HUP');
        fired($node, "master_exit.$point");
        $node->wait_events('worker_start', 2, 2);
        my $told = $point !~ /begun|called/;
        $node->wait_events('master_exit', 1, 1) if $told;
        $node->down;
        $node->laws_hold('the laws hold', $told ? (final => 1) : (gaps => 1));
    };

    subtest "master_start, $point, in the master at a reload" => sub {
        my $node = WorkerManager->new(manager => $QUICK)->up;
        my @workers = $node->on_duty;
        arm($node, "master_start.$point");
        $node->signal('HUP');
        fired($node, "master_start.$point");
        $node->wait_for('the end of the master', sub { !WorkerManager::is_alive($node->master) });
        like($node->get('/'), qr/ok/, 'the workers serve on');
        $node->signal('QUIT', @workers);
        $node->wait_for('their end', sub { !grep { WorkerManager::is_alive($_) } @workers });
        is(scalar $node->kinds('master_exit', 1), 1, 'the old generation ends');
        # Planned only, there is no new one. Its start may have been told by nobody, its end is.
        is(scalar $node->kinds('master_exit', 2), $point eq 'planned' ? 0 : 1, 'the new one');
        $node->laws_hold('the laws hold', $point =~ /begun|called/ ? (gaps => 1) : (final => 1));
    };

    subtest "worker_hung, $point" => sub {
        my $node = WorkerManager->new(workers => 3, manager => $QUICK)->up;
        arm($node, "worker_hung.$point");
        my ($stopped) = $node->on_duty;
        $node->signal('STOP', $stopped);
        fired($node, "worker_hung.$point");
        $node->wait_event_of('worker_hung', $stopped);
        $node->signal('CONT', $stopped);
        $node->wait_event_of('worker_recovered', $stopped);
        $node->wait_events('worker_start', 4);
        $node->down;
        my @told = grep { $_->{pid} == $stopped } $node->events;
        my ($until) = grep { $told[$_]{event} eq 'worker_recovered' } 0 .. $#told;
        is(scalar(grep { $_->{event} eq 'worker_hung' } @told[ 0 .. $until ]), 1, 'hung once');
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "worker_recovered, $point" => sub {
        my $node = WorkerManager->new(workers => 2, manager => $QUICK)->up;
        my ($stopped) = $node->on_duty;
        $node->signal('STOP', $stopped);
        $node->wait_event_of('worker_hung', $stopped);
        arm($node, "worker_recovered.$point");
        $node->signal('CONT', $stopped);
        fired($node, "worker_recovered.$point");
        $node->wait_events('worker_start', 3);
        $node->wait_events('worker_lost', 1);
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "master_ready, $point" => sub {
        my $node = WorkerManager->new(manager => $QUICK);
        arm($node, "master_ready.$point");
        $node->up;
        fired($node, "master_ready.$point");
        $node->wait_events('worker_start', 3);
        $node->down;
        is(scalar $node->kinds('master_ready'), 1, 'told once');
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "worker_draining, $point" => sub {
        my $node = WorkerManager->new(manager => $QUICK)->up;
        my ($one) = $node->on_duty;
        arm($node, "worker_draining.$point");
        $node->signal('QUIT', $one);
        fired($node, "worker_draining.$point");
        $node->wait_events('worker_lost', 1);
        $node->wait_events('worker_start', 3);
        is(scalar $node->kinds('worker_draining'), $point eq 'planned' ? 0 : 1, 'told');
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "worker_stuck, $point" => sub {
        my $node = WorkerManager->new(manager => "$QUICK draining_warn 100ms;")->up;
        my $held = $node->hold_connection(1);
        arm($node, "worker_stuck.$point");
        $node->signal('HUP');
        fired($node, "worker_stuck.$point");
        $node->wait_events('master_exit', 1, 1);
        # After the first callback has begun, other generations run none.
        is(scalar $node->kinds('worker_stuck'), $point eq 'planned' ? 0 : 1, 'told')
            unless $point =~ /begun|called/;
        $node->down;
        $node->laws_hold('the laws hold', $point =~ /begun|called/ ? (gaps => 1) : (final => 1));
    };

    subtest "reload_failed, $point, in the master" => sub {
        my $node = WorkerManager->new(manager => $QUICK)->up;
        my @workers = $node->on_duty;
        arm($node, "reload_failed.$point");
        $node->configure(main => 'no_such_directive on;');
        $node->signal('HUP');
        fired($node, "reload_failed.$point");
        $node->wait_events('master_lost', 1);
        is(scalar $node->kinds('reload_failed'), $point eq 'planned' ? 0 : 1, 'told');
        $node->signal('QUIT', @workers);
        $node->wait_events('master_exit', 1);
        $node->laws_hold('the laws hold', final => 1);
    };

    subtest "master_lost, $point" => sub {
        my $node = WorkerManager->new(workers => 3, manager => $QUICK)->up;
        my @workers = $node->on_duty;
        arm($node, "master_lost.$point");
        $node->signal('KILL');
        fired($node, "master_lost.$point");
        $node->wait_events('master_lost', 1);
        $node->wait_events('worker_lost', 1);
        $node->signal('QUIT', $node->on_duty);
        $node->wait_events('master_exit', 1);
        is(scalar $node->kinds('master_lost'), 1, 'told once');
        $node->laws_hold('the laws hold', final => 1);
    };
}

done_testing;
