# Chaos on a real nginx: a short run of seeds that are always the same, and whether its check finds the
# faults it is there for. CHAOS_SECONDS and CHAOS_SEEDS ask for longer runs, of other seeds; what nodes with
# faults have left stays if it is in a folder that CHAOS_ROOT names.
use strict;
use warnings;
use lib 'chaos/lib';
use JSON::PP ();
use Storable qw(dclone);
use Test::More;

use Chaos;
use WorkerManager::Scratch;

$ENV{CHAOS_OBJS} = $ENV{WORKER_MANAGER_OBJS} || 'objs';
$ENV{CHAOS_ROOT} ||= WorkerManager::Scratch::folder('chaos');
mkdir $ENV{CHAOS_ROOT};

sub script {
    my ($seed) = @_;
    my $script = Chaos::Script->new($seed, 1);
    return map { Chaos::Script::text($script->next) } 1 .. 50;
}
is_deeply([ script(7) ], [ script(7) ], 'a seed is the same actions each time');
isnt(join("\n", script(7)), join("\n", script(8)), 'another seed is others');

# A node to which nothing happens but what is asked for.
my $load = { workers => 2, interval => '1s', failed => '1s', programs => [], stuck => 0 };

sub quiet_node {
    my $node = Chaos::Node->new(root => "$ENV{CHAOS_ROOT}/quiet", objs => $ENV{CHAOS_OBJS},
        node => { workers => 2, zone => '256k', end => 'QUIT', orphans => 'QUIT' }, on_disk => 1);
    $node->start($load);
    $node->wait_for('workers', sub { my %duty = $node->on_duty; keys %duty == 2 });
    return $node;
}

# Its end, and the record of it.
sub over {
    my ($node) = @_;
    Chaos::Actors::end($node, bless { node => $node->{node}, state => 1 }, 'Chaos::Script');
    $node->finish;
    my $record = Chaos::Record::of($node->{root});
    $node->clean;
    return $record;
}

# What is planted in this record is the only fault there.
my $record = do {
    my $node = quiet_node();
    my $action = { load => $load, victims => [ 0 .. 7 ], ms => 1 };
    Chaos::Actors::do_kill($node, $action);
    Chaos::Actors::do_settle($node, $action);
    Chaos::Actors::do_reload($node, $action);
    Chaos::Actors::do_settle($node, $action);
    Chaos::Actors::do_reload_syntax($node, $action);
    $node->wait_for('the failure', sub { $node->read('marks') =~ /end .* reload_failed/ });
    over($node);
};
my ($faults, $seen) = Chaos::Check::faults($record);
is_deeply($faults, [], 'a node without faults has none');
is_deeply([ @$seen{ 'reloads', 'failed reloads', 'quiet moments', 'statuses' } ], [ 1, 1, 2, 2 ],
    'and what happened is seen');
cmp_ok($seen->{'counts in answers'}, '>', 20, 'answers say how many workers run');
cmp_ok($seen->{requests}, '>', 20, 'it was under load');
like($record->{source}, qr/^(?:connector|proc)$/, 'and was traced');

# Without the kernel's process connector, which needs root, /proc is polled, and there are no statuses.
my $exact = $record->{source} eq 'connector';
is($seen->{losses}, 1, 'and what the kernel tells of deaths') if $exact;

# Plants a fault in a copy of the record and says what the check has to find.
sub finds {
    my ($name, $plant, $expected) = @_;
    my $copy = dclone($record);
    $plant->($copy);
    my ($faults) = Chaos::Check::faults($copy);
    ok(scalar(grep { /$expected/ } @$faults), "it finds $name") or diag join "\n", 'found:', @$faults;
}

# The events of a kind, in all three records of them.
sub of_kind {
    my ($r, $kind) = @_;
    my ($seq) = sort { $a <=> $b } map { $_->{seq} } grep { $_->{event} eq $kind } values %{ $r->{events} };
    return grep { $_->{seq} == $seq } values %{ $r->{events} }, @{ $r->{logged} }, @{ $r->{marks} };
}

sub forget {
    my ($r, $seq) = @_;
    delete $r->{events}{$seq};
    @{ $r->{$_} } = grep { $_->{seq} != $seq } @{ $r->{$_} } for qw(logged marks);
}

# Changes what the status at the last quiet moment said.
sub status {
    my ($r, $change) = @_;
    my ($last) = reverse Chaos::Record::done($r, 'status');
    my $status = JSON::PP::decode_json($last->{rest});
    $change->($status);
    $last->{rest} = JSON::PP::encode_json($status);
}

# Another event at the end, in the event log alone, and its number.
sub add_event {
    my ($r, %event) = @_;
    my $seq = keys(%{ $r->{events} }) + 1;
    my %none = map { $_ => '-' } qw(prev mine next older worker reason respawn_of);
    my $before = $r->{events}{ $seq - 1 };
    @none{qw(left stopping history)} = @$before{qw(left stopping history)};
    $r->{events}{$seq} = { %none, seq => $seq, gen => 2, pid => $r->{master}, id => 2, %event };
    return $seq;
}

finds('a line missing in the event log',
    sub { delete $_[0]{events}{4} }, qr/1 lines are missing in the event log \(4\), 0 are said/);
finds('an event missing everywhere', sub { forget($_[0], 4) }, qr/seq 5 instead of 4/);
finds('an end told twice', sub {
    my ($r) = @_;
    my ($lost) = of_kind($r, 'worker_lost');
    add_event($r, map { $_ => $lost->{$_} } grep { $_ ne 'seq' } keys %$lost);
}, qr/worker_lost .*: ended before/);
finds('a start without end', sub {
    my ($r) = @_;
    my ($exit) = of_kind($r, 'worker_exit');
    forget($r, $exit->{seq});
}, qr/worker \S+ never ended/);
finds('a count that jumps', sub { $_->{mine}++ for of_kind($_[0], 'worker_lost') },
    qr/worker_lost .*: n_mine is 3, not 2/);
finds('a count of what is left that does not fit', sub { $_->{left}++ for of_kind($_[0], 'worker_lost') },
    qr/worker_lost .*: n_left is 2, not 1/);
finds('a place that was not free', sub {
    my ($r) = @_;
    my ($other) = grep { $_->{event} eq 'worker_exit' } values %{ $r->{events} };
    $_->{respawn_of} = $other->{pid} for of_kind($r, 'worker_start');
}, qr/worker_start .*: in the place of/);
finds('a node that stops and goes on', sub { $_->{stopping} = 1 for of_kind($_[0], 'worker_start') },
    qr/worker_start .*: stopping 1/);
finds('a node that does not know that it stops', sub {
    my ($r) = @_;
    $_->{stopping} = 0 for values %{ $r->{events} }, @{ $r->{logged} }, @{ $r->{marks} };
}, qr/the last event does not know/);
finds('another history', sub { $_->{history} =~ tr/0/1/ for of_kind($_[0], 'worker_lost') },
    qr/worker_lost .*: history \w+, not/);
finds('records that differ', sub { (of_kind($_[0], 'worker_lost'))[1]{mine}++ }, qr/mine is 2 and 3/);
finds('callbacks that overlap', sub {
    my ($r) = @_;
    my ($begun) = grep { $_->{phase} eq 'begin' && $_->{event} eq 'worker_start' } @{ $r->{marks} };
    my ($next) = grep { $_->{phase} eq 'begin' && $_->{seq} == $begun->{seq} + 1 } @{ $r->{marks} };
    my ($end) = grep { $_->{phase} eq 'end' && $_->{seq} == $begun->{seq} } @{ $r->{marks} };
    $end->{at} = $next->{at} + 0.00001;
}, qr/in process \d+ while process \d+ was at event|begins while event \d+ has not ended/);
finds('a callback that runs twice', sub {
    my ($r) = @_;
    push @{ $r->{logged} }, $r->{logged}[2];
}, qr/callback "log" of event 3, .* ran 2 times/);
finds('a callback that does not run', sub { splice @{ $_[0]{logged} }, 2, 1 },
    qr/callback "log" of event 3, .* did not run/);
if ($exact) {
    finds('a worker that nobody told of', sub {
        my ($r) = @_;
        my ($worker) = grep { ($_->{status} // '') eq '0' } Chaos::Record::workers($r);
        $r->{processes}{9999999} = { %$worker, pid => 9999999 };
    }, qr/worker 9999999 lived from \S+ to \S+ and was never told of/);
    finds('one that was killed after it had begun', sub {
        my ($r) = @_;
        my ($worker) = grep { ($_->{status} // '') eq '0' } Chaos::Record::workers($r);
        my $pid = 9999999;
        $r->{processes}{$pid} = { %$worker, pid => $pid, status => 9, died => $worker->{born} + 9 };
        push @{ $r->{error} }, { level => 'warn', pid => $pid, text => 'blocked for 2s by ...' };
        push @{ $r->{did} }, { at => 1, what => 'signal', rest => "KILL $pid" };
    }, qr/worker 9999999 lived from \S+ to \S+ and was never told of/);
    finds('a worker that was never there', sub {
        my ($r) = @_;
        my ($worker) = Chaos::Record::workers($r);
        delete $r->{processes}{ $worker->{pid} };
    }, qr/process \d+ was told of and no worker that the kernel saw/);
    finds('a live worker told as lost', sub {
        my ($r) = @_;
        my ($lost) = of_kind($r, 'worker_lost');
        $r->{processes}{ $lost->{pid} }{died} += 1;
    }, qr/was told as lost at \S+ and died at/);
    finds('a wrong reason', sub { $_->{reason} = 'signal 11' for of_kind($_[0], 'worker_lost') },
        qr/and was told as lost: signal 11/);
    finds('a death that nobody caused', sub {
        my ($r) = @_;
        my ($exit) = of_kind($r, 'worker_exit');
        $r->{processes}{ $exit->{pid} }{status} = 11;
    }, qr/ended with status 11, and nobody did that/);
    finds('one death more than points were armed', sub {
        my ($r) = @_;
        push @{ $r->{did} }, { at => 1, what => 'arm', rest => 'worker_exit.begun' };
        $r->{processes}{ $_->{pid} }{status} = 9 for (grep { $_->{event} eq 'worker_exit' }
            values %{ $r->{events} })[ 0, 1 ];
    }, qr/ended with status 9, and nobody did that/);
    finds('a process left behind', sub {
        my ($r) = @_;
        my ($exit) = of_kind($r, 'worker_exit');
        delete $r->{processes}{ $exit->{pid} }{died};
    }, qr/worker \d+ still lives/);
}
finds('a reload that came to nothing', sub {
    my ($r) = @_;
    push @{ $r->{error} }, { level => 'notice', pid => $r->{master}, text => 'reconfiguring' };
    push @{ $r->{did} }, { at => 1, what => 'signal', rest => "HUP $r->{master}" };
}, qr/reloads in the error log: master_start reload_failed master_start; told: master_start reload_failed/);
finds('a slot for a worker that leaks',
    sub { status($_[0], sub { $_[0]{zone}{workers}{used}++ }) }, qr/worker slots used is 3, not 2/);
finds('a slot for a generation that leaks',
    sub { status($_[0], sub { $_[0]{zone}{generations}{used}++ }) }, qr/generation slots used is 2, not 1/);
finds('the dead on the roster',
    sub { status($_[0], sub { push @{ $_[0]{workers} }, { pid => 9999999 } }) },
    qr/roster is \d+ \d+ 9999999, not \d+ \d+$/);
finds('the living that the roster lacks', sub { status($_[0], sub { pop @{ $_[0]{workers} } }) },
    qr/roster is \d+, not \d+ \d+$/);
finds('a process that neither status nor events know',
    sub { status($_[0], sub { push @{ $_[0]{counted} }, 9999999 }) }, qr/workers by the events is 2, not 3/);
finds('a generation that is not over', sub {
    status($_[0], sub { push @{ $_[0]{generations} }, { generation => 1, workers => {} } });
}, qr/generations is 2 1, not 2/);
finds('a worker counted in no state', sub { status($_[0], sub { $_[0]{generations}[0]{workers}{running}-- }) },
    qr/workers of generations is 1, not 2/);
finds('another generation', sub { status($_[0], sub { $_[0]{node}{generation}-- }) },
    qr/newest generation is 1, not 2/);
finds('a reload that is not counted', sub { status($_[0], sub { $_[0]{node}{reloads}{succeeded}-- }) },
    qr/successful reloads is 0, not 1/);
finds('a failed reload that is counted twice', sub { status($_[0], sub { $_[0]{node}{reloads}{failed}++ }) },
    qr/failed reloads is 1, not 0/);
finds('another master', sub { status($_[0], sub { $_[0]{node}{master}++ }) }, qr/master is \d+, not \d+/);
finds('a master that lives and is lost', sub { status($_[0], sub { $_[0]{node}{master_lost} = 1 }) },
    qr/the master is lost/);
finds('a worker refused though there is room', sub {
    my ($r) = @_;
    splice @{ $r->{error} }, @{ $r->{error} } / 2, 0, { level => 'error', pid => 9999999,
        text => 'worker_manager: no room for another worker, process 9999999 serves but is not counted' };
}, qr/^[1-4] of \d+ places were taken: .*no room for another worker/);
finds('a generation refused though there is room', sub {
    my ($r) = @_;
    push @{ $r->{error} }, { level => 'error', pid => $r->{master},
        text => 'worker_manager: no room for another generation, this one is not told about' };
}, qr/^[01] of \d+ places were taken: .*no room for another generation/);
finds('a wrong number of workers in an answer', sub {
    my ($request) = reverse grep { $_->{fate} eq 'ok' } @{ $_[0]{requests} };
    $request->{worker} =~ s/\d+$/3/;
}, qr/worker \S+ said at \S+ that "3" run, not \d to 2/);
finds('a number of workers that is missing', sub {
    my ($request) = reverse grep { $_->{fate} eq 'ok' } @{ $_[0]{requests} };
    $request->{worker} =~ s/\d+$//;
}, qr/worker \S+ said at \S+ that "" run/);
finds('a program left behind', sub {
    my ($r) = @_;
    my %process = (parent => $r->{master}, born => 1, died => 2, status => 0);
    $r->{processes}{9999998} = { %process, pid => 9999998 };
    $r->{processes}{9999999} = { pid => 9999999, parent => 9999998, born => 1 };
}, qr/process 9999999 of the node still lives/);
finds('a master left behind', sub { delete $_[0]{processes}{ $_[0]{master} }{died} },
    qr/the master still lives/);
finds('a dead master that nobody tells of', sub {
    my ($r) = @_;
    my ($start) = of_kind($r, 'worker_start');
    my ($begun) = grep { $_->{phase} eq 'begin' && $_->{seq} == $start->{seq} } @{ $r->{marks} };
    @{ $r->{processes}{ $r->{master} } }{qw(died status)} = ($begun->{at} + 5, 9);
    $r->{processes}{ $start->{pid} }{died} = $begun->{at} + 7;
}, qr/the master died, 1 workers lived on, and nobody told/);
finds('a master lost twice', sub { add_event($_[0], event => 'master_lost') for 1 .. 2 },
    qr/the master was told as lost 2 times/);
finds('a live master told as lost', sub {
    my ($r) = @_;
    my $seq = add_event($r, event => 'master_lost');
    push @{ $r->{marks} }, { %{ $r->{events}{$seq} }, phase => 'begin', by => 1, at => 1 };
}, qr/the master was told as lost at 1 and died at/);
finds('a failed request', sub {
    my ($r) = @_;
    # One that may fail, at a worker that is killed, is no fault.
    my ($lost) = of_kind($r, 'worker_lost');
    my ($request) = grep { $_->{fate} eq 'ok' && $_->{worker} !~ /^$lost->{pid},/ } @{ $r->{requests} };
    push @{ $r->{requests} }, { %$request, fate => 'reset' };
}, qr/a request for \S+ at \S+ failed/);
finds('who serves and is not counted', sub {
    my ($r) = @_;
    push @{ $r->{requests} }, { %{ $r->{requests}[0] }, worker => '9999999,1-9999999,2' };
    $r->{processes}{9999999} = { pid => 9999999, parent => $r->{master}, born => 1, died => 2, status => 0 };
}, qr/process 9999999 served and was never told of/);
finds('an alert', sub {
    push @{ $_[0]{error} }, { level => 'alert', pid => 1, text => 'worker_manager: something is wrong' };
}, qr/\[alert\] of process 1/);
finds('a panic', sub {
    push @{ $_[0]{error} }, { level => 'notice', pid => 1, text => "thread 'main' panicked at" };
}, qr/process 1 panicked/);
finds('a descriptor that leaks', sub {
    my ($r) = @_;
    my ($last) = reverse Chaos::Record::done($r, 'descriptors', qr/^$r->{master} /);
    $last->{rest} =~ s/socket=(\d+)/'socket=' . ($1 + 1)/e;
}, qr/the master had .* and has /);
for my $note ([ late => 'a step', 'took too long' ], [ unsettled => 'a step', '^not quiet' ],
    [ left => '1 nginx', '^left behind' ]) {
    my ($what, $rest, $expected) = @$note;
    finds("the note \"$what\"", sub { push @{ $_[0]{did} }, { at => 1, what => $what, rest => $rest } },
        qr/$expected/);
}
finds('what a sanitizer says', sub { push @{ $_[0]{findings} }, 'ERROR: something' },
    qr/a finding of the sanitizers: ERROR: something/);
finds('who was ended by a sanitizer', sub {
    my ($r) = @_;
    $r->{processes}{9999999} = { pid => 9999999, parent => 1, born => 1, died => 2, status => 99 << 8 };
}, qr/a sanitizer ended process 9999999/);
finds('a torn line', sub { push @{ $_[0]{torn} }, '{"seq":' }, qr/a torn line/);

# With what auto/asan built, a worker that reads what it may not.
if (my $reports = $ENV{WORKER_MANAGER_REPORTS}) {
    my $node = quiet_node();
    $node->write('failpoints/worker_exit.called.fault', 'overflow');
    Chaos::Actors::hup($node);
    $node->wait_for('a report', sub { grep { !$node->{reports}{$_} } Chaos::Node::reports() });
    my ($faults) = Chaos::Check::faults(over($node));
    like(join("\n", @$faults), qr/^a finding of the sanitizers: .*heap-buffer-overflow/m,
        'the check finds what AddressSanitizer reports');
    like(join("\n", @$faults), qr/^a sanitizer ended process \d+$/m, 'and what it ends') if $exact;
    # This was asked for; any other is a failure of the suite.
    unlink grep { !$node->{reports}{$_} } Chaos::Node::reports();
}

# The run itself.
my $seconds = $ENV{CHAOS_SECONDS} || 15;
for my $seed (split ' ', $ENV{CHAOS_SEEDS} || '1 2 3 4') {
    my $output = qx(perl chaos/run $seconds $seed 2>&1);
    is($?, 0, "seed $seed: the laws hold") or diag $output;
    note $output;
}

done_testing;
