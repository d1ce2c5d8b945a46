package Bench::Start;

# What a start costs: in all, and a worker in the module.
#
# Bare and module take turns, so that the machine's moods hit both alike, and bare a second time, which
# tells how far two that are the same differ. What disturbs a start only makes it longer, so the lower
# quartiles are compared.

use strict;
use warnings;

use Bench;

sub run {
    cold_start($_) for 2, 64, 512;
}

sub cold_start {
    my ($workers) = @_;
    my @kinds = qw(bare module again);
    my (%time, %cpu);
    one_start($workers, $_) for 0, 1;
    for (1 .. ($workers < 100 ? 3 * $turns : $turns)) {
        for my $kind (@kinds) {
            my ($time, $cpu) = one_start($workers, $kind eq 'module');
            push @{ $time{$kind} }, $time;
            push @{ $cpu{$kind} }, $cpu;
        }
        push @kinds, shift @kinds;
    }
    my ($bare, $module, $again) = map { lower_quartile(@{ $time{$_} }) } qw(bare module again);
    my $ratio = $module / $bare;
    row("cold start of $workers workers", sprintf('%.1f ms', 1000 * $bare),
        sprintf('%.1f ms', 1000 * $module), sprintf('%.3f', $ratio), '<= 1.05',
        $ratio <= 1.05);
    row('  bare nginx and bare nginx', sprintf('%.1f ms', 1000 * $again), '-',
        sprintf('%.3f', $again / $bare), '', 1);
    my $share = median(@{ $cpu{module} }) - median(@{ $cpu{bare} });
    row("  CPU per worker in the module", '-', sprintf('%.1f us', $share), '-', '<= 50 us',
        $share <= 50);
}

1;
