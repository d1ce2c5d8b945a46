# worker_manager_status: what it says, and to whom.
use strict;
use warnings;
use JSON::PP ();
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use WorkerManager;
use WorkerManager::Status;

subtest 'one moment, whatever happens meanwhile' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 8, manager => 'interval 200ms; failed 2s;');
    $node->up;
    my @seen;
    for my $round (1 .. 12) {
        my @victims = ($node->on_duty)[ 0, 1 ];
        $node->signal('KILL', @victims);
        # Two of eight can't answer; the connection that they had is nobody's.
        push @seen, grep { $_ } map { eval { $status->json } } 1 .. 6;
        $node->signal('HUP') if $round % 4 == 0;
    }
    $node->wait_for('all to be told', sub { my $is = $status->json;
        $is && @{ $is->{generations} } == 1 && @{ $is->{workers} } == 8 });
    ok(@seen > 20, scalar(@seen) . ' answers');
    my @events = $node->events;
    my @wrong;
    for my $is (@seen) {
        my (%on_duty, %generations);
        for my $event (grep { $_->{seq} <= $is->{node}{seq} } @events) {
            my $kind = $event->{event};
            $generations{ $event->{gen} } = 1 if $kind eq 'master_start';
            delete $generations{ $event->{gen} } if $kind eq 'master_exit';
            $on_duty{ $event->{id} } = 1 if $kind eq 'worker_start';
            delete $on_duty{ $event->{id} } if $kind =~ /^worker_(?:exit|lost)$/;
        }
        my $expected = join ' ', sort(keys %on_duty), sort keys %generations;
        my $told = join ' ', sort(map { $_->{id} } @{ $is->{workers} }),
            sort map { $_->{generation} } @{ $is->{generations} };
        push @wrong, "at $is->{node}{seq}: $told instead of $expected" if $told ne $expected;
    }
    is_deeply(\@wrong, [], 'each is what the events up to it make');
    $node->down;
    $node->laws_hold('the laws hold', final => 1, gaps => 1);
};

subtest 'a callback that runs is shown and holds up no answer' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2);
    my $hook = $node->write('out/hook', <<"END", 0755);
#!/bin/sh
: > $node->{root}/out/begun
while [ -e $node->{root}/out/hold ]; do :; done
exit 3
END
    $node->configure(manager => "on worker_exit exec $hook;");
    $node->up;
    $node->write('out/hold', '');
    my $exiting = ($node->on_duty)[0];
    $node->signal('TERM', $exiting);
    $node->wait_for('the hook', sub { -e $node->path('out/begun') });
    my $is = $status->json;
    is($is->{lock}{holder}, $exiting, 'who holds the lock');
    is($is->{lock}{callback}{event}, 'worker_exit', 'for which event');
    is($is->{lock}{callback}{id}, "1-$exiting", 'of whom');
    is($is->{lock}{callback}{number}, 1, 'the first of three callbacks');
    WorkerManager::Status::is_valid('as in the schema', 'status', $status->ask('/workers')->{content});
    like($status->ask('/workers/metrics')->{content},
        qr/^nginx_worker_manager_callback_running_seconds [\d.]+$/m, 'the metrics say since when');
    unlink $node->path('out/hold');
    $node->wait_events('worker_start', 3);
    $is = $status->json;
    is($is->{callbacks}{worker_exit}{failures}, 1, 'it failed');
    is($is->{callbacks}{worker_exit}{runs}, 3, 'of three');
    ok($is->{callbacks}{worker_exit}{time} > 0, 'and took its time');
    $node->down;
};

subtest 'requests for events as lines, and for the page' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 1);
    $node->up;
    my $ask = sub { my ($path, $accept) = @_; $status->ask($path, headers => { Accept => $accept }) };
    my @nonces = map { $ask->('/workers', 'text/html')->{headers}{'content-security-policy'} =~ /'nonce-(\w+)'/ } 1, 2;
    isnt($nonces[0], $nonces[1], 'the scripts of a page have a nonce of its own');
    my $lines = $ask->('/workers/events', 'application/x-ndjson');
    WorkerManager::Status::is_valid('as in the schema', 'event', split /\n/, $lines->{content});
    my ($gap, @all) = split /\n/, $ask->('/workers/events?after=18446744073709551615', 'application/x-ndjson')->{content};
    WorkerManager::Status::is_valid('after one that never was, a gap', 'missed', $gap);
    is(scalar(@all), 3, 'and all there is');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

run_tests();

__DATA__

=== TEST 1: the status says what is
--- manager
interval 100ms;
--- act
GET /workers 200 ^content-type: application/json$
GET /workers 200 ^cache-control: no-store$
status node.master = <the master>
status node.generation = 1
status node.reload_token = "1.0"
status workers.number = 2
status workers.0.pid = <worker 0>
status workers.0.worker = 0
status workers.1.pid = <worker 1>
status workers.1.worker = 1
status generations.0.workers = {"draining":0,"hung":0,"running":2,"stuck":0}
status generations.0.state = "ready"
status node.seq = events.last.seq
status losses.total = 0
status losses.recent = 0
status callbacks.worker_start.runs = 4
status lock.holder = null
status lock.callback = null
status workers.0.connections != null
status workers.1.connections != null



=== TEST 2: a reload, and a connection that keeps an old worker
--- manager
interval 100ms;
--- act
hold a connection
reload
wait 1 worker_exit 1
status workers.2.state = "draining"
status workers.2.connections.active > 0
status workers.2.pid = <held>
status workers.2.draining_since > 1000000000
status generations.number = 2
status generations.0.generation = 2
status generations.0.state = "ready"
status generations.0.age = "current"
status generations.1.generation = 1
status generations.1.state = "retired"
status generations.1.age = "previous"
status node.reloads.succeeded = 1
status node.reloads.failed = 0
status node.reloads.last = "succeeded"



=== TEST 3: a death
--- manager
interval 100ms;
--- act
kill 9 worker 0
wait 3 worker_start
status workers.0.pid = <worker 0>
status workers.0.respawns = 1
status losses.total = 1
status losses.recent = 1
status losses.since <= events.0.time



=== TEST 4: a worker that hangs
--- manager
interval 100ms;
failed 500ms;
--- act
stop worker 0
wait worker_hung of worker 0
status workers.0.state = "hung"
continue worker 0
wait worker_recovered of worker 0
status workers.0.state = "running"



=== TEST 5: a reload that fails
--- main_config_broken
no_such_directive on;
--- act
reload
wait master_exit 1
configure broken
reload fails
status node.reloads.succeeded = 1
status node.reloads.failed = 1
status node.reloads.last = "failed"
status node.reload_token = "2.1"
status node.loading_since = null



=== TEST 6: what is there and what is not
--- workers: 1
--- config
location /workers { worker_manager_status; }
location ~ ^/regex/ { worker_manager_status; }
location = /exact { worker_manager_status; }
location /closed { worker_manager_status; deny all; }
location /moved { rewrite ^ /workers/metrics; }
--- act
GET /workers 200
GET /workers/ 200
GET /workers? 200
GET /workers/metrics 200
GET /regex/a/metrics 200
GET /exact 200
GET /moved 200
GET /workers/wait?after=0 200
GET /workersandmore 404 "error"
GET /workers/other 404 "error"
GET /workers/metrics/ 404 "error"
GET /closed/metrics 403
HEAD /workers 200 \n\n\z
HEAD /workers/metrics 200 \n\n\z
HEAD /workers/events 200 \n\n\z
POST /workers 405 ^allow: GET, HEAD$
PUT /workers 405 ^allow: GET, HEAD$
DELETE /workers 405 ^allow: GET, HEAD$
OPTIONS /workers 405 ^allow: GET, HEAD$
--- no_error_log
[alert]
[crit]
[emerg]



=== TEST 7: requests that are wrong are told why
--- workers: 1
--- config
location /workers { worker_manager_status; }
location = /exact { worker_manager_status; }
--- act
GET /workers/wait 400 "error":.*after is missing
GET /workers/wait?after=x"y 400 "error":.*after is \\"x\\"y\\"
GET /workers/wait?after=1&until=x 400 "error":.*ready or done
GET /workers/wait?after=1&timeout=2d 400 "error":.*30s
GET /workers/events?after=-1 400 "error":.*number
GET /workers?format=json 400 "error":"\\"format\\" is not an argument here
GET /workers/?format=json 400 "error":"\\"format\\" is not an argument here
GET /workers/metrics?format=json 400 "error":"\\"format\\" is not an argument here
GET /workers/events?format=json 400 "error":"\\"format\\" is not an argument here
GET /workers/wait?format=json 400 "error":"\\"format\\" is not an argument here
GET /exact?format=json 400 "error":"\\"format\\" is not an argument here
GET /workers/events [Last-Event-ID: x] 400 "error"
--- no_error_log
[alert]
[crit]
[emerg]
worker_manager:



=== TEST 8: a browser gets the page, whose scripts it may run, and all of them
--- workers: 1
--- act
GET /workers [Accept: text/html,application/xhtml+xml,*/*;q=0.8] 200 ^content-type: text/html; charset=utf-8$
GET /workers [Accept: text/html,application/xhtml+xml,*/*;q=0.8] 200 script-src 'nonce-(\w+)'.*<script nonce="\1">
GET /workers [Accept: text/html,application/xhtml+xml,*/*;q=0.8] 200 not \@NONCE\@



=== TEST 9: events as lines
--- workers: 1
--- act
GET /workers/events [Accept: application/x-ndjson] 200 ^content-type: application/x-ndjson$
GET /workers/events [Accept: application/x-ndjson] 200 \n\n(?:\{[^\n]*\}\n){3}\z
GET /workers/events?after=3 [Accept: application/x-ndjson] 200 \n\n\z



=== TEST 10: metrics, in the text format and as OpenMetrics, which has an end
--- main_config_broken
no_such_directive on;
--- act
kill SEGV worker 0
wait 3 worker_start
reload
wait master_exit 1
configure broken
reload fails
GET /workers/metrics 200 ^content-type: text/plain; version=0\.0\.4
GET /workers/metrics 200 ^nginx_worker_manager_generation 2\.0$
GET /workers/metrics 200 ^nginx_worker_manager_workers\{generation="current",state="running"\} 2$
GET /workers/metrics 200 ^nginx_worker_manager_worker_starts_total 5$
GET /workers/metrics 200 ^nginx_worker_manager_worker_exits_total 2$
GET /workers/metrics 200 ^nginx_worker_manager_worker_losses_total\{reason="signal 11"\} 1$
GET /workers/metrics 200 ^nginx_worker_manager_worker_respawns_total 1$
GET /workers/metrics 200 ^nginx_worker_manager_reloads_total\{result="success"\} 1$
GET /workers/metrics 200 ^nginx_worker_manager_reloads_total\{result="failure"\} 1$
GET /workers/metrics 200 ^nginx_worker_manager_config_last_reload_successful 0\.0$
GET /workers/metrics 200 ^nginx_worker_manager_callback_duration_seconds_count\{event="worker_start"\} 10$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^content-type: application/openmetrics-text; version=1\.0\.0.*\n# EOF\n\z
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_generation 2\.0$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_workers\{generation="current",state="running"\} 2$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_worker_starts_total 5$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_worker_exits_total 2$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_worker_losses_total\{reason="signal 11"\} 1$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_worker_respawns_total 1$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_reloads_total\{result="success"\} 1$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_reloads_total\{result="failure"\} 1$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_config_last_reload_successful 0\.0$
GET /workers/metrics [Accept: application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5] 200 ^nginx_worker_manager_callback_duration_seconds_count\{event="worker_start"\} 10$



=== TEST 11: the status needs the block
--- without_manager
--- config
location /workers { worker_manager_status; }
--- must_die
--- error_log eval
qr/"worker_manager_status" directive needs a "worker_manager" block in \N+nginx\.conf:\d+$/m



=== TEST 12: the directive twice
--- config
location /workers { worker_manager_status; worker_manager_status; }
--- must_die
--- error_log eval
qr/is duplicate\N+nginx\.conf:\d+$/m



=== TEST 13: the directive in the wrong place
--- config
worker_manager_status;
--- must_die
--- error_log eval
qr/is not allowed here\N+nginx\.conf:\d+$/m



=== TEST 14: an argument
--- config
location /workers { worker_manager_status on; }
--- must_die
--- error_log eval
qr/invalid number of arguments\N+nginx\.conf:\d+$/m
