# Every mistake in the configuration that can be found is, with file and line, and nginx -t finds it.
use Test::Nginx::WorkerManager 'no_plan';

our $Hooks = "$ENV{WORKER_MANAGER_OBJS}/hooks.so";

run_tests();

__DATA__

=== TEST 1: an empty block
--- manager
--- request
GET /
--- response_body
ok
--- no_error_log
[error]
[alert]
[emerg]



=== TEST 2: everything there is
--- manager eval
qq{
zone crew 512k;
interval 1s;
failed 500ms;
exec_timeout 2s;
callback_timeout 5s;
on master_start exec /bin/true up \$id;
on master_exit  exec /bin/true down \$id;
on worker_start log  notice "worker \$id is up: \$n_mine of ours, \${n_prev} old";
on worker_exit  call $::Hooks nothing "any text";
on worker_exit  call $::Hooks nothing;
on worker_lost  log debug "";
on worker_hung  log emerg "never";
on worker_recovered log info "\$5 is no field, nor is \$";
on *            log info "\$event \$id \$n_prev \$n_mine \$n_next \$n_older \$n_left \$stopping \$respawn_of \$history \$generation \$pid \$worker \$seq \$time \$reason \$core";
}
--- request
GET /
--- error_log eval
qr/worker 1-\d+ is up: 1 of ours, - old/
--- no_error_log
[error]
[alert]
[emerg]



=== TEST 3: the zone's size alone, and its name alone
--- manager
zone 64k;
--- request
GET /
--- no_error_log
[error]
[emerg]



=== TEST 4: the block twice
--- main_config
worker_manager { }
worker_manager { }
--- must_die
--- error_log eval
qr/\[emerg\] .*"worker_manager" directive is duplicate in .*nginx.conf:\d+/



=== TEST 5: the block in the wrong place
--- config
worker_manager { }
--- must_die
--- error_log eval
qr/\[emerg\] .*"worker_manager" directive is not allowed here in .*nginx.conf:\d+/



=== TEST 6: an argument too many for the block
--- main_config
worker_manager crew { }
--- must_die
--- error_log eval
qr/invalid number of arguments in "worker_manager" directive in .*nginx.conf:\d+/



=== TEST 7: an unknown directive in the block
--- manager
heartbeat 1s;
--- must_die
--- error_log eval
qr/unknown directive "heartbeat" in .*nginx.conf:\d+/



=== TEST 8: a directive of the block outside it
--- main_config
exec_timeout 1s;
--- must_die
--- error_log eval
qr/"exec_timeout" directive is not allowed here in .*nginx.conf:\d+/



=== TEST 9: an unknown event, with the known ones
--- manager
on worker_born log info "x";
--- must_die
--- error_log eval
qr/"on" directive has the unknown event "worker_born", known are master_start, master_ready, master_exit, master_lost, reload_failed, worker_start, worker_draining, worker_stuck, worker_exit, worker_lost, worker_hung, worker_recovered and \* in .*nginx.conf:\d+/



=== TEST 10: an unknown action
--- manager
on worker_start shout "x";
--- must_die
--- error_log eval
qr/"on" directive has the unknown action "shout", known are log, exec, exec_nowait and call in .*nginx.conf:\d+/



=== TEST 11: too few words
--- manager
on worker_start;
--- must_die
--- error_log eval
qr/invalid number of arguments in "on" directive in .*nginx.conf:\d+/



=== TEST 12: log without text
--- manager
on worker_start log info;
--- must_die
--- error_log eval
qr/"on" directive needs a level and one text after "log" in .*nginx.conf:\d+/



=== TEST 13: log with an unknown level
--- manager
on worker_start log loud "x";
--- must_die
--- error_log eval
qr/"on" directive has the unknown log level "loud", known are emerg, alert, crit, error, warn, notice, info, debug in .*nginx.conf:\d+/



=== TEST 14: log with an unknown field
--- manager
on worker_start log info "x $n_most y";
--- must_die
--- error_log eval
qr/"on" directive has the unknown field "\$n_most", known are \$event, \$id, .*\$core, \$connections, \$duration in .*nginx.conf:\d+/



=== TEST 15: exec with an unknown field
--- manager
on worker_start exec /bin/true "${nope}";
--- must_die
--- error_log eval
qr/"on" directive has the unknown field "\$nope".* in .*nginx.conf:\d+/



=== TEST 16: exec without a program
--- manager
on worker_start exec;
--- must_die
--- error_log eval
qr/"on" directive needs a program after "exec" or "exec_nowait" in .*nginx.conf:\d+/



=== TEST 17: a program that is not there, relative to the prefix
--- manager
on worker_start exec no/such/program;
--- must_die
--- error_log eval
qr{"on" directive names the program "/.*/no/such/program", which can't be run \(2: No such file or directory\) in .*nginx.conf:\d+}



=== TEST 18: a program that is not executable
--- manager
on worker_start exec conf/nginx.conf;
--- must_die
--- error_log eval
qr{"on" directive names the program ".*", which can't be run \(13: Permission denied\) in .*nginx.conf:\d+}



=== TEST 19: a program that is a folder
--- manager
on worker_start exec /tmp;
--- must_die
--- error_log eval
qr{"on" directive names the program "/tmp", which is not a file in .*nginx.conf:\d+}



=== TEST 20: a field in the name of a program
--- manager
on worker_start exec /bin/$event;
--- must_die
--- error_log eval
qr{"on" directive can't have a field in the name of a program, "/bin/\$event" in .*nginx.conf:\d+}



=== TEST 21: a library that is not there
--- manager
on worker_start call /no/such/library.so symbol;
--- must_die
--- error_log eval
qr{"on" directive could not load the library: .*/no/such/library.so.* in .*nginx.conf:\d+}



=== TEST 22: a symbol that is not there
--- manager eval
"on worker_start call $::Hooks no_such_symbol;"
--- must_die
--- error_log eval
qr{"on" directive could not find the symbol: .*no_such_symbol.* in .*nginx.conf:\d+}



=== TEST 23: call without a symbol
--- manager eval
"on worker_start call $::Hooks;"
--- must_die
--- error_log eval
qr{"on" directive needs a library, a symbol and at most one text after "call" in .*nginx.conf:\d+}



=== TEST 24: call with too much text
--- manager eval
"on worker_start call $::Hooks note a b;"
--- must_die
--- error_log eval
qr{"on" directive needs a library, a symbol and at most one text after "call" in .*nginx.conf:\d+}



=== TEST 25: a zone that is too small
--- manager
zone crew 16k;
--- must_die
--- error_log eval
qr{"zone" directive asks for a zone of 16384 bytes, which is too small, at least 32k are needed in .*nginx.conf:\d+}



=== TEST 26: a zone of no size
--- manager
zone crew big;
--- must_die
--- error_log eval
qr{"zone" directive has the invalid size "big", .* in .*nginx.conf:\d+}



=== TEST 27: a zone without name
--- manager
zone "" 64k;
--- must_die
--- error_log eval
qr{"zone" directive has an empty zone name in .*nginx.conf:\d+}



=== TEST 28: a zone twice
--- manager
zone a; zone b;
--- must_die
--- error_log eval
qr{"zone" directive is duplicate in .*nginx.conf:\d+}



=== TEST 29: a zone that another module uses
--- manager
zone shared 1m;
--- http_config
limit_req_zone $binary_remote_addr zone=shared:1m rate=1r/s;
--- must_die
--- error_log eval
qr{the shared memory zone "shared" is already declared for a different use in .*nginx.conf:\d+}



=== TEST 30: an interval of 0
--- manager
interval 0;
--- must_die
--- error_log eval
qr{"interval" directive must be greater than 0 in .*nginx.conf:\d+}



=== TEST 31: an overrun of 0
--- manager
failed 0s;
--- must_die
--- error_log eval
qr{"failed" directive must be greater than 0 in .*nginx.conf:\d+}



=== TEST 32: a timeout of 0
--- manager
exec_timeout 0ms;
--- must_die
--- error_log eval
qr{"exec_timeout" directive must be greater than 0 in .*nginx.conf:\d+}



=== TEST 33: a time that is none
--- manager
interval soon;
--- must_die
--- error_log eval
qr{"interval" directive has the invalid time "soon", .* in .*nginx.conf:\d+}



=== TEST 34: duplicates
--- manager
failed 1s; failed 2s;
--- must_die
--- error_log eval
qr{"failed" directive is duplicate in .*nginx.conf:\d+}



=== TEST 35: duplicates
--- manager
exec_timeout 1s; exec_timeout 1s;
--- must_die
--- error_log eval
qr{"exec_timeout" directive is duplicate in .*nginx.conf:\d+}



=== TEST 36: duplicates
--- manager
draining_warn 1s; draining_warn 1s;
--- must_die
--- error_log eval
qr{"draining_warn" directive is duplicate in .*nginx.conf:\d+}



=== TEST 37: duplicates
--- manager
event_log logs/a; event_log logs/b;
--- must_die
--- error_log eval
qr{"event_log" directive is duplicate in .*nginx.conf:\d+}



=== TEST 38: an event log in an unknown format
--- manager
event_log logs/a xml;
--- must_die
--- error_log eval
qr{"event_log" directive has the unknown format "xml", known are json and text in .*nginx.conf:\d+}



=== TEST 39: an event log without a name
--- manager
event_log "";
--- must_die
--- error_log eval
qr{"event_log" directive has an empty name of a file in .*nginx.conf:\d+}



=== TEST 40: an event log in a folder that is not there
--- manager
event_log nowhere/a;
--- must_die
--- error_log eval
qr{open\(\) ".*nowhere/a" failed}



=== TEST 41: text that is not UTF-8
--- manager eval
"on worker_start log info \"\xff\";"
--- must_die
--- error_log eval
qr{"on" directive is not valid UTF-8 in .*nginx.conf:\d+}


=== TEST 42: a timeout of callbacks of 0
--- manager
callback_timeout 0;
--- must_die
--- error_log eval
qr{"callback_timeout" directive must be greater than 0 in .*nginx.conf:\d+}



=== TEST 43: a timeout of callbacks that is no time
--- manager
callback_timeout soon;
--- must_die
--- error_log eval
qr{"callback_timeout" directive .*"soon".* in .*nginx.conf:\d+}
