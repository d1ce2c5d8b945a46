package Bench::Lua;

# What a worker's start costs with Lua callbacks, beside the same nginx and Lua module that call the same
# functions without resty.worker.manager. With ORIGINAL=folder the library of that name that is there
# is measured in the same way; it needs Lua's cjson.
#
# It is the CPU time that a worker spends in on_init_worker_by_lua and in the module's own init_process,
# less what it spends in the same places where both are missing; what else the Lua module does at a
# start takes some hundred times as long. A little Lua code has run in the worker before. The kinds take
# turns, each time another first. Of a start the median of its workers counts, of the turns the median
# of their differences.

use strict;
use warnings;

use Bench;
use File::Path qw(make_path);

my $dir = "$top/build/bench-lua";
my $objs = "$top/objs/lua";

sub run {
    make_path("$dir/logs");
    my $source = "$top/build/debian/src";
    Bench::build_marks($source, "$source/objs", $dir);
    my @kinds = ('', 'library', $ENV{ORIGINAL} ? 'original' : ());
    my %cost;
    for my $workers (64, 512) {
        my %took;
        start_with_lua($workers, $_) for @kinds;
        for my $turn (1 .. $turns) {
            push @kinds, shift @kinds;
            push @{ $took{$_} }, start_with_lua($workers, $_) for @kinds;
        }
        for my $kind (grep { $_ } sort @kinds) {
            my $cost = median(map { $took{$kind}[$_] - $took{''}[$_] } 0 .. $turns - 1);
            $cost{$kind}{$workers} = $cost;
            my $name = $kind eq 'library' ? 'CPU per worker for Lua' : 'the same of the original';
            row("$name, $workers workers", '-', sprintf('%.1f us', $cost), '-',
                $kind eq 'library' ? '<= 60 us' : '', $cost <= 60);
        }
    }
    my $growth = $cost{library}{512} / $cost{library}{64};
    row('  512 workers compared with 64', '-', '-', sprintf('%.2f', $growth), '<= 1.5', $growth <= 1.5);
}

# `with` is nothing, `library`, or `original`.
sub configure_lua {
    my ($workers, $with) = @_;
    my @modules = map { "$objs/$_.so" } qw(ndk_http_module ngx_http_lua_module);
    push @modules, "$dir/before.so";
    push @modules, "$objs/ngx_worker_manager_module.so" if $with eq 'library';
    my $load = join "\n", map { "load_module $_;" } @modules, "$dir/after.so";
    my $block = $with eq 'library' ? 'worker_manager { }' : '';
    my $path = $with eq 'original' ? "$ENV{ORIGINAL}/lib/?.lua;$ENV{ORIGINAL}/?.lua" : "$top/lua/?.lua";
    my $dict = $with eq 'original' ? 'lua_shared_dict worker_manager 1m;' : '';
    my $temporary = join ' ', map { "${_}_temp_path temp_$_;" } qw(client_body proxy fastcgi uwsgi scgi);
    my ($init, $init_worker) = $with
        ? ('manager = require "resty.worker.manager"
            manager.on_init_by_lua({ shm = "worker_manager" }, master_start, master_exit)',
           'manager.on_init_worker_by_lua(start, exit)')
        : ('', 'start("1-" .. ngx.worker.pid(), nil, 1, nil)');
    open my $file, '>', "$dir/nginx.conf" or die $!;
    print $file <<"END";
$load
daemon off;
worker_processes $workers;
error_log logs/error.log error;
pid logs/nginx.pid;
$block
events { worker_connections 64; }
http {
    access_log off;
    $temporary
    lua_package_path "$path;$objs/share/?.lua;;";
    $dict
    init_by_lua_block {
        local ffi = require "ffi"
        ffi.cdef "typedef struct { long s, ns; } mark_time_t; int clock_gettime(int clock, mark_time_t *time);"
        local time = ffi.new "mark_time_t"
        function cpu()
            ffi.C.clock_gettime(2, time)  -- CLOCK_PROCESS_CPUTIME_ID
            return tonumber(time.s) * 1e9 + tonumber(time.ns)
        end
        cpu()
        local called = 0
        function master_start(id, n_prev, n_mine, n_next) called = called + 1 end
        function master_exit(id, n_prev, n_mine, n_next) called = called + 1 end
        function start(id, n_prev, n_mine, n_next) called = called + n_mine end
        function exit(id, n_prev, n_mine, n_next) called = called + n_mine end
        $init
        -- All workers begin with the same heap: a step of the collector would fall into the measured part
        -- of all of them, or of none.
        collectgarbage()
    }
    init_worker_by_lua_block {
        -- What any code would be the first to touch in a process that has just been forked.
        for i = 1, 10 do
            pcall(function() return { "worker " .. i .. " of " .. ngx.worker.pid() } end)
            cpu()
        end
        local from = cpu()
        $init_worker
        local took = cpu() - from
        local file = io.open("$dir/lua.marks", "a")
        file:write(string.format("%d\\n", took))
        file:close()
    }
}
END
    close $file;
}

# One start; the CPU time of a worker, microseconds.
sub start_with_lua {
    my ($workers, $with) = @_;
    configure_lua($workers, $with);
    for my $name (qw(before after lua)) {
        open my $file, '>', "$dir/$name.marks" or die $!;
        chmod 0666, "$dir/$name.marks";
    }
    my $pid = Bench::start("$objs/nginx", $dir);
    wait_until(sub { -s "$dir/after.marks" >= 16 * $workers });
    stop($pid);
    open my $file, '<', "$dir/lua.marks" or die $!;
    return median(map { $_ / 1000 } <$file>) + median(cpu_at('after')) - median(cpu_at('before'));
}

# CPU time so far at a mark, of each worker, microseconds.
sub cpu_at {
    my ($name) = @_;
    return map { $_->[1] / 1000 } Bench::marks("../bench-lua/$name");
}

1;
