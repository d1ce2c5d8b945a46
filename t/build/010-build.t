# What was built in each way loads and works, and what was built for another nginx is refused.
use strict;
use warnings;
use Cwd ();
use File::Path ();
use Test::More;
use WorkerManager;

plan skip_all => 'these builds are not for sanitizers' if $ENV{WORKER_MANAGER_REPORTS};

my $objs = $ENV{WORKER_MANAGER_OBJS};

# Every function that the headers declare.
my @declared = do {
    local @ARGV = map { "$objs/../nginx/$_" } qw(ngx_worker_manager.h ngx_worker_manager_lua.h);
    my %declared = map { $_ => 1 } grep { !/_pt$/ } map { /\b(ngx_worker_manager_\w+)\(/g } <>;
    sort keys %declared;
};
cmp_ok(scalar @declared, '>', 10, 'the headers declare functions');

sub exported {
    my ($file) = @_;
    return map { (split)[2] => 1 } grep { / [TD] / } `nm -D --defined-only '$file'`;
}

sub works {
    my ($name, %options) = @_;
    subtest $name => sub {
        my $node = WorkerManager->new(%options);
        $node->write('hook', "#!/bin/sh\necho ran\n", 0755);
        $node->configure(manager => "$options{manager} on worker_exit exec hook;");
        $node->up;
        like($node->get('/'), qr/ok/, 'it serves');
        $node->reload(2);
        $node->signal('KILL', ($node->on_duty)[0]);
        $node->wait_events('worker_start', 3, 2);
        $node->down;
        like($node->log, qr/hook: ran\n/, 'it runs programs');
        my $helper = ($options{module} // $options{binary}) =~ s{[^/]*$}{ngx_worker_manager_exec}r;
        ok(-x $helper, 'by the executable beside it');
        $node->laws_hold('the laws hold', final => 1);
        my %exported = exported($options{module} // $options{binary});
        ok($exported{$_}, "other modules find $_") for @declared;
    };
}

sub is_refused {
    my ($name, $message, %options) = @_;
    subtest $name => sub {
        my $node = WorkerManager->new(%options);
        my ($status, $output) = $node->nginx('-t');
        is($status, 256, 'nginx -t exits with 1, by itself');
        like($output, $message, 'with its own message');
    };
}

# Time enough for a successor to come before a heartbeat, which knows no cause.
my $quick = 'interval 200ms; failed 1s;';
works('make build', manager => $quick, module => "$objs/ngx_worker_manager_module.so");
works('--add-dynamic-module', manager => $quick, binary => "$objs/dynamic/nginx",
    module => "$objs/dynamic/ngx_worker_manager_module.so");
works('--add-module', manager => $quick, binary => "$objs/static/nginx", module => undef);
works("Debian's nginx", manager => $quick, binary => "$objs/debian/nginx",
    module => "$objs/debian/ngx_worker_manager_module.so")
    if -e "$objs/debian/nginx";

# nginx's own `make install` leaves it where the module, or nginx, goes.
for my $kind ([ dynamic => 'modules' ], [ static => 'sbin' ]) {
    my ($name, $folder) = @$kind;
    subtest "make install, $name" => sub {
        my $tree = "$objs/../build/$name";
        plan skip_all => "no $tree" unless -d $tree;
        my $root = Cwd::getcwd() . "/build/install-$name";
        File::Path::remove_tree($root);
        my $output = `make -C '$tree' install DESTDIR='$root' 2>&1`;
        is($?, 0, 'it succeeds') or diag $output;
        my ($helper) = glob "$root/usr/local/nginx/$folder/ngx_worker_manager_exec";
        ok($helper && -x $helper, "in $folder");
        File::Path::remove_tree($root);
    };
}

is_refused('another version', qr/version \d+ instead of \d+ in/,
    binary => "$objs/debian/nginx", module => "$objs/ngx_worker_manager_module.so")
    if -e "$objs/debian/nginx";
is_refused('the same version, configured otherwise', qr/is not binary compatible in/,
    binary => "$objs/other/nginx", module => "$objs/ngx_worker_manager_module.so");
is_refused('the same version and signature, patched', qr/built with headers that differ/,
    binary => "$objs/patched/nginx", module => "$objs/ngx_worker_manager_module.so");

for my $method ('poll', 'select') {
    subtest "an nginx that uses $method, not epoll" => sub {
        my $node = WorkerManager->new(workers => 2, manager => $quick, events => "use $method;",
            binary => "$objs/dynamic/nginx", module => "$objs/dynamic/ngx_worker_manager_module.so");
        $node->up;
        $node->signal('KILL', ($node->on_duty)[0]);
        $node->wait_events('worker_start', 3);
        is(($node->kinds('worker_lost'))[0]{reason}, 'signal 9', 'the successor knows the cause');
        my $held = $node->hold_connection(1);
        my ($draining) = map { $_->{pid} } $node->held;
        $node->reload_ready(2);
        $node->wait_events('worker_draining', 2, 1);
        $node->signal('KILL', $draining);
        $node->wait_events('worker_lost', 2);
        my @workers = $node->on_duty;
        $node->signal('KILL');
        $node->wait_events('master_lost', 1);
        $node->signal('QUIT', @workers);
        $node->wait_events('master_exit', 1, 2);
        unlike($node->log, qr/open socket/, 'nginx finds nothing left open');
        $node->laws_hold('the laws hold', final => 1);
    };
}

done_testing;
