/*
 * ngx_worker_manager_lua.h: what lua/resty/worker/manager.lua calls.
 *
 * No public interface: it may change with every version, together with that
 * file, which is of the same version as the module.
 */

#ifndef NGX_WORKER_MANAGER_LUA_H_INCLUDED_
#define NGX_WORKER_MANAGER_LUA_H_INCLUDED_

#include "ngx_worker_manager.h"

#ifdef __cplusplus
extern "C" {
#endif


/*
 * A Lua VM, and the functions of the Lua library that it is entered with: this
 * module is not linked with one.  "state" is a thread of the VM that is never
 * collected and has at the bottom of its stack a function that calls handlers.
 * Its arguments are integers: the handler's number; generation and process of
 * the event, the latter NGX_WORKER_MANAGER_NIL if it is about a master; n_prev,
 * n_mine and n_next.  It returns whether the handler ran without an error.
 */
typedef struct {
    size_t        size;
    void         *state;

    void        (*settop)(void *state, int index);
    void        (*pushvalue)(void *state, int index);
    void        (*pushinteger)(void *state, ptrdiff_t n);
    int         (*pcall)(void *state, int nargs, int nresults, int errfunc);
    int         (*toboolean)(void *state, int index);
    const char *(*tolstring)(void *state, int index, size_t *len);

    /* Of OpenResty's LuaJIT: sets the request that Lua code runs for. */
    void        (*setexdata)(void *state, void *exdata);
} ngx_worker_manager_lua_t;


/*
 * Makes a VM known in the phases init ("init" 1) and init_worker ("init" 0).
 * Returns its number, from 0; -1 if there is no "worker_manager" block; -2 if
 * there are too many: http and stream have one each; -3 if the structure is
 * that of another version; -4 if it is not one of the configuration but of a
 * request or a timer, as with "lua_code_cache off": nothing is to be
 * registered then.
 */
int ngx_worker_manager_lua_enter(const ngx_worker_manager_lua_t *lua, int init);


/*
 * Times in milliseconds that win over the block's; 0 leaves one as it is.
 * "zone" is the name that the block's zone has to have, or NULL.  Returns 0;
 * -1 if the zone has another name.  Before the block has been read that is
 * checked once it has.
 */
int ngx_worker_manager_lua_options(const char *zone, int64_t interval,
    int64_t failed);


/*
 * As ngx_worker_manager_on(), for a handler of a VM with a number that the Lua
 * side chose.  "details" says that it calls ngx_worker_manager_lua_event().
 */
int ngx_worker_manager_lua_on(int vm, const char *event, int number,
    int details);


/* The whole of the event that a handler with details is called for. */
const ngx_worker_manager_event_t *ngx_worker_manager_lua_event(void);


/*
 * In the phase init: the number of the generation that a start of nginx is
 * going to be.  0 at a reload.
 */
int64_t ngx_worker_manager_lua_starting(void);


/*
 * Registers this worker in the phase init_worker.  "request" is what nginx's
 * Lua module has as the request of that phase.  May call handlers of the VM.
 * If it is registered already, as by another VM, the handler with that number
 * is called for its start.  Returns 0; 1 in a process that is no worker; -1 if
 * it could not be registered, which the error log explains.
 */
int ngx_worker_manager_lua_start(int vm, int number, void *request);


/*
 * The generation of this process; in the phase init that of the master, which
 * is to be replaced.  0 if there is none.  "registered" becomes 1 in a worker that
 * is, 0 elsewhere.
 */
int64_t ngx_worker_manager_lua_generation(int *registered);


/* A worker of any generation, as of this moment. */
typedef struct {
    int64_t  generation;
    int64_t  pid;
    int64_t  worker;
    int      draining;
    int      hung;
} ngx_worker_manager_worker_t;


/*
 * Writes the workers that have not ended to "workers", as many as there is room
 * for.  Returns how many there are; -1 in a process that belongs to no
 * generation.
 */
int ngx_worker_manager_lua_workers(ngx_worker_manager_worker_t *workers,
    int room);


/*
 * A worker that drains begins to run its exit callback: one does at a time.
 * Fills in the counts, n_mine with the workers of the generation that have not
 * run theirs in such a VM, this one included, and whether the node stops.
 * Returns 0; 1 if it is another's turn, try again soon; -1 if this worker is not
 * registered.
 */
int ngx_worker_manager_lua_exit_begin(int vm,
    ngx_worker_manager_counts_t *counts, int *stopping);


/*
 * The exit callback has run.  Returns 1 if that of the generation is to run, too:
 * all its workers have run theirs, and no other will start.
 */
int ngx_worker_manager_lua_exit_end(int vm, int succeeded);


/* It is another's turn. */
void ngx_worker_manager_lua_exit_done(int vm);


/* How many workers of a generation have not run their exit callback. */
int ngx_worker_manager_lua_staying(int vm, int64_t generation);


/* Whether the exit callback of a generation has run. */
int ngx_worker_manager_lua_exited(int vm, int64_t generation);


#ifdef __cplusplus
}
#endif

#endif /* NGX_WORKER_MANAGER_LUA_H_INCLUDED_ */
