# The zone: full, kept, changed, removed.
use strict;
use warnings;
use Test::Nginx::WorkerManager 'no_plan';
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;
use WorkerManager::Status;

# Addresses of 64 bits. After Test::Nginx, which turns all warnings on.
no warnings 'portable';

# What a roster begins with, see crates/roster/src/layout.rs.
my $MAGIC = 'ngxrostr';

subtest 'a zone too small for two generations is refused' => sub {
    my $node = WorkerManager->new(workers => 200, manager => 'zone crew 32k;');
    my ($status, $output) = $node->nginx('-t');
    isnt($status, 0, 'nginx -t refuses it');
    my ($holds, $enough) = $output =~ m{\[emerg\] zone "crew" is too small for 200 workers: 32k holds (\d+), at least (\d+)k is needed for 2 generations in \S+nginx.conf:\d+\n};
    ok($enough, 'and says what is enough') or diag $output;
    cmp_ok($holds, '<', 400, 'which this is not');

    $node->configure(manager => 'zone crew ' . ($enough - 4) . 'k;');
    ($status, $output) = $node->nginx('-t');
    like($output, qr/at least ${enough}k is needed/, 'nor is a page less');
    $node->configure(manager => "zone crew ${enough}k;");
    ($status, $output) = $node->nginx('-t');
    is($status, 0, 'it is enough') or diag $output;

    # What 32k holds is what it says.
    my $half = int($holds / 2);
    $node->configure(workers => $half, manager => 'zone crew 32k;');
    ($status, $output) = $node->nginx('-t');
    is($status, 0, 'half as many as there is room for') or diag $output;
    $node->configure(workers => $half + 1);
    ($status, $output) = $node->nginx('-t');
    isnt($status, 0, 'and not one more');
};

subtest 'a reload with too many workers fails; a stop does not' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2, manager => 'zone 32k;');
    $node->up;
    $node->configure(workers => 200);
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    like($node->log, qr/zone "worker_manager" is too small for 200 workers/, 'it says why');
    is($status->json->{zone}{workers}{total}, ($node->log =~ /32k holds (\d+),/)[0], 'and the truth');
    my ($rc, $output) = $node->nginx('-s', 'stop');
    is($rc, 0, 'nginx -s stop') or diag $output;
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'workers that find no room serve, and are counted as soon as there is some' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2,
        manager => 'zone 32k; interval 500ms; failed 60s;');
    $node->up;
    my $uncounted = sub { $status->json->{zone}{uncounted} };
    is($uncounted->(), 0, 'all are counted to begin with');
    my $half = int($status->json->{zone}{workers}{total} / 2);
    # Two generations that do not end fill the zone, but for an odd place.
    my @stopped;
    for my $generation (2, 3) {
        $node->configure(workers => $half);
        $node->signal('HUP');
        $node->wait_events('master_ready', 1, $generation);
        $node->wait_events('master_exit', 1, 1);
        my @workers = $node->on_duty($generation);
        is(scalar @workers, $half, "generation $generation has all its workers");
        $node->signal('STOP', @workers);
        push @stopped, \@workers;
    }
    $node->configure(workers => 4);
    $node->signal('HUP');
    my $room = $status->json->{zone}{workers}{total} - 2 * $half;
    my $serve = sub { my @c = grep { (WorkerManager::state_of($_->{pid}) // 'T') ne 'T' } $node->children; @c == 4 };
    $node->wait_for('workers that serve', $serve);
    $node->wait_for('word of it', sub {
        my @said = $node->log =~ /\[error\].*serves but is not counted: raise the size in the "zone" directive/g;
        @said == 4 - $room;
    });
    $node->wait_for('them to be seen', sub { $uncounted->() == 4 - $room });
    like($status->ask('/workers/metrics')->{content},
        qr/^nginx_worker_manager_workers_uncounted ${\ (4 - $room)}(?:\.0)?$/m, 'as a metric');
    like($node->get('/'), qr/ok/, 'it serves');

    # One of them dies; another comes in its place.
    my ($victim) = map { $_->{pid} } grep {
        my $pid = $_->{pid};
        (WorkerManager::state_of($pid) // 'T') ne 'T' && !grep { $_ == $pid } $node->on_duty;
    } $node->children;
    $node->signal('KILL', $victim);
    $node->wait_for('its end', sub { !WorkerManager::is_alive($victim) });
    $node->wait_for('its successor', $serve);
    $node->wait_for('the successor to be seen', sub { $uncounted->() == 4 - $room });

    # Room comes back.
    $node->signal('CONT', @{ $stopped[0] });
    $node->wait_events('worker_start', 4, 4);
    is(scalar $node->kinds('worker_start', 4), 4, 'each is told once');
    $node->wait_events('master_ready', 1, 4);
    $node->wait_for('none left', sub { $uncounted->() == 0 });
    $node->signal('CONT', @{ $stopped[1] });
    $node->wait_events('master_exit', 1, $_) for 2, 3;
    $node->down;
    is(scalar $node->kinds('worker_exit', 4), 4, 'and so is the end of each');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that drains uncounted ends in silence' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2,
        manager => 'zone 32k; interval 100ms; failed 60s;');
    $node->up;
    my $total = $status->json->{zone}{workers}{total};
    my @stopped;
    $node->configure(workers => int($total / 2));
    for my $generation (2, 3) {
        $node->signal('HUP');
        $node->wait_events('master_ready', 1, $generation);
        $node->wait_events('master_exit', 1, 1);
        my @workers = $node->on_duty($generation);
        $node->signal('STOP', @workers);
        push @stopped, @workers;
    }
    $node->configure(workers => 1 + $total % 2);
    $node->signal('HUP');
    $node->wait_for('an uncounted one', sub { ($status->json->{zone}{uncounted} // 0) == 1 });
    # The generation may be over while it serves: nobody in it was ever counted, or is any more.
    $node->signal('HUP');
    $node->wait_events('master_start', 1, 5);
    $node->signal('CONT', @stopped);
    $node->wait_events('master_exit', 1, $_) for 2, 3, 4;
    $node->wait_events('master_ready', 1, 5);
    $node->wait_for('none left', sub { $status->json->{zone}{uncounted} == 0 });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'more generations than the zone holds' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'zone 32k;')->up;
    my (@held, $told);
    for my $generation (2 .. 30) {
        push @held, $node->hold_connection($generation - 1);
        $node->signal('HUP');
        $node->wait_for("generation $generation, or word that there is no room", sub {
            $told = $node->log =~ /\[error\].*no room for another generation, this one is not told/;
            return $told || $node->kinds('worker_start', $generation);
        }) or last;
        last if $told;
    }
    ok($told, 'the log says so');
    my $last = ($node->kinds('master_start'))[-1]{gen};
    $node->wait_for('an answer', sub { $node->get('/') =~ /ok/ });
    close $_ for @held;
    $node->wait_for('the end of all', sub { my @over = $node->kinds('master_exit'); @over == $last });
    $node->signal('HUP');
    $node->wait_events('worker_start', 1, $last + 1);
    pass('the next reload is told again, and no number was used up');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload that changes the size starts a new history' => sub {
    my $node = WorkerManager->new(manager => 'zone 256k;')->up;
    $node->configure(manager => 'zone 512k;');
    $node->signal('HUP');
    $node->wait_for('word of it',
        sub { $node->log =~ /zone has changed, a new history starts with generation 2/ });
    $node->wait_for('the end of the old',
        sub { $node->log =~ /EV1 \d+ master_exit 1 / });
    $node->down;
    my @lines = $node->log =~ /EV1 (\d+ \w+ \d+)/g;
    is(scalar(grep { /^\d+ worker_exit 1/ } @lines), 2, 'the old workers end in the old one');
    ok(scalar(grep { /^1 master_start 2/ } @lines), 'the new one begins with seq 1');
    ok(scalar(grep { / master_exit 2/ } @lines), 'and ends');
    unlike($node->log, qr/\[(alert|crit|emerg)\]/, 'without a fault');
};

subtest 'another name, too; and the block is removed' => sub {
    my $node = WorkerManager->new(manager => 'zone one 128k;')->up;
    $node->configure(manager => 'zone two 128k;');
    $node->signal('HUP');
    $node->wait_for('the end of the old', sub { $node->log =~ /EV1 \d+ master_exit 1 / });
    $node->configure(manager => undef);
    $node->signal('HUP');
    $node->wait_for('word of it', sub { $node->log =~ /no longer configured/ });
    $node->wait_for('the end of the second', sub { $node->log =~ /EV1 \d+ master_exit 2 / });
    like($node->get('/'), qr/ok/, 'it serves');
    $node->configure(manager => '');
    $node->signal('HUP');
    $node->wait_for('a third history', sub { $node->log =~ /EV1 3 worker_start 3-/ });
    $node->down;
    unlike($node->log, qr/\[(alert|crit|emerg)\]/, 'without a fault');
};

# The address of a text in a process's memory that it shares with others, and a file to write there;
# nothing if that is not allowed.
sub in_shared_memory {
    my ($pid, $text) = @_;
    open my $maps, '<', "/proc/$pid/maps" or return;
    open my $memory, '+<:raw', "/proc/$pid/mem" or return;
    for my $line (<$maps>) {
        my ($from, $to) = $line =~ m{^(\w+)-(\w+) rw-s .*/dev/zero} or next;
        sysseek $memory, hex $from, 0 or next;
        sysread $memory, my $content, hex($to) - hex $from or next;
        my $at = index $content, $text;
        return (hex($from) + $at, $memory) if $at >= 0;
    }
    return;
}

subtest 'a zone that another version has laid out' => sub {
    my $node = WorkerManager->new->up;
    my ($at, $memory) = in_shared_memory($node->master, $MAGIC);
    plan skip_all => "not allowed to write to another process's memory" unless $memory;
    my $write = sub {
        sysseek $memory, $at, 0 or die "seek: $!";
        syswrite $memory, $_[0] or die "write: $!";
    };
    $write->('another ');
    $node->signal('HUP');
    $node->wait_for('the refusal', sub {
        $node->log =~ /\[emerg\].*the zone was laid out by another version of the module, give it another name or size/ });
    like($node->get('/'), qr/ok/, 'the old workers serve on');
    is(scalar $node->kinds('master_start'), 1, 'no generation has started');
    $write->($MAGIC);
    $node->reload(2);
    pass('and a reload with the right one succeeds');
    $node->down;
};

subtest 'the default zone over nine live generations' => sub {
    my $node = WorkerManager->new(workers => 2)->up;
    my @held;
    for my $generation (2 .. 9) {
        push @held, $node->hold_connection($generation - 1);
        $node->signal('HUP');
        $node->wait_events('worker_start', 2, $generation);
    }
    is(scalar $node->kinds('master_exit'), 0, 'they live');
    close $_ for @held;
    $node->wait_for('the end of all but one',
        sub { my @over = $node->kinds('master_exit'); @over == 8 });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload of a single process without the load_module line' => sub {
    my $node = WorkerManager->new(workers => 1, daemon => 0, main => 'master_process off;',
        manager => 'interval 50ms;')->up;
    my $master = $node->master;
    $node->configure(main => 'master_process off;', module => undef, manager => undef);
    $node->signal('HUP');
    $node->wait_for('the reload', sub { $node->log =~ /reconfiguring/ });
    my $from = time;
    $node->wait_for('ten heartbeats', sub { time > $from + 0.6 });
    ok(WorkerManager::is_alive($master), 'it goes on');
    unlike($node->log, qr/exited on signal|panicked/, 'unharmed');
    $node->signal('TERM');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($master) });
    like($node->log, qr/exit\s*\z/, 'and ends as it should');
};

run_tests();

__DATA__

=== TEST 1: failed reloads, of syntax and of a port that is taken, use up no number
--- main_config_syntax
no_such_directive;
--- http_config_port
server { listen 127.0.0.1:$TEST_NGINX_TAKEN_PORT; }
--- act
configure syntax
reload fails
wait for unknown directive "no_such_directive"
configure port
reload fails
wait for still could not bind
configure
reload
wait master_exit 1
--- timeline
reload_failed(1, nil,2,nil)
reload_failed(1, nil,2,nil)
master_start(2, 2,0,nil)
worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
    worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
    worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)
