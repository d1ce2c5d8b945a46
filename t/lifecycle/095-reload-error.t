# Why a reload failed, of each kind: what nginx logged is in hooks, the event log, the status and the answer of wait.
use strict;
use warnings;
use JSON::PP ();
use Test::More;
use WorkerManager;
use WorkerManager::Status;

my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
my $port = $taken->sockport;

my %broken = (
    'syntax' => [ { main => 'no_such_directive on;' },
        qr/^unknown directive "no_such_directive" in \S+nginx\.conf:\d+$/ ],
    'a directive of the block' => [ { manager => 'interval never;' },
        qr/^"interval" directive invalid value "never" in \S+nginx\.conf:\d+$|invalid/ ],
    'a file that is missing' => [ { http => 'include no-such-file;' },
        qr/^open\(\) "\S+no-such-file" failed \(2: No such file or directory\) in \S+nginx\.conf:\d+$/ ],
    'http, after the block' => [ { http => 'server { listen nowhere:99999999; }' },
        qr/^invalid port in "nowhere:99999999" of the "listen" directive in \S+nginx\.conf:\d+$/ ],
    'init_conf: an unknown user' => [ { main => 'user nobody-of-that-name;' },
        qr/^getpwnam\("nobody-of-that-name"\) failed/ ],
    'bind' => [ { http => "server { listen 127.0.0.1:$port; }" },
        qr/^bind\(\) to 127\.0\.0\.1:$port failed \(98: Address already in use\)$/ ],
    'a zone too large to be had' => [ { http => 'limit_req_zone $uri zone=huge:900000000m rate=1r/s;' },
        qr/^mmap\(MAP_ANON\|MAP_SHARED, \d+\) failed \(12: Cannot allocate memory\)$/ ],
    'a log that can not be opened' => [ { http => 'access_log no-such-folder/access.log;' },
        qr/^open\(\) "\S+no-such-folder\/access\.log" failed \(2: No such file or directory\)$/ ],
    'control characters' => [ { main => "no_such\tdirective\x01;" },
        qr/^unknown directive "directive\\x01"|^unknown directive "no_such"/ ],
    'a text that is long' => [ { main => 'a' x 2000 . ';' }, qr/^unknown directive "a{400,}\.\.\.$/ ],
    'a log of its own before the mistake' => [
        { main => 'error_log logs/other.log warn; error_log logs/another.log crit;',
            http => 'limit_req_zone $uri zone=huge:900000000m rate=1r/s;' }, qr/^mmap\(MAP_ANON/ ],
);

for my $kind (sort keys %broken) {
    subtest $kind => sub {
        my ($change, $expected) = @{ $broken{$kind} };
        my ($node, $status) = WorkerManager::Status::node();
        my $why = 'on reload_failed log notice "WHY <$error>"; event_log logs/events.log;';
        $node->configure(manager => $why);
        $node->up;
        my %good = map { $_ => $node->{$_} } qw(main http manager);
        $node->configure(%$change,
            ($change->{http} ? (http => "$good{http} $change->{http}") : ()),
            ($change->{manager} ? (manager => "$why $change->{manager}") : ()));
        for my $times (1, 2) {
            $node->signal('HUP');
            $node->wait_events('reload_failed', $times);
        }
        my @failed = $node->kinds('reload_failed');
        is_deeply([ WorkerManager::told(@failed) ], [ ('reload_failed(1, -,2,-)') x 2 ], 'told');
        is($failed[0]{pid}, $node->master, 'by the master');
        like($failed[0]{duration}, qr/^\d+\.\d{3}$/, 'how long the attempt took');
        my @why = $node->log =~ /WHY <(.*)>$/mg;
        is(scalar @why, 2, 'why, each time');
        like($_, $expected, 'the message that nginx logged') for @why;
        is($_, $why[0], 'the same') for $why[1];
        cmp_ok(length $_, '<=', 512, 'not too long') for @why;
        my ($last) = grep { $_->{event} eq 'reload_failed' }
            map { JSON::PP::decode_json($_) } reverse split /\n/, $node->read('logs/events.log');
        is($last->{error}, $why[0], 'in the event log');
        my $is = $status->json;
        is($is->{node}{reloads}{error}, $why[0], 'in the status');
        is_deeply([ map { $_->{error} } grep { $_->{event} eq 'reload_failed' } @{ $is->{events} } ], \@why,
            'and in its history');
        my $answer = $status->ask('/workers/wait?after=1.1');
        is($answer->{status}, 409, 'a wait learns of it');
        like(JSON::PP::decode_json($answer->{content})->{error}, qr/\Q$why[0]\E/, 'and why');
        WorkerManager::Status::is_valid('the status is as its schema says', 'status', JSON::PP::encode_json($is));
        like($node->get('/'), qr/ok/, 'the old generation serves');
        $node->configure(%good);
        $node->reload(2);
        is(scalar $node->kinds('reload_failed'), 2, 'the good one did not fail');
        is($status->json->{node}{reloads}{error}, undef, 'and has no error');
        $node->down;
        $node->laws_hold('the laws hold', final => 1);
    };
}

done_testing;
