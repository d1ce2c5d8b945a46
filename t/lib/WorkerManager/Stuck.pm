package WorkerManager::Stuck;

# A node with a callback that does not return as long as a suite wants.

use strict;
use warnings;

use Exporter qw(import);
use Test::More;
use WorkerManager;

our @EXPORT = qw(node stuck_pid gone);

# A node whose library does not return from a callback while there is a file out/stuck; its process leaves
# its pid in out/pid.
sub node {
    my ($event, %options) = @_;
    my $node = WorkerManager->new(workers => 2, %options);
    my $out = "$node->{root}/out";
    $node->write('stuck.c', <<"C");
#include <stdio.h>
#include <unistd.h>
int stuck(const void *event, void *data)
{
    FILE *file;
    if (rename("$out/stuck", "$out/taken") == 0 && (file = fopen("$out/pid.new", "w")) != NULL) {
        fprintf(file, "%d\\n", (int) getpid());
        fclose(file);
        rename("$out/pid.new", "$out/pid");
        while (access("$out/taken", F_OK) == 0)
            usleep(10000);
    }
    return 0;
}
C
    system('cc', '-shared', '-fPIC', '-o', $node->path('stuck.so'), $node->path('stuck.c'));
    is($?, 0, 'the library');
    # Lines first: what is not told in full is told by others from the next callback on, or not at all.
    $node->configure(log => 0, manager => ($options{manager} // '') . join ' ',
        (map { qq{on * log notice "$_ $WorkerManager::EVENT";} } qw(EV1 EV2)),
        "on $event call $node->{root}/stuck.so stuck;");
    return $node->up;
}

sub stuck_pid {
    my ($node) = @_;
    return $node->wait_for('a stuck callback', sub { $node->read('out/pid') =~ /(\d+)/ && $1 });
}

sub gone {
    my ($node, @pids) = @_;
    $node->wait_for('the end of ' . @pids,
        sub { $node->reap; !grep { WorkerManager::is_alive($_) } @pids });
}

1;
