# The variables of http.
use Test::Nginx::WorkerManager 'no_plan';

our $Http = <<'END';
log_format seen "$worker_manager_id $worker_manager_reloads";
map $worker_manager_generation $age { 1 first; default later; }
END
our $Config = <<'END';
access_log logs/access.log seen;
add_header X-Age $age;
location / {
    return 200 "$worker_manager_generation $worker_manager_id $worker_manager_worker $worker_manager_workers $worker_manager_reloads $pid\n";
}
END

run_tests();

__DATA__

=== TEST 1: a worker, over reloads; one that fails is none
--- workers: 1
--- http_config eval: $::Http
--- config eval: $::Config
--- main_config_broken
no_such_directive on;
--- act
get /
reload
wait master_exit 1
get /
configure broken
reload fails
get /
--- timeline
master_start(2, 1,0,nil)
worker_start(2-B, 1,1,nil)  master_ready(2, 1,1,nil)  worker_draining(1-A, nil,1,1)
    worker_exit(1-A, nil,1,1)  master_exit(1, nil,0,1)
reload_failed(2, nil,1,nil)
--- answers
1 1-<A> 0 1 0 <A>
2 2-<B> 0 1 1 <B>
2 2-<B> 0 1 1 <B>
--- files_like
logs/access.log \A1-<A> 0\n2-<B> 1\n2-<B> 1\n\z



=== TEST 2: in a map and a header
--- workers: 1
--- http_config eval: $::Http
--- config eval: $::Config
--- request
GET /
--- response_headers
X-Age: first



=== TEST 3: the map follows
--- workers: 1
--- http_config eval: $::Http
--- config eval: $::Config
--- act
reload
wait master_exit 1
--- request
GET /
--- response_headers
X-Age: later



=== TEST 4: the running workers of the generation: two hang, one is left
--- workers: 3
--- manager
interval 100ms;
failed 100ms;
--- http_config eval: $::Http
--- config eval: $::Config
--- act
get / until 1 1-\d+ [012] 3 0 \d+
stop worker 0
stop worker 2
wait worker_hung of worker 0
wait worker_hung of worker 2
get / until 1 1-\d+ [012] 1 0 \d+
continue worker 0
continue worker 2
wait worker_recovered of worker 0
wait worker_recovered of worker 2
get / until 1 1-\d+ [012] 3 0 \d+



=== TEST 5: without the block they are there and empty
--- workers: 1
--- without_manager
--- http_config eval: $::Http
--- config eval: $::Config
--- act
get / until \s+\d+
