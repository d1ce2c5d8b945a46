# The Lua library in two Lua VMs of one nginx, as where both http and stream run Lua.
#
# nginx's stream Lua module is in none of the distributions that the suites run on. So the second VM is
# one that the first makes, with so much of nginx's API as the library uses. What it then asks of
# the module and is told by it is the same.
use strict;
use warnings;
use Test::More;
use WorkerManager::Lua;

my $FFI = <<'END';
    local ffi = require "ffi"
    ffi.cdef [[
        void *luaL_newstate(void);
        void luaL_openlibs(void *state);
        int luaL_loadstring(void *state, const char *code);
    ]]
    -- Runs code in the second VM, which is made at the first call.
    function in_second(phase, code)
        SECOND = SECOND or ffi.C.luaL_newstate()
        ffi.C.luaL_openlibs(SECOND)
        local rc = ffi.C.luaL_loadstring(SECOND, "PHASE = '" .. phase .. "'" .. PRELUDE .. code)
        rc = rc ~= 0 and rc or ffi.C.lua_pcall(SECOND, 0, 0, 0)
        if rc ~= 0 then error("second VM: " .. ffi.string(ffi.C.lua_tolstring(SECOND, -1, nil))) end
    end
    jit.off(in_second)
END

# nginx's API as the library knows it, in the second VM.
sub prelude {
    my ($node) = @_;
    return "PRELUDE = [=[ package.path = '$WorkerManager::Lua::TOP/lua/?.lua'\n" . <<'END';
        local ffi = require "ffi"
        if not ngx then
            ffi.cdef [[
                extern void **ngx_cycle;
                int getpid(void);
                void ngx_log_error_core(uintptr_t level, void *log, int err, const char *format, ...);
            ]]
            coroutine._create = coroutine.create
            package.preload["resty.core.base"] = function()
                return { get_request = function() return nil end }
            end
            ngx = { ERR = 4, WARN = 5, NOTICE = 6, shared = { dict = {} }, worker = { pid = ffi.C.getpid } }
            ngx.get_phase = function() return PHASE end
            ngx.timer = { at = function() return nil, "no timers here" end }
            ngx.log = function(level, ...)
                local words = { ... }
                for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
                ffi.C.ngx_log_error_core(level, ffi.C.ngx_cycle[2], 0, "%s", table.concat(words))
            end
        end
        M = require "resty.worker.manager"
        local function say(...)
            local words = { ... }
            for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
            ngx.log(ngx.NOTICE, "LUA ", table.concat(words, " "), " .")
        end
        local function saying(name)
            return function(...) say("second", name, ...) end
        end
    ]=]
END
}

my $OWN_INIT = 'assert(M.on_init_by_lua({ shm = "worker_manager" }, saying("master_start"),
    saying("master_exit")) == true)';
my $OWN_WORKER = 'assert(M.on_init_worker_by_lua(saying("start"), saying("exit")) == true) say(M.counts())';

sub node {
    my (%options) = @_;
    my $node = WorkerManager::Lua->new(workers => 2);
    my %code = map { defined $options{$_} ? ($_ => $options{$_}) : () } qw(init init_worker);
    $code{init} = $FFI . prelude() . $code{init};
    $node->configure(WorkerManager::Lua::configuration(%code), %options{ grep { !/^init/ } keys %options });
    return $node;
}

sub said { WorkerManager::Lua::said(@_) }

# Waits until so many workers have started in both VMs, or in one: the later one is told after the generation
# is ready.
sub wait_started {
    my ($node, $number, @vms) = @_;
    WorkerManager::Lua::wait_said($node, $number, "^${_}start ") for @vms ? @vms : ('', 'second ');
}

# What each VM said, the second's name left out.
sub of_both {
    my ($node) = @_;
    my @all = said($node, '^(?:second )?(?:master_start|master_exit|start|exit)');
    return ([ grep { !/^second/ } @all ], [ map { s/^second //r } grep { /^second/ } @all ]);
}

my $SECOND_INIT = qq{in_second("init", [[ $OWN_INIT ]])};
my $SECOND_WORKER = qq{in_second("init_worker", [[ $OWN_WORKER ]])};
my %order = (
    'the one first' => [ "$OWN_INIT $SECOND_INIT", "$OWN_WORKER $SECOND_WORKER" ],
    'the other first' => [ "$SECOND_INIT $OWN_INIT", "$SECOND_WORKER $OWN_WORKER" ],
);
for my $name (sort keys %order) {
    subtest "two VMs: $name" => sub {
        my ($init, $init_worker) = @{ $order{$name} };
        my $node = node(init => $init, init_worker => $init_worker)->up;
        wait_started($node, 2);
        $node->reload(2);
        wait_started($node, 4);
        $node->down;
        my @expected = ('master_start 1 nil 0 nil', 'start 1- nil 1 nil', 'start 1- nil 2 nil',
            'master_start 2 2 0 nil', 'start 2- 2 1 nil', 'start 2- 2 2 nil', 'exit 1- nil 2 2',
            'exit 1- nil 1 2', 'master_exit 1 nil 0 2', 'exit 2- nil 2 nil', 'exit 2- nil 1 nil',
            'master_exit 2 nil 0 nil');
        my ($own, $second) = of_both($node);
        is_deeply($own, \@expected, 'the one is told everything once');
        is_deeply($second, \@expected, 'so is the other');
        my @first = said($node, '^(?:second )?master_start 1');
        is($first[0] =~ /^second/ ? 'the other first' : 'the one first', $name, 'in the order in which they came');
        unlike($node->log, qr/\[error\]|signal 11/, 'without a fault');
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'only one of them starts workers' => sub {
    my $node = node(init => "$OWN_INIT $SECOND_INIT", init_worker => $OWN_WORKER)->up;
    $node->down;
    my ($own, $second) = of_both($node);
    is_deeply([ grep { /^(?:start|exit)/ } @$own ], [ 'start 1- nil 1 nil', 'start 1- nil 2 nil',
        'exit 1- nil 2 nil', 'exit 1- nil 1 nil' ], 'it is told of them');
    is_deeply($second, [ 'master_start 1 nil 0 nil', 'master_exit 1 nil 0 nil' ], 'the other of masters');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'options of both' => sub {
    my $node = node(manager => 'interval 1h; failed 1h;', init => <<'END')->up;
        M.on_init_by_lua({ shm = "worker_manager", interval = 0.15 })
        in_second("init", [[ M.on_init_by_lua({ shm = "dict", failed = 0.15 }) ]])
END
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    $node->signal('CONT', $stopped);
    $node->wait_events('worker_recovered', 1);
    $node->down;
    $node->laws_hold('one of them does not take back the other\'s', final => 1);
};

subtest 'a callback that throws does not keep the other from its own' => sub {
    my $node = node(init => $OWN_INIT . $SECOND_INIT, init_worker => <<'END')->up;
        local ok = pcall(M.on_init_worker_by_lua, function() error("on purpose") end,
            function() error("on purpose") end)
        in_second("init_worker", [[ M.on_init_worker_by_lua(saying("start"), saying("exit")) ]])
END
    wait_started($node, 2, 'second ');
    $node->down;
    my ($own, $second) = of_both($node);
    is_deeply([ grep { /^(?:start|exit)/ } @$second ], [ 'start 1- nil 1 nil', 'start 1- nil 2 nil',
        'exit 1- nil 2 nil', 'exit 1- nil 1 nil' ], 'it is told');
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
