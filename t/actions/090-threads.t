# The exported functions on a thread that a library starts: they do nothing there, and a worker logs that.
use strict;
use warnings;
use Test::More;
use WorkerManager;

subtest 'an exported function on another thread' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('thread.c', <<'END');
#include <pthread.h>
#include <stdio.h>
#include "ngx_worker_manager.h"

static ngx_worker_manager_counts_t here = { .size = sizeof(here) };
static ngx_worker_manager_counts_t elsewhere = { .size = sizeof(elsewhere) };

static void *ask(void *result)
{
    *(int *) result = ngx_worker_manager_counts(&elsewhere);
    return NULL;
}

int begin(const ngx_worker_manager_event_t *ev, void *name)
{
    int        other = 1;
    FILE      *file;
    pthread_t  thread;

    if (pthread_create(&thread, NULL, ask, &other) || pthread_join(thread, NULL)) {
        return 1;
    }
    file = fopen(name, "w");
    if (file == NULL) {
        return 1;
    }
    fprintf(file, "%d %d\n", ngx_worker_manager_counts(&here), other);
    fclose(file);
    return 0;
}
END
    system('cc', '-shared', '-fPIC', '-I', "$ENV{WORKER_MANAGER_OBJS}/../nginx", '-o',
        $node->path('thread.so'), $node->path('thread.c'), '-lpthread') == 0 or die 'cc';
    $node->configure(manager => qq{interval 100ms; }
        . qq{on worker_start call thread.so begin "$node->{root}/out/results";});
    $node->up;
    $node->wait_for('the results', sub { $node->read('out/results') });
    is($node->read('out/results'), "0 -1\n", 'it has an answer on the main thread alone');
    my $alerts = sub { scalar(() = $node->log =~ /\[alert\].*on another thread/g) };
    $node->wait_for('the alert', $alerts);
    $node->down;
    is($alerts->(), 1, 'the alert is logged once');
};

subtest 'what a thread of nginx\'s pool logs is no call of this module' => sub {
    my $node = WorkerManager->new(workers => 1);
    # The beginning of ngx_cycle_t.
    $node->write('log.c', <<'END');
#include <pthread.h>
#include <stdint.h>

typedef struct { void *conf_ctx, *pool, *log; } cycle_t;
extern cycle_t *volatile ngx_cycle;
void ngx_log_error_core(uintptr_t level, void *log, int err, const char *fmt, ...);

static void *report(void *unused)
{
    ngx_log_error_core(3, ngx_cycle->log, 0, "a thread has read nothing");
    return NULL;
}

int begin(const void *ev, void *data)
{
    pthread_t  thread;

    return pthread_create(&thread, NULL, report, NULL) || pthread_join(thread, NULL);
}
END
    system('cc', '-shared', '-fPIC', '-o', $node->path('log.so'), $node->path('log.c'), '-lpthread') == 0 or die 'cc';
    $node->configure(manager => 'interval 100ms; on master_ready call log.so begin;');
    $node->up;
    $node->reload_ready(2);
    $node->wait_for('both to be logged', sub { 2 <= (() = $node->log =~ /\[crit\].*a thread has read nothing/g) });
    # A heartbeat of the second generation says what it knows.
    my $until = time + 1;
    $node->wait_for('heartbeats', sub { time > $until });
    unlike($node->log, qr/on another thread/, 'nobody is accused');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
