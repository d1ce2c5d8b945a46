# Exit callbacks of code written for the original library: they may open sockets. A TCP server counts what
# workers and masters send it at their end.
use strict;
use warnings;
use Test::More;
use IO::Select;
use WorkerManager::Lua;

# A server that notes each line it gets and answers it.
my $server = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1') or die "no server: $!";
my $select = IO::Select->new($server);
my @lines;
our $answering = 1;

sub serve {
    while (my @ready = $select->can_read(0)) {
        for my $socket (@ready) {
            if ($socket == $server) {
                $select->add($server->accept);
            } elsif (defined(my $line = <$socket>)) {
                push @lines, $line =~ s/\s+$//r =~ s/ (\d+)-\d+ / $1- /r;
                print $socket "done\n" if $answering;
                $socket->flush;
            } else {
                $select->remove($socket);
                close $socket;
            }
        }
    }
}

my $CODE = 'local PORT = ' . $server->sockport . <<'END';
    local function deregister(...)
        local words = { ... }
        for i = 1, select("#", ...) do words[i] = tostring(words[i]) end
        local socket = ngx.socket.tcp()
        socket:settimeout(10000)
        assert(socket:connect("127.0.0.1", PORT))
        assert(socket:send(table.concat(words, " ") .. "\n"))
        assert(socket:receive() == "done")
        say("deregistered", ...)
    end
    local function deregistering(name)
        return function(...) deregister(name, ...) end
    end
END
my $INIT = "$CODE M.on_init_by_lua({ shm = 'worker_manager' }, nil, deregistering('master_exit'))";
# Who is told to quit before its first look at what the master says can't tell who told it.
my $LOOPING = 'ngx.timer.at(0.01, function() say("looping") end)';
my $INIT_WORKER = "$CODE M.on_init_worker_by_lua(nil, deregistering('exit')) $LOOPING";

# Starts a node and waits until its workers listen to their master.
sub node {
    my $node = WorkerManager::Lua->new(init => $INIT, init_worker => $INIT_WORKER, @_)->up;
    return looping($node, $node->{workers});
}

sub looping {
    my ($node, $number) = @_;
    WorkerManager::Lua::wait_said($node, $number, '^looping');
    return $node;
}

sub said { WorkerManager::Lua::said(@_) }

# Ends a node as `down` does, and serves meanwhile.
sub down {
    my ($node, $signal) = @_;
    $node->signal($signal);
    $node->wait_for('the end of the master', sub { serve(); $node->reap; !WorkerManager::is_alive($node->master) });
    serve();
    return splice @lines;
}

subtest 'quit' => sub {
    my $node = node();
    is_deeply([ down($node, 'QUIT') ], [ 'exit 1- nil 2 nil', 'exit 1- nil 1 nil', 'master_exit 1 nil 0 nil' ],
        'all deregister, in order');
    unlike($node->log, qr/\[error\]/, 'without an error');
    is(scalar $node->kinds('worker_exit'), 2, 'then they end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'reload' => sub {
    my $node = node(workers => 3);
    $node->signal('HUP');
    $node->wait_for('generation 2', sub { serve(); $node->kinds('master_exit', 1) });
    serve();
    looping($node, 6);
    is_deeply([ splice @lines ], [ 'exit 1- nil 3 3', 'exit 1- nil 2 3', 'exit 1- nil 1 3', 'master_exit 1 nil 0 3' ],
        'the old ones deregister');
    is_deeply([ down($node, 'QUIT') ],
        [ map({ "exit 2- nil $_ nil" } 3, 2, 1), 'master_exit 2 nil 0 nil' ], 'the new ones at their end');
    unlike($node->log, qr/\[error\]/, 'without an error');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a connection holds a worker that has deregistered' => sub {
    my $node = node();
    my $held = $node->hold_connection(1);
    my ($pid) = map { $_->{pid} } ($node->held)[-1];
    $node->signal('HUP');
    $node->wait_for('all to deregister', sub { serve(); @lines == 3 });
    is_deeply([ splice @lines ], [ 'exit 1- nil 2 2', 'exit 1- nil 1 2', 'master_exit 1 nil 0 2' ], 'at once');
    ok(WorkerManager::is_alive($pid), 'while it serves the connection');
    is(scalar $node->kinds('master_exit'), 0, 'and its generation is not over');
    close $held;
    $node->wait_events('master_exit', 1, 1);
    serve();
    is_deeply([ splice @lines ], [], 'once');
    down($node, 'QUIT');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'stop' => sub {
    my $node = node();
    is_deeply([ down($node, 'TERM') ], [], 'there is no time for sockets');
    my @errors = $node->log =~ /\[error\].* worker_manager: (worker_exit|master_exit) [\d-]+: /g;
    is_deeply(\@errors, [ qw(worker_exit worker_exit master_exit) ], 'callbacks are called all the same, and say so');
    like($node->log, qr/no request|API disabled/, 'why');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'stop, and callbacks that need no socket' => sub {
    my $node = node(init => 'M.on_init_by_lua({ shm = "worker_manager" }, nil, saying("master_exit"))',
        init_worker => "M.on_init_worker_by_lua(nil, saying('exit')) $LOOPING");
    $node->down('TERM');
    is_deeply([ said($node, 'exit') ], [ 'exit 1- nil 2 nil', 'exit 1- nil 1 nil', 'master_exit 1 nil 0 nil' ],
        'are called at the end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'stop while one drains that has deregistered' => sub {
    my $node = node();
    my $held = $node->hold_connection(1);
    my ($pid) = map { $_->{pid} } ($node->held)[-1];
    $node->signal('QUIT', $pid);
    $node->wait_for('it to deregister', sub { serve(); @lines == 1 });
    is_deeply([ splice @lines ], [ 'exit 1- nil 2 nil' ], 'it alone');
    $node->signal('KILL', $pid);
    close $held;
    looping($node, 3);
    is(scalar $node->kinds('worker_lost'), 1, 'it is lost, and another starts');
    is_deeply([ down($node, 'QUIT') ], [ 'exit 1- nil 2 nil', 'exit 1- nil 1 nil', 'master_exit 1 nil 0 nil' ],
        'which counts');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'the only worker is told to quit, and another takes its place' => sub {
    my $node = node(workers => 1);
    $node->signal('QUIT', $node->on_duty);
    $node->wait_for('its successor', sub { serve(); $node->kinds('worker_start') == 2 });
    serve();
    looping($node, 2);
    is_deeply([ splice @lines ], [ 'exit 1- nil 1 nil' ], 'its generation is not over');
    $node->signal('QUIT', $node->on_duty);
    $node->wait_for('its successor', sub { serve(); $node->kinds('worker_start') == 3 });
    looping($node, 3);
    is_deeply([ splice @lines ], [ 'exit 1- nil 1 nil' ], 'nor is it then');
    is_deeply([ down($node, 'QUIT') ], [ 'exit 1- nil 1 nil', 'master_exit 1 nil 0 nil' ], 'until the node stops');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a server that does not answer' => sub {
    local $answering = 0;
    my $node = node();
    $node->signal('QUIT');
    $node->wait_for('one to wait', sub { serve(); @lines == 1 });
    # Who waits for its turn is not stuck for ever, and a stop ends all.
    $node->signal('TERM');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($node->master) });
    serve();
    is_deeply([ splice @lines ], [ 'exit 1- nil 2 nil' ], 'no turn came after it');
    is(scalar $node->kinds('worker_exit'), 2, 'they end in order');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a worker dies in its turn' => sub {
    local $answering = 0;
    my $node = node(workers => 3);
    $node->signal('QUIT');
    $node->wait_for('one to wait', sub { serve(); @lines == 1 });
    my ($socket) = grep { $_ != $server } $select->handles;
    my ($pid) = $node->log =~ /nothing/ ? () : owner_of($socket);
    $answering = 1;
    $node->signal('KILL', $pid);
    $node->wait_for('the end', sub { serve(); !WorkerManager::is_alive($node->master) });
    serve();
    is_deeply([ splice @lines ], [ 'exit 1- nil 3 nil', 'exit 1- nil 2 nil', 'exit 1- nil 1 nil',
        'master_exit 1 nil 0 nil' ], 'the others do not wait for it');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'on() tells when they end, as before' => sub {
    my $node = WorkerManager::Lua->new(workers => 1, init =>
        'M.on_init_by_lua({ shm = "worker_manager" }, nil, saying("master_exit")) M.on("*", saying("on"))',
        init_worker => "M.on_init_worker_by_lua(nil, saying('exit')) $LOOPING")->up;
    looping($node, 1)->down;
    is_deeply([ map { s/ table: .*//r } grep { /exit|on 1/ } said($node) ],
        [ 'on 1 nil 0 nil', 'on 1- nil 1 nil', 'on 1 nil 1 nil', 'exit 1- nil 1 nil', 'master_exit 1 nil 0 nil',
            'on 1- nil 1 nil', 'on 1- nil 1 nil', 'on 1 nil 0 nil' ], 'after exit callbacks');
    $node->laws_hold('the laws hold', final => 1);
};

# The worker at the other end of a connection, by the kernel's table of sockets.
sub owner_of {
    my ($socket) = @_;
    my $local = sprintf ':%04X', $socket->peerport;
    open my $file, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!";
    my ($inode) = map { (split)[9] } grep { (split)[1] =~ /$local$/ } <$file>;
    for my $fd (glob '/proc/[0-9]*/fd/*') {
        return $fd =~ m{/proc/(\d+)/} if (readlink $fd // '') eq "socket:[$inode]";
    }
    die 'nobody has the socket';
}

done_testing;
