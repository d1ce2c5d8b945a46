package Chaos::Script;

# What is done to a node, chosen from the seed alone: the same seed, the same node, the same actions
# in the same order. How many of them there is time for, and which process a number turns out to
# mean, is up to the machine.

use strict;
use warnings;

# Each action, and how often it comes.
my @ACTIONS = (
    reload          => 8,
    reload_twice    => 2,
    reload_syntax   => 3,
    reload_bind     => 1,
    reload_module   => 1,
    reopen          => 3,
    winch           => 1,
    test            => 1,
    kill            => 6,
    segv            => 2,
    kill_several    => 2,
    stop            => 4,
    stop_kill       => 1,
    quit_worker     => 2,
    term_worker     => 2,
    failpoint      => 6,
    kill_in_call    => 4,
    call_fails      => 1,
    call_kills      => 2,
    call_loses      => 2,
    reap_in_call    => 2,
    program         => 6,
    fill_disk       => 2,
    free_disk       => 2,
    step_clock      => 2,
    settle          => 1,
);

my @EVENTS = qw(master_start master_exit worker_start worker_exit master_ready worker_draining
    worker_stuck worker_lost worker_hung worker_recovered reload_failed);

# Points at which it is a worker that dies, and now and then the master.
my @POINTS = (
    (map { my $event = $_; map { "$event.$_" } qw(planned journaled applying recorded begun called
        logged delivered) } qw(worker_start worker_exit worker_lost worker_draining worker_hung
        worker_recovered master_ready master_exit)),
    qw(reload_failed.journaled master_start.recorded),
);

my @PROGRAMS = qw(hang fork gigabyte die orphan exit);

# new($seed, $episode): the script of one node.
sub new {
    my ($class, $seed, $episode) = @_;
    my $self = bless { state => ($seed * 7919 + $episode * 104_729) % 2_147_483_646 + 1 }, $class;
    $self->below(2) for 1 .. 10;
    my $small = $self->below(3) == 0;
    $self->{node} = {
        workers  => $small ? 64 : $self->pick(1, 2, 4, 8, 16, 32, 64),
        zone     => $small ? '32k' : '256k',
        end      => $self->pick(qw(QUIT QUIT TERM TERM KILL)),
        orphans  => $self->pick(qw(QUIT TERM KILL_SOME KILL_ALL)),
    };
    return $self;
}

# A number from 0 to $n - 1, by the minimal standard generator.
sub below {
    my ($self, $n) = @_;
    $self->{state} = $self->{state} * 48_271 % 2_147_483_647;
    return int($self->{state} / 2_147_483_647 * $n);
}

sub pick {
    my ($self, @choices) = @_;
    return $choices[ $self->below(scalar @choices) ];
}

# The node to begin with, and how it ends.
sub node { $_[0]{node} }

# What a configuration asks for beside what the node is.
sub load {
    my ($self) = @_;
    my $workers = $self->{node}{workers};
    # Now and then a reload changes how many there are.
    $workers = $self->pick(1, 3, 17, 64) if $self->below(6) == 0;
    my %programs = map { $self->pick(@EVENTS) => 1 } 1 .. $self->below(4);
    my ($interval, $failed) = @{ $self->pick([ '300ms', '700ms' ], [ '1s', '1s' ], [ '30s', '30s' ]) };
    return {
        workers  => $workers,
        interval => $interval,
        failed   => $failed,
        programs => [ sort keys %programs ],
        stuck    => $self->below(2),
    };
}

# The next action: { name, pause, and what it needs }.
sub next {
    my ($self) = @_;
    my $total = 0;
    $total += $ACTIONS[ 2 * $_ + 1 ] for 0 .. $#ACTIONS / 2;
    my $n = $self->below($total);
    my $i = 0;
    $n -= $ACTIONS[ $i + 1 ], $i += 2 while $n >= $ACTIONS[ $i + 1 ];
    # Each takes as many numbers as any other: what is added to one moves none of the rest.
    return {
        name    => $ACTIONS[$i],
        victims => [ map { $self->below(1_000_000) } 1 .. 8 ],
        load    => $self->load,
        point   => $self->pick(@POINTS),
        program => $self->pick(@PROGRAMS),
        ms      => 20 + $self->below($self->below(4) ? 300 : 2500),
        clock   => $self->pick(-86_400, -3600, -1, 1, 3600, 86_400),
        pause   => $self->below(4) ? 0.02 + $self->below(200) / 1000 : 0,
    };
}

# An action as text, the same for the same seed.
sub text {
    my ($action) = @_;
    my $load = $action->{load};
    return join ' ', $action->{name}, "victims=@{ $action->{victims} }[0..2]", "ms=$action->{ms}",
        "point=$action->{point}", "program=$action->{program}", "clock=$action->{clock}",
        "workers=$load->{workers}", "interval=$load->{interval}",
        'programs=' . join(',', @{ $load->{programs} });
}

1;
