/*
 * ngx_worker_manager.h: the C interface of ngx-worker-manager.
 *
 * For a hook library (the directive "on EVENT call LIBRARY SYMBOL [TEXT]")
 * and for other modules of the same nginx.  Needs no nginx header.
 */

#ifndef NGX_WORKER_MANAGER_H_INCLUDED_
#define NGX_WORKER_MANAGER_H_INCLUDED_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif


/*
 * The version of the module that this header is of, major * 1000000 + minor *
 * 1000 + patch, for #if.  Within a major version what is declared here stays:
 * functions keep their names and types, structures grow at the end only, which
 * "size" tells, and so does the list of events.
 */
#define NGX_WORKER_MANAGER_VERSION         1000
#define NGX_WORKER_MANAGER_VERSION_STRING  "0.1.0"


/* A count that there is none of, as opposed to 0; also "no worker index". */
#define NGX_WORKER_MANAGER_NIL  (-1)


/*
 * One event.  "size" is the size of the structure as the module that fills
 * it knows it: fields are only ever added at the end, so a field exists if
 * it lies within "size".  Strings end with a zero byte and, like the
 * structure, live until the function returns.
 */
typedef struct {
    size_t       size;

    const char  *event;        /* "worker_start", ... */
    const char  *id;           /* "3" or "3-1234" */

    int64_t      n_prev;       /* each NGX_WORKER_MANAGER_NIL or >= 0 */
    int64_t      n_mine;
    int64_t      n_next;
    int64_t      n_older;

    int64_t      generation;
    int64_t      pid;          /* a worker's event: the worker; master_lost: the
                                  dead master; else the process that tells it */
    int64_t      worker;       /* 0 .. worker_processes - 1, or nil */

    uint64_t     seq;
    int64_t      time;         /* wall clock, milliseconds since 1970 */

    const char  *reason;       /* "signal 9", "exit 1", "oom", "unknown"; or NULL */
    int          core;         /* 1 if the lost worker dumped core */

    int64_t      connections;  /* open in a worker that drains, or nil */
    int64_t      duration;     /* of the load or of draining, ms, or nil */
    int64_t      took;         /* what its callbacks took, us; nil in a callback */

    int64_t      n_left;       /* of its generation, once the event is over */
    int          stopping;     /* 1 if the node stops, 0 if it goes on */
    int64_t      respawn_of;   /* pid of the worker whose place a worker takes, or nil */
    const char  *history;      /* names the history that generation and seq are of */
    const char  *error;        /* why a load failed, what nginx logged; or NULL */
} ngx_worker_manager_event_t;


/*
 * A callback.  Runs in the process the event happens in, while no other
 * process of this nginx starts or ends, so it should be short.  "data" is
 * what was registered with it; for the directive "call" it is TEXT as it is
 * written, a "const char *", or NULL without one; a thread that goes on
 * reading TEXT after the callback needs a copy, since a reload frees it.
 * Anything but 0 is logged as a failure; the next callback runs all the same.
 *
 * A library that was loaded for "call" is never unloaded, so it may start
 * threads.
 */
typedef int (*ngx_worker_manager_callback_pt)(
    const ngx_worker_manager_event_t *event, void *data);


/*
 * What ngx_worker_manager_counts() tells: the running workers seen from the
 * calling process's own generation.
 */
typedef struct {
    size_t   size;             /* in: sizeof(ngx_worker_manager_counts_t) */

    int64_t  generation;
    int64_t  n_prev;
    int64_t  n_mine;
    int64_t  n_next;
    int64_t  n_older;

    /* Attempts to reload since the zone's history began. */
    int64_t  reloads;          /* that committed */
    int64_t  reloads_failed;   /* that did not */
    int64_t  reloaded_at;      /* when the last one committed, ms, or nil */
    int64_t  failed_at;        /* when the last one failed, ms, or nil */
    int64_t  reload_duration;  /* of the last attempt, ms, or nil */
} ngx_worker_manager_counts_t;


/*
 * The functions below are to be called from nginx's own thread, where
 * callbacks run too, not from threads that a library starts: there they
 * do nothing, as if there were no "worker_manager" block, and a worker logs
 * that.
 */

struct ngx_cycle_s;


/*
 * Adds a callback for "event" (a name, or "*" for all) to the configuration
 * of "cycle", after the "on" lines and what was registered before.  May be
 * called from the moment the cycle's configuration is complete (a module's
 * init_conf, postconfiguration or init_module) and later; called in a
 * process, it holds for that process and those it starts.
 *
 * Returns 0; -1 if the cycle has no "worker_manager" block; -2 if the event
 * is unknown.
 */
int ngx_worker_manager_on(struct ngx_cycle_s *cycle, const char *event,
    ngx_worker_manager_callback_pt callback, void *data);


/*
 * Calls a function with each event that is remembered and newer than "seq",
 * oldest first, until it returns anything but 0, which is then returned too.
 * Waits for nothing.  Returns 0 otherwise; -1 in a process that belongs to no
 * generation.
 */
int ngx_worker_manager_history(uint64_t seq,
    ngx_worker_manager_callback_pt callback, void *data);


/*
 * Reads the counts without waiting for anything, as many as fit counts->size.
 * Returns 0; -1 in a process that belongs to no generation; -2 if the size
 * does not reach up to n_older.
 */
int ngx_worker_manager_counts(ngx_worker_manager_counts_t *counts);


#ifdef __cplusplus
}
#endif

#endif /* NGX_WORKER_MANAGER_H_INCLUDED_ */
