# The variables of http.
use strict;
use warnings;
use Test::More;
use WorkerManager;

my $HTTP = <<'END';
    log_format seen "$worker_manager_id $worker_manager_reloads";
    map $worker_manager_generation $age { 1 first; default later; }
    server {
        listen unix:vars.sock;
        access_log logs/access.log seen;
        add_header X-Age $age;
        location / {
            return 200 "$worker_manager_generation $worker_manager_id $worker_manager_worker $worker_manager_workers $worker_manager_reloads $pid\n";
        }
    }
END

# One answer from a new connection.
sub ask {
    my ($node) = @_;
    require IO::Socket::UNIX;
    my $socket = IO::Socket::UNIX->new(Peer => $node->path('vars.sock')) or return ('', '');
    print $socket "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
    local $/;
    return split /\r\n\r\n/, scalar(<$socket>) // '', 2;
}

subtest 'a worker, over reloads' => sub {
    my $node = WorkerManager->new(workers => 1);
    # nginx takes the path of a socket as it is.
    my $http = $HTTP =~ s{unix:}{unix:$node->{root}/}r;
    $node->configure(http => $http);
    $node->up;
    my ($pid) = $node->on_duty(1);
    my ($head, $body) = ask($node);
    is($body, "1 1-$pid 0 1 0 $pid\n", 'the first generation');
    like($head, qr/X-Age: first/, 'in a map and a header');
    $node->reload(2);
    ($pid) = $node->on_duty(2);
    ($head, $body) = ask($node);
    is($body, "2 2-$pid 0 1 1 $pid\n", 'the second');
    like($head, qr/X-Age: later/, 'the map follows');
    is(($node->read('logs/access.log') =~ /^(.*)\n\z/m)[0] =~ s/.*\n//sr, "2-$pid 1", 'in a log');
    $node->configure(http => "$http\n no_such_directive on;");
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    is((ask($node))[1], "2 2-$pid 0 1 1 $pid\n", 'a failed reload is none');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the running workers of the generation' => sub {
    my $node = WorkerManager->new(workers => 3, manager => 'interval 100ms; failed 100ms;');
    $node->configure(http => $HTTP =~ s{unix:}{unix:$node->{root}/}r);
    $node->up;
    $node->wait_for('three', sub { ((split ' ', (ask($node))[1])[3] // 0) == 3 });
    my ($one, $other) = $node->on_duty;
    $node->signal('STOP', $one, $other);
    $node->wait_events('worker_hung', 2);
    like((ask($node))[1], qr/^1 1-\d+ [012] 1 0 \d+$/, 'two hang, one is left');
    $node->signal('CONT', $one, $other);
    $node->wait_events('worker_recovered', 2);
    # On a busy machine one may be late once more.
    $node->wait_for('three again', sub { ((split ' ', (ask($node))[1])[3] // 0) == 3 });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'without the block they are there and empty' => sub {
    my $node = WorkerManager->new(workers => 1, manager => undef);
    $node->configure(http => $HTTP =~ s{unix:}{unix:$node->{root}/}r);
    $node->start;
    my $answer = $node->wait_for('an answer', sub { (ask($node))[1] });
    like($answer, qr/^ +\d+$/, 'empty');
    $node->down;
};

done_testing;
