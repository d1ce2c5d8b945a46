package Bench::Loss;

# How soon a death is told.

use strict;
use warnings;

use Bench;
use IO::Socket::INET;
use Time::HiRes ();

# From the kill of a worker to its worker_lost, milliseconds: of workers that serve, whose successor
# may be the one to tell, and of workers that drain, who have none. A heartbeat plays no part.
sub run {
    system('cc', '-O2', '-shared', '-fPIC', "-I$top/nginx", '-o', "$root/stamp.so",
        "$top/bench/stamp.c") == 0 or die "cc failed\n";
    open my $file, '>', "$root/slow" or die $!;
    print $file 'x' x 1_000_000;
    close $file;
    loss('serving', 200, \&kill_serving);
    loss('draining', 200, \&kill_draining);
}

sub loss {
    my ($name, $kills, $kill) = @_;
    open my $file, '>', "$root/stamps" or die $!;
    chmod 0666, "$root/stamps";
    my $port = configure(workers => 8, module => 1, listen => 'reuseport',
        manager => 'interval 10m; failed 10m;', on => qq{on * call $root/stamp.so stamp "$root/stamps";});
    my $pid = start();
    wait_until(sub { stamps('worker_start') == 8 });
    my %killed;
    $kill->($pid, $port, $kills, \%killed);
    wait_until(sub { stamps('worker_lost') >= keys %killed });
    my @took = sort { $a <=> $b }
        map { ($_->{at} - $killed{ $_->{pid} }) * 1000 } stamps('worker_lost');
    stop($pid);
    my ($p50, $p99) = @took[ $#took * 0.5, $#took * 0.99 ];
    my $row = sub {
        my ($which, $value, $bound) = @_;
        row("kill to worker_lost, $name, $which of " . @took, '-', sprintf('%.2f ms', $value), '-',
            "<= $bound ms", $value <= $bound);
    };
    $row->('p50', $p50, 5);
    $row->('p99', $p99, 20);
}

sub stamps {
    my ($event) = @_;
    open my $file, '<', "$root/stamps" or die $!;
    my @stamps;
    while (my $line = <$file>) {
        my ($name, $pid, $generation, $at) = split ' ', $line;
        push @stamps, { pid => $pid, generation => $generation, at => $at / 1e9 } if $name eq $event;
    }
    return @stamps;
}

sub kill_one {
    my ($victim, $killed) = @_;
    $killed->{$victim} = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC());
    kill 'KILL', $victim;
}

sub kill_serving {
    my ($master, $port, $kills, $killed) = @_;
    for my $n (1 .. $kills) {
        my ($victim) = grep { !$killed->{ $_->{pid} } } stamps('worker_start');
        kill_one($victim->{pid}, $killed);
        wait_until(sub { stamps('worker_start') == 8 + $n });
    }
}

sub kill_draining {
    my ($master, $port, $kills, $killed) = @_;
    for (my $generation = 1; keys %$killed < $kills; $generation++) {
        # Connections to all workers of the generation keep them.
        my (%held, @sockets);
        wait_until(sub {
            my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or return;
            print $socket "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
            while (my $line = <$socket>) {
                if ($line =~ /^X-Worker: (\d+)/) {
                    $held{$1}++ or push @sockets, $socket;
                    last;
                }
            }
            return grep({ $_->{generation} == $generation && $held{ $_->{pid} } }
                stamps('worker_start')) == 8;
        });
        kill 'HUP', $master;
        my $draining = sub { grep { $_->{generation} == $generation } stamps('worker_draining') };
        wait_until(sub { $draining->() == 8 });
        for my $victim ($draining->()) {
            last if keys %$killed == $kills;
            kill_one($victim->{pid}, $killed);
            wait_until(sub { stamps('worker_lost') == keys %$killed });
        }
    }
}

1;
