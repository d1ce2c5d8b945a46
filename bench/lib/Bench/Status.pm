package Bench::Status;

# What the status costs: an answer, an open stream, and a location that nobody asks.

use strict;
use warnings;

use Bench;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);

my $STATUS = 'location /workers { worker_manager_status; }';

sub run {
    answers();
    connections();
    holders();
    streams();
}

# An answer with 512 workers, beside one of the same size from a file.
sub answers {
    my $port = configure(workers => 512, module => 1, manager => '', locations => $STATUS
        . "location /file { alias $root/file; }", connections => 64);
    my $pid = start();
    my $json = '';
    wait_until(sub { $json = get($port, '/workers'); () = $json =~ /"id":"1-/g; $json =~ /"running":512,/ });
    open my $file, '>', "$root/file" or die $!;
    print $file $json;
    close $file;
    my ($bare, $status, $metrics) = map { latency($port, $_) } '/file', '/workers', '/workers/metrics';
    row(sprintf('JSON with 512 workers, %d KB', length($json) / 1000), sprintf('%.2f ms', $bare),
        sprintf('%.2f ms', $status), sprintf('%.1f', $status / $bare), '<= 2 ms', $status <= 2);
    row('metrics with 512 workers', '-', sprintf('%.2f ms', $metrics), '-', '', 1);
    stop($pid);
}

# An answer of a worker that may have many connections and has few, beside one that may have few.
sub connections {
    my @took;
    for my $number (1024, 524_288) {
        my $port = configure(workers => 1, module => 1, manager => '', locations => $STATUS,
            connections => $number);
        my $pid = start();
        wait_until(sub { get($port, '/workers/metrics') });
        push @took, latency($port, '/workers/metrics');
        stop($pid);
    }
    my ($few, $many) = @took;
    row('metrics, 524,288 worker_connections for 1,024', sprintf('%.2f ms', $few),
        sprintf('%.2f ms', $many), sprintf('%.1f', $many / $few), '<= 1.5', $many <= 1.5 * $few);
}

# The heartbeat of a worker that drains, which looks for what holds it, beside the one of the same worker while
# it serves.
sub holders {
    my ($number, $interval) = (10_000, 0.1);
    my $port = configure(workers => 1, module => 1, manager => "interval ${\ int 1000 * $interval}ms; failed 10s;",
        locations => "$STATUS client_header_timeout 10m;",
        # With few left nginx would close some of those that have no request (`ngx_drain_connections`).
        connections => 1.2 * $number);
    my $pid = start();
    wait_until(sub { get($port, '/') });
    my ($worker) = workers($pid);
    # Each has begun with a request.
    my @open = map {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $!;
        syswrite $socket, 'GET /';
        $socket;
    } 1 .. $number;
    my $beat = sub {
        my ($from, $before) = (time, cpu($worker));
        sleep 5;
        return (cpu($worker) - $before) / ((time - $from) / $interval) / 1e6;
    };
    sleep 1;
    my $serving = $beat->();
    kill 'HUP', $pid;
    wait_until(sub { get($port, '/workers') =~ /"total":$number,/ });
    my $draining = $beat->();
    row("heartbeat of a worker with $number connections", sprintf('%.2f ms', $serving), '-', '-', '', 1);
    row('the same while it drains', '-', sprintf('%.2f ms', $draining), sprintf('%.1f', $draining / $serving),
        '<= 2 ms', $draining <= 2);
    stop($pid, signal => 'TERM');
}

# The mean time of an answer, one after the other on one connection, milliseconds.
sub latency {
    my ($port, $path) = @_;
    my $output = `wrk -t1 -c1 -d3s http://127.0.0.1:$port$path 2>&1`;
    return $output =~ m{Requests/sec:\s+([\d.]+)} ? 1000 / $1 : die $output;
}

sub get {
    my ($port, $path) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5)
        or return '';
    print $socket "GET $path HTTP/1.0\r\nHost: localhost\r\n\r\n";
    local $/;
    return (split /\r\n\r\n/, scalar(<$socket>) // '', 2)[1] // '';
}

# A thousand streams of one worker, beside as many answers that nginx itself is slow to send.
sub streams {
    my $number = 1000;
    open my $file, '>', "$root/slow" or die $!;
    print $file 'x' x 1_000_000;
    close $file;
    my $port = configure(workers => 1, module => 1, manager => '', locations => $STATUS,
        connections => 2 * $number + 100);
    my %kilobytes;
    for my $path ('/slow', '/workers/events') {
        my $pid = start();
        wait_until(sub { get($port, '/') });
        my ($worker) = workers($pid);
        my $idle = wake_ups($worker);
        my $before = memory($worker);
        my @open = map { hold($port, $path) } 1 .. $number;
        $kilobytes{$path} = (memory($worker) - $before) / $number;
        if ($path eq '/workers/events') {
            my $more = wake_ups($worker) - $idle;
            row("wake-ups per second for $number streams", '-', sprintf('%.1f', $more), '-', '<= 10',
                $more <= 10);
            row('wake-ups per second without streams', '-', sprintf('%.1f', $idle), '-', '<= 1',
                $idle <= 1);
        }
        stop($pid, signal => 'TERM');
    }
    my ($bare, $stream) = @kilobytes{ '/slow', '/workers/events' };
    row("memory of an open stream, $number of them", sprintf('%.1f KB', $bare),
        sprintf('%.1f KB', $stream), sprintf('%.2f', $stream / $bare), '<= 16 KB', $stream <= 16);
}

# Opens a connection and reads the beginning of its answer.
sub hold {
    my ($port, $path) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $!;
    print $socket "GET $path HTTP/1.1\r\nHost: localhost\r\n\r\n";
    sysread $socket, my $answer, 1024;
    return $socket;
}

# Kilobytes of a process's own memory.
sub memory {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/status" or die $!;
    return (map { /^RssAnon:\s+(\d+)/ ? $1 : () } <$file>)[0];
}

# How often a process wakes up, per second.
sub wake_ups {
    my ($pid) = @_;
    my $count = sub {
        open my $file, '<', "/proc/$pid/status" or die $!;
        return (map { /^voluntary_ctxt_switches:\s+(\d+)/ ? $1 : () } <$file>)[0];
    };
    my ($from, $before) = (time, $count->());
    sleep 5;
    return ($count->() - $before) / (time - $from);
}

1;
