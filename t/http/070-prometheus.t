# What is there for Prometheus: the metrics as it wants them, the alert rules and the dashboard.
use strict;
use warnings;
use Cwd ();
use JSON::PP;
use Test::More;
use WorkerManager;
use WorkerManager::Status;

my $TOOL = Cwd::getcwd() . '/build/prometheus/promtool';

# Runs promtool on a text; whether it is content, and what it said.
sub promtool {
    my ($node, $text, @arguments) = @_;
    my $file = $node->write('out/promtool.in', $text);
    my $said = `'$TOOL' @arguments < '$file' 2>&1`;
    return ($? == 0, $said);
}

sub read_file {
    my ($path) = @_;
    open my $file, '<', $path or die "$path: $!";
    local $/;
    return scalar <$file>;
}

# The names of metrics in a text.
sub names {
    my %names = map { $_ => 1 } $_[0] =~ /\b(nginx_worker_manager_\w+)/g;
    return sort keys %names;
}

subtest 'the alert rules' => sub {
    my ($node) = WorkerManager::Status::node();
    my ($well, $said) = promtool($node, '', 'check rules prometheus/alerts.yml');
    ok($well, 'promtool takes them') or diag $said;
    ($well, $said) = promtool($node, '', 'test rules prometheus/alerts_test.yml');
    ok($well, 'each fires when it has to, and only then') or diag $said;
    my $tests = read_file('prometheus/alerts_test.yml');
    for my $rule (split /^ +- alert: /m, read_file('prometheus/alerts.yml')) {
        my ($name) = $rule =~ /^(Nginx\w+)\n/ or next;
        like($tests, qr/- alertname: $name\n/, "$name is seen to fire");
        like($tests, qr/alertname: $name, .*exp_alerts: \[\]/, 'and not to fire');
        like($rule, qr/^ +$_: \S/m, "it has $_") for qw(severity summary description runbook);
    }
    ($well, $said) = promtool($node, '', 'check config --syntax-only prometheus/scrape.yml');
    ok($well, 'the example for scraping') or diag $said;
};

# The metrics of a node in some state, which have to please promtool.
sub checked {
    my ($node, $status, $state) = @_;
    my $answer = $status->ask('/workers/metrics');
    is($answer->{status}, 200, "there are metrics, $state");
    like($answer->{headers}{'content-type'}, qr{^text/plain}, 'as text');
    my $text = $answer->{content};
    my ($well, $said) = promtool($node, $text, 'check metrics');
    ok($well && $said eq '', "promtool finds nothing, $state") or diag $said, $text;
    return $text;
}

subtest 'the metrics' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => 'on worker_start exec /bin/false;');
    $node->up;
    my $check = sub { checked($node, $status, @_) };
    like($check->('fresh'), qr/^nginx_worker_manager_config_last_reload_successful 1(\.0)?$/m, 'no reload failed');
    my $held = $node->hold_connection(1);
    $node->reload_ready(2);
    $node->wait_events('worker_draining', 2);
    like($check->('draining'), qr/^nginx_worker_manager_workers\{[^}]*"previous"[^}]*"draining"[^}]*\} 1$/m,
        'the old worker');
    my ($victim) = $node->on_duty(2);
    $node->signal('KILL', $victim);
    $node->wait_events('worker_start', 3, 2);
    like($check->('after a death'), qr/^nginx_worker_manager_worker_losses_total\{reason="signal 9"\} 1$/m, 'told');
    $node->configure(main => 'no_such_directive on;');
    $node->signal('HUP');
    $node->wait_events('reload_failed', 1);
    my $text = $check->('after a failed reload');
    like($text, qr/^nginx_worker_manager_config_last_reload_successful 0(\.0)?$/m, 'told');

    my %there = map { $_ => 1 } names($text);
    for my $file (glob 'prometheus/{alerts.yml,alerts_test.yml,dashboard.json}') {
        my @names = names(read_file($file));
        cmp_ok(scalar @names, '>', 8, "$file uses metrics");
        is_deeply([ grep { !$there{$_} } @names ], [], 'and all of them exist');
    }
    close $held;
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'without a master, and with a worker that hangs' => sub {
    my ($node, $status) = WorkerManager::Status::node(manager => 'interval 100ms; failed 100ms;');
    $node->up;
    my ($stopped) = $node->on_duty;
    $node->signal('STOP', $stopped);
    $node->wait_events('worker_hung', 1);
    $node->signal('KILL');
    $node->wait_events('master_lost', 1);
    my $text = checked($node, $status, 'then');
    like($text, qr/^nginx_worker_manager_master_up 0(\.0)?$/m, 'the master is lost');
    like($text, qr/^nginx_worker_manager_workers\{[^}]*"current"[^}]*"hung"[^}]*\} 1$/m, 'a worker hangs');
    $node->signal('CONT', $stopped);
    $node->signal('QUIT', $node->on_duty);
    $node->wait_events('master_exit', 1);
    $node->laws_hold('the laws hold', final => 1);
};

# Every value of a key, wherever it is in what JSON has become.
sub values_of {
    my ($key, $tree) = @_;
    return map { values_of($key, $_) } @$tree if ref $tree eq 'ARRAY';
    return () unless ref $tree eq 'HASH';
    return map { $_ eq $key ? $tree->{$_} : values_of($key, $tree->{$_}) } sort keys %$tree;
}

subtest 'the dashboard' => sub {
    my ($node) = WorkerManager::Status::node();
    my $dashboard = decode_json(read_file('prometheus/dashboard.json'));
    my @ids = map { $_->{id} } @{ $dashboard->{panels} };
    my %different = map { $_ => 1 } @ids;
    is(scalar keys %different, scalar @ids, 'panels have ids of their own');
    my @queries = values_of('expr', $dashboard);
    cmp_ok(scalar @queries, '>', 20, 'queries');
    s/\$__rate_interval/5m/g, s/\$instance/.*/g for @queries;
    # As rules they can be checked without a server.
    my $number = 0;
    my @rules = map { { record => 'query:' . $number++, expr => $_ } } @queries;
    my $rules = $node->write('out/dashboard.json',
        encode_json({ groups => [ { name => 'dashboard', rules => \@rules } ] }));
    my ($well, $said) = promtool($node, '', "check rules --lint=none '$rules'");
    ok($well, 'promtool takes every query') or diag $said;
};

done_testing;
