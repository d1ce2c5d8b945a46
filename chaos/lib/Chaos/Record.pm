package Chaos::Record;

# What a node under chaos has left behind, read into one structure for the check:
#     events    the lines of the event log, by seq; and torn, twice: what else there was
#     marks     what the hook library noted at the begin and the end of each event's callbacks
#     logged    the events as nginx's error log has them
#     error     the lines of the error log, each { level, pid, text }
#     processes what the kernel saw: pid => { parent, born, died, status, is_worker, runs }
#     findings  what sanitizers have said
#     requests  each { began, ended, fate, path, worker }
#     did       what was done, each { at, what, words }

use strict;
use warnings;
use JSON::PP ();

my @NAMES = qw(seq event id prev mine next older gen pid worker reason left stopping respawn_of history);

# of($folder): the record of the node there.
sub of {
    my ($root) = @_;
    my $record = { events => {}, torn => [], twice => [], processes => {} };
    read_events($record, sort glob "$root/small/events*.log");
    read_marks($record, "$root/marks");
    read_error_log($record, "$root/logs/error.log");
    read_trace($record, "$root/trace");
    # Those of UBSan are in the log: it reads its options when it first finds something, by when a worker
    # has no environment any more.
    $record->{findings} = [
        (map { ((grep { /ERROR: / } lines($_)), $_)[0] } glob "$root/reports/*"),
        grep { /runtime error: / } map { lines($_) } "$root/logs/error.log", "$root/logs/out",
    ];
    $record->{requests} = [ map {
        my %request;
        @request{qw(began ended fate path worker)} = split ' ';
        \%request;
    } lines("$root/requests") ];
    $record->{did} = [ map {
        my ($at, $what, $rest) = split ' ', $_, 3;
        { at => $at, what => $what, rest => $rest // '' };
    } lines("$root/did") ];
    ($record->{master}) = map { $_->{rest} } grep { $_->{what} eq 'master' } @{ $record->{did} };
    return $record;
}

sub lines {
    my ($path) = @_;
    open my $file, '<', $path or return;
    my @lines = <$file>;
    chomp @lines;
    return @lines;
}

sub read_events {
    my ($record, @paths) = @_;
    my %path;
    for my $at (map { my $path = $_; map { [ $path, $_ ] } lines($path) } @paths) {
        my ($path, $line) = @$at;
        my $json = eval { JSON::PP::decode_json($line) };
        if (!$json) {
            push @{ $record->{torn} }, $line if $line ne '';
            next;
        }
        my %event = (
            seq => $json->{seq}, event => $json->{event}, id => $json->{id},
            gen => $json->{generation}, pid => $json->{pid},
            took => $json->{took},
        );
        $event{$_} = $json->{"n_$_"} // '-' for qw(prev mine next older left);
        $event{$_} = $json->{$_} // '-' for qw(worker reason respawn_of history);
        $event{stopping} = $json->{stopping} ? 1 : 0;
        # Who takes over from the dead looks for the line in the file that it has open itself: if that
        # is another since USR1, the line is in both.
        if (my $before = $path{ $event{seq} }) {
            push @{ $record->{ $before eq $path ? 'twice' : 'in_both' } }, $event{seq};
        }
        $path{ $event{seq} } = $path;
        $record->{events}{ $event{seq} } = \%event;
    }
}

# One event as words in the order of @NAMES, the last of them quoted.
sub event_of {
    my ($text) = @_;
    my %event;
    my @words = map { s/^"(.*)"$/$1/r } $text =~ /("[^"]*"|\S+)/g;
    @event{@NAMES} = @words[ 0 .. $#NAMES ];
    return \%event;
}

sub read_marks {
    my ($record, $path) = @_;
    for my $line (lines($path)) {
        my ($at, $phase, $by, $text) = split ' ', $line, 4;
        my $event = event_of($text);
        $event->{$_} = $event->{$_} eq '-1' ? '-' : $event->{$_}
            for qw(prev mine next older worker respawn_of);
        push @{ $record->{marks} }, { %$event, at => $at, phase => $phase, by => $by };
    }
}

sub read_error_log {
    my ($record, $path) = @_;
    for my $line (lines($path)) {
        # What a program prints has no prefix of nginx's own only if it is not nginx's log.
        my ($level, $pid, $text) = $line =~ /^\S+ \S+ \[(\w+)\] (\d+)#\d+: (.*)$/ or next;
        $text =~ s/, client: .*//;
        push @{ $record->{error} }, { level => $level, pid => $pid, text => $text };
        push @{ $record->{logged} }, event_of($1) if $text =~ /^EV (.*)/;
    }
}

sub read_trace {
    my ($record, $path) = @_;
    my $processes = $record->{processes};
    for my $line (lines($path)) {
        my ($at, $what, @words) = split ' ', $line;
        if ($what eq 'source') {
            $record->{source} = $words[0];
        } elsif ($what eq 'lost') {
            $record->{trace_lost}++;
        } elsif ($what eq 'fork') {
            $processes->{ $words[1] } = { pid => $words[1], parent => $words[0], born => $at };
        } elsif (my $process = $processes->{ $words[0] }) {
            $process->{is_user} = 1 if $what eq 'user';
            $process->{runs} = 1 if $what eq 'exec';
            $process->{is_daemon} = 1 if $what eq 'session';
            @$process{qw(died status)} = ($at, $words[1]) if $what eq 'exit';
        }
    }
}

# The workers that the kernel saw: children of the master that are no helpers of programs.
sub workers {
    my ($record) = @_;
    my @workers = sort { $a->{born} <=> $b->{born} } grep {
        $_->{parent} == $record->{master} && $_->{is_user} && !$_->{runs}
    } values %{ $record->{processes} };
    return @workers;
}

# The events, in order: those of the event log, and those that are missing there from the other two
# records of them. Of an event of which no callback was left to run, while the event log could not be
# written, only the message is left that it was interrupted; the rest of it is unknown.
sub merged {
    my ($record) = @_;
    my %all = map { $_->{seq} => $_ } @{ $record->{logged} },
        grep { $_->{phase} eq 'begin' } @{ $record->{marks} };
    @all{ keys %{ $record->{events} } } = values %{ $record->{events} };
    my ($newest) = sort { $b <=> $a } keys %all;
    my @gaps = grep { !$all{$_} } 1 .. $newest // 0;
    if (@gaps) {
        my %known = map { ("$_->{event} $_->{id}" => 1) } values %all;
        for my $line (@{ $record->{error} }) {
            my ($event, $id) = $line->{text} =~ /was interrupted at (\w+) (\S+)$/ or next;
            next if $known{"$event $id"}++ || !@gaps;
            my ($generation, $pid) = split /-/, $id;
            my $seq = shift @gaps;
            $all{$seq} = { seq => $seq, event => $event, id => $id, gen => $generation, pid => $pid // '?',
                map { $_ => '?' } 
                    qw(prev mine next older worker reason left stopping respawn_of history) };
        }
    }
    return map { $all{$_} } sort { $a <=> $b } keys %all;
}

# When a signal or another thing was done, for those of one kind.
sub done {
    my ($record, $what, $pattern) = @_;
    return grep { $_->{what} eq $what && (!defined $pattern || $_->{rest} =~ $pattern) } @{ $record->{did} };
}

1;
