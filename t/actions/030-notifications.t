# Programs of notifications: they hold up nobody, and many events do not start many at a time.
use strict;
use warnings;
use List::Util qw(sum);
use POSIX qw(mkfifo);
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Status;

my $SLOW = 'interval 10m; failed 10m;';

subtest 'a program that sleeps changes nothing for requests' => sub {
    my $node = WorkerManager->new(workers => 2);
    $node->write('hook', <<"END", 0755);
#!/bin/sh
echo \$\$ > $node->{root}/out/hook
exec sleep 60
END
    $node->configure(manager => "$SLOW exec_timeout 60s; on worker_lost exec hook;");
    $node->up;
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_events('worker_start', 3);
    my $hook = $node->wait_for('the program', sub { ($node->read('out/hook') =~ /^(\d+)\n/)[0] });
    my ($served, $longest) = (0, 0);
    for (1 .. 500) {
        my $from = time;
        $served++ if $node->get('/') =~ /ok/;
        $longest = time - $from if time - $from > $longest;
    }
    is($served, 500, 'every request is answered');
    ok(WorkerManager::is_alive($hook), 'while the program sleeps');
    cmp_ok($longest, '<', 1, 'none waits for it');
    $node->signal('TERM', $hook);
    $node->wait_for('word of its end', sub { $node->log =~ /hook exited on signal 15/ });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker does not stand still while a program is started' => sub {
    my $node = WorkerManager->new(workers => 1);
    mkdir $node->path('kill');
    my $gate = $node->path('failpoints/spawn.gate');
    mkfifo($gate, 0666) && chmod 0666, $gate or die "$gate: $!";
    $node->write('hook', "#!/bin/sh\necho begun\n", 0755);
    $node->configure(manager => "$SLOW on master_ready exec hook;");
    $node->up;
    $node->wait_events('master_ready', 1);
    # Nothing goes through the gate until the request is answered.
    like($node->get('/'), qr/ok/, 'a request is answered');
    unlike($node->log, qr/hook: begun/, 'before the helper is there');
    open my $open, '+<', $gate or die "$gate: $!";
    syswrite $open, 'x';
    $node->wait_for('the program', sub { $node->log =~ /hook: begun/ });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a helper that is gone is told of by who would start it' => sub {
    plan skip_all => 'the module is part of this nginx' unless length($ENV{WORKER_MANAGER_MODULE} // '');
    my $folder = WorkerManager->new(workers => 1)->path('module');
    mkdir $folder or die "$folder: $!";
    for my $file ($ENV{WORKER_MANAGER_MODULE}, $ENV{WORKER_MANAGER_MODULE} =~ s{[^/]+$}{ngx_worker_manager_exec}r) {
        system('cp', $file, $folder) == 0 or die "cp: $?";
    }
    my $module = "$folder/" . ($ENV{WORKER_MANAGER_MODULE} =~ s{.*/}{}r);
    my $node = WorkerManager->new(workers => 2, module => $module);
    $node->write('hook', "#!/bin/sh\necho begun\n", 0755);
    $node->configure(manager => "$SLOW on worker_lost exec hook;");
    $node->up;
    unlink "$folder/ngx_worker_manager_exec" or die $!;
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_for('the error', sub {
        $node->log =~ /\[error\].*worker_lost \S+: could not start "\S+exec" \(2: No such file/;
    });
    like($node->get('/'), qr/ok/, 'the node goes on');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the same from a worker that takes over, with a storm of deaths' => sub {
    # Old workers that drain have no successors: a worker that serves tells of all of them.
    my $node = WorkerManager->new(workers => 8, listen => 'reuseport');
    $node->write('hook', "#!/bin/sh\nexec sleep 2\n", 0755);
    $node->configure(manager => "$SLOW on worker_lost exec hook;");
    $node->up;
    my @held = map { $node->hold_connection(1) } 1 .. 24;
    $node->reload_ready(2);
    $node->wait_events('worker_draining', 8, 1);
    my @old = $node->on_duty(1);
    cmp_ok(scalar @old, '>', 3, 'many are held');
    $node->kill_at_once(@old);
    my $served = grep { $node->get('/') =~ /ok/ } 1 .. 200;
    is($served, 200, 'every request is answered');
    $node->wait_events('master_exit', 1, 1);
    is(scalar $node->kinds('worker_lost', 1), scalar @old, 'each loss is told');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest '200 workers killed at once' => sub {
    my $node = WorkerManager->new(workers => 200);
    # Appending one short line at a time is atomic.
    $node->write('hook', <<"END", 0755);
#!/bin/sh
echo "begin \$WORKER_MANAGER_ID" >> $node->{root}/out/hooks
sleep 0.05
echo "end \$WORKER_MANAGER_ID" >> $node->{root}/out/hooks
END
    $node->write('out/hooks', '', 0666);
    $node->configure(manager => "$SLOW on worker_lost exec hook;");
    $node->up;
    my @victims = $node->on_duty;
    $node->signal('KILL', @victims);
    $node->wait_events('worker_lost', 200);
    $node->wait_events('worker_start', 400);
    $node->wait_for('all programs', sub { 200 == (() = $node->read('out/hooks') =~ /^end /mg) }, 60);
    my ($running, $most, %begun) = (0, 0);
    for (split /\n/, $node->read('out/hooks')) {
        my ($what, $id) = split ' ';
        $running += $what eq 'begin' ? 1 : -1;
        $begun{$id}++ if $what eq 'begin';
        $most = $running if $running > $most;
    }
    is(scalar(keys %begun), 200, 'one for each');
    cmp_ok($most, '<=', 16, "at most 16 at a time ($most)");
    cmp_ok($most, '>', 1, 'but not one after the other');
    $node->down;
    $node->laws_hold('told in order', final => 1);
};

# Of workers that die all at once each first one's program waits at the gate `first`, all others' at
# `rest`, as long as there is such a gate; what runs is noted in out/hooks.
sub gated {
    my ($node) = @_;
    $node->write('hook', <<"END", 0755);
#!/bin/sh
cd $node->{root}/out
echo "begin \$WORKER_MANAGER_ID" >> hooks
gate=rest
mkdir begun 2> /dev/null && gate=first
{ read line < \$gate; } 2> /dev/null
echo "end \$WORKER_MANAGER_ID" >> hooks
exit 0
END
    $node->write('out/hooks', '', 0666);
    # Named after this run: that is how the supervisors are found.
    my $name = "hook-$$-" . $node->{port};
    rename $node->path('hook'), $node->path($name);
    return $name;
}

# Closes a gate: a pipe that stays empty as long as what is returned is open.
sub close_gate {
    my ($node, $gate) = @_;
    mkfifo($node->path("out/$gate"), 0666) or die "mkfifo: $!";
    chmod 0666, $node->path("out/$gate");
    open my $pipe, '+<', $node->path("out/$gate") or die "$gate: $!";
    return $pipe;
}

sub open_gate {
    my ($node, $gate, $pipe) = @_;
    unlink $node->path("out/$gate");
    close $pipe;
}

sub noted {
    my ($node, $what) = @_;
    return scalar(() = $node->read('out/hooks') =~ /^$what /mg);
}

# Live supervisors of programs with this name.
sub supervisors {
    my ($name) = @_;
    return grep {
        my $there = open my $file, '<', "$_/cmdline";
        $there && (<$file> // '') =~ /worker_manager exec \Q$name\E/;
    } glob '/proc/[0-9]*';
}

subtest 'a program that hangs holds up no other' => sub {
    my $node = WorkerManager->new(workers => 24);
    my $hook = gated($node);
    my $first = close_gate($node, 'first');
    $node->configure(manager => "$SLOW exec_timeout 1m; on worker_lost exec $hook;");
    $node->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_for('all others', sub { noted($node, 'end') == 23 });
    is(noted($node, 'begin'), 24, 'all have begun');
    open_gate($node, first => $first);
    $node->wait_for('its end', sub { noted($node, 'end') == 24 });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'of many that hang a bounded number waits' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 64);
    my $hook = gated($node);
    my ($first, $rest) = map { close_gate($node, $_) } qw(first rest);
    $node->configure(manager => "$SLOW exec_timeout 1m; on worker_lost exec $hook;");
    # Not as many as there may be otherwise, but more than 16: those that are about to begin count too.
    $node->write('failpoints/program_queue', '24');
    $node->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_lost', 64);
    $node->wait_events('worker_start', 128);
    $node->wait_for('16 programs', sub { noted($node, 'begin') == 16 });
    my ($waiting, $turned_away) = (-1, -1);
    $node->wait_for('each to wait or be turned away', sub {
        $waiting = supervisors($hook);
        $turned_away = $status->json->{callbacks}{worker_lost}{failures};
        $waiting + $turned_away == 64;
    });
    cmp_ok($waiting, '<=', 16 + 24, "$waiting processes, $turned_away turned away");
    cmp_ok($turned_away, '>=', 64 - 40, 'which counts as a failure');
    my @lines = $node->log =~ /\[warn\].*: worker_manager: (.*not started.*)/g;
    like($lines[0], qr/^worker_lost 1-\d+: $hook not started, too many programs wait$/, 'told');
    cmp_ok(scalar @lines, '<', $turned_away, 'not each time');

    open_gate($node, rest => $rest);
    $node->wait_for('all others', sub { noted($node, 'end') == $waiting - 1 });
    is(noted($node, 'begin'), $waiting, 'though one hangs, all that waited have begun');
    $node->wait_for('the others to be gone', sub { my @left = supervisors($hook); @left < 2 });
    is(scalar(supervisors($hook)), 1, 'and only that one is left');
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_for('a new one', sub { noted($node, 'end') == $waiting });
    my @told = $node->log =~ /\[warn\].*: worker_manager: (\d+) programs? not started/g;
    is(sum(@told), $turned_away, 'then the log says how many were turned away');
    open_gate($node, first => $first);
    $node->wait_for('the end of all', sub { !supervisors($hook) });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'what waits when nginx ends does not begin' => sub {
    my $node = WorkerManager->new(workers => 24);
    my $hook = gated($node);
    my ($first, $rest) = map { close_gate($node, $_) } qw(first rest);
    $node->configure(manager => "$SLOW exec_timeout 1m; on worker_lost exec $hook;");
    $node->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_lost', 24);
    $node->wait_for('16 programs', sub { noted($node, 'begin') == 16 });
    $node->wait_for('others that wait', sub { supervisors($hook) == 24 });
    $node->down;
    $node->wait_for('the end of those that wait', sub { supervisors($hook) == 16 });
    is(scalar(() = $node->log =~ /\[notice\].*: $hook not started, nginx has ended/g), 8, 'told');
    open_gate($node, first => $first);
    open_gate($node, rest => $rest);
    $node->wait_for('the end of all', sub { !supervisors($hook) });
    is(noted($node, 'begin'), 16, 'none of them has begun');
    is(noted($node, 'end'), 16, 'what ran has run to its end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'programs begin in the order in which they were started' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('hook', "#!/bin/sh\necho \"\$1\" >> $node->{root}/out/order\n", 0755);
    $node->write('out/order', '', 0666);
    # All slots but one.
    $node->write('slow', "#!/bin/sh\nread line < $node->{root}/out/gate\n", 0755);
    my $gate = close_gate($node, 'gate');
    my @numbers = 1 .. 40;
    $node->configure(manager => "$SLOW exec_timeout 1m; " . 'on master_ready exec slow; ' x 15
        . join ' ', map { "on master_ready exec hook $_;" } @numbers);
    $node->up;
    $node->wait_for('all', sub { 40 == (() = $node->read('out/order') =~ /\n/g) });
    is_deeply([ split /\n/, $node->read('out/order') ], \@numbers, 'one after the other, in order');
    open_gate($node, gate => $gate);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'programs hold no memory of workers that are gone' => sub {
    my $node = WorkerManager->new(workers => 2);
    $node->write('big.c', <<'END');
#include <stdlib.h>
#include <string.h>
char *heap;
int grow(const void *event, void *data)
{
    heap = malloc(64 << 20);
    return heap == NULL || memset(heap, 1, 64 << 20) != heap;
}
END
    system('cc', '-shared', '-fPIC', '-o', $node->path('big.so'), $node->path('big.c')) == 0 or die 'cc';
    my $hook = gated($node);
    my ($first, $rest) = map { close_gate($node, $_) } qw(first rest);
    $node->configure(manager => "$SLOW exec_timeout 1m; on worker_start call $node->{root}/big.so grow; "
        . "on worker_draining exec $hook;");
    $node->up;
    my @held = map { $node->hold_connection(1) } 1 .. 4;
    $node->reload_ready(2);
    $node->wait_events('worker_draining', 2, 1);
    $node->wait_for('their programs', sub { noted($node, 'begin') == 2 });
    $node->signal('KILL', $node->on_duty(1));
    $node->wait_events('master_exit', 1, 1);
    my @found = map { m{(\d+)$} } supervisors($hook);
    is(scalar @found, 2, 'both run');
    for my $pid (@found) {
        open my $file, '<', "/proc/$pid/smaps_rollup" or die "$pid: $!";
        my ($kilobytes) = map { /^Pss:\s+(\d+)/ ? $1 : () } <$file>;
        cmp_ok($kilobytes, '<', 1024, "$kilobytes KB for a program");
    }
    open_gate($node, first => $first);
    open_gate($node, rest => $rest);
    $node->wait_for('the end of all', sub { !supervisors($hook) });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
