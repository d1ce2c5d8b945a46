package WorkerManager::Process;

# Processes of nginx, for all who run nodes: suites, chaos and the bench.

use strict;
use warnings;
no warnings 'exec';

use POSIX ();
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);

# An nginx that a distribution packages keeps its temporary files in folders that only an installed one
# has.
our $TEMPORARY = join ' ', map { "${_}_temp_path temp_$_;" } qw(client_body proxy fastcgi uwsgi scgi);

sub now { return clock_gettime(CLOCK_MONOTONIC) }

# Starts nginx as a child, which prints to a file; with `group` in a process group of its own.
sub start {
    my ($binary, $out, $group, @arguments) = @_;
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    open STDIN, '<', '/dev/null';
    open STDOUT, '>', $out;
    open STDERR, '>&', \*STDOUT;
    # What whoever started this had open is not nginx's.
    POSIX::close($_) for 3 .. 1023;
    setpgrp if $group;
    exec $binary, @arguments;
    return POSIX::_exit(127);
}

# The same until it ends; its status.
sub run {
    my ($binary, $out, @arguments) = @_;
    waitpid start($binary, $out, 0, @arguments), 0;
    return $?;
}

# The state letter of a process, or that, its parent and its session; nothing if there is none.
sub state_of {
    my ($pid) = @_;
    open my $file, '<', "/proc/$pid/stat" or return;
    my $stat = <$file> // return;
    my ($state, $parent, $session) = $stat =~ /\) (\S) (\d+) \d+ (\d+)/ or return;
    return wantarray ? ($state, $parent, $session) : $state;
}

sub is_alive {
    my ($pid) = @_;
    my $state = state_of($pid);
    return defined $state && $state !~ /[ZX]/;
}

# Waits until a condition is true, and returns that; nothing if it is not in so many seconds.
sub wait_until {
    my ($condition, $seconds) = @_;
    my $until = now() + $seconds;
    while (1) {
        my $value = $condition->();
        return $value if $value;
        return if now() > $until;
        sleep 0.01;
    }
}

1;
