/*
 * clock.c: preloaded into nginx, moves the wall clock as an administrator would, for nginx alone: by
 * as many seconds as the file $CHAOS_CLOCK says. The clocks that nobody can set are let be.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>


static volatile int32_t  *offset;


static long
moved(void)
{
    int          fd;
    void        *p;
    const char  *path;
    static int   tried;

    if (offset == NULL && !tried) {
        tried = 1;
        path = getenv("CHAOS_CLOCK");
        fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        if (fd != -1) {
            p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
            offset = p == MAP_FAILED ? NULL : p;
            close(fd);
        }
    }

    return offset == NULL ? 0 : *offset;
}


int
clock_gettime(clockid_t id, struct timespec *ts)
{
    int          rc;
    static int (*next)(clockid_t, struct timespec *);

    if (next == NULL) {
        next = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    }

    rc = next(id, ts);

    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        ts->tv_sec += moved();
    }

    return rc;
}


int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec  ts;

    (void) tz;

    clock_gettime(CLOCK_REALTIME, &ts);

    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;

    return 0;
}


time_t
time(time_t *t)
{
    struct timespec  ts;

    clock_gettime(CLOCK_REALTIME, &ts);

    if (t != NULL) {
        *t = ts.tv_sec;
    }

    return ts.tv_sec;
}


/* A step of the real clock moves the deadlines that were set before it; these it can't reach. */
int
pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    struct timespec  real = *until;
    static int     (*next)(pthread_mutex_t *, const struct timespec *);

    if (next == NULL) {
        next = (int (*)(pthread_mutex_t *, const struct timespec *))
               dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    }

    real.tv_sec -= moved();

    return next(mutex, &real);
}
