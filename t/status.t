# worker_manager_status: what it says, and to whom.
use strict;
use warnings;
use JSON::PP ();
use Test::More;
use WorkerManager;
use WorkerManager::Status;

subtest 'the status says what is' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => 'interval 100ms; failed 500ms;');
    $node->up;
    my $answer = $status->ask('/workers');
    is($answer->{headers}{'content-type'}, 'application/json', 'JSON');
    is($answer->{headers}{'cache-control'}, 'no-store', 'not to be kept');
    my $is = $status->json;
    is($is->{node}{master}, $node->master, 'the master');
    is($is->{node}{generation}, 1, 'the generation');
    is($is->{node}{reload_token}, '1.0', 'what to wait for');
    is_deeply([ sort { $a <=> $b } map { $_->{pid} } @{ $is->{workers} } ], [ $node->on_duty ],
        'the workers');
    is_deeply([ map { $_->{worker} } @{ $is->{workers} } ], [ 0, 1 ], 'by index');
    is_deeply($is->{generations}[0]{workers},
        { running => 2, draining => 0, stuck => 0, hung => 0 }, 'by state');
    is($is->{generations}[0]{state}, 'ready', 'the generation is ready');
    is($is->{node}{seq}, $is->{events}[-1]{seq}, 'the newest event is the last');
    is_deeply([ @{ $is->{losses} }{qw(total recent)} ], [ 0, 0 ], 'nobody died');
    is($is->{callbacks}{worker_start}{runs}, 4, 'two callbacks ran for each start');
    # Who told that all are ready may not have let go of it then.
    $node->wait_for('nobody to hold the lock', sub {
        !grep { defined } @{ $status->json->{lock} }{qw(holder callback)} });
    $node->wait_for('connections to be shown', sub {
        !grep { !$_->{connections} } @{ $status->json->{workers} } });

    my @texts = ($answer->{content});
    my $held = $node->hold_connection(1);
    my ($busy) = map { $_->{pid} } $node->held;
    $node->wait_for('the connection to be shown', sub {
        my ($worker) = grep { $_->{pid} == $busy } @{ $status->json->{workers} };
        $worker->{connections}{active} > 0 });
    $node->reload_ready(2);
    $node->wait_events('worker_exit', 1, 1);
    my $draining = sub { my $is = $status->json; grep { $_->{state} eq 'draining' } @{ $is->{workers} } };
    $node->wait_for('a worker to drain', $draining);
    push @texts, $status->ask('/workers')->{content};
    $is = $status->json;
    is_deeply([ map { "@$_{qw(generation state age)}" } @{ $is->{generations} } ],
        [ '2 ready current', '1 retired previous' ], 'two generations');
    is($is->{workers}[2]{pid}, $busy, 'the old worker is last');
    ok($is->{workers}[2]{draining_since} > 1e9, 'since when it drains');
    is_deeply([ @{ $is->{node}{reloads} }{qw(succeeded failed last)} ], [ 1, 0, 'succeeded' ],
        'the reload succeeded');
    close $held;
    $node->wait_events('master_exit', 1, 1);

    my ($victim) = $node->on_duty(2);
    $node->signal('KILL', $victim);
    $node->wait_events('worker_start', 3, 2);
    my ($new) = ($node->kinds('worker_start', 2))[-1]{pid};
    $node->wait_for('the respawn to be shown', sub {
        grep { $_->{pid} == $new && $_->{respawns} == 1 } @{ $status->json->{workers} } });
    $is = $status->json;
    is_deeply([ @{ $is->{losses} }{qw(total recent)} ], [ 1, 1 ], 'one died');
    ok($is->{losses}{since} <= $is->{events}[0]{time}, 'since before that');
    my ($stopped) = $node->on_duty(2);
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    push @texts, $status->ask('/workers')->{content};
    is((grep { $_->{pid} == $stopped } @{ $status->json->{workers} })[0]{state}, 'hung', 'it hangs');
    $node->signal('CONT', $stopped);
    $node->wait_events('worker_recovered', 1);

    $node->configure(http => "$node->{http} no_such_directive on;");
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    $is = $status->json;
    is_deeply([ @{ $is->{node}{reloads} }{qw(succeeded failed last)} ], [ 1, 1, 'failed' ],
        'a reload failed');
    is($is->{node}{reload_token}, '2.1', 'which is in what to wait for');
    is($is->{node}{loading_since}, undef, 'and is over');
    push @texts, $status->ask('/workers')->{content};
    WorkerManager::Status::is_valid('all as in the schema', 'status', @texts);
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'one moment, whatever happens meanwhile' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 8, manager => 'interval 200ms; failed 2s;');
    $node->up;
    my @seen;
    for my $round (1 .. 12) {
        my @victims = ($node->on_duty)[ 0, 1 ];
        $node->signal('KILL', @victims);
        # Two of eight can't answer; the connection that they had is nobody's.
        push @seen, grep { $_ } map { eval { $status->json } } 1 .. 6;
        $node->signal('HUP') if $round % 4 == 0;
    }
    $node->wait_for('all to be told', sub { my $is = $status->json;
        $is && @{ $is->{generations} } == 1 && @{ $is->{workers} } == 8 });
    ok(@seen > 20, scalar(@seen) . ' answers');
    my @events = $node->events;
    my @wrong;
    for my $is (@seen) {
        my (%on_duty, %generations);
        for my $event (grep { $_->{seq} <= $is->{node}{seq} } @events) {
            my $kind = $event->{event};
            $generations{ $event->{gen} } = 1 if $kind eq 'master_start';
            delete $generations{ $event->{gen} } if $kind eq 'master_exit';
            $on_duty{ $event->{id} } = 1 if $kind eq 'worker_start';
            delete $on_duty{ $event->{id} } if $kind =~ /^worker_(?:exit|lost)$/;
        }
        my $expected = join ' ', sort(keys %on_duty), sort keys %generations;
        my $told = join ' ', sort(map { $_->{id} } @{ $is->{workers} }),
            sort map { $_->{generation} } @{ $is->{generations} };
        push @wrong, "at $is->{node}{seq}: $told instead of $expected" if $told ne $expected;
    }
    is_deeply(\@wrong, [], 'each is what the events up to it make');
    $node->down;
    $node->laws_hold('the laws hold', final => 1, gaps => 1);
};

subtest 'a callback that runs is shown and holds up no answer' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2);
    my $hook = $node->write('out/hook', <<"END", 0755);
#!/bin/sh
: > $node->{root}/out/begun
while [ -e $node->{root}/out/hold ]; do :; done
exit 3
END
    $node->configure(manager => "on worker_exit exec $hook;");
    $node->up;
    $node->write('out/hold', '');
    my $exiting = ($node->on_duty)[0];
    $node->signal('TERM', $exiting);
    $node->wait_for('the hook', sub { -e $node->path('out/begun') });
    my $is = $status->json;
    is($is->{lock}{holder}, $exiting, 'who holds the lock');
    is($is->{lock}{callback}{event}, 'worker_exit', 'for which event');
    is($is->{lock}{callback}{id}, "1-$exiting", 'of whom');
    is($is->{lock}{callback}{number}, 1, 'the first of three callbacks');
    WorkerManager::Status::is_valid('as in the schema', 'status', $status->ask('/workers')->{content});
    like($status->ask('/workers/metrics')->{content},
        qr/^nginx_worker_manager_callback_running_seconds [\d.]+$/m, 'the metrics say since when');
    unlink $node->path('out/hold');
    $node->wait_events('worker_start', 3);
    $is = $status->json;
    is($is->{callbacks}{worker_exit}{failures}, 1, 'it failed');
    is($is->{callbacks}{worker_exit}{runs}, 3, 'of three');
    ok($is->{callbacks}{worker_exit}{time} > 0, 'and took its time');
    $node->down;
};

subtest 'requests' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 1, server => <<'END');
        location ~ ^/regex/ { worker_manager_status; }
        location = /exact { worker_manager_status; }
        location /closed { worker_manager_status; deny all; }
        location /moved { rewrite ^ /workers/metrics; }
END
    $node->up;
    my $is = sub {
        my ($path, $code, $name, %options) = @_;
        my $answer = $status->ask($path, %options);
        is($answer->{status}, $code, $name);
        return $answer;
    };
    my $error = sub {
        my $answer = $is->(@_);
        WorkerManager::Status::is_valid("... which says why", 'error', $answer->{content});
        return JSON::PP::decode_json($answer->{content})->{error};
    };
    $is->($_, 200, $_) for '/workers', '/workers/', '/workers/metrics', '/regex/a/metrics', '/exact',
        '/moved', '/workers/wait?after=0';
    $error->($_, 404, $_) for '/workersandmore', '/workers/other', '/workers/metrics/';
    $is->('/closed/metrics', 403, 'what is closed is closed');
    for my $method (qw(POST PUT DELETE OPTIONS)) {
        my $answer = $is->('/workers', 405, $method, method => $method);
        is($answer->{headers}{allow}, 'GET, HEAD', 'what is allowed');
    }
    for my $path ('/workers', '/workers/metrics', '/workers/events') {
        my $answer = $is->($path, 200, "HEAD $path", method => 'HEAD');
        is($answer->{content} // '', '', 'no body');
    }
    like($error->('/workers/wait', 400, 'no generation'), qr/after is missing/, 'the reason');
    like($error->('/workers/wait?after=x"y', 400, 'no number'), qr/after is "x"y"/, 'the reason');
    like($error->('/workers/wait?after=1&until=x', 400, 'until'), qr/ready or done/, 'the reason');
    like($error->('/workers/wait?after=1&timeout=2d', 400, 'time'), qr/30s/, 'the reason');
    like($error->('/workers/events?after=-1', 400, 'event'), qr/number/, 'the reason');
    # As a URL for a browser has it, which would be told of it as JSON, too.
    for my $path ('/workers', '/workers/', '/workers/metrics', '/workers/events', '/workers/wait', '/exact') {
        like($error->("$path?format=json", 400, "an argument that $path doesn't know"),
            qr/^"format" is not an argument here/, 'which one');
    }
    $is->('/workers?', 200, 'no argument');
    $error->('/workers/events', 400, 'an id of no event', headers => { 'Last-Event-ID' => 'x' });

    my $html = 'text/html,application/xhtml+xml,*/*;q=0.8';
    my $page = $is->('/workers', 200, 'a browser', headers => { Accept => $html });
    is($page->{headers}{'content-type'}, 'text/html; charset=utf-8', 'gets the page');
    my ($nonce) = $page->{headers}{'content-security-policy'} =~ /script-src 'nonce-(\w+)'/;
    like($page->{content}, qr/<script nonce="$nonce">/, 'whose scripts it may run');
    unlike($page->{content}, qr/\@NONCE\@/, 'all of them');
    my $other = $status->ask('/workers', headers => { Accept => $html });
    unlike($other->{headers}{'content-security-policy'}, qr/$nonce/, 'each time anew');

    my $lines = $is->('/workers/events', 200, 'lines', headers => { Accept => 'application/x-ndjson' });
    is($lines->{headers}{'content-type'}, 'application/x-ndjson', 'are lines');
    is(scalar(split /\n/, $lines->{content}), 3, 'one for each event');
    WorkerManager::Status::is_valid('as in the schema', 'event', split /\n/, $lines->{content});
    my $none = $is->('/workers/events?after=3', 200, 'after the newest',
        headers => { Accept => 'application/x-ndjson' });
    is($none->{content} // '', '', 'there is nothing yet');
    my $later = $is->('/workers/events?after=18446744073709551615', 200, 'after one that never was',
        headers => { Accept => 'application/x-ndjson' });
    my ($gap, @all) = split /\n/, $later->{content};
    WorkerManager::Status::is_valid('a gap', 'missed', $gap);
    is(scalar(@all), 3, 'and all there is');
    is($node->log =~ /(\[(?:alert|crit|emerg)\]\N*|\[error\]\N*worker_manager\N*)/ ? $1 : '', '',
        'nothing of it in the error log');
    $node->down;
};

subtest 'metrics' => sub {
    my ($node, $status) = WorkerManager::Status::node(workers => 2);
    $node->up;
    $node->signal('SEGV', ($node->on_duty)[0]);
    $node->wait_events('worker_start', 3);
    $node->reload(2);
    $node->configure(http => "$node->{http} no_such_directive on;");
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    my $text = $status->ask('/workers/metrics');
    my $open = $status->ask('/workers/metrics',
        headers => { Accept => 'application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5' });
    like($text->{headers}{'content-type'}, qr{^text/plain; version=0\.0\.4}, 'the text format');
    like($open->{headers}{'content-type'}, qr{^application/openmetrics-text; version=1\.0\.0},
        'OpenMetrics');
    like($open->{content}, qr/# EOF\n\z/, 'which has an end');
    for my $answer ($text, $open) {
        for my $line (
            'generation 2.0', 'workers{generation="current",state="running"} 2',
            'worker_starts_total 5', 'worker_exits_total 2',
            'worker_losses_total{reason="signal 11"} 1', 'worker_respawns_total 1',
            'reloads_total{result="success"} 1', 'reloads_total{result="failure"} 1',
            'config_last_reload_successful 0.0',
            'callback_duration_seconds_count{event="worker_start"} 10',
        ) {
            like($answer->{content}, qr/^nginx_worker_manager_\Q$line\E$/m, $line);
        }
    }
    $node->down;
};

subtest 'the configuration' => sub {
    my $node = WorkerManager->new(manager => undef, log => 0,
        http => 'server { location / { worker_manager_status; } }');
    my ($code, $output) = $node->nginx('-t');
    is($code, 256, 'without the block');
    like($output, qr/"worker_manager_status" directive needs a "worker_manager" block in \N+nginx\.conf:\d+$/m,
        'is refused with file and line');
    for my $case (
        [ 'server { location / { worker_manager_status; worker_manager_status; } }', 'is duplicate' ],
        [ 'server { worker_manager_status; }', 'is not allowed here' ],
        [ 'server { location / { worker_manager_status on; } }', 'invalid number of arguments' ],
    ) {
        $node->configure(manager => '', http => $case->[0]);
        ($code, $output) = $node->nginx('-t');
        like($output, qr/$case->[1]\N+nginx\.conf:\d+$/m, $case->[1]);
    }
};

done_testing;
