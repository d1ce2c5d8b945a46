# The sanitizers find what they are there for, in the module, in pools of nginx and in C: faults that
# are committed here on purpose. Only with what auto/asan built.
use strict;
use warnings;
use Test::More;
use WorkerManager;

plan skip_all => 'not built for sanitizers: make test-asan' unless $ENV{WORKER_MANAGER_REPORTS};

# What was reported until a condition holds of it.
sub report {
    my ($node, $pattern) = @_;
    my $all = '';
    $node->wait_for("a report: $pattern",
        sub { $all .= join '', WorkerManager::findings(); $all =~ $pattern });
    return $all;
}

# Waits until nginx has said that a worker died so. Its exit was recorded before: it is not lost.
sub dies {
    my ($node, $how) = @_;
    return $node->wait_for("a death $how", sub { $node->log =~ /worker process \d+ exited $how/ });
}

my $here = qr{in .*commit src/nginx/failpoint\.rs:\d+};
my %found = (
    'overflow'           => qr/heap-buffer-overflow .*READ of size 1.*#\d+ \S+ $here/s,
    'use after free'     => qr/heap-use-after-free .*READ of size 1.*#\d+ \S+ $here/s,
    'overflow in a pool' => qr/heap-buffer-overflow .*READ of size 1.*#\d+ \S+ $here.*ngx_palloc/s,
);

for my $fault (sort keys %found) {
    subtest "$fault, in the module" => sub {
        my $node = WorkerManager->new(workers => 1)->up;
        $node->write('failpoints/worker_exit.called.fault', $fault);
        $node->signal('HUP');
        ok(dies($node, 'with code 99'), 'the worker dies of it');
        like(report($node, $found{$fault}), $found{$fault}, 'and it is reported, with its place');
        unlink $node->path('failpoints/worker_exit.called.fault');
        $node->down;
    };
}

subtest 'a leak, in a worker of the module' => sub {
    my $node = WorkerManager->new(workers => 1)->up;
    $node->write('failpoints/worker_start.called.fault', 'leak');
    $node->signal('HUP');
    $node->wait_events('worker_start', 1, 2);
    unlink $node->path('failpoints/worker_start.called.fault');
    $node->down;
    my $leak = qr/Direct leak of \d+000 byte.*#\d+ \S+ $here/s;
    like(report($node, $leak), $leak, 'reported at its end');
};

subtest 'arithmetic that overflows, in the module' => sub {
    my $node = WorkerManager->new(workers => 1)->up;
    $node->write('failpoints/worker_exit.called.fault', 'arithmetic');
    $node->signal('HUP');
    ok(dies($node, 'on signal 6'), 'a panic');
    unlink $node->path('failpoints/worker_exit.called.fault');
    $node->down;
};

subtest 'an undefined shift, in C' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('shift.c', <<'C');
#include "ngx_worker_manager.h"
int amount = 40;
int shift(const ngx_worker_manager_event_t *ev, void *data)
{
    return (1 << amount) == (int) ev->seq;
}
C
    # With the checks that nginx itself is built with.
    system('cc', '-shared', '-fPIC', '-g', '-fsanitize=address,undefined',
        '-fno-sanitize-recover=all', '-I', "$ENV{WORKER_MANAGER_OBJS}/../nginx", '-o',
        $node->path('shift.so'), $node->path('shift.c'));
    is($?, 0, 'the library');
    $node->configure(manager => "on worker_exit call $node->{root}/shift.so shift;");
    $node->up;
    $node->signal('HUP');
    ok($node->wait_for('a report', sub { $node->log =~ /runtime error: shift exponent 40 is too large/ }),
        'it is reported, in the log, where the harness looks for it');
    ok(dies($node, 'with code 1'), 'and the worker dies of it');
    my $imports = `nm -D '$ENV{TEST_NGINX_BINARY}'`;
    like($imports, qr/ U __ubsan_handle_shift_out_of_bounds_abort\b/, 'nginx has this check');
    like($imports, qr/ U __asan_report_store8\b/, 'and those of addresses');
    $node->down;
    # This was asked for; any other is a failure of the suite.
    unlink $node->path('logs/error.log');
};

done_testing;
