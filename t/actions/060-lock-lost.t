# A holder of the lock whose robust list is lost when it dies: the kernel frees nothing then.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;

my ($PIDFD_OPEN, $PROCESS_MRELEASE) = (434, 448);

# A node whose library, with a file out/lose, kills its process in the callback of worker_start without a
# robust list; with out/nap, sleeps there as long as the file is there.
sub node {
    my (%options) = @_;
    my $node = WorkerManager->new(workers => 2, %options);
    my $out = "$node->{root}/out";
    $node->write('lose.c', <<"C");
#define _GNU_SOURCE
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int lose(const void *event, void *data)
{
    static struct robust_list_head none;
    if (unlink("$out/lose") == 0) {
        none.list.next = &none.list;
        syscall(SYS_set_robust_list, &none, sizeof(none));
        kill(getpid(), SIGKILL);
    }
    if (rename("$out/nap", "$out/naps") == 0) {
        memset(malloc(64 << 20), 1, 64 << 20);
        while (access("$out/naps", F_OK) == 0)
            usleep(10000);
    }
    return 0;
}
C
    system('cc', '-shared', '-fPIC', '-O0', '-o', $node->path('lose.so'), $node->path('lose.c'));
    is($?, 0, 'the library');
    $node->configure(manager => "on worker_start call $node->{root}/lose.so lose;");
    return $node->up;
}

subtest 'a worker dies in its callback, with an empty robust list' => sub {
    my $node = node();
    my ($victim) = $node->on_duty;
    $node->write('out/lose', '');
    $node->signal('KILL', $victim);
    $node->wait_events('worker_start', 4) or return $node->clean;
    like($node->log, qr/process \d+ died holding the lock, going on/, 'the next one goes on');
    $node->reload(2);
    $node->write('out/lose', '');
    ($victim) = $node->on_duty(2);
    $node->signal('KILL', $victim);
    $node->wait_events('worker_start', 4, 2);
    $node->down('TERM');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the others go on within 100 ms' => sub {
    my $node = node();
    my ($victim) = $node->on_duty;
    $node->write('out/nap', '');
    $node->signal('KILL', $victim);
    $node->wait_for('the callback', sub { -e $node->path('out/naps') });
    # The successor, whose start is not told in full.
    my ($holder) = grep { my $pid = $_; !grep { $_ == $pid } $node->on_duty, $victim }
        map { $_->{pid} } $node->children;
    # The other worker ends and has to wait.
    my ($other) = grep { $_ != $victim } $node->on_duty;
    $node->signal('QUIT', $other);
    my $pidfd = syscall $PIDFD_OPEN, 0 + $holder, 0;
    my $from = time;
    $node->signal('KILL', $holder);
    my $reaped = syscall $PROCESS_MRELEASE, $pidfd, 0;
    note 'process_mrelease: ', $reaped == 0 ? 'ok' : $!;
    $node->wait_for('the end of the other', sub { !WorkerManager::is_alive($other) });
    # The bound is the contract's; the rest is this busy machine.
    cmp_ok(time - $from, '<', 1.5, 'soon');
    unlink $node->path('out/naps');
    $node->wait_event_of('worker_exit', $other);
    $node->down('TERM');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload after the loss, and a stop' => sub {
    my $node = node();
    $node->write('out/lose', '');
    $node->signal('HUP');
    $node->wait_events('master_ready', 1, 2) or return $node->clean;
    $node->wait_events('master_exit', 1, 1);
    $node->down('TERM');
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
