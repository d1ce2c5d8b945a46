# Probes: /live and /ready, over a reload, a worker that hangs, a lost master and a stop.
use strict;
use warnings;
use IO::Socket::INET;
use Test::More;
use WorkerManager;
use WorkerManager::Status;

# Status and body of an answer.
sub asked {
    my ($status, $path, @options) = @_;
    my $answer = $status->ask($path, @options);
    return "$answer->{status} $answer->{content}";
}

# A connection whose worker has read half of a request.
sub half_a_request {
    my ($node, $status, $path) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $status->{port}) or die $!;
    $socket->autoflush(1);
    print $socket "GET $path HTTP/1.1\r\nHost: localhost\r\n";
    $node->wait_for('half a request to be read', sub {
        # The one that asks is active, too.
        my $active = 0;
        $active += $_->{connections}{active} // 0 for @{ $status->json->{workers} };
        return $active >= 2 });
    return $socket;
}

# The answer to the whole of it.
sub answer {
    my ($socket) = @_;
    print $socket "\r\n";
    local $/;
    return scalar(<$socket>) // '';
}

my $quick = 'interval 100ms; failed 500ms;';

subtest 'a node that serves' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => $quick);
    $node->up;
    my $answer = $status->ask('/workers/live');
    is($answer->{headers}{'content-type'}, 'text/plain', 'text');
    is($answer->{headers}{'cache-control'}, 'no-store', 'not to be kept');
    is(asked($status, '/workers/live'), "200 live\n", 'it lives');
    is(asked($status, '/workers/ready'), "200 ready\n", 'and is ready');
    my @json = (headers => { Accept => 'application/json' });
    is(asked($status, '/workers/live', @json), '200 {"live":true,"generation":1,"reason":null}', 'as JSON');
    is(asked($status, '/workers/ready', @json), '200 {"ready":true,"generation":1,"reason":null}', 'both');
    is($status->ask('/workers/ready', method => 'HEAD')->{status}, 200, 'HEAD');
    is($status->ask('/workers/ready?x=1')->{status}, 400, 'there are no arguments');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload' => sub {
    my ($node, $status) = WorkerManager::Status::node();
    # The first to start goes on, the others wait as long as the file is there.
    my $program = "mkdir $node->{root}/out/first || while [ -e $node->{root}/out/wait ]; do sleep 0.02; done";
    $node->configure(manager => "$quick on worker_start exec /bin/sh -c '$program';");
    chmod 0777, $node->path('out');
    $node->up;
    rmdir $node->path('out/first');
    $node->write('out/wait', '');
    my $held = half_a_request($node, $status, '/workers/ready');
    $node->signal('HUP');
    # worker_draining waits for the lock.
    $node->wait_for('an old one to shut down', sub { grep { $_->{title} =~ /is shutting down/ } $node->children });
    $node->wait_for('the answer of the first of the new ones', sub {
        asked($status, '/workers/ready') eq "503 not ready: generation 2 is starting, 2 of 2 workers\n" });
    is(asked($status, '/workers/live'), "200 live\n", 'which lives');
    is(asked($status, '/workers/ready', headers => { Accept => 'application/json' }),
        '503 {"ready":false,"generation":2,"reason":"generation 2 is starting, 2 of 2 workers"}', 'as JSON');
    like(answer($held), qr{^HTTP/1.1 503 .*\r\nConnection: close\r\n.*not ready: this worker drains\n}s,
        'an old one is not ready, and says so for the last time');
    unlink $node->path('out/wait');
    $node->wait_events('master_ready', 1, 2);
    is(asked($status, '/workers/ready'), "200 ready\n", 'the new generation is complete');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker that hangs, and one that dies' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => $quick);
    $node->up;
    my ($hung, $other) = $node->on_duty;
    $node->signal('STOP', $hung);
    $node->wait_event_of('worker_hung', $hung);
    is(asked($status, '/workers/live'), "200 live\n", 'the node lives');
    is(asked($status, '/workers/ready'), "200 ready\n", 'the other serves');
    $node->signal('KILL', $hung);
    $node->wait_events('worker_start', 3, 1);
    is(asked($status, '/workers/ready'), "200 ready\n", 'and so does its successor');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'all workers hang' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => $quick);
    $node->up;
    my @workers = $node->on_duty;
    $node->signal('STOP', @workers);
    is($status->ask("/workers/$_")->{status}, 599, "$_: no answer") for qw(live ready);
    $node->signal('CONT', @workers);
    is(asked($status, '/workers/live'), "200 live\n", 'until they go on');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

# The command of README's HEALTHCHECK, which Docker takes for healthy if it succeeds, against this node.
sub docker {
    my ($status) = @_;
    open my $file, '<', "$ENV{WORKER_MANAGER_OBJS}/../README.md" or die "README.md: $!";
    my ($command) = map { /^HEALTHCHECK .* CMD (.*)$/ ? $1 : () } <$file> or die 'no HEALTHCHECK';
    $command =~ s{http://127\.0\.0\.1/}{$status->{base}/} or die $command;
    return system("$command > /dev/null") >> 8;
}

subtest 'what Docker is told' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => $quick);
    $node->up;
    is(docker($status), 0, 'healthy');
    $node->reload_ready(2);
    is(docker($status), 0, 'after a reload as well');
    $node->signal('KILL');
    $node->wait_events('master_lost', 1);
    isnt(docker($status), 0, 'not without a master');
    $node->signal('TERM', $node->on_duty);
    $node->wait_events('master_exit', 1, 2);
    isnt(docker($status), 0, 'nor when nginx has ended');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the master is lost' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => $quick);
    $node->up;
    $node->signal('KILL');
    $node->wait_events('master_lost', 1, 1);
    is(asked($status, '/workers/live'), "503 not live: the master process is gone\n", 'a restart helps');
    is(asked($status, '/workers/live', headers => { Accept => 'application/json' }),
        '503 {"live":false,"generation":1,"reason":"the master process is gone"}', 'as JSON');
    is(asked($status, '/workers/ready'), "200 ready\n", 'clients are served meanwhile');
    $node->signal('TERM', $node->on_duty);
    $node->wait_events('master_exit', 1, 1);
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a stop' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => $quick);
    $node->up;
    my @held = map { half_a_request($node, $status, $_) } qw(/workers/ready /workers/live);
    $node->signal('QUIT');
    $node->wait_events('worker_draining', 2, 1);
    like(answer($held[0]), qr/ 503 .*not ready: this worker drains\n/s, 'no more clients');
    like(answer($held[1]), qr/ 200 .*live\n/s, 'a restart would not help');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    is($status->ask('/workers/live')->{status}, 599, 'nobody answers');
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
