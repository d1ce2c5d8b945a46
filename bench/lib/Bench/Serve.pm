package Bench::Serve;

# What serving costs: requests per second, compared turn by turn, and the heartbeat of an idle worker.

use strict;
use warnings;

use Bench;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);

sub run {
    requests();
    heartbeat();
}

sub requests {
    my %rate;
    # Many short turns: where memory lies differs from start to start, and the rate with it.
    for my $turn (1 .. 3 * $turns) {
        for my $module ($turn % 2 ? (0, 1) : (1, 0)) {
            # One worker, so that it and wrk have a core each.
            my $port = configure(workers => 1, module => $module, manager => '');
            my $pid = start();
            wait_until(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) });
            my $output = `wrk -t1 -c32 -d1s http://127.0.0.1:$port/ 2>&1`;
            push @{ $rate{$module} }, $output =~ m{Requests/sec:\s+([\d.]+)} ? $1 : die $output;
            stop($pid);
        }
    }
    my $ratio = median(map { $rate{1}[$_] / $rate{0}[$_] } 0 .. 3 * $turns - 1);
    row('requests per second', sprintf('%.0f', median(@{ $rate{0} })),
        sprintf('%.0f', median(@{ $rate{1} })), sprintf('%.3f', $ratio), '>= 0.99', $ratio >= 0.99);
}

# An idle worker with a heartbeat a thousand times as often as by default, scaled back.
sub heartbeat {
    configure(workers => 2, module => 1, manager => 'interval 10ms;');
    my $pid = start();
    wait_until(sub { workers($pid) == 2 });
    my ($worker) = workers($pid);
    my ($from, $used) = (time, cpu($worker));
    sleep 5;
    $used = cpu($worker) - $used;
    my $beats = (time - $from) / 0.01;
    stop($pid);
    my $hour = $used / 1000 / $beats * 360;
    row('heartbeat of an idle worker, CPU per hour', '-', sprintf('%.0f us', $hour), '-', '', 1);
}

1;
