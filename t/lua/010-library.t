# The Lua library resty.worker.manager on real nodes: what is called, when, with which counts.
use strict;
use warnings;
use Test::More;
use WorkerManager::Lua;

my $INIT = <<'END';
    assert(M.on_init_by_lua({ shm = "worker_manager" },
        saying("master_start"), saying("master_exit")) == true)
END
my $INIT_WORKER = 'assert(M.on_init_worker_by_lua(saying("start"), saying("exit")) == true)';
my $QUICK = 'interval 150ms; failed 150ms;';

sub node { WorkerManager::Lua->new(init => $INIT, init_worker => $INIT_WORKER, @_) }

sub said { WorkerManager::Lua::said(@_) }

sub wait_said { WorkerManager::Lua::wait_said(@_) }

subtest 'cold start, reload and quit' => sub {
    my $node = node()->up;
    wait_said($node, 3);
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'start 1- nil 1 nil', 'start 1- nil 2 nil' ],
        'cold start');
    $node->reload(2);
    wait_said($node, 9);
    is_deeply([ (said($node))[ 3 .. 8 ] ], [ 'master_start 2 2 0 nil', 'start 2- 2 1 nil',
        'start 2- 2 2 nil', 'exit 1- nil 2 2', 'exit 1- nil 1 2', 'master_exit 1 nil 0 2' ], 'reload');
    $node->down;
    is_deeply([ (said($node))[ 9 .. 11 ] ],
        [ 'exit 2- nil 2 nil', 'exit 2- nil 1 nil', 'master_exit 2 nil 0 nil' ], 'quit');
    is(scalar said($node), 12, 'and no more');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a fast stop' => sub {
    my $node = node()->up;
    $node->down('TERM');
    is_deeply([ (said($node))[ 3 .. 5 ] ],
        [ 'exit 1- nil 2 nil', 'exit 1- nil 1 nil', 'master_exit 1 nil 0 nil' ], 'exits are told');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker is killed, and another told to end' => sub {
    my $node = node(init => "$INIT M.on('worker_lost', function(id, n_prev, n_mine, n_next, event)
        say('lost', id, n_prev, n_mine, n_next, event.reason, event.core) end)")->up;
    my ($one, $other) = $node->on_duty;
    $node->signal('KILL', $one);
    $node->wait_events('worker_start', 3);
    wait_said($node, 5);
    $node->signal('TERM', $other);
    $node->wait_events('worker_start', 4);
    wait_said($node, 7);
    is_deeply([ (said($node))[ 3 .. 6 ] ], [ 'lost 1- nil 2 nil signal 9 false',
        'start 1- nil 2 nil', 'exit 1- nil 2 nil', 'start 1- nil 2 nil' ], 'in order');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload that fails calls nothing' => sub {
    my $node = node(init => "$INIT M.on('reload_failed', function(id, n_prev, n_mine, n_next, event)
        say('failed', id, n_prev, n_mine, n_next, event.duration >= 0) end)")->up;
    my $holder = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');
    for my $fault ("\nno_such_directive on;", "\nserver { listen 127.0.0.1:" . $holder->sockport . '; }') {
        $node->configure(http => $node->{http} . $fault);
        my $before = $node->kinds('reload_failed');
        $node->signal('HUP');
        $node->wait_events('reload_failed', $before + 1);
        wait_said($node, $before + 1, 'failed');
        $node->configure(http => substr $node->{http}, 0, -length $fault);
    }
    is_deeply([ (said($node))[ 3 .. 4 ] ], [ ('failed 1 nil 2 nil true') x 2 ], 'but what tells it');
    like($node->log, qr/init_by_lua/, 'the second one got as far as init_by_lua');
    $node->reload(2);
    wait_said($node, 6);
    is((said($node))[5], 'master_start 2 2 0 nil', 'no number is used up');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'notifications, in the master and in workers' => sub {
    my $node = node(manager => "$QUICK draining_warn 100ms;",
        init => "$INIT M.on('*', function(id, n_prev, n_mine, n_next, event)
            say('all', event.event, id, n_prev, n_mine, n_next) end)")->up;
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    $node->signal('CONT', $stopped);
    $node->wait_events('worker_recovered', 1);
    my $held = $node->hold_connection(1);
    $node->reload_ready(2);
    $node->wait_events('worker_stuck', 1);
    close $held;
    $node->wait_events('master_exit', 1, 1);
    my @workers = $node->on_duty;
    $node->signal('KILL');
    $node->wait_events('master_lost', 1);
    $node->signal('QUIT', @workers);
    $node->wait_events('master_exit', 1, 2);
    wait_said($node, scalar(() = $node->events), '^all ');
    my @all = map { "$_->{event} " . ($_->{id} =~ s/-.*/-/r) . " $_->{prev} $_->{mine} $_->{next}" =~ s/-/nil/gr }
        $node->events;
    is_deeply([ map { s/^all //r } said($node, '^all ') ], \@all, 'Lua sees what the log says');
    my %kinds = map { $_->{event} => 1 } $node->events;
    is(scalar keys %kinds, 10, 'of ten kinds');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload with other callbacks' => sub {
    my $node = node()->up;
    $node->configure(WorkerManager::Lua::configuration(
        init => 'M.on_init_by_lua({ shm = "worker_manager" }, saying("new_master_start"))',
        init_worker => 'M.on_init_worker_by_lua(nil, saying("new_exit"))'));
    $node->reload(2);
    $node->down;
    is_deeply([ (said($node))[ 3 .. 8 ] ], [ 'new_master_start 2 2 0 nil', 'exit 1- nil 2 2',
        'exit 1- nil 1 2', 'master_exit 1 nil 0 2', 'new_exit 2- nil 2 nil', 'new_exit 2- nil 1 nil' ],
        'each generation has its own');
    is(scalar said($node), 9, 'and what is not given is not called');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'native callbacks come first, then Lua' => sub {
    my $native = join ' ', map { qq{on $_ log notice "LUA native $_ \$n_mine .";} }
        qw(master_start worker_start worker_exit master_exit);
    my %order = (
        'with the block before http' => sub { node(workers => 1, manager => $native) },
        'with the block after http' => sub {
            node(workers => 1, manager => undef, tail => "worker_manager { $native on * log notice \"EV1 "
                . $WorkerManager::EVENT . '"; }');
        },
    );
    for my $name (sort keys %order) {
        my $node = $order{$name}->()->up;
        $node->reload(2);
        $node->down('TERM');
        is_deeply([ grep { !/ 1-? / && !/^native .*_exit/ || / 2-? / } said($node) ], [
            'native master_start 0', 'native worker_start 1', 'native master_start 0',
            'master_start 2 1 0 nil', 'native worker_start 1', 'start 2- 1 1 nil', 'exit 2- nil 1 nil',
            'master_exit 2 nil 0 nil',
        ], "$name: starts");
        is_deeply([ (said($node))[ -4 .. -1 ] ], [ 'native worker_exit 1', 'exit 2- nil 1 nil',
            'native master_exit 0', 'master_exit 2 nil 0 nil' ], "$name: ends");
        $node->laws_hold('the laws hold', final => 1);
    }
};

subtest 'start_cb runs in the phase init_worker, before the call returns' => sub {
    my $node = node(workers => 1, http => 'lua_shared_dict dict 1m;', init_worker => <<'END')->up;
        local done
        local ok = M.on_init_worker_by_lua(function(id)
            done = true
            say("phase", ngx.get_phase(), "pid", id == "1-" .. ngx.worker.pid())
            say("counts", M.counts())
            assert(ngx.timer.at(0, function() say("timer", ngx.get_phase()) end))
        end, function()
            say("exit", ngx.get_phase(), ngx.shared.dict:incr("exits", 1, 0), M.counts())
            say("exit", pcall(ngx.timer.at, 0, function() end))
        end)
        say("returned", ok, done)
END
    wait_said($node, 1, 'timer');
    $node->down('TERM');
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'phase init_worker pid true',
        'counts nil 1 nil', 'returned true true', 'timer timer', 'exit init 1 nil 0 nil',
        'exit false no request',
        'master_exit 1 nil 0 nil' ], 'with its API');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a callback in the event loop wakes a light thread, which has the whole API' => sub {
    # As in doc/lua.md.
    my $node = node(manager => $QUICK, init_worker => <<'END')->up;
        local hung = {}
        local semaphore = require("ngx.semaphore").new()
        M.on("worker_hung", function(id, n_prev, n_mine, n_next, event)
            say("no request:", pcall(ngx.timer.at, 0, function() end))
            hung[#hung + 1] = event
            semaphore:post()
        end)
        ngx.timer.at(0, function()
            while not ngx.worker.exiting() do
                if semaphore:wait(0.1) then
                    ngx.sleep(0)
                    say("thread", ngx.get_phase(), table.remove(hung, 1).id)
                end
            end
        end)
        assert(M.on_init_worker_by_lua())
END
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    wait_said($node, 1, 'thread');
    is((said($node, 'thread'))[0], 'thread timer 1-', 'told in a thread');
    is((said($node, 'no request'))[0], 'no request: false no request', 'which the callback itself is not');
    $node->signal('CONT', $stopped);
    $node->wait_events('worker_recovered', 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
