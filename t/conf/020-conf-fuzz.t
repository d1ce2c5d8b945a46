# Random configurations: nginx -t takes them or says what is wrong, with file and line. It never
# crashes. FUZZ_SECONDS and FUZZ_SEED choose a longer or another run; see `make fuzz`.
use strict;
use warnings;
use File::Temp qw(tempdir);
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{FUZZ_SEED} // 1;
my $seconds = $ENV{FUZZ_SECONDS} // 6;
my $nginx = $ENV{TEST_NGINX_BINARY};
my $module = $ENV{WORKER_MANAGER_MODULE};
my $hooks = "$ENV{WORKER_MANAGER_OBJS}/hooks.so";

my $dir = tempdir('conf-fuzz.XXXXXX', TMPDIR => 1, CLEANUP => 1);
mkdir "$dir/logs" or die "$dir/logs: $!";

# Of these a configuration is made. No path leads out of the folder, so that no file is made elsewhere.
my @fields = qw($event $id $n_prev ${n_mine} $n_next $n_older $n_left $stopping $respawn_of $history $generation $pid $worker $seq $time $reason
    $core $connections ${duration} $nope ${ $ ${} $5);
my @names = qw(worker_manager zone interval failed exec_timeout draining_warn event_log on nope);
my @words = (
    qw(master_start master_exit worker_start worker_exit worker_lost worker_hung * nope log exec call
        notice alert debug json text logs/events.log /bin/true /bin/false /nonexistent/x crew nothing
        goodbye 0 1 10s 500ms 1h 64k 32k 1m 16 -1 18446744073709551616 9999999999999999999s ""),
    $hooks, @fields,
);

sub pick { return $_[int rand @_] }

sub word {
    my $word = pick(@words);
    my $kind = int rand 12;
    return qq{"$word } . pick(@fields) . qq{"} if $kind == 0 && $word !~ /"/;
    return $word . pick(@fields) if $kind == 1 && $word !~ m{/};
    return join '', map { chr(1 + int rand 255) } 1 .. rand 9 if $kind == 2;
    return '' if $kind == 3;
    return pick('é', "\xff", 'x' x int rand 5000) if $kind == 4;
    return $word;
}

# Most are right, so that what comes after is read too.
my @right = (
    'on * log info "$event $id";', 'on worker_exit log debug ${n_mine};', 'interval 1s;', 'failed 500ms;',
    'on master_start exec /bin/true $id;', "on worker_start call $hooks nothing text;", 'zone crew 64k;',
    'exec_timeout 1s;', 'draining_warn 1m;', 'event_log logs/events.log text;',
);

sub directive {
    return pick(@right) if rand() < 0.6;
    my $name = rand() < 0.5 ? 'on' : pick(@names);
    my @arguments = map { word() } 1 .. rand 6;
    if ($name eq 'on' && rand() < 0.8) {
        @arguments = (pick(@words[0 .. 7]), pick(qw(log exec call)), @arguments);
    }
    return join(' ', $name, @arguments) . pick(';', ';', ';', ';', ';', '', '{', '{}', '}');
}

sub block {
    my $text = "worker_manager {\n" . join('', map { '    ' . directive() . "\n" } 1 .. 1 + rand 4) . "}\n";
    # And some bytes of it changed.
    for (1 .. (rand() < 0.3 ? 1 + rand 3 : 0)) {
        substr($text, int rand length $text, 1) = chr(1 + int rand 255);
    }
    # What might lead to a file elsewhere, or to another file of configuration.
    $text =~ s{\.\.+|include|load_module|error_log|\bpid\b(?=\s)}{x}g;
    return $text;
}

my ($cases, $taken) = (0, 0);
my @bad;
my $until = time + $seconds;
while (time < $until && !@bad) {
    srand($seed + $cases);
    my $text = "load_module $module;\nerror_log logs/error.log;\npid logs/nginx.pid;\nevents { }\n" . block();
    open my $file, '>:raw', "$dir/nginx.conf" or die "$dir/nginx.conf: $!";
    print {$file} $text;
    close $file;
    # A configuration that reads for ever is ended, and is a failure.
    my $said = qx(timeout -s KILL 10 '$nginx' -t -p '$dir/' -c '$dir/nginx.conf' 2>&1);
    my $ours = $said =~ /nginx\.conf:\d+|nginx\.conf test is successful/;
    if ($? == 0) {
        $taken++;
    } elsif ($? != 1 << 8 || !$ours || $said =~ /panicked/) {
        push @bad, sprintf "FUZZ_SEED=%d: status %#x\n%s\n%s", $seed + $cases, $?, $said, $text;
    }
    $cases++;
}
is("@bad", '', "$cases configurations from seed $seed, $taken of them taken");
cmp_ok($taken, '>', 0, 'some are right');
cmp_ok($taken, '<', $cases, 'some are wrong');

done_testing();
