# The Lua library and the module below it, under valgrind. It knows what the module and the C library
# allocate; what LuaJIT and nginx's pools hand out is one piece of memory to it, so that whatever Lua
# collects is put to the test in t/lua/040-faults.t.
use strict;
use warnings;
use Test::More;
use WorkerManager::Lua;

$WorkerManager::DEADLINE = 120;

my $node = WorkerManager::Lua->new(manager => 'interval 2s; failed 2s; draining_warn 1s;');
my $binary = $node->write('valgrind-nginx', <<"END", 0755);
#!/bin/sh
. $WorkerManager::Lua::OBJS/environment
exec valgrind --quiet --num-callers=30 --log-file=$node->{root}/out/valgrind.%p \\
    \$NGINX "\$@"
END
my $http = <<"END";
lua_shared_dict dict 1m;
server {
    listen unix:$node->{root}/gc.sock;
    location / {
        content_by_lua_block {
            for i = 1, 100 do
                local thread = coroutine.create(function() return require("resty.worker.manager").counts() end)
                coroutine.resume(thread)
            end
            collectgarbage()
            ngx.say("collected")
        }
    }
}
END
my $init = <<'END';
    M.on_init_by_lua({ shm = "dict" }, saying("master_start"), saying("master_exit"))
    M.on("*", function(id, n_prev, n_mine, n_next, event)
        collectgarbage()
        say("all", event.event, id, event.reason)
        if event.event == "worker_exit" then error({}) end
    end)
END
my $init_worker = <<'END';
    M.on_init_worker_by_lua(function(...)
        say("start", ...)
        ngx.timer.at(0, function() say("timer") end)
        error("on purpose")
    end, saying("exit"))
END
$node->configure(binary => $binary, WorkerManager::Lua::configuration(
    http => $http, init => $init, init_worker => $init_worker));
$node->up;
is($node->get_unix('gc.sock', '/') =~ s/.*\r\n\r\n//sr, "collected\n", 'a request') for 1 .. 3;
my $held = $node->hold_connection(1);
$node->reload_ready(2);
$node->wait_events('worker_stuck', 1);
close $held;
$node->wait_events('master_exit', 1, 1);
$node->signal('KILL', ($node->on_duty)[0]);
$node->wait_events('worker_start', 3, 2);
# Fails after init_by_lua has run, so that its VM is closed again.
my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');
$node->configure(http => "$node->{http} server { listen 127.0.0.1:" . $taken->sockport . '; }');
$node->signal('HUP');
$node->wait_events('reload_failed', 1);
$node->down;

is(scalar WorkerManager::Lua::said($node, '^all '), scalar(() = $node->events), 'every event is told');
is(scalar WorkerManager::Lua::said($node, '^start '), 5, 'every start');
my @files = glob $node->path('out/valgrind.*');
cmp_ok(scalar @files, '>=', 7, 'processes were looked at');
# A line that begins with two hyphens is about valgrind itself: it does not know pidfd_open.
my @found = grep { !/^--/ } map { split /^/, $node->read("out/$_") } map { m{([^/]+)$} } @files;
is(join('', @found), '', 'valgrind finds nothing');
$node->laws_hold('the laws hold', final => 1);

done_testing;
