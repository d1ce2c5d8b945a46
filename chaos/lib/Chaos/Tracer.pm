package Chaos::Tracer;

# What the kernel sees: every process of a tree that begins and ends, with its wait status, on the
# monotonic clock. From the kernel's process connector if this process may listen to it; otherwise
# by looking at /proc every few milliseconds, which misses wait statuses and what is very short.
#
# It writes one line each to a file:
#     TIME source connector|proc       once
#     TIME fork PARENT PID
#     TIME user PID                    it gave up root: a worker of nginx does, and helpers of programs, which are not the master's
#     TIME session PID                 it is a daemon of its own from here on
#     TIME exec PID
#     TIME exit PID STATUS SIGNAL      STATUS as of wait, ? if unknown; SIGNAL tells the parent
#     TIME lost                        the kernel had more to tell than was listened to

use strict;
use warnings;
use Socket;
use Time::HiRes qw(clock_gettime sleep CLOCK_MONOTONIC);

use constant { AF_NETLINK => 16, NETLINK_CONNECTOR => 11, SO_RCVBUFFORCE => 33 };
use constant { FORK => 1, EXEC => 2, UID => 4, SID => 0x80, EXIT => 0x80000000 };

my %NAME = (EXEC, 'exec', UID, 'user', SID, 'session');

# start($file, $root): traces the descendants of $root; returns the tracer's pid. It ends when it is
# told to by TERM, and when $root ends.
sub start {
    my ($file, $root) = @_;
    pipe my $ready, my $started or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if ($pid) {
        close $started;
        <$ready> // die 'the tracer did not start';
        return $pid;
    }
    close $ready;
    $SIG{INT} = 'IGNORE';
    my $over = 0;
    $SIG{TERM} = sub { $over = 1 };
    open my $out, '>', $file or die "$file: $!";
    $out->autoflush(1);
    my $socket = connector();
    printf $out "%.9f source %s\n", clock_gettime(CLOCK_MONOTONIC), $socket ? 'connector' : 'proc';
    print $started "ready\n";
    close $started;
    my $until = sub { $over || getppid() != $root };
    my $pid_file = $file =~ s{[^/]*$}{logs/nginx.pid}r;
    eval { $socket ? listen_to($socket, $out, $root, $until) : poll($out, $root, $pid_file, $until) }
        // warn $@;
    POSIX::_exit(0);
}

sub connector {
    # Newer kernels let anybody listen, but only root's workers give up root, by which they are known.
    return if $ENV{CHAOS_TRACE_PROC} || $> != 0;
    socket my $socket, AF_NETLINK, SOCK_DGRAM, NETLINK_CONNECTOR or return;
    # Idle machines tell little, but busy ones many hundred a second.
    setsockopt $socket, SOL_SOCKET, SO_RCVBUFFORCE, pack 'i', 32 << 20;
    bind $socket, pack 'SSLL', AF_NETLINK, 0, 0, 1 or return;
    my $listen = pack 'LLLLSS L', 1, 1, 0, 0, 4, 0, 1;
    my $message = pack('LSSLL', 16 + length $listen, 3, 0, 0, 0) . $listen;
    return unless defined send $socket, $message, 0, pack 'SSLL', AF_NETLINK, 0, 0, 0;
    return $socket;
}

sub listen_to {
    my ($socket, $out, $root, $over) = @_;
    my %tree = ($root => 1);
    my $set = '';
    vec($set, fileno $socket, 1) = 1;
    my $idle = 0;
    # Told to end, it still takes what the kernel has told by then.
    while (!($over->() && $idle)) {
        my $ready = $set;
        $idle = select($ready, undef, undef, 0.05) <= 0;
        next if $idle;
        my $message;
        if (!defined recv $socket, $message, 65536, 0) {
            printf $out "%.9f lost\n", clock_gettime(CLOCK_MONOTONIC) if $!{ENOBUFS};
            next;
        }
        next if length $message < 60;
        my ($what, undef, $ns) = unpack 'x36 LLQ', $message;
        my $at = sprintf '%d.%09d', $ns / 1_000_000_000, $ns % 1_000_000_000;
        my @data = unpack 'x52 L*', $message;
        if ($what == FORK) {
            my ($parent, $pid, $thread_of) = @data[ 1, 2, 3 ];
            next unless $tree{$parent} && $pid == $thread_of;
            $tree{$pid} = 1;
            print $out "$at fork $parent $pid\n";
        } elsif ($what == EXIT) {
            my ($pid, $thread_of, $status, $signal) = @data;
            next unless $tree{$pid} && $pid == $thread_of;
            delete $tree{$pid};
            $signal &= 0xff;
            print $out "$at exit $pid $status $signal\n";
        } elsif ($NAME{$what} && $tree{ $data[1] } && $data[0] == $data[1]) {
            print $out "$at $NAME{$what} $data[0]\n";
        }
    }
    return 0;
}

# All processes, as pid => parent.
sub parents {
    my %parents;
    opendir my $dir, '/proc' or return;
    for my $pid (grep { /^\d+$/ } readdir $dir) {
        open my $file, '<', "/proc/$pid/stat" or next;
        my ($state, $parent) = (<$file> // '') =~ /\) (\S) (\d+)/ or next;
        $parents{$pid} = $parent unless $state =~ /[ZX]/;
    }
    return \%parents;
}

sub poll {
    my ($out, $root, $pid_file, $over) = @_;
    my %tree = ($root => 1);
    my (%worker, $master);
    while (!$over->()) {
        my $parents = parents();
        my $now = sprintf '%.9f', clock_gettime(CLOCK_MONOTONIC);
        # The process between may have ended before anybody looked.
        if (!$master && open my $file, '<', $pid_file) {
            ($master) = (<$file> // '') =~ /^(\d+)\n/;
            if ($master && !$tree{$master}++) {
                print $out "$now fork $root $master\n";
            }
        }
        my $grown = 1;
        while ($grown) {
            $grown = 0;
            for my $pid (grep { !$tree{$_} && $tree{ $parents->{$_} } } sort keys %$parents) {
                next if $pid == $$;
                print $out "$now fork $parents->{$pid} $pid\n";
                $tree{$pid} = $grown = 1;
            }
        }
        for my $pid (grep { $_ != $root } sort keys %tree) {
            if (!exists $parents->{$pid}) {
                print $out "$now exit $pid ? 17\n";
                delete $tree{$pid};
            } elsif (!$worker{$pid} && open my $file, '<', "/proc/$pid/cmdline") {
                # Until its first turn a worker has the title of the master.
                if ((<$file> // '') =~ /^nginx: worker process/) {
                    print $out "$now user $pid\n";
                    $worker{$pid} = 1;
                }
            }
        }
        sleep 0.005;
    }
    return 0;
}

1;
