package WorkerManager::Lua;

# A node with nginx's Lua module and the Lua library, on what auto/lua or auto/matrix has put into a
# folder.

use strict;
use warnings;

use Cwd ();
use WorkerManager;

our $OBJS = $ENV{WORKER_MANAGER_LUA} || "$ENV{WORKER_MANAGER_OBJS}/lua";
our $TOP = Cwd::abs_path("$ENV{WORKER_MANAGER_OBJS}/..");

# What is needed in front of nginx.conf, and in http.
our $LOAD = join ' ', map { "load_module $OBJS/$_.so;" } qw(ndk_http_module ngx_http_lua_module);
our $PATH = qq{lua_package_path "$TOP/lua/?.lua;$OBJS/share/?.lua;;";\n};

# new(init => 'Lua code', init_worker => 'Lua code', ...): a WorkerManager with other defaults. `M` is
# the library in the code, say(...) writes a line that said() finds.
#
# A dictionary there is unless `dict` is 0: with one, nginx's Lua module runs init_by_lua once the error log
# is open, and without one before, so that at a start what it logs goes to the log that nginx was
# built with.
sub new {
    my ($class, %options) = @_;
    my $self = WorkerManager->new(
        binary => "$OBJS/nginx",
        module => "$OBJS/ngx_worker_manager_module.so",
        %options{ grep { !/^(?:init|init_worker|http|main|load|dict)$/ } keys %options },
        configuration(%options),
    );
    return $self;
}

# What to give to `configure` for other Lua code.
sub configuration {
    my (%options) = @_;
    my %blocks = map { defined $options{$_} ? ($_ => $options{$_}) : () } qw(init init_worker);
    my $http = $PATH . ($options{dict} // 1 ? 'lua_shared_dict shm 64k; ' : '') . ($options{http} // '');
    $http .= "${_}_by_lua_block {\n$PRELUDE::CODE\n$blocks{$_}\n}\n" for sort keys %blocks;
    return (main => ($options{load} // $LOAD) . ($options{main} // ''), http => $http);
}

{
    package PRELUDE;
    our $CODE = <<'END';
local M = require "resty.worker.manager"
local function say(...)
    local words = { ... }
    for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
    ngx.log(ngx.NOTICE, "LUA ", table.concat(words, " "), " .")
end
-- A callback that says its name and arguments.
local function saying(name)
    return function(...) say(name, ...) end
end
END
}

# What Lua code has said, in the order of the log; process numbers in ids left out.
sub said {
    my ($node, $pattern) = @_;
    my @said = map { s/ (\d+)-\d+(?= |$)/ $1-/r } $node->log =~ / LUA (.*?) \./g;
    return grep { !defined $pattern || /$pattern/ } @said;
}

# Waits until Lua code has said so many things. What the error log says of an event comes before what
# Lua code says of it.
sub wait_said {
    my ($node, $number, $pattern) = @_;
    return $node->wait_for("$number of Lua's lines", sub { said($node, $pattern) >= $number });
}

1;
