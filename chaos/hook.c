/*
 * hook.c: the callbacks of a node under chaos, twice. As a library it notes when each event's
 * callbacks begin and end, which is a record of the events beside the event log, and misbehaves in
 * the middle of a callback when it is told to. With -DPROGRAM it is a program that misbehaves.
 *
 * An order to misbehave is a file: whoever gets to rename it carries it out, once.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>


/* Takes the order that the file is, or says that there is none. */
static int
take(const char *path, char *order, size_t size)
{
    int      fd;
    char     mine[4200];
    ssize_t  n;

    snprintf(mine, sizeof(mine), "%s.%d", path, (int) getpid());

    if (rename(path, mine) != 0) {
        return 0;
    }

    fd = open(mine, O_RDONLY | O_CLOEXEC);
    n = fd == -1 ? -1 : read(fd, order, size - 1);
    if (fd != -1) {
        close(fd);
    }

    order[n < 0 ? 0 : n] = '\0';

    return n > 0;
}


static void
doze(long ms)
{
    struct timespec  left = { ms / 1000, ms % 1000 * 1000000 };

    while (nanosleep(&left, &left) != 0) { /* a signal: go on */ }
}


#ifndef PROGRAM

#include "../nginx/ngx_worker_manager.h"


static int
note(const char *phase, const ngx_worker_manager_event_t *ev, const char *dir)
{
    int              fd, n;
    char             line[512], path[4096];
    struct timespec  now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    n = snprintf(line, sizeof(line),
                 "%lld.%09ld %s %d %llu %s %s %lld %lld %lld %lld %lld %lld %lld \"%s\" %lld %d %lld %s\n",
                 (long long) now.tv_sec, now.tv_nsec, phase, (int) getpid(),
                 (unsigned long long) ev->seq, ev->event, ev->id, (long long) ev->n_prev,
                 (long long) ev->n_mine, (long long) ev->n_next, (long long) ev->n_older,
                 (long long) ev->generation, (long long) ev->pid, (long long) ev->worker,
                 ev->reason == NULL ? "-" : ev->reason, (long long) ev->n_left, ev->stopping,
                 (long long) ev->respawn_of, ev->history);

    snprintf(path, sizeof(path), "%s/marks", dir);

    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd == -1) {
        return 1;
    }

    n = write(fd, line, (size_t) n) == n ? 0 : 2;

    close(fd);

    return n;
}


int
chaos_begin(const ngx_worker_manager_event_t *ev, void *data)
{
    return note("begin", ev, data);
}


int
chaos_end(const ngx_worker_manager_event_t *ev, void *data)
{
    return note("end", ev, data);
}


/* The kernel then frees no mutex that this process holds when it dies. */
static void
lose_robust_list(void)
{
    static struct robust_list_head  none;

    none.list.next = &none.list;
    syscall(SYS_set_robust_list, &none, sizeof(none));
}


/* "sleep MS SPARED": the master, SPARED, does not do it, so that a victim is mostly a worker. */
int
chaos_call(const ngx_worker_manager_event_t *ev, void *data)
{
    int   ms = 0, spared = 0, fd;
    char  path[4096], order[128];

    (void) ev;

    snprintf(path, sizeof(path), "%s/call", (const char *) data);

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return 0;
    }

    memset(order, 0, sizeof(order));
    if (read(fd, order, sizeof(order) - 1) > 0) {
        sscanf(order, "%*s %d %d", &ms, &spared);
    }
    close(fd);

    if (getpid() == spared || !take(path, order, sizeof(order))) {
        return 0;
    }

    if (strncmp(order, "fail", 4) == 0) {
        return 7;
    }

    if (strncmp(order, "lose", 4) == 0) {
        /* As if its memory were reaped before it exits. */
        lose_robust_list();
        kill(getpid(), SIGKILL);
    }

    if (strncmp(order, "kill", 4) == 0) {
        kill(getpid(), SIGKILL);
    }

    /* Who wants to kill it finds its pid in the name of the file. */
    doze(ms);

    return 0;
}

#else

int
main(int argc, char **argv)
{
    char    path[4096], order[128];
    long    i;
    static char  junk[65536];

    if (argc < 2) {
        return 2;
    }

    snprintf(path, sizeof(path), "%s/exec", argv[1]);

    if (!take(path, order, sizeof(order))) {
        return 0;
    }

    if (strcmp(order, "hang") == 0) {
        signal(SIGTERM, SIG_IGN);
        for ( ;; ) {
            pause();
        }
    }

    if (strcmp(order, "fork") == 0) {
        /* One in another session that keeps the output open, and one in this group. */
        if (fork() == 0) {
            setsid();
            doze(2000);
            _exit(0);
        }
        if (fork() == 0) {
            doze(1000);
            _exit(0);
        }
        return 0;
    }

    if (strcmp(order, "gigabyte") == 0) {
        memset(junk, 'x', sizeof(junk));
        for (i = 0; i < 16384; i++) {
            junk[i % sizeof(junk)] = '\n';
            if (write(1, junk, sizeof(junk)) < 0) {
                return 1;
            }
        }
        return 0;
    }

    if (strcmp(order, "die") == 0) {
        kill(getpid(), SIGKILL);
    }

    if (strcmp(order, "orphan") == 0) {
        /* The helper of this program. */
        kill(getppid(), SIGKILL);
        doze(5000);
    }

    return 3;
}

#endif
