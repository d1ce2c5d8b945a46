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
            const char   *error;
        } ngx_worker_manager_event_t;

        typedef struct {
            size_t        size;
            int64_t       generation;
            int64_t       n_prev;
            int64_t       n_mine;
            int64_t       n_next;
            int64_t       n_older;
            int64_t       reloads;
            int64_t       reloads_failed;
            int64_t       reloaded_at;
            int64_t       failed_at;
            int64_t       reload_duration;
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
        int ngx_worker_manager_lua_on(int vm, const char *event, int number,
                                      int details);
        const ngx_worker_manager_event_t *ngx_worker_manager_lua_event(void);
        typedef struct {
            int64_t       generation;
            int64_t       pid;
            int64_t       worker;
            int           draining;
            int           hung;
        } ngx_worker_manager_worker_t;

        int64_t ngx_worker_manager_lua_generation(int *registered);
        int ngx_worker_manager_lua_workers(ngx_worker_manager_worker_t *workers,
                                           int room);
        int ngx_worker_manager_lua_exit_begin(int vm,
                                              ngx_worker_manager_counts_t *counts,
                                              int *stopping);
        int ngx_worker_manager_lua_exit_end(int vm, int succeeded);
        void ngx_worker_manager_lua_exit_done(int vm);
        int ngx_worker_manager_lua_staying(int vm, int64_t generation);
        int ngx_worker_manager_lua_exited(int vm, int64_t generation);
        int64_t ngx_worker_manager_lua_starting(void);
        int ngx_worker_manager_lua_start(int vm, int number, void *request);

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
        vm = nil,          -- the number of this VM, false if it is not one of the configuration
        thread = nil,      -- what handlers run in
        initialized = false,
        started = false,
        start = false,     -- the handlers of the four callbacks
        exit = false,
        master_start = false,
        master_exit = false,
        left = false,      -- whether exit_cb has begun to run, or need not any more
        starting = false,  -- whether on_init_worker_by_lua runs
        failed = false,    -- whether start_cb threw something meanwhile
        thrown = nil,      -- what the last callback threw
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
        error = event.error ~= nil and ffi.string(event.error) or nil,
    }
end


-- The message and where it came from, of what a callback threw, which may be anything.
local function message_of(thrown)
    self.thrown = thrown
    if type(thrown) ~= "string" then
        local printable, printed = pcall(tostring, thrown)
        thrown = printable and printed or "a " .. type(thrown) .. " was thrown"
    end
    local message = traceback(thrown, 2)
    return message
end


-- Whether a callback has a parameter for the whole event. One with `...` has not: code written for the
-- original library gets what it got there.
local function takes_event(callback)
    local least = 5
    if type(callback) ~= "function" then
        callback = debug.getmetatable(callback).__call
        least = 6
    end
    return (debug.getinfo(callback, "u").nparams or 0) >= least
end


-- Calls a callback. What it throws is logged; returns whether it threw nothing.
local function call(event, callback, id, n_prev, n_mine, n_next, details)
    local ok, message
    if details then
        ok, message = xpcall(callback, message_of, id, n_prev, n_mine, n_next, details)
    else
        ok, message = xpcall(callback, message_of, id, n_prev, n_mine, n_next)
    end
    if not ok then
        ngx.log(ngx.ERR, "worker_manager: ", event, " ", id, ": ", message)
    end
    return ok
end


-- Whether exit_cb or master_exit_cb is not to be called for an event, since it was when workers began to
-- drain.
local function is_told(handler, generation, pid)
    if handler == self.master_exit then
        return C.ngx_worker_manager_lua_exited(self.vm, generation) ~= 0
    end
    if handler ~= self.exit then
        return false
    end
    if pid == ngx.worker.pid() then
        return self.left
    end
    -- Another worker, which died before its end was told. It had its turn if it drained.
    return C.ngx_worker_manager_lua_event().duration ~= NIL
end


-- nginx calls this with the number of a handler and integers only, -1 for nil. Returns whether the
-- handler ran without an error.
local function dispatch(number, generation, pid, n_prev, n_mine, n_next)
    local handler = self.handlers[number]
    local callback = handler.callback
    if not callback or is_told(handler, generation, pid) then
        return true
    end

    -- The id as Lua code knows it: a number for masters, "<generation>-<pid>" for workers.
    local id = generation
    if pid ~= NIL then
        id = generation .. "-" .. pid
    end
    n_prev = n_prev ~= NIL and n_prev or nil
    n_next = n_next ~= NIL and n_next or nil

    local details = handler.details and details_of(C.ngx_worker_manager_lua_event(), id)
    if handler == self.exit then
        -- Those who drain have had their turn, but may be running.
        self.left = self.left or pid == ngx.worker.pid()
        n_mine = math.min(n_mine, C.ngx_worker_manager_lua_staying(self.vm, generation) + 1)
        if details then
            details.n_mine, details.n_left = n_mine, n_mine - 1
        end
    end
    local event = details and details.event or handler.event
    local ok = call(event, callback, id, n_prev, n_mine, n_next, details)
    if not ok and self.starting and handler == self.start and pid == ngx.worker.pid() then
        self.failed = true
    end
    return ok
end


local ENTER_ERRORS = {
    [-1] = "nginx.conf has no worker_manager block",
    [-2] = "resty.worker.manager is used in more Lua VMs than those of http and stream",
    [-3] = "resty.worker.manager is of another version than ngx_worker_manager_module",
}
-- What is no error: the VM is that of a request or a timer.
local PASSING = -4


-- Makes this VM known to nginx. False if it is one that ends with a request or a timer.
local function enter(phase, level)
    if self.vm == nil then
        -- The thread is never resumed: it is a stack that outlives every phase, with the function
        -- to call at its bottom. nginx's Lua module has its own coroutines in most phases, and keeps
        -- the function that makes others under this name.
        local thread = coroutine._create(dispatch) -- luacheck: ignore 143
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
        if ENTER_ERRORS[rc] then
            error(ENTER_ERRORS[rc], level + 1)
        end
        self.thread = thread
        self.vm = rc ~= PASSING and rc
    end
    return self.vm
end


-- `details`: the callback gets the whole event. One that is given later may ask for it.
local function register(event, callback, details)
    local number = #self.handlers + 1
    local handler = { event = event, callback = callback or false, details = details, number = number }
    self.handlers[number] = handler
    local asks = details or not callback
    if C.ngx_worker_manager_lua_on(self.vm, event, number, asks and 1 or 0) ~= 0 then
        self.handlers[number] = nil
        return nil
    end
    return handler
end


local function is_callable(value)
    if type(value) == "function" then
        return true
    end
    local metatable = debug.getmetatable(value)
    return metatable ~= nil and type(rawget(metatable, "__call")) == "function"
end


-- A callback that is not given may be false, too.
local function check_callback(position, name, callback, level)
    if callback and not is_callable(callback) then
        error(format("bad argument #%d to '%s' (function or nil expected, got %s)", position, name,
                     type(callback)), level + 1)
    end
end


-- Seconds as an option gives them, in milliseconds, at least 1; 0 if it does not.
local function milliseconds(name, option, level)
    if not option then
        return 0
    end
    local seconds = tonumber(option)
    -- As much as nginx's own times can be.
    if not seconds or not (seconds >= 0 and seconds * 1000 <= 2147483647) then
        error(format("bad option '%s' (a number of seconds expected, got %s)", name,
                     tostring(option)), level + 1)
    end
    return math.max(math.floor(seconds * 1000 + 0.5), 1)
end


-- Gives a handler that is registered its callback.
local function set(handler, callback)
    if callback then
        handler.callback = callback
        handler.details = takes_event(callback)
    end
end


local lua_start = C.ngx_worker_manager_lua_start

-- How long the timer runs that nginx calls when a worker begins to drain, seconds; then it is set again.
local DAY = 86400
-- How often a worker looks whether it is its turn, seconds.
local TURN = 0.02


-- What a callback gets as the whole event that is called before there is one, or where there is none.
local function event_of_generation(event, generation, n_prev, n_next, n_older, stopping)
    return {
        event = event,
        id = generation,
        n_prev = n_prev,
        n_mine = 0,
        n_next = n_next,
        n_older = n_older,
        n_left = 0,
        stopping = stopping,
        generation = generation,
        pid = ngx.worker.pid(),
        time = ngx.now(),
        core = false,
    }
end


-- Calls exit_cb, and master_exit_cb if this worker is the last, in a timer and so with everything that a
-- light thread may do.
local function leave()
    local vm = self.vm
    local counts, stopping = ffi.new("ngx_worker_manager_counts_t"), ffi.new("int[1]")
    counts.size = ffi.sizeof(counts)
    local rc = C.ngx_worker_manager_lua_exit_begin(vm, counts, stopping)
    while rc == 1 do
        ngx.sleep(TURN)
        rc = C.ngx_worker_manager_lua_exit_begin(vm, counts, stopping)
    end
    if rc ~= 0 then
        return
    end
    self.left = true
    local generation, n_mine = tonumber(counts.generation), tonumber(counts.n_mine)
    local n_prev, n_next = number_of(counts.n_prev), number_of(counts.n_next)
    local function event_of(event)
        return event_of_generation(event, generation, n_prev, n_next, number_of(counts.n_older),
                                   stopping[0] ~= 0)
    end

    local ok, handler = true, self.exit
    if handler.callback then
        local id, details = generation .. "-" .. ngx.worker.pid(), nil
        if handler.details then
            details = event_of("worker_exit")
            details.id, details.worker = id, ngx.worker.id()
            details.n_mine, details.n_left = n_mine, n_mine - 1
        end
        ok = call("worker_exit", handler.callback, id, n_prev, n_mine, n_next, details)
    end
    local last = C.ngx_worker_manager_lua_exit_end(vm, ok and 1 or 0) ~= 0
    handler = self.master_exit
    if last and handler then
        call("master_exit", handler.callback, generation, n_prev, 0, n_next,
             handler.details and event_of("master_exit"))
    end
    C.ngx_worker_manager_lua_exit_done(vm)
end


-- nginx calls timers that are not due when a worker begins to drain, with `premature`.
local function on_timer(premature)
    if not premature then
        local ok, err = ngx.timer.at(DAY, on_timer)
        if ok or err ~= "process exiting" then
            return
        end
    end
    leave()
end

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
    -- A start of nginx calls it here: what it sets is there for the code that follows, and an error in
    -- it is one of init_by_lua, so that nginx does not start. A reload may still fail after this, and
    -- then nobody is to have been told of it.
    local generation = tonumber(C.ngx_worker_manager_lua_starting())
    local at_once = generation > 0 and master_start_cb
    if master_start_cb and not at_once then
        self.master_start = register("master_start", master_start_cb, takes_event(master_start_cb))
    end
    if master_exit_cb then
        self.master_exit = register("master_exit", master_exit_cb, takes_event(master_exit_cb))
    end
    -- What workers are going to set. Registered here, all processes have the same list, and a worker
    -- that has just been forked has less to write.
    self.start = register("worker_start")
    self.exit = register("worker_exit")
    self.initialized = true
    if at_once and takes_event(at_once) then
        at_once(generation, nil, 0, nil, event_of_generation("master_start", generation, nil, nil, 0, false))
    elseif at_once then
        at_once(generation, nil, 0, nil)
    end
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

    set(self.start, start_cb)
    set(self.exit, exit_cb)
    self.starting = true
    local rc = lua_start(self.vm, self.start.number, base.get_request())
    self.starting = false
    -- Also of a worker that is registered later, once there is room for it.
    if rc <= 0 and (exit_cb or self.master_exit) then
        local ok, err = ngx.timer.at(DAY, on_timer)
        if not ok then
            ngx.log(ngx.WARN, "worker_manager: exit callbacks of this worker will run at its end: ", err)
        end
    end
    if self.failed then
        -- Logged with its traceback where it was caught.
        error(self.thrown, 0)
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


-- The generation of this process, nil if there is none, and whether it is one of its workers.
local function place()
    local registered = ffi.new("int[1]")
    local generation = tonumber(C.ngx_worker_manager_lua_generation(registered))
    return generation ~= 0 and generation or nil, registered[0] ~= 0
end


-- The generation that this process belongs to, nil if there is none. In init_by_lua that is the one which
-- runs and is to be replaced, and nil at a start of nginx.
function _M.generation()
    return (place())
end


-- What callbacks get as `id`: "<generation>-<pid>" in a registered worker, the generation elsewhere.
function _M.id()
    local generation, registered = place()
    if registered then
        return generation .. "-" .. ngx.worker.pid()
    end
    return generation
end


-- The workers of all generations that have not ended, as an array of tables; nil in a process that belongs
-- to no generation.
function _M.workers()
    local room = 64
    while true do
        local workers = ffi.new("ngx_worker_manager_worker_t[?]", room)
        local n = C.ngx_worker_manager_lua_workers(workers, room)
        if n < 0 then
            return nil
        end
        if n <= room then
            local list = {}
            for i = 1, n do
                local worker = workers[i - 1]
                local generation, pid = tonumber(worker.generation), tonumber(worker.pid)
                list[i] = {
                    id = generation .. "-" .. pid,
                    generation = generation,
                    pid = pid,
                    worker = number_of(worker.worker),
                    draining = worker.draining ~= 0,
                    hung = worker.hung ~= 0,
                }
            end
            return list
        end
        room = n + 64
    end
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
