# worker_manager_status: how the open connections of a worker are counted, and what that costs.
use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use WorkerManager;
use WorkerManager::Status;

# What one worker has, without the request that asks for it.
sub connections {
    my ($status) = @_;
    my $is = $status->json or return '';
    my $own = $is->{workers}[0]{connections} or return '';
    return "@{[ $own->{active} - 1 ]} active, $own->{idle} idle";
}

# Waits until they are counted as expected.
sub counted {
    my ($node, $status, $expected, $name) = @_;
    my $seen = '';
    $node->wait_for($expected, sub { ($seen = connections($status)) eq $expected });
    is($seen, $expected, $name);
}

sub h2_frame {
    my ($type, $flags, $stream, $payload) = @_;
    return pack('Cn CC N', 0, length $payload, $type, $flags, $stream) . $payload;
}

# A connection of HTTP/2 with prior knowledge, and requests on it; nothing here answers to pings.
sub h2 {
    my ($port, @paths) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $!;
    my $bytes = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . h2_frame(4, 0, 0, '');
    my $stream = 1;
    for my $path (@paths) {
        # :method GET and :scheme http of the static table, :path and :authority as literals.
        my $fields = "\x82\x86\x04" . chr(length $path) . $path . "\x01\x01x";
        $bytes .= h2_frame(1, 5, $stream, $fields);
        $stream += 2;
    }
    syswrite $socket, $bytes;
    return $socket;
}

subtest 'what is in use and what is idle' => sub {
    my ($http1, $http2) = map { WorkerManager::free_port() } 1, 2;
    my ($node, $status) = WorkerManager::Status::node(workers => 1, manager => 'interval 60s;',
        server => <<"END");
        location /pool { proxy_pass http://pool/quick; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
    upstream pool { server 127.0.0.1:$http1; keepalive 4; }
    server {
        listen 127.0.0.1:$http1;
        location /quick { return 200 "quick\\n"; }
    }
    server {
        listen 127.0.0.1:$http2 http2;
        location /quick { return 200 "quick\\n"; }
        location /slow { limit_rate 400; root conf; }
END
    $node->up;
    counted($node, $status, '0 active, 0 idle', 'nobody is there');

    my $first = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $http1) or die $!;
    syswrite $first, "GET /quick HTTP/1.1\r\nHost: x\r\n\r\n";
    counted($node, $status, '0 active, 1 idle', 'HTTP/1.1 between requests');
    my $held = $node->hold_connection(1);
    counted($node, $status, '1 active, 1 idle', 'HTTP/1.1 with a request under way');
    close $_ for $first, $held;
    counted($node, $status, '0 active, 0 idle', 'they are gone');

    my $idle = h2($http2, '/quick');
    counted($node, $status, '0 active, 1 idle', 'HTTP/2 between requests');
    my $busy = h2($http2, '/slow', '/quick');
    counted($node, $status, '1 active, 1 idle', 'HTTP/2 with a request under way');
    close $_ for $idle, $busy;
    counted($node, $status, '0 active, 0 idle', 'they are gone, too');

    $status->ask('/pool');
    counted($node, $status, '0 active, 2 idle', 'both ends of one that is kept for an upstream');
    $node->down;
};

# Nanoseconds that the worker spends on an answer.
sub cost {
    my ($connections) = @_;
    my ($node, $status) = WorkerManager::Status::node(workers => 1, connections => $connections,
        manager => 'interval 60s;');
    $node->up;
    my ($pid) = $node->on_duty;
    my $spent = sub {
        open my $file, '<', "/proc/$pid/schedstat" or die $!;
        return (split ' ', scalar <$file>)[0];
    };
    $status->ask('/workers/metrics') for 1 .. 20;
    my ($least, $number) = (undef, 50);
    # The least of several: others use the machine, too.
    for (1 .. 5) {
        my $before = $spent->();
        $status->ask('/workers/metrics') for 1 .. $number;
        my $cost = ($spent->() - $before) / $number;
        $least = $cost if !defined $least || $cost < $least;
    }
    $node->down;
    return $least;
}

subtest 'an answer costs no more where there may be more connections' => sub {
    my ($few, $many) = map { cost($_) } 1024, 524_288;
    ok($many < 3 * $few, sprintf('%.0f us with 1,024, %.0f us with 524,288', $few / 1e3, $many / 1e3));
};

done_testing;
