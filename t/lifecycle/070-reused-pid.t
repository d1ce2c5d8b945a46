# A pid that the kernel gives to another process, as it does soon where there are few of them. The suite
# runs in a pid namespace of its own, in which it says which pid is the next.
use strict;
use warnings;
use Test::More;
use WorkerManager;

if (!$ENV{WORKER_MANAGER_NAMESPACE}) {
    plan skip_all => 'no pid namespace to be made here'
        if system('unshare -pf --mount-proc --kill-child test -w /proc/sys/kernel/ns_last_pid') != 0;
    $ENV{WORKER_MANAGER_NAMESPACE} = 1;
    exec 'unshare', '-pf', '--mount-proc', '--kill-child', $^X, (map { "-I$_" } @INC), $0;
    die "unshare: $!";
}

# So long that no heartbeat can be what tells.
my $SLOW = 'interval 10m; failed 10m;';

# Kills a worker and lets its successor have a pid.
sub respawn_as {
    my ($node, $victim, $pid) = @_;
    # Stopped, the master can't reap and fork before the next pid is said.
    $node->signal('STOP');
    $node->wait_for('the master to stop', sub { (WorkerManager::state_of($node->master) // '') eq 'T' });
    $node->signal('KILL', $victim);
    $node->wait_for('a dead worker', sub { !WorkerManager::is_alive($victim) });
    open my $file, '>', '/proc/sys/kernel/ns_last_pid' or die "ns_last_pid: $!";
    print $file $pid - 1;
    close $file or die "ns_last_pid: $!";
    $node->signal('CONT');
    return $node->wait_for("a successor with pid $pid", sub {
        my @starts = grep { $_->{pid} == $pid } $node->kinds('worker_start');
        my @ends = grep { $_->{pid} == $pid } $node->kinds('worker_exit'), $node->kinds('worker_lost');
        return WorkerManager::is_alive($pid) && @starts > 1 && @ends && @starts > @ends;
    });
}

# A node in its third generation, and the pids that its second had.
sub third_generation {
    my ($manager) = @_;
    my $node = WorkerManager->new(workers => 2, manager => $manager, events => 'accept_mutex off;')->up;
    $node->reload(2);
    my @before = map { $_->{pid} } $node->kinds('worker_start', 2);
    $node->reload(3);
    return ($node, @before);
}

for my $which (0, 1) {
    subtest "a respawned worker has the pid that worker $which of an older generation had" => sub {
        my ($node, @before) = third_generation($SLOW);
        my $pid = $before[$which];
        respawn_as($node, ($node->on_duty)[0], $pid);
        # Those who are forked now find that pid in what nginx's table says of their slots.
        $node->reload(4);
        my @lost = map { $_->{id} } $node->kinds('worker_lost');
        is(@lost, 1, 'who lives is not told lost') or diag "@lost";
        is((grep { $_->{pid} == $pid } $node->kinds('worker_exit', 3)), 1, 'it ends in an orderly way');
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'such a worker serves on beyond a reload' => sub {
    my ($node, @before) = third_generation('interval 100ms; failed 10m;');
    my $pid = $before[1];
    respawn_as($node, ($node->on_duty)[0], $pid);
    my @held;
    $node->wait_for('a connection of it', sub {
        push @held, $node->hold_connection(3);
        return grep { $_->{pid} == $pid } $node->held;
    });
    $node->reload_ready(4);
    $node->wait_event_of('worker_draining', $pid);
    my @draining = $node->kinds('worker_draining');
    is_deeply([ grep { $_->{gen} == 4 } @draining ], [], 'nobody of the new generation drains');
    is(scalar $node->kinds('worker_lost'), 1, 'and nobody else is lost');
    # Killed, it is itself who is lost, with its own cause.
    $node->signal('KILL', $pid);
    $node->wait_for('its loss', sub { grep { $_->{pid} == $pid } $node->kinds('worker_lost', 3) });
    my ($lost) = grep { $_->{pid} == $pid } $node->kinds('worker_lost');
    like($lost->{reason}, qr/^(?:signal 9|unknown)$/, 'its cause');
    close $_ for @held;
    $node->wait_events('master_exit', 1, 3);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a successor that has the pid of its predecessor' => sub {
    my $node = WorkerManager->new(workers => 1, manager => $SLOW)->up;
    my ($victim) = $node->on_duty;
    $node->signal('STOP');
    $node->wait_for('the master to stop', sub { (WorkerManager::state_of($node->master) // '') eq 'T' });
    $node->signal('KILL', $victim);
    $node->wait_for('a dead worker', sub { !WorkerManager::is_alive($victim) });
    open my $file, '>', '/proc/sys/kernel/ns_last_pid' or die "ns_last_pid: $!";
    print $file $victim - 1;
    close $file or die "ns_last_pid: $!";
    $node->signal('CONT');
    $node->wait_events('worker_start', 2);
    my @told = map { "$_->{event} $_->{pid} $_->{reason}" } $node->events_but('master_start', 'master_ready');
    is_deeply(\@told,
        [ "worker_start $victim -", "worker_lost $victim signal 9", "worker_start $victim -" ],
        'it tells of the one before it, with the cause');
    $node->down;
    is(($node->kinds('master_exit'))[0]{mine}, 0, 'nobody is left over');
};

done_testing;
