# Reloads that fail, of each kind, twice in a row: told, counted, and no number is used up.
use Test::Nginx::WorkerManager 'no_plan';

# The old generation serves, and then a reload succeeds.
our $Act = <<'END';
configure broken
reload fails
reload fails
get /
configure
reload
wait master_exit 1
END
our $Timeline = <<'END';
reload_failed(1, nil,2,nil; duration; pid master)
reload_failed(1, nil,2,nil; duration; pid master)
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
    worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)
END

run_tests();

__DATA__

=== TEST 1: syntax
--- main_config_broken
no_such_directive on;
--- act eval: $::Act
--- timeline eval: $::Timeline
--- answers
ok



=== TEST 2: a directive of the block
--- manager_broken
interval never;
--- act eval: $::Act
--- timeline eval: $::Timeline
--- answers
ok



=== TEST 3: http, after the block
--- http_config_broken
server { listen nowhere:99999999; }
--- act eval: $::Act
--- timeline eval: $::Timeline
--- answers
ok



=== TEST 4: init_conf: an unknown user
--- main_config_broken
user nobody-of-that-name;
--- act eval: $::Act
--- timeline eval: $::Timeline
--- answers
ok



=== TEST 5: bind
--- http_config_broken
server { listen 127.0.0.1:$TEST_NGINX_TAKEN_PORT; }
--- act eval: $::Act
--- timeline eval: $::Timeline
--- answers
ok



=== TEST 6: a zone too large to be had
--- http_config_broken
limit_req_zone $uri zone=huge:900000g rate=1r/s;
--- act eval: $::Act
--- timeline eval: $::Timeline
--- answers
ok



=== TEST 7: a first start that fails tells nothing, nor does -t
--- main_config
no_such_directive on;
--- must_die



=== TEST 8: -t and -s are no attempts
--- main_config_broken
no_such_directive on;
--- act
configure broken
nginx -t fails
nginx -s reload fails
--- timeline



=== TEST 9: master_process off: it serves on
--- single_process
--- main_config_broken
no_such_directive on;
--- act
configure broken
reload fails
get /
--- timeline
reload_failed(1, nil,1,nil; duration; pid master)
--- answers
ok



=== TEST 10: a worker dies while the reload fails
Binding is tried for 2.5 seconds, with SIGCHLD blocked in the master.
--- manager
interval 10m;
--- http_config_broken
server { listen 127.0.0.1:$TEST_NGINX_TAKEN_PORT; }
--- act
configure broken
signal HUP
wait for bind() to 127.0.0.1:$TEST_NGINX_TAKEN_PORT failed
kill 9 worker 0
wait worker_lost
wait reload_failed
wait 3 worker_start
--- timeline
worker_lost(1-A, nil,2,nil; signal 9)  reload_failed(1, nil,1,nil)
worker_start(1-C, nil,2,nil; respawn_of A)
