package Bench::Loss;

# How soon a death is told, and how long the lock is lost with its holder.

use strict;
use warnings;

use Bench;
use IO::Socket::INET;
use Time::HiRes ();

# From the kill of a worker to its worker_lost, milliseconds: of workers that serve, whose successor
# may be the one to tell, and of workers that drain, who have none. A heartbeat plays no part.
sub run {
    system('cc', '-O2', '-shared', '-fPIC', "-I$top/nginx", '-o', "$root/stamp.so",
        "$top/bench/timestamp.c") == 0 or die "cc failed\n";
    open my $file, '>', "$root/slow" or die $!;
    print $file 'x' x 1_000_000;
    close $file;
    loss('serving', 200, \&kill_serving);
    loss('draining', 200, \&kill_draining);
    holder(100);
}

sub loss {
    my ($name, $kills, $kill) = @_;
    fresh_stamps();
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

# From the kill of a worker in a callback to the next event of one that waits for the lock.
sub holder {
    my ($kills) = @_;
    fresh_stamps();
    configure(workers => 4, module => 1, manager => 'interval 10m; failed 10m;',
        on => qq{on * call $root/stamp.so stamp "$root/stamps"; }
            . qq{on worker_exit call $root/stamp.so block "$root/block";});
    my $pid = start();
    my @took;
    for my $n (1 .. $kills) {
        my %over = map { $_->{pid} => 1 } stamps('worker_exit');
        wait_until(sub { grep({ !$over{ $_->{pid} } } stamps('worker_start')) == 4 });
        my ($holder, $waiter) = map { $_->{pid} } grep { !$over{ $_->{pid} } } stamps('worker_start');
        open my $file, '>', "$root/block" or die $!;
        kill 'QUIT', $holder;
        wait_until(sub { grep { $_->{pid} == $holder } stamps('worker_exit') });
        kill 'QUIT', $waiter;
        wait_until(sub { waits_for_futex($waiter) });
        unlink "$root/block";
        my $killed = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC());
        kill 'KILL', $holder;
        wait_until(sub { grep { $_->{pid} == $waiter } stamps('worker_exit') });
        my ($next) = sort { $a <=> $b } grep { $_ > $killed } map { $_->{at} } stamps();
        push @took, ($next - $killed) * 1000;
    }
    stop($pid);
    @took = sort { $a <=> $b } @took;
    for my $part ([ 'p50', $took[ $#took * 0.5 ] ], [ 'slowest', $took[-1] ]) {
        my ($which, $value) = @$part;
        row("lock's holder killed to next event, $which", '-', sprintf('%.2f ms', $value), '-',
            '<= 100 ms', $value <= 100);
    }
}

sub waits_for_futex {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/wchan" or return 0;
    return <$file> =~ /futex/;
}

sub fresh_stamps {
    open my $file, '>', "$root/stamps" or die $!;
    chmod 0666, "$root/stamps";
}

# Those of an event, or all.
sub stamps {
    my ($event) = @_;
    open my $file, '<', "$root/stamps" or die $!;
    my @stamps;
    while (my $line = <$file>) {
        my ($name, $pid, $generation, $at) = split ' ', $line;
        push @stamps, { pid => $pid, generation => $generation, at => $at / 1e9 }
            if !$event || $name eq $event;
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
