# What Lua code may say to resty.worker.manager and what it is told, on Test::Nginx.
use strict;
use warnings;
use WorkerManager::Lua;
use WorkerManager::Scratch qw(test_nginx);

# Before Test::Nginx looks at them.
BEGIN {
    my $objs = $WorkerManager::Lua::OBJS;
    $ENV{TEST_NGINX_BINARY} = "$objs/nginx";
    $ENV{TEST_NGINX_LOAD_MODULES} = join ' ',
        map { "$objs/$_.so" } qw(ndk_http_module ngx_http_lua_module ngx_worker_manager_module);
}
use Test::Nginx::Socket::Lua 'no_plan';

add_block_preprocessor(sub {
    my $block = shift;
    $block->set_value('main_config', 'worker_manager { }') unless defined $block->main_config;
    $block->set_value('http_config', $WorkerManager::Lua::PATH . ($block->http_config // ''));
    $block->set_value('config', 'location = /t { return 200 "served\n"; }') unless defined $block->config;
    if (!defined $block->must_die) {
        $block->set_value('request', 'GET /t') unless defined $block->request;
        $block->set_value('response_body', "served\n") unless defined $block->response_body;
    }
});
no_long_string();
no_shuffle();
run_tests();

__DATA__

=== TEST 1: the synopsis of the original library, as written
--- http_config
    lua_shared_dict my_shm 5m;

    init_by_lua_block {
        package.preload.kong = function()
            return { init = function() end, init_worker = function() end }
        end
        -- From here on as in its README.
        require("resty.worker.manager").on_init_by_lua({
                shm = "my_shm",
                interval = 10,  -- worker heartbeat interval in seconds
                failed = 5, -- max heartbeat overrun to detect crashed worker, in seconds
            },
            function(master_id, n_prev, n_mine, n_next)
                ngx.log(ngx.ERR, "================================= Master start =================================")
                if n_prev == nil then
                    -- no previous master, so this is nginx start or restart
                else
                    -- previous master, so we are reloading
                    if n_prev == 0 then
                        -- all old workers have already exited
                    else
                        -- stil 'n_prev' old workers are running
                    end
                end
            end,
            function(master_id, n_prev, n_mine, n_next)
                ngx.log(ngx.ERR, "================================= Master exit ==================================")
                if n_next == nil then
                    -- we are stopping this nginx node
                else
                    -- we are only reloading, all our workers have already exited, this code
                    -- runs on the last worker.
                    if n_next > 0 then
                        -- new workers have already been initialized
                    end
                end
            end)
        kong = require 'kong'
        kong.init()
    }

    init_worker_by_lua_block {
        require("resty.worker.manager").on_init_worker_by_lua(
            function(worker_id, n_prev, n_mine, n_next)
                ngx.log(ngx.ERR, "--------------------------------- Worker start ---------------------------------")
                if n_mine == 1 then
                    -- I'm the very first worker to start
                elseif n_mine > ngx.worker.count() then
                    -- a worker failed and exited, this a respawned worker.
                    -- After the failed worker heart-beat times out then
                    -- n_mine == ngx.worker.count() again
                else
                    -- other workers have started before me
                end
            end,
            function(worker_id, n_prev, n_mine, n_next)
                ngx.log(ngx.ERR, "--------------------------------- Worker exit ----------------------------------")
                if n_next then
                    -- we are reloading nginx
                end
                if n_mine == 1 then
                    -- I'm the very last worker to exit
                else
                    -- I'm not the last worker, there are more
                end
            end)
        kong.init_worker()
    }
--- grep_error_log eval: qr/(?:=+|-+) \w+ \w+ (?:=+|-+)(?=, context|$)/
--- grep_error_log_out eval
'=' x 33 . ' Master start ' . '=' x 33 . "\n" . '-' x 33 . ' Worker start ' . '-' x 33 . "\n"
--- shutdown_error_log eval
[ qr/-{33} Worker exit -{34}/, qr/={33} Master exit ={34}/ ]
--- no_error_log
[alert]
[emerg]



=== TEST 2: what the functions return
--- http_config
init_by_lua_block {
    M = require "resty.worker.manager"
    ngx.log(ngx.NOTICE, "first: ", M.on_init_by_lua({ shm = "worker_manager", interval = 0.5, failed = 0.25 }))
}
init_worker_by_lua_block {
    ngx.log(ngx.NOTICE, "second: ", M.on_init_worker_by_lua())
}
--- error_log
first: true
second: true
--- no_error_log
[error]
[alert]



=== TEST 3: misuse raises errors
--- http_config
lua_shared_dict dict 1m;
init_by_lua_block {
    M = require "resty.worker.manager"
    local function try(name, ...)
        local ok, err = pcall(...)
        ngx.log(ngx.NOTICE, name, ": ", ok, " ", err, ".")
    end
    local nothing = function() end
    try("no options", M.on_init_by_lua)
    try("no shm", M.on_init_by_lua, {})
    try("unknown shm", M.on_init_by_lua, { shm = "nowhere" })
    try("not a function", M.on_init_by_lua, { shm = "dict" }, 7)
    try("nor this", M.on_init_by_lua, { shm = "dict" }, nil, "exit")
    for _, bad in ipairs { -1, 1/0, 0/0, "ten", 1e10, true } do
        try("interval " .. tostring(bad), M.on_init_by_lua, { shm = "dict", interval = bad })
        try("failed " .. tostring(bad), M.on_init_by_lua, { shm = "dict", failed = bad })
    end
    try("too early", M.on_init_worker_by_lua, nothing)
    try("unknown event", M.on, "worker_born", nothing)
    try("no event", M.on, nil, nothing)
    try("no callback", M.on, "*")
    try("at last", M.on_init_by_lua, { shm = "dict" })
    try("twice", M.on_init_by_lua, { shm = "dict" })
    local ffi = require "ffi"
    local vm = ffi.new("ngx_worker_manager_lua_t", { ffi.sizeof("ngx_worker_manager_lua_t") })
    for i = 1, 2 do
        vm.state = ffi.cast("void *", i)
        try("another VM", ffi.C.ngx_worker_manager_lua_enter, vm, 1)
    end
    vm.size = 8
    try("another version", ffi.C.ngx_worker_manager_lua_enter, vm, 1)
}
init_worker_by_lua_block {
    local function try(name, ...)
        local ok, err = pcall(...)
        ngx.log(ngx.NOTICE, name, ": ", ok, " ", err, ".")
    end
    try("late", M.on_init_by_lua, { shm = "dict" })
    try("bad start", M.on_init_worker_by_lua, true)
    try("bad exit", M.on_init_worker_by_lua, nil, true)
    try("worker", M.on_init_worker_by_lua)
    try("worker twice", M.on_init_worker_by_lua)
}
--- config
location = /t {
    content_by_lua_block {
        for _, call in ipairs { "on_init_by_lua", "on_init_worker_by_lua", "on" } do
            local _, err = pcall(M[call])
            ngx.say(err)
        end
        ngx.say(M.counts())
    }
}
--- response_body
on_init_by_lua must be called in the init_by_lua phase
on_init_worker_by_lua must be called in the init_worker_by_lua phase
on must be called in the init_by_lua or the init_worker_by_lua phase
nil1nil
--- grep_error_log eval: qr/(?:another|no|not|nor|unknown|interval|failed|too|at|twice|late|bad|worker)[^:\]]*: (?:true|false) [^.]*(?:\.\d+[^.]*)?\./
--- grep_error_log_out eval
my @bad = qw(-1 inf nan ten 10000000000 true);
my $bad = sub { my ($option, $value) = @_;
    "$option $value: false bad option '$option' (a number of seconds expected, got $value).\n" };
CORE::join('', "no options: false bad argument #1 to 'on_init_by_lua' (table expected, got nil).\n",
    "no shm: false unknown shm `nil'.\n", "unknown shm: false unknown shm `nowhere'.\n",
    "not a function: false bad argument #2 to 'on_init_by_lua' (function or nil expected, got number).\n",
    "nor this: false bad argument #3 to 'on_init_by_lua' (function or nil expected, got string).\n",
    map({ ($bad->('interval', $_), $bad->('failed', $_)) } @bad),
    "too early: false on_init_worker_by_lua must be called in the init_worker_by_lua phase.\n",
    "unknown event: false unknown event `worker_born'.\n",
    "no event: false bad argument #1 to 'on' (string expected, got nil).\n",
    "no callback: false bad argument #2 to 'on' (function expected, got nil).\n",
    "at last: true true.\n",
    "twice: false on_init_by_lua was called before, it must be called only once.\n",
    "another VM: true 1.\n", "another VM: true -2.\n", "another version: true -3.\n",
    "late: false on_init_by_lua must be called in the init_by_lua phase.\n",
    "bad start: false bad argument #1 to 'on_init_worker_by_lua' (function or nil expected, got boolean).\n",
    "bad exit: false bad argument #2 to 'on_init_worker_by_lua' (function or nil expected, got boolean).\n",
    "worker: true true.\n",
    "worker twice: false on_init_worker_by_lua was called before, it must be called only once.\n")



=== TEST 4: an unknown shm ends the start, with the line of the caller
--- http_config
init_by_lua_block {
    require("resty.worker.manager").on_init_by_lua({ shm = "nowhere" })
}
--- must_die
--- suppress_stderr
--- error_log eval
qr/init_by_lua(?:\([^)]*\))?:2: unknown shm `nowhere'/



=== TEST 5: so does a missing block
--- main_config
--- http_config
lua_shared_dict dict 1m;
init_by_lua_block {
    require("resty.worker.manager").on_init_by_lua({ shm = "dict" })
}
--- must_die
--- suppress_stderr
--- error_log
nginx.conf has no worker_manager block



=== TEST 6: where nginx runs Lua before the end of the configuration as well
--- main_config
--- http_config
init_by_lua_block {
    require("resty.worker.manager").on_init_by_lua({ shm = "worker_manager" })
}
--- must_die
--- suppress_stderr
--- error_log
resty.worker.manager needs a "worker_manager" block



=== TEST 7: a block after http whose zone has another name
--- main_config
--- http_config
init_by_lua_block {
    require("resty.worker.manager").on_init_by_lua({ shm = "nowhere" })
}
--- post_main_config
worker_manager { zone other 64k; }
--- must_die
--- suppress_stderr
--- error_log
unknown shm `nowhere'



=== TEST 8: the zone's name, a block after http
--- main_config
--- http_config
init_by_lua_block {
    require("resty.worker.manager").on_init_by_lua({ shm = "other" },
        function(id) ngx.log(ngx.NOTICE, "master ", id, " starts") end)
}
--- post_main_config
worker_manager { zone other 64k; }
--- error_log
master 1 starts
--- no_error_log
[error]
[emerg]




=== TEST 9: on_init_worker_by_lua without the former
--- http_config
init_worker_by_lua_block {
    require("resty.worker.manager").on_init_worker_by_lua()
}
--- error_log eval
qr/init_worker_by_lua(?:\([^)]*\))?:2: on_init_by_lua must be called first/
--- no_error_log
[alert]
[emerg]
