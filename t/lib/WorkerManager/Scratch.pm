package WorkerManager::Scratch;

# What a process of its own takes on this machine for a test: folders and ports that no other process
# takes at the same time, so that suites can run side by side.

use strict;
use warnings;

use Cwd ();
use File::Path qw(make_path remove_tree);
use IO::Socket::INET;
use IO::Socket::UNIX;
use Socket ();

my $count = 0;
my (%reserved, $last);

# An empty folder of this process's own. auto/prove says below what.
sub folder {
    my ($name) = @_;
    my $top = $ENV{WORKER_MANAGER_SCRATCH} || Cwd::getcwd() . '/build/scratch';
    my $folder = "$top/$name-$$-" . $count++;
    remove_tree($folder);
    make_path($folder);
    return $folder;
}

# A port on which nobody listens, and which is nobody else's as long as this process lives. It is below
# those that the kernel gives to clients, one of which would take a port between this and the bind of
# nginx. Who has a port also has a socket of that name, which goes with the process.
sub free_port {
    my $first_of_clients = do {
        open my $file, '<', '/proc/sys/net/ipv4/ip_local_port_range';
        ($file && <$file> // '') =~ /^(\d+)/ ? $1 : 32_768;
    };
    my ($from, $to) = (10_000, $first_of_clients > 12_000 ? $first_of_clients : 32_768);
    # Not by chance, of which some suites choose a seed.
    $last //= $$ * 131;
    for (1 .. 1000) {
        my $port = $from + ++$last % ($to - $from);
        my $name = IO::Socket::UNIX->new(Listen => 1, Local => "\0worker-manager-port-$port") or next;
        # Not with ReuseAddr, so that connections of a server that was there before count.
        IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port) or next;
        $reserved{$port} = $name;
        return $port;
    }
    die "no free port: $!";
}

# A socket that listens on a port of its own.
sub listener {
    my $port = free_port();
    return IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => $port)
        || die "port $port: $!";
}

# Gives Test::Nginx a folder and a port. It looks at them when it is loaded.
sub import {
    my ($class, @what) = @_;
    return unless grep { $_ eq 'test_nginx' } @what;
    @ENV{qw(TEST_NGINX_SERVROOT TEST_NGINX_PORT)} = (folder('servroot'), free_port());
    return;
}

1;
