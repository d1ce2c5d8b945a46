# The zone: full, kept, changed, removed.
use strict;
use warnings;
no warnings 'portable';    # addresses of 64 bits
use Test::More;
use Time::HiRes qw(time);
use WorkerManager;

# What a roster begins with, see roster/src/layout.rs.
my $MAGIC = 'ngxrostr';

subtest 'more workers than the zone holds' => sub {
    my $node = WorkerManager->new(workers => 170, manager => 'zone 32k;');
    $node->start;
    $node->wait_for('all workers', sub { my @c = $node->children; @c == 170 });
    $node->wait_for('word of it', sub {
        $node->log =~ /\[error\].*serves but is not counted: raise the size in the "zone" directive/
    });
    $node->wait_for('each to be counted or named', sub {
        my @named = $node->log =~ /is not counted/g;
        my @counted = $node->kinds('worker_start');
        @named + @counted == 170;
    });
    like($node->get('/'), qr/ok/, 'it serves');
    $node->down;
    is(scalar $node->kinds('worker_exit'), scalar $node->kinds('worker_start'), 'all counted end');
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'more generations than the zone holds' => sub {
    my $node = WorkerManager->new(workers => 1, manager => 'zone 32k;')->up;
    my (@held, $told);
    for my $generation (2 .. 30) {
        push @held, $node->hold_connection($generation - 1);
        $node->signal('HUP');
        $node->wait_for("generation $generation, or word that there is no room", sub {
            $told = $node->log =~ /\[error\].*no room for another generation, this one is not told/;
            return $told || $node->kinds('worker_start', $generation);
        }) or last;
        last if $told;
    }
    ok($told, 'the log says so');
    my $last = ($node->kinds('master_start'))[-1]{gen};
    $node->wait_for('an answer', sub { $node->get('/') =~ /ok/ });
    close $_ for @held;
    $node->wait_for('the end of all', sub { my @over = $node->kinds('master_exit'); @over == $last });
    $node->signal('HUP');
    $node->wait_events('worker_start', 1, $last + 1);
    pass('the next reload is told again, and no number was used up');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload that changes the size starts a new history' => sub {
    my $node = WorkerManager->new(manager => 'zone 256k;')->up;
    $node->configure(manager => 'zone 512k;');
    $node->signal('HUP');
    $node->wait_for('word of it',
        sub { $node->log =~ /zone has changed, a new history starts with generation 2/ });
    $node->wait_for('the end of the old',
        sub { $node->log =~ /EV1 \d+ master_exit 1 / });
    $node->down;
    my @lines = $node->log =~ /EV1 (\d+ \w+ \d+)/g;
    is(scalar(grep { /^\d+ worker_exit 1/ } @lines), 2, 'the old workers end in the old one');
    ok(scalar(grep { /^1 master_start 2/ } @lines), 'the new one begins with seq 1');
    ok(scalar(grep { / master_exit 2/ } @lines), 'and ends');
    unlike($node->log, qr/\[(alert|crit|emerg)\]/, 'without a fault');
};

subtest 'another name, too; and the block is removed' => sub {
    my $node = WorkerManager->new(manager => 'zone one 128k;')->up;
    $node->configure(manager => 'zone two 128k;');
    $node->signal('HUP');
    $node->wait_for('the end of the old', sub { $node->log =~ /EV1 \d+ master_exit 1 / });
    $node->configure(manager => undef);
    $node->signal('HUP');
    $node->wait_for('word of it', sub { $node->log =~ /no longer configured/ });
    $node->wait_for('the end of the second', sub { $node->log =~ /EV1 \d+ master_exit 2 / });
    like($node->get('/'), qr/ok/, 'it serves');
    $node->configure(manager => '');
    $node->signal('HUP');
    $node->wait_for('a third history', sub { $node->log =~ /EV1 3 worker_start 3-/ });
    $node->down;
    unlike($node->log, qr/\[(alert|crit|emerg)\]/, 'without a fault');
};

subtest 'failed reloads use up no number' => sub {
    my $node = WorkerManager->new->up;
    # Syntax.
    $node->configure(main => 'no_such_directive;');
    $node->signal('HUP');
    $node->wait_for('the refusal', sub { $node->log =~ /unknown directive "no_such_directive"/ });
    # A port that is taken: nginx tries for 2.5 s and gives up.
    my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
    my $port = $taken->sockport;
    $node->configure(main => '', http => "server { listen 127.0.0.1:$port; }");
    $node->signal('HUP');
    $node->wait_for('the refusal', sub { $node->log =~ /still could not bind/ });
    is(scalar $node->kinds('master_start'), 1, 'nothing is told');
    $node->configure(http => '');
    $node->reload(2);
    is(scalar $node->kinds('master_start', 2), 1, 'the next number is the next');
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

# The address of a text in a process's memory that it shares with others, and a file to write there;
# nothing if that is not allowed.
sub in_shared_memory {
    my ($pid, $text) = @_;
    open my $maps, '<', "/proc/$pid/maps" or return;
    open my $memory, '+<:raw', "/proc/$pid/mem" or return;
    for my $line (<$maps>) {
        my ($from, $to) = $line =~ m{^(\w+)-(\w+) rw-s .*/dev/zero} or next;
        sysseek $memory, hex $from, 0 or next;
        sysread $memory, my $content, hex($to) - hex $from or next;
        my $at = index $content, $text;
        return (hex($from) + $at, $memory) if $at >= 0;
    }
    return;
}

subtest 'a zone that another version has laid out' => sub {
    my $node = WorkerManager->new->up;
    my ($at, $memory) = in_shared_memory($node->master, $MAGIC);
    plan skip_all => "not allowed to write to another process's memory" unless $memory;
    my $write = sub {
        sysseek $memory, $at, 0 or die "seek: $!";
        syswrite $memory, $_[0] or die "write: $!";
    };
    $write->('another ');
    $node->signal('HUP');
    $node->wait_for('the refusal', sub {
        $node->log =~ /\[emerg\].*the zone was laid out by another version of the module, give it another name or size/ });
    like($node->get('/'), qr/ok/, 'the old workers serve on');
    is(scalar $node->kinds('master_start'), 1, 'no generation has started');
    $write->($MAGIC);
    $node->reload(2);
    pass('and a reload with the right one succeeds');
    $node->down;
};

subtest 'the default zone over nine live generations' => sub {
    my $node = WorkerManager->new(workers => 2)->up;
    my @held;
    for my $generation (2 .. 9) {
        push @held, $node->hold_connection($generation - 1);
        $node->signal('HUP');
        $node->wait_events('worker_start', 2, $generation);
    }
    is(scalar $node->kinds('master_exit'), 0, 'they live');
    close $_ for @held;
    $node->wait_for('the end of all but one',
        sub { my @over = $node->kinds('master_exit'); @over == 8 });
    $node->down;
    $node->laws_hold('the laws hold', final => 1);
};

subtest 'a reload of a single process without the load_module line' => sub {
    my $node = WorkerManager->new(workers => 1, daemon => 0, main => 'master_process off;',
        manager => 'interval 50ms;')->up;
    my $master = $node->master;
    $node->configure(main => 'master_process off;', module => undef, manager => undef);
    $node->signal('HUP');
    $node->wait_for('the reload', sub { $node->log =~ /reconfiguring/ });
    my $from = time;
    $node->wait_for('ten heartbeats', sub { time > $from + 0.6 });
    ok(WorkerManager::is_alive($master), 'it goes on');
    unlike($node->log, qr/exited on signal|panicked/, 'unharmed');
    $node->signal('TERM');
    $node->wait_for('the end', sub { !WorkerManager::is_alive($master) });
    like($node->log, qr/exit\s*\z/, 'and ends as it should');
};

done_testing;
