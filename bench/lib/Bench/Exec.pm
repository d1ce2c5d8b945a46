package Bench::Exec;

# What a program costs the worker that starts it, and what it holds while it runs.

use strict;
use warnings;

use Bench;

sub run {
    system('cc', '-O2', '-shared', '-fPIC', "-I$top/nginx", '-o', "$root/big.so", "$top/bench/big.c") == 0
        or die "cc failed\n";
    time_of_starts(200);
    memory(256);
}

# The time that a worker of 1 GB stands still for a program that it does not await, and what its next
# writes to 256 pages take longer, milliseconds.
sub time_of_starts {
    my ($number) = @_;
    my $lap = qq{on master_ready call $root/big.so lap "$root/laps";};
    my $laps = sub {
        my ($between) = @_;
        open my $file, '>', "$root/laps" or die $!;
        chmod 0666, "$root/laps";
        configure(workers => 1, module => 1, manager => '', on => "on worker_start call $root/big.so grow; "
            . "on master_ready call $root/big.so lap $root/laps; " . "$between $lap " x $number);
        my $pid = start();
        wait_until(sub { lines("$root/laps") == $number + 1 });
        stop($pid);
        my (undef, @laps) = lines("$root/laps");
        my @seconds = sort { $a <=> $b } map { $_ / 1e6 } @laps;
        return @seconds;
    };
    my @bare = $laps->('');
    my @exec = $laps->('on master_ready exec /bin/true;');
    for (['p50', 0.5], ['p99', 0.99]) {
        my ($name, $at) = ($_->[0], $_->[1] * ($number - 1));
        my $took = $exec[$at] - $bare[ $number / 2 ];
        row("a worker of 1 GB stands still, $name of $number", sprintf('%.3f ms', $bare[$at]),
            sprintf('%.3f ms', $exec[$at]), '-', '<= 0.5 ms', $took <= 0.5);
    }
}

sub lines {
    open my $file, '<', $_[0] or die "$_[0]: $!";
    my @lines = <$file>;
    return @lines;
}

# Kilobytes for each program that runs or waits, when the worker of 1 GB that started it is gone.
sub memory {
    my ($number) = @_;
    my $name = "sleeper-$$";
    open my $file, '>', "$root/$name" or die $!;
    print $file "#!/bin/sh\nexec sleep 60\n";
    close $file;
    chmod 0755, "$root/$name";
    configure(workers => 1, module => 1, manager => 'exec_timeout 60s;',
        on => "on worker_start call $root/big.so grow; " . "on master_ready exec $root/$name; " x $number);
    my $pid = start();
    my @found;
    wait_until(sub { @found = helpers($name); @found == $number });
    my ($worker) = workers($pid);
    kill 'STOP', $pid;
    kill 'KILL', $worker;
    wait_until(sub { (state($worker) // 'Z') eq 'Z' });
    my $kilobytes = 0;
    $kilobytes += pss($_) for @found;
    my $each = $kilobytes / $number;
    row("memory for each of $number programs", '-', sprintf('%.0f KB', $each), '-', '<= 1024 KB', $each <= 1024);
    kill 'CONT', $pid;
    stop($pid);
    kill 'KILL', @found;
}

sub helpers {
    my ($name) = @_;
    return map { m{(\d+)$} } grep {
        my $there = open my $file, '<', "$_/cmdline";
        $there && (<$file> // '') =~ /worker_manager exec \Q$name\E/;
    } glob '/proc/[0-9]*';
}

sub state {
    open my $file, '<', "/proc/$_[0]/stat" or return;
    return (<$file> // '') =~ /\) (\S)/ ? $1 : undef;
}

sub pss {
    open my $file, '<', "/proc/$_[0]/smaps_rollup" or return 0;
    return (map { /^Pss:\s+(\d+)/ ? $1 : () } <$file>)[0] // 0;
}

1;
