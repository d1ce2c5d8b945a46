package WorkerManager::Browser;

# A headless Chromium for a suite, driven over WebDriver: what a user of a page sees, presses and is
# told on the console. Chromedriver chooses a free port on 127.0.0.1 itself.

use strict;
use warnings;
no warnings 'exec';

use File::Path qw(make_path remove_tree);
use HTTP::Tiny;
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use WorkerManager::Scratch;

our $DEADLINE = 20;

# A page has more than ASCII to show.
binmode $_, ':encoding(UTF-8)' for Test::More->builder->output, Test::More->builder->failure_output;

my @browsers;

# Whether there is one to start.
sub is_there {
    return scalar grep { -x "$_/chromedriver" } split /:/, $ENV{PATH};
}

sub new {
    my ($class) = @_;
    my $root = WorkerManager::Scratch::folder('browser');
    make_path("$root/profile", "$root/tmp");
    pipe my $out, my $in or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        CORE::open STDIN, '<', '/dev/null';
        CORE::open STDOUT, '>&', $in;
        CORE::open STDERR, '>', "$root/chromedriver.err";
        # Whatever it leaves lying about goes with the folder.
        @ENV{qw(TMPDIR HOME XDG_CONFIG_HOME XDG_CACHE_HOME)} = ("$root/tmp") x 4;
        # It ends with this process, whatever that dies of.
        exec 'setpriv', '--pdeathsig', 'TERM', 'chromedriver', '--port=0';
        POSIX::_exit(127);
    }
    CORE::close $in;
    my $self = bless { root => $root, pid => $pid, out => $out, http => HTTP::Tiny->new(timeout => 60) }, $class;
    push @browsers, $self;
    local $SIG{ALRM} = sub { die "chromedriver does not start\n" };
    alarm $DEADLINE;
    while (my $line = <$out>) {
        last if ($self->{port}) = $line =~ /started successfully on port (\d+)/;
    }
    alarm 0;
    die "chromedriver does not start\n" unless $self->{port};
    # Root can't have the sandbox; a container's /dev/shm may be small. Over a pipe the browser ends
    # with chromedriver.
    my @arguments = qw(--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run
        --disable-background-networking --disable-component-update --disable-extensions --disable-sync
        --remote-debugging-pipe --hide-scrollbars --disable-lcd-text --lang=en --force-device-scale-factor=1);
    my $session = $self->command(POST => '/session', { capabilities => { alwaysMatch => {
        browserName => 'chrome',
        'goog:chromeOptions' => { args => [ @arguments, "--user-data-dir=$root/profile" ] },
        'goog:loggingPrefs' => { browser => 'ALL' },
    } } });
    $self->{session} = "/session/$session->{sessionId}";
    $self->size(1280, 900);
    return $self;
}

# One command of WebDriver; its value.
sub command {
    my ($self, $method, $path, $content) = @_;
    my %options = $content ? (content => encode_json($content)) : ();
    my $answer = $self->{http}->request($method, "http://127.0.0.1:$self->{port}$path",
        { headers => { 'content-type' => 'application/json' }, %options });
    my $value = eval { decode_json($answer->{content})->{value} };
    die "$method $path: ", $answer->{content}, "\n" unless $answer->{success};
    return $value;
}

sub session { $_[0]->command($_[1], "$_[0]{session}/$_[2]", $_[3]) }

# A command of Chromium's own protocol.
sub cdp {
    my ($self, $command, %parameters) = @_;
    return $self->session(POST => 'goog/cdp/execute', { cmd => $command, params => \%parameters });
}

sub open {
    my ($self, $url) = @_;
    $self->session(POST => 'url', { url => $url });
    return $self;
}

sub size {
    my ($self, $width, $height) = @_;
    $self->cdp('Emulation.setDeviceMetricsOverride', width => 0 + $width, height => 0 + $height,
        deviceScaleFactor => 1, mobile => $width < 500 ? JSON::PP::true : JSON::PP::false);
}

# 'light' or 'dark'
sub scheme {
    my ($self, $scheme) = @_;
    $self->cdp('Emulation.setEmulatedMedia',
        features => [ { name => 'prefers-color-scheme', value => $scheme } ]);
}

# What a function's body, written in JavaScript, returns in the page.
sub run {
    my ($self, $body, @arguments) = @_;
    return $self->session(POST => 'execute/sync', { script => $body, args => \@arguments });
}

# The text of the first element of a CSS selector as a user sees it; '' if there is none.
sub text {
    my ($self, $selector) = @_;
    return $self->run('return document.querySelector(arguments[0])?.innerText ?? ""', $selector);
}

# Waits until a function's body returns something true; what it returned.
sub wait_for {
    my ($self, $what, $body, @arguments) = @_;
    my $until = time + $DEADLINE;
    while (1) {
        my $value = $self->run($body, @arguments);
        return $value if $value;
        if (time > $until) {
            fail("timed out waiting for $what");
            diag $self->text('body');
            return;
        }
        sleep 0.02;
    }
}

# Waits until the text of an element matches.
sub wait_text {
    my ($self, $selector, $pattern) = @_;
    my $until = time + $DEADLINE;
    while (1) {
        my $text = $self->text($selector);
        if ($text =~ $pattern) {
            pass("$selector shows $pattern");
            return $text;
        }
        if (time > $until) {
            fail("$selector shows $pattern");
            diag $self->text('body');
            return;
        }
        sleep 0.02;
    }
}

sub press {
    my ($self, $key) = @_;
    my %keys = (Tab => "\x{E004}", Space => ' ', Enter => "\x{E007}", End => "\x{E010}");
    $self->session(POST => 'actions', { actions => [ { type => 'key', id => 'keyboard', actions => [
        map { { type => $_, value => $keys{$key} } } qw(keyDown keyUp) ] } ] });
}

# What the browser complained of on the console since it was last asked, refused content included.
sub complaints {
    my ($self) = @_;
    return map { "$_->{level} $_->{source}: $_->{message}" }
        grep { $_->{level} ne 'INFO' && $_->{level} ne 'DEBUG' }
        @{ $self->session(POST => 'se/log', { type => 'browser' }) };
}

sub screenshot {
    my ($self, $path) = @_;
    my $png = decode_base64($self->cdp('Page.captureScreenshot', format => 'png')->{data});
    CORE::open my $file, '>:raw', $path or die "$path: $!";
    print $file $png;
    CORE::close $file or die "$path: $!";
}

sub close {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    eval { $self->command(DELETE => $self->{session}) } if $self->{session};
    kill 'TERM', $pid;
    waitpid $pid, 0;
    remove_tree($self->{root}) unless $ENV{WORKER_MANAGER_KEEP};
}

END {
    my $status = $?;
    $_->close for @browsers;
    $? = $status;
}

1;
