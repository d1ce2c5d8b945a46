# The page for people, in a real browser on a real node: what it shows, and that it follows.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use WorkerManager;
use WorkerManager::Browser;

plan skip_all => 'no chromedriver, see auto/setup' unless WorkerManager::Browser::is_there();

my $port = WorkerManager::free_port();
# /mock is the real page with a snapshot and a stream from files, for states and texts that a node
# does not come into so soon.
my $node = WorkerManager->new(workers => 4);
# A callback that takes as long as a file is there.
my $slow = $node->path('out/slow');
$node->configure(manager => qq{interval 300ms; failed 30s; exec_timeout 60s;
    on worker_start exec /bin/sh -c "while test -e $slow; do sleep 0.05; done";});
my $HTTP = <<"END_HTTP";
    map \$http_accept \$mock { ~text/html page; default snapshot; }
    server {
        listen 127.0.0.1:$port;
        location /workers { worker_manager_status; }
        location = /mock { rewrite ^ /mock-\$mock last; }
        location = /mock-page { proxy_pass http://127.0.0.1:$port/workers; }
        location = /mock-snapshot { default_type application/json; alias $node->{root}/out/snapshot; }
        location = /mock/events { default_type text/event-stream; alias $node->{root}/out/stream; }
        location /else { return 200 "else\\n"; }
    }
END_HTTP
$node->configure(http => $HTTP);
$node->up;
my $browser = WorkerManager::Browser->new;
my $at = "http://127.0.0.1:$port";

# The workers that a generation's table shows: id => state, respawns.
sub rows {
    return $browser->run(<<'END_JS', $_[0]);
        const rows = document.querySelectorAll(`[aria-label="Workers of generation ${arguments[0]}"] tbody tr`);
        return Object.fromEntries([...rows].map((row) => [row.dataset.id, [row.dataset.state, row.lastChild.textContent]]));
END_JS
}

# The numbers of the events in the timeline, from the top.
sub timeline {
    return @{ $browser->run('return [...document.querySelectorAll("#events tbody tr:not(:has(.gap))")].map((row) => +row.dataset.seq)') };
}

sub newest { (sort { $b <=> $a } map { $_->{seq} } $node->events)[0] }

# Whether the timeline has every event so far once, the newest on top.
sub timeline_is_complete {
    my ($name) = @_;
    my $newest = newest();
    $browser->wait_for("event $newest", 'return document.querySelector(`#events tr[data-seq="${arguments[0]}"]`)', $newest);
    is_deeply([ timeline() ], [ reverse 1 .. $newest ], $name);
}

# The workers that have no connection to the browser.
sub without_connection {
    my $hex = sprintf '%04X', $port;
    open my $file, '<', '/proc/net/tcp' or die $!;
    my $ESTABLISHED = '01';
    my %sockets = map { ((split)[9] => 1) } grep { / \w+:$hex \w+:\w+ $ESTABLISHED / } <$file>;
    return grep {
        !grep { (readlink($_) // q()) =~ /^socket:\[(\d+)\]/ && $sockets{$1} } glob "/proc/$_/fd/*"
    } $node->on_duty;
}

# Whether the browser has found nothing to complain of but what is given.
sub no_complaints {
    my ($but) = @_;
    is_deeply([ grep { !defined $but || !/$but/ } $browser->complaints ], [], 'the console is empty');
}

sub mock {
    my ($snapshot, @events) = @_;
    $snapshot->{node}{seq} = $events[-1]{seq} if @events;
    $node->write('out/snapshot', encode_json($snapshot));
    my $gap = encode_json({ after => 20, next => @events ? $events[0]{seq} : 21 });
    $node->write('out/stream', join '', "retry: 60000\n\nevent: gap\ndata: $gap\n\n",
        map { "id: $_->{seq}\ndata: " . encode_json($_) . "\n\n" } @events);
}

# A snapshot as the node gives it.
sub snapshot {
    my ($head, $body) = split /\r\n\r\n/, $node->get('/workers', $port), 2;
    return decode_json($body);
}

subtest 'a healthy node' => sub {
    $browser->open("$at/workers");
    $browser->wait_text('#headline', qr/^All well$/);
    $browser->wait_text('#link', qr/^Live$/);
    is($browser->text('#generation'), '1', 'generation');
    is($browser->text('#reload'), 'None yet', 'last reload');
    is($browser->text('#running'), '4 of 4', 'workers');
    is_deeply(rows(1), { map { +"1-$_" => [ 'running', '0' ] } $node->on_duty }, 'each in its row');
    $browser->wait_text('#connections', qr/^\d+ active$/);
    like($browser->run('return document.title'), qr/^All well/, 'the title says it too');
    is($browser->text('#spoken-verdict'), 'All well', 'and it is read out');
    timeline_is_complete('the events');
    no_complaints();
};

subtest 'a reload with an old worker that drains' => sub {
    my $held = $node->hold_connection(1);
    my ($old) = map { $_->{pid} } $node->held;
    $node->reload_ready(2);
    $browser->wait_text('#headline', qr/^Draining$/);
    $browser->wait_text('#generation', qr/^2$/);
    $browser->wait_text('#reload', qr/^Succeeded$/);
    $browser->wait_text('#running-more', qr/^and 1 old one$/);
    is_deeply(rows(1), { "1-$old" => [ 'draining', '0' ] }, 'the old worker');
    is_deeply(rows(2), { map { +"2-$_" => [ 'running', '0' ] } $node->on_duty(2) }, 'the new ones');
    # The stream was one of an old worker's.
    $browser->wait_text('#link', qr/^Live, back since/);
    timeline_is_complete('nothing is lost over the reload');
    if (my $path = $ENV{WORKER_MANAGER_SCREENSHOT}) {
        $browser->size(1280, 620);
        $browser->wait_for('what is new to fade', 'return !document.getAnimations().length');
        $browser->screenshot($path);
        $browser->size(1280, 900);
        cmp_ok(-s $path, '<', 150_000, 'the screenshot is small');
    }
    close $held;
    $node->signal('TERM', $old);
    $browser->wait_text('#headline', qr/^All well$/);
    is($browser->run('return document.querySelectorAll("#workers > details").length'), 1, 'its generation is gone');
    no_complaints('net::ERR_');
};

subtest 'a worker that is killed' => sub {
    my ($victim, @others) = $node->on_duty(2);
    $browser->run('for (const row of document.querySelectorAll("#workers tr")) row.seen = true');
    $node->signal('KILL', $victim);
    $browser->wait_text('#headline', qr/^1 worker died in the last 5 minutes$/);
    $browser->wait_text('#more', qr/^2-$victim: signal 9, .* ago$/);
    $browser->wait_text('#running', qr/^4 of 4$/);
    my $rows = rows(2);
    is($rows->{"2-$victim"}, undef, 'its row is gone');
    my ($new) = grep { !/-(?:$victim|@{[ join '|', @others ]})$/ } keys %$rows;
    is_deeply($rows->{$new}, [ 'running', '1' ], 'its successor has one');
    is($browser->run('return [...document.querySelectorAll("#workers tbody tr")].filter((row) => row.seen).length'),
        3, 'the other rows are the same elements as before');
    like($browser->text('#events'), qr/worker_lost\s+2-$victim\s+worker \d died: signal 9/, 'told in the timeline');
    timeline_is_complete('the events');
    no_complaints('net::ERR_');
};

subtest 'a reload that fails' => sub {
    # nginx tries for two and a half seconds to get a socket that another one has.
    my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
    $node->configure(http => "$HTTP server { listen 127.0.0.1:@{[ $taken->sockport ]}; }");
    $node->signal('HUP');
    $browser->wait_text('#more', qr/^Reloading: the master has been reading the configuration for /m);
    # The worker that was killed is worse.
    $browser->wait_text('#more', qr/^Last reload failed: .*; generation 2 stays/m);
    is($browser->text('#reload'), 'Failed', 'the last reload');
    is($browser->text('#generation'), '2', 'the generation');
    $node->configure(http => $HTTP);
    $node->reload(3);
    $browser->wait_text('#generation', qr/^3$/);
    $browser->wait_text('#reload', qr/^Succeeded$/);
    timeline_is_complete('the events');
    no_complaints('net::ERR_');
};

subtest 'nginx is stopped and comes back' => sub {
    my $old = newest();
    $node->down;
    $browser->wait_text('#link', qr/^Server lost [\d:]+, .* ago; trying again$/);
    is($browser->text('#headline'), 'No contact', 'nothing is said to be well');
    like($browser->text('#more'), qr/^the server can't be reached\nwhat is below was seen/, 'why');
    $node->laws_hold('the laws hold', final => 1);
    unlink $node->path('logs/error.log') or die $!;
    $node->up;
    cmp_ok(newest(), '<', $old, 'its events are numbered anew');
    $browser->wait_text('#headline', qr/^All well$/);
    $browser->wait_text('#link', qr/^Live, back since [\d:]+ after/);
    is($browser->text('#generation'), '1', 'the first generation');
    like($browser->text('#events .gap'), qr/another history begins$/, 'which is said');
    is_deeply(rows(1), { map { +"1-$_" => [ 'running', '0' ] } $node->on_duty }, 'the new workers');
    timeline_is_complete('none of the events before');
    no_complaints('net::ERR_');
};

subtest 'a stream of another history' => sub {
    my $snapshot = snapshot();
    mock($snapshot);
    $browser->open("$at/mock");
    $browser->wait_text('#headline', qr/^All well$/);
    $browser->wait_for('the events', 'return document.querySelector("#events tbody tr:not(:has(.gap))")');
    # Told before the next snapshot.
    my $other = { %$snapshot, node => { %{ $snapshot->{node} }, history => 'f' x 16 }, events => [] };
    mock($other);
    $node->write('out/stream', qq(retry: 60000\n\nevent: restart\ndata: {"history":"@{[ 'f' x 16 ]}"}\n\n));
    $browser->run('window.snapshot_before = snapshot; window.snapshot = () => new Promise(() => {}); listen()');
    $browser->wait_text('#events .gap', qr/another history begins$/);
    is_deeply([ timeline() ], [], 'the events before are gone');
    no_complaints();
};

subtest 'other answers' => sub {
    my $snapshot = snapshot();
    mock($snapshot);
    $browser->open("$at/mock");
    $browser->wait_text('#headline', qr/^All well$/);
    # One failure is none yet: a worker may have died with the request.
    $browser->run('window.snapshot_before = snapshot; window.snapshot = () => {
        window.snapshot = window.snapshot_before;
        return Promise.reject(new Error("once"));
    }; link.reason = ""; ask()');
    $browser->wait_for('another try', 'return failures === 0 && window.snapshot === window.snapshot_before');
    is($browser->run('return link.reason'), '', 'one failure is none yet');
    unlink $node->path('out/snapshot');
    $browser->run('ask()');
    $browser->wait_text('#more', qr/^the server answers 404/);
    is($browser->text('#headline'), 'No contact', 'nothing is said to be well');
    $node->write('out/snapshot', 'else');
    $browser->run('ask()');
    $browser->wait_text('#more', qr/^the server answers with something else/);
    mock($snapshot);
    $browser->run('ask()');
    $browser->wait_text('#headline', qr/^All well$/);
    no_complaints('404');
};

# How serious the verdict is, and what it says.
sub verdict {
    return join ' ', $browser->run('return document.querySelector("#verdict").className'), $browser->text('#headline');
}

subtest 'a storm of deaths' => sub {
    my $snapshot = snapshot();
    my $now = $snapshot->{node}{time};
    $snapshot->{losses} = { total => 5000, recent => 1234, since => $now - 300 };
    # More than the page keeps.
    mock($snapshot, map { +{ %{ $snapshot->{events}[0] }, seq => 500 + $_, time => $now - 1, event => 'worker_lost',
        worker => 1, id => "1-$_", reason => 'signal 11', core => JSON::PP::false } } 1 .. 300);
    $browser->open("$at/mock");
    $browser->wait_text('#headline', qr/workers died/);
    is(verdict(), 'bad 1234 workers died in the last 5 minutes', 'as many as there were, in red');
    $browser->wait_text('#more', qr/^1-300: signal 11, .* ago$/);
    $snapshot->{losses}{since} = $now - 40;
    mock($snapshot);
    $browser->run('ask()');
    $browser->wait_text('#headline', qr/^1234 workers died in the last 40\s+s$/);
    pass('in the time that is remembered');
    no_complaints();
};

# Changes what the page is shown, and waits for its verdict.
sub shows {
    my ($snapshot, $expected, $name) = @_;
    mock($snapshot);
    $browser->run('ask()');
    $browser->wait_for($name, 'return document.querySelector("#verdict").className + " " +
        document.querySelector("#headline").innerText === arguments[0]', $expected);
    is(verdict(), $expected, $name);
}

subtest 'workers that are not counted' => sub {
    my $snapshot = snapshot();
    my $current = $snapshot->{generations}[0];
    mock($snapshot);
    $browser->open("$at/mock");
    # All of the new generation are there, and the zone has room for one of them. Nothing else will come.
    @{ $snapshot->{node}{reloads} }{qw(last succeeded succeeded_at)} = ('succeeded', 1, $snapshot->{node}{time} - 100);
    @$current{qw(state ready_after started)} = ('starting', undef, $snapshot->{node}{time} - 100);
    $current->{workers}{running} = 1;
    $snapshot->{zone}{uncounted} = 3;
    shows($snapshot, 'warn 3 workers not counted', 'it says so');
    is($browser->text('#reload'), 'Succeeded', 'the reload is over');
    unlike($browser->text('#verdict'), qr/Reloading|start/, 'and not said to go on');
    is($browser->text('#running-more'), 'and 3 not counted', 'the workers');
    # A warning is before what is under way.
    ($current->{workers}{running}, $current->{started}) = (0, $snapshot->{node}{time} - 1);
    mock($snapshot);
    $browser->run('ask()');
    $browser->wait_text('#more', qr/^Reloading: generation 1 has 0 of 4 workers$/m);
    $browser->wait_text('#reload', qr/^Under way$/);
    $snapshot->{zone}{uncounted} = 4;
    shows($snapshot, 'warn 4 workers not counted', 'none has found room');
    @$current{qw(state ready_after)} = ('ready', 0.1);
    shows($snapshot, 'warn 4 workers not counted', 'nor does later any');
    no_complaints();
};

subtest 'a reload that takes long' => sub {
    my $snapshot = snapshot();
    my ($node, $current) = ($snapshot->{node}, $snapshot->{generations}[0]);
    # The page counts on from the time of the snapshot.
    my $since = sub { $node->{time} - $_[0] };
    my $shows = sub { shows($snapshot, @_) };
    mock($snapshot);
    $browser->open("$at/mock");
    @{ $node->{reloads} }{qw(last succeeded succeeded_at)} = ('succeeded', 1, $since->(100));
    $node->{loading_since} = $since->(1);
    $shows->('busy Reloading', 'it is read');
    $browser->wait_text('#reload', qr/^Under way$/);
    $node->{loading_since} = $since->(11);
    $shows->('warn Reload takes long', 'for 11 seconds');
    $node->{loading_since} = undef;
    @$current{qw(state started)} = ('starting', $since->(1));
    $current->{workers}{running} = 3;
    $shows->('busy Reloading', 'its workers start');
    $browser->wait_text('#reload', qr/^Under way$/);
    $current->{started} = $since->(31);
    $shows->('warn Workers are slow to start', 'for 31 seconds');
    $current->{state} = 'ready';
    $current->{workers}{running} = 4;
    $shows->('ok All well', 'it is complete');
    $browser->wait_text('#reload', qr/^Succeeded$/);
    no_complaints();
};

subtest 'everything at once, in both schemes and on a phone' => sub {
    my $snapshot = snapshot();
    my $now = $snapshot->{node}{time};
    my ($one, $two, $three) = @{ $snapshot->{workers} };
    my $old = { %{ $snapshot->{generations}[0] }, generation => 0, state => 'retired', age => 'previous',
        workers => { running => 0, draining => 1, stuck => 1, hung => 0 } };
    push @{ $snapshot->{generations} }, $old;
    push @{ $snapshot->{workers} },
        { %$one, id => '0-1', generation => 0, state => 'draining', draining_since => $now - 90 },
        { %$two, id => '0-2', generation => 0, state => 'stuck', draining_since => $now - 7200 };
    @$three{qw(state pid age heartbeat_age respawns connections)} =
        ('hung', 4194304, 3500, 40, 12, { active => 1024, idle => 512 });
    $snapshot->{generations}[0]{workers} = { running => 3, draining => 0, stuck => 0, hung => 1 };
    $snapshot->{node}{master_lost} = JSON::PP::true;
    $snapshot->{node}{reloads}{$_} = $now - 60 for qw(failed_at succeeded_at);
    $snapshot->{node}{reloads}{last} = 'failed';
    $snapshot->{lock} = { holder => 77,
        callback => { event => 'worker_start', id => '1-77', seq => 5, number => 2, running => 12.25 } };
    $snapshot->{zone}{workers}{used} = $snapshot->{zone}{workers}{total};
    $snapshot->{losses} = { total => 1, recent => 1, since => $now - 300 };
    mock($snapshot, { %{ $snapshot->{events}[0] }, seq => 500, time => $now, event => 'worker_lost', worker => 1,
        id => '1-88', reason => 'oom', core => JSON::PP::false });
    $browser->open("$at/mock");
    $browser->wait_text('#headline', qr/^Master lost$/);
    $browser->wait_text('#more', qr/^1 worker died in the last 5 minutes: 1-88: oom/m);
    like($browser->text('#more'), $_, "$_ too") for
        qr/^1 worker hung: /m,
        qr/^A callback runs for 12\s+s: number 2 of worker_start for 1-77, in process 77/m,
        qr/^Last reload failed: 1\.0\s+min ago/m, qr/^1 worker stuck: /m, qr/^Zone nearly full: /m, qr/^Draining: 1 old worker/m;
    is($browser->text('#events .gap'), 'events 21 to 499 are not remembered any more', 'a gap in the history');
    $browser->run('document.querySelector("#rest").open = true');
    for my $width (360, 1280) {
        $browser->size($width, 900);
        cmp_ok($browser->run('return document.documentElement.scrollWidth'), '<=', $width, "$width pixels are enough");
    }
    $browser->size(360, 900);
    is($browser->run('return [...document.querySelectorAll(".scroll")].filter((part) => part.scrollWidth > part.clientWidth).length'),
        0, 'no table is cut off on a phone');
    for my $scheme (qw(light dark)) {
        $browser->scheme($scheme);
        is_deeply($browser->run(<<'END_JS'), [], "every text can be told from its ground, $scheme");
            const channels = (color) => color.match(/[\d.]+/g).map(Number);
            const light = (color) => channels(color).slice(0, 3).map((c) => c / 255)
                .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
            const ground = (node) => {
                const color = getComputedStyle(node).backgroundColor;
                return channels(color)[3] === 0 ? ground(node.parentElement) : color;
            };
            const texts = [...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() &&
                [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
            return texts.filter((node) => {
                const [a, b] = [getComputedStyle(node).color, ground(node)].map(light).sort((a, b) => b - a);
                return (a + 0.05) / (b + 0.05) < 4.5;
            }).map((node) => `${node.outerHTML} ${getComputedStyle(node).color} ${ground(node)}`);
END_JS
    }
    $browser->scheme('light');
    $browser->size(1280, 900);
    no_complaints();
};

subtest 'by keyboard' => sub {
    $browser->open("$at/workers");
    $browser->wait_text('#link', qr/^Live/);
    my @reached;
    for (1 .. 12) {
        $browser->press('Tab');
        push @reached, $browser->run(<<'END_JS');
            const node = document.activeElement, style = getComputedStyle(node);
            return [node.id || node.className || node.localName, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
END_JS
        last if $reached[-1][0] eq 'metrics';
    }
    is_deeply([ map { $_->[0] } @reached ], [ 'skip', 'summary', 'scroll', 'scroll', 'summary', 'metrics' ], 'the order');
    is_deeply([ grep { !$_->[1] } @reached ], [], 'it is seen where one is');
    $browser->run('document.querySelector("#workers summary").focus()');
    $browser->press('Enter');
    $browser->wait_for('the table to close', 'return !document.querySelector("#workers > details").open');
    $node->signal('KILL', ($node->on_duty)[0]);
    $browser->wait_text('#headline', qr/^1 worker died/);
    ok(!$browser->run('return document.querySelector("#workers > details").open'), 'it stays closed');
    is($browser->run('return document.activeElement.localName'), 'summary', 'and the focus where it was');
    no_complaints('net::ERR_');
};

subtest 'a page that nobody looks at' => sub {
    $browser->open("$at/workers");
    $browser->wait_text('#link', qr/^Live$/);
    my $hide = 'Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event("visibilitychange"))';
    $browser->run($hide, JSON::PP::true);
    ok($browser->run('return source === null'), 'it has no stream');
    my $before = () = $node->kinds('worker_start');
    $node->signal('KILL', ($node->on_duty)[0]);
    $node->wait_events('worker_start', $before + 1);
    $browser->run($hide, JSON::PP::false);
    timeline_is_complete('and learns what happened meanwhile');
    $browser->wait_text('#link', qr/^Live$/);
    no_complaints();
};

subtest 'a callback that takes long' => sub {
    $browser->open("$at/workers");
    $browser->wait_text('#link', qr/^Live$/);
    $browser->run(<<'END_JS');
        window.links = [];
        new MutationObserver(() => window.links.push(document.querySelector("#link").innerText))
            .observe(document.querySelector("#link"), { subtree: true, childList: true, characterData: true });
END_JS
    $node->write('out/slow', '');
    my ($free) = without_connection();
    my $before = () = $node->kinds('worker_start');
    $node->signal('KILL', $free);
    # The page asks every 2 s, so there is no second that it surely shows.
    $browser->wait_text('#verdict', qr/A callback runs for (?:[7-9]\.\d|\d\d)\s+s.*number 1 of worker_start for 1-\d+, in process/s);
    unlink $slow or die $!;
    $node->wait_events('worker_start', $before + 1);
    timeline_is_complete('then all is told');
    $browser->wait_for('it to be over', 'return !document.querySelector("#verdict").innerText.includes("callback")');
    is_deeply($browser->run('return window.links'), [], 'and meanwhile the stream was not given up');
    no_complaints();
};

subtest 'the worker that the page hangs on is stopped' => sub {
    $browser->open("$at/workers");
    $browser->wait_text('#link', qr/^Live$/);
    my ($victim) = without_connection();
    my @others = grep { $_ != $victim } $node->on_duty;
    my $before = () = $node->kinds('worker_start');
    $node->signal('STOP', $victim, @others);
    $node->signal('KILL', $victim);
    # Its successor is the only one that answers.
    $node->wait_events('worker_start', $before + 1);
    timeline_is_complete('the page finds it');
    # Its stream is still open and silent, until the page notices what it was not told.
    $browser->wait_for('another stream', 'return behind === 0 && source.readyState === EventSource.OPEN');
    $browser->wait_text('#link', qr/^Live, back since/);
    $browser->run('window.ask = () => {}');
    $victim = shift @others;
    $node->signal('KILL', $victim);
    $node->wait_events('worker_start', $before + 2);
    timeline_is_complete('the stream tells again');
    $node->signal('CONT', @others);
    $browser->open("$at/workers");
    $browser->wait_text('#running', qr/^4 of 4$/);
    no_complaints('net::ERR_');
};

subtest 'nothing that is told becomes markup' => sub {
    my $evil = '<img src=x onerror=\'document.title="owned"\'><script>document.title="owned"</script>"\'&';
    my $snapshot = snapshot();
    $_->{version} = $_->{nginx} = $evil for $snapshot->{node};
    $snapshot->{node}{reloads}{last} = $evil;
    $_->{state} = $_->{id} = $_->{respawns} = $evil for @{ $snapshot->{workers} };
    $_->{state} = $_->{age} = $evil for @{ $snapshot->{generations} };
    $snapshot->{callbacks}{$evil} = { runs => $evil, failures => $evil, time => 1 };
    mock($snapshot, { %{ $snapshot->{events}[0] }, seq => 500, event => 'worker_lost', id => $evil, reason => $evil },
        { %{ $snapshot->{events}[0] }, seq => 501, event => $evil, pid => $evil });
    $browser->open("$at/mock");
    $browser->wait_for('the last event', 'return document.querySelector("#events tr[data-seq=\'501\']")');
    $browser->run('document.querySelector("#rest").open = true');
    for my $part ('#node', '#reload', '#workers summary', '#workers tbody', '#events', '#callbacks') {
        like($browser->text($part), qr/\Q$evil\E/i, "$part has it as text");
    }
    is($browser->run('return document.querySelectorAll("img, script:not([nonce])").length'), 0, 'and nothing as markup');
    unlike($browser->run('return document.title'), qr/owned/, 'nothing ran');
    no_complaints();
    # If it did become markup, the policy would stand in the way.
    $browser->run('document.body.insertAdjacentHTML("beforeend", arguments[0])', $evil);
    $browser->wait_for('the image to be refused', 'return document.images.length');
    like(join("\n", $browser->complaints), qr/Content Security Policy/, 'the policy refuses it');
    unlike($browser->run('return document.title'), qr/owned/, 'nothing ran');
};

subtest '512 workers, and more events than are kept' => sub {
    my $snapshot = snapshot();
    my $worker = $snapshot->{workers}[0];
    $snapshot->{workers} = [ map { +{ %$worker, worker => $_, pid => 1000 + $_, id => '1-' . (1000 + $_) } } 0 .. 511 ];
    @{ $snapshot->{workers}[77] }{qw(state heartbeat_age)} = ('hung', 40);
    $snapshot->{generations}[0]{workers} = { running => 511, draining => 0, stuck => 0, hung => 1 };
    $snapshot->{generations}[0]{expected} = 512;
    mock($snapshot, map { +{ %{ $snapshot->{events}[0] }, seq => 1000 + $_ } } 1 .. 300);
    $browser->open("$at/mock");
    $browser->wait_text('#running', qr/^511 of 512$/);
    is(scalar keys %{ rows(1) }, 512, 'rows');
    $browser->wait_for('the last event', 'return document.querySelector("#events tr[data-seq=\'1300\']")');
    is_deeply([ timeline() ], [ reverse 1101 .. 1300 ], 'the newest 200 events');
    $browser->run(<<'END_JS');
        window.built = 0;
        new MutationObserver((records) => window.built += records.filter((r) => r.target.localName === "tbody").length)
            .observe(document.querySelector("#workers"), { subtree: true, childList: true });
END_JS
    my $seen = $browser->text('#seen');
    $snapshot->{node}{time} += 5;
    $_->{heartbeat_age} += 5 for @{ $snapshot->{workers} };
    mock($snapshot);
    $browser->run('ask()');
    $browser->wait_for('the next snapshot', 'return document.querySelector("#seen").innerText !== arguments[0]', $seen);
    is($browser->run('return window.built'), 0, 'updated in place');
    $browser->run('document.querySelector("#hide-running").click()');
    is($browser->run('return [...document.querySelectorAll("#workers tbody tr")].filter((row) => row.checkVisibility()).length'),
        1, 'the one that does not run is found by hiding the others');
    no_complaints();
};

$browser->close;
$node->down;
$node->laws_hold('the laws hold', final => 1);
done_testing;
