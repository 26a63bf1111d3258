#!/usr/bin/perl
#
# tap.pl [--log DIR] [--timeout SECONDS] [--lib DIR]... COMMAND...
#
# Runs test programs that speak TAP, one after another, one line each; shows
# the output of those that fail.  A COMMAND is the path of a Perl script, or
# anything executable, with arguments separated by blanks.  Each program has a
# directory of its own under --log, which PostgreSQL::Test also uses.
#
# Ends with the line "tap: PASSED FAILED SKIPPED" on descriptor 3 if that is
# open.  A skip that test/allowed-skips does not list fails where CI is set.

use strict;
use warnings;
use File::Basename qw(basename dirname);
use File::Path qw(make_path remove_tree);
use Getopt::Long;
use TAP::Parser;
use Time::HiRes qw(time);

my $log_dir = 'tap-log';
my $timeout = 600;
my @lib;
GetOptions('log=s' => \$log_dir, 'timeout=i' => \$timeout, 'lib=s' => \@lib)
  or die "usage: tap.pl [options] COMMAND...\n";

my $allowed = read_allowed(dirname(dirname(__FILE__)) . '/allowed-skips');
my %sum = (passed => 0, failed => 0, skipped => 0);

foreach my $command (@ARGV)
{
	my $result = run_one($command);
	$sum{$_} += $result->{$_} foreach keys %sum;
}

if (open(my $fh, '>&=', 3))
{
	print $fh "tap: $sum{passed} $sum{failed} $sum{skipped}\n";
}
exit($sum{failed} ? 1 : 0);

# Lines of "file reason", the reason a regular expression.
sub read_allowed
{
	my ($path) = @_;
	my @rules;
	if (open(my $fh, '<', $path))
	{
		while (my $line = <$fh>)
		{
			next if $line =~ /^\s*(#|$)/;
			chomp $line;
			push @rules, [ split(/\s+/, $line, 2) ];
		}
	}
	return \@rules;
}

sub skip_is_allowed
{
	my ($name, $reason) = @_;
	return 1 unless $ENV{CI};
	foreach my $rule (@$allowed)
	{
		return 1 if $name eq $rule->[0] && $reason =~ /$rule->[1]/;
	}
	return 0;
}

# What to execute: Perl scripts with the libraries' paths, other scripts with
# the interpreter they name, so that none needs to be executable.
sub command_words
{
	my ($command) = @_;
	my @words = split ' ', $command;
	my $first = '';

	if (open(my $fh, '<', $words[0]))
	{
		$first = <$fh> // '';
	}
	if ($first =~ /^#!.*perl/ || $words[0] =~ /\.pl$/)
	{
		return ('perl', (map { "-I$_" } @lib), @words);
	}
	return $first =~ /^#!\s*(\S.*)/ ? (split(' ', $1), @words) : @words;
}

sub run_one
{
	my ($command) = @_;
	my ($program, @arguments) = split ' ', $command;
	my $name = basename($program);
	my $label = join ' ', $name, @arguments;
	my $dir = "$log_dir/" . ($label =~ s/[^\w.-]+/_/gr);
	my $start = time;
	my @output;
	my @bad;

	# what a failed run left there would make this one fail
	remove_tree($dir);
	make_path("$dir/log");
	local $ENV{TESTDIR} = $dir;
	local $ENV{TESTDATADIR} = "$dir/tmp_check";
	local $ENV{TESTLOGDIR} = "$dir/log";

	local $| = 1;
	printf "  %-44s ", $label;
	my $parser = TAP::Parser->new(
		{
			exec => [ 'timeout', '-k', '10', $timeout, command_words($command) ],
			merge => 1
		});
	while (my $result = $parser->next)
	{
		my $text = $result->as_string;
		push @output, $text;
		next unless $result->is_test;
		push @bad, $text unless $result->is_ok;
		if ($result->has_skip && !skip_is_allowed($name, $result->explanation))
		{
			push @bad, "skipped, which CI does not allow: $text";
		}
	}

	my $planned = $parser->tests_planned // 0;
	my $total = $planned > $parser->tests_run ? $planned : $parser->tests_run;
	my $skipped = scalar($parser->skipped);
	my $passed = scalar($parser->passed) - $skipped;
	my $seconds = time - $start;

	if (defined $parser->skip_all)
	{
		$skipped = 1;
		$total = 1;
		$passed = 0;
		push @bad, "all skipped, which CI does not allow: " . $parser->skip_all
		  unless skip_is_allowed($name, $parser->skip_all);
	}
	if ($total == 0 && !@bad)
	{
		push @bad, "no test was run";
	}
	push @bad, "stopped after $timeout s" if $parser->exit && ($parser->exit >> 8 || $parser->exit) == 124;
	push @bad, "exit status " . ($parser->exit >> 8) if $parser->exit && !@bad;
	push @bad, $parser->parse_errors if $parser->parse_errors && !@bad;

	my $failed = scalar @bad;
	if ($total > $passed + $skipped + $failed)
	{
		push @bad, ($total - $passed - $skipped - $failed) . " tests were planned and not run";
		$failed = $total - $passed - $skipped;
	}

	printf "%d passed%s%s (%.1f s)\n", $passed, $failed ? ", $failed FAILED" : '',
	  $skipped ? ", $skipped skipped" : '', $seconds;
	print "      skipped: " . $parser->skip_all . "\n" if defined $parser->skip_all;

	if (open(my $fh, '>', "$dir/output"))
	{
		print $fh "$_\n" foreach @output;
	}
	show_failure($dir, \@bad, \@output) if $failed;
	return { passed => $passed, failed => $failed, skipped => $skipped };
}

# What went wrong, each with what the program said next; the end of its output,
# and of the newest logs.
sub show_failure
{
	my ($dir, $bad, $output) = @_;
	my %is_bad = map { $_ => 1 } @$bad;
	my @tail = @$output > 30 ? @$output[ -30 .. -1 ] : @$output;
	my $context = 0;

	print "      | $_\n" foreach map { s/\n/\n      | /gr } grep { !/^not ok/ } @$bad;
	foreach my $line (@$output)
	{
		$context = 0 if $line =~ /^(not )?ok\b/;
		$context = 20 if $is_bad{$line};
		print "      | $line\n" if $context-- > 0;
	}
	print "      the end of its output ($dir/output):\n";
	print "      | $_\n" foreach @tail;
	foreach my $log (sort { -M $a <=> -M $b } glob("$dir/log/*.log $dir/tmp_check/log/*.log"))
	{
		next if $log =~ /regress_log_/;
		open(my $fh, '<', $log) or next;
		my @lines = <$fh>;
		@lines = @lines[ -40 .. -1 ] if @lines > 40;
		print "      the end of $log:\n";
		print "      | $_" foreach @lines;
	}
	return;
}
