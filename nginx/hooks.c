/*
 * hooks.c: an example of a library for "on EVENT call LIBRARY SYMBOL [TEXT]".
 *
 *     cc -shared -fPIC -o hooks.so hooks.c
 *
 *     worker_manager {
 *         on * call hooks.so note "/var/log/nginx/notes.txt";
 *     }
 */

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "ngx_worker_manager.h"


static const char *
count(char *buffer, size_t size, int64_t n)
{
    if (n == NGX_WORKER_MANAGER_NIL) {
        return "-";
    }

    snprintf(buffer, size, "%lld", (long long) n);

    return buffer;
}


/* Appends a line about the event to the file that TEXT names. */
int
note(const ngx_worker_manager_event_t *ev, void *data)
{
    int          fd, n;
    char         line[256], prev[24], next[24];
    const char  *path = data;

    if (path == NULL) {
        return 1;
    }

    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd == -1) {
        return 2;
    }

    n = snprintf(line, sizeof(line), "%s(%s, %s,%lld,%s) %s\n", ev->event, ev->id,
                 count(prev, sizeof(prev), ev->n_prev), (long long) ev->n_mine,
                 count(next, sizeof(next), ev->n_next),
                 ev->reason != NULL ? ev->reason : "");

    /* One write of one line: processes that do so at a time do not mix. */
    n = write(fd, line, (size_t) n) == n ? 0 : 3;

    close(fd);

    return n;
}


/* Fails, to see what nginx says then. */
int
fail(const ngx_worker_manager_event_t *ev, void *data)
{
    (void) ev;
    (void) data;

    return 42;
}


/* Does nothing, for measuring. */
int
nothing(const ngx_worker_manager_event_t *ev, void *data)
{
    (void) data;

    return ev->size == 0;
}
