package Chaos::Check;

# Whether the laws of the contract held on a node under chaos, by what it left behind (Chaos::Record).
# Knows nothing of how the module works, only what it promises; each fault is one line of text.

use strict;
use warnings;

use Chaos::Check::Kernel;
use Chaos::Check::Record;
use Chaos::Check::Zone;
use Chaos::Record;
use WorkerManager::Laws;

# What nginx itself says when workers are killed, with the module or without.
my $NGINX = qr/exited on signal|exited with (?:fatal )?code|kill\(\d+, \d+\) failed|sendmsg\(\) failed/;
# A worker that is forked while the master has yet to reopen its logs does so itself, right after its
# start, and may not: `ngx_reopen` was set before the fork.
$NGINX = qr/$NGINX|open\(\) ".*\.log" failed \(13: Permission denied\)/;
# What it says of the configurations that are broken on purpose.
my $BROKEN = qr/unknown directive "no_such_directive"|bind\(\) to|still could not bind/;

# faults($record): what is broken, as text; and what was seen, as numbers.
sub faults {
    my ($record) = @_;
    my (@faults, %seen);
    my $bad = sub { push @faults, join '', @_ };
    my @merged = Chaos::Record::merged($record);
    push @faults, WorkerManager::Laws::broken(\@merged, final => ends_in_order($record));
    Chaos::Check::Record::check($record, $bad, \%seen);
    Chaos::Check::Kernel::check($record, $bad, \%seen, @merged);
    Chaos::Check::Zone::check($record, $bad, \%seen, @merged);
    check_reloads($record, $bad, \%seen, @merged);
    check_error_log($record, $bad);
    check_requests($record, $bad, \%seen);
    check_settled($record, $bad, \%seen);
    check_sanitizers($record, $bad);
    $seen{events} = @merged;
    return (\@faults, \%seen);
}

# Whether somebody was left to tell the end: the last process of the node ended in an orderly way.
sub ends_in_order {
    my ($record) = @_;
    my $master = $record->{processes}{ $record->{master} } or return 0;
    my @all = sort { $a->{died} <=> $b->{died} } grep { defined $_->{died} } $master, Chaos::Record::workers($record);
    my $last = $all[-1];
    # Without wait statuses it is the error log that tells.
    return $last->{status} eq '0' if $last->{status} ne '?';
    return !grep { $_->{rest} =~ /^KILL $last->{pid}$/ } Chaos::Record::done($record, 'signal');
}

# Every attempt to reload that nginx logs has come to one generation or to one failure, in that order.
sub check_reloads {
    my ($record, $bad, $seen, @events) = @_;
    my (@attempts, $attempt);
    for my $line (grep { $_->{pid} == $record->{master} } @{ $record->{error} }) {
        if ($line->{text} eq 'reconfiguring') {
            push @attempts, $attempt = 'master_start';
        } elsif (@attempts && $line->{level} eq 'emerg' && $line->{text} =~ $BROKEN) {
            $attempts[-1] = 'reload_failed';
        } elsif (@attempts && $line->{text} =~ /this one is not told about/) {
            $attempts[-1] = 'untold';
        }
    }
    my $fired = Chaos::Record::done($record, 'signal', qr/^HUP /);
    $bad->(scalar(@attempts) . " reloads of $fired signals") if @attempts > $fired;
    $bad->("none of $fired signals was a reload") if $fired && !@attempts && lived_on($record);
    $seen->{reloads} = grep { $_ eq 'master_start' } @attempts;
    $seen->{'failed reloads'} = grep { $_ eq 'reload_failed' } @attempts;
    $seen->{'untold reloads'} = grep { $_ eq 'untold' } @attempts;
    my @told = grep { /^(?:master_start|reload_failed)$/ } map { $_->{event} } @events;
    shift @told;
    @attempts = grep { $_ ne 'untold' } @attempts;
    # The one at which the master was killed may have come to nothing, or be told by nobody.
    pop @attempts if @attempts > @told && master_was_killed($record);
    return if "@attempts" eq "@told";
    $bad->('reloads in the error log: ', join(' ', @attempts), "; told: ", join ' ', @told);
}

sub master_was_killed {
    my ($record) = @_;
    my $master = $record->{processes}{ $record->{master} };
    my $status = $master && $master->{status} // '';
    # Without wait statuses: the last thing that it does is to say so.
    return !grep { $_->{pid} == $record->{master} && $_->{text} eq 'exit' } @{ $record->{error} }
        if $status eq '?';
    return $status eq '9';
}

# Whether there was time for the last reload before the end.
sub lived_on {
    my ($record) = @_;
    my ($hup) = (Chaos::Record::done($record, 'signal', qr/^HUP /))[-1];
    my ($end) = Chaos::Record::done($record, 'end');
    my $master = $record->{processes}{ $record->{master} };
    return $hup && $end && $end->{at} > $hup->{at} + 5 && ($master->{died} // 9e9) > $end->{at};
}

sub check_error_log {
    my ($record, $bad) = @_;
    for my $line (@{ $record->{error} }) {
        my ($level, $text) = @$line{qw(level text)};
        $bad->("process $line->{pid} panicked: $text") if $text =~ /panicked/;
        $bad->("an error in the zone: $text") if $text =~ /counts were wrong|unreadable/;
        next unless $level =~ /^(?:alert|crit|emerg)$/;
        next if $text =~ $NGINX || $level eq 'emerg' && $text =~ $BROKEN;
        $bad->("[$level] of process $line->{pid}: $text");
    }
}

# A request fails only if somebody was killed or stopped while it was under way, or the node ended.
sub check_requests {
    my ($record, $bad, $seen) = @_;
    my $workers = { map { $_->{pid} => $_ } Chaos::Record::workers($record) };
    my @killed = grep { was_cut($record, $_) } values %$workers;
    my ($end) = map { $_->{at} } Chaos::Record::done($record, 'end');
    my $master = $record->{processes}{ $record->{master} };
    $end = $master->{died} if $master && defined $master->{died} && $master->{died} < $end;
    # A process is noticed and the note is written in some milliseconds.
    my $slack = 0.1;
    my %started = map { $_->{pid} => 1 } grep { $_->{event} eq 'worker_start' } Chaos::Record::merged($record);
    my %uncounted = map { /process (\d+) (?:serves but )?is not counted/ ? ($1 => 1) : () }
        map { $_->{text} } @{ $record->{error} };
    for my $request (@{ $record->{requests} }) {
        my ($began, $ended, $fate) = @$request{qw(began ended fate)};
        my ($pid, $id) = split /,/, $request->{worker};
        if ($pid =~ /^\d+$/) {
            # nginx handles events once more before it sees that it is to quit, also when the worker has
            # given up waiting for the lock at its start (ngx_worker_process_cycle).
            $bad->("process $pid served and was never told of, nor that it is not counted")
                unless $started{$pid}++ || $uncounted{$pid}++ || untold($record, $workers->{$pid})
                || Chaos::Check::Kernel::gave_up($record, $pid);
            $bad->("process $pid calls itself $id") if defined $id && $id =~ /-/ && $id !~ /^\d+-$pid$/;
        }
        $seen->{requests}++;
        if ($fate eq 'ok') {
            my $took = $ended - $began;
            $seen->{'slowest request'} = $took if $took > ($seen->{'slowest request'} // 0);
            next;
        }
        my @cut = grep { $_->{died} > $began - $slack && $_->{died} < $ended + $slack } @killed;
        @cut = grep { $_->{pid} == $pid } @cut if $pid =~ /^\d+$/;
        if (@cut) {
            $seen->{'requests cut by a kill'}++;
        } elsif ($ended > $end - $slack) {
            $seen->{'requests cut by the end'}++;
        } else {
            $bad->("a request for $request->{path} at $began failed at $ended ($fate, worker $pid)");
        }
    }
}

# Whether a worker ended so that what it served was cut off: by a signal, or told to stop at once.
sub was_cut {
    my ($record, $worker) = @_;
    return 0 unless defined $worker->{died};
    return 1 if $worker->{status} ne '0' && $worker->{status} ne '?';
    return scalar Chaos::Record::done($record, 'signal', qr/^(?:TERM|KILL|SEGV) $worker->{pid}$/);
}

# Whether a worker is of a generation for which the zone had no room.
sub untold {
    my ($record, $worker) = @_;
    my $untold = 0;
    return 0 unless $worker;
    for my $line (grep { $_->{pid} == $record->{master} } @{ $record->{error} }) {
        $untold = 0 if $line->{text} eq 'reconfiguring';
        $untold = 1 if $line->{text} =~ /this one is not told about/;
        return $untold if $line->{text} eq "start worker process $worker->{pid}";
    }
    return 0;
}

# No sanitizer has anything to say, nor ended a process: with this status, as auto/prove has it.
sub check_sanitizers {
    my ($record, $bad) = @_;
    $bad->("a finding of the sanitizers: $_") for @{ $record->{findings} };
    for my $process (values %{ $record->{processes} }) {
        $bad->("a sanitizer ended process $process->{pid}") if ($process->{status} // '') eq 99 << 8;
    }
}

# At quiet moments log and /proc agree, and nobody has more descriptors than before.
sub check_settled {
    my ($record, $bad, $seen) = @_;
    $bad->("$_->{rest} took too long") for Chaos::Record::done($record, 'late');
    $bad->("not quiet: $_->{rest}") for Chaos::Record::done($record, 'unsettled');
    $bad->("left behind: $_->{rest}") for Chaos::Record::done($record, 'left');
    my (%first, %workers);
    for my $line (Chaos::Record::done($record, 'descriptors')) {
        my ($pid, $workers, @kinds) = split ' ', $line->{rest};
        my %kinds = map { /^(.*)=(\d+)$/ } @kinds;
        # Made for the first configuration with a program in it.
        my ($memfd) = grep { /^\/memfd:/ } keys %kinds;
        if ($memfd) {
            $bad->("process $pid has more than one $memfd") if delete $kinds{$memfd} > 1;
            # With both ends of the pipe that tells helpers when the node has ended.
            delete $kinds{pipe} if ($kinds{pipe} -= 2) == 0;
        }
        if ($pid == $record->{master}) {
            # A pair of sockets to each worker; and one end of a pipe of each program that it started at its last
            # event and nobody waits for: a master reaps those at the next.
            $kinds{socket} -= 2 * $workers;
            my $pipes = delete $kinds{pipe} // 0;
            $bad->("the master has $pipes pipes") if $pipes > 4;
            my $now = join ' ', map { "$_=$kinds{$_}" } sort keys %kinds;
            $first{master} //= $now;
            $bad->("the master had $first{master} and has $now") if $now ne $first{master};
            $seen->{'quiet moments'}++;
        } else {
            my $pidfds = delete $kinds{'anon_inode:[pidfd]'} // 0;
            $bad->("worker $pid has $pidfds pidfds") if $pidfds > 3;
            $bad->("worker $pid has pipes") if $kinds{pipe};
            # Of its siblings, its clients and the server behind.
            delete $kinds{socket};
            my $now = join ' ', map { "$_=$kinds{$_}" } sort keys %kinds;
            $first{worker} //= $now;
            $bad->("a worker had $first{worker}, worker $pid has $now") if $now ne $first{worker};
        }
    }
}

1;
