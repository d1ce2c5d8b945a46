# The directive event_log: complete, in order, rotated, and harmless when it can't be written.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use WorkerManager;

# The lines of a file, each decoded.
sub lines {
    my ($node, @names) = @_;
    return map { decode_json($_) } map { split /\n/, $node->read($_) } @names;
}

# Whether the lines tell just what the callbacks were told, in that order.
sub is_complete {
    my ($node, $name, @lines) = @_;
    is_deeply([ map { "$_->{seq} $_->{event} $_->{id}" } @lines ],
        [ map { "$_->{seq} $_->{event} $_->{id}" } $node->events ], $name);
}

subtest 'json, below the prefix' => sub {
    my $node = WorkerManager->new(manager => 'event_log logs/events.log;')->up;
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_events('worker_start', 3);
    $node->reload(2);
    $node->down;
    my @lines = lines($node, 'logs/events.log');
    is_complete($node, 'every event, in order', @lines);
    is($_->{took} =~ /^[\d.e-]+$/, 1, "$_->{seq} tells how long its callbacks took") for @lines;
    my ($start) = grep { $_->{event} eq 'worker_start' } @lines;
    is($start->{n_prev}, undef, 'none is null');
    cmp_ok(abs($start->{time} - time), '<', 600, 'time');
    my ($lost) = grep { $_->{event} eq 'worker_lost' } @lines;
    is_deeply([ @$lost{qw(reason n_mine n_left)} ], [ 'signal 9', 2, 1 ], 'reason and counts');
    ok(!$lost->{core}, 'core is false');
    ok(!$lost->{stopping} && $lines[-1]{stopping}, 'stopping is a boolean');
    my ($heir) = grep { $_->{event} eq 'worker_start' && defined $_->{respawn_of} } @lines;
    is($heir->{respawn_of}, $lost->{pid}, 'who was started in its place');
    like($lost->{history}, qr/^[0-9a-f]{16}$/, 'the history');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'text' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'event_log logs/events.log text;')->up;
    $node->signal('SEGV', $node->on_duty);
    $node->wait_events('worker_start', 2);
    $node->down;
    my @lines = split /\n/, $node->read('logs/events.log');
    is(scalar @lines, scalar(() = $node->events), 'a line each');
    my $date = qr/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/;
    like($lines[0], qr/^$date master_start 1 n_mine=0 n_older=0 n_left=0 stopping=0 pid=\d+ history=[0-9a-f]{16} seq=1 duration=\S+ took=0\.\d{6}$/,
        'start');
    like((grep { /worker_lost/ } @lines)[0],
        qr/^$date worker_lost 1-\d+ n_mine=1 n_older=0 n_left=0 stopping=0 pid=\d+ worker=0 history=[0-9a-f]{16} seq=4 reason="signal 11" core=[01] took=\S+$/,
        'loss');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'USR1 while events flow' => sub {
    my $node = WorkerManager->new(workers => 4, manager => 'event_log logs/events.log;')->up;
    for my $round (1 .. 5) {
        $node->signal('KILL', $node->on_duty);
        rename $node->path('logs/events.log'), $node->path("logs/events.$round") or die $!;
        $node->signal('USR1');
        $node->wait_events('worker_lost', 4 * $round);
        $node->wait_events('worker_start', 4 + 4 * $round);
        $node->wait_for('the new file', sub { -e $node->path('logs/events.log') });
    }
    $node->down;
    my @names = ((map { "logs/events.$_" } 1 .. 5), 'logs/events.log');
    # A worker reopens a moment after the master: its line may still go to the file before.
    my @lines = sort { $a->{seq} <=> $b->{seq} } lines($node, @names);
    is_complete($node, 'nothing is lost or told twice', @lines);
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a full disk costs the line and nothing else' => sub {
    my $node = WorkerManager->new(workers => 2, manager => 'event_log out/events.log;');
    symlink '/dev/full', $node->path('out/events.log') or die $!;
    $node->up;
    my $said = () = $node->log =~ m{\[error\].*could not write to ".*out/events.log", events are missing.*No space left}g;
    is($said, 1, 'said once');
    unlink $node->path('out/events.log');
    $node->signal('USR1');
    $node->wait_for('the new file', sub { -e $node->path('out/events.log') });
    $node->reload(2);
    like($node->log, qr/\[notice\].*the event log is written again, 4 lines are lost so far/, 'and how much it cost');
    $node->down;
    my @lines = lines($node, 'out/events.log');
    is($lines[0]{seq}, 5, 'complete from there');
    is($lines[-1]{seq}, scalar(() = $node->events), 'to the end');
    $node->laws_hold('the laws hold', final => 1);
};

# An nginx whose files can have 64 KiB: a disk that is full in the middle of a line.
sub limited {
    my ($node) = @_;
    return $node->write('limited', <<"END", 0755);
#!/bin/sh
trap '' XFSZ
ulimit -f 128
exec $node->{binary} "\$@"
END
}

subtest 'a line of which only a part had room leaves none' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'event_log out/events.log;');
    my $full = 'x' x (128 * 512 - 101) . "\n";
    $node->write('out/events.log', $full, 0666);
    $node->{binary} = limited($node);
    $node->up;
    like($node->log, qr/\[error\].*could not write to ".*out\/events.log"/, 'it is said');
    ok($node->read('out/events.log') eq $full, 'the file ends with the line before');
    rename $node->path('out/events.log'), $node->path('out/events.1') or die $!;
    $node->signal('USR1');
    $node->wait_for('the new file', sub { -e $node->path('out/events.log') });
    $node->reload(2);
    $node->down;
    my @lines = lines($node, 'out/events.log');
    is($lines[-1]{seq}, scalar(() = $node->events), 'the new file has whole lines');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'death when a part of a line had room' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'event_log out/events.log;');
    $node->{binary} = limited($node);
    $node->write('out/events.log', 'x' x (128 * 512 - 101) . "\n", 0666);
    $node->up;
    $node->write('failpoints/worker_lost.logged', '', 0666);
    $node->signal('KILL', $node->on_duty);
    $node->wait_for('the death', sub { !-e $node->path('failpoints/worker_lost.logged') });
    $node->wait_for('a worker', sub { my @duty = $node->on_duty; @duty == 1 });
    # There is room again.
    my $torn = substr $node->read('out/events.log'), 128 * 512 - 100;
    is(length $torn, 100, 'it ends with a part of a line');
    truncate $node->path('out/events.log'), 0 or die $!;
    open my $file, '>>', $node->path('out/events.log') or die $!;
    print $file $torn;
    close $file;
    $node->reload(2);
    $node->down;
    my @lines = split /\n/, $node->read('out/events.log');
    is(shift @lines, $torn, 'which stays alone');
    my ($newest) = reverse map { decode_json($_)->{seq} } @lines;
    is($newest, scalar(() = $node->events), 'before whole lines');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a pipe that nobody reads holds up nobody' => sub {
    my $node = WorkerManager->new(workers => 2, manager => 'event_log out/pipe;');
    POSIX::mkfifo($node->path('out/pipe'), 0666) or die $!;
    # A reader that does not read, and room for a few lines only.
    open my $pipe, '+<', $node->path('out/pipe') or die $!;
    my $F_SETPIPE_SZ = 1031;
    fcntl $pipe, $F_SETPIPE_SZ, 4096 or die $!;
    $node->up;
    for my $round (1 .. 10) {
        $node->signal('KILL', $node->on_duty);
        $node->wait_events('worker_start', 2 + 2 * $round);
    }
    like($node->log, qr/\[error\].*could not write to ".*pipe"/, 'what does not fit is missing');
    like($node->get('/'), qr/ok/, 'it serves');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

for my $format ('json', 'text') {
    subtest "death between the line and the note of it, $format" => sub {
        my $node = WorkerManager->new(workers => 2, manager => "event_log out/events.log $format;");
        $node->up;
        for my $event (qw(worker_lost worker_start)) {
            $node->write("failpoints/$event.logged", '', 0666);
            $node->signal('KILL', ($node->on_duty)[0]);
            $node->wait_for('the death', sub { !-e $node->path("failpoints/$event.logged") });
            $node->wait_for('two workers', sub { my @duty = $node->on_duty; @duty == 2 });
        }
        $node->down;
        my @seqs = $node->read('out/events.log') =~ /\bseq"?[:=](\d+)/g;
        is_deeply(\@seqs, [ 1 .. @seqs ], 'no line is missing and none there twice');
        is(scalar @seqs, scalar(() = $node->events), 'all are there');
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'death between the line and the note of it, and the file is moved' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'event_log out/events.log;')->up;
    my ($worker) = $node->on_duty;
    # The master is the next to take the lock.
    $node->write('failpoints/worker_exit.logged', '', 0666);
    $node->signal('QUIT', $worker);
    $node->signal('STOP');
    $node->wait_for('the death', sub { !-e $node->path('failpoints/worker_exit.logged') });
    rename $node->path('out/events.log'), $node->path('out/events.1') or die $!;
    $node->signal('CONT');
    $node->wait_events('worker_start', 2);
    $node->down;
    my @seqs = $node->read('out/events.1') =~ /"seq":(\d+)/g;
    is_deeply(\@seqs, [ 1 .. @{ [ $node->events ] } ], 'no line is there twice');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a torn line stays alone' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'event_log out/events.log;')->up;
    my ($worker) = $node->on_duty;
    # The master is the next to take the lock.
    $node->write('failpoints/worker_exit.logging', '', 0666);
    $node->signal('QUIT', $worker);
    $node->signal('STOP');
    $node->wait_for('the death', sub { !-e $node->path('failpoints/worker_exit.logging') });
    # As if it had died in the middle of its write.
    open my $file, '>>', $node->path('out/events.log') or die $!;
    print $file '{"seq":4,"ti';
    close $file;
    $node->signal('CONT');
    $node->wait_events('worker_start', 2);
    $node->down;
    my @lines = split /\n/, $node->read('out/events.log');
    is(scalar(grep { !eval { decode_json($_) } } @lines), 1, 'it alone is not JSON');
    is(scalar @lines - 1, scalar(() = $node->events), 'and all events are there');
    $node->laws_hold('the laws hold', final => 1);
};

for my $format ('json', 'text') {
    subtest "a file that workers can't read, $format" => sub {
        plan skip_all => 'needs root' if $> != 0;
        my $node = WorkerManager->new(workers => 2,
            manager => "event_log out/events.log $format; interval 100ms;");
        $node->write('out/events.log', '', 0600);
        $node->up;
        # Who takes it over is another worker, or the successor.
        my $starts = 2;
        for my $event (qw(worker_lost worker_start)) {
            for my $point (qw(logging logged)) {
                $node->write("failpoints/$event.$point", '', 0666);
                $node->signal('KILL', ($node->on_duty)[0]);
                $node->wait_for('the death', sub { !-e $node->path("failpoints/$event.$point") });
                # Who dies at its own start has a successor, too.
                $starts += $event eq 'worker_start' ? 2 : 1;
                $node->wait_events('worker_start', $starts);
                $node->wait_for('two workers', sub { my @duty = $node->on_duty; @duty == 2 });
            }
        }
        $node->down;
        my @seqs = $node->read('out/events.log') =~ /\bseq"?[:=](\d+)/g;
        is_deeply(\@seqs, [ 1 .. scalar(() = $node->events) ], 'no line is missing and none there twice');
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'death before or after the line, and the file was emptied since' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'event_log out/events.log;')->up;
    my $generation = 1;
    for my $point (qw(logging logged)) {
        my ($worker) = $node->on_duty;
        $node->write("failpoints/worker_exit.$point", '', 0666);
        $node->signal('QUIT', $worker);
        $node->signal('STOP');
        $node->wait_for('the death', sub { !-e $node->path("failpoints/worker_exit.$point") });
        # As logrotate's copytruncate does.
        truncate $node->path('out/events.log'), 0 or die $!;
        $node->signal('CONT');
        $node->wait_events('worker_start', ++$generation);
    }
    $node->down;
    my @lines = lines($node, 'out/events.log');
    is($lines[-1]{seq}, scalar(() = $node->events), 'the log goes on');
    is($lines[0]{event}, 'worker_exit', 'from the event that was not told to its end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'off' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'event_log off;')->up;
    $node->down;
    ok(!-e $node->path('off'), 'makes no file');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'stderr' => sub {
    my $node = WorkerManager->new(workers => 2, daemon => 0, manager => 'event_log stderr;')->up;
    $node->signal('USR1');
    $node->reload(2);
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_events('worker_start', 5);
    $node->down;
    my @lines = map { decode_json($_) } grep { /^\{/ } split /\n/, $node->read('out/nginx.out');
    is_complete($node, 'every event, in order', @lines);
    ok(!-e $node->path('stderr'), 'and no file');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'what is no file is refused, and no file is made of it' => sub {
    my $node = WorkerManager->new(workers => 1);
    for my $target ('syslog:server=127.0.0.1:9', 'memory:32k', '|cat', 'syslog:') {
        $node->configure(manager => qq{event_log "$target";});
        my ($status, $output) = $node->nginx('-t');
        isnt($status, 0, "$target is refused");
        like($output, qr{"event_log" directive does not support "\Q$target\E", a file, stderr or off is needed in \S+nginx.conf:\d+},
            'by name');
    }
    $node->configure(manager => 'event_log off text;');
    my ($status, $output) = $node->nginx('-t');
    like($output, qr/"event_log" directive has a format after "off" in/, 'off has no format');
    $node->configure(manager => 'event_log off; event_log logs/a;');
    ($status, $output) = $node->nginx('-t');
    like($output, qr/"event_log" directive is duplicate in/, 'off is the first of two');
    my @files = map { s{.*/}{}r } glob "$node->{root}/*";
    is_deeply([ grep { !/temp_/ } @files ], [qw(conf failpoints logs out)], 'nothing is left behind');
};

subtest 'a history that wraps' => sub {
    # The least zone there can be.
    my $node = WorkerManager->new(workers => 4, manager => 'event_log logs/events.log; zone w 32k;');
    $node->up;
    for my $round (1 .. 20) {
        $node->signal('KILL', $node->on_duty);
        $node->wait_events('worker_start', 4 + 4 * $round);
    }
    $node->down;
    my @lines = lines($node, 'logs/events.log');
    cmp_ok(scalar @lines, '>', 160, 'many events');
    is_complete($node, 'all of them', @lines);
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
