# What holds a worker that drains: the status names its oldest connections, and what each is for.
use strict;
use warnings;
no warnings 'exec';
use IO::Select;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Status;

my @children;
END { my $status = $?; kill 'TERM', @children if @children; waitpid $_, 0 for @children; $? = $status }

# A server behind nginx: it agrees to an upgrade and echoes, and of anything else reads the headers only.
sub backend {
    my $socket = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1') or die $!;
    my $port = $socket->sockport;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        my ($select, %head) = IO::Select->new($socket);
        while (my @ready = $select->can_read) {
            for my $from (@ready) {
                if ($from == $socket) { $select->add(scalar $socket->accept); next }
                if (!sysread $from, my $bytes, 4096) { $select->remove($from); close $from; next }
                elsif ($head{$from}) { syswrite $from, $bytes }
                elsif ($bytes =~ /upgrade: (\w+)/i) {
                    $head{$from} = 1;
                    syswrite $from, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: $1\r\nConnection: upgrade\r\n\r\n";
                }
            }
        }
        POSIX::_exit(0);
    }
    push @children, $pid;
    return $port;
}

sub connection {
    my ($port, $text) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $!;
    $socket->autoflush(1);
    print $socket $text;
    return $socket;
}

# The beginning of a connection of HTTP/2 with some requests.
sub h2 {
    my (@paths) = @_;
    my $frame = sub {
        my ($type, $flags, $stream, $payload) = @_;
        return pack('Cn CC N', 0, length $payload, $type, $flags, $stream) . $payload;
    };
    my $stream = -1;
    # GET and http of the static table, the path and a host as they are.
    return join '', "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", $frame->(4, 0, 0, ''), map {
        $frame->(1, 5, $stream += 2, "\x82\x86\x04" . chr(length $_) . $_ . "\x01\x01x")
    } @paths;
}

sub client { my ($socket) = @_; return '127.0.0.1:' . $socket->sockport }

# A client that is a process of its own.
sub curl {
    my (@arguments) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDOUT, '>', '/dev/null';
        open STDERR, '>', '/dev/null';
        exec 'curl', '-skN', '--max-time', 60, @arguments;
        POSIX::_exit(127);
    }
    push @children, $pid;
    return $pid;
}

# A node whose worker answers at once, that has one connection of each kind.
sub node {
    my (%options) = @_;
    my %port = map { $_ => WorkerManager::free_port() } qw(tls h2c);
    my ($node, $status) = WorkerManager::Status::node(workers => 1,
        manager => 'interval 150ms; failed 10s;', server => <<"END", %options);
    }
    upstream behind { server 127.0.0.1:$options{backend}; }
    server {
        listen 127.0.0.1:$port{h2c} http2;
        server_name plain.example;
        location /slow { limit_rate 400; root conf; }
    }
    server {
        listen 127.0.0.1:$port{tls} ssl http2;
        server_name tls.example;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        location /slow { limit_rate 400; root conf; }
    }
    server {
        listen 127.0.0.1:$options{port};
        server_name one.example two.example;
        location / { return 200 "ok\\n"; }
        location /slow { limit_rate 400; root conf; }
        location /upload { proxy_pass http://behind; proxy_request_buffering off; }
        location /chat {
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Upgrade \$http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 60s;
        }
END
    certificate($node);
    return ($node, $status, \%port);
}

sub certificate {
    my ($node) = @_;
    my ($key, $cert) = map { $node->path("conf/$_.pem") } qw(key cert);
    system("openssl req -x509 -newkey rsa:2048 -nodes -keyout $key -out $cert -days 2 "
        . "-subj /CN=tls.example >/dev/null 2>&1") == 0 or die "openssl: $?";
}

# What holds the worker of the first generation: what the status says, and its connections by a key.
sub held {
    my ($status) = @_;
    my $is = $status->json or return;
    my ($old) = grep { $_->{generation} == 1 } @{ $is->{workers} } or return;
    return $old->{held_by};
}

sub find { my ($held, $field, $value) = @_;
    return grep { ($_->{$field} // '') eq $value } @{ $held->{connections} } }

# Waits until the worker is held by so many.
sub wait_held {
    my ($node, $status, $number) = @_;
    return $node->wait_for("$number connections that hold the worker", sub {
        my $held = held($status);
        $held && $held->{total} == $number ? $held : undef;
    });
}

subtest 'each kind of connection' => sub {
    my $backend = backend();
    my $http = WorkerManager::free_port();
    my ($node, $status, $port) = node(backend => $backend, port => $http);
    $node->up;
    is($status->json->{workers}[0]{held_by}, undef, 'a worker that serves is held by nobody');

    my $idle = connection($http, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    <$idle> // fail 'an answer';
    my $began = time;
    my $download = connection($http,
        "GET /slow?token=secret HTTP/1.1\r\nHost: two.example\r\n\r\n");
    <$download> // fail 'an answer';
    my $upload = connection($http,
        "POST /upload/%7Bx%7D#f HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n12345");
    my $chat = connection($http,
        "GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    like(scalar <$chat>, qr/101/, 'a websocket');
    my $other = connection($http,
        "GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
    like(scalar <$other>, qr/101/, 'another protocol');
    my $begun = connection($http, "GET /unfin");
    curl('--http1.1', "https://127.0.0.1:$port->{tls}/slow?a=b");
    curl('--http2', "https://127.0.0.1:$port->{tls}/slow");
    my $both = connection($port->{h2c}, h2('/slow?n=1', '/slow?n=2'));
    $node->wait_for('nine active connections', sub {
        my $is = $status->json or return;
        # With that of the status and two to the upstream, and a third for the upload.
        ($is->{workers}[0]{connections}{active} // 0) >= 8 + 1 + 3;
    });

    $node->signal('HUP');
    $node->wait_events('worker_draining', 1, 1);
    my $held = wait_held($node, $status, 8);
    my $answer = $status->ask('/workers')->{content};
    WorkerManager::Status::is_valid('the status is as its schema says', 'status', $answer);
    unlike($answer, qr/secret|a=b|n=1/, 'no arguments');
    cmp_ok($held->{looked_at}, '>=', $began, 'when it was looked');
    is(scalar(find($held, 'client', client($idle))), 0, 'nginx has closed the idle one');

    my $is = sub { my ($name, $socket, %fields) = @_;
        my ($one) = ref $socket eq 'CODE' ? $socket->() : find($held, 'client', client($socket));
        my %seen = map { $_ => $one->{$_} } keys %fields;
        is_deeply(\%seen, \%fields, $name);
        return $one;
    };
    my $one = $is->('a download', $download, protocol => 'http/1', server => 'one.example',
        method => 'GET', path => '/slow', upstream => undef, requests => 1);
    cmp_ok($one->{sent}, '>', 100, 'bytes were sent');
    cmp_ok($one->{$_}, '<', time - $began + 1, "its $_") for qw(age request_age);
    my $behind = "127.0.0.1:$backend";
    $is->('an upload', $upload, protocol => 'http/1', method => 'POST', sent => 0,
        path => '/upload/%7Bx%7D', upstream => $behind, requests => 1);
    $is->('a websocket', $chat, protocol => 'websocket', method => 'GET', path => '/chat',
        upstream => $behind, requests => 1);
    $is->('another protocol', $other, protocol => 'upgraded', path => '/chat', upstream => $behind);
    $is->('a request that has only begun', $begun, protocol => 'http', server => 'one.example',
        method => undef, path => undef, sent => 0);
    $is->('HTTPS', sub { grep { $_->{protocol} eq 'http/1' } find($held, 'server', 'tls.example') },
        path => '/slow', requests => 1);
    $is->('HTTP/2', sub { grep { $_->{protocol} eq 'http/2' } find($held, 'server', 'tls.example') },
        method => 'GET', path => '/slow', requests => 1);
    $is->('HTTP/2 with two requests', $both, server => 'plain.example',
        protocol => 'http/2', method => 'GET', path => '/slow', requests => 2);
    my @ages = map { $_->{age} } @{ $held->{connections} };
    is_deeply(\@ages, [ sort { $b <=> $a } @ages ], 'the oldest is first');

    # What moves, and what does not.
    my $still = $node->wait_for('the upload to be idle', sub {
        my ($one) = find(held($status) // {}, 'client', client($upload));
        $one && $one->{idle_since} ? $one : undef;
    });
    cmp_ok($still->{idle_since}, '>=', $began, 'since a look at it');
    print $upload '6';
    $node->wait_for('the upload to go on', sub {
        my ($one) = find(held($status) // {}, 'client', client($upload));
        $one && (!$one->{idle_since} || $one->{idle_since} > $still->{idle_since});
    });
    pass('it went on');

    kill 'TERM', @children[ 1 .. $#children ];
    close $_ for $download, $upload, $other, $begun, $both;
    $held = wait_held($node, $status, 1);
    is($held->{connections}[0]{protocol}, 'websocket', 'the last one is left');
    close $chat;
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a connection of stream' => sub {
    my ($backend, $port) = (backend(), WorkerManager::free_port());
    my ($node, $status) = WorkerManager::Status::node(workers => 1,
        manager => 'interval 150ms; failed 10s;', tail => <<"END");
stream { server { listen 127.0.0.1:$port; proxy_pass 127.0.0.1:$backend; } }
END
    my ($code, $said) = $node->nginx('-t');
    plan skip_all => 'this nginx has no stream' if $code && $said =~ /unknown directive "stream"/;
    $node->up;
    my $socket = connection($port, "upgrade: echo\n");
    like(scalar <$socket>, qr/101/, 'it is passed on');
    $node->signal('HUP');
    my $held = wait_held($node, $status, 1);
    my ($one) = find($held, 'client', client($socket));
    is($one->{protocol}, 'stream', 'it is known');
    is($one->{server}, "127.0.0.1:$port", 'by where it came to');
    is($one->{upstream}, "127.0.0.1:$backend", 'and where it goes');
    is($one->{$_}, undef, "no $_") for qw(requests method path request_age);
    cmp_ok($one->{sent}, '>', 20, 'bytes were sent');
    close $socket;
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'more than there is room for' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 1,
        manager => 'interval 150ms; failed 10s; draining_warn 300ms;');
    $node->up;
    my @held;
    for my $n (1 .. 11) {
        # Each is seen to have come before the next.
        push @held, connection($node->{port}, "GET /slow?n=$n HTTP/1.1\r\nHost: x\r\n\r\n");
        my $line = readline $held[-1];
    }
    # A path that is longer than its room, of two bytes a character, and one that hides something.
    my @odd = map { connection($node->{port}, "GET $_ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n") }
        '/' . "\xc3\xa4" x 300, "/\xff\xe2\x80\xae";
    $node->signal('HUP');
    my $held = wait_held($node, $status, 13);
    is_deeply([ map { $_->{client} } @{ $held->{connections} } ],
        [ map { client($_) } @held[ 0 .. 7 ] ], 'the oldest eight, in order');
    $node->wait_events('worker_stuck', 1, 1);
    my @lines = $node->log =~ /worker_manager: this worker is held by (.*)/g;
    is(scalar @lines, 9, 'nginx\'s log has them when the worker is stuck');
    like($lines[0], qr{^a connection of \d+ s: http/1 of 127\.0\.0\.1:\d+, "GET /slow", .*\d+ bytes sent$},
        'each as a line');
    like($lines[8], qr/^5 younger connections, too/, 'and how many more');
    close $_ for @held;
    $held = wait_held($node, $status, 2);
    my ($long, $hidden) = map { $_->{path} } @{ $held->{connections} };
    like($long, qr/^\/\x{e4}{50,}\x{2026}$/, 'a long path is cut between characters');
    is($hidden, '/%FF%E2%80%AE', 'what can not be seen is escaped');
    close $_ for @odd;
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a zone too small for all of them' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2,
        manager => 'zone small 32k; interval 150ms; failed 10s;');
    $node->up;
    # One for each worker, whichever accepts them.
    my %held;
    $node->wait_for('a connection to each worker', sub {
        my $socket = $node->hold_connection(1);
        push @{ $held{ ($node->held)[-1]{pid} } }, $socket;
        return keys %held == 2;
    });
    $node->signal('HUP');
    $node->wait_events('worker_draining', 2, 1);
    my $known = sub {
        my $is = $status->json or return;
        return grep { $_->{held_by} } @{ $is->{workers} };
    };
    $node->wait_for('what holds one', sub { $known->() });
    $status->wait_beats($node);
    my @known = $known->();
    is(scalar @known, 1, 'the zone has room for one');
    my ($other) = grep { $_ != $known[0]{pid} } keys %held;
    close $_ for @{ $held{ $known[0]{pid} } };
    $node->wait_for('what holds the other', sub {
        my ($one) = $known->();
        return $one && $one->{pid} == $other;
    });
    close $_ for @{ $held{$other} };
    $node->wait_events('master_exit', 1, 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
