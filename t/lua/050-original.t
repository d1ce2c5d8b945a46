# What code written for the original library relies on.
use strict;
use warnings;
use Test::More;
use WorkerManager::Lua;

my $INIT_WORKER = 'M.on_init_worker_by_lua(saying("start"), saying("exit"))';

sub said { WorkerManager::Lua::said(@_) }

subtest 'what master_start_cb sets is there after on_init_by_lua' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init_worker => $INIT_WORKER, init => <<'END')->up;
        local first, of
        assert(M.on_init_by_lua({ shm = "worker_manager" }, function(id, n_prev, n_mine, n_next)
            say("master_start", id, n_prev, n_mine, n_next, ngx.get_phase())
            first = n_prev == nil
            of = id
        end))
        say(first and "first" or "not first", first, of)
END
    $node->reload(2);
    $node->down;
    is_deeply([ grep { /first|master/ } said($node) ], [ 'master_start 1 nil 0 nil init', 'first true 1',
        'not first nil nil', 'master_start 2 1 0 nil init' ],
        'at a start it has run by then, at a reload it has not: code that asks whether it is the first is right');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a start that master_start_cb refuses' => sub {
    for my $thrown ('error("not today")', 'error({})', 'local x = nil; x.y = 1') {
        my $node = WorkerManager::Lua->new(init_worker => $INIT_WORKER, init =>
            qq{M.on_init_by_lua({ shm = "worker_manager" }, function() $thrown end)});
        my ($status, $output) = $node->nginx;
        # So that it is ended if it did.
        ($node->{master}) = $node->read('logs/nginx.pid') =~ /^(\d+)/;
        isnt($status, 0, "$thrown: nginx does not start");
        like($output, qr/init_by_lua error: /, 'and says so') unless $thrown =~ /\{\}/;
        like($output, qr/not today/, 'with the message') if $thrown =~ /today/;
        unlike($node->log, qr/start worker process/, 'no worker was started');
        is(scalar(() = $node->events), 0, 'no event was told');
    }
};

subtest 'a start that is refused and started all the same' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init_worker => $INIT_WORKER, init => <<'END')->up;
        say("caught", pcall(M.on_init_by_lua, { shm = "worker_manager" }, function() error("no", 0) end))
END
    $node->down;
    is_deeply([ said($node) ], [ 'caught false no', 'start 1- nil 1 nil', 'exit 1- nil 1 nil' ],
        'by who catches the error');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'at a reload it can refuse nothing any more' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init_worker => $INIT_WORKER, init => <<'END')->up;
        M.on_init_by_lua({ shm = "worker_manager" }, function(id) if id > 1 then error("on purpose") end end)
END
    $node->reload(2);
    like($node->get('/'), qr/ok/, 'the new generation serves');
    like($node->log, qr/\[error\].* worker_manager: master_start 2: .*on purpose/, 'the error is in the log');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload that init_by_lua refuses before it is told to anybody' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init_worker => $INIT_WORKER);
    my $init = sub { (init_worker => $INIT_WORKER, init => <<"END") };
        M.on_init_by_lua({ shm = "worker_manager" }, saying("master_start"))
        say("generation", M.generation(), M.id(), M.counts())
        if M.generation() and $_[0] then error("on purpose") end
END
    $node->configure(WorkerManager::Lua::configuration($init->("true")));
    $node->up;
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    like($node->log, qr/init_by_lua error.*on purpose/, 'by an error of its own');
    $node->configure(WorkerManager::Lua::configuration($init->("false")));
    $node->reload(2);
    $node->down;
    is_deeply([ grep { !/^(?:start|exit)/ } said($node) ], [ 'master_start 1 nil 0 nil', 'generation nil nil nil nil nil',
        'generation 1 1 nil 1 nil', 'generation 1 1 nil 1 nil', 'master_start 2 1 0 nil' ],
        'knowing the generation that it is to replace');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a start that fails later' => sub {
    my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');
    my $node = WorkerManager::Lua->new(init_worker => $INIT_WORKER,
        http => 'server { listen 127.0.0.1:' . $taken->sockport . '; }',
        init => 'M.on_init_by_lua({ shm = "worker_manager" }, saying("master_start"), saying("master_exit"))
            M.on("master_start", saying("on master_start"))');
    my ($status, $output) = $node->nginx;
    isnt($status, 0, 'nginx does not start');
    is_deeply([ $output =~ /LUA (.*?) \./g ], [], 'what on() registers is not called');
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil' ], 'master_start_cb was, as ever');
};

subtest 'an error in start_cb is raised by on_init_worker_by_lua' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init => 'M.on_init_by_lua({ shm = "shm" })',
        init_worker => <<'END')->up;
        local thrown = {}
        local ok, err = pcall(M.on_init_worker_by_lua, function() error(thrown) end, saying("exit"))
        say("raised", ok, err == thrown)
        error("given up")
END
    is_deeply([ grep { /^raised/ } said($node) ], [ 'raised false true' ], 'as it was thrown');
    like($node->log, qr/\[error\].* worker_manager: worker_start 1-\d+: table: /, 'and logged');
    like($node->log, qr/init_worker_by_lua error: .*given up/, 'init_worker_by_lua may end by it');
    like($node->get('/'), qr/ok/, 'the worker serves');
    $node->down;
    is_deeply([ grep { /^exit/ } said($node) ], [ 'exit 1- nil 1 nil' ], 'and is registered');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'an error of another worker\'s start_cb is not raised' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, manager => 'interval 150ms; failed 150ms;');
    $node->configure(WorkerManager::Lua::configuration(init =>
        "M.on('worker_start', function() if os.remove('$node->{root}/out/once') then "
        . 'require("ffi").cdef "int getpid(void); int kill(int pid, int signal);" '
        . 'require("ffi").C.kill(require("ffi").C.getpid(), 9) end end) '
        . 'M.on_init_by_lua({ shm = "worker_manager" })', init_worker => <<'END'));
        local pid = tostring(ngx.worker.pid())
        say("returned", M.on_init_worker_by_lua(function(id)
            if not id:find(pid, 1, true) then error("another's") end
        end))
END
    $node->write('out/once', '');
    $node->start;
    $node->wait_events('worker_start', 2);
    WorkerManager::Lua::wait_said($node, 1, 'returned');
    is_deeply([ said($node, 'returned') ], [ 'returned true' ], 'it is not this worker\'s');
    like($node->log, qr/another's/, 'but logged');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'what callbacks and options may be' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, manager => 'interval 1h; failed 1h;', init => <<'END',
        local callable = function(name)
            return setmetatable({}, { __call = function(_, ...) say(name, ...) end })
        end
        M.on_init_by_lua({ shm = "worker_manager", interval = "0.2", failed = 0 }, callable("master_start"),
            callable("master_exit"))
END
        init_worker => <<'END')->up;
        local callable = function(name)
            return setmetatable({}, { __call = function(_, ...) say(name, ...) end })
        end
        M.on_init_worker_by_lua(callable("start"), callable("exit"))
END
    $node->reload(2);
    $node->down;
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'start 1- nil 1 nil', 'master_start 2 1 0 nil',
        'start 2- 1 1 nil', 'exit 1- nil 1 1', 'master_exit 1 nil 0 1', 'exit 2- nil 1 nil',
        'master_exit 2 nil 0 nil' ], 'tables that can be called');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the fifth argument, for who has a parameter for it' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init => <<'END', init_worker => <<'END_WORKER')->up;
        local function telling(name)
            return function(id, n_prev, n_mine, n_next, event)
                say(name, id, n_mine, event.event, event.id == id, event.n_mine, event.n_left, event.stopping,
                    event.respawn_of ~= nil, event.generation, event.worker)
            end
        end
        M.on_init_by_lua({ shm = "shm" }, telling("master_start"), setmetatable({}, { __call =
            function(self, ...) return telling("master_exit")(...) end }))
END
        M.on_init_worker_by_lua(function(id, n_prev, n_mine, n_next, event)
            say("start", id, n_mine, event.event, event.n_left, event.stopping, event.worker,
                event.respawn_of == nil)
        end, function(...) say("exit", select("#", ...)) end)
END_WORKER
    $node->reload(2);
    $node->down;
    is_deeply([ grep { /master_start/ } said($node) ],
        [ 'master_start 1 0 master_start true 0 0 false false 1 nil', 'master_start 2 0 master_start true 0 0 false false 2 nil' ],
        'of masters');
    is_deeply([ said($node, '^start') ], [ 'start 1- 1 worker_start 1 false 0 true', 'start 2- 1 worker_start 1 false 0 true' ],
        'of workers');
    is_deeply([ said($node, '^exit') ], [ 'exit 4', 'exit 4' ], 'who takes any number gets what it ever got');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a respawn, and the end of a node' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init => <<'END', init_worker => <<'END_WORKER')->up;
        M.on_init_by_lua({ shm = "shm" }, nil, function(id, n_prev, n_mine, n_next, event)
            say("master_exit", id, n_mine, n_next, event.stopping, event.event)
        end)
END
        M.on_init_worker_by_lua(function(id, n_prev, n_mine, n_next, event)
            say("start", n_mine, n_mine == 1 and not event.respawn_of and "first" or "of " .. event.respawn_of)
        end, function(id, n_prev, n_mine, n_next, event)
            say("exit", n_mine, n_next, event.stopping, event.n_left, event.worker, event.event)
        end)
END_WORKER
    my ($pid) = $node->on_duty;
    $node->signal('KILL', $pid);
    $node->wait_events('worker_start', 2);
    $node->reload(2);
    $node->down('QUIT');
    is_deeply([ said($node) ], [ 'start 1 first', "start 1 of $pid", 'start 1 first',
        'exit 1 1 false 0 0 worker_exit', 'master_exit 1 0 1 false master_exit', 'exit 1 nil true 0 0 worker_exit',
        'master_exit 2 0 nil true master_exit' ], 'are told from a start and a reload');
    my $stop = WorkerManager::Lua->new(workers => 1, init_worker => 'M.on_init_worker_by_lua(nil,
        function(id, n_prev, n_mine, n_next, event) say("exit", n_mine, event.stopping, event.n_left, event.seq > 1) end)',
        init => 'M.on_init_by_lua({ shm = "shm" })')->up;
    $stop->down('TERM');
    is_deeply([ said($stop) ], [ 'exit 1 true 0 true' ], 'also by a fast stop');
    $_->laws_hold('the laws hold', final => 1) for $node, $stop;
};

subtest 'who is on duty' => sub {
    my $node = WorkerManager::Lua->new(init => 'M.on_init_by_lua({ shm = "shm" },
        function() say("master", M.id(), M.generation(), M.workers() and #M.workers()) end)', init_worker => <<'END')->up;
        M.on_init_worker_by_lua(function(id)
            local me
            for _, worker in ipairs(M.workers()) do
                if worker.id == id then me = worker end
            end
            say("worker", M.id() == id, M.generation(), me.generation, me.pid == ngx.worker.pid(),
                me.worker == ngx.worker.id(), me.draining, me.hung)
        end, function(id)
            local draining = 0
            for _, worker in ipairs(M.workers()) do
                if worker.generation == M.generation() then draining = draining + 1 end
            end
            say("exit", M.id() == id, draining > 0)
        end)
END
    $node->reload(2);
    is_deeply([ said($node) ], [ 'master nil nil nil', ('worker true 1 1 true true false false') x 2, 'master 2 2 2',
        ('worker true 2 2 true true false false') x 2, ('exit true true') x 2 ], 'masters and workers know');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
