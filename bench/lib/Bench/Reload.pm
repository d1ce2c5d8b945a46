package Bench::Reload;

# What clients see of a reload when a program of 1 s runs at worker_start: awaited, awaited with
# `reuseport`, and not awaited.

use strict;
use warnings;

use Bench;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(time sleep);

my $WORKERS = 8;

sub run {
    for my $action ('exec', 'exec_nowait') {
        for my $listen ('', 'reuseport') {
            my ($slowest, $slow, $number) = reload($action, $listen);
            row("slowest in a reload, $action" . ($listen && ", $listen"), '-', sprintf('%.2f s', $slowest),
                '-', '', 1);
            row('  of 100 ms and more', '-', sprintf('%.1f %%', 100 * $slow / $number), '-', '', 1);
        }
    }
}

sub reload {
    my ($action, $listen) = @_;
    my $port = configure(workers => $WORKERS, module => 1, listen => $listen, manager => '',
        on => "on worker_start $action /bin/sleep 1;", connections => 1024);
    my $pid = start();
    wait_until(sub { get($port) });
    # All of them, one after the other.
    sleep $WORKERS + 2;
    my $until = time + $WORKERS + 4;
    my @clients = map { client($port, $until, $_) } 1 .. $WORKERS;
    sleep 1;
    kill 'HUP', $pid;
    waitpid $_, 0 for @clients;
    stop($pid, signal => 'TERM');
    my @took = sort { $a <=> $b } map {
        open my $file, '<', "$root/client-$_" or die $!;
        my @lines = <$file>;
        @lines;
    } 1 .. $WORKERS;
    return ($took[-1], scalar(grep { $_ >= 0.1 } @took), scalar @took);
}

# One request after the other, each on a new connection, every 5 ms.
sub client {
    my ($port, $until, $n) = @_;
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    my @took;
    while (time < $until) {
        my $from = time;
        get($port) or warn "no answer\n";
        push @took, time - $from;
        sleep 0.005;
    }
    open my $file, '>', "$root/client-$n" or die $!;
    print $file map { "$_\n" } @took;
    close $file;
    POSIX::_exit(0);
}

sub get {
    my ($port) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or return;
    print $socket "GET / HTTP/1.0\r\n\r\n";
    local $/;
    return <$socket>;
}

1;
