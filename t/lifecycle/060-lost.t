# Why workers die: from the kernel, from the successor, from the heartbeat; whoever is first, once.
use strict;
use warnings;
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use WorkerManager;

# So long that no heartbeat can be what tells.
my $SLOW = 'interval 10m; failed 10m;';

subtest 'a successor that dies before it tells of its predecessor' => sub {
    my $node = WorkerManager->new(workers => 1, manager => $SLOW)->up;
    my ($victim) = $node->on_duty;
    $node->write('failpoints/worker_lost.planned', '', 0666);
    $node->signal('KILL', $victim);
    $node->wait_for('death at the point', sub { !-e $node->path('failpoints/worker_lost.planned') });
    $node->wait_events('worker_start', 2);
    is_deeply([ (WorkerManager::told($node->events))[ 3, 4 ] ],
        [ 'worker_lost(1-, -,1,-; unknown)', 'worker_start(1-, -,1,-)' ], 'the one after it does');
    is(($node->kinds('worker_lost'))[0]{pid}, $victim, 'it is the one');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a core dump' => sub {
    # Where the pattern is a pipe the kernel pays no heed to the limit of size.
    my $node = WorkerManager->new(workers => 1, manager => $SLOW);
    $node->configure(main => "worker_rlimit_core 500m; working_directory $node->{root}/out;");
    $node->up;
    $node->signal('SEGV', $node->on_duty);
    $node->wait_events('worker_lost', 1);
    my ($dumped) = $node->log =~ /exited on signal 11( \(core dumped\))?/;
    is(($node->kinds('worker_lost'))[0]{core}, $dumped ? 1 : 0, 'as nginx sees it');
    $node->wait_events('worker_start', 2);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that drains has no successor' => sub {
    my $node = WorkerManager->new(workers => 2, manager => $SLOW)->up;
    my @held = ($node->hold_connection(1));
    my ($held) = map { $_->{pid} } $node->held;
    $node->reload_ready(2);
    $node->wait_events('worker_draining', 2, 1);
    $node->signal('KILL', $held);
    $node->wait_events('worker_lost', 1, 1);
    my ($lost) = $node->kinds('worker_lost', 1);
    is("$lost->{pid} $lost->{reason}", "$held " . cause(9), 'told by another at once');
    like($lost->{duration}, qr/^\d+\.\d{3}$/, 'how long it drained');
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'all that drain at once, also when two generations do' => sub {
    my $node = WorkerManager->new(workers => 4, manager => $SLOW)->up;
    my @held = map { $node->hold_connection(1) } 1 .. 6;
    $node->reload_ready(2);
    push @held, map { $node->hold_connection(2) } 1 .. 6;
    $node->reload_ready(3);
    $node->wait_events('worker_draining', 4, $_) for 1, 2;
    my @old = ($node->on_duty(1), $node->on_duty(2));
    cmp_ok(scalar @old, '>', 1, 'some are held');
    $node->kill_at_once(@old);
    $node->wait_events('master_exit', 1, $_) for 1, 2;
    is(scalar $node->kinds('worker_lost'), scalar @old, 'each is lost, once');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a whole node drains, and one is killed' => sub {
    my $node = WorkerManager->new(workers => 3, manager => $SLOW, listen => 'reuseport')->up;
    my (@held, %held);
    $node->wait_for('two that are held', sub {
        push @held, $node->hold_connection(1);
        %held = map { $_->{pid} => 1 } $node->held;
        return keys %held > 1;
    });
    my ($victim) = keys %held;
    $node->signal('QUIT');
    $node->wait_events('worker_draining', 3);
    $node->signal('KILL', $victim);
    $node->wait_events('worker_lost', 1);
    is(($node->kinds('worker_lost'))[0]{pid}, $victim, 'a sibling tells it');
    close $_ for @held;
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    $node->laws_hold('the laws hold', final => 1);
};

for my $lack ('no-pidfd', 'no-exit-info') {
    subtest "on a kernel with $lack" => sub {
        # Time enough for the successor to come before a heartbeat, which knows no cause, also if the
        # dead one leaves a core.
        my $node = WorkerManager->new(workers => 2, manager => 'interval 200ms; failed 2s;');
        $node->write("failpoints/$lack", '');
        $node->up;
        my ($victim) = $node->on_duty;
        $node->signal('SEGV', $victim);
        $node->wait_events('worker_start', 3);
        is(($node->kinds('worker_lost'))[0]{reason}, 'signal 11', 'the successor knows the cause');
        my $held = $node->hold_connection(1);
        my ($draining) = map { $_->{pid} } $node->held;
        $node->reload_ready(2);
        $node->wait_events('worker_draining', 2, 1);
        $node->signal('KILL', $draining);
        $node->wait_events('worker_lost', 2);
        is(($node->kinds('worker_lost'))[1]{reason}, 'unknown', 'who drains has none');
        $node->wait_events('master_exit', 1, 1);
        my @workers = $node->on_duty;
        $node->signal('KILL');
        $node->wait_events('master_lost', 1);
        $node->signal('QUIT', @workers);
        $node->wait_events('master_exit', 1, 2);
        is(scalar $node->kinds('master_lost'), 1, 'the loss of the master is told, once');
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'killed by the kernel for memory' => sub {
    my $node = WorkerManager->new(workers => 2, manager => $SLOW);
    # In place of the count in nginx's cgroup.
    $node->write('failpoints/oom-kills', '7');
    $node->up;
    $node->wait_for('a look at the count', sub { watches($node->on_duty) });
    for my $kills ([ 7, 'signal 9' ], [ 8, 'oom' ], [ 8, 'signal 9' ], [ 10, 'oom' ], [ 10, 'oom' ]) {
        my ($count, $reason) = @$kills;
        $node->write('failpoints/oom-kills', $count);
        my $lost = () = $node->kinds('worker_lost');
        $node->signal('KILL', ($node->on_duty)[0]);
        $node->wait_events('worker_lost', $lost + 1);
        is(($node->kinds('worker_lost'))[$lost]{reason}, $reason, "count $count: $reason");
    }
    $node->write('failpoints/oom-kills', 11);
    my $lost = () = $node->kinds('worker_lost');
    $node->signal('SEGV', ($node->on_duty)[0]);
    $node->wait_events('worker_lost', $lost + 1);
    is(($node->kinds('worker_lost'))[$lost]{reason}, 'signal 11', 'another signal is another cause');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'killed by the kernel for memory right after the start' => sub {
    my $node = WorkerManager->new(workers => 2, manager => $SLOW);
    $node->write('failpoints/oom-kills', '7');
    $node->up;
    # No worker watches yet.
    $node->write('failpoints/oom-kills', '8');
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_events('worker_lost', 1);
    is(($node->kinds('worker_lost'))[0]{reason}, 'oom', 'the count was noted before');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'killed for memory right after a reload that made another zone' => sub {
    my $node = WorkerManager->new(workers => 1, manager => $SLOW);
    $node->write('failpoints/oom-kills', '7');
    $node->up;
    $node->configure(manager => "$SLOW zone other 512k;");
    $node->signal('HUP');
    # Another history has the same numbers of events again, so the log itself is looked at.
    my $told = sub { my ($told) = $_[0]->log =~ /EV1 \d+ ($_[1])/; return $told };
    $node->wait_for('the worker of the new zone', sub { $told->($node, 'master_ready 2 ') });
    my ($worker) = map { /^worker_start 2-(\d+)/ } $told->($node, 'worker_start 2-\d+');
    $node->write('failpoints/oom-kills', '8');
    $node->signal('KILL', $worker);
    my $lost = $node->wait_for('its loss', sub { $told->($node, "worker_lost 2-$worker.*") });
    like($lost, qr/"oom"/, 'the count was noted there, too');
    $node->down;
};

subtest 'a node that is moved to another cgroup' => sub {
    my $node = WorkerManager->new(workers => 1, manager => $SLOW);
    # How many, and of which cgroup.
    $node->write('failpoints/oom-kills', '7 1');
    $node->up;
    for my $turn ([ '3 2', 'signal 9' ], [ '3 2', 'signal 9' ], [ '4 2', 'oom' ], [ '7 1', 'signal 9' ], [ '8 1', 'oom' ]) {
        my ($count, $reason) = @$turn;
        $node->write('failpoints/oom-kills', $count);
        my $lost = () = $node->kinds('worker_lost');
        $node->signal('KILL', $node->on_duty);
        $node->wait_events('worker_lost', $lost + 1);
        is(($node->kinds('worker_lost'))[$lost]{reason}, $reason, "count and cgroup $count: $reason");
        $node->wait_events('worker_start', $lost + 2);
        $node->wait_for('a look at the count', sub { watches($node->on_duty) });
    }
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'really killed by the kernel for memory' => sub {
    my $cgroup = memory_cgroup();
    plan skip_all => 'no cgroup to be made here; the count is simulated above' unless $cgroup;
    my $node = WorkerManager->new(workers => 1, manager => $SLOW);
    my $hog = hog($node);
    $node->configure(manager => "$SLOW on worker_start call $hog hog $node->{root}/out/hungry;");
    $node->up;
    for my $pid ($node->master) {
        open my $file, '>', "$cgroup/cgroup.procs" or die $!;
        print $file $pid;
    }
    # The one it starts now is in the cgroup, as those after it.
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 2);
    $node->wait_for('a look at the count', sub { watches($node->on_duty) });
    $node->write('out/hungry', '');
    $node->signal('KILL', $node->on_duty);
    $node->wait_for('the end of the hungry one', sub { !-e $node->path('out/hungry') });
    $node->wait_events('worker_lost', 3);
    is(($node->kinds('worker_lost'))[2]{reason}, 'oom', 'told so');
    $node->wait_events('worker_start', 4);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
    rmdir $cgroup;
};

subtest 'really killed for memory right after the start' => sub {
    my $cgroup = memory_cgroup();
    plan skip_all => 'no cgroup to be made here; the count is simulated above' unless $cgroup;
    my $node = WorkerManager->new(workers => 1, manager => $SLOW);
    my $hog = hog($node);
    $node->configure(manager => "$SLOW on worker_start call $hog hog $node->{root}/out/hungry;");
    $node->write('out/hungry', '');
    # nginx starts where this process is.
    enter("$cgroup/cgroup.procs");
    $node->start;
    enter($cgroup =~ s{/[^/]+$}{/cgroup.procs}r);
    $node->wait_events('worker_lost', 1);
    is(($node->kinds('worker_lost'))[0]{reason}, 'oom', 'told so of the very first worker');
    $node->wait_events('worker_start', 2);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
    rmdir $cgroup;
};

# Puts this process into a cgroup.
sub enter {
    my ($procs) = @_;
    open my $file, '>', $procs or die "$procs: $!";
    print $file $$;
    close $file or die "$procs: $!";
}

# A library with a function that takes all memory there is, once, if the file that it is given is there.
sub hog {
    my ($node) = @_;
    my $hog = $node->path('hog.so');
    $node->write('hog.c', <<'END');
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int hog(const void *event, void *data)
{
    (void) event;
    if (unlink(data) == 0) {
        for ( ;; ) {
            memset(malloc(1 << 20), 1, 1 << 20);
        }
    }
    return 0;
}
END
    system('cc', '-shared', '-fPIC', '-o', $hog, $node->path('hog.c')) == 0 or die 'cc';
    return $hog;
}

# A cgroup of this test's own with little memory; none if this machine has none to give.
sub memory_cgroup {
    open my $file, '<', '/proc/self/cgroup' or return;
    my %path = map { /^\d+:([^:]*):(.*)$/ ? ($1 => $2) : () } <$file>;
    my ($dir, $limit) = exists $path{memory}
        ? ("/sys/fs/cgroup/memory$path{memory}", 'memory.limit_in_bytes')
        : ('/sys/fs/cgroup' . ($path{''} // ''), 'memory.max');
    $dir .= "/worker-manager-$$";
    mkdir $dir or return;
    if (open my $file, '>', "$dir/$limit") {
        return $dir if print $file 64 << 20 and close $file;
    }
    rmdir $dir;
    return;
}

# Whether these workers have settled and watch others.
sub watches {
    my @pids = @_;
    return @pids == grep { pidfds($_) } @pids;
}

subtest 'descriptors per worker are few, however many workers there are' => sub {
    my %open;
    for my $workers (2, 16) {
        my $node = WorkerManager->new(workers => $workers, manager => $SLOW)->up;
        $node->reload(2);
        my @pids = $node->on_duty(2);
        $node->wait_for('pidfds', sub { @pids == grep { pidfds($_) } @pids });
        $open{$workers} = (sort { $b <=> $a } map { pidfds($_) } @pids)[0];
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    }
    cmp_ok($open{16}, '<=', 3, "at most three, not $open{16}");
};

sub pidfds {
    my ($pid) = @_;
    return scalar grep { (readlink($_) // '') =~ /pidfd/ } glob "/proc/$pid/fd/*";
}

# What the kernel tells of a death nobody but a sibling sees: since Linux 6.15 the cause.
sub cause {
    my ($signal) = @_;
    open my $file, '<', '/proc/sys/kernel/osrelease' or return 'unknown';
    my ($major, $minor) = <$file> =~ /^(\d+)\.(\d+)/;
    return $major > 6 || ($major == 6 && $minor >= 15) ? "signal $signal" : 'unknown';
}

run_tests();

__DATA__

=== TEST 1: signals, exactly
So long an interval that no heartbeat can be what tells.
--- manager
interval 10m;
failed 10m;
--- main_config
worker_rlimit_core 0;
--- act
kill KILL worker 0
wait 3 worker_start
kill SEGV worker 0
wait 4 worker_start
kill ABRT worker 0
wait 5 worker_start
kill BUS worker 0
wait 6 worker_start
--- timeline
worker_lost(1-A, nil,2,nil; signal 9; core 0)
worker_start(1-C, nil,2,nil; respawn_of A)
worker_lost(1-C, nil,2,nil; signal 11; core 0)
worker_start(1-D, nil,2,nil; respawn_of C)
worker_lost(1-D, nil,2,nil; signal 6; core 0)
worker_start(1-E, nil,2,nil; respawn_of D)
worker_lost(1-E, nil,2,nil; signal 7; core 0)
worker_start(1-F, nil,2,nil; respawn_of E)
