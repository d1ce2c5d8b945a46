package Bench;

# What the parts of the bench share: nginx with and without the module, and the table.

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use Time::HiRes ();

use WorkerManager::Process;
use WorkerManager::Scratch;

our @EXPORT = qw($top $root $turns prepare median lower_quartile row table free_port configure start
    stop wait_until workers cpu marks one_start);

our $top = abs_path(dirname(__FILE__) . '/../..');
our $root = "$top/build/bench";
our $turns = $ENV{TURNS} // 9;

my @rows;
# The nginx that runs, so that it does not stay if the bench ends early.
my $running;

sub prepare {
    remove_tree($root);
    make_path("$root/logs");
    chomp(my $source = `cd '$top' && auto/nginx-source`);
    open my $file, '<', "$top/objs/nginx.objs" or die "make build comes first: $!\n";
    chomp(my $objs = <$file>);
    build_marks($source, $objs, $root);
}

sub median { my @sorted = sort { $a <=> $b } @_; return $sorted[ $#sorted / 2 ] }

sub lower_quartile { my @sorted = sort { $a <=> $b } @_; return $sorted[ $#sorted / 4 ] }

sub row {
    my ($name, $bare, $module, $ratio, $bound, $holds) = @_;
    my $verdict = $bound eq '' ? '' : $holds ? ' holds' : ' EXCEEDED';
    push @rows, [ $name, $bare, $module, $ratio, "$bound$verdict" ];
}

# The table, as text.
sub table {
    return join '', map { sprintf("%-46s %12s %12s %8s  %s\n", @$_) =~ s/ +\n/\n/r }
        [ 'figure', 'bare nginx', 'with module', 'ratio', 'bound' ], @rows;
}

# The marks are compiled for the nginx that is measured.
sub build_marks {
    my ($source, $objs, $to) = @_;
    my @includes = map { "-I$source/src/$_" } qw(core event event/modules event/quic os/unix);
    for my $name (qw(before after)) {
        system('cc', '-O2', '-shared', '-fPIC', "-DMARK_NAME=$name", @includes, "-I$objs",
            '-o', "$to/$name.so", "$top/bench/probe.c") == 0 or die "cc failed\n";
    }
}

sub free_port { return WorkerManager::Scratch::free_port() }

sub configure {
    my (%options) = @_;
    my $port = free_port();
    my $load = $options{module} ? "load_module $top/objs/ngx_worker_manager_module.so;" : '';
    my $on = $options{on} // "on * call $top/objs/hooks.so nothing;";
    my $block = $options{module} ? "worker_manager { $options{manager} $on }" : '';
    my ($before, $after) = map { $options{marks} ? "load_module $root/$_.so;" : '' } qw(before after);
    open my $file, '>', "$root/nginx.conf" or die $!;
    print $file <<"END";
$before
$load
$after
daemon off;
worker_processes $options{workers};
error_log logs/error.log error;
pid logs/nginx.pid;
$block
events { worker_connections @{[ $options{connections} // 256 ]}; }
http {
    access_log off;
    keepalive_requests 1000000;
    server {
        listen 127.0.0.1:$port @{[ $options{listen} // '' ]};
        location / { return 200 "ok"; }
        @{[ $options{locations} // '' ]}
        location = /slow { limit_rate 1000; add_header X-Worker \$pid; alias $root/slow; }
    }
}
END
    close $file;
    return $port;
}

sub start {
    my ($binary, $prefix) = @_ ? @_ : ("$top/objs/nginx", $root);
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        exec $binary, '-p', $prefix, '-c', 'nginx.conf';
        die "exec: $!";
    }
    $running = $pid;
    return $pid;
}

sub stop {
    my ($pid, %options) = @_;
    kill $options{signal} // 'QUIT', $pid;
    waitpid $pid, 0;
    undef $running;
}

sub wait_until {
    my ($condition) = @_;
    WorkerManager::Process::wait_until($condition, 60) or die "timed out\n";
    return;
}

# The marks of a file: time and CPU time, nanoseconds.
sub marks {
    my ($name) = @_;
    open my $file, '<:raw', "$root/$name.marks" or return;
    local $/;
    my @words = unpack 'Q*', scalar(<$file>) // '';
    return map { [ @words[ 2 * $_, 2 * $_ + 1 ] ] } 0 .. @words / 2 - 1;
}

# One start: seconds until the last worker is through its init_process, and the CPU time in
# microseconds that a worker spends in the module's part of it.
sub one_start {
    my ($workers, $module) = @_;
    configure(workers => $workers, module => $module, manager => '', marks => 1);
    for my $name (qw(before after)) {
        open my $file, '>', "$root/$name.marks" or die $!;
        chmod 0666, "$root/$name.marks";
    }
    my $from = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC());
    my $pid = start();
    wait_until(sub { -s "$root/after.marks" >= 16 * $workers });
    my (@before, @after) = ();
    @before = marks('before');
    @after = marks('after');
    stop($pid);
    my ($last) = sort { $b <=> $a } map { $_->[0] } @after;
    my $cpu = 0;
    $cpu += $_->[1] for @after;
    $cpu -= $_->[1] for @before;
    return ($last / 1e9 - $from, $cpu / $workers / 1000);
}

# CPU time of a process so far, nanoseconds.
sub cpu {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/schedstat" or die "/proc/$pid/schedstat: $!";
    return (split ' ', <$file>)[0];
}

# The workers of a master.
sub workers {
    my ($master) = @_;
    chomp(my @workers = `pgrep -P $master`);
    return @workers;
}

END {
    my $status = $?;
    stop($running) if $running;
    $? = $status;
}

1;
