package WorkerManager::Laws;

# The laws of the contract, checked on a list of events by counting along independently of the
# module.

use strict;
use warnings;

# broken(\@events, final => 0|1, gaps => 0|1): what is broken, as text. `final` says that the node
# is over; `gaps` that some events could not be told since whoever was to tell them was killed. What is
# `?` in an event is unknown.
sub broken {
    my ($events, %options) = @_;
    my @broken;
    my %generations;    # number => { running => {pid}, hung => {pid}, index => {pid => index},
                        #             over => bool }
    my (%started, %ended, %once);
    my ($seq, $stopping) = (0, 0);
    my ($last_generation, $history);

    for my $event (@$events) {
        my $bad = sub { push @broken, "event $event->{seq}, $event->{event} $event->{id}: @_" };
        $seq++ unless $options{gaps};
        $bad->("seq $event->{seq} instead of $seq") if !$options{gaps} && $event->{seq} != $seq;
        $bad->('seq goes backwards') if $options{gaps} && $event->{seq} <= $seq;
        $seq = $event->{seq};
        $history //= $event->{history};
        $bad->("history $event->{history}, not $history") if differ($event->{history}, $history);

        my ($kind, $number, $pid) = @$event{qw(event gen pid)};
        my $g = $generations{$number};
        if ($kind eq 'master_start') {
            $bad->('started before') if $g;
            $bad->('not the next number')
                if defined $last_generation && !$options{gaps} && $number != $last_generation + 1;
            $last_generation = $number;
            $g = $generations{$number} = { running => {}, hung => {} };
        } elsif (!$g) {
            next if $options{gaps};
            $bad->('of a generation that never started');
            next;
        }
        $bad->('after the end of its generation') if $g->{over};

        if ($kind eq 'worker_start') {
            $bad->('started before') if $started{ $event->{id} }++;
            my @same = grep { $g->{index}{$_} eq $event->{worker} } keys %{ $g->{index} };
            $bad->("its index $event->{worker} is that of worker @same") if @same && !$options{gaps};
            $g->{running}{$pid} = 1;
            $g->{index}{$pid} = $event->{worker};
        }
        if ($kind =~ /^(?:master_ready|master_lost|worker_draining|worker_stuck)$/) {
            $bad->('told before') if $once{$kind}{ $event->{id} }++;
        }
        my $reason = $kind eq 'worker_lost' ? qr/^(?:signal \d+|exit \d+|oom|unknown)$/ : qr/^-$/;
        $bad->("reason $event->{reason}") if $event->{reason} !~ $reason && $event->{reason} ne '?';
        my $index = $kind =~ /^worker_/ ? qr/^\d+$/ : qr/^-$/;
        $bad->("index $event->{worker}") if $event->{worker} !~ $index && $event->{worker} ne '?';
        if ($kind =~ /^worker_(?:draining|stuck)$/) {
            $bad->('not on duty') unless $g->{running}{$pid} || $g->{hung}{$pid} || $options{gaps};
            $bad->('does not drain') if $kind eq 'worker_stuck' && !$once{worker_draining}{ $event->{id} };
        }
        if ($kind eq 'worker_recovered') {
            $bad->('was not hung') unless delete $g->{hung}{$pid};
            $g->{running}{$pid} = 1;
        }
        # Only a start takes back that the node stops, as when its master is told to let its workers go
        # and then to reload.
        my $starts = $kind =~ /^(?:master|worker)_start$/;
        $bad->("stopping $event->{stopping}")
            if !$options{gaps} && differ($event->{stopping}, $starts ? 0 : $stopping || $event->{stopping});
        $stopping = $event->{stopping} unless ($event->{stopping} // '?') eq '?';
        my $before = $event->{respawn_of} // '-';
        $bad->("in the place of $before")
            if $before ne '-' && $before ne '?' && !$options{gaps}
            && ($kind ne 'worker_start' || !grep { $ended{"$_-$before"} } keys %generations);
        # What was counted before it is hung or gone is counted in its own event.
        my %expected = counts(\%generations, $number);
        for my $name (qw(prev mine next older)) {
            next if $options{gaps};
            # A reload may be the first thing in a history.
            next if $name eq 'prev' && $kind eq 'master_start' && $expected{prev} eq '-' && !$event->{prev};
            $bad->("n_$name is $event->{$name}, not $expected{$name}")
                if $event->{$name} ne $expected{$name} && $event->{$name} ne '?';
        }
        if ($kind eq 'worker_hung') {
            $bad->('was not running') unless delete $g->{running}{$pid};
            $g->{hung}{$pid} = 1;
        }
        if ($kind eq 'worker_exit' || $kind eq 'worker_lost') {
            $bad->('ended before') if $ended{ $event->{id} }++;
            delete $g->{index}{$pid};
            $bad->('never started') unless $started{ $event->{id} } || $options{gaps};
            my $was_hung = delete $g->{hung}{$pid};
            $bad->('exit of a hung worker') if $was_hung && $kind eq 'worker_exit';
            $bad->('was not running')
                if !delete $g->{running}{$pid} && !$was_hung && !$options{gaps};
        }
        # And not any more in what is left.
        my $left = keys %{ $g->{running} };
        $bad->("n_left is $event->{left}, not $left") if !$options{gaps} && differ($event->{left}, $left);
        if ($kind eq 'master_exit') {
            $bad->('has workers') if %{ $g->{running} } || %{ $g->{hung} };
            $g->{over} = 1;
        }
    }
    if ($options{final}) {
        push @broken, 'the last event does not know that the node stops'
            if !$options{gaps} && @$events && differ($stopping, 1);
        push @broken, map { "worker $_ never ended" } grep { !$ended{$_} } sort keys %started;
        push @broken, map { "generation $_ never ended" }
            grep { !$generations{$_}{over} } sort keys %generations;
    }
    return @broken;
}

# Whether what an event says of itself is something else; not all who read events know everything.
sub differ {
    my ($told, $expected) = @_;
    return defined $told && $told ne '?' && defined $expected && $told ne $expected;
}

sub counts {
    my ($generations, $mine) = @_;
    my $running = sub { scalar keys %{ $generations->{ $_[0] }{running} } };
    my @living = sort { $a <=> $b } grep { !$generations->{$_}{over} } keys %$generations;
    my ($prev, @older) = reverse grep { $_ < $mine } @living;
    my ($next) = grep { $_ > $mine } @living;
    my $older = 0;
    $older += $running->($_) for @older;
    return (
        prev  => defined $prev ? $running->($prev) : '-',
        mine  => $running->($mine),
        next  => defined $next ? $running->($next) : '-',
        older => $older,
    );
}

1;
