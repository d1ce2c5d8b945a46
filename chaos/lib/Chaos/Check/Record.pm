package Chaos::Check::Record;

# Whether the three records of the events agree: the event log, the error log, and the notes of a hook
# library at the begin and the end of each event's callbacks.

use strict;
use warnings;

use Chaos::Record;

my @NAMES = qw(event id prev mine next older gen pid worker reason left stopping respawn_of history);

sub check {
    my ($record, $bad, $seen) = @_;
    $bad->("event $_ is in the event log twice") for @{ $record->{twice} };
    check_complete($record, $bad, $seen);
    check_agreement($record, $bad);
    check_overlap($record, $bad, $seen);
}

# A line is missing from the event log only if it could not be written, and as many as that were said
# to be. The event's callbacks miss one only if who ran them died.
sub check_complete {
    my ($record, $bad, $seen) = @_;
    my @merged = Chaos::Record::merged($record);
    my $newest = @merged ? $merged[-1]{seq} : 0;
    my @missing = grep { !$record->{events}{$_} } 1 .. $newest;
    my ($lost, $open) = (0, 0);
    for my $line (@{ $record->{error} }) {
        $lost = $1, $open = 0 if $line->{text} =~ /the event log is written again, (\d+) lines are lost/;
        $open = 1 if $line->{text} =~ /could not write to ".*", events are missing/;
    }
    # Who dies as the last one may have had no chance to write.
    pop @missing if @missing && $missing[-1] == $newest && !told_by_the_living($record, $merged[-1]);
    # Who takes over from the dead, with another file open since USR1, may not find the line there, nor
    # have room for it.
    my $deaths = grep { $_->{text} =~ /died holding the lock/ } @{ $record->{error} };
    my $double = Chaos::Record::done($record, 'signal', qr/^USR1 /) ? $deaths : 0;
    if ($open ? @missing < $lost - $double : @missing > $lost || @missing < $lost - $double) {
        my $which = @missing > 10 ? "$missing[0] to $missing[-1]" : "@missing";
        $bad->(scalar(@missing) . " lines are missing in the event log ($which), $lost are said to be");
    }
    $bad->("a torn line in the event log: $_") for grep { !$lost && !$open } @{ $record->{torn} };
    $seen->{'lines lost to a full disk'} = @missing;

    my %interrupted;
    for my $line (@{ $record->{error} }) {
        $interrupted{$1}++ if $line->{text} =~ /callback \d+ of generation \d+ was interrupted at (.*)/;
    }
    $seen->{'interrupted callbacks'} = grep { $_ } map { $interrupted{$_} } keys %interrupted;
    my (%logged, %begun, %ended);
    $logged{ $_->{seq} }++ for @{ $record->{logged} };
    ($_->{phase} eq 'begin' ? $begun{ $_->{seq} }++ : $ended{ $_->{seq} }++) for @{ $record->{marks} };
    for my $event (@merged) {
        my $seq = $event->{seq};
        for my $callback ([ log => \%logged ], [ begin => \%begun ], [ end => \%ended ]) {
            my ($name, $count) = ($callback->[0], $callback->[1]{$seq} // 0);
            my $which = "callback \"$name\" of event $seq, $event->{event} $event->{id},";
            $bad->("$which ran $count times") if $count > 1;
            next if $count || $seq == $newest;
            $bad->("$which did not run") unless $interrupted{"$event->{event} $event->{id}"};
        }
    }
}

# Whether who told an event lived to the end of its callbacks.
sub told_by_the_living {
    my ($record, $event) = @_;
    my @ends = grep { $_->{seq} == $event->{seq} && $_->{phase} eq 'end' } @{ $record->{marks} };
    # Who has ended the last hook may be killed before it writes the line.
    return grep { ($record->{processes}{ $_->{by} }{status} // '0') eq '0' } @ends;
}

sub check_agreement {
    my ($record, $bad) = @_;
    for my $other (@{ $record->{logged} }, @{ $record->{marks} }) {
        my $event = $record->{events}{ $other->{seq} } or next;
        for my $name (@NAMES) {
            $bad->("event $event->{seq}: $name is $event->{$name} and $other->{$name}")
                if $event->{$name} ne $other->{$name};
        }
    }
}

# While callbacks of one event run, nobody else runs any; who died in the middle is out of it.
sub check_overlap {
    my ($record, $bad, $seen) = @_;
    my $open;
    my $last_seq = 0;
    for my $mark (sort { $a->{at} <=> $b->{at} } @{ $record->{marks} }) {
        my $which = "event $mark->{seq}, $mark->{event} $mark->{id}";
        $bad->("$which after $last_seq") if $mark->{seq} < $last_seq;
        $last_seq = $mark->{seq};
        if ($open && $open->{by} != $mark->{by}) {
            my $holder = $record->{processes}{ $open->{by} };
            my $died = $holder && $holder->{died};
            # A poll of /proc may have missed it; then it is who took the lock after it that knows.
            my $known = $record->{source} eq 'proc'
                && grep { $_->{text} =~ /process $open->{by} died holding the lock/ } @{ $record->{error} };
            # The kernel lets go of what the dead held before it tells of the death; on a busy machine
            # that is a while, and without end if who is killed has a low priority.
            my $killed = grep { $_->{at} < $mark->{at} }
                Chaos::Record::done($record, 'signal', qr/^(?:KILL|SEGV) $open->{by}$/);
            my $gone = defined $died && $holder->{status} ne '0' && ($killed || $died < $mark->{at} + 1);
            $bad->("$which in process $mark->{by} while process $open->{by} was at event $open->{seq}")
                unless $known || $gone;
        } elsif ($open && $mark->{phase} eq 'begin') {
            $bad->("$which begins while event $open->{seq} has not ended");
        }
        if ($mark->{phase} eq 'begin') {
            $open = $mark;
        } else {
            my $took = $open ? $mark->{at} - $open->{at} : 0;
            $seen->{'longest event'} = $took if $took > ($seen->{'longest event'} // 0);
            undef $open;
        }
    }
}

1;
