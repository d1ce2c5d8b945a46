# Which of nginx's API each callback has: every cell of the table in doc/lua.md.
use strict;
use warnings;
use Test::More;
use WorkerManager::Lua;

# What is tried. Each is true if it works.
my %TRIED = (
    '`ngx.log`, `ngx.now`, `ngx.worker`' => 'ngx.log(ngx.INFO, "x") return ngx.now() > 0 and ngx.worker.pid() > 0',
    '`ngx.shared`' => 'return ngx.shared.shm:incr("n", 1, 0) > 0',
    '`ngx.re`, `ngx.md5`' => 'return ngx.re.match("abc", "b")[0] == "b" and #ngx.md5("x") == 32',
    'files, FFI' => 'local f = assert(io.open("/dev/null")) f:close() return require("ffi").C ~= nil',
    'this library' => 'return M.generation() ~= nil and M.workers() ~= nil',
    '`ngx.timer.at`' => 'return ngx.timer.at(0, function() end)',
    '`ngx.socket.tcp`, `ngx.sleep`, `ngx.thread`' => 'ngx.sleep(0.001)
        ngx.thread.wait(ngx.thread.spawn(function() end))
        local socket = ngx.socket.tcp()
        local ok = socket:connect("127.0.0.1", PORT)
        socket:close()
        return ok',
    'a coroutine of its own' => 'return coroutine.wrap(function() coroutine.yield(true) end)()',
);
my @TRIED = sort keys %TRIED;

my $server = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1') or die "no server: $!";
my $CODE = 'local PORT = ' . $server->sockport . ' local tried = {';
$CODE .= join ',', map { "function() $TRIED{$_} end" } @TRIED;
$CODE .= <<'END';
    }
    local function trying(name)
        return function()
            local results = {}
            for i = 1, #tried do
                local ok, result = pcall(tried[i])
                results[i] = ok and result and "yes" or "no"
            end
            say("phase", name, ngx.get_phase(), table.concat(results, " "))
        end
    end
END
my $INIT = $CODE . <<'END';
    M.on_init_by_lua({ shm = "shm" }, trying(M.generation() and "master_start_cb_at_a_reload" or
        "master_start_cb_at_a_start"), trying("master_exit_cb"))
    M.on("worker_hung", trying("on"))
END
my $INIT_WORKER = "$CODE M.on_init_worker_by_lua(trying('start_cb'), trying('exit_cb'))";

# What a callback could do when a node did something, by name: its phase, then what was tried.
my %seen;
sub see {
    my ($node, $suffix) = @_;
    for my $said (WorkerManager::Lua::said($node, '^phase')) {
        my ($name, @results) = (split / /, $said)[ 1 .. 2 + @TRIED ];
        $seen{ $name =~ /_exit_cb|^exit_cb/ ? "$name, $suffix" : $name =~ tr/_/ /r =~ s/ cb/_cb/r =~ s/master start/master_start/r =~ s/^start /start_/r } = \@results;
    }
}

my $node = WorkerManager::Lua->new(manager => 'interval 150ms; failed 150ms;', init => $INIT, init_worker => $INIT_WORKER)->up;
my ($stopped) = $node->on_duty;
$node->signal('STOP', $stopped);
$node->wait_events('worker_hung', 1);
$node->signal('CONT', $stopped);
$node->wait_events('worker_recovered', 1);
$node->reload(2);
see($node, 'reload');
$node->down('QUIT');
see($node, 'quit');
$node->laws_hold('the laws hold', final => 1);

my $other = WorkerManager::Lua->new(init => $INIT, init_worker => $INIT_WORKER)->up;
$other->down('TERM');
see($other, 'stop');
$other->laws_hold('the laws hold', final => 1);

# The same before the configuration was read to its end, where there is nothing to see in the log.
is_deeply($seen{"exit_cb, quit"}, $seen{"exit_cb, reload"}, 'a quit is like a reload');
is_deeply($seen{"master_exit_cb, quit"}, $seen{"exit_cb, quit"}, 'to masters, too');
is_deeply($seen{"master_exit_cb, stop"}, $seen{"exit_cb, stop"}, 'a stop is one to masters as to workers');
my @columns = ('master_start_cb at a start', 'master_start_cb at a reload', 'start_cb', 'exit_cb, quit', 'exit_cb, stop', 'on');
ok($seen{$_}, "$_ was called") for @columns;

open my $file, '<', "$WorkerManager::Lua::TOP/doc/lua.md" or die "doc/lua.md: $!";
my %rows = map { chomp; my ($name, @cells) = map { s/^\s+|\s+$//gr } (split /\|/)[ 1 .. 7 ]; (($name // '') => \@cells) }
    grep { /^\|/ } <$file>;
for my $row ('`ngx.get_phase()`', @TRIED) {
    my ($index) = $row =~ /get_phase/ ? -1 : grep { $TRIED[$_] eq $row } 0 .. $#TRIED;
    is_deeply($rows{$row} && [ map { s/`//gr } @{ $rows{$row} } ], [ map { $seen{$_}[ $index + 1 ] } @columns ],
        "doc/lua.md is right about $row");
}

done_testing;
