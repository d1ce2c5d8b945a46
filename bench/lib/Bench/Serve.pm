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
    my @kinds = qw(bare module again);
    my %rate;
    # Many short turns: where memory lies differs from start to start, and the rate with it.
    for (1 .. 3 * $turns) {
        for my $kind (@kinds) {
            # One worker, so that it and wrk have a core each.
            my $port = configure(workers => 1, module => $kind eq 'module', manager => '');
            my $pid = start();
            wait_until(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) });
            my $output = `wrk -t1 -c32 -d1s http://127.0.0.1:$port/ 2>&1`;
            push @{ $rate{$kind} }, $output =~ m{Requests/sec:\s+([\d.]+)} ? $1 : die $output;
            stop($pid);
        }
        push @kinds, shift @kinds;
    }
    my %typical = map { $_ => median(@{ $rate{$_} }) } @kinds;
    my $ratio = sub {
        my ($kind) = @_;
        return median(map { $rate{$kind}[$_] / $rate{bare}[$_] } 0 .. $#{ $rate{bare} });
    };
    row('requests per second', map({ sprintf('%.0f', $typical{$_}) } qw(bare module)),
        sprintf('%.3f', $ratio->('module')), '>= 0.99', $ratio->('module') >= 0.99);
    row('  bare nginx and bare nginx', sprintf('%.0f', $typical{again}), '-',
        sprintf('%.3f', $ratio->('again')), '', 1);
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
