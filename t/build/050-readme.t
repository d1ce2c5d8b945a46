# t/README.md names every suite, and for each directive, event, callback and variable of the sources suites that have it.
use strict;
use warnings;
use File::Find ();
use Test::More;

my $TOP = "$ENV{WORKER_MANAGER_OBJS}/..";

sub content {
    my ($path) = @_;
    open my $file, '<', "$TOP/$path" or die "$path: $!";
    local $/;
    return scalar <$file>;
}

# The rows of each table: its heading, the first column, and the suites in the second.
my (%rows, $table);
for my $line (split /\n/, content('t/README.md')) {
    $table = $1 if $line =~ /^## By (\w+)/;
    my ($what, $rest) = $line =~ /^\| (.+?) \| (.+) \|$/ or next;
    $rows{$table}{ $what =~ s/`//gr } = [ $rest =~ /`([\w-]+\/[\w-]+\.t)`/g ];
}

my @suites;
File::Find::find({ no_chdir => 1, wanted => sub { push @suites, s{^\Q$TOP\E/t/}{}r if /\.t$/ } }, "$TOP/t");
@suites = sort @suites;
delete $rows{folder}{suite};
is_deeply([ sort keys %{ $rows{folder} } ], \@suites, 'the suites are those that there are');
like($_, qr{^\w+/\d\d\d-[\w-]+\.t$}, "$_ has a number, and is in a folder") for @suites;

# What the sources have of a kind, and the rows of it. A suite has it if it has the word.
sub covers {
    my ($kind, @names) = @_;
    cmp_ok(scalar @names, '>', 2, "the sources have names of this kind: $kind");
    delete $rows{$kind}{$kind};
    is_deeply([ sort keys %{ $rows{$kind} } ], [ sort @names ], "each $kind has a row");
    for my $name (@names) {
        my @named = @{ $rows{$kind}{$name} // [] };
        ok(scalar @named, "$kind $name has suites");
        for my $suite (@named) {
            my $there = -e "$TOP/t/$suite" && content("t/$suite") =~ /(?<![A-Za-z0-9_])\Q$name\E(?!\w)/;
            ok($there, "$suite has $name");
        }
    }
    return;
}

covers(directive => content('src/module/directives.rs') =~ /ngx_string!\("(\w+)"\)/g);
covers(event => content('crates/roster/src/event.rs') =~ /Kind::\w+ => "(\w+)"/g);
covers(variable => content('src/http/variables.rs') =~ /^ +\("(worker_manager_\w+)"/mg);
my ($callbacks) = content('src/config/error.rs') =~ /has the unknown action .*, known are ([\w, ]+)"/;
covers(callback => split / and |, /, $callbacks);

# The laws are those of the contract, by number.
delete $rows{law}{law};
my @laws = sort { $a <=> $b } map { /^(\d+) / } keys %{ $rows{law} };
is_deeply(\@laws, [ 1 .. 10 ], 'each law has a row');
for my $law (sort keys %{ $rows{law} }) {
    my @named = @{ $rows{law}{$law} };
    ok(@named && !(grep { !-e "$TOP/t/$_" } @named), "law $law has suites");
}

done_testing;
