# The module is loaded by Test::Nginx as a user would, and is in nobody's way.
use strict;
use warnings;
use WorkerManager::Scratch qw(test_nginx);
use Test::Nginx::Socket 'no_plan';

# auto/prove names it; a run by hand may not.
$ENV{TEST_NGINX_LOAD_MODULES} ||= $ENV{WORKER_MANAGER_MODULE};

no_shuffle();
run_tests();

__DATA__

=== TEST 1: with a block, requests are served
--- main_config
worker_manager { }
--- config
location = /t { return 200 "served\n"; }
--- request
GET /t
--- response_body
served
--- no_error_log
[error]
[alert]
[emerg]



=== TEST 2: without a block, the module does nothing
--- config
location = /t { return 200 "served\n"; }
--- request
GET /t
--- response_body
served
--- no_error_log
worker_manager
[error]
[alert]
[emerg]



=== TEST 3: a block and its events
--- main_config
worker_manager {
    on worker_start log notice "up: $event $n_mine";
}
--- config
location = /t { return 200 "served\n"; }
--- request
GET /t
--- response_body
served
--- error_log
up: worker_start 1
--- no_error_log
[error]
[alert]
[emerg]
