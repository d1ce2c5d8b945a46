package Chaos::Node;

# A node under chaos: its folder, its configuration, and what can be seen of it while it runs.

use strict;
use warnings;

use Cwd ();
use File::Copy qw(copy);
use File::Path qw(make_path remove_tree);
use HTTP::Tiny;
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(sleep);

use Chaos::Load;
use Chaos::Record;
use Chaos::Tracer;
use WorkerManager::Process;
use WorkerManager::Scratch;

# Where sanitizers report, if nginx was built with them (auto/prove). They make everything slower, and
# each process looks for leaks at its end.
our $REPORTS = $ENV{WORKER_MANAGER_REPORTS};
our $SLOWER = $REPORTS ? 3 : 1;

# How long anything that has to come may take.
our $DEADLINE = 40;

sub now { return WorkerManager::Process::now() }

# new(root => folder, objs => what was built, unless the environment names another nginx and module, of
# which the latter may be empty if it is part of the former; node => what the script asks for); with
# on_disk the event log has no small disk of its own that can be filled.
sub new {
    my ($class, %options) = @_;
    my $self = bless {
        stopped => {},
        binary  => $ENV{TEST_NGINX_BINARY} || "$options{objs}/nginx",
        module  => $ENV{WORKER_MANAGER_MODULE} // "$options{objs}/test/ngx_worker_manager_module.so",
        reports => { map { $_ => 1 } reports() },
        %options,
    }, $class;
    my $root = $self->{root};
    remove_tree($root);
    make_path(map { "$root/$_" } qw(logs conf failpoints trick small reports));
    # Workers run as another user if root starts nginx.
    chmod 0777, map { "$root/$_" } '.', qw(failpoints trick logs small);
    $self->{mounted} = $> == 0 && !$self->{on_disk}
        && system('mount', '-t', 'tmpfs', '-o', 'size=8m,mode=777', 'chaos', "$root/small") == 0;
    copy("$self->{objs}/chaos/$_", "$root/$_") or die "$_: $!" for qw(hook hook.so clock.so);
    chmod 0755, "$root/hook";
    $self->replace_module;
    $self->write('marks', '', oct '666');
    $self->write('clock', "\0" x 4096, oct '644');
    open $self->{did}, '>', "$root/did" or die $!;
    $self->{did}->autoflush(1);
    $self->{port} = WorkerManager::Scratch::free_port();
    # What a reload with another server can't bind to.
    $self->{busy} = WorkerManager::Scratch::listener();
    # What nginx passes slow requests to.
    $self->{server} = WorkerManager::Scratch::listener();
    return $self;
}

sub path { "$_[0]{root}/$_[1]" }

# Writes a file so that nobody ever sees half of it.
sub write {
    my ($self, $name, $text, $mode) = @_;
    my $path = $self->path($name);
    open my $file, '>', "$path.new" or die "$path: $!";
    print $file $text;
    close $file or die "$path: $!";
    chmod $mode, "$path.new" if defined $mode;
    rename "$path.new", $path or die "$path: $!";
}

sub read {
    my ($self, $name) = @_;
    open my $file, '<', $self->path($name) or return '';
    local $/;
    return scalar(<$file>) // '';
}

# Notes what was done, for the check.
sub did {
    my ($self, @words) = @_;
    printf { $self->{did} } "%.6f %s\n", now(), join ' ', @words;
}

# The module as another file of the same name, as an upgrade of a package does, and its helper beside it.
sub replace_module {
    my ($self) = @_;
    return if $self->{module} eq '';
    my $helper = 'ngx_worker_manager_exec';
    my %files = ('module.so' => $self->{module}, $helper => $self->{module} =~ s{[^/]+$}{$helper}r);
    for my $name (sort keys %files) {
        copy($files{$name}, $self->path("$name.new")) or die "$files{$name}: $!";
        chmod 0755, $self->path("$name.new");
        rename $self->path("$name.new"), $self->path($name) or die $!;
    }
}

# Writes a configuration. `broken` is a directive that nginx does not know, or a port it can't have.
sub configure {
    my ($self, $load, %broken) = @_;
    my $root = $self->{root};
    my @programs = map { "on $_ exec $root/hook $root/trick;" } @{ $load->{programs} };
    my $stuck = $load->{stuck} ? 'draining_warn 300ms;' : '';
    my $event = '$seq $event $id $n_prev $n_mine $n_next $n_older $generation $pid $worker'
        . ' \"$reason\" $n_left $stopping $respawn_of $history';
    my $listen = $broken{port} ? "server { listen 127.0.0.1:$broken{port}; }" : '';
    $self->{expected} = $load->{workers} unless %broken;
    my $module = $self->{module} eq '' ? '' : "load_module $root/module.so;";
    $self->write('conf/nginx.conf', <<"END");
$module
worker_processes $load->{workers};
error_log logs/error.log info;
pid logs/nginx.pid;
worker_rlimit_core 0;
worker_rlimit_nofile 4096;
@{[ $broken{directive} // '' ]}
worker_manager {
    zone chaos $self->{node}{zone};
    interval $load->{interval};
    failed $load->{failed};
    exec_timeout 1s;
    $stuck
    event_log small/events.log;
    on * call $root/hook.so chaos_begin $root;
    on * log notice "EV $event";
    on * call $root/hook.so chaos_call $root/trick;
    @programs
    on * call $root/hook.so chaos_end $root;
}
events { worker_connections 64; }
http {
    access_log off;
    $WorkerManager::Process::TEMPORARY
    add_header X-Worker "\$pid,\$worker_manager_id,\$worker_manager_workers";
    server {
        listen 127.0.0.1:$self->{port};
        location / { return 200 "ok\\n"; }
        location = /workers { worker_manager_status; }
        location = /slow { proxy_pass http://127.0.0.1:@{[ $self->{server}->sockport ]}; }
    }
    $listen
}
END
}

# Starts the tracer, then nginx, then the clients.
sub start {
    my ($self, $load) = @_;
    $self->{tracer} = Chaos::Tracer::start($self->path('trace'), $$);
    $self->configure($load);
    my $status = do {
        local $ENV{CHAOS_CLOCK} = $self->path('clock');
        local $ENV{LD_PRELOAD} = $self->path('clock.so');
        # The runtime of the sanitizers comes after it then, and asks it for the time as nginx does.
        local $ENV{ASAN_OPTIONS} = "verify_asan_link_order=0:$ENV{ASAN_OPTIONS}" if $REPORTS;
        $self->nginx;
    };
    die "nginx does not start: " . $self->read('logs/out') if $status;
    # The launcher ends as soon as it has made the master.
    $self->wait_for('a pid file', sub { $self->read('logs/nginx.pid') =~ /^\d+\n/ });
    ($self->{master}) = $self->read('logs/nginx.pid') =~ /^(\d+)/ or die 'no pid file';
    $self->did('master', $self->{master});
    $self->{clients} = Chaos::Load::start($self->path('requests'), @$self{qw(port server)});
}

# Runs nginx itself with some arguments.
sub nginx {
    my ($self, @arguments) = @_;
    return WorkerManager::Process::run($self->{binary}, $self->path('logs/out'), '-p', $self->{root},
        '-c', 'conf/nginx.conf', @arguments);
}

# What /proc says of all live processes of nginx's session: pid => title.
sub processes {
    my ($self) = @_;
    my %processes;
    opendir my $dir, '/proc' or die $!;
    for my $pid (grep { /^\d+$/ } readdir $dir) {
        my ($state, undef, $session) = WorkerManager::Process::state_of($pid) or next;
        next unless $session == $self->{master} && $state !~ /[ZX]/;
        open my $file, '<', "/proc/$pid/cmdline" or next;
        $processes{$pid} = <$file> // '';
    }
    return %processes;
}

# The live workers, sorted. Until its first turn a worker has the title of the master.
sub workers {
    my ($self) = @_;
    my %processes = $self->processes;
    delete $processes{ $self->{master} };
    my @workers = grep { $processes{$_} =~ /^nginx: (?:worker|master) process/ } keys %processes;
    # LeakSanitizer looks at a process from a child of it; who kills that causes a report.
    @workers = grep { my $parent = parent($_); defined $parent && !$processes{$parent} } @workers if $REPORTS;
    # Not as it is: what sort returns where a number is asked for is undefined.
    @workers = sort { $a <=> $b } @workers;
    return @workers;
}

sub parent {
    my ($pid) = @_;
    my (undef, $parent) = WorkerManager::Process::state_of($pid);
    return $parent;
}

sub is_alive { return WorkerManager::Process::is_alive(@_) }

sub master_lives { is_alive($_[0]{master}) }

# What worker_manager_status says, decoded; undef if nobody answers. The kernel wakes one worker for a
# connection, and if that one is gone before it accepts, no other, until the next one comes.
sub status {
    my ($self) = @_;
    my $answer = HTTP::Tiny->new(timeout => 1, keep_alive => 0)
        ->get("http://127.0.0.1:$self->{port}/workers");
    return $answer->{success} ? eval { JSON::PP::decode_json($answer->{content}) } : undef;
}

# Whether the master waits for signals: while it works, and a reload may take seconds, they are blocked.
sub master_idles {
    my ($self) = @_;
    open my $file, '<', "/proc/$self->{master}/status" or return 0;
    my %signals = map { /^(SigBlk|ShdPnd):\s*(\w+)/ ? ($1 => $2) : () } <$file>;
    return !grep { !/^0+$/ } @signals{qw(SigBlk ShdPnd)};
}

# Sends a signal, and notes it before it works.
sub signal {
    my ($self, $signal, @pids) = @_;
    $self->did('signal', $signal, $_), kill $signal, $_ for @pids;
}

my ($PIDFD_OPEN, $PROCESS_MRELEASE) = (434, 448);

# Kills a process and has the kernel reap its memory at once, where it can (Linux 5.15).
sub kill_and_reap {
    my ($self, $pid) = @_;
    my $pidfd = syscall $PIDFD_OPEN, 0 + $pid, 0; # a text would be passed as a pointer
    $self->signal('KILL', $pid);
    return if $pidfd < 0;
    my $reaped = syscall $PROCESS_MRELEASE, $pidfd, 0;
    $self->did('reaped', $pid) if $reaped == 0;
    POSIX::close($pidfd);
}

sub wait_for {
    my ($self, $what, $condition, $deadline) = @_;
    return 1 if WorkerManager::Process::wait_until($condition, ($deadline // $DEADLINE) * $SLOWER);
    $self->did('late', $what);
    return 0;
}

# Nobody is to misbehave any more.
sub calm {
    my ($self) = @_;
    unlink glob($self->path('failpoints/*')), $self->path('trick/call'), $self->path('trick/exec');
    unlink $self->path('small/filler');
    $self->did('disk', 'free');
    $self->signal('CONT', grep { is_alive($_) } keys %{ $self->{stopped} });
    $self->{stopped} = {};
}

# The workers that the events so far count as running, as pid => generation.
sub on_duty {
    my ($self) = @_;
    my %duty;
    for my $event (Chaos::Record::merged(Chaos::Record::of($self->{root}))) {
        my $pid = $event->{pid};
        $duty{$pid} = $event->{gen} if $event->{event} =~ /^worker_(?:start|recovered)$/;
        delete $duty{$pid} if $event->{event} =~ /^worker_(?:exit|lost|hung)$/;
    }
    return %duty;
}

sub event_logs { glob $_[0]->path('small/events*.log') }

# The descriptors of a process, by kind.
sub descriptors {
    my ($pid) = @_;
    my %kinds;
    for my $link (glob "/proc/$pid/fd/*") {
        my $target = readlink $link // next;
        $target =~ s/:\[\d+\]$//;
        $kinds{$target}++;
    }
    return %kinds;
}

# Whether processes can be watched here by a descriptor: `pidfd_open`, of the same number everywhere.
sub has_pidfd {
    my $fd = syscall 434, $$, 0;
    POSIX::close($fd) if $fd >= 0;
    return $fd >= 0;
}

# Ends what is left, and tracer and clients. Only processes that are known to be its own.
sub finish {
    my ($self) = @_;
    kill 'TERM', $self->{clients} if $self->{clients};
    waitpid $self->{clients}, 0 if $self->{clients};
    if ($self->{master}) {
        my %left = $self->processes;
        for my $pid (keys %left) {
            $self->did('left', $pid, $left{$pid} =~ s/[\s\0]+$//r);
            kill 'CONT', $pid;
            kill 'KILL', $pid;
        }
    }
    sleep 0.1;
    kill 'TERM', $self->{tracer};
    waitpid $self->{tracer}, 0;
    $self->keep_reports;
    close $self->{did};
}

# What the sanitizers have reported so far, of this node and of those before.
sub reports { return defined $REPORTS ? glob "$REPORTS/*" : () }

# A copy of what was said of this node. That LeakSanitizer can't look at a process any more, since it was
# killed meanwhile, is all that such a report says, and is no finding: it goes.
sub keep_reports {
    my ($self) = @_;
    my $killed = qr/\A(?:==\d+==Unable to get registers from thread \d+\.\n)+\z/;
    for my $report (grep { !$self->{reports}{$_} } reports()) {
        copy($report, $self->path('reports'));
        my $name = $report =~ s{.*/}{reports/}r;
        unlink $report, $self->path($name) if $self->read($name) =~ $killed;
    }
}

# The small disk goes; what was on it stays.
sub unmount {
    my ($self) = @_;
    return unless $self->{mounted};
    make_path($self->path('events'));
    copy($_, $self->path('events')) for $self->event_logs;
    system 'umount', $self->path('small');
    $self->{mounted} = 0;
    copy($_, $self->path('small')) for glob $self->path('events/*');
}

sub clean {
    my ($self) = @_;
    $self->unmount;
    remove_tree($self->{root});
}

1;
