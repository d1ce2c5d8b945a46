package Chaos::Check::Zone;

# Whether what the zone holds is what the events add up to, and /proc shows: the status at quiet
# moments, the number of workers that each answer came with, and who was said to have no room.

use strict;
use warnings;
use JSON::PP ();
use List::Util qw(max min);

use Chaos::Record;

sub check {
    my ($record, $bad, $seen, @events) = @_;
    my @states = states(@events);
    my @statuses = map { JSON::PP::decode_json($_->{rest}) } Chaos::Record::done($record, 'status');
    check_status($record, $bad, $_, @states) for @statuses;
    $seen->{statuses} = @statuses;
    check_room($record, $bad, $statuses[0]{zone}, @states) if @statuses;
    check_counts($record, $bad, $seen, @states);
}

# What each event leaves behind, by its number: how many workers and generations have not ended, how
# many workers of each generation run, and the reloads so far.
sub states {
    my (@events) = @_;
    my (%members, %running, @states);
    my %state = (members => 0, generations => 0, running => {}, newest => 0, loads => 0, failures => 0);
    $states[0] = {%state};
    for my $event (@events) {
        my ($kind, $id, $generation) = @$event{qw(event id gen)};
        if ($kind eq 'master_start') {
            $running{$generation} = {};
            $state{loads}++;
            $state{newest} = $generation;
        }
        $state{failures}++ if $kind eq 'reload_failed';
        delete $running{$generation} if $kind eq 'master_exit';
        $members{$id} = 1 if $kind eq 'worker_start';
        $running{$generation}{$id} = 1 if $kind =~ /^worker_(?:start|recovered)$/;
        delete $running{$generation}{$id} if $kind =~ /^worker_(?:exit|lost|hung)$/;
        delete $members{$id} if $kind =~ /^worker_(?:exit|lost)$/;
        @state{qw(members generations)} = (scalar keys %members, scalar keys %running);
        $state{running} = { map { $_ => scalar keys %{ $running{$_} } } keys %running };
        $states[ $event->{seq} ] = {%state};
    }
    # A number that is missing is a fault of its own.
    $states[$_] //= $states[ $_ - 1 ] for 1 .. $#states;
    return @states;
}

# At a quiet moment one generation is left, all its workers are on the roster and nobody else, and
# nothing else takes room.
sub check_status {
    my ($record, $bad, $status, @states) = @_;
    my ($node, $zone) = @$status{qw(node zone)};
    my $differs = sub {
        my ($what, $is, $expected) = @_;
        $bad->("status at event $node->{seq}: $what is $is, not $expected") if $is ne $expected;
    };
    my @counted = @{ $status->{counted} };
    my $state = $states[ $node->{seq} ] or return $bad->("status at event $node->{seq}, which nobody told");
    my @generations = @{ $status->{generations} };
    $differs->('roster', join(' ', sort { $a <=> $b } map { $_->{pid} } @{ $status->{workers} }), "@counted");
    $differs->('worker slots used', $zone->{workers}{used}, scalar @counted);
    $differs->('workers by the events', $state->{members}, scalar @counted);
    $differs->('generation slots used', $zone->{generations}{used}, 1);
    $differs->('generations', join(' ', map { $_->{generation} } @generations), $state->{newest});
    my $total = 0;
    $total += $_ for map { values %{ $_->{workers} } } @generations;
    $differs->('workers of generations', $total, scalar @counted);
    $differs->('newest generation', $node->{generation}, $state->{newest});
    $differs->('successful reloads', $node->{reloads}{succeeded}, $state->{loads} - 1);
    $differs->('failed reloads', $node->{reloads}{failed}, $state->{failures});
    $differs->('master', $node->{master}, $record->{master});
    $bad->("status at event $node->{seq}: the master is lost") if $node->{master_lost};
}

# Who was said to have no room came when the zone was full. What is said of it and the events stand in
# the order of the lock in the error log; events that were not logged are somewhere between two that
# were.
sub check_room {
    my ($record, $bad, $zone, @states) = @_;
    my ($before, @refused) = (0);
    my $judge = sub {
        my ($next) = @_;
        for my $refused (splice @refused) {
            my ($what, $text) = @$refused;
            my $most = max map { $states[$_]{$what} } $before .. max($before, $next - 1);
            my $total = $zone->{ $what eq 'members' ? 'workers' : 'generations' }{total};
            $bad->("$most of $total places were taken: $text") if $most < $total;
        }
        $before = $next;
    };
    for my $line (@{ $record->{error} }) {
        my $text = $line->{text};
        $judge->($1) if $text =~ /^EV (\d+) / && $1 > $before && $1 <= $#states;
        push @refused, [ members => $text ] if $text =~ /no room for another worker/;
        push @refused, [ generations => $text ] if $text =~ /no room for another generation/;
    }
    $judge->($#states + 1);
}

# $worker_manager_workers of an answer is how many of the worker's generation ran at some moment between
# the request and its end.
sub check_counts {
    my ($record, $bad, $seen, @states) = @_;
    # An event changes the count before its callbacks begin, and after those of the one before.
    my @marks = sort { $a->{at} <=> $b->{at} } grep { $_->{phase} eq 'begin' } @{ $record->{marks} };
    my $low = 0;
    for my $request (sort { $a->{began} <=> $b->{began} } @{ $record->{requests} }) {
        my (undef, $id, $count) = split /,/, $request->{worker};
        my ($generation) = ($id // '') =~ /^(\d+)-/ or next;
        $low++ while $low < @marks && $marks[$low]{at} <= $request->{began};
        my $high = $low;
        $high++ while $high < @marks && $marks[$high]{at} < $request->{ended};
        my $first = $low ? $marks[ $low - 1 ]{seq} : 0;
        my $last = $high < @marks ? $marks[$high]{seq} : $#states;
        my @counts = map { $states[$_]{running}{$generation} // 0 } $first .. max($first, min($last, $#states));
        my ($least, $most) = (min(@counts), max(@counts));
        $seen->{'counts in answers'}++;
        my $is_right = ($count //= '') =~ /^\d+$/ && $count >= $least && $count <= $most;
        $bad->("worker $id said at $request->{began} that \"$count\" run, not $least to $most") if !$is_right;
    }
}

1;
