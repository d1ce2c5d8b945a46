# A callback that never returns: the node can be stopped all the same, and one of the others says so.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Stuck;

# nginx kills its workers 3.15 s after it has told them to end; the rest is this busy machine.
my $STOP = 8;

# Ends the node by a signal; how long that takes, and what is left is gone.
sub stop_takes {
    my ($node, $signal) = @_;
    my @pids = ($node->master, map { $_->{pid} } $node->children);
    my $from = time;
    $node->down($signal);
    my $took = time - $from;
    gone($node, @pids);
    return $took;
}

# How many workers of a generation have ended. nginx's kill may come while one of them is told: then the
# log says which callback did not finish, and a process of another generation tells nothing more of it.
sub ends {
    my ($node, $generation) = @_;
    my %ended = map { $_->{pid} => 1 } $node->kinds('worker_exit', $generation), $node->kinds('worker_lost', $generation);
    my $log = $node->log;
    $ended{$1} = 1 while $log =~ /(?:interrupted at|told yet:?) worker_(?:exit|lost) $generation-(\d+)/g;
    return scalar keys %ended;
}

for my $signal (qw(TERM INT)) {
    subtest "two reloads, a worker_exit that does not return, and SIG$signal" => sub {
        my $node = node('worker_exit');
        $node->write('out/stuck', '');
        $node->signal('HUP');
        my $stuck = stuck_pid($node);
        $node->signal('HUP');
        $node->wait_for('a master that waits', sub { $node->log =~ /blocked for 1s by/ });
        cmp_ok(stop_takes($node, $signal), '<', $STOP, 'it stops in time');
        like($node->log, qr/ $node->{master}#\d+: worker_manager: told to end while blocked by call stuck \(nginx\.conf:\d+\) of worker_exit 1-$stuck in process $stuck, going on without the lock/,
            'the master gives up the lock');
        is(ends($node, 2), 2, 'all ends are told');
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'QUIT ends when TERM follows' => sub {
    my $node = node('worker_exit');
    $node->write('out/stuck', '');
    $node->signal('QUIT');
    my $stuck = stuck_pid($node);
    $node->wait_for('one that waits', sub { $node->log =~ /blocked for 1s by call stuck \(nginx\.conf:\d+\) of worker_exit 1-$stuck in process $stuck/ });
    cmp_ok(stop_takes($node, 'TERM'), '<', $STOP, 'it stops in time');
    is(ends($node, 1), 2, 'both ends are told');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a QUIT to the master that waits in a reload' => sub {
    my $node = node('worker_exit');
    $node->write('out/stuck', '');
    $node->signal('HUP');
    my $stuck = stuck_pid($node);
    $node->signal('HUP');
    $node->wait_for('a master that waits', sub { $node->log =~ /blocked for 1s by/ });
    $node->signal('QUIT');
    $node->wait_for('the master', sub { $node->log =~ / $node->{master}#\d+: worker_manager: told to end/ });
    unlink $node->path('out/taken');
    $node->wait_for('the end of the master', sub { $node->reap; !WorkerManager::is_alive($node->master) });
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that begins and is told to end' => sub {
    my $node = node('worker_start');
    my ($victim) = $node->on_duty;
    my %old = map { $_ => 1 } $node->on_duty;
    $node->write('out/stuck', '');
    $node->signal('KILL', $victim);
    my $stuck = stuck_pid($node);
    my ($other) = grep { $_ != $victim } keys %old;
    $node->signal('KILL', $other);
    my ($waiter) = $node->wait_for('a worker that waits',
        sub { (grep { $_ != $stuck && !$old{$_} } map { $_->{pid} } $node->children)[0] });
    $node->wait_for('its warning', sub { $node->log =~ / $waiter#\d+: worker_manager: blocked/ });
    $node->signal('TERM', $waiter);
    gone($node, $waiter);
    unlink $node->path('out/taken');
    $node->wait_events('worker_start', 4);
    ok(!grep({ $_->{pid} == $waiter } $node->events), 'nothing is told of it');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that ends, without a master' => sub {
    my $node = node('worker_exit');
    my ($first, $second) = $node->on_duty;
    $node->write('out/stuck', '');
    $node->signal('QUIT', $first);
    is(stuck_pid($node), $first, 'one is stuck');
    $node->signal('STOP');
    $node->signal('QUIT', $second);
    $node->wait_for('the other waits', sub { $node->log =~ / $second#\d+: worker_manager: blocked/ });
    $node->signal('KILL');
    my $from = time;
    $node->signal('TERM', $second);
    gone($node, $second);
    cmp_ok(time - $from, '<', $STOP, 'it ends in time');
    unlink $node->path('out/taken');
    gone($node, $first);
    is(scalar $node->kinds('master_exit'), 1, 'the last one tells the rest');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'callback_timeout' => sub {
    my $node = node('worker_start', manager => 'callback_timeout 1s; ');
    my ($first, $second) = $node->on_duty;
    $node->write('out/stuck', '');
    $node->signal('KILL', $first);
    my $stuck = stuck_pid($node);
    # Its successor waits.
    $node->signal('KILL', $second);
    $node->wait_event_of('worker_lost', $stuck);
    my ($lost) = grep { $_->{pid} == $stuck } $node->kinds('worker_lost');
    is($lost->{reason}, 'signal 9', 'who is stuck is killed');
    like($node->log, qr/\[error\].*callback_timeout is over for call stuck \(nginx\.conf:\d+\) of worker_start 1-$stuck in process $stuck, killing the process/, 'and named');
    is(() = $node->log =~ /callback_timeout is over/g, 1, 'once');
    like($node->log, qr/call stuck \(nginx\.conf:\d+\) did not finish, its process died/, 'as is the callback');
    $node->wait_events('worker_start', 5);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'callback_timeout spares a master' => sub {
    my $node = node('master_start', manager => 'callback_timeout 1s; ');
    my ($first) = $node->on_duty;
    $node->write('out/stuck', '');
    $node->signal('HUP');
    is(stuck_pid($node), $node->master, 'the master is stuck');
    $node->signal('QUIT', $first);
    $node->wait_for('a longer time', sub { $node->log =~ /blocked for 2s by call stuck/ });
    unlink $node->path('out/taken');
    $node->wait_events('master_ready', 1, 2);
    unlike($node->log, qr/callback_timeout is over/, 'it is not killed');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'callback_timeout ends nothing but workers' => sub {
    my $node = node('worker_exit', manager => 'callback_timeout 1s; ');
    my ($first) = $node->on_duty;
    # Not nginx's, and older than whoever takes the lock now.
    my $other = fork // die "fork: $!";
    exec 'sleep', '60' or die "sleep: $!" unless $other;
    $node->write('failpoints/lock.holder', $other);
    $node->write('out/stuck', '');
    $node->signal('QUIT', $first);
    is(stuck_pid($node), $first, 'a worker is stuck');
    $node->signal('HUP');
    my $said = qr/\[alert\].*process $other, which has the lock, is no worker of this master/;
    $node->wait_for('word of it', sub { $node->log =~ $said || !WorkerManager::is_alive($other) });
    ok(WorkerManager::is_alive($other), 'a process that the zone names is not killed');
    is(() = $node->log =~ /$said/g, 1, 'which is said once');
    unlink $node->path('out/taken'), $node->path('failpoints/lock.holder');
    $node->wait_events('master_ready', 1, 2);
    kill 'KILL', $other;
    waitpid $other, 0;
    $node->down;
    my @broken = WorkerManager::Laws::broken([ $node->events ], final => 1);
    is_deeply(\@broken, [], 'the laws hold');
};

subtest 'one of those who wait warns, at 1, 2 and 4 seconds' => sub {
    my $node = node('worker_exit', workers => 6);
    $node->write('out/stuck', '');
    $node->signal('QUIT');
    my $stuck = stuck_pid($node);
    $node->wait_for('a longer time', sub { $node->log =~ /blocked for 4s by/ });
    my @seconds = $node->log =~ /\[warn\].*blocked for (\d+)s by call stuck/g;
    is_deeply(\@seconds, [ 1, 2, 4 ], 'once each, of five');
    unlink $node->path('out/taken');
    gone($node, $node->master);
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
