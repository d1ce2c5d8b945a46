package WorkerManager::Status;

# What a suite asks a node's worker_manager_status: as JSON, checked against the schema, and as a
# stream of events.

use strict;
use warnings;

use HTTP::Tiny;
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;

our $SCHEMA = ($ENV{WORKER_MANAGER_OBJS} // 'objs') . '/../doc/status.schema.json';

# What a node's http block needs: a server of its own, with the status at /workers. Each answer comes
# with the process that gave it.
sub http {
    my ($port, $more) = @_;
    return <<"END";
    server {
        listen 127.0.0.1:$port sndbuf=8k;
        send_timeout 1s;
        add_header X-Worker \$pid always;
        location /workers { worker_manager_status; }
        @{[ $more // '' ]}
    }
END
}

# A node with a status, and what asks it.
sub node {
    my (%options) = @_;
    my $port = WorkerManager::free_port();
    my $node = WorkerManager->new(%options);
    $node->configure(http => http($port, $options{server}));
    return ($node, WorkerManager::Status->new($port));
}

sub new {
    my ($class, $port) = @_;
    return bless { base => "http://127.0.0.1:$port", port => $port }, $class;
}

# An answer as HTTP::Tiny gives it. The kernel wakes one worker for a connection (EPOLLEXCLUSIVE), and
# if that one is stopped or dies before it accepts, no other: then another connection is tried.
sub ask {
    my ($self, $path, %options) = @_;
    my $waits = $path =~ m{/wait};
    my $client =
        HTTP::Tiny->new(timeout => $waits ? 20 : 1, keep_alive => 0, max_redirect => 0);
    my $answer;
    for (1 .. ($waits ? 1 : 10)) {
        $answer = $client->request($options{method} // 'GET', $self->{base} . $path,
            { headers => $options{headers} // {} });
        last if $answer->{status} != 599;
    }
    return $answer;
}

# The status, decoded; undef if it is not to be had.
sub json {
    my ($self, $path) = @_;
    my $answer = $self->ask($path // '/workers');
    return unless $answer->{success};
    return JSON::PP::decode_json($answer->{content});
}

# Waits until each worker that is in the status has beaten once more.
sub wait_beats {
    my ($self, $node) = @_;
    my (%first, %beaten);
    return $node->wait_for('another heartbeat of each', sub {
        my $is = $self->json or return;
        for my $worker (@{ $is->{workers} }) {
            my ($id, $beat) = ($worker->{id}, $is->{node}{time} - $worker->{heartbeat_age});
            $first{$id} //= $beat;
            # The two clocks may be a little apart.
            $beaten{$id} ||= $beat > $first{$id} + 0.05;
        }
        return !grep { !$beaten{ $_->{id} } } @{ $is->{workers} };
    });
}

# Checks texts of JSON against a definition of the schema.
sub is_valid {
    my ($name, $definition, @texts) = @_;
    my $file = WorkerManager::Scratch::folder('json') . '/texts';
    open my $out, '>', $file or die "$file: $!";
    print $out join("\n", @texts), "\n";
    close $out or die "$file: $!";
    my $said = `python3 -c '
import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
schema["\$ref"] = "#/\$defs/" + sys.argv[2]
# A reader accepts what it does not know, but here the schema has to describe everything.
def close(part):
    if isinstance(part, dict):
        if "properties" in part:
            part.setdefault("additionalProperties", False)
        for inner in part.values():
            close(inner)
    elif isinstance(part, list):
        for inner in part:
            close(inner)
close(schema)
check = jsonschema.Draft202012Validator(schema)
for line in open(sys.argv[3]):
    for error in check.iter_errors(json.loads(line)):
        print(list(error.path), error.message)
' '$SCHEMA' '$definition' '$file' 2>&1`;
    unlink $file;
    is($said, '', $name);
}

# Opens a stream; what came of it is read by `events`.
sub stream {
    my ($self, %options) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port})
        or return;
    my $query = defined $options{after} ? "?after=$options{after}" : '';
    my $resume = defined $options{last} ? "Last-Event-ID: $options{last}\r\n" : '';
    print $socket "GET /workers/events$query HTTP/1.1\r\nHost: localhost\r\n$resume\r\n";
    $socket->flush;
    return bless { socket => $socket, raw => '', text => '' }, 'WorkerManager::Status::Stream';
}

package WorkerManager::Status::Stream;

# Reads what there is; false at the end of the connection.
sub read {
    my ($self) = @_;
    while (IO::Select->new($self->{socket})->can_read(0)) {
        my $n = sysread $self->{socket}, $self->{raw}, 65536, length $self->{raw};
        if (!$n) {
            $self->{closed} = 1;
            last;
        }
    }
    if (!$self->{head} && $self->{raw} =~ s/\A(.*?\r\n\r\n)//s) {
        $self->{head} = $1;
        ($self->{worker}) = $self->{head} =~ /X-Worker: (\d+)/;
    }
    while ($self->{head} && $self->{raw} =~ /\A([0-9a-f]+)\r\n/) {
        my ($size, $start) = (hex $1, $+[0]);
        last if length $self->{raw} < $start + $size + 2;
        $self->{text} .= substr $self->{raw}, $start, $size;
        $self->{raw} = substr $self->{raw}, $start + $size + 2;
        $self->{complete} = 1 if $size == 0;
    }
    return !$self->{closed};
}

# The events so far, decoded, oldest first.
sub events {
    my ($self) = @_;
    $self->read;
    return map { JSON::PP::decode_json($_) } $self->text_lines;
}

# The same as texts.
sub text_lines {
    my ($self) = @_;
    $self->read;
    return $self->{text} =~ /(?<=\n\n)id: [0-9a-f]{16}:\d+\ndata: (.*)\n\n/g;
}

# What it was told to have missed: as texts, and decoded.
sub missed_lines {
    my ($self) = @_;
    $self->read;
    return $self->{text} =~ /^event: (?:gap|restart)\nid: [0-9a-f]{16}:\d+\ndata: (.*)\n\n/mg;
}

sub missed { my ($self) = @_; return map { JSON::PP::decode_json($_) } $self->missed_lines }

# The id of the last message.
sub id {
    my ($self) = @_;
    $self->read;
    return ($self->{text} =~ /^id: (\S+)\ndata: .*\n\n/mg)[-1];
}

sub is_over { my ($self) = @_; $self->read; return $self->{closed} || $self->{complete} }

1;
