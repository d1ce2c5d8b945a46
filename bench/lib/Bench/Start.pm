package Bench::Start;

# What a start costs: in all, and a worker in the module.
#
# Bare and module take turns, each time the other first, so that the machine's moods hit both alike.
# What disturbs a start only makes it longer, so the lower quartiles are compared.

use strict;
use warnings;

use Bench;

sub run {
    cold_start($_) for 2, 64, 512;
}

sub cold_start {
    my ($workers) = @_;
    my (@bare, @module, @share, @share_bare);
    one_start($workers, $_) for 0, 1;
    for my $turn (1 .. ($workers < 100 ? 3 * $turns : $turns)) {
        for my $module ($turn % 2 ? (0, 1) : (1, 0)) {
            my ($time, $cpu) = one_start($workers, $module);
            push @{ $module ? \@module : \@bare }, $time;
            push @{ $module ? \@share : \@share_bare }, $cpu;
        }
    }
    my ($bare, $module) = (lower_quartile(@bare), lower_quartile(@module));
    my $ratio = $module / $bare;
    row("cold start of $workers workers", sprintf('%.1f ms', 1000 * $bare),
        sprintf('%.1f ms', 1000 * $module), sprintf('%.3f', $ratio), '<= 1.05',
        $ratio <= 1.05);
    my $share = median(@share) - median(@share_bare);
    row("  CPU per worker in the module", '-', sprintf('%.1f us', $share), '-', '<= 50 us',
        $share <= 50);
}

1;
