package Chaos::Load;

# The clients of a node under chaos: a moderate, steady load of short requests and of slow ones that
# are under way when workers are told to go. Each request is noted with its fate:
#     BEGIN END ok|REASON PATH WORKER
# What is slow comes from a server behind nginx, which is here too, and not from nginx's `limit_rate`:
# that goes by the wall clock, and a step back of it keeps a request waiting for as long.

use strict;
use warnings;
use Errno qw(EINPROGRESS EWOULDBLOCK EINTR);
use IO::Socket::INET;
use POSIX ();
use Socket;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our $PATIENCE = 30;
our $CLIENTS = 8;
our $SLOW = 3;       # of them ask for what takes long
our $DELAY = 1;      # so long, seconds
our $ANSWER = 's' x 3000;

sub now { clock_gettime(CLOCK_MONOTONIC) }

# start($file, $port, $server): a process that asks until TERM comes, and ends when what is under way
# has ended. $server is the socket that the server behind nginx listens to. Returns the pid.
sub start {
    my ($file, $port, $server) = @_;
    my $parent = $$;
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    my $over = 0;
    $SIG{TERM} = sub { $over ||= now() };
    $SIG{INT} = 'IGNORE';
    $SIG{PIPE} = 'IGNORE';
    open my $out, '>', $file or die "$file: $!";
    $out->autoflush(1);
    my @clients = map { { slow => $_ < $SLOW, at => now() + 0.01 * $_ } } 0 .. $CLIENTS - 1;
    my @answers;
    $server->blocking(0);
    while (1) {
        last if getppid() != $parent;
        last if $over && !grep { $_->{socket} } @clients;
        last if $over && now() > $over + 5;
        begin($_, $port) for grep { !$over && !$_->{socket} && now() >= $_->{at} } @clients;
        my ($read, $write) = ('', '');
        for my $client (grep { $_->{socket} } @clients) {
            vec($client->{asked} ? $read : $write, fileno $client->{socket}, 1) = 1;
        }
        vec($read, fileno $server, 1) = 1;
        # What a signal interrupts leaves the sets as they were.
        ($read, $write) = ('', '') if select($read, $write, undef, 0.01) <= 0;
        my $asked;
        if (vec($read, fileno $server, 1) && accept $asked, $server) {
            push @answers, { socket => $asked, at => now() + $DELAY };
        }
        answer(shift @answers) while @answers && $answers[0]{at} <= now();
        for my $client (grep { $_->{socket} } @clients) {
            my $fd = fileno $client->{socket};
            my $end = vec($write, $fd, 1) ? ask($client)
                : vec($read, $fd, 1) ? hear($client)
                : now() > $client->{began} + $PATIENCE ? 'timeout' : undef;
            finish($client, $out, $end) if defined $end;
        }
    }
    POSIX::_exit(0);
}

# nginx has sent its request by now; what is not read would reset the connection.
sub answer {
    my ($answer) = @_;
    my $socket = $answer->{socket};
    my $request;
    $socket->blocking(0);
    sysread $socket, $request, 65536;
    syswrite $socket, "HTTP/1.0 200 OK\r\nContent-Length: " . length($ANSWER) . "\r\n\r\n$ANSWER";
    close $socket;
}

sub begin {
    my ($client, $port) = @_;
    socket my $socket, AF_INET, SOCK_STREAM, 0 or return;
    $socket->blocking(0);
    @$client{qw(socket began asked heard)} = ($socket, now(), 0, '');
    connect $socket, pack_sockaddr_in($port, INADDR_LOOPBACK);
}

sub ask {
    my ($client) = @_;
    my $error = unpack 'i', getsockopt $client->{socket}, SOL_SOCKET, SO_ERROR;
    return refusal($error) if $error;
    $client->{path} = $client->{slow} ? '/slow' : '/';
    my $request = "GET $client->{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    return 'reset' unless (syswrite($client->{socket}, $request) // 0) == length $request;
    $client->{asked} = 1;
    return;
}

sub refusal {
    my ($error) = @_;
    return { POSIX::ECONNREFUSED() => 'refused', POSIX::ECONNRESET() => 'reset' }->{$error} // "error-$error";
}

sub hear {
    my ($client) = @_;
    my $n = sysread $client->{socket}, $client->{heard}, 65536, length $client->{heard};
    if (!defined $n) {
        return if $!{EWOULDBLOCK} || $!{EINTR};
        return $!{ECONNRESET} ? 'reset' : 'error-' . ($! + 0);
    }
    return if $n;
    my ($length) = $client->{heard} =~ /^Content-Length: (\d+)\r$/m;
    my ($head, $body) = split /\r\n\r\n/, $client->{heard}, 2;
    return 'nothing' if $client->{heard} eq '';
    return 'cut' unless defined $length && length($body // '') == $length;
    return $head =~ m{^HTTP/1.1 200 } ? 'ok' : 'status';
}

sub finish {
    my ($client, $out, $end) = @_;
    my ($worker) = $client->{heard} =~ /^X-Worker: (\S+)/m;
    printf $out "%.6f %.6f %s %s %s\n", $client->{began}, now(), $end,
        $client->{path} // '-', $worker // '-';
    close $client->{socket};
    @$client{qw(socket path)} = ();
    $client->{at} = now() + ($client->{slow} ? 0.2 : 0.04);
}

1;
