package Chaos;

# Nodes under chaos, one after the other, each checked when it is over.

use strict;
use warnings;

use Cwd ();
use List::Util qw(max);

use Chaos::Actors;
use Chaos::Check;
use Chaos::Node;
use Chaos::Record;
use Chaos::Script;

# How long things are done to one node, seconds.
our $EPISODE = 8;

# run($seconds, $seed): true if all laws held.
sub run {
    my ($seconds, $seed) = @_;
    $| = 1;
    my $until = Chaos::Node::now() + $seconds;
    my ($episode, $faulty, %total) = (0, 0);
    print "chaos: seed $seed, $seconds s\n";
    while (Chaos::Node::now() < $until) {
        my $node = episode($seed, ++$episode, $until);
        my ($faults, $seen) = Chaos::Check::faults(Chaos::Record::of($node->{root}));
        report($episode, $node, $faults, $seen);
        $faulty++ if @$faults;
        $ENV{CHAOS_KEEP} || @$faults ? print "    kept in $node->{root}\n" : $node->clean;
        add(\%total, $seen);
    }
    print "chaos: seed $seed: $episode nodes, $faulty with faults: ", figures(\%total), "\n";
    return !$faulty;
}

# What is mounted is seen, and needs to be taken away, by nobody else.
sub private_mounts {
    return if $> != 0 || $ENV{CHAOS_PRIVATE}++;
    # `unshare` is of util-linux, which every system has.
    no warnings 'exec';
    exec 'unshare', '--mount', '--propagation', 'private', $^X, $0, @ARGV;
}

# The life of one node.
sub episode {
    my ($seed, $episode, $until) = @_;
    my $script = Chaos::Script->new($seed, $episode);
    my $node = Chaos::Node->new(
        root => "$ENV{CHAOS_ROOT}/seed-$seed-$episode",
        objs => $ENV{CHAOS_OBJS},
        node => $script->node,
    );
    my $over = max(1, $until - Chaos::Node::now() - 3);
    $over = Chaos::Node::now() + ($over < $EPISODE ? $over : $EPISODE);
    eval {
        $node->start($script->load);
        while (Chaos::Node::now() < $over && $node->master_lives) {
            Chaos::Actors::act($node, $script->next);
        }
        Chaos::Actors::do_settle($node);
        Chaos::Actors::end($node, $script);
        1;
    } or $node->did('late', "the script, which died: $@" =~ s/\s+/ /gr);
    $node->finish;
    $node->unmount;
    return $node;
}

sub report {
    my ($episode, $node, $faults, $seen) = @_;
    my $how = $node->{node};
    my @actions = Chaos::Record::done(Chaos::Record::of($node->{root}), 'action');
    print "node $episode: $how->{workers} workers, zone $how->{zone}, end $how->{end}, ",
        scalar @actions, ' actions: ', figures($seen), "\n";
    # One fault may break much of what comes after it.
    my $more = @$faults > 20 ? @$faults - 20 : 0;
    print "    FAULT $_\n" for @$faults[ 0 .. $#$faults - $more ];
    print "    and $more more\n" if $more;
}

sub add {
    my ($total, $seen) = @_;
    for my $name (keys %$seen) {
        if (ref $seen->{$name}) {
            push @{ $total->{$name} }, @{ $seen->{$name} };
        } elsif ($name =~ /est /) {
            $total->{$name} = max($total->{$name} // 0, $seen->{$name});
        } else {
            $total->{$name} += $seen->{$name};
        }
    }
}

sub figures {
    my ($seen) = @_;
    my @figures = map { sprintf '%s %s', $seen->{$_} =~ /\./ ? sprintf('%.2fs', $seen->{$_}) : $seen->{$_}, $_ }
        grep { !ref $seen->{$_} && $seen->{$_} } sort keys %$seen;
    if (my @delays = sort { $a <=> $b } @{ $seen->{delays} // [] }) {
        push @figures, sprintf 'death to loss p50 %.1f ms, p99 %.1f ms, most %.1f ms',
            map { 1000 * $_ } $delays[ @delays / 2 ], $delays[ @delays * 0.99 ], $delays[-1];
    }
    return join ', ', @figures;
}

1;
