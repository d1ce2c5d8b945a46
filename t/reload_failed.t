# Reloads that fail, of each kind, twice in a row: told, counted, and no number is used up.
use strict;
use warnings;
use Test::More;
use WorkerManager;

my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
my $port = $taken->sockport;

my %broken = (
    'syntax'                      => { main => 'no_such_directive on;' },
    'a directive of the block'    => { manager => 'interval never;' },
    'http, after the block'       => { http => 'server { listen nowhere:99999999; }' },
    'init_conf: an unknown user'  => { main => 'user nobody-of-that-name;' },
    'bind'                        => { http => "server { listen 127.0.0.1:$port; }" },
    'a zone too large to be had'  => { http => 'limit_req_zone $uri zone=huge:900000g rate=1r/s;' },
);

for my $kind (sort keys %broken) {
    subtest $kind => sub {
        my $node = WorkerManager->new->up;
        my %good = map { $_ => $node->{$_} } qw(main http manager);
        $node->configure(%{ $broken{$kind} });
        for my $times (1, 2) {
            $node->signal('HUP');
            $node->wait_events('reload_failed', $times);
        }
        my @failed = $node->kinds('reload_failed');
        is_deeply([ WorkerManager::told(@failed) ], [ ('reload_failed(1, -,2,-)') x 2 ], 'told');
        is($failed[0]{pid}, $node->master, 'by the master');
        like($failed[0]{duration}, qr/^\d+\.\d{3}$/, 'how long the attempt took');
        like($node->get('/'), qr/ok/, 'the old generation serves');
        $node->configure(%good);
        $node->reload(2);
        is(scalar $node->kinds('reload_failed'), 2, 'the good one did not fail');
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    };
}

subtest 'a first start that fails tells nothing, nor do -t and -s' => sub {
    my $node = WorkerManager->new(main => 'no_such_directive on;');
    isnt(($node->nginx)[0], 0, 'it does not start');
    isnt(($node->nginx('-t'))[0], 0, '-t');
    unlike($node->log, qr/EV1/, 'nothing');
    $node->configure(main => '');
    $node->up;
    $node->configure(main => 'no_such_directive on;');
    isnt(($node->nginx('-t'))[0], 0, '-t');
    isnt(($node->nginx('-s', 'reload'))[0], 0, '-s');
    is(scalar $node->kinds('reload_failed'), 0, 'neither is an attempt');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'master_process off' => sub {
    my $node = WorkerManager->new(workers => 1, daemon => 0, main => 'master_process off;')->up;
    $node->configure(main => 'master_process off; no_such_directive on;');
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    like($node->get('/'), qr/ok/, 'it serves on');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker dies while the reload fails' => sub {
    my $node = WorkerManager->new(manager => 'interval 10m;')->up;
    # Binding is tried for 2.5 seconds, with SIGCHLD blocked in the master.
    $node->configure(http => "server { listen 127.0.0.1:$port; }");
    $node->signal('HUP');
    $node->wait_for('the attempt', sub { $node->log =~ /bind\(\) to 127.0.0.1:$port failed/ });
    my ($victim) = $node->on_duty;
    $node->signal('KILL', $victim);
    $node->wait_events('worker_lost', 1);
    $node->wait_events('reload_failed', 1);
    is(($node->kinds('worker_lost'))[0]{reason}, 'signal 9', 'with its cause');
    $node->wait_events('worker_start', 3);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
