# A callback that never returns: how often those who serve and those who wait wake up meanwhile.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Stuck;

sub switches {
    my $sum = 0;
    for my $pid (@_) {
        open my $file, '<', "/proc/$pid/status" or die "$pid: $!";
        local $/;
        $sum += $1 if <$file> =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
    }
    return $sum;
}

subtest 'those who serve meanwhile sleep' => sub {
    my $node = node('worker_start', workers => 8, manager => 'interval 1s; failed 30s; ');
    my ($victim, @serving) = $node->on_duty;
    $node->write('out/stuck', '');
    $node->signal('KILL', $victim);
    my $stuck = stuck_pid($node);
    # By now every heartbeat has found an event that is not told in full, and come back more and more rarely.
    my $from = time;
    $node->wait_for('three seconds', sub { time > $from + 3 });
    my ($before, $since) = (switches(@serving), time);
    $node->wait_for('five seconds', sub { time > $since + 5 });
    my $per_second = (switches(@serving) - $before) / @serving / (time - $since);
    # A heartbeat each second is among them.
    cmp_ok($per_second, '<=', 2, sprintf 'each wakes up %.1f times a second', $per_second);
    # Nobody starts in its place while the master stands still: one that serves has to go on.
    $node->signal('STOP');
    $from = time;
    $node->signal('KILL', $stuck);
    $node->wait_for('the next one', sub { $node->log =~ /did not finish, its process died/ });
    cmp_ok(time - $from, '<', 0.6, 'and learns at once that the holder is gone');
    unlink $node->path('out/taken');
    $node->signal('CONT');
    $node->wait_events('worker_start', 10);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'who waits at an end wakes up 20 times a second' => sub {
    my $node = node('worker_exit');
    my ($first, $second) = $node->on_duty;
    $node->write('out/stuck', '');
    $node->signal('QUIT', $first);
    stuck_pid($node);
    $node->signal('QUIT', $second);
    $node->wait_for('it waits', sub { $node->log =~ /blocked for 1s/ });
    my ($before, $since) = (switches($second), time);
    $node->wait_for('three seconds', sub { time > $since + 3 });
    my $per_second = (switches($second) - $before) / (time - $since);
    cmp_ok($per_second, '<=', 25, sprintf '%.1f times', $per_second);
    unlink $node->path('out/taken');
    $node->wait_event_of('worker_exit', $second);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
