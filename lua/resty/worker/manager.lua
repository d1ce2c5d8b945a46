-- resty.worker.manager: callbacks when masters and workers of nginx come and go, on the nginx module
-- ngx_worker_manager_module. What the functions do is described in doc/lua.md.

local ffi = require "ffi"
local base = require "resty.core.base"

local C = ffi.C
local error = error
local format = string.format
local pcall = pcall
local tonumber = tonumber
local tostring = tostring
local traceback = debug.traceback
local type = type
local xpcall = xpcall


-- A second load into the same VM finds the types there.
if not pcall(ffi.typeof, "ngx_worker_manager_lua_t") then
    ffi.cdef [[
        typedef struct {
            size_t        size;
            const char   *event;
            const char   *id;
            int64_t       n_prev;
            int64_t       n_mine;
            int64_t       n_next;
            int64_t       n_older;
            int64_t       generation;
            int64_t       pid;
            int64_t       worker;
            uint64_t      seq;
            int64_t       time;
            const char   *reason;
            int           core;
            int64_t       connections;
            int64_t       duration;
            int64_t       took;
            int64_t       n_left;
            int           stopping;
            int64_t       respawn_of;
            const char   *history;
        } ngx_worker_manager_event_t;

        typedef struct {
            size_t        size;
            int64_t       generation;
            int64_t       n_prev;
            int64_t       n_mine;
            int64_t       n_next;
            int64_t       n_older;
        } ngx_worker_manager_counts_t;

        typedef struct {
            size_t        size;
            void         *state;
            void        (*settop)(void *state, int index);
            void        (*pushvalue)(void *state, int index);
            void        (*pushinteger)(void *state, ptrdiff_t n);
            int         (*pcall)(void *state, int nargs, int nresults,
                                 int errfunc);
            int         (*toboolean)(void *state, int index);
            const char *(*tolstring)(void *state, int index, size_t *len);
            void        (*setexdata)(void *state, void *exdata);
        } ngx_worker_manager_lua_t;

        int ngx_worker_manager_counts(ngx_worker_manager_counts_t *counts);
        int ngx_worker_manager_lua_enter(const ngx_worker_manager_lua_t *lua,
                                         int init);
        int ngx_worker_manager_lua_options(const char *zone, int64_t interval,
                                           int64_t failed);
        int ngx_worker_manager_lua_on(const char *event, int number,
                                      int details);
        const ngx_worker_manager_event_t *ngx_worker_manager_lua_event(void);
        int ngx_worker_manager_lua_start(void *request);

        void lua_settop(void *state, int index);
        void lua_pushvalue(void *state, int index);
        void lua_pushinteger(void *state, ptrdiff_t n);
        int lua_pcall(void *state, int nargs, int nresults, int errfunc);
        int lua_toboolean(void *state, int index);
        const char *lua_tolstring(void *state, int index, size_t *len);
        void lua_setexdata(void *state, void *exdata);
    ]]
end


-- A symbol of the process, nil if there is none.
local function symbol(name)
    local found, value = pcall(function() return C[name] end)
    return found and value or nil
end


if not symbol("ngx_worker_manager_lua_enter") then
    error("resty.worker.manager needs an nginx module, put \"load_module "
          .. "modules/ngx_worker_manager_module.so;\" at the top of nginx.conf", 0)
end
if not symbol("lua_setexdata") then
    error("resty.worker.manager needs OpenResty's LuaJIT, for which nginx's Lua module is made", 0)
end


-- What nginx holds on to is kept in the VM's registry, so that it is collected with the VM and not
-- before, whatever becomes of this module's table.
local KEY = "resty.worker.manager"
local registry = debug.getregistry()
local self = registry[KEY]
if not self then
    -- Every field is there from the beginning: a worker that has just been forked pays for each page
    -- it writes to, so that a table should not grow there.
    self = {
        handlers = {},     -- by number
        entered = nil,     -- whether this VM is the configuration's
        thread = nil,      -- what handlers run in
        initialized = false,
        started = false,
        start = false,     -- the handlers that workers set
        exit = false,
    }
    registry[KEY] = self
end

local NIL = -1


-- A number of the C interface.
local function number_of(n)
    n = tonumber(n)
    if n ~= NIL then
        return n
    end
    return nil
end


local function details_of(event, id)
    return {
        event = ffi.string(event.event),
        id = id,
        n_prev = number_of(event.n_prev),
        n_mine = number_of(event.n_mine),
        n_next = number_of(event.n_next),
        n_older = number_of(event.n_older),
        n_left = number_of(event.n_left),
        stopping = event.stopping ~= 0,
        respawn_of = number_of(event.respawn_of),
        history = ffi.string(event.history),
        generation = number_of(event.generation),
        pid = number_of(event.pid),
        worker = number_of(event.worker),
        seq = tonumber(event.seq),
        time = tonumber(event.time) / 1000,
        reason = event.reason ~= nil and ffi.string(event.reason) or nil,
        core = event.core ~= 0,
        connections = number_of(event.connections),
        duration = event.duration ~= NIL and tonumber(event.duration) / 1000 or nil,
    }
end


-- The message and where it came from, of what a callback threw, which may be anything.
local function message_of(thrown)
    if type(thrown) ~= "string" then
        local printable, printed = pcall(tostring, thrown)
        thrown = printable and printed or "a " .. type(thrown) .. " was thrown"
    end
    local message = traceback(thrown, 2)
    return message
end


-- nginx calls this with the number of a handler and integers only, -1 for nil. Returns whether the
-- handler ran without an error.
local function dispatch(number, generation, pid, n_prev, n_mine, n_next)
    local handler = self.handlers[number]
    local callback = handler.callback
    if not callback then
        return true
    end

    -- The id as Lua code knows it: a number for masters, "<generation>-<pid>" for workers.
    local id = generation
    if pid ~= NIL then
        id = generation .. "-" .. pid
    end
    n_prev = n_prev ~= NIL and n_prev or nil
    n_next = n_next ~= NIL and n_next or nil

    local ok, message
    local event = handler.event
    if handler.details then
        local details = details_of(C.ngx_worker_manager_lua_event(), id)
        event = details.event
        ok, message = xpcall(callback, message_of, id, n_prev, n_mine, n_next, details)
    else
        -- The original library's callbacks get what they get there.
        ok, message = xpcall(callback, message_of, id, n_prev, n_mine, n_next)
    end
    if not ok then
        ngx.log(ngx.ERR, "worker_manager: ", event, " ", id, ": ", message)
    end

    return ok
end


local ENTER_ERRORS = {
    [-1] = "nginx.conf has no worker_manager block",
    [-2] = "resty.worker.manager is used in another Lua VM, only one of http and stream can have it",
    [-3] = "resty.worker.manager is of another version than ngx_worker_manager_module",
}


-- Makes this VM known to nginx. False if it is one that ends with a request or a timer.
local function enter(phase, level)
    if self.entered == nil then
        -- The thread is never resumed: it is a stack that outlives every phase, with the function
        -- to call at its bottom. nginx's Lua module has its own coroutines in most phases, and keeps
        -- the function that makes others under this name.
        local thread = coroutine._create(dispatch)
        local state = ffi.cast("void *", tonumber(format("%p", thread)))
        -- The request of the phase that it is made in ends with that.
        C.lua_setexdata(state, nil)
        local vm = ffi.new("ngx_worker_manager_lua_t", {
            size = ffi.sizeof("ngx_worker_manager_lua_t"),
            state = state,
            settop = C.lua_settop,
            pushvalue = C.lua_pushvalue,
            pushinteger = C.lua_pushinteger,
            pcall = C.lua_pcall,
            toboolean = C.lua_toboolean,
            tolstring = C.lua_tolstring,
            setexdata = C.lua_setexdata,
        })
        local rc = C.ngx_worker_manager_lua_enter(vm, phase == "init" and 1 or 0)
        if rc < 0 then
            error(ENTER_ERRORS[rc], level + 1)
        end
        self.thread = thread
        self.entered = rc == 0
    end
    return self.entered
end


local function register(event, callback, details)
    local number = #self.handlers + 1
    local handler = { event = event, callback = callback or false, details = details }
    self.handlers[number] = handler
    if C.ngx_worker_manager_lua_on(event, number, details and 1 or 0) ~= 0 then
        self.handlers[number] = nil
        return nil
    end
    return handler
end


local function check_callback(position, name, callback, level)
    if callback ~= nil and type(callback) ~= "function" then
        error(format("bad argument #%d to '%s' (function or nil expected, got %s)", position, name,
                     type(callback)), level + 1)
    end
end


-- Seconds as an option gives them, in milliseconds; 0 if it does not.
local function milliseconds(name, seconds, level)
    if seconds == nil then
        return 0
    end
    local ms = type(seconds) == "number" and math.floor(seconds * 1000 + 0.5)
    -- As much as nginx's own times can be.
    if not ms or ms ~= ms or ms < 1 or ms > 2147483647 then
        error(format("bad option '%s' (a number of seconds greater than 0 expected, got %s)", name,
                     tostring(seconds)), level + 1)
    end
    return ms
end


local lua_start = C.ngx_worker_manager_lua_start

local _M = { version = "0.1.0" }


-- To be called once, in init_by_lua. Returns true.
function _M.on_init_by_lua(opts, master_start_cb, master_exit_cb)
    if ngx.get_phase() ~= "init" then
        error("on_init_by_lua must be called in the init_by_lua phase", 2)
    end
    if self.initialized then
        error("on_init_by_lua was called before, it must be called only once", 2)
    end
    if type(opts) ~= "table" then
        error(format("bad argument #1 to 'on_init_by_lua' (table expected, got %s)", type(opts)), 2)
    end
    check_callback(2, "on_init_by_lua", master_start_cb, 2)
    check_callback(3, "on_init_by_lua", master_exit_cb, 2)
    local interval = milliseconds("interval", opts.interval, 2)
    local failed = milliseconds("failed", opts.failed, 2)

    local shm = opts.shm
    local is_dict = type(shm) == "string" and ngx.shared[shm] ~= nil
    if type(shm) ~= "string" then
        error("unknown shm `" .. tostring(shm) .. "'", 2)
    end
    if not enter("init", 2) then
        -- What the configuration's own VM has registered holds.
        self.initialized = true
        return true
    end
    if C.ngx_worker_manager_lua_options(not is_dict and shm or nil, interval, failed) ~= 0 then
        error("unknown shm `" .. shm .. "'", 2)
    end
    if master_start_cb then
        register("master_start", master_start_cb)
    end
    if master_exit_cb then
        register("master_exit", master_exit_cb)
    end
    -- What workers are going to set. Registered here, all processes have the same list, and a worker
    -- that has just been forked has less to write.
    self.start = register("worker_start")
    self.exit = register("worker_exit")
    self.initialized = true
    return true
end


-- To be called once, in init_worker_by_lua. Returns true once this worker is registered and start_cb
-- has run; nil and an error if it could not be registered.
function _M.on_init_worker_by_lua(start_cb, exit_cb)
    if ngx.get_phase() ~= "init_worker" then
        error("on_init_worker_by_lua must be called in the init_worker_by_lua phase", 2)
    end
    if not self.initialized then
        error("on_init_by_lua must be called first", 2)
    end
    if self.started then
        error("on_init_worker_by_lua was called before, it must be called only once", 2)
    end
    check_callback(1, "on_init_worker_by_lua", start_cb, 2)
    check_callback(2, "on_init_worker_by_lua", exit_cb, 2)
    self.started = true

    self.start.callback = start_cb or false
    self.exit.callback = exit_cb or false
    local rc = lua_start(base.get_request())
    if rc == -2 then
        return nil, "this worker was registered before init_worker_by_lua, start_cb did not run"
    end
    if rc < 0 then
        return nil, "this worker could not be registered, see the error log"
    end
    return true
end

-- Callbacks are called while it waits for C: no trace may be under way then.
jit.off(_M.on_init_worker_by_lua)


-- The running workers of the previous generation, of this process's and of the next.
function _M.counts()
    local counts = ffi.new("ngx_worker_manager_counts_t")
    counts.size = ffi.sizeof(counts)
    if C.ngx_worker_manager_counts(counts) ~= 0 then
        return nil, nil, nil
    end
    return number_of(counts.n_prev), number_of(counts.n_mine), number_of(counts.n_next)
end


-- Calls callback(id, n_prev, n_mine, n_next, event) for each event of that name, or for all with "*".
-- In init_by_lua it holds for every process of the configuration, in init_worker_by_lua for that
-- worker.
function _M.on(event, callback)
    local phase = ngx.get_phase()
    if phase ~= "init" and phase ~= "init_worker" then
        error("on must be called in the init_by_lua or the init_worker_by_lua phase", 2)
    end
    if type(event) ~= "string" then
        error(format("bad argument #1 to 'on' (string expected, got %s)", type(event)), 2)
    end
    if type(callback) ~= "function" then
        error(format("bad argument #2 to 'on' (function expected, got %s)", type(callback)), 2)
    end
    if enter(phase, 2) and not register(event, callback, true) then
        error("unknown event `" .. event .. "'", 2)
    end
    return true
end


return _M
