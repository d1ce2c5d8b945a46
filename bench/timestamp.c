/*
 * bench/timestamp.c: a hook library that notes when it was called.  Appends the
 * event's name, the process it is about, its generation and the monotonic
 * time in nanoseconds as a line to the file that TEXT names.  Another stands
 * still, to be killed there.
 */

#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "ngx_worker_manager.h"


int
stamp(const ngx_worker_manager_event_t *ev, void *data)
{
    int              fd, n;
    char             line[128];
    struct timespec  now;

    clock_gettime(CLOCK_MONOTONIC, &now);

    fd = open(data, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd == -1) {
        return 1;
    }

    n = snprintf(line, sizeof(line), "%s %lld %lld %lld%09ld\n", ev->event,
                 (long long) ev->pid, (long long) ev->generation,
                 (long long) now.tv_sec, now.tv_nsec);

    n = write(fd, line, (size_t) n) == n ? 0 : 2;

    close(fd);

    return n;
}


/* Stands still as long as the file that TEXT names is there. */
int
block(const ngx_worker_manager_event_t *ev, void *data)
{
    (void) ev;

    while (access(data, F_OK) == 0) {
        usleep(1000);
    }

    return 0;
}
