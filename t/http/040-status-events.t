# The event stream: the history and then what comes, without a gap or a repeat, over reloads.
use strict;
use warnings;
use JSON::PP ();
use Test::More;
use WorkerManager;
use WorkerManager::Status;

sub seqs { map { $_->{seq} } @_ }

# Waits until a stream has had an event.
sub wait_seq {
    my ($node, $stream, $seq) = @_;
    $node->wait_for("event $seq in the stream", sub { grep { $_->{seq} == $seq } $stream->events });
}

subtest 'the history, and then what comes' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => 'event_log logs/workers.log;');
    $node->up;
    my $stream = $status->stream;
    wait_seq($node, $stream, 4);
    is_deeply([ seqs($stream->events) ], [ 1 .. 4 ], 'the history');
    like($stream->{head}, qr{^Content-Type: text/event-stream}mi, 'Server-Sent Events');
    like($stream->{text}, qr/\Aretry: 1000\n\n/, 'when to come back');
    # Its own worker lives on.
    my ($victim) = grep { $_ != $stream->{worker} } $node->on_duty;
    $node->signal('KILL', $victim);
    wait_seq($node, $stream, 6);
    is_deeply([ map { $_->{event} } ($stream->events)[ 4, 5 ] ], [qw(worker_lost worker_start)],
        'what comes');
    is(($stream->events)[4]{reason}, 'signal 9', 'with all that is known');
    my @lines = $node->read('logs/workers.log') =~ /^(.*)$/mg;
    is_deeply([ $stream->text_lines ], \@lines, 'to the letter what the event log has');
    my $later = $status->stream(after => 4);
    wait_seq($node, $later, 6);
    is_deeply([ seqs($later->events) ], [ 5, 6 ], 'from an event on');
    my $resumed = $status->stream(after => 1, last => 5);
    wait_seq($node, $resumed, 6);
    is_deeply([ seqs($resumed->events) ], [6], 'Last-Event-ID wins');
    $node->down;
    $node->wait_for('the end of the streams', sub { $stream->is_over && $later->is_over });
    ok($stream->{complete} && $later->{complete}, 'they end whole with their workers');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'over reloads, with clients that come back' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2);
    $node->up;
    my @all;
    my $stream = $status->stream;
    for my $generation (2 .. 6) {
        my $worker = $node->wait_for('the stream', sub { $stream->read; $stream->{worker} });
        $node->signal('HUP');
        $node->wait_for('its end', sub { $stream->is_over });
        ok($stream->{complete}, "a whole end, before generation $generation");
        # Nothing but the stream was there to keep the old worker.
        $node->wait_events('master_exit', 1, $generation - 1);
        my ($exit) = grep { $_->{pid} == $worker } $node->kinds('worker_exit');
        ok($exit, 'its worker has ended');
        push @all, $stream->events;
        $stream = $status->stream(last => $all[-1]{seq});
    }
    my $last = ($node->events)[-1]{seq};
    wait_seq($node, $stream, $last);
    push @all, $stream->events;
    is_deeply([ seqs(@all) ], [ 1 .. $last ], 'no gap and no repeat');
    unlike($node->log, qr/open socket/, 'nginx found no connection left open');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'more than is remembered' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 1, manager => 'zone small 32k;', log => 0);
    $node->start;
    my $room = $node->wait_for('the status', sub { my $is = eval { $status->json }; $is && $is->{zone}{events}{total} });
    $node->wait_for('enough events', sub {
        my $is = eval { $status->json } or return 0;
        return 1 if $is->{node}{seq} > $room + 5;
        $node->signal('KILL', $is->{workers}[0]{pid}) if @{ $is->{workers} };
        return 0;
    }, 60);
    my $fresh = $status->stream;
    $node->wait_for('the history', sub { my @events = $fresh->events; @events >= $room });
    is(scalar($fresh->missed), 0, 'who knows nothing misses nothing');
    my $oldest = ($fresh->events)[0]{seq};
    ok($oldest > 1, 'and begins with the oldest that is remembered');
    my $history = $status->json->{node}{history};
    for my $last (2, "$history:2", 1_000_000, "$history:1000000", '0123456789abcdef:2') {
        my $kind = $last =~ /^$history|^\d+\z/ ? 'gap' : 'restart';
        my ($after) = $kind eq 'restart' ? $last : $last =~ /(\d+)$/;
        my $stream = $status->stream(last => $last);
        $node->wait_for('the history', sub { my @events = $stream->events; @events >= $room });
        my $next = ($stream->events)[0]{seq};
        is_deeply([ $stream->missed ],
            [ { event => $kind, history => $history, after => $after, next => $next } ], "$last misses something");
        WorkerManager::Status::is_valid('as in the schema', 'missed', $stream->missed_lines);

        my $lines = $status->ask("/workers/events?after=$last", headers => { Accept => 'application/x-ndjson' });
        my ($first, @others) = split /\n/, $lines->{content};
        is_deeply([ $first ], [ $stream->missed_lines ], 'lines say the same');
        is(JSON::PP::decode_json($others[0])->{seq}, $next, 'and go on with the next event');
    }
    $node->down;
};

subtest 'over a restart' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2);
    $node->up;
    my $before = $status->stream;
    wait_seq($node, $before, 4);
    my $id = $before->id;
    my $ndjson = sub {
        my $answer = $status->ask("/workers/events?after=$_[0]", headers => { Accept => 'application/x-ndjson' });
        return map { JSON::PP::decode_json($_) } split /\n/, $answer->{content} // '';
    };
    my $last = ($ndjson->(0))[-1];
    is("$last->{history}:$last->{seq}", $id, 'lines have what the id of a stream has');
    is_deeply([ $ndjson->($id) ], [], 'there is nothing yet');
    $node->down;
    unlink $node->path('logs/error.log') or die $!;
    $node->up;
    my $history = $status->json->{node}{history};
    my $told = { event => 'restart', history => $history, after => $id, next => 1 };
    my $after = $status->stream(last => $id);
    wait_seq($node, $after, 4);
    is_deeply([ $after->missed ], [$told], 'a client that comes back is told');
    is_deeply([ seqs($after->events) ], [ 1 .. 4 ], 'and has the new history from its beginning');
    is($after->id, "$history:4", 'whose ids are others');
    my ($first, @events) = $ndjson->($id);
    is_deeply($first, $told, 'so is one that asks for lines');
    is_deeply([ seqs(@events) ], [ 1 .. 4 ], 'which has the same');
    is_deeply([ $ndjson->("$history:4") ], [], 'and goes on from there');
    $node->down;
};

subtest 'a client that does not read' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 32);
    $node->up;
    # A history of more than nginx's and the system's buffers hold.
    $node->reload($_) for 2 .. 4;
    my $deaf = IO::Socket::INET->new(Proto => 'tcp') or die $!;
    setsockopt $deaf, Socket::SOL_SOCKET(), Socket::SO_RCVBUF(), 4096;
    connect $deaf, Socket::sockaddr_in($status->{port}, Socket::inet_aton('127.0.0.1')) or die $!;
    syswrite $deaf, "GET /workers/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    my $slow = bless { socket => $deaf, raw => '', text => '' }, 'WorkerManager::Status::Stream';
    my $gave_up = qr/ (\d+)#\d+: \*\d+ client timed out/;
    $node->wait_for('nginx to give up on it', sub { $node->log =~ $gave_up });
    my ($pid) = $node->log =~ $gave_up;
    ok(WorkerManager::is_alive($pid), 'the worker goes on');
    $node->wait_for('the end', sub { $slow->is_over });
    my @seen = seqs($slow->events);
    is_deeply(\@seen, [ 1 .. @seen ], 'what it had is whole');
    my $resumed = $status->stream(last => $seen[-1]);
    my $last = ($node->events)[-1]{seq};
    wait_seq($node, $resumed, $last);
    is_deeply([ seqs($resumed->events) ], [ $seen[-1] + 1 .. $last ], 'and it can go on');

    # The same, and the worker is to quit meanwhile.
    my $other = IO::Socket::INET->new(Proto => 'tcp') or die $!;
    setsockopt $other, Socket::SOL_SOCKET(), Socket::SO_RCVBUF(), 4096;
    connect $other, Socket::sockaddr_in($status->{port}, Socket::inet_aton('127.0.0.1')) or die $!;
    syswrite $other, "GET /workers/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    my $stream = bless { socket => $other, raw => '', text => '' }, 'WorkerManager::Status::Stream';
    $node->wait_for('some of it', sub { IO::Select->new($other)->can_read(0) });
    $node->reload(5);
    pass('it does not keep its worker');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'many, and clients that go' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 1, connections => 512);
    $node->up;
    my @streams = map { $status->stream(after => 2) } 1 .. 300;
    my $last = ($node->events)[-1]{seq};
    wait_seq($node, $_, $last) for @streams;
    pass('all have the history');
    my ($pid) = $node->on_duty;
    close $_->{socket} for splice @streams, 0, 150;
    $node->wait_for('nginx to notice', sub {
        my ($worker) = grep { $_->{pid} == $pid } @{ $status->json->{workers} };
        $worker->{connections} && $worker->{connections}{active} <= 152 });
    $node->reload(2);
    $node->wait_for('the end of the others', sub { !grep { !$_->is_over } @streams });
    is(scalar(grep { !$_->{complete} } @streams), 0, 'they end whole');
    unlike($node->log, qr/open socket|alert/, 'nothing is left');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

done_testing;
