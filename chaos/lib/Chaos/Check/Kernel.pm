package Chaos::Check::Kernel;

# Whether what was told of workers is what the kernel saw of processes.

use strict;
use warnings;

use Chaos::Record;

# Until a worker has been told of, its death leaves no trace. It waits for the lock no longer than this
# without saying so, seconds: it does so each second.
our $BEGIN = 3;

# What a poll of /proc sees is late, seconds.
sub slack { $_[0]{source} eq 'proc' ? 0.25 : 0 }

sub check {
    my ($record, $bad, $seen, @events) = @_;
    $bad->('the kernel had more to tell than the tracer heard') if $record->{trace_lost};
    my @workers = Chaos::Record::workers($record);
    $seen->{workers} = @workers;
    my %told;
    $told{ $_->{pid} }{ $_->{event} } = $_ for grep { $_->{event} =~ /^worker_/ } @events;
    my %begun = map { $_->{seq} => $_->{at} } grep { $_->{phase} eq 'begin' } @{ $record->{marks} };
    my %kernel = map { $_->{pid} => $_ } @workers;
    # A poll of /proc misses what is short.
    $bad->("process $_ was told of and no worker that the kernel saw")
        for grep { !$kernel{$_} && $record->{source} ne 'proc' } sort keys %told;
    check_worker($record, $bad, $seen, $_, $told{ $_->{pid} } // {}, \%begun) for @workers;
    check_deaths($record, $bad, $seen, @workers);
    check_ends($record, $bad);
    check_master($record, $bad, $seen, \%begun, @events);
}

sub check_worker {
    my ($record, $bad, $seen, $worker, $told, $begun) = @_;
    my $pid = $worker->{pid};
    my ($start, $exit, $lost) = @$told{qw(worker_start worker_exit worker_lost)};
    if (!$start) {
        if (grep { $_->{text} =~ /process $pid (?:serves but )?is not counted/ } @{ $record->{error} }) {
            $seen->{'workers without room'}++;
        } elsif (Chaos::Check::untold($record, $worker)) {
            $seen->{'workers of untold generations'}++;
        } elsif (gave_up($record, $worker->{pid})) {
            $seen->{'workers that gave up the lock'}++;
        } elsif (killed_at_once($record, $worker)) {
            $seen->{'workers killed before their start'}++;
        } else {
            $bad->("worker $pid lived from $worker->{born} to ", $worker->{died} // '?',
                ' and was never told of');
        }
        return;
    }
    my $at = $begun->{ $start->{seq} };
    $bad->("worker $pid started before it was born") if defined $at && $at < $worker->{born} - slack($record);
    if (!defined $worker->{died}) {
        $bad->("worker $pid still lives");
        return;
    }
    my $slack = slack($record);
    if ($lost && defined(my $at = $begun->{ $lost->{seq} })) {
        my $delay = $at - $worker->{died};
        $bad->("worker $pid was told as lost at $at and died at $worker->{died}") if $delay < -$slack;
        push @{ $seen->{delays} }, $delay;
    }
    if ($exit && defined(my $at = $begun->{ $exit->{seq} })) {
        $bad->("worker $pid was told as exited at $at and died at $worker->{died} before that")
            if $at > $worker->{died} + $slack && !was_interrupted($record, 'worker_exit', $exit->{id});
    }
    check_reason($record, $bad, $seen, $worker, $exit, $lost);
}

# What is said of a loss is what the kernel says, or that nobody knows.
sub check_reason {
    my ($record, $bad, $seen, $worker, $exit, $lost) = @_;
    my ($pid, $status) = @$worker{qw(pid status)};
    return if $status eq '?';
    my $signal = $status & 127;
    my $ending = $signal ? "signal $signal" : 'exit ' . ($status >> 8);
    if ($exit && $signal) {
        # Killed between its last word and its end.
        $seen->{'workers killed after their exit'}++;
    } elsif ($exit) {
        $bad->("worker $pid told its exit and ended with $ending") if $status;
    } elsif ($lost) {
        $bad->("worker $pid ended in an orderly way and was told as lost: $lost->{reason}")
            if !$status && !gave_up($record, $pid);
        $seen->{losses}++;
        $seen->{"losses for unknown reason"}++ if $lost->{reason} eq 'unknown';
        $bad->("worker $pid ended with $ending and was told as lost: $lost->{reason}")
            unless $lost->{reason} =~ /^(?:\Q$ending\E|unknown|\?)$/;
    }
}

# Whether it was killed before it could begin.
sub killed_at_once {
    my ($record, $worker) = @_;
    my $pid = $worker->{pid};
    # One of those who wait says so, after 1 second, 2, 4 and so on: they may have waited for twice that.
    my ($waited, $lives) = (0, 0);
    for my $line (@{ $record->{error} }) {
        $lives = 1 if $line->{text} eq "start worker process $pid";
        $lives = 0 if $line->{text} =~ / process $pid exited /;
        next unless $lives || $line->{pid} == $pid;
        $waited = 2 * $1 if $line->{text} =~ /blocked for (\d+)s/ && 2 * $1 > $waited;
    }
    return 0 if $worker->{died} - $worker->{born} > $BEGIN + $waited;
    return 1 if $worker->{status} ne '?' && $worker->{status} & 127;
    return scalar Chaos::Record::done($record, 'signal', qr/^(?:KILL|SEGV) $worker->{pid}$/);
}

# Whether it was told to end while it waited for the lock, and has: nothing is recorded of it then.
sub gave_up {
    my ($record, $pid) = @_;
    return grep { $_->{pid} == $pid && $_->{text} =~ /told to end while blocked/ } @{ $record->{error} };
}

sub was_interrupted {
    my ($record, $event, $id) = @_;
    return grep {
        $_->{text} =~ /interrupted at \Q$event $id\E$|\Q$event $id\E was not told yet/
    } @{ $record->{error} };
}

# Nobody dies by a signal that was not sent, nor ends with a failure.
sub check_deaths {
    my ($record, $bad, $seen, @workers) = @_;
    my %sent;
    $sent{$_} = 1 for map { $_->{rest} } Chaos::Record::done($record, 'signal');
    my $armed = Chaos::Record::done($record, 'arm');
    my ($end) = Chaos::Record::done($record, 'end', qr/^TERM/);
    for my $process (@workers, $record->{processes}{ $record->{master} } // ()) {
        my ($pid, $status, $died) = @$process{qw(pid status died)};
        next unless defined $status && $status ne '?' && $status;
        my $signal = $status & 127;
        my $name = { 9 => 'KILL', 11 => 'SEGV' }->{$signal} // '';
        next if $sent{"$name $pid"};
        # nginx itself when a stop takes too long, or a point that was armed, each for one.
        next if $signal == 9 && ($end && $died > $end->{at} + 0.9 || $armed-- > 0);
        $bad->("process $pid ended with status $status, and nobody did that");
    }
}

# Whatever the node started has ended with it, but for daemons that a program left.
sub check_ends {
    my ($record, $bad) = @_;
    my $processes = $record->{processes};
    for my $process (grep { !defined $_->{died} } values %$processes) {
        my $parent = $process;
        my $of_node = 0;
        $of_node ||= $parent->{pid} == $record->{master}
            while $parent = $processes->{ $parent->{parent} };
        $bad->("process $process->{pid} of the node still lives") if $of_node && !$process->{is_daemon};
    }
}

# That the master is lost is told once, if somebody lives on who can tell.
sub check_master {
    my ($record, $bad, $seen, $begun, @events) = @_;
    my $master = $record->{processes}{ $record->{master} };
    my @told = grep { $_->{event} eq 'master_lost' } @events;
    if (!$master || !defined $master->{died}) {
        $bad->('the master still lives');
        return;
    }
    for my $told (@told) {
        my $at = $begun->{ $told->{seq} } // next;
        $bad->("the master was told as lost at $at and died at $master->{died}")
            if $at < $master->{died} - slack($record);
    }
    $bad->('the master was told as lost ', scalar @told, ' times') if @told > 1;
    my @lived = grep {
        my $born = $begun->{ $_->{seq} };
        my $worker = $record->{processes}{ $_->{pid} };
        $_->{event} eq 'worker_start' && defined $born && $born < $master->{died} - 4
            && $worker && ($worker->{died} // 0) > $master->{died} + 1;
    } @events;
    $bad->('the master died, ', scalar @lived, ' workers lived on, and nobody told')
        if !@told && @lived && $master->{status} ne '0';
}

1;
