package Chaos::Actors;

# Those who do what the script says. Each takes the node and an action; what there is nobody to do to
# is not done.

use strict;
use warnings;
use JSON::PP ();
use Time::HiRes qw(sleep);

use Chaos::Node;
use Chaos::Script;

# Does one action, and what earlier ones have left to do by now.
sub act {
    my ($node, $action) = @_;
    $node->did('action', Chaos::Script::text($action));
    wake($node);
    my $do = __PACKAGE__->can("do_$action->{name}") or die "no action $action->{name}";
    $do->($node, $action);
    my $until = Chaos::Node::now() + $action->{pause};
    while (Chaos::Node::now() < $until) {
        sleep 0.01;
        wake($node);
    }
}

# Lets those go on that have been stopped for long enough.
sub wake {
    my ($node) = @_;
    my ($stopped, $now) = ($node->{stopped}, Chaos::Node::now());
    for my $pid (grep { $stopped->{$_} <= $now } keys %$stopped) {
        $node->signal('CONT', $pid) if Chaos::Node::is_alive($pid);
        delete $stopped->{$pid};
    }
}

# Some of the live workers, without those that are stopped.
sub victims {
    my ($node, $action, $n) = @_;
    my @workers = grep { !exists $node->{stopped}{$_} } $node->workers;
    my @victims;
    for my $number (@{ $action->{victims} }[ 0 .. $n - 1 ]) {
        push @victims, splice @workers, $number % @workers, 1 if @workers;
    }
    return @victims;
}

sub hup {
    my ($node) = @_;
    $node->signal('HUP', $node->{master}) if $node->master_lives;
}

sub do_reload {
    my ($node, $action) = @_;
    $node->configure($action->{load});
    hup($node);
}

# Reloads that nginx may take for one.
sub do_reload_twice {
    my ($node, $action) = @_;
    $node->configure($action->{load});
    hup($node) for 1 .. 1 + $action->{ms} % 3;
    sleep 0.03;
    hup($node);
}

sub do_reload_syntax {
    my ($node, $action) = @_;
    $node->configure($action->{load}, directive => 'no_such_directive on;');
    hup($node);
}

sub do_reload_bind {
    my ($node, $action) = @_;
    $node->configure($action->{load}, port => $node->{busy}->sockport);
    hup($node);
}

sub do_reload_module {
    my ($node, $action) = @_;
    $node->replace_module;
    do_reload($node, $action);
}

# Moves the event log away, as logrotate does.
sub do_reopen {
    my ($node) = @_;
    return unless $node->master_lives;
    my $name = sprintf 'small/events.%03d.log', ++$node->{rotated};
    rename $node->path('small/events.log'), $node->path($name);
    my $asked = 0;
    # A full disk has room for an empty file. Who has just failed to reload does not look at what else
    # it was told until the next signal (`ngx_master_process_cycle`).
    $node->wait_for('the new event log', sub {
        # The master may wait for one that is stopped in the middle of a callback.
        wake($node);
        return 1 if -e $node->path('small/events.log') || !$node->master_lives;
        return 0 if $asked > Chaos::Node::now() - 3;
        $node->signal('USR1', $node->{master});
        $asked = Chaos::Node::now();
        return 0;
    });
}

sub do_winch {
    my ($node, $action) = @_;
    return unless $node->master_lives;
    $node->signal('WINCH', $node->{master});
    $node->{winched} = 1;
    sleep 0.2;
    do_reload($node, $action);
}

# Looks at a configuration, which is no event.
sub do_test { $_[0]->nginx('-t') }

sub do_kill { $_[0]->signal('KILL', victims(@_, 1)) }
sub do_segv { $_[0]->signal('SEGV', victims(@_, 1)) }
sub do_kill_several { $_[0]->signal('KILL', victims(@_, 1 + $_[1]{ms} % 8)) }
sub do_quit_worker { $_[0]->signal('QUIT', victims(@_, 1)) }
sub do_term_worker { $_[0]->signal('TERM', victims(@_, 1)) }

sub do_stop {
    my ($node, $action) = @_;
    for my $pid (victims($node, $action, 1)) {
        $node->{stopped}{$pid} = Chaos::Node::now() + $action->{ms} / 1000;
        $node->signal('STOP', $pid);
    }
}

sub do_stop_kill {
    my ($node, $action) = @_;
    my ($pid) = victims($node, $action, 1) or return;
    $node->signal('STOP', $pid);
    sleep $action->{ms} / 1000;
    $node->signal('KILL', $pid);
}

# The first process to get there dies.
sub do_failpoint {
    my ($node, $action) = @_;
    $node->did('arm', $action->{point});
    $node->write("failpoints/$action->{point}", '', oct '666');
}

# Kills who is in the middle of a callback.
sub do_kill_in_call { kill_in_call(@_, sub { $_[0]->signal('KILL', $_[1]) }) }

# The same, and its memory is reaped at once, as by the kernel's OOM reaper: before it exits, or while it does.
sub do_reap_in_call { kill_in_call(@_, sub { $_[0]->kill_and_reap($_[1]) }) }

sub kill_in_call {
    my ($node, $action, $kill) = @_;
    return unless order($node, 'call', "sleep 2500 $node->{master}");
    do_kill($node, $action);
    my $who;
    # If nothing happens before long, the order stays for who comes later.
    for (1 .. 50) {
        ($who) = map { /call\.(\d+)$/ } glob $node->path('trick/call.*');
        last if $who;
        sleep 0.01;
    }
    return unless $who;
    sleep $action->{ms} % 100 / 1000;
    $kill->($node, $who);
    unlink $node->path("trick/call.$who");
}

sub do_call_fails { order($_[0], 'call', 'fail') }

sub do_call_kills {
    my ($node) = @_;
    $node->did('arm', 'call') if order($node, 'call', "kill 0 $node->{master}");
}

# The same, without a robust list.
sub do_call_loses {
    my ($node) = @_;
    $node->did('arm', 'call') if order($node, 'call', "lose 0 $node->{master}");
}

sub do_program { order($_[0], 'exec', $_[1]{program}) }

# Leaves an order for whoever is the first to find it.
sub order {
    my ($node, $name, $order) = @_;
    my $path = $node->path("trick/$name");
    return 0 if -e $path;
    unlink glob "$path.*";
    $node->write("trick/$name", $order, oct '666');
    $node->did('order', $name, $order);
    return 1;
}

# Fills the disk that the event log is on.
sub do_fill_disk {
    my ($node) = @_;
    return unless $node->{mounted};
    $node->did('disk', 'full');
    open my $file, '>', $node->path('small/filler') or return;
    my $room = 'f' x 4096;
    1 while syswrite $file, $room;
}

sub do_free_disk {
    my ($node) = @_;
    unlink $node->path('small/filler');
    $node->did('disk', 'free');
}

sub do_step_clock {
    my ($node, $action) = @_;
    open my $file, '+<', $node->path('clock') or die $!;
    syswrite $file, pack 'l', $action->{clock};
    $node->did('clock', $action->{clock});
}

# Waits until nothing is under way, and notes what there is, for the check.
sub do_settle {
    my ($node) = @_;
    $node->calm;
    my $why = '';
    my $quiet = $node->wait_for('a quiet moment', sub {
        return 1 if !$node->master_lives || is_deserted($node);
        sleep 0.05;
        my @counted = counted($node);
        my %duty = $node->on_duty;
        my ($newest) = sort { $b <=> $a } values %duty;
        my @duty = sort { $a <=> $b } keys %duty;
        $why = "the log has @duty, /proc has @counted, expected $node->{expected}";
        return $node->master_idles && "@counted" eq "@duty" && !grep { $_ != $newest } values %duty;
    }, 20);
    return unless $node->master_lives;
    $node->did('unsettled', $why) unless $quiet;
    $node->wait_for('programs to end', sub {
        my %all = $node->processes;
        !grep { !/^nginx: (?:worker|master) process/ } values %all;
    }, 10);
    note_status($node);
    note_descriptors($node) if $node->master_idles;
}

# Whether WINCH has sent all workers away and a reload that failed brought none. Then nobody can be asked,
# and who died is told by the master, when it does something next.
sub is_deserted {
    my ($node) = @_;
    return $node->{winched} && !$node->workers;
}

# The live workers but for those that have said last that there was no room for them.
sub counted {
    my ($node) = @_;
    my (%uncounted, $log);
    $log = $node->read('logs/error.log');
    $uncounted{$1} = defined $2 while $log =~ /process (\d+) (?:serves but )?is( not)? counted/g;
    return grep { !$uncounted{$_} } $node->workers;
}

# The status beside what /proc shows at the same time. Some that were told to end do so only now; who
# still differs when the time is over is what the check looks for.
sub note_status {
    my ($node) = @_;
    my ($status, @counted);
    $node->wait_for('a status that is what /proc shows', sub {
        return 1 if !$node->master_lives || is_deserted($node);
        @counted = counted($node);
        my $now = $node->status // return 0;
        $status = $now;
        my @roster = sort { $a <=> $b } map { $_->{pid} } @{ $status->{workers} };
        # A reload that was asked for before the quiet moment may have begun only after it.
        return @{ $status->{generations} } == 1 && "@roster" eq "@counted" && "@counted" eq join ' ', counted($node);
    }, 20);
    return unless $status && $node->master_lives;
    my %brief = map { $_ => $status->{$_} } qw(node generations zone);
    $brief{workers} = [ map { { pid => $_->{pid}, state => $_->{state} } } @{ $status->{workers} } ];
    $node->did('status', JSON::PP->new->canonical->encode({ counted => \@counted, %brief }));
}

# The descriptors of all, once everybody watches others and nobody opens or closes any.
sub note_descriptors {
    my ($node) = @_;
    my $watches = Chaos::Node::has_pidfd();
    my (@lines, $before);
    $node->wait_for('descriptors that stay', sub {
        return 1 unless $node->master_idles;
        sleep 0.03;
        my %counted = map { $_ => 1 } counted($node);
        my @workers = $node->workers;
        my $last = $before // '';
        @lines = ();
        $before = '';
        for my $pid ($node->{master}, @workers) {
            my %kinds = Chaos::Node::descriptors($pid) or return 0;
            # At least the master.
            return 0 if $watches && $counted{$pid} && !$kinds{'anon_inode:[pidfd]'};
            push @lines, [ $pid, scalar @workers,
                map { my $kind = $_; s/\s/_/gr . "=$kinds{$kind}" } sort keys %kinds ];
            # Connections of clients come and go.
            $before .= join ' ', $pid, grep { !/^socket=/ || $pid == $node->{master} } @{ $lines[-1] }, "\n";
        }
        return $before eq $last;
    }, 20);
    return unless $node->master_idles;
    $node->did('descriptors', @$_) for @lines;
}

# The end of a node, as the script has it.
sub end {
    my ($node, $script) = @_;
    my ($how, $action) = ($script->node, $script->next);
    $node->calm;
    $node->did('end', @$how{qw(end orphans)});
    if ($node->master_lives) {
        $node->signal($how->{end}, $node->{master});
        # Some that drain die.
        do_kill_several($node, $action) if $how->{end} eq 'QUIT' && $action->{ms} % 2;
        $node->wait_for('the end of the master', sub { !$node->master_lives });
    }
    orphans($node, $how->{orphans}, $action);
    $node->wait_for('the end of the workers', sub { !$node->workers });
    $node->wait_for('the end of the programs', sub { my %all = $node->processes; !%all }, 15);
}

# The master is gone and its workers live on.
sub orphans {
    my ($node, $fate, $action) = @_;
    my @workers = $node->workers or return;
    sleep $action->{ms} / 1000;
    if ($fate eq 'KILL_ALL') {
        $node->signal('KILL', $node->workers);
        return;
    }
    if ($fate eq 'KILL_SOME') {
        do_kill_several($node, $action);
        $fate = 'QUIT';
    }
    $node->signal($fate, $node->workers);
}

1;
