# The Lua library in every kind of node: many workers, other options, other ways to load.
use strict;
use warnings;
use Test::More;
use WorkerManager::Lua;

my $INIT = <<'END';
    M.on_init_by_lua({ shm = "worker_manager" }, saying("master_start"), saying("master_exit"))
END
my $INIT_WORKER = 'assert(M.on_init_worker_by_lua(saying("start"), saying("exit")))';

sub node { WorkerManager::Lua->new(init => $INIT, init_worker => $INIT_WORKER, @_) }

sub said { WorkerManager::Lua::said(@_) }

subtest '64 workers' => sub {
    my $node = node(workers => 64)->up;
    $node->reload(2);
    my @some = ($node->on_duty(2))[ 0 .. 31 ];
    $node->signal('KILL', @some);
    $node->wait_events('worker_start', 96, 2);
    $node->down;
    my @counts = map { /(\d+) \S+$/ } said($node, '^start 1-');
    is_deeply(\@counts, [ 1 .. 64 ], 'each start sees the count at that moment');
    is_deeply([ map { /(\d+) \d+$/ } said($node, '^exit 1-') ], [ reverse 1 .. 64 ], 'each exit too');
    is(scalar said($node, '^start 2-'), 96, 'the killed have successors');
    is(scalar said($node, '^exit 2-'), 64, 'and do not exit');
    is(scalar said($node, '^master_exit'), 2, 'generations end once');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'interval and failed win over the block' => sub {
    my $node = node(manager => 'interval 1h; failed 1h;', init =>
        'M.on_init_by_lua({ shm = "worker_manager", interval = 0.15, failed = 0.15 })')->up;
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    $node->signal('CONT', $stopped);
    $node->wait_events('worker_recovered', 1);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'lua_code_cache off works' => sub {
    my $http = 'lua_code_cache off; server { listen unix:off.sock; location / { content_by_lua_block {'
        . ' ngx.say(require("resty.worker.manager").counts()) } } }';
    my $node = node(workers => 1);
    $http =~ s{unix:}{unix:$node->{root}/};
    $node->configure(WorkerManager::Lua::configuration(http => $http, init_worker => $INIT_WORKER,
        init => "$INIT M.on('worker_hung', saying('hung'))"));
    $node->up;
    is($node->get_unix('off.sock', '/') =~ s/.*\r\n\r\n//sr, "nil1nil\n", 'a request') for 1 .. 20;
    $node->reload(2);
    is($node->get_unix('off.sock', '/') =~ s/.*\r\n\r\n//sr, "nil1nil\n", 'a request');
    $node->down;
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'start 1- nil 1 nil',
        'master_start 2 1 0 nil', 'start 2- 1 1 nil', 'exit 1- nil 1 1', 'master_exit 1 nil 0 1',
        'exit 2- nil 1 nil', 'master_exit 2 nil 0 nil' ], 'what the requests ran in their VMs is nothing');
    unlike($node->log, qr/\[error\]/, 'without a fault');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the Lua module loaded after this one, and before' => sub {
    my $load = $WorkerManager::Lua::LOAD;
    my $ours = "load_module $WorkerManager::Lua::OBJS/ngx_worker_manager_module.so;";
    for my $order ("$ours $load", "$load $ours") {
        my $node = node(workers => 1, module => undef, load => $order)->up;
        $node->down;
        is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'start 1- nil 1 nil',
            'exit 1- nil 1 nil', 'master_exit 1 nil 0 nil' ], 'works');
        $node->laws_hold('the laws hold', final => 1);
    }
};

subtest 'master_process off' => sub {
    my $node = node(workers => 1, daemon => 0, main => 'master_process off;')->up;
    $node->down;
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'start 1- nil 1 nil', 'exit 1- nil 1 nil',
        'master_exit 1 nil 0 nil' ], 'one process is all');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'master_process off, with a reload' => sub {
    my $node = node(workers => 1, daemon => 0, main => 'master_process off;')->up;
    $node->signal('HUP');
    WorkerManager::Lua::wait_said($node, 5);
    $node->down;
    # nginx runs no init_worker_by_lua for the second.
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'start 1- nil 1 nil',
        'master_start 2 1 0 nil', 'exit 1- nil 1 1', 'master_exit 1 nil 0 1', 'master_exit 2 nil 0 nil' ],
        'the old configuration tells the end of its own');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'on alone, in a worker' => sub {
    my $node = node(workers => 1, init => undef, init_worker => 'M.on("worker_exit", function(id, n_prev,
        n_mine, n_next, event) say(event.event, id, event.worker, event.pid == ngx.worker.pid()) end)')->up;
    $node->down;
    is_deeply([ said($node) ], [ 'worker_exit 1- 0 true' ], 'is told');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'daemon off, and helpers whose VM nginx closes' => sub {
    my $node = node(daemon => 0, http => 'proxy_cache_path cache keys_zone=c:1m;')->up;
    $node->wait_for('a helper', sub { grep { $_->{title} =~ /cache/ } $node->children });
    $node->reload(2);
    $node->down;
    is(scalar said($node, '^start'), 4, 'workers only');
    is(scalar said($node, '^exit'), 4, 'workers only');
    unlike($node->log, qr/signal 11/, 'no crash');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'no call in the worker: it is registered all the same' => sub {
    my $node = node(workers => 1, init_worker => 'say("nothing")')->up;
    $node->down;
    is_deeply([ said($node) ], [ 'master_start 1 nil 0 nil', 'nothing', 'master_exit 1 nil 0 nil' ],
        'masters are told');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a full zone' => sub {
    # Two generations that do not end leave no room for a third.
    my $node = node(workers => 64, manager => 'zone 32k; interval 200ms; failed 60s;', connections => 16,
        init_worker => 'local ok, err = M.on_init_worker_by_lua(saying("start"), function() say("exit of",
            M.generation(), ngx.get_phase()) end) if not ok then say("not", err) end')->start;
    my @stopped;
    for my $generation (1, 2) {
        $node->wait_for('all of them', sub { said($node, "^start $generation-") >= 64 });
        my @workers = map { $_->{pid} } grep { WorkerManager::state_of($_->{pid}) ne 'T' } $node->children;
        $node->signal('STOP', @workers);
        push @stopped, @workers;
        $node->signal('HUP');
    }
    $node->wait_for('one without a place', sub { said($node, '^not') > 0 });
    like((said($node, '^not'))[0], qr/^not this worker could not be registered, see the error log/, 'said');
    like($node->log, qr/no room for another worker, process \d+ serves but is not counted/, 'in the log');
    like($node->get('/'), qr/ok/, 'it serves');
    $node->signal('CONT', @stopped);
    $node->wait_for('all of them', sub { said($node, '^start 3-') >= 64 });
    $node->down;
    is(scalar said($node, '^exit of 3 timer'), 64, 'who is registered later has its exit callback, too');
};

subtest 'without the native module' => sub {
    my $node = node(module => undef, manager => undef);
    my ($status, $output) = $node->nginx;
    isnt($status, 0, 'nginx does not start');
    like($output, qr/init_by_lua error: resty\.worker\.manager needs an nginx module, put "load_module modules\/ngx_worker_manager_module\.so;" at the top of nginx\.conf\n/, 'for this reason');
};

subtest 'the native module without Lua' => sub {
    for my $file ("$WorkerManager::Lua::OBJS/ngx_worker_manager_module.so", $ENV{WORKER_MANAGER_MODULE}) {
        my @undefined = grep { /lua/i } `nm -D --undefined-only '$file'`;
        is("@undefined", '', 'needs no symbol of Lua');
        my @needed = grep { /NEEDED.*lua/i } `readelf -d '$file'`;
        is("@needed", '', 'and no library');
    }
};

subtest 'nginx -t and -s run no Lua' => sub {
    my $node = node(workers => 1)->up;
    my $before = () = said($node);
    is(($node->nginx('-t'))[0], 0, '-t');
    is(($node->nginx('-s', 'reload'))[0], 0, '-s reload');
    WorkerManager::Lua::wait_said($node, $before + 4);
    is(scalar said($node), $before + 4, 'but what the reload brings');
    is(($node->nginx('-s', 'quit'))[0], 0, '-s quit');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
