package WorkerManager;

# A real nginx node for a suite: started, signalled, killed, and looked at from outside. Nothing
# here waits for a fixed time; everything waits for a condition, with a deadline.

use strict;
use warnings;

use File::Path qw(make_path remove_tree);
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Test::More;

use WorkerManager::Laws;
use WorkerManager::Process;
use WorkerManager::Scratch;

# Sanitizers make everything slower, and each process looks for leaks at its end.
our $DEADLINE = $ENV{WORKER_MANAGER_REPORTS} ? 90 : 20;

my @nodes;

# Fields of an event in the order in which the suites log them.
my @FIELDS = qw(seq event id prev mine next older gen pid worker reason core connections duration
    left stopping respawn_of history);
our $EVENT = '$seq $event $id $n_prev $n_mine $n_next $n_older $generation $pid $worker'
    . ' \"$reason\" $core $connections $duration $n_left $stopping $respawn_of $history';

# new(workers => 2, manager => '...directives...', main => '...', http => '...', locations => '...', module => path)
sub new {
    my ($class, %options) = @_;
    my $root = WorkerManager::Scratch::folder('node');
    make_path(map { "$root/$_" } qw(logs conf failpoints out));
    # Workers run as another user if root starts nginx.
    chmod 0777, "$root/failpoints", "$root/out", "$root/logs";
    my $self = bless {
        root    => $root,
        binary  => $ENV{TEST_NGINX_BINARY} || 'nginx',
        module  => $ENV{WORKER_MANAGER_MODULE} || undef,
        port    => free_port(),
        workers => 2,
        manager => '',
        main    => '',
        http    => '',
        locations => '',
        tail    => '',
        events  => '',
        listen  => '',
        connections => 64,
        daemon  => 1,
        log     => 1,
        %options,
    }, $class;
    $self->write('conf/slow', 'slow' x 100_000);
    $self->configure;
    push @nodes, $self;
    return $self;
}

sub free_port { return WorkerManager::Scratch::free_port() }

# Writes the configuration; what is given replaces what it was.
sub configure {
    my ($self, %options) = @_;
    @$self{ keys %options } = values %options;
    my $load = defined $self->{module} ? "load_module $self->{module};" : '';
    # Twice, so that an event of which one line was interrupted still has the other.
    my $log = $self->{log} ? qq{on * log notice "EV1 $EVENT"; on * log notice "EV2 $EVENT";} : '';
    my $block = defined $self->{manager} ? "worker_manager { $self->{manager} $log }" : '';
    my $daemon = $self->{daemon} ? 'on' : 'off';
    my $root = $self->{locations} =~ m{location /\s*\{} ? '' : 'location / { return 200 "ok\n"; }';
    $self->write('conf/nginx.conf', <<"END");
$load
daemon $daemon;
worker_processes $self->{workers};
error_log logs/error.log info;
pid logs/nginx.pid;
$self->{main}
$block
events { worker_connections $self->{connections}; $self->{events} }
http {
    access_log off;
    $WorkerManager::Process::TEMPORARY
    $self->{http}
    server {
        listen 127.0.0.1:$self->{port} $self->{listen};
        $root
        $self->{locations}
        location = /slow {
            limit_rate 400;
            add_header X-Worker \$pid;
            alias $self->{root}/conf/slow;
        }
    }
}
$self->{tail}
END
}

sub path {
    my ($self, $name) = @_;
    return "$self->{root}/$name";
}

sub write {
    my ($self, $name, $text, $mode) = @_;
    my $path = $self->path($name);
    open my $file, '>', $path or die "$path: $!";
    print $file $text;
    close $file or die "$path: $!";
    chmod $mode, $path if $mode;
    return $path;
}

sub read {
    my ($self, $name) = @_;
    open my $file, '<', $self->path($name) or return '';
    local $/;
    return scalar(<$file>) // '';
}

sub log { $_[0]->read('logs/error.log') }

# Runs nginx itself with some arguments; its exit status and what it printed.
sub nginx {
    my ($self, @arguments) = @_;
    my $status = WorkerManager::Process::run($self->{binary}, $self->path('out/nginx.out'), $self->arguments, @arguments);
    return ($status, $self->read('out/nginx.out'));
}

sub arguments { return ('-p', $_[0]{root}, '-c', 'conf/nginx.conf') }

# Starts the node. With `daemon off` it is this process's child.
sub start {
    my ($self) = @_;
    if ($self->{daemon}) {
        my ($status, $output) = $self->nginx;
        is($status, 0, 'nginx starts') or diag $output;
    } else {
        $self->{child} =
            WorkerManager::Process::start($self->{binary}, $self->path('out/nginx.out'), 1, $self->arguments);
    }
    $self->wait_for('a pid file', sub { $self->read('logs/nginx.pid') =~ /^\d+\n/ });
    ($self->{master}) = $self->read('logs/nginx.pid') =~ /^(\d+)/;
    return $self;
}

sub master { $_[0]{master} }

sub signal {
    my ($self, $signal, @pids) = @_;
    kill $signal, @pids ? @pids : $self->master;
}

# Kills workers all at once: none of them gets to tell the death of another before its own. Who does,
# and dies at it, leaves an event that workers of other generations do not go on telling.
sub kill_at_once {
    my ($self, @pids) = @_;
    $self->signal('STOP', @pids);
    # Some may have been about to end.
    $self->wait_for('them to stop', sub { !grep { (state_of($_) // 'X') !~ /[TZX]/ } @pids });
    $self->signal('KILL', @pids);
}

# Reaps a `daemon off` node, so that it counts as gone.
sub reap {
    my ($self) = @_;
    waitpid $self->{child}, POSIX::WNOHANG() if $self->{child};
}

# The state letter of a process, undef if there is none; in a list, its parent, too.
sub state_of { return WorkerManager::Process::state_of(@_) }

sub is_alive { return WorkerManager::Process::is_alive(@_) }

# The live children of the master, sorted. Each name from its command line.
sub children {
    my ($self) = @_;
    my @children;
    for my $dir (glob '/proc/[0-9]*') {
        my ($pid) = $dir =~ /(\d+)$/;
        my ($state, $parent) = state_of($pid);
        next unless defined $parent && $parent == $self->master && $state !~ /[ZX]/;
        open my $file, '<', "$dir/cmdline" or next;
        my $title = <$file> // next;
        push @children, { pid => $pid, title => $title };
    }
    @children = sort { $a->{pid} <=> $b->{pid} } @children;
    return @children;
}

sub wait_for {
    my ($self, $what, $condition, $deadline) = @_;
    my $value = WorkerManager::Process::wait_until($condition, $deadline // $DEADLINE);
    return $value if $value;
    fail("timed out waiting for $what");
    diag $self->log if $ENV{TEST_VERBOSE};
    diag join "\n", grep { /worker_manager|alert|emerg|EV1/ } split /\n/, $self->log;
    return;
}

# The events told so far, in the order of the log, each a hash of @FIELDS.
sub events {
    my ($self) = @_;
    my (@events, %lines);
    $self->{twice} = [];
    for my $line (split /\n/, $self->log) {
        my ($copy, $text) = $line =~ /: (EV[12]) (\d+ .*?)(?:, client|$)/ or next;
        my %event;
        @event{@FIELDS} = map { s/^"(.*)"$/$1/r } $text =~ /("[^"]*"|\S+)/g;
        my $lines = $lines{"$event{history} $event{seq}"} //= {};
        if ($lines->{$copy}++) {
            push @{ $self->{twice} }, "callback $copy of event $event{seq} ran twice";
        }
        push @events, \%event unless keys %$lines > 1;
    }
    return @events;
}

sub kinds {
    my ($self, $kind, $generation) = @_;
    return grep {
        $_->{event} eq $kind && (!defined $generation || $_->{gen} == $generation)
    } $self->events;
}

# The events that are not of these kinds: those whose place in the order is free.
sub events_but {
    my ($self, @kinds) = @_;
    my %left_out = map { $_ => 1 } @kinds;
    return grep { !$left_out{ $_->{event} } } $self->events;
}

# Waits until so many events of a kind, of a generation or of all, have been told.
sub wait_events {
    my ($self, $kind, $number, $generation) = @_;
    my $of = defined $generation ? " of generation $generation" : '';
    return $self->wait_for("$number $kind$of",
        sub { my @kinds = $self->kinds($kind, $generation); @kinds >= $number });
}

# The same of the events of one process: on a busy machine others may be late and hang for a moment.
sub wait_event_of {
    my ($self, $kind, $pid) = @_;
    return $self->wait_for("$kind of $pid", sub { grep { $_->{pid} == $pid } $self->kinds($kind) });
}

# The pids of the workers that have started and not ended, by their events.
sub on_duty {
    my ($self, $generation) = @_;
    my %duty;
    for my $event ($self->events) {
        next if defined $generation && $event->{gen} != $generation;
        $duty{ $event->{pid} } = 1 if $event->{event} eq 'worker_start';
        delete $duty{ $event->{pid} } if $event->{event} =~ /^worker_(exit|lost)$/;
    }
    my @pids = sort { $a <=> $b } keys %duty;
    return @pids;
}

# Starts the node and waits until its workers have.
sub up {
    my ($self) = @_;
    $self->start;
    $self->wait_events('master_ready', 1, 1);
    return $self;
}

# Reloads and waits until the new workers have started and the old ones are gone.
sub reload {
    my ($self, $generation) = @_;
    $self->signal('HUP');
    $self->wait_events('master_ready', 1, $generation);
    $self->wait_events('master_exit', 1, $generation - 1);
}

# Reloads and waits until the new workers have started.
sub reload_ready {
    my ($self, $generation) = @_;
    $self->signal('HUP');
    $self->wait_events('master_ready', 1, $generation);
}

# Ends the node by a signal and waits until its last process is gone.
sub down {
    my ($self, $signal) = @_;
    $self->signal($signal // 'QUIT');
    $self->wait_for('the end of the master', sub { $self->reap; !is_alive($self->master) });
}

# Event as in the contract's timelines, with the pid left out: worker_start(1-, -,2,-)
sub told {
    return map {
        my $id = $_->{id} =~ s/-.*/-/r;
        my $reason = $_->{reason} eq '-' ? '' : "; $_->{reason}";
        "$_->{event}($id, $_->{prev},$_->{mine},$_->{next}$reason)";
    } @_;
}

# Checks every law of the contract on what was told. final => 1: the node is over.
sub laws_hold {
    my ($self, $name, %options) = @_;
    my @broken = WorkerManager::Laws::broken([ $self->events ], %options);
    push @broken, @{ $self->{twice} };
    my @ours = grep { /\[(?:alert|crit|emerg)\] \S+ worker_manager|panicked/ } split /\n/, $self->log;
    ok(!@broken && !@ours, $name // 'the laws hold')
        or diag join "\n", @broken, @ours, map { join ' ', @$_{@FIELDS} } $self->events;
}

# The answer to a request, '' if there is none; of another port than the suite's own if one is given.
sub get {
    my ($self, $path, $port) = @_;
    return ask($path, IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $port // $self->{port}, Timeout => 5));
}

# The same from a server that listens on a socket below the node's root.
sub get_unix {
    my ($self, $name, $path) = @_;
    return ask($path, IO::Socket::UNIX->new(Peer => $self->path($name), Timeout => 5));
}

sub ask {
    my ($path, $socket) = @_;
    return '' unless $socket;
    print $socket "GET $path HTTP/1.0\r\nHost: localhost\r\n\r\n";
    local $/;
    return scalar(<$socket>) // '';
}

# Opens a connection that keeps a worker from ending gracefully: an answer that is under way. It is
# one to a worker of the given generation; right after a reload old workers accept too.
sub hold_connection {
    my ($self, $generation) = @_;
    return $self->wait_for("a connection to generation $generation", sub {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port})
            or return;
        $socket->autoflush(1);
        print $socket "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n";
        while (my $line = <$socket>) {
            my ($pid) = $line =~ /^X-Worker: (\d+)/ or next;
            push @{ $self->{held} }, { pid => $pid };
            return (grep { $_ == $pid } $self->on_duty($generation)) ? $socket : undef;
        }
        return;
    });
}

# Opens a connection that has been answered and is kept alive.
sub idle_connection {
    my ($self) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}) or die "no connection: $!";
    print $socket "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    $socket->flush;
    my $line = <$socket>;
    return $socket;
}

# The workers that held connections go to, in the order of holding.
sub held { @{ $_[0]{held} // [] } }

# What UBSan said in the logs of nodes that are cleaned.
my @said;

# Ends what is left of this node, once. Only processes that are known to be its own.
sub clean {
    my ($self) = @_;
    return if $self->{cleaned}++;
    # UBSan reads its options when it first finds something, by when a worker has no environment
    # any more. So what it says goes to the standard error, which is nginx's log.
    push @said, ($self->log . $self->read('out/nginx.out')) =~ /^(.*runtime error: .*)$/mg
        if $ENV{WORKER_MANAGER_REPORTS};
    my @pids = map { $_->{pid} } $self->master ? $self->children : ();
    push @pids, $self->on_duty, $self->master // ();
    for my $pid (@pids) {
        next unless is_alive($pid);
        open my $file, '<', "/proc/$pid/cmdline" or next;
        next unless (<$file> // '') =~ /(?:^|\0)nginx: /; # or after a loader
        kill 'CONT', $pid;
        kill 'KILL', $pid;
    }
    $self->reap;
    remove_tree($self->{root}) unless $ENV{WORKER_MANAGER_KEEP};
}

# What the sanitizers have reported since this was asked last, each as a text.
sub findings {
    my @found;
    for my $file (glob(($ENV{WORKER_MANAGER_REPORTS} // return) . '/*')) {
        open my $report, '<', $file or next;
        local $/;
        push @found, scalar <$report>;
        unlink $file;
    }
    return @found;
}

END {
    my $status = $?;
    $_->clean for @nodes;
    my @found = (@said, findings());
    diag "a finding of the sanitizers:\n$_" for @found;
    $? = @found ? 1 : $status;
}

1;
