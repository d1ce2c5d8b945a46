# The callback `exec`, in every detail of the contract.
use strict;
use warnings;
no warnings 'portable';    # masks of 64 signals
use IO::Socket::UNIX;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Status;

# A node with one program that runs at one event.
sub node_with {
    my ($script, %options) = @_;
    my $node = WorkerManager->new(workers => 1, %options);
    $node->write('hook', $script, 0755);
    my $on = $options{on} // 'worker_start exec hook "$event" "id is $id"';
    $node->configure(manager => ($options{manager} // '') . " on $on;");
    return $node;
}

subtest 'arguments, environment, descriptors, signals' => sub {
    my $node = node_with(<<'END', main => 'env PASSED=through; env PATH;');
#!/usr/bin/perl
use POSIX;
print "argument $_\n" for @ARGV;
print "variable $_=$ENV{$_}\n" for sort keys %ENV;
for my $fd (map { m{(\d+)$} } glob "/proc/self/fd/*") {
    my $to = readlink "/proc/self/fd/$fd" // next;
    print "descriptor $fd $to\n";
}
open my $status, '<', '/proc/self/status';
print "status $_" for grep { /^(SigBlk|SigIgn|SigCgt)/ } <$status>;
print 'group ', (getpgrp() == $$ ? 'own' : 'shared'), "\n";
printf "umask %03o\n", umask;
END
    $node->up;
    my ($pid) = $node->on_duty;
    my %said;
    for ($node->log =~ /hook: (\w+ .*)/g) {
        my ($what, $rest) = /(\w+) (.*)/;
        push @{ $said{$what} }, $rest;
    }
    is_deeply($said{argument}, [ 'worker_start', "id is 1-$pid" ], 'no shell, fields filled in');
    my %variables = map { split /=/, $_, 2 } @{ $said{variable} };
    ok($variables{PATH}, 'PATH');
    is($variables{PASSED}, 'through', 'what env passes');
    is($variables{WORKER_MANAGER_EVENT}, 'worker_start', 'event');
    is($variables{WORKER_MANAGER_ID}, "1-$pid", 'id');
    is($variables{WORKER_MANAGER_N_MINE}, 1, 'n_mine');
    is($variables{WORKER_MANAGER_N_OLDER}, 0, 'n_older');
    is($variables{WORKER_MANAGER_N_LEFT}, 1, 'n_left');
    is($variables{WORKER_MANAGER_STOPPING}, 0, 'stopping');
    like($variables{WORKER_MANAGER_HISTORY}, qr/^[0-9a-f]{16}$/, 'history');
    is($variables{WORKER_MANAGER_WORKER}, 0, 'worker');
    is($variables{WORKER_MANAGER_SEQ}, 2, 'seq');
    is($variables{WORKER_MANAGER_PID}, $pid, 'pid');
    is($variables{WORKER_MANAGER_GENERATION}, 1, 'generation');
    like($variables{WORKER_MANAGER_TIME}, qr/^\d{10}\.\d{3}$/, 'time');
    ok(!exists $variables{"WORKER_MANAGER_$_"}, "no $_") for qw(N_PREV N_NEXT REASON CORE RESPAWN_OF);
    ok(!exists $variables{HOME} && !exists $variables{TEST_NGINX_BINARY}, 'nothing else of ours');
    # What the glob reads is one of the program's own.
    my ($stdin, $stdout, $stderr, @more) = grep { !m{/proc/\d+/fd} } @{ $said{descriptor} };
    is($stdin, '0 /dev/null', 'standard input');
    like($stdout, qr/^1 pipe/, 'standard output');
    like($stderr, qr/^2 pipe/, 'standard error');
    is_deeply(\@more, [], 'and nothing else');
    my %status = map { /(\w+):\s*(\w+)/ } @{ $said{status} };
    is(hex $status{SigBlk}, 0, 'no signal is blocked');
    # Perl itself ignores SIGFPE.
    is(hex($status{SigIgn}) & ~(1 << 7), 0, 'none is ignored');
    is($said{group}[0], 'own', 'a process group of its own');
    is($said{umask}[0], '022', 'a umask that surprises nobody');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a program runs as the user of the process' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('hook', "#!/bin/sh\necho \"\$1 \$(id -u)\"\n", 0755);
    $node->configure(manager => 'on * exec hook "$event";');
    $node->up;
    my $nobody = $> ? $> : getpwnam('nobody');
    like($node->log, qr/hook: master_start $>\n/, 'a master event as the master\'s');
    like($node->log, qr/hook: worker_start $nobody\n/, 'a worker event as the worker\'s');
    $node->down;
    like($node->log, qr/hook: worker_exit $nobody\n/, 'at its end too');
    like($node->log, qr/hook: master_exit $>\n/, 'and the master\'s');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'reason and core of a loss' => sub {
    my $node = node_with(<<'END', on => 'worker_lost exec hook "$reason"');
#!/bin/sh
echo "lost: $1, $WORKER_MANAGER_REASON, $WORKER_MANAGER_CORE"
END
    $node->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_for('the program', sub { $node->log =~ /hook: lost: signal 9, signal 9, 0/ });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'several, in order, and a failing one stops none' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('hook', "#!/bin/sh\necho \"\$1\" >> $node->{root}/out/order\nexit \$2\n", 0755);
    $node->configure(manager => join ' ', map { "on worker_start exec hook $_;" }
        '"one $n_mine" 0', '"two" 3', '"three" 0');
    $node->up;
    $node->wait_events('worker_start', 1);
    is($node->read('out/order'), "one 1\ntwo\nthree\n", 'in order');
    my ($pid) = $node->on_duty;
    like($node->log, qr/\[error\].*worker_start 1-$pid: hook exited with code 3/, 'code');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'an end by a signal, a missing interpreter' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('hook', "#!/bin/sh\nkill -9 \$\$\n", 0755);
    $node->write('broken', "#!/no/such/interpreter\n", 0755);
    $node->configure(manager => 'on worker_start exec hook; on worker_start exec broken;');
    $node->up;
    like($node->log, qr/\[error\].*worker_start 1-\d+: hook exited on signal 9/, 'signal');
    like($node->log, qr/execve\(\) of ".*broken" failed.*interpreter.*\(2: No such file/, 'execve');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'output: lines, control characters, long lines, too much' => sub {
    my $node = node_with(<<'END');
#!/usr/bin/perl
$| = 1;
print "first\nsecond \xc3\xa9\n\e[31mred\r\n";
print STDERR "from stderr\n";
print "x" x 2500, "\n";
print "bad \xff utf8\n";
print "y" x 50, "\n" for 1 .. 20000;
print "never seen\n";
END
    $node->up;
    my $log = $node->log;
    like($log, qr/hook: first\n/, 'a line');
    like($log, qr/hook: second \xc3\xa9\n/, 'UTF-8');
    like($log, qr/hook: \\x1b\[31mred\\x0d\n/, 'control characters are escaped');
    like($log, qr/hook: from stderr\n/, 'standard error too');
    my @long = $log =~ /hook: (x+)\n/g;
    is(length(join '', @long), 2500, 'a long line is split');
    ok(!grep({ length > 1000 } @long), 'into pieces');
    like($log, qr/hook: bad \? utf8\n/, 'what is no UTF-8 is made printable');
    is(scalar(() = $log =~ /\[warn\].*hook: more output is dropped/g), 1, 'too much is told once');
    unlike($log, qr/never seen/, 'and dropped');
    cmp_ok(-s $node->path('logs/error.log'), '<', 400_000, 'the log stays small');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'output goes to a syslog server as what nginx says does' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('hook', "#!/bin/sh\necho said\nexit 3\n", 0755);
    my $server = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $node->path('out/syslog')) or die $!;
    chmod 0777, $node->path('out/syslog');
    $server->blocking(0);
    $node->configure(manager => 'on worker_start exec hook;',
        main => "error_log syslog:server=unix:$node->{root}/out/syslog,facility=daemon,tag=crew notice;");
    $node->up;
    my @messages;
    $node->wait_for('both lines', sub {
        while (defined $server->recv(my $message, 65536)) {
            last if $message eq '';
            push @messages, $message;
        }
        2 == grep { /: hook/ } @messages;
    });
    my $line = qr{crew: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d };
    my ($nginx) = map { m{^<29>\w{3} [ \d]\d \d\d:\d\d:\d\d (.*)${line}\[notice\]} ? $1 : () } @messages;
    my ($output, $end) = grep { /: hook/ } @messages;
    my $time = qr/\w{3} [ \d]\d \d\d:\d\d:\d\d/;
    my ($pid) = $node->on_duty;
    my $label = "worker_manager: worker_start 1-$pid: hook";
    like($output, qr/^<29>$time \Q$nginx\E$line\[notice\] $pid#\d+: $label: said$/, 'what it prints');
    like($end, qr/^<27>$time \Q$nginx\E$line\[error\] $pid#\d+: $label exited with code 3$/, 'how it ends');
    like($node->log, qr/\[notice\] $pid#\d+: $label: said\n/, 'the file has it too');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'timeout: the whole group is killed' => sub {
    my $node = node_with(<<'END', manager => 'exec_timeout 300ms;');
#!/bin/sh
trap '' TERM INT
sh -c 'echo background $$; trap "" TERM; while :; do perl -e "select undef, undef, undef, 1"; done' &
while :; do perl -e "select undef, undef, undef, 1"; done
END
    my $from = time;
    $node->up;
    cmp_ok(time - $from, '<', 5, 'the worker goes on');
    like($node->log, qr/\[error\].*worker_start 1-\d+: hook killed, exec_timeout 300ms is over/,
        'told');
    my ($background) = $node->log =~ /background (\d+)/;
    $node->wait_for('the end of the group', sub { !WorkerManager::is_alive($background) });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a daemon that a program leaves holds nothing of nginx' => sub {
    # It lives as long as a file is there.
    my $node = node_with(<<'END', on => 'worker_start exec hook out/stay');
#!/usr/bin/perl
use POSIX;
my ($path) = $0 =~ m{^(.*/)};
$path .= $ARGV[0];
my $pid = fork;
if (!$pid) {
    POSIX::setsid();
    open STDOUT, '>', '/dev/null';
    open STDERR, '>', '/dev/null';
    select undef, undef, undef, 0.05 while -e $path;
    POSIX::_exit(0);
}
print "left daemon $pid\n";
END
    $node->write('out/stay', '');
    $node->up;
    my ($daemon) = $node->log =~ /left daemon (\d+)/;
    ok($daemon, 'it ran and was not waited for any longer');
    $node->down;
    ok(WorkerManager::is_alive($daemon), 'the daemon outlives nginx');
    my $socket = IO::Socket::INET->new(
        Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $node->{port}, ReuseAddr => 1);
    ok($socket, 'the port is free again') or diag $!;
    unlink $node->path('out/stay') or die $!;
    $node->wait_for('the end of the daemon', sub { !WorkerManager::is_alive($daemon) });
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'what is awaited dies with the worker that awaits it' => sub {
    my $node = node_with(<<'END', manager => 'exec_timeout 1m;');
#!/bin/sh
[ -e "$0.done" ] && exit 0
: > "$0.done"
echo started $$
while :; do perl -e "select undef, undef, undef, 0.1"; done
END
    chmod 0777, $node->{root};
    $node->start;
    my $program = $node->wait_for('the program', sub { $node->log =~ /started (\d+)/ && $1 });
    my ($worker) = map { $_->{pid} } $node->children;
    $node->signal('KILL', $worker);
    $node->wait_for('its end', sub { !WorkerManager::is_alive($program) }, 5);
    $node->wait_events('worker_start', 2);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'master: SIGCHLD is safe at cold start, reload and exit' => sub {
    my $node = node_with(<<'END', workers => 2, on => '* exec hook "$event"');
#!/bin/sh
echo "told $1"
exit 0
END
    $node->up;
    $node->reload(2);
    $node->down;
    # Nobody waits for what is run for a notification, not even nginx.
    $node->wait_for('all programs', sub { 18 == (() = $node->log =~ /hook: told \w/g) });
    my %told;
    $told{$_}++ for $node->log =~ /hook: told (\w+)/g;
    is_deeply(\%told,
        { master_start => 2, master_ready => 2, master_exit => 2, worker_start => 4,
            worker_draining => 4, worker_exit => 4 }, 'each ran');
    unlike($node->log, qr/unknown process|ECHILD|No child/, 'no status was lost or strange');
    unlike($node->log, qr/hook exited/, 'none failed');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'SIGCHLD in storms does not disturb' => sub {
    my $node = node_with(<<'END');
#!/bin/sh
for i in 1 2 3; do perl -e 'select undef, undef, undef, 0.1'; done
exit 7
END
    $node->start;
    $node->wait_for('the program', sub {
        $node->signal('CHLD', map { $_->{pid} } $node->children);
        $node->log =~ /hook exited with code 7/;
    });
    $node->wait_events('worker_start', 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a notification is not waited for' => sub {
    my $node = node_with(<<'END', on => 'worker_lost exec hook', manager => 'exec_timeout 2s;');
#!/bin/sh
echo begun
while :; do perl -e "select undef, undef, undef, 0.2"; done
END
    $node->up;
    my $from = time;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 2);
    cmp_ok(time - $from, '<', 2, 'the successor starts at once');
    like($node->get('/'), qr/ok/, 'and serves');
    $node->wait_for('its end at the timeout', sub { $node->log =~ /hook killed, exec_timeout 2s/ });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a serving worker that tells an end serves meanwhile' => sub {
    my $node = node_with(<<'END', on => 'master_exit exec hook "$id"',
#!/bin/sh
[ "$1" = 1 ] || exit 0
echo begun
for i in 1 2 3 4 5 6 7 8; do perl -e 'select undef, undef, undef, 0.25'; done
echo over
END
        manager => 'interval 200ms; failed 200ms; exec_timeout 1m;');
    $node->up;
    my $held = $node->hold_connection(1);
    my ($old) = $node->on_duty(1);
    $node->signal('HUP');
    $node->wait_events('worker_start', 1, 2);
    # The one worker that serves finds the old one dead and ends its generation.
    $node->signal('KILL', $old);
    $node->wait_for('the program', sub { $node->log =~ /hook: begun/ });
    my ($answers, $slowest) = (0, 0);
    while ($node->log !~ /hook: over/ && $answers < 10_000) {
        my $from = time;
        $answers++ if $node->get('/') =~ /ok/;
        $slowest = time - $from if time - $from > $slowest;
    }
    cmp_ok($answers, '>', 3, "requests are answered ($answers)");
    cmp_ok($slowest, '<', 1, "at once ($slowest s at most)");
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

# It notes whom it runs as: user and groups.
my $WHO = <<'END';
#!/bin/sh
echo "$WORKER_MANAGER_EVENT $(id -u) $(id -G)"
END

subtest "programs of workers' events run as nginx's workers, whoever tells them" => sub {
    plan skip_all => 'only root has another user for its workers' if $>;
    my $node = node_with($WHO, workers => 2, main => 'user daemon;', on => '* exec hook');
    my ($uid, $gid) = (getpwnam 'daemon')[ 2, 3 ];
    $node->up;
    # With all workers dead and the master about to end, it is the one to tell.
    $node->signal('STOP');
    $node->wait_for('a stopped master', sub { WorkerManager::state_of($node->master) eq 'T' });
    $node->signal('KILL', $node->on_duty);
    $node->signal('QUIT');
    $node->signal('CONT');
    $node->wait_for('the end of the master', sub { !WorkerManager::is_alive($node->master) });
    $node->wait_for('both programs', sub { 2 == (() = $node->log =~ /hook: worker_lost /g) });
    my @ran = $node->log =~ /hook: (worker_\w+ .*)/g;
    like($_, qr/^worker_\w+ $uid $gid\b/, $_) for @ran;
    like($node->log, qr/hook: master_exit 0 /, "the master's event is root's");
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'exec_nowait: nobody waits' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('hook', <<"END", 0755);
#!/bin/sh
echo "begun \$1"
exec sleep 60
END
    $node->configure(manager => 'exec_timeout 60s; on worker_start exec_nowait hook $event; '
        . 'on worker_exit exec_nowait hook $event;');
    $node->up;
    $node->wait_for('the program', sub { $node->log =~ /hook: begun worker_start/ });
    my $from = time;
    $node->down;
    cmp_ok(time - $from, '<', 10, 'the worker ends meanwhile');
    $node->wait_for('the last program', sub { $node->log =~ /hook: begun worker_exit/ });
    for my $file (glob '/proc/[0-9]*/environ') {
        my ($pid) = $file =~ /(\d+)/;
        open my $environ, '<', $file or next;
        local $/;
        next unless (<$environ> // '') =~ /WORKER_MANAGER_EVENT=worker_(start|exit)/;
        open my $title, '<', "/proc/$pid/cmdline" or next;
        next unless (<$title> // '') =~ /worker_manager exec hook.*\Q$node->{root}\E/;
        kill 'KILL', $pid;
    }
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a failure is counted by who started the program' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2);
    $node->write('hook', "#!/bin/sh\nexit 3\n", 0755);
    $node->configure(manager => 'on worker_lost exec hook; on worker_start exec hook;');
    $node->up;
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_events('worker_start', 3);
    $node->wait_for('the count', sub {
        my $callbacks = $status->json->{callbacks};
        $callbacks->{worker_lost}{failures} == 1 && $callbacks->{worker_start}{failures} == 3;
    });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest "a program of the master's is counted once, by the master" => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 1);
    $node->write('hook', "#!/bin/sh\necho begun\nwhile [ ! -e $node->{root}/out/go ]; do sleep 0.05; done\nexit 3\n",
        0755);
    my $manager = 'interval 10m; failed 10m; exec_timeout 1m; on reload_failed exec hook;';
    $node->configure(manager => $manager);
    $node->up;
    my $good = $node->read('conf/nginx.conf');
    $node->write('conf/nginx.conf', "${good}nonsense;\n");
    $node->signal('HUP');
    $node->wait_for('the program', sub { $node->log =~ /hook: begun/ });
    # What is forked now has all that the master has.
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 2);
    $node->write('out/go', '');
    $node->wait_for('its end', sub { $node->log =~ /hook exited with code 3/ });
    $node->write('conf/nginx.conf', $good);
    $node->signal('HUP');
    # With the end of the worker that was forked meanwhile.
    $node->wait_events('master_exit', 1, 1);
    is($status->json->{callbacks}{reload_failed}{failures}, 1, 'one failure');
    unlike($node->log, qr/helper of its program was killed/, 'and the helper is not missed');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

# A node whose module and helper are in folders of its own, to take the helper away.
sub apart {
    my (%options) = @_;
    my $node = node_with("#!/bin/sh\necho ran\n", %options);
    chmod 0755, $node->{root};
    my $module = $node->{module};
    system('cp', $module, $module =~ s{[^/]*$}{ngx_worker_manager_exec}r, $node->{root}) == 0 or die 'cp';
    $node->configure(module => $node->path('ngx_worker_manager_module.so'));
    return ($node, $node->path('ngx_worker_manager_exec'));
}

subtest 'the helper is missing, not executable, of another version' => sub {
    plan skip_all => 'the module is part of this nginx' unless defined $ENV{WORKER_MANAGER_MODULE}
        && length $ENV{WORKER_MANAGER_MODULE};
    my ($node, $helper) = apart(on => 'master_ready exec hook');
    my $refused = sub {
        my ($why, $name) = @_;
        my ($status, $output) = $node->nginx('-t');
        is($status, 256, "$name: refused");
        like($output, qr/"on" directive needs the executable "\Q$helper\E"$why in .*nginx.conf:\d+/, 'why');
    };
    is(($node->nginx('-t'))[0], 0, 'it is there');
    rename $helper, "$helper.away";
    $refused->(", which can't be run \\(2: No such file or directory\\)", 'missing');
    $node->write('ngx_worker_manager_exec', "#!/bin/sh\n", 0644);
    $refused->(", which can't be run \\(13: Permission denied\\)", 'not executable');
    unlink $helper;
    $node->write('ngx_worker_manager_exec', <<'END', 0755);
#!/usr/bin/perl
my ($fd) = $ARGV[1] =~ /^status=(\d+)/;
open my $status, '>&=', $fd or die $!;
syswrite $status, "\177";
END
    $refused->(" of the module's own version, this is another", 'another version');
    # It ends without an answer the first time only.
    unlink $helper;
    $node->write('ngx_worker_manager_exec',
        qq{#!/bin/sh\nmkdir "\$0.killed" 2>/dev/null && kill -9 \$\$\nexec "\$0.away" "\$@"\n}, 0755);
    is(($node->nginx('-t'))[0], 0, 'one that is killed is asked again');
    ok(-d "$helper.killed", 'and it was killed');
    $node->configure(on => undef, manager => '');
    is(($node->nginx('-t'))[0], 0, 'nobody needs it without programs');
};

subtest 'the helper vanishes while nginx runs' => sub {
    plan skip_all => 'the module is part of this nginx' unless defined $ENV{WORKER_MANAGER_MODULE}
        && length $ENV{WORKER_MANAGER_MODULE};
    my ($node, $helper) = apart(on => 'worker_start exec hook; on worker_start log notice "next one"');
    $node->up;
    is(scalar(() = $node->log =~ /hook: ran/g), 1, 'it ran');
    rename $helper, "$helper.away";
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 2);
    like($node->log, qr/\[error\].*worker_start 1-\d+: could not start "\Q$helper\E" \(2: No such file/, 'logged');
    is(scalar(() = $node->log =~ /next one/g), 2, 'the next callback runs');
    $node->write('ngx_worker_manager_exec', <<'END', 0755);
#!/usr/bin/perl
my ($fd) = $ARGV[1] =~ /^status=(\d+)/;
open my $status, '>&=', $fd or die $!;
syswrite $status, "\177";
END
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 3);
    like($node->log, qr/\[error\].*worker_start 1-\d+: its program was not started, the helper .* another version/,
        'one of another version is noticed');
    rename "$helper.away", $helper;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 4);
    is(scalar(() = $node->log =~ /hook: ran/g), 2, 'and works again when it is back');
    unlike($node->log, qr/unknown process/, 'nginx never sees the helper');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'with reuseport an awaited program at worker_start is warned of' => sub {
    my $node = WorkerManager->new(workers => 1, listen => 'reuseport');
    $node->write('hook', "#!/bin/sh\n", 0755);
    $node->configure(manager => "\non worker_start exec_nowait hook;\non worker_exit exec hook;\n"
        . "on worker_start exec hook;\non * exec hook;\n");
    my (undef, $output) = $node->nginx('-t');
    my @lines = $output =~ /\[warn\] .*"on" directive makes clients of "reuseport" sockets wait .*nginx.conf:(\d+)/g;
    is(scalar @lines, 2, 'two of them, exec_nowait and other events are not') or diag $output;
    is($lines[1] - $lines[0], 1, 'each with its line');
    $node->configure(listen => '');
    unlike(($node->nginx('-t'))[1], qr/reuseport/, 'nor any without reuseport');
};

done_testing;
