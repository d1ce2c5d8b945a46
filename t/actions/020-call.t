# The callback `call`: the C structure, text, failures, and the example library.
use strict;
use warnings;
use Test::More;
use WorkerManager;

my $HOOKS = "$ENV{WORKER_MANAGER_OBJS}/hooks.so";

subtest 'the example library tells every event' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->configure(manager => qq{on * call $HOOKS note "$node->{root}/out/notes";});
    # Master and workers write to it, as different users.
    $node->write('out/notes', '', 0666);
    $node->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 2);
    $node->down;
    my @notes = map { s/^(\w+\(\d+)-\d+/$1-/r } split /\n/, $node->read('out/notes');
    is_deeply(\@notes, [
        'master_start(1, -,0,-) ', 'worker_start(1-, -,1,-) ', 'master_ready(1, -,1,-) ',
        'worker_lost(1-, -,1,-) signal 9', 'worker_start(1-, -,1,-) ',
        'worker_draining(1-, -,1,-) ', 'worker_exit(1-, -,1,-) ', 'master_exit(1, -,0,-) ',
    ], 'in order');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a failure is logged, and the next callback runs' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->configure(manager => "on worker_start call $HOOKS fail; on worker_start call $HOOKS note;"
        . 'on worker_start log notice "and on it goes";');
    $node->up;
    like($node->log, qr/\[error\].*worker_start 1-\d+: fail failed with 42/, 'fail');
    like($node->log, qr/\[error\].*worker_start 1-\d+: note failed with 1/, 'no text is NULL');
    like($node->log, qr/and on it goes/, 'the next runs');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a path relative to the prefix; a crash in a callback' => sub {
    my $node = WorkerManager->new(workers => 2);
    $node->write('crash.c', <<'END');
#include <stddef.h>
#include <unistd.h>
#include "ngx_worker_manager.h"
int crash(const ngx_worker_manager_event_t *ev, void *data)
{
    if (access(data, F_OK) == 0 && unlink(data) == 0) {
        *(volatile int *) NULL = ev->size;
    }
    return 0;
}
END
    system('cc', '-shared', '-fPIC', '-I', "$ENV{WORKER_MANAGER_OBJS}/../nginx", '-o',
        $node->path('crash.so'), $node->path('crash.c')) == 0 or die 'cc';
    $node->configure(manager => qq{on worker_start call crash.so crash "$node->{root}/out/crash";});
    $node->write('out/crash', '');
    $node->start;
    $node->wait_events('worker_start', 3);
    like(($node->kinds('worker_lost'))[0]{reason}, qr/^signal 11$/, 'lost by its own callback');
    like($node->log, qr/died holding the lock/, 'the others go on');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that nginx does not start again' => sub {
    my $node = WorkerManager->new(workers => 2);
    $node->write('fatal.c', <<'END');
#include <unistd.h>
#include "ngx_worker_manager.h"
int fatal(const ngx_worker_manager_event_t *ev, void *data)
{
    (void) ev;
    if (unlink(data) == 0) {
        _exit(2);
    }
    return 0;
}
END
    system('cc', '-shared', '-fPIC', '-I', "$ENV{WORKER_MANAGER_OBJS}/../nginx", '-o',
        $node->path('fatal.so'), $node->path('fatal.c')) == 0 or die 'cc';
    $node->configure(manager => qq{on worker_start call fatal.so fatal "$node->{root}/out/fatal";});
    $node->write('out/fatal', '');
    $node->start;
    $node->wait_for('its end', sub { $node->log =~ /fatal code 2 and cannot be respawned/ });
    $node->wait_events('worker_start', 2);
    $node->down;
    is_deeply([ map { $_->{reason} } $node->kinds('worker_lost') ], ['exit 2'],
        'the master tells it at the end, with its code');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'another module registers functions and reads counts' => sub {
    my $node = WorkerManager->new(workers => 2);
    # Stands for another module: a library loaded by `call` that looks the interface up, as a
    # module would.
    $node->write('other.c', <<'END');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "ngx_worker_manager.h"

static int registered(const ngx_worker_manager_event_t *ev, void *data)
{
    ngx_worker_manager_counts_t counts = { sizeof(counts) };
    int (*read_counts)(ngx_worker_manager_counts_t *) =
        dlsym(RTLD_DEFAULT, "ngx_worker_manager_counts");
    FILE *file = fopen(data, "a");
    int rc = read_counts(&counts);
    fprintf(file, "%s %d %lld %lld\n", ev->event, rc, (long long) counts.generation,
        (long long) counts.n_mine);
    fclose(file);
    return 0;
}

int enter(const ngx_worker_manager_event_t *ev, void *data)
{
    struct ngx_cycle_s **cycle = dlsym(RTLD_DEFAULT, "ngx_cycle");
    int (*on)(struct ngx_cycle_s *, const char *, ngx_worker_manager_callback_pt, void *) =
        dlsym(RTLD_DEFAULT, "ngx_worker_manager_on");
    ngx_worker_manager_counts_t small = { 8 };
    int (*read_counts)(ngx_worker_manager_counts_t *) =
        dlsym(RTLD_DEFAULT, "ngx_worker_manager_counts");
    if (on(*cycle, "worker_born", registered, data) != -2) return 10;
    if (read_counts(&small) != -2) return 11;
    return on(*cycle, "worker_exit", registered, data);
}
END
    system('cc', '-shared', '-fPIC', '-I', "$ENV{WORKER_MANAGER_OBJS}/../nginx", '-o',
        $node->path('other.so'), $node->path('other.c')) == 0 or die 'cc';
    $node->configure(manager => qq{on worker_start call other.so enter "$node->{root}/out/said";});
    $node->up;
    unlike($node->log, qr/enter failed/, 'registered');
    $node->down;
    is($node->read('out/said'), "worker_exit 0 1 1\nworker_exit 0 1 0\n", 'called, with counts');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'another module reads the history, over reloads' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('history.c', <<'END');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include "ngx_worker_manager.h"

static int line(const ngx_worker_manager_event_t *ev, void *data)
{
    fprintf(data, "%llu %s %s %s %d %lld %d %lld %s\n", (unsigned long long) ev->seq, ev->event, ev->id,
        ev->reason != NULL ? ev->reason : "-", ev->took >= 0, (long long) ev->n_left, ev->stopping,
        (long long) ev->respawn_of, ev->history);
    return ev->seq == 9 ? 7 : 0;
}

int history(const ngx_worker_manager_event_t *ev, void *data)
{
    ngx_worker_manager_counts_t counts = { sizeof(counts) };
    int (*read_counts)(ngx_worker_manager_counts_t *) =
        dlsym(RTLD_DEFAULT, "ngx_worker_manager_counts");
    int (*read_history)(uint64_t, ngx_worker_manager_callback_pt, void *) =
        dlsym(RTLD_DEFAULT, "ngx_worker_manager_history");
    FILE *file = fopen(data, "w");
    int rc = read_counts(&counts);
    (void) ev;
    fprintf(file, "%d %lld %lld %d %d %d\n", rc, (long long) counts.reloads,
        (long long) counts.reloads_failed, counts.reloaded_at > 1000000000000,
        counts.failed_at > counts.reloaded_at, counts.reload_duration >= 0);
    rc = read_history(1, line, file);
    fprintf(file, "%d\n", rc);
    fclose(file);
    return 0;
}
END
    system('cc', '-shared', '-fPIC', '-I', "$ENV{WORKER_MANAGER_OBJS}/../nginx", '-o',
        $node->path('history.so'), $node->path('history.c')) == 0 or die 'cc';
    $node->configure(
        manager => qq{on reload_failed call history.so history "$node->{root}/out/history";});
    $node->up;
    $node->signal('KILL', $node->on_duty);
    $node->wait_events('worker_start', 2);
    $node->reload(2);
    $node->configure(main => 'no_such_directive on;');
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    my ($counts, @events) = split /\n/, $node->read('out/history');
    is($counts, '0 1 1 1 1 1', 'the reloads are counted');
    is(pop @events, 7, 'it ends where the function says');
    is_deeply(\@events, [ map {
        my $respawn_of = $_->{respawn_of} eq '-' ? -1 : $_->{respawn_of};
        "$_->{seq} $_->{event} $_->{id} $_->{reason} 1 $_->{left} $_->{stopping} $respawn_of $_->{history}"
    } ($node->events)[ 1 .. 8 ] ], 'what was told');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a library that a reload removes stays for its threads' => sub {
    my $node = WorkerManager->new(workers => 1);
    $node->write('thread.c', <<'END');
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "ngx_worker_manager.h"

static volatile unsigned long turns;
static const char *name;

static void *turn(void *unused)
{
    for (;;) {
        FILE *file = fopen(name, "w");
        if (file != NULL) {
            fprintf(file, "%lu\n", ++turns);
            fclose(file);
        }
        usleep(1000);
    }
    return unused;
}

int begin(const ngx_worker_manager_event_t *ev, void *data)
{
    pthread_t thread;
    (void) ev;
    name = strdup(data);
    return pthread_create(&thread, NULL, turn, NULL);
}
END
    system('cc', '-shared', '-fPIC', '-I', "$ENV{WORKER_MANAGER_OBJS}/../nginx", '-o',
        $node->path('thread.so'), $node->path('thread.c'), '-lpthread') == 0 or die 'cc';
    $node->up;
    my $turns = sub { $node->read('out/turns') || 0 };
    $node->configure(
        manager => qq{on master_start call thread.so begin "$node->{root}/out/turns";});
    $node->reload(2);
    $node->wait_for('its thread', $turns);
    $node->configure(manager => '');
    $node->reload(3);
    my $now = $turns->();
    $node->wait_for('the thread to go on in the master',
        sub { $turns->() > $now + 2 || !WorkerManager::is_alive($node->master) });
    ok(WorkerManager::is_alive($node->master), 'the master lives');
    $node->reload(4);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
