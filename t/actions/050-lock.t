# The lock: its holder dies in a callback, others wait for it.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;

my $QUICK = 'interval 200ms; failed 200ms;';

# A program that blocks until its file is gone; the first to run leaves its pid.
sub blocker {
    my ($node) = @_;
    $node->write('blocker', <<'END', 0755);
#!/bin/sh
[ -e "$1" ] || exit 0
echo $$ > "$2.tmp"
mv "$2.tmp" "$2"
while [ -e "$1" ]; do perl -e 'select undef, undef, undef, 0.02'; done
END
}

sub pid_in {
    my ($node, $file) = @_;
    return $node->wait_for("a pid in $file", sub { $node->read($file) =~ /(\d+)/ && $1 });
}

subtest 'a worker dies in its callback while others wait' => sub {
    my $node = WorkerManager->new(workers => 3);
    blocker($node);
    $node->configure(manager => 'exec_timeout 1m; on worker_start exec blocker '
        . "$node->{root}/out/block $node->{root}/out/pid;");
    $node->write('out/block', '');
    $node->start;
    my $program = pid_in($node, 'out/pid');
    $node->wait_for('all workers', sub { my @c = $node->children; @c == 3 });

    # One of those who wait says so, after 1 second, 2, 4 and so on.
    $node->wait_for('word of the wait', sub { $node->log =~ /blocked for 2s by/ });
    my ($holder) = $node->log
        =~ /blocked for 2s by exec blocker \(nginx\.conf:\d+\) of worker_start 1-(\d+) in process \1$/m;
    ok($holder, 'the holder and its callback are named');

    # A waiter sleeps.
    my ($waiter) = grep { $_ != $holder } map { $_->{pid} } $node->children;
    my ($before, $from) = (cpu($waiter), time);
    $node->wait_for('five seconds', sub { time > $from + 5 });
    my $used = cpu($waiter) - $before;
    cmp_ok($used, '<=', 0.05 * 1.0, "a waiter uses less than 1% of a core ($used s in 5 s)");
    my @lines = $node->log =~ /worker_manager: blocked for (\d+)s/g;
    is_deeply([ @lines[ 0 .. 2 ] ], [ 1, 2, 4 ], 'and one of them says so, ever more rarely');

    $node->signal('KILL', $holder);
    unlink $node->path('out/block');
    $node->wait_events('worker_start', 4);
    $node->wait_for('the end of the program', sub { !WorkerManager::is_alive($program) });
    is(scalar $node->kinds('worker_lost'), 1, 'it is lost');
    like($node->log, qr/process $holder died holding the lock/, 'the log tells');
    like($node->log, qr/exec blocker \(nginx\.conf:\d+\) did not finish, its process died: callback 1 of generation 1 was interrupted at worker_start 1-$holder/,
        'and which callback was interrupted');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the others go on within 100 ms' => sub {
    my $node = WorkerManager->new(workers => 2, manager => '');
    blocker($node);
    $node->configure(manager => 'exec_timeout 1m; on worker_start exec blocker '
        . "$node->{root}/out/block $node->{root}/out/pid;");
    $node->write('out/block', '');
    $node->start;
    pid_in($node, 'out/pid');
    my ($holder) = $node->wait_for('word of the wait',
        sub { $node->log =~ /blocked for 1s by .* in process (\d+)/ && $1 });
    my $told = scalar $node->events;
    unlink $node->path('out/block');
    my $from = time;
    $node->signal('KILL', $holder);
    $node->wait_for('the next event', sub { my @events = $node->events; @events > $told });
    # The bound is the contract's; the rest is this busy machine.
    cmp_ok(time - $from, '<', 1, 'soon');
    $node->wait_events('worker_start', 3);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the master dies in a callback while workers wait' => sub {
    my $node = WorkerManager->new(workers => 2);
    blocker($node);
    $node->configure(manager => "$QUICK exec_timeout 1m;");
    $node->up;
    my @old = $node->on_duty;
    $node->configure(manager => "$QUICK exec_timeout 1m; "
        . "on master_start exec blocker $node->{root}/out/block $node->{root}/out/pid;");
    $node->write('out/block', '');
    $node->signal('HUP');
    my $program = pid_in($node, 'out/pid');
    # A worker that ends now has to wait for the master.
    $node->signal('QUIT', $old[0]);
    $node->wait_for('a waiter', sub { $node->log =~ /blocked for 1s/ });
    $node->signal('KILL');
    $node->wait_for('the end of the worker', sub { !WorkerManager::is_alive($old[0]) });
    $node->wait_for('the end of the program', sub { !WorkerManager::is_alive($program) });
    $node->signal('QUIT', $old[1]);
    $node->wait_for('the end of the other', sub { !WorkerManager::is_alive($old[1]) });
    is(scalar $node->kinds('worker_exit', 1), 2, 'both exits are told');
    is(scalar $node->kinds('master_exit', 1), 1, 'the first generation ends');
    is(scalar $node->kinds('master_exit', 2), 1, 'and the one that had just begun');
    unlink $node->path('out/block');
    $node->laws_hold('the laws hold', gaps => 1);
};

# A node, and one of its two workers that awaits a program in its event loop: the other's successor has
# died in its first program, and nobody else can take over the second, since the master stands still.
sub awaiting {
    my $node = WorkerManager->new(workers => 2);
    blocker($node);
    $node->configure(manager => 'interval 300ms; failed 20s; exec_timeout 2s; '
        . join ' ', map { "on worker_start exec blocker $node->{root}/out/block$_ $node->{root}/out/pid$_;" } 1, 2);
    $node->up;
    my ($victim, $other) = $node->on_duty;
    $node->write("out/block$_", '') for 1, 2;
    $node->signal('KILL', $victim);
    pid_in($node, 'out/pid1');
    my ($successor) = grep { $_ != $other } map { $_->{pid} } $node->children;
    $node->signal('STOP');
    $node->signal('KILL', $successor);
    pid_in($node, 'out/pid2');
    unlink $node->path('out/block1');
    like($node->log, qr/ $other#\d+: worker_manager: exec blocker \(nginx\.conf:\d+\) did not finish, its process died: callback 1 of generation 1 was interrupted at worker_start 1-$successor/,
        'it goes on in the place of the dead');
    return ($node, $other);
}

subtest 'a worker does not come back to the event that it tells' => sub {
    my ($node, $worker) = awaiting();
    $node->signal('STOP', $worker);
    unlink $node->path('out/block2');
    $node->signal('CONT');
    $node->wait_events('worker_start', 4);
    like($node->log, qr/process $worker does not come back to the event that it was telling, going on/,
        'the next one starts all the same');
    $node->signal('HUP');
    $node->wait_events('master_ready', 1, 2);
    $node->signal('CONT', $worker);
    $node->wait_events('master_exit', 1, 1);
    like($node->log, qr/ $worker#\d+: worker_manager: others have gone on with the event meanwhile/,
        'when it comes back, it leaves it alone');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker dies before it comes back' => sub {
    my ($node, $worker) = awaiting();
    my ($program) = $node->read('out/pid2') =~ /(\d+)/;
    $node->signal('KILL', $worker);
    $node->signal('CONT');
    $node->wait_events('worker_start', 5);
    like($node->log, qr/process $worker died holding the lock, going on/, 'the next ones start');
    ok(!WorkerManager::is_alive($program), 'its program went with it');
    unlink $node->path('out/block2');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the master dies while the last worker tells its end' => sub {
    my $node = WorkerManager->new(workers => 2);
    blocker($node);
    $node->configure(manager => 'exec_timeout 1m; on worker_exit exec blocker '
        . "$node->{root}/out/block $node->{root}/out/pid;");
    $node->up;
    my ($last, $other) = $node->on_duty;
    $node->write('out/block', '');
    $node->signal('QUIT', $last);
    pid_in($node, 'out/pid');
    $node->signal('KILL');
    $node->signal('KILL', $other);
    $node->wait_for('the end of the other', sub { !WorkerManager::is_alive($other) });
    unlink $node->path('out/block');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($last) });
    is(scalar $node->kinds('worker_lost', 1), 1, 'the other is told as lost');
    is(scalar $node->kinds('master_exit', 1), 1, 'and the generation as over');
    $node->laws_hold('the laws hold', final => 1);
};

# A node with one worker that runs a program at its start: as a callback before it a library has the
# first worker share its descriptors with another process, as long as there is a file out/held. They
# are closed late then, as are those of a killed worker whose memory takes long to unmap, while a
# robust mutex is free at once. The program runs until it is ended unless there is a file out/quick.
sub late_to_close {
    my ($timeout) = @_;
    my $node = WorkerManager->new(workers => 1);
    my $out = "$node->{root}/out";
    $node->write('share.c', <<"C");
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int share(const void *event, void *data)
{
    if (rename("$out/held.armed", "$out/held") == 0
        && syscall(SYS_clone, CLONE_FILES, 0, 0, 0, 0) == 0)
    {
        for (int i = 0; i < 6000 && access("$out/held", F_OK) == 0; i++)
            usleep(10000);
        _exit(0);
    }
    return 0;
}
C
    system('cc', '-shared', '-fPIC', '-o', $node->path('share.so'), $node->path('share.c'));
    is($?, 0, 'the library');
    # Named after this run: that is how the supervisors are found.
    my $name = "hook-$$-" . $node->{port};
    $node->write($name, <<"END", 0755);
#!/bin/sh
cd $out
before=\$(cat last 2> /dev/null)
[ -n "\$before" ] && kill -0 \$before 2> /dev/null && echo "\$\$ overlaps \$before" >> told
echo "\$WORKER_MANAGER_PID" >> told
echo \$\$ > last
[ -e quick ] && exit 0
exec sleep 60
END
    $node->write('out/held.armed', '');
    $node->write('out/told', '', 0666);
    $node->configure(manager => "exec_timeout $timeout; "
        . "on worker_start call $node->{root}/share.so share; on worker_start exec $name;");
    $node->start;
    $node->wait_for('the program', sub { $node->read('out/last') =~ /\n/ });
    return ($node, $name);
}

# Pids of live supervisors of programs with this name.
sub supervisors {
    my ($name) = @_;
    return map { m{(\d+)$} } grep {
        my $there = open my $file, '<', "$_/cmdline";
        $there && (<$file> // '') =~ /worker_manager exec \Q$name\E/;
    } glob '/proc/[0-9]*';
}

# Kills the one worker and waits until the next one has a supervisor. Those two.
sub replaced {
    my ($node, $name, $killed, %before) = @_;
    $node->signal('KILL', $killed);
    my ($worker) = $node->wait_for('the next worker',
        sub { (grep { $_ != $killed } map { $_->{pid} } $node->children)[0] });
    my $supervisor = $node->wait_for('its program',
        sub { (grep { !$before{$_} } supervisors($name))[0] });
    return ($worker, $supervisor);
}

sub told { return [ split /\n/, $_[0]->read('out/told') ] }

subtest 'the program of a dead worker is gone before the next begins' => sub {
    my ($node, $name) = late_to_close('1m');
    my ($first) = map { $_->{pid} } $node->children;
    my ($old) = supervisors($name);
    my ($second, $waits) = replaced($node, $name, $first, $old => 1);
    my $until = time + 0.5;
    $node->wait_for('half a second', sub { time > $until });
    is_deeply(told($node), [$first], 'the next does not begin while the first runs');
    my ($third) = replaced($node, $name, $second, $old => 1, $waits => 1);
    $node->wait_for('the end of who waited', sub { !WorkerManager::is_alive($waits) });
    like($node->log, qr/worker_start 1-$second: $name not started, who awaited it has died/,
        'who waits and whose worker dies never begins');
    $node->write('out/quick', '');
    unlink $node->path('out/held');
    $node->wait_events('worker_start', 3);
    is_deeply(told($node), [ $first, $third ], 'the next begins when the first is gone');
    like($node->log, qr/worker_start 1-$first: $name killed, who awaited it has died/, 'killed');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'one that can not be ended holds up others no longer than their time' => sub {
    my ($node, $name) = late_to_close('3s');
    my ($first) = map { $_->{pid} } $node->children;
    my ($old) = supervisors($name);
    my ($second) = replaced($node, $name, $first, $old => 1);
    # Not before: the kernel lets a stopped process group go on when its last parent dies.
    $node->signal('STOP', $old);
    $node->wait_events('worker_start', 2);
    my $over = 'exec_timeout 3s is over';
    like($node->log, qr/\[error\].*worker_start 1-$second: $name not started, $over while process $old runs another/,
        'the next is not started');
    like($node->get('/'), qr/ok/, 'its worker serves');
    $node->write('out/quick', '');
    $node->signal('CONT', $old);
    $node->wait_for('the end of the first', sub { !WorkerManager::is_alive($old) });
    $node->signal('KILL', $second);
    $node->wait_events('worker_start', 3);
    my ($third) = map { $_->{pid} } $node->children;
    is_deeply(told($node), [ $first, $third ], 'then others begin again');
    unlink $node->path('out/held');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the time a program waits is its own' => sub {
    # Longer than a supervisor may be overdue: if its program had all of its time after that of the
    # first, its worker would think it stuck and kill it, with an alert.
    my ($node, $name) = late_to_close('6s');
    my ($first) = map { $_->{pid} } $node->children;
    my ($old) = supervisors($name);
    my ($second) = replaced($node, $name, $first, $old => 1);
    $node->wait_events('worker_start', 2);
    like($node->log, qr/worker_start 1-$first: $name killed, exec_timeout 6s is over/, 'the first');
    like($node->log, qr/worker_start 1-$second: $name .*, exec_timeout 6s is over/, 'the next');
    unlike($node->log, qr/is stuck/, 'neither is thought to be stuck');
    unlink $node->path('out/held');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

sub cpu {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/stat" or return 0;
    my @fields = split ' ', <$file> =~ s/.*\)//r;
    return ($fields[11] + $fields[12]) / 100;
}

done_testing;
