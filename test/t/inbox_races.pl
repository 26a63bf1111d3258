# Receivers that meet at one id or one source at chosen moments.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('races', conf => "max_prepared_transactions = 5\ndeadlock_timeout = 100ms\n");

value($node, <<'EOS');
SELECT eo.receive('c', 'first');
CREATE TABLE answer (what text, answer text);
EOS

sub pid_of
{
	return $_[0]->query_safe('SELECT pg_backend_pid()');
}

# ---- several wait for one ---------------------------------------------------------

# The first is rolled back: one of them is next, and the others wait for that one.
my $holder = session($node);
my @waiters = map { session($node) } 1 .. 4;
my %waiter = map { pid_of($_) => $_ } @waiters;
my $pids = join ',', keys %waiter;
my %calls = (
	'one' => "eo.receive('c', 'awaited')::text",
	'batch' => "(SELECT string_agg(r, ' ') FROM eo.receive('c', ARRAY['b', 'awaited too', 'a']) AS r)",
	'position' => "eo.receive_at('c', 'awaited', 1)");
my %answers = (one => 'true false', batch => 'b awaited too a (none)', position => 'new duplicate');

foreach my $what (sort keys %calls)
{
	my $call = $calls{$what};
	my @winner;

	$holder->query_safe("BEGIN; SELECT $call");
	foreach my $pid (keys %waiter)
	{
		$waiter{$pid}->query_safe('BEGIN');
		send_query($waiter{$pid}, "INSERT INTO answer VALUES ('$what', coalesce($call, '(none)'))");
		wait_locked($node, $pid);
	}
	$holder->query_safe('ROLLBACK');
	wait_until(
		"one of the waiters for $what is next",
		sub {
			my $state = value($node, <<"EOS");
SELECT string_agg(pid::text, ',') FILTER (WHERE state LIKE 'idle in transaction%'),
	count(*) FILTER (WHERE wait_event_type = 'Lock') FROM pg_stat_activity WHERE pid IN ($pids)
EOS
			return 0 unless $state =~ /^(\d+)\|3$/;
			@winner = ($1);
			return 1;
		});
	my $next = delete $waiter{ $winner[0] };
	$next->query_safe('COMMIT');
	$_->query_safe('COMMIT') foreach values %waiter;
	$waiter{ $winner[0] } = $next;
	is(value($node, "SELECT string_agg(answer, ' ' ORDER BY n) FROM (SELECT answer, count(*) AS n FROM answer WHERE what = '$what' GROUP BY 1) AS a"),
		$answers{$what}, "$what: one of four waiters is next");
	is(value($node, "SELECT min(n) || ' ' || max(n) FROM (SELECT count(*) AS n FROM answer WHERE what = '$what' GROUP BY answer) AS a"),
		'1 3', "$what: and the other three are not");
}
$_->quit foreach $holder, values %waiter;

$node->stop;
done_testing();
