# Programs of notifications: they hold up nobody, and many events do not start many at a time.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;

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

done_testing;
