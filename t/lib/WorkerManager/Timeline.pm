package WorkerManager::Timeline;

# A timeline as the contract writes it, and whether what a node has told is one:
#
#     master_start(2, 2,0,nil)
#     worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)
#
# Each event is `name(id, n_prev,n_mine,n_next)`. In an id a letter stands for a pid: the same letter for the
# same one, another letter for another one. What comes behind the counts, after semicolons, is a reason
# (`signal 9`), or a field and its value (`worker 1`, `respawn_of C`, `connections 1`, `pid master` or its
# `launcher`), or a field that has to be a number of seconds (`duration`), of at least so many (`duration 0.3`).
# Without a reason the event has none.
#
# The lines are in order. Events of one line come in any order that keeps that of each worker and each
# generation; a line goes on in the next one if that is indented. The counts are those of the order that is
# written: what they are in the order taken the laws say.

use strict;
use warnings;

use WorkerManager::Laws;

my %FIELD = map { $_ => 1 } qw(core worker left stopping respawn_of connections older pid);

# The lines of a timeline, each a list of events; dies if it can't be read.
sub parse {
    my ($text) = @_;
    my @lines;
    for my $line (split /\n/, $text) {
        next unless $line =~ /\S/;
        push @lines, [] if $line =~ /^\S/ || !@lines;
        while ($line =~ /\G\s*(\w+)\(([^()]*)\)/gc) {
            push @{ $lines[-1] }, event($1, $2);
        }
        die "a timeline has the line: $line\n" unless $line =~ /\G\s*\z/;
    }
    return @lines;
}

sub event {
    my ($name, $text) = @_;
    my ($told, @more) = split /\s*;\s*/, $text;
    my ($id, @counts) = split /\s*,\s*/, $told;
    my %event = (text => "$name($text)", event => $name, reason => '-', fields => []);
    ($event{gen}, $event{letter}) = $id =~ /^(\d+)(?:-([A-Z]))?\z/ or die "an event has the id $id\n";
    die "$event{text} needs three counts\n" if @counts != 3;
    @event{qw(prev mine next)} = map { $_ eq 'nil' ? '-' : $_ } @counts;
    for my $more (@more) {
        if ($more =~ /^duration(?: ([\d.]+))?\z/) {
            push @{ $event{fields} }, [ duration => $1 // 0 ];
        } elsif ($more =~ /^(\w+) (\S+)\z/ && $FIELD{$1}) {
            push @{ $event{fields} }, [ $1 => $2 eq 'nil' ? '-' : $2 ];
        } else {
            $event{reason} = $more;
        }
    }
    return \%event;
}

# How many events there are in a timeline.
sub size {
    my (@lines) = @_;
    return scalar map { @$_ } @lines;
}

# What is wrong if a timeline is to be what was told, after what had been told before; nothing if nothing
# is. The letters get their pids.
sub differences {
    my ($lines, $told, $before, $letters) = @_;
    my $size = size(@$lines);
    return "told are " . @$told . " events, not $size" if @$told < $size;
    my (@written, $from);
    $from = 0;
    for my $line (@$lines) {
        my @events = @$told[ $from .. $from + $#$line ];
        $from += @$line;
        # Letters of one line may stand for one or the other, which a later line decides: all of it is tried.
        push @written, [ $line, \@events ];
    }
    my $found = assign(\@written, 0, $letters) or return 'no order of letters fits';
    my @order;
    for my $n (0 .. $#written) {
        my ($line, $events) = @{ $written[$n] };
        push @order, map { $events->[$_] } @{ $found->[$n] };
    }
    return counts_differ($lines, \@order, $before);
}

# For each line from the given one, which event is which of those that are written; nothing if they differ.
sub assign {
    my ($written, $n, $letters) = @_;
    return [] if $n == @$written;
    my ($line, $events) = @{ $written->[$n] };
    my $result;
    place($line, $events, 0, {}, [], $letters, sub {
        my ($places) = @_;
        my $rest = assign($written, $n + 1, $letters) or return 0;
        $result = [ [@$places], @$rest ];
        return 1;
    });
    return $result;
}

# Puts the event of a number in one of the places that are left, and all after it.
sub place {
    my ($line, $events, $number, $used, $places, $letters, $go_on) = @_;
    return $go_on->($places) if $number == @$events;
    my $event = $events->[$number];
    my %passed;
    for my $place (0 .. $#$line) {
        next if $used->{$place};
        my $written = $line->[$place];
        my $who = $written->{letter} // "generation $written->{gen}";
        next if $passed{$who}++;
        my %bound = %$letters;
        next unless fits($written, $event, $letters);
        local $used->{$place} = 1;
        local $places->[$place] = $number;
        return 1 if place($line, $events, $number + 1, $used, $places, $letters, $go_on);
        %$letters = %bound;
    }
    return 0;
}

# Whether an event is what is written, but for the counts; then its letters have pids.
sub fits {
    my ($written, $event, $letters) = @_;
    return 0 if $written->{event} ne $event->{event} || $written->{gen} != $event->{gen};
    return 0 if $written->{reason} ne $event->{reason};
    my %bound = %$letters;
    my $is = sub {
        my ($letter, $pid) = @_;
        # A single process is its own master.
        return 0 if grep { $bound{$_} eq $pid && $_ ne $letter && $_ ne 'master' && $letter ne 'master' } keys %bound;
        return ($bound{$letter} //= $pid) eq $pid;
    };
    return 0 if defined $written->{letter} && !$is->($written->{letter}, $event->{pid});
    for my $field (@{ $written->{fields} }) {
        my ($name, $value) = @$field;
        my $told = $event->{$name} // '-';
        my $same = $name eq 'duration' ? $told =~ /^\d+\.\d{3}\z/ && $told >= $value
            : $value eq 'launcher' ? $told ne $letters->{master}
            : $value =~ /^(?:[A-Z]|master)\z/ ? $is->($value, $told)
            : $value eq $told;
        return 0 unless $same;
    }
    %$letters = %bound;
    return 1;
}

# The counts that are written and are not those of the events in this order, after those before.
sub counts_differ {
    my ($lines, $order, $before) = @_;
    my %generations;
    take(\%generations, $_) for @$before;
    my @different;
    for my $written (map { @$_ } @$lines) {
        my %is = take(\%generations, shift @$order);
        my @wrong = grep { $written->{$_} ne $is{$_} } qw(prev mine next);
        push @different, "$written->{text}: in this order n_$_ is $is{$_}" for @wrong;
    }
    return @different;
}

# What the counts of an event have to be, if these generations are there. Then it has been.
sub take {
    my ($generations, $event) = @_;
    my ($kind, $number, $pid) = @$event{qw(event gen pid)};
    my $g = $generations->{$number} //= { running => {} };
    $g->{running}{$pid} = 1 if $kind =~ /^worker_(?:start|recovered)$/;
    my %counts = WorkerManager::Laws::counts($generations, $number);
    delete $g->{running}{$pid} if $kind =~ /^worker_(?:exit|lost|hung)$/;
    $g->{over} = 1 if $kind eq 'master_exit';
    return %counts;
}

1;
