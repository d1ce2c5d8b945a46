/*
 * bench/big.c: a hook library that makes a worker big, and measures what
 * stands between its calls.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>
#include <stdio.h>

#include "ngx_worker_manager.h"

#define SIZE   ((size_t) 1 << 30)
#define PAGES  256


static char     *heap;
static long long last;


static long long
now(void)
{
    struct timespec  at;

    clock_gettime(CLOCK_MONOTONIC, &at);

    return at.tv_sec * 1000000000LL + at.tv_nsec;
}


/* 1 GB of small pages, each of them written to. */
int
grow(const ngx_worker_manager_event_t *ev, void *data)
{
    (void) ev;
    (void) data;

    heap = mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (heap == MAP_FAILED) {
        return 1;
    }

    madvise(heap, SIZE, MADV_NOHUGEPAGE);
    memset(heap, 1, SIZE);
    last = now();

    return 0;
}


/*
 * Writes to some pages all over the heap, as requests do, and appends the
 * nanoseconds since the end of the call before to the file that TEXT names.
 */
int
lap(const ngx_worker_manager_event_t *ev, void *data)
{
    int     fd, n, i;
    char    line[32];

    (void) ev;

    for (i = 0; i < PAGES; i++) {
        heap[(size_t) i * (SIZE / PAGES)]++;
    }

    n = snprintf(line, sizeof(line), "%lld\n", now() - last);

    fd = open(data, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd == -1) {
        return 1;
    }

    n = write(fd, line, (size_t) n) == n ? 0 : 2;

    close(fd);

    /* The program before has ended by then. */
    usleep(20000);
    last = now();

    return n;
}
