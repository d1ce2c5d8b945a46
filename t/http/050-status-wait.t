# Waiting for a reload: the line that users copy into their deploy scripts, and what it rests on.
use strict;
use warnings;
no warnings 'exec';
use JSON::PP ();
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Status;

# The deploy script of the README, with this node in it.
my ($SCRIPT) = do {
    open my $file, '<', "$ENV{WORKER_MANAGER_OBJS}/../README.md" or die $!;
    local $/;
    <$file> =~ /<!-- deploy -->\n```sh\n(.*?)```/s;
};

# Runs it in the background; what to wait for.
sub deploy {
    my ($node, $status, %replace) = @_;
    my $script = $SCRIPT =~ s{http://127\.0\.0\.1/}{$status->{base}/}gr;
    $script =~ s{nginx -s reload}{$node->{binary} -p $node->{root} -c conf/nginx.conf -s reload}g;
    $script =~ s/timeout=\w+/timeout=$replace{timeout}/ if $replace{timeout};
    my $file = $node->write('out/deploy', $script);
    my $pid = fork // die $!;
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', $node->path('out/deploy.out');
        open STDERR, '>&', \*STDOUT;
        exec 'sh', $file;
        POSIX::_exit(127);
    }
    return $pid;
}

# The exit status of a deploy, undef while it runs.
sub over {
    my ($pid) = @_;
    return waitpid($pid, POSIX::WNOHANG()) == $pid ? $? : undef;
}

sub exit_of {
    my ($node, $pid) = @_;
    my $status;
    $node->wait_for('the deploy script', sub { defined($status = over($pid)) });
    return $status;
}

ok($SCRIPT, 'the README has a deploy script');

subtest 'deploy: good, bad and slow reloads' => sub {
    my ($node, $status) = WorkerManager::Status::node();
    $node->up;
    is(exit_of($node, deploy($node, $status)), 0, 'a good reload');
    my @generations = map { $_->{generation} } @{ $status->json->{generations} };
    is_deeply(\@generations, [2], 'which is complete then');
    like($node->read('out/deploy.out'), qr/"generation":2/, 'and described');

    my $good = $node->{http};
    $node->configure(http => "$good no_such_directive on;");
    isnt(exit_of($node, deploy($node, $status)), 0, 'a mistake that nginx -s finds itself');
    # An address of another machine: only the master finds that it can't listen there.
    my $bind = 'server { listen 192.0.2.1:80; }';
    $node->configure(http => "$good $bind");
    isnt(exit_of($node, deploy($node, $status)), 0, 'an address that is not there');
    like($node->read('out/deploy.out'), qr/409/, 'curl says why');
    is($status->json->{node}{generation}, 2, 'the old generation goes on');

    $node->configure(http => $good);
    is(exit_of($node, deploy($node, $status)), 0, 'right after a bad one, a good one');
    is($status->json->{node}{generation}, 3, 'which is the third');

    my $held = $node->hold_connection(3);
    my $pid = deploy($node, $status);
    $node->wait_events('master_ready', 1, 4);
    $node->wait_events('worker_draining', 2, 3);
    ok(!defined over($pid), 'a slow one is waited for');
    close $held;
    is(exit_of($node, $pid), 0, 'until it is done');
    ok((grep { $_->{generation} == 4 } @{ $status->json->{generations} }), 'with the fourth');

    my $other = $node->hold_connection(4);
    isnt(exit_of($node, deploy($node, $status, timeout => '500ms')), 0, 'but not for ever');
    like($node->read('out/deploy.out'), qr/504/, 'curl says why');
    close $other;
    $node->wait_events('master_exit', 1, 4);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

# Asks without following redirects, on a connection of its own, in the background.
sub waiting {
    my ($node, $status, $path, $query, @options) = @_;
    my $name = 'out/wait' . ++$node->{waits};
    my $pid = fork // die $!;
    if (!$pid) {
        open STDOUT, '>', $node->path($name);
        exec 'curl', '-s', '-w', '\n%{http_code} %{num_redirects}\n', @options,
            "$status->{base}$path?$query";
        POSIX::_exit(127);
    }
    return { pid => $pid, name => $name };
}

# How many clients the workers have on a port. What the status says of it is as of each one's last
# heartbeat or answer, and counts the request that asks.
sub clients {
    my ($node, $port) = @_;
    my ($local, $ESTABLISHED) = (sprintf('%04X', $port), '01');
    open my $file, '<', '/proc/net/tcp' or die $!;
    my %sockets = map { ((split)[9] => 1) }
        grep { /^ *\d+: \w+:$local \w+:\w+ $ESTABLISHED / } <$file>;
    my @files = map { glob "/proc/$_/fd/*" } $node->on_duty;
    return scalar grep { (readlink($_) // '') =~ /^socket:\[(\d+)\]/ && $sockets{$1} } @files;
}

sub answer {
    my ($node, $waiting) = @_;
    exit_of($node, $waiting->{pid});
    my ($body, $code, $redirects) = $node->read($waiting->{name}) =~ /\A(.*)\n(\d+) (\d+)\n\z/s;
    return ($code, $redirects, $body);
}

subtest 'what is there already' => sub {
    my ($node, $status) = WorkerManager::Status::node();
    $node->up;
    my $begin = time;
    my $answer = $status->ask('/workers/wait?after=0&until=done');
    is($answer->{status}, 200, 'is answered at once');
    WorkerManager::Status::is_valid('with the generation', 'generation', $answer->{content});
    $answer = $status->ask('/workers/wait?after=1&timeout=200ms');
    is($answer->{status}, 504, 'what does not come is not waited for longer');
    WorkerManager::Status::is_valid('and why', 'error', $answer->{content});
    is($status->ask('/workers/wait?after=1.0&timeout=0')->{status}, 504, 'or not at all');
    $node->down;
};

subtest 'on to a new worker' => sub {
    my ($node, $status) = WorkerManager::Status::node();
    $node->up;
    # Held by a connection, so that the wait goes on after its worker has quit.
    my $held = $node->hold_connection(1);
    my ($busy) = map { $_->{pid} } $node->held;
    my $follow = waiting($node, $status, '/workers/wait', 'after=1&until=done&timeout=19s', '-L');
    my $stay = waiting($node, $status, '/workers/wait', 'after=1&until=done&timeout=19s', '-D', $node->path('out/head'));
    $node->wait_for('both to wait', sub { clients($node, $status->{port}) >= 2 });
    $node->reload_ready(2);
    my ($code) = answer($node, $stay);
    is($code, 307, 'the old worker sends them on');
    my ($left) = $node->read('out/head')
        =~ m{^Location: wait\?after=1\.0&until=done&timeout=(\d+)ms\r$}m;
    ok($left && $left < 19_000, 'to the same, with the time that is left');
    like($node->read('out/head'), qr/^Connection: close\r$/m, 'on another connection');
    $node->wait_events('worker_draining', 2, 1);
    my @draining = grep { $_->{pid} != $busy } $node->kinds('worker_draining', 1);
    $node->wait_events('worker_exit', 1, 1);
    is(($node->kinds('worker_exit', 1))[0]{pid}, $draining[0]{pid}, 'and ends itself');
    close $held;
    my ($done, $redirects, $body) = answer($node, $follow);
    is($done, 200, 'who follows gets there');
    # More than one if the other old worker, not told to quit yet, took it.
    ok($redirects >= 1, 'by another worker');
    is(JSON::PP::decode_json($body)->{generation}, 2, 'with the new generation');
    unlike($node->log, qr/open socket/, 'nginx found no connection left open');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload that fails' => sub {
    my ($node, $status) = WorkerManager::Status::node();
    $node->up;
    my $good = $node->{http};
    my @waiting = map { waiting($node, $status, '/workers/wait', $_) }
        'after=1&timeout=19s', 'after=1.0&until=done&timeout=19s';
    $node->wait_for('both to wait', sub { clients($node, $status->{port}) >= 2 });
    $node->configure(http => "$good no_such_directive on;");
    $node->signal('HUP');
    is((answer($node, $_))[0], 409, 'is told at once') for @waiting;
    my $late = $status->ask('/workers/wait?after=1&timeout=19s');
    is($late->{status}, 409, 'also to who asks right after it');
    WorkerManager::Status::is_valid('and why', 'error', $late->{content});
    is($status->ask('/workers/wait?after=1.0&timeout=19s')->{status}, 409,
        'and to who knows that none had failed');
    is($status->ask('/workers/wait?after=1.1&timeout=100ms')->{status}, 504,
        'not to who knows of it');
    $node->configure(http => $good);
    my $next = waiting($node, $status, '/workers/wait', 'after=1.1&timeout=19s', '-L');
    $node->wait_for('it to wait', sub { clients($node, $status->{port}) >= 1 });
    $node->signal('HUP');
    is((answer($node, $next))[0], 200, 'the next one succeeds');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'several reloads at a time' => sub {
    my ($node, $status) = WorkerManager::Status::node();
    $node->up;
    my $held = $node->hold_connection(1);
    $node->reload_ready(2);
    my $first = waiting($node, $status, '/workers/wait', 'after=1.0&until=done&timeout=19s', '-L');
    $node->reload_ready(3);
    my $second = waiting($node, $status, '/workers/wait', 'after=2.0&until=ready&timeout=19s', '-L');
    is((answer($node, $second))[0], 200, 'the third is ready');
    ok(!defined over($first->{pid}), 'the first still drains');
    close $held;
    my ($code, undef, $body) = answer($node, $first);
    is($code, 200, 'all older workers are gone');
    ok(JSON::PP::decode_json($body)->{generation} >= 2, 'the second or what came after it');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'over HTTP/2' => sub {
    my $port = WorkerManager::free_port();
    # A listening socket with http2: the directive of that name is newer than nginx 1.22.
    my ($node, $status) = WorkerManager::Status::node(server => "} server { listen 127.0.0.1:$port http2;
        location /workers { worker_manager_status; }");
    $node->up;
    my @h2 = '--http2-prior-knowledge';
    my $stream = $node->path('out/stream');
    my $reader = fork // die $!;
    if (!$reader) {
        exec 'curl', '-sN', @h2, '-o', $stream, "http://127.0.0.1:$port/workers/events";
        POSIX::_exit(127);
    }
    $node->wait_for('the history', sub { $node->read('out/stream') =~ /^id: \S+:4$/m });
    $status->{base} = "http://127.0.0.1:$port";
    # curl may send the redirected request on the connection that the old worker is closing.
    my @again = qw(--retry 3 --retry-all-errors);
    my $waiting = waiting($node, $status, '/workers/wait', 'after=1.0&until=done&timeout=19s', '-L', @again, @h2);
    $node->signal('HUP');
    is((answer($node, $waiting))[0], 200, 'a wait');
    is(exit_of($node, $reader), 0, 'a stream ends whole when its worker is to quit');
    my @seqs = $node->read('out/stream') =~ /^id: \w+:(\d+)$/mg;
    is_deeply(\@seqs, [ 1 .. @seqs ], 'without a gap or a repeat');
    $node->wait_events('master_exit', 1, 1);
    unlike($node->log, qr/open socket/, 'nginx found no connection left open');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

# `wait` sends a client on to where it was, whatever the path that it was asked by.
subtest 'where it sends on' => sub {
    my $port = WorkerManager::free_port();
    my ($node, $status) = WorkerManager::Status::node(server => "
        location = /renamed { rewrite ^ /workers/wait; }
    }
    server { listen 127.0.0.1:$port http2;
        location /workers { worker_manager_status; }");
    # Another nginx in front, under other names, which doesn't end with the workers behind it.
    my $proxy = WorkerManager::free_port();
    my $front = WorkerManager->new(manager => undef, log => 0, workers => 1, http => <<"END");
    server {
        listen 127.0.0.1:$proxy;
        proxy_http_version 1.1;
        location /ops/state/ { proxy_pass http://127.0.0.1:$status->{port}/workers/; }
    }
END
    $front->start;
    $node->up;
    my @h2 = '--http2-prior-knowledge';
    my $own = $status->{base};
    my $generation = 1;
    for my $case (
        [ $own, '/workers/wait', 'wait', 'the path' ],
        [ $own, '//evil.example/../workers/wait', 'wait', 'a path like that of another host' ],
        [ $own, '/workers/%77ait', '', 'a path with an escape' ],
        [ $own, '/renamed', '', 'a path that is rewritten' ],
        [ "http://127.0.0.1:$port", '//evil.example/../workers/wait', 'wait', 'HTTP/2', @h2 ],
        [ "http://127.0.0.1:$proxy", '/ops/state/wait', 'wait', 'a proxy that renames the location' ],
    ) {
        my ($base, $path, $page, $name, @options) = @$case;
        unlink $node->path('out/head');
        my @ask = ('-D', $node->path('out/head'), '--path-as-is', @options);
        my $query = "after=$generation.0&until=done&timeout=19s";
        my $waiting = waiting($node, { base => $base }, $path, $query, @ask);
        my $followed = waiting($node, { base => $base }, $path, $query, '-L', '--path-as-is',
            qw(--retry 3 --retry-all-errors), @options);
        my $clients = $base =~ /:$port$/ ? $port : $status->{port};
        $node->wait_for('both to wait', sub { clients($node, $clients) >= 2 });
        $node->signal('HUP');
        is((answer($node, $waiting))[0], 307, "$name: it sends on");
        my ($location) = $node->read('out/head') =~ /^location: (.*)\r$/mi;
        like($location, qr/\A$page\?after=$generation\.0&until=done&timeout=\d+ms\z/,
            'relative to where the client was');
        is((answer($node, $followed))[0], 200, 'and who follows gets there');
        $generation++;
        $node->wait_events('master_exit', 1, $generation - 1);
    }
    $front->down;
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that is killed or stopped' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 1);
    $node->up;
    my $waiting = waiting($node, $status, '/workers/wait', 'after=1&timeout=19s');
    $node->wait_for('it to wait', sub { clients($node, $status->{port}) >= 1 });
    $node->signal('TERM', ($node->on_duty)[0]);
    $node->wait_events('worker_start', 2);
    exit_of($node, $waiting->{pid});
    like($node->read($waiting->{name}), qr/\A\n000 0\n/, 'a fast stop waits for nobody');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload that changes the zone is done when the workers of the one before are gone' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => 'zone one 128k;');
    $node->up;
    my $former = sub { ($status->json // {})->{zone}{former_workers} };
    is($former->(), 0, 'there was no other zone to begin with');
    my @held;
    my $generation = 1;
    # By name, by size, and while workers of two zones before still drain.
    for my $zone ('two 128k', 'two 256k') {
        push @held, [ $generation, $node->hold_connection($generation) ];
        $node->configure(manager => "zone $zone;");
        $generation++;
        $node->signal('HUP');
        $node->wait_events('master_ready', 1, $generation);
        $node->wait_for('all but those with a connection to end', sub { ($former->() // 0) == @held });
        my $answer = $status->ask('/workers/wait?after=' . ($generation - 1) . '&until=ready');
        is($answer->{status}, 200, "generation $generation is ready");
        $answer = $status->ask('/workers/wait?after=' . ($generation - 1) . '&until=done&timeout=300ms');
        is($answer->{status}, 504, 'and not done');
        my $workers = @held == 1 ? '1 worker drains' : '2 workers drain';
        like($answer->{content}, qr/$workers in a zone before this one/, 'for that reason');
    }
    like($status->ask('/workers/metrics')->{content},
        qr/^nginx_worker_manager_former_zone_workers 2(?:\.0)?$/m, 'as a metric');
    # A reload that keeps the zone does not forget them.
    $generation++;
    $node->signal('HUP');
    $node->wait_events('master_ready', 1, $generation);
    $node->wait_events('master_exit', 1, $generation - 1);
    is($former->(), 2, 'nor does a reload that keeps it forget them');
    # One ends, the other is killed when nobody of its zone is left to tell it.
    my $path = '/workers/wait?after=' . ($generation - 1) . '&until=done&timeout=20s';
    close $held[0][1];
    $node->wait_for('one to end', sub { ($former->() // 2) == 1 });
    my ($last) = $node->on_duty($held[1][0]);
    my $pid = fork // die $!;
    if (!$pid) {
        POSIX::_exit($status->ask($path)->{status} == 200 ? 0 : 1);
    }
    ok(!defined over($pid), 'it is waited for');
    $node->signal('KILL', $last);
    is(exit_of($node, $pid), 0, 'and then the reload is done');
    is($former->(), 0, 'nobody is left');
    $node->down;
    unlike($node->log, qr/\[(?:alert|crit|emerg)\] \S+ worker_manager|exited on signal (?!9)/, 'without a fault');
};

done_testing;
