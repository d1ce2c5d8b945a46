package Test::Nginx::WorkerManager;

=encoding utf-8

=head1 NAME

Test::Nginx::WorkerManager - suites of this module that read as data

=head1 SYNOPSIS

    use Test::Nginx::WorkerManager 'no_plan';

    run_tests();

    __DATA__

    === TEST 1: a reload
    --- workers: 2
    --- act
    reload
    --- timeline
    master_start(2, 2,0,nil)
    worker_start(2-C, 2,1,nil)  worker_start(2-D, 2,2,nil)  master_ready(2, 2,2,nil)
        worker_draining(1-A, nil,2,2)  worker_draining(1-B, nil,2,2)
        worker_exit(1-A, nil,2,2)  worker_exit(1-B, nil,1,2)  master_exit(1, nil,0,2)



    === TEST 2: a time that is none
    --- manager
    interval soon;
    --- must_die
    --- error_log eval
    qr/"interval" directive has the invalid time "soon"/

=head1 DESCRIPTION

Each block is a node of its own (L<WorkerManager>), in a folder and on a port that no other process has. It is
started, B<act> is done to it, it is asked what B<request> says, and it quits. Then the laws of the contract are
checked on what it has told, without being asked for (L<WorkerManager::Laws>).

The sections of L<Test::Nginx::Socket> that are about requests and answers mean what they mean there. So do
C<config> (inside C<server>), C<http_config>, C<main_config>, C<error_log>, C<no_error_log>, and C<must_die>. The
log is looked at when the node is over. In the configuration and in C<act>, C<$TEST_NGINX_SERVER_ROOT> is the folder
of the node, C<$TEST_NGINX_PORT> its port, and C<$TEST_NGINX_TAKEN_PORT> one that somebody else listens on.

=head1 SECTIONS

=over

=item workers, connections

How many worker processes there are, 2 if that is not said, and connections of each.

=item manager

What is inside the C<worker_manager> block, which is there without this section, too. It is not there if
C<main_config> has one, or with the section C<without_manager>.

=item single_process, foreground

Without a master process; with C<daemon off>. The former is always in the foreground.

=item files

What is in the folder of the node before it starts, as in C<user_files>: C<<< >>> name >>> and its content. A file
that begins with C<#!> is a program.

=item act

What is done, a step a line, see L</STEPS>. If the first step is not C<start> the node has been started, and its
first generation is ready.

=item timeline

What was told meanwhile, from the start if the timeline begins with that. See L<WorkerManager::Timeline>. What
is not there must not have been told; the end of the node, if no step is about it, is not part of the timeline.

=item answers, answers_like

The bodies of the answers to C<get>, a line each. C<< <A> >> stands for the pid that the letter A stands for in the
timeline. C<answers_like> has regular expressions.

=item output_like

A line for each C<nginx> among the steps: a regular expression for what it printed.

=item files_like

The name of a file of the node and a regular expression for its content, a line each.

=item NAME_broken, NAME_2, ...

Other contents of C<main_config>, C<http_config>, C<config>, C<manager> or C<workers>, for the step C<configure broken>
or C<configure 2>.

=back

=head1 STEPS

    reload                          and the new generation is ready
    reload fails                    and that is told
    configure 2                     the configuration of the sections with that suffix; `configure` the first again
    signal HUP                      to the master
    signal QUIT worker 1            to that of the newest generation which has this index
    kill 9 worker 1                 the same, by number; also `kill 9 the master`
    stop worker 0 of generation 1   SIGSTOP
    continue worker 0               SIGCONT
    hold a connection to generation 1
    keep a connection alive         after a request, with none under way
    release the connection          the oldest that is held; `release the connections` all of them
    wait master_exit 1              until that was told of generation 1
    wait 2 worker_exit              so many of them, of any generation
    wait worker_hung of worker 0    of the worker that has this index now
    wait for TEXT                   until the log has this text; `wait for 3 times TEXT` so often
    wait for the end                of the node
    get /path
    get /path until PATTERN         until the body is that
    GET /path 200                   a request and the code of its answer
    GET /path [Accept: text/html] 200 PATTERN
                                    with headers, after semicolons, and what the answer, head and body, has to match
    POST /path 200 not PATTERN      or must not match
    status node.generation = 2      waits until the status at /workers, which is there then, says so: JSON, <worker 0>,
                                    <the master>, <held> or another part of it; also !=, > and <=
    nginx -t                        and it succeeds; `nginx -t fails`
    remove NAME                     a file of the node
    quit, terminate                 the node, and it is over

=cut

use strict;
use warnings;

use JSON::PP ();
use Test::More;
use WorkerManager;
use WorkerManager::Scratch qw(test_nginx);
use WorkerManager::Status;
use WorkerManager::Timeline;

use Test::Nginx::Socket ();
use Test::Nginx::Util ();

# A port that is taken.
my $taken = WorkerManager::Scratch::listener();

sub import {
    my ($class, @arguments) = @_;
    # As the suite would say it; what is exported goes to who says it.
    { package main; Test::Nginx::Socket->import(@arguments) }
    no warnings qw(redefine prototype);
    *Test::Nginx::Util::run_test = \&run_block;
    Test::Nginx::Util::no_shuffle();
    Test::Nginx::Util::server_addr('127.0.0.1');
    return;
}

# Runs a block: Test::Nginx calls this instead of its own.
sub run_block {
    my ($block) = @_;
    return if defined $block->SKIP;
    # Without that of the suite, which prove says.
    my $name = $block->name =~ s/^\S+ //r;
    $block->set_value(name => $name);
    my $run = bless { block => $block, name => $name, letters => {}, answers => [], outputs => [],
        connections => [] }, __PACKAGE__;
    $run->{node} = WorkerManager->new(port => WorkerManager::Scratch::free_port());
    @ENV{qw(TEST_NGINX_SERVER_ROOT TEST_NGINX_PORT TEST_NGINX_TAKEN_PORT)} =
        ($run->{node}{root}, $run->{node}{port}, $taken->sockport);
    $run->write_files;
    $run->{node}->configure($run->configuration(''));
    defined $block->must_die ? $run->dies : $run->lives;
    $run->logs;
    $run->{node}->clean;
    return;
}

# What is to be replaced in a text of the block.
sub expand {
    my ($self, $text) = @_;
    return ($text // '') =~ s/\$(TEST_NGINX_\w+)/$ENV{$1} \/\/ die "$self->{name}: no $1\n"/ger;
}

# The content of a section, or of the one with a suffix if there is one.
sub section {
    my ($self, $name, $suffix) = @_;
    my $other = "$name$suffix";
    my $content = $self->{block}->$other // $self->{block}->$name;
    return defined $content ? $self->expand($content) : undef;
}

# The options of the node, from the sections with a suffix or without.
sub configuration {
    my ($self, $suffix) = @_;
    my ($main, $http, $server, $manager, $workers, $connections) =
        map { $self->section($_, $suffix) } qw(main_config http_config config manager workers connections);
    my $has_none = defined $self->{block}->without_manager || ($main // '') =~ /\bworker_manager\b/;
    my $single = defined $self->{block}->single_process;
    $main .= "\nmaster_process off;" if $single;
    $self->{told} = !$has_none;
    my $asked = join ' ', map { $_ // '' } $self->{block}->act, scalar $self->{block}->request;
    my $status = $asked =~ m{^status |/workers}m && ($server // '') !~ m{location /workers\b}
        ? "\nlocation /workers { worker_manager_status; }" : '';
    return (
        main    => $main // '',
        http    => $http // '',
        locations => ($server // '') . $status,
        manager => $has_none ? undef : $manager // '',
        workers => $workers // ($single ? 1 : 2),
        daemon  => !$single && !defined $self->{block}->foreground,
        defined $connections ? (connections => $connections) : (),
    );
}

sub write_files {
    my ($self) = @_;
    my (undef, %files) = split /^>>> (\S+)\n/m, $self->expand($self->{block}->files);
    for my $name (sort keys %files) {
        $self->{node}->write($name, $files{$name}, $files{$name} =~ /^#!/ ? oct 755 : oct 644);
    }
    return;
}

# A configuration that nginx refuses, when it is asked and when it is to start.
sub dies {
    my ($self) = @_;
    my $node = $self->{node};
    isnt(($node->nginx('-t'))[0], 0, "$self->{name} - nginx -t refuses it");
    my @unsaid = $self->unmatched($node->read('out/nginx.out'), $self->{block}->error_log);
    is("@unsaid", '', "$self->{name} - and says why");
    my ($status) = $node->nginx;
    isnt($status, 0, "$self->{name} - die as expected");
    unlike($node->log, qr/: EV1 /, "$self->{name} - and tells nothing");
    $self->{over} = 1;
    return;
}

sub lives {
    my ($self) = @_;
    my ($node, $block) = @$self{qw(node block)};
    my @steps = grep { /\S/ } split /\n/, $self->expand($block->act);
    if (@steps && $steps[0] eq 'start') {
        shift @steps;
        $node->start;
    } else {
        $self->{told} ? $node->up : $node->start;
    }
    my @timeline = WorkerManager::Timeline::parse($block->timeline // '');
    $self->{letters}{master} = $node->master;
    # From the start if that is in it.
    my $from = @timeline && $timeline[0][0]{text} =~ /^master_start\(1,/ ? 0 : scalar(() = $node->events);
    for my $step (@steps) {
        next if eval { $self->step($step); 1 };
        fail("$self->{name} - $step");
        diag $@;
        last;
    }
    my $until = $from + WorkerManager::Timeline::size(@timeline);
    $node->wait_for('the timeline', sub { my @events = $node->events; @events >= $until }) if @timeline;
    if (defined $block->request) {
        Test::Nginx::Util::server_port_for_client($node->{port});
        # The log is looked at here.
        local ($Test::Nginx::Util::ErrLogFile, $Test::Nginx::Util::ErrLogFilePos) = ('/dev/null', 0);
        my %logs = map { $_ => scalar $block->$_ } qw(error_log no_error_log);
        $block->set_value($_, undef) for keys %logs;
        # Its prototype lacks the last one.
        &Test::Nginx::Socket::run_test_helper($block, 0, 0);
        $block->set_value($_, $logs{$_}) for keys %logs;
    }
    $self->end;
    $self->timeline($from, @timeline) if defined $block->timeline;
    my %json = %{ $self->{json} // {} };
    WorkerManager::Status::is_valid("$self->{name} - as in the schema: $_", $_, @{ $json{$_} }) for sort keys %json;
    $self->texts('answers', 0);
    $self->texts('answers_like', 1);
    my @outputs = @{ $self->{outputs} };
    like(shift @outputs // '', qr/$_/, "$self->{name} - nginx said so")
        for split /\n/, $self->expand($block->output_like);
    for my $line (split /\n/, $self->expand($block->files_like)) {
        my ($file, $pattern) = split ' ', $line, 2;
        $pattern =~ s/<([A-Z])>/$self->{letters}{$1} \/\/ '(?!)'/ge;
        like($node->read($file), qr/$pattern/m, "$self->{name} - $file");
    }
    return unless $self->{told};
    $node->laws_hold("$self->{name} - the laws hold", final => 1);
    return;
}

# Ends the node, however far it has come.
sub end {
    my ($self) = @_;
    my $node = $self->{node};
    close $_ for splice @{ $self->{connections} };
    return if $self->{over}++;
    return $node->down if WorkerManager::is_alive($node->master);
    my @left = $node->on_duty;
    $node->signal('QUIT', @left) if @left;
    $node->wait_for('the end of all', sub { !grep { WorkerManager::is_alive($_) } @left });
    return;
}

sub timeline {
    my ($self, $from, @timeline) = @_;
    my @events = $self->{node}->events;
    my @before = splice @events, 0, $from;
    my $size = WorkerManager::Timeline::size(@timeline);
    my @differences = WorkerManager::Timeline::differences(\@timeline, \@events, \@before, $self->{letters});
    push @differences, map { 'besides, it told ' . (WorkerManager::told($_))[0] }
        grep { $self->{acted_end} || $_->{event} !~ /^(?:worker_draining|worker_exit|master_exit)$/ }
        @events[ $size .. $#events ];
    is(join("\n", @differences), '', "$self->{name} - the timeline")
        or diag join "\n", 'told:', map { (WorkerManager::told($_))[0] . " of $_->{pid}" } @events;
    return;
}

# Compares the answers with the lines of a section, in which letters in brackets stand for pids.
sub texts {
    my ($self, $section, $is_pattern) = @_;
    my @lines = split /\n/, $self->expand($self->{block}->$section // return);
    my @answers = @{ $self->{answers} };
    is(scalar @answers, scalar @lines, "$self->{name} - so many answers");
    for my $line (@lines) {
        my %new;
        my $pattern = $is_pattern ? $line : quotemeta $line;
        $pattern =~ s{\\?<([A-Z])\\?>}{
            defined $self->{letters}{$1} ? $self->{letters}{$1} : $new{$1}++ ? "\\g{$1}" : "(?<$1>\\d+)"
        }ge;
        my $answer = shift @answers // '';
        like($answer, qr/\A$pattern\n?\z/, "$self->{name} - the answer");
        $self->{letters}{$_} = $+{$_} for $answer =~ /\A$pattern\n?\z/ ? keys %new : ();
    }
    return;
}

# Waits for a status in which a value is what it has to be.
sub status {
    my ($self, $path, $operator, $expected) = @_;
    my ($is, $text);
    $expected =~ s/<(.+)>/$self->pid($1)/e;
    my $holds = $self->{node}->wait_for("the status: $path $operator $expected", sub {
        my $answer = $self->ask->ask('/workers');
        return 0 unless $answer->{success};
        $text = $answer->{content};
        my $status = JSON::PP::decode_json($text);
        # A name is another value of it.
        my $other = $expected =~ /^[a-z_]+\./ ? value($status, $expected) : JSON::PP->new->allow_nonref->decode($expected);
        ($is, $other) = map { JSON::PP->new->allow_nonref->canonical->encode($_) } value($status, $path), $other;
        return $operator eq '=' ? $is eq $other : $operator eq '!=' ? $is ne $other
            : $is =~ /^[\d.]/ && ($operator eq '>' ? $is > $other : $is <= $other);
    });
    ok($holds, "$self->{name} - the status: $path $operator $expected") or diag $is;
    push @{ $self->{json}{status} }, $text if defined $text;
    return;
}

sub ask { return WorkerManager::Status->new($_[0]{node}{port}) }

sub value {
    my ($value, $path) = @_;
    for my $key (split /\./, $path) {
        return undef unless ref $value; ## no critic (ExplicitReturnUndef)
        $value = ref $value eq 'HASH' ? $value->{$key}
            : $key eq 'number' ? scalar @$value
            : $value->[ $key eq 'last' ? -1 : $key ];
    }
    return $value;
}

# One request, and what its answer has to be.
sub exchange {
    my ($self, $method, $path, $headers, $code, $not, $pattern) = @_;
    my %headers = map { split /:\s*/, $_, 2 } split /;\s+/, $headers // '';
    my $answer = $self->ask->ask($path, method => $method, headers => \%headers);
    my $name = "$self->{name} - $method $path";
    is($answer->{status}, $code, "$name: $code") or diag $answer->{content};
    my $content = $answer->{content} // '';
    my $text = join '', map { "$_: $answer->{headers}{$_}\n" } sort keys %{ $answer->{headers} };
    if (defined $pattern) {
        my $is = "$text\n$content" =~ /$pattern/ms;
        ok($not ? !$is : $is, "$name: " . ($not // '') . $pattern) or diag "$text\n$content";
    }
    push @{ $self->{json}{error} }, $content if $code >= 400 && $text =~ m{^content-type: application/json$}m;
    return;
}

# What a text in angle brackets stands for.
sub pid {
    my ($self, $text) = @_;
    return ($self->{node}->held)[0]{pid} if $text eq 'held';
    return $self->whom($text);
}

# What the log has to have and has not, and what it must not have.
sub logs {
    my ($self) = @_;
    my $log = $self->{node}->log;
    my @unsaid = $self->unmatched($log, $self->{block}->error_log);
    is("@unsaid", '', "$self->{name} - the log has it") if defined $self->{block}->error_log;
    for my $pattern (patterns($self->{block}->no_error_log)) {
        unlike($log, $pattern, "$self->{name} - the log has no $pattern");
    }
    return;
}

# The patterns of a section, each line of which is a text if it has none.
sub patterns {
    my (@content) = @_;
    return map { ref $_ eq 'ARRAY' ? patterns(@$_) : ref $_ ? $_ : map { qr/\Q$_\E/ } grep { /\S/ } split /\n/ }
        grep { defined } @content;
}

# Those that a text does not have.
sub unmatched {
    my ($self, $text, @content) = @_;
    return grep { $text !~ $_ } patterns(map { defined && !ref ? $self->expand($_) : $_ } @content);
}

# The worker that a step is about.
sub worker {
    my ($self, $index, $generation) = @_;
    my $node = $self->{node};
    $generation //= $self->generation;
    my %duty = map { $_ => 1 } $node->on_duty($generation);
    my ($worker) = grep { $_->{worker} eq $index && $duty{ $_->{pid} } } $node->kinds('worker_start', $generation);
    return $worker ? $worker->{pid} : die "$self->{name}: no worker $index in generation $generation\n";
}

sub generation { my @starts = $_[0]{node}->kinds('master_start'); return $starts[-1]{gen} }

sub whom {
    my ($self, $text) = @_;
    return $self->{node}->master if ($text // '') =~ /^(?:the master)?$/;
    my ($index, $generation) = $text =~ /^worker (\d+)(?: of generation (\d+))?$/
        or die "$self->{name}: nobody is $text\n";
    return $self->worker($index, $generation);
}

my $WHOM = qr/(?: (the master|worker \d+(?: of generation \d+)?))?/;
my @STEPS = (
    [ qr/reload/ => sub {
        my ($self, $node) = @_;
        my $next = $self->generation + 1;
        $node->reload_ready($next);
    } ],
    [ qr/reload fails/ => sub {
        my ($self, $node) = @_;
        my $times = 1 + $node->kinds('reload_failed');
        $node->signal('HUP');
        $node->wait_events('reload_failed', $times);
    } ],
    [ qr/configure ?(\w*)/ => sub {
        my ($self, $node, $suffix) = @_;
        $node->configure($self->configuration($suffix eq '' ? '' : "_$suffix"));
    } ],
    [ qr/(?:signal|kill) (\w+)$WHOM/ => sub {
        my ($self, $node, $signal, $whom) = @_;
        my $pid = $self->whom($whom);
        kill $signal, $pid;
        $node->wait_for('its death', sub { !WorkerManager::is_alive($pid) }) if $signal =~ /^(?:9|KILL)$/;
    } ],
    [ qr/stop$WHOM/ => sub { my ($self, $node, $whom) = @_; kill 'STOP', $self->whom($whom) } ],
    [ qr/continue$WHOM/ => sub { my ($self, $node, $whom) = @_; kill 'CONT', $self->whom($whom) } ],
    [ qr/hold a connection(?: to generation (\d+))?/ => sub {
        my ($self, $node, $generation) = @_;
        push @{ $self->{connections} }, $node->hold_connection($generation // $self->generation);
    } ],
    [ qr/keep a connection alive/ => sub {
        my ($self, $node) = @_;
        push @{ $self->{idle} }, $node->idle_connection;
    } ],
    [ qr/release the connection/ => sub { my ($self) = @_; close shift @{ $self->{connections} } } ],
    [ qr/release the connections/ => sub { my ($self) = @_; close $_ for splice @{ $self->{connections} } } ],
    [ qr/wait(?: (\d+))? (\w+_\w+)(?: (\d+))?/ => sub {
        my ($self, $node, $number, $kind, $generation) = @_;
        $node->wait_events($kind, $number // 1, $generation);
    } ],
    [ qr/wait (\w+_\w+) of (worker \d+(?: of generation \d+)?)/ => sub {
        my ($self, $node, $kind, $whom) = @_;
        $node->wait_event_of($kind, $self->whom($whom));
    } ],
    [ qr/wait for the end/ => sub {
        my ($self, $node) = @_;
        $node->wait_for('the end of the master', sub { $node->reap; !WorkerManager::is_alive($node->master) });
        $self->{over} = $self->{acted_end} = 1;
    } ],
    [ qr/wait for (?:(\d+) times )?(.+)/ => sub {
        my ($self, $node, $times, $text) = @_;
        $node->wait_for($text, sub { my @found = $node->log =~ /\Q$text\E/g; @found >= ($times // 1) });
    } ],
    [ qr/get (\S+)(?: until (.+))?/ => sub {
        my ($self, $node, $path, $until) = @_;
        my $body;
        $node->wait_for("an answer to $path", sub {
            my (undef, $content) = split /\r\n\r\n/, $node->get($path), 2;
            $body = $content;
            return defined $body && (!defined $until || $body =~ /\A$until\n?\z/);
        });
        ok(defined $body && $body =~ /\A$until\n?\z/, "$self->{name} - the answer to $path becomes $until") or diag $body
            if defined $until;
        push @{ $self->{answers} }, $body;
    } ],
    [ qr/([A-Z]+) (\S+)(?: \[(.+?)\])? (\d{3})(?: (not )?(.+))?/ => sub { my ($self, undef, @words) = @_; $self->exchange(@words) } ],
    [ qr/status (\S+) (=|!=|>|<=) (.+)/ => sub { my ($self, undef, @words) = @_; $self->status(@words) } ],
    [ qr/nginx (.+?)( fails)?/ => sub {
        my ($self, $node, $arguments, $fails) = @_;
        my ($status, $output) = $node->nginx(split ' ', $arguments);
        push @{ $self->{outputs} }, $output;
        ok($fails ? $status : !$status, "$self->{name} - nginx $arguments" . ($fails // '')) or diag $output;
    } ],
    [ qr/remove (\S+)/ => sub { my ($self, $node, $name) = @_; unlink $node->path($name) or die "$name: $!" } ],
    [ qr/(quit|terminate)/ => sub {
        my ($self, $node, $how) = @_;
        $node->down($how eq 'quit' ? 'QUIT' : 'TERM');
        $self->{over} = $self->{acted_end} = 1;
    } ],
);

sub step {
    my ($self, $step) = @_;
    $step =~ s/^\s+|\s+$//g;
    for my $known (@STEPS) {
        my ($pattern, $do) = @$known;
        next unless $step =~ /\A$pattern\z/;
        # Without groups a match in a list is 1.
        my @groups = @- > 1 ? $step =~ /\A$pattern\z/ : ();
        return $do->($self, $self->{node}, @groups);
    }
    die "$self->{name}: no step is \"$step\"\n";
}

1;
