# What goes wrong in Lua callbacks, and what nginx and the others make of it.
use strict;
use warnings;
use Test::More;
use Time::HiRes qw(time);
use WorkerManager::Lua;

my $QUICK = 'interval 150ms; failed 150ms;';
my $SAYING = <<'END';
    M.on_init_by_lua({ shm = "worker_manager" }, saying("master_start"), saying("master_exit"))
END
my $SAYING_WORKER = 'M.on_init_worker_by_lua(saying("start"), saying("exit"))';
# Ends the process as by kill -9, if a file is there; removes it first.
my $DIE_ONCE = <<'END';
    local ffi = require "ffi"
    if not pcall(function() return ffi.C.getpid end) then
        ffi.cdef "int getpid(void); int kill(int pid, int signal);"
    end
    local function die_once(path)
        if os.remove(path) then ffi.C.kill(ffi.C.getpid(), 9) end
    end
END

sub said { WorkerManager::Lua::said(@_) }

subtest 'every callback throws' => sub {
    my @thrown = ('error("a text")', 'error({ a = "table" })', 'error()', 'local x = nil; x.y = 1',
        'error(setmetatable({}, { __tostring = function() error("worse") end }))',
        'local function deeper() return 1 + deeper() end deeper()', 'coroutine.yield()');
    for my $fault (@thrown) {
        my $throw = qq{function(id) say("called", id) local function thrower() $fault end thrower() end};
        # At a start nginx would end by it.
        my $later = $throw =~ s/local function/if id == 1 then return end local function/r;
        my $node = WorkerManager::Lua->new(manager => 'on * log notice "EV3 $event";',
            init => qq{M.on_init_by_lua({ shm = "worker_manager" }, $later, $throw) M.on("*", $throw)},
            init_worker => qq{say("raised", (pcall(M.on_init_worker_by_lua, $throw, $throw)))})->up;
        $node->reload(2);
        like($node->get('/'), qr/ok/, "$fault: it serves");
        $node->down;
        my @called = said($node, '^called');
        my @own = grep { $_->{event} =~ /^(?:master|worker)_(?:start|exit)$/ } $node->events;
        is(scalar @called, @own + (() = $node->events), 'each is called');
        # In a timer yielding is none.
        my $timers = () = $node->log =~ /LUA called.*context: ngx\.timer/g;
        my $faults = @called - 1 - ($fault =~ /yield/ ? $timers : 0);
        is(scalar(() = $node->log =~ /\[error\].* worker_manager: \w+ [\d-]+: /g), $faults,
            'and each fault logged');
        like($node->log, qr/stack traceback:\n.*\n?.*thrower/, 'with a traceback')
            unless $fault =~ /deeper/;
        is(scalar said($node, 'raised false'), 4, 'start_cb\'s is raised');
        $node->laws_hold('the laws hold', final => 1);
    }
};

subtest 'a worker is killed in its start_cb' => sub {
    my $node = WorkerManager::Lua->new(manager => $QUICK, init => $SAYING);
    $node->configure(WorkerManager::Lua::configuration(init => $SAYING, init_worker => <<"END"));
        $DIE_ONCE
        M.on_init_worker_by_lua(function(...)
            say("start", ...) die_once("$node->{root}/out/start") say("started", ...)
        end, saying("exit"))
END
    $node->write('out/start', '');
    $node->start;
    # Not for the generation to be ready: until its death is told the killed one counts.
    $node->wait_events('worker_start', 3);
    $node->down;
    is(scalar said($node, '^start '), 3, 'its successor starts, too');
    is(scalar said($node, '^started '), 2, 'no callback is called twice for an event');
    is(scalar $node->kinds('worker_lost'), 1, 'it is lost');
    like($node->log, qr/callback \d of generation 1 was interrupted at worker_start 1-\d+/, 'as logged');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker is killed in its exit_cb' => sub {
    my $node = WorkerManager::Lua->new(manager => $QUICK, init => $SAYING);
    $node->configure(WorkerManager::Lua::configuration(init => $SAYING, init_worker => <<"END"));
        $DIE_ONCE
        M.on_init_worker_by_lua(nil, function(...)
            say("exit", ...) die_once("$node->{root}/out/exit") say("exited", ...)
        end)
END
    $node->up;
    $node->write('out/exit', '', 0666);
    $node->reload(2);
    $node->down;
    is(scalar said($node, '^exit '), 4, 'four exits');
    is(scalar said($node, '^exited '), 3, 'of which one is interrupted');
    is(scalar said($node, '^master_exit '), 2, 'both generations end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker_exit callback that never returns' => sub {
    my $node = WorkerManager::Lua->new(manager => $QUICK);
    $node->configure(WorkerManager::Lua::configuration(init => <<'END'));
        M.on_init_by_lua({ shm = "worker_manager" })
        M.on("worker_exit", function(id) say("exit", id) while true do end end)
END
    $node->up;
    $node->signal('HUP');
    $node->wait_for('the first', sub { said($node, '^exit ') });
    $node->signal('HUP');
    $node->wait_for('a master that waits',
        sub { $node->log =~ /blocked for 1s by a function in Lua of worker_exit/ });
    my $from = time;
    $node->down('TERM');
    # nginx kills its workers 3.15 s after it has told them to end; the rest is this busy machine.
    cmp_ok(time - $from, '<', 8, 'the node stops');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the master is killed in its master_start_cb' => sub {
    my $node = WorkerManager::Lua->new(manager => $QUICK);
    $node->configure(WorkerManager::Lua::configuration(init_worker => $SAYING_WORKER, init => <<"END"));
        $DIE_ONCE
        M.on_init_by_lua({ shm = "worker_manager" }, function(...)
            say("master_start", ...) die_once("$node->{root}/out/master")
        end, saying("master_exit"))
END
    $node->up;
    my @workers = $node->on_duty;
    $node->write('out/master', '');
    $node->signal('HUP');
    $node->wait_events('master_lost', 1);
    like($node->get('/'), qr/ok/, 'the workers serve on');
    $node->signal('QUIT', @workers);
    $node->wait_for('their end', sub { !grep { WorkerManager::is_alive($_) } @workers });
    is_deeply([ said($node, '^master_start') ], [ 'master_start 1 nil 0 nil', 'master_start 2 2 0 nil' ],
        'the second one is begun and not told again');
    is_deeply([ sort map { /^(\w+ \d)/ } said($node, '^master_exit') ], [ 'master_exit 1', 'master_exit 2' ],
        'both generations end');
    $node->laws_hold('the laws hold', gaps => 1);
};

# Where a worker drains it runs outside the lock.
subtest 'an exit_cb that never returns' => sub {
    my $node = WorkerManager::Lua->new(init => $SAYING, init_worker =>
        'M.on_init_worker_by_lua(nil, function() say("stays") while true do end end)')->up;
    $node->signal('HUP');
    WorkerManager::Lua::wait_said($node, 1, 'stays');
    $node->wait_events('master_ready', 1, 2);
    $node->signal('HUP');
    $node->wait_events('master_ready', 1, 3);
    like($node->get('/'), qr/ok/, 'holds up no reload');
    is(($node->nginx('-s', 'stop'))[0], 0, 'nginx -s stop');
    # nginx kills workers 3.15 s after it has told them; the rest is for a busy machine.
    $node->wait_for('the end of the master', sub { !WorkerManager::is_alive($node->master) }, 12);
    my @workers = map { $_->{pid} } $node->kinds('worker_start');
    ok(!(grep { WorkerManager::is_alive($_) } @workers), 'ends the node with its workers');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'garbage is collected all the time' => sub {
    my $init = <<'END' . $SAYING;
        collectgarbage("setpause", 1) collectgarbage("setstepmul", 1000)
        M.on("*", function(id, n_prev, n_mine, n_next, event)
            collectgarbage()
            say("all", event.event, id)
            package.loaded["resty.worker.manager"] = nil
        end)
END
    # FFI operations on threads that are collected before nginx calls the next callback.
    my $http = <<'END';
        server {
            listen unix:gc.sock;
            location / {
                content_by_lua_block {
                    local ffi = require "ffi"
                    for i = 1, 200 do
                        local co = coroutine.create(function()
                            local made = ffi.new("char[?]", 1000)
                            return ffi.string(made, 10), require("resty.worker.manager").counts()
                        end)
                        coroutine.resume(co)
                    end
                    collectgarbage()
                    ngx.say("collected")
                }
            }
        }
END
    my $node = WorkerManager::Lua->new(manager => $QUICK);
    $http =~ s{unix:}{unix:$node->{root}/};
    $node->configure(WorkerManager::Lua::configuration(http => $http, init => $init,
        init_worker => "$SAYING_WORKER M.on('worker_hung', saying('hung'))"));
    $node->up;
    for my $turn (1 .. 5) {
        is($node->get_unix('gc.sock', '/') =~ s/.*\r\n\r\n//sr, "collected\n", 'a request') for 1 .. 5;
        my ($stopped, $other) = $node->on_duty($turn);
        $node->signal('STOP', $stopped);
        $node->wait_event_of('worker_hung', $stopped);
        $node->signal('CONT', $stopped);
        $node->wait_event_of('worker_recovered', $stopped);
        $node->signal('KILL', $other);
        $node->wait_events('worker_start', 3, $turn);
        $node->reload($turn + 1);
    }
    $node->down;
    is(scalar said($node, '^all '), scalar(() = $node->events), 'every event is told');
    # At least those that were stopped; others may have been late.
    my $hung = () = $node->kinds('worker_hung');
    is(scalar said($node, '^hung '), $hung, 'also by what one worker registered');
    is(scalar said($node, '^(?:master_start|master_exit)'), 12, 'and masters');
    is(scalar said($node, '^(?:start|exit)'), 2 * 17 - 5, 'and workers');
    unlike($node->log, qr/\[error\]|signal 11/, 'without a fault');
    $node->laws_hold('the laws hold', final => 1);
};

my %jit = (
    'JIT off' => 'jit.off() jit.flush()',
    'JIT at once' => 'jit.on() jit.opt.start("hotloop=1", "hotexit=1", "minstitch=0")',
);
for my $name (sort keys %jit) {
    subtest $name => sub {
        my $node = WorkerManager::Lua->new(workers => 1, manager => $QUICK,
            init => "$jit{$name} $SAYING", init_worker => <<"END")->up;
            $jit{$name}
            for i = 1, 100 do
                local ok, err = pcall(M.on_init_worker_by_lua, function(...)
                    local sum = 0
                    for i = 1, 200 do sum = sum + select("#", M.counts()) end
                    say("start", sum, ...)
                end, function(...)
                    local sum = 0
                    for i = 1, 200 do sum = sum + select(2, M.counts()) end
                    say("exit", sum, ...)
                end)
            end
            for i = 1, 100 do M.on("worker_draining", function(...) say("draining") end) end
END
        $node->reload(2);
        $node->down;
        is_deeply([ said($node, '^(?!draining)') ], [ 'master_start 1 nil 0 nil', 'start 600 1- nil 1 nil',
            'master_start 2 1 0 nil', 'start 600 2- 1 1 nil', 'exit 200 1- nil 1 1', 'master_exit 1 nil 0 1',
            'exit 200 2- nil 1 nil', 'master_exit 2 nil 0 nil' ], 'all is called');
        is(scalar said($node, '^draining'), 200, 'whatever was registered');
        unlike($node->log, qr/\[error\]/, 'without a fault');
        $node->laws_hold('the laws hold', final => 1);
    };
}

done_testing;
