package Bench::Growth;

# How a start, a heartbeat and an answer of the status grow with the workers and with the generations
# that live.

use strict;
use warnings;

use Bench;
use IO::Socket::INET;
use Time::HiRes qw(time sleep);

my $STATUS = 'location /workers { worker_manager_status; }';

sub run {
    workers_of($_) for 16, 128, 1000;
    generations($_) for 1, 8, 32;
}

sub workers_of {
    my ($number) = @_;
    my @share = map { my $module = $_; median(map { (one_start($number, $module))[1] } 1 .. 3) } 0, 1;
    figure("CPU of a start, $number workers", $share[1] - $share[0]);
    # About a thousand beats per second of all workers together.
    my $port = configure(workers => $number, module => 1, manager => "interval ${number}ms; failed 10m;",
        locations => $STATUS, connections => 32);
    my $pid = start();
    wait_until(sub { workers($pid) == $number && Bench::Status::get($port, '/workers') =~ /"running":$number,/ });
    figure("CPU of a heartbeat, $number workers", beat($pid, $number));
    figure("an answer of the status, $number workers", 1000 * Bench::Status::latency($port, '/workers'));
    stop($pid, signal => 'TERM');
}

sub figure {
    my ($name, $microseconds) = @_;
    row($name, '-', sprintf('%.1f us', $microseconds), '-', '', 1);
}

# Microseconds of CPU time that a heartbeat takes, of up to 32 workers in 5 seconds.
sub beat {
    my ($master, $interval) = @_;
    my @workers = workers($master);
    splice @workers, 32;
    my $cpu = sub { my $sum = 0; $sum += cpu($_) for @workers; return $sum };
    my ($from, $before) = (time, $cpu->());
    sleep 5;
    return ($cpu->() - $before) / 1000 / (@workers * (time - $from) * 1000 / $interval);
}

# Generations of two workers of which all but the newest drain.
sub generations {
    my ($number) = @_;
    # What lies between the marks without the module, the marks themselves above all.
    my $bare = median(map { (one_start(2, 0))[1] } 1 .. 5);
    open my $file, '>', "$root/slow" or die $!;
    print $file 'x' x 1_000_000;
    close $file;
    my $port = configure(workers => 2, module => 1, manager => 'interval 20ms; failed 10m;',
        locations => $STATUS, marks => 1);
    for my $name (qw(before after)) {
        open my $marks, '>', "$root/$name.marks" or die $!;
        chmod 0666, "$root/$name.marks";
    }
    my $pid = start();
    my @held;
    for my $generation (1 .. $number) {
        wait_until(sub { Bench::Status::get($port, '/workers') =~ /"generation":$generation,"state":"ready"/ });
        last if $generation == $number;
        wait_until(sub { push @held, hold($port, $generation); defined $held[-1] });
        kill 'HUP', $pid;
    }
    wait_until(sub { () = Bench::Status::get($port, '/workers') =~ /"state":"draining"/g; workers($pid) == $number + 1 });
    my (@before, @after) = (marks('before'), ());
    @after = marks('after');
    my $cpu = 0;
    $cpu += $_->[1] for splice @after, -2;
    $cpu -= $_->[1] for splice @before, -2;
    figure("CPU of a start, $number generations", $cpu / 2 / 1000 - $bare);
    figure("CPU of a heartbeat, $number generations", beat($pid, 20));
    figure("an answer of the status, $number generations", 1000 * Bench::Status::latency($port, '/workers'));
    stop($pid, signal => 'TERM');
}

# A connection that keeps a worker of a generation.
sub hold {
    my ($port, $generation) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or return;
    print $socket "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
    while (my $line = <$socket>) {
        my ($worker) = $line =~ /^X-Worker: (\d+)/ or next;
        return Bench::Status::get($port, '/workers') =~ /"id":"$generation-$worker"/ ? $socket : undef;
    }
    return;
}

1;
