# Three databases pass money on, linked by nothing but the files of their
# publishers.  Readers hand over what stands there, with duplicates, two at a
# time, out of order where that is allowed, while publishers, sessions and the
# server are killed.  In the end every balance is the one that follows from the
# transfers.
#
#   bank      debits an account           -> transfers
#   clearing  keeps a fee    (by id)      -> cleared
#   partner   credits an account (by position) -> receipts
#   bank      settles the transfer (by the trigger)

use strict;
use warnings;
use EoLog;
use EoRelay;
use IPC::Run ();
use JSON ();
use List::Util qw(max min shuffle sum0);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{EO_SEED} // int(time() * 1000) % 1_000_000;
srand($seed);
diag("EO_SEED=$seed");

use constant TRANSFERS => 500;
use constant ACCOUNTS => 20;

my $node = new_server('chain', conf => <<EOC);
max_connections = 40
max_worker_processes = 20
deadlock_timeout = 100ms
eo_outbox.retention = 1h
log_statement = none
EOC
foreach my $db (qw(bank clearing partner))
{
	value($node, "CREATE DATABASE $db");
	value($node, 'CREATE EXTENSION eo_outbox', $db);
}

value($node, sprintf(<<'EOS', ACCOUNTS), 'bank');
CREATE TABLE account AS SELECT id, 0::bigint AS balance FROM generate_series(1, %d) AS id;
CREATE TABLE transfer (id uuid PRIMARY KEY, debtor int, creditor int, amount int, settled int DEFAULT 0);
CREATE FUNCTION send(debtor int, creditor int, amount int) RETURNS void LANGUAGE sql AS $$
	UPDATE account SET balance = balance - amount WHERE id = debtor;
	INSERT INTO transfer SELECT eo.enqueue('transfers', jsonb_build_object('creditor', creditor, 'amount', amount), debtor::text), debtor, creditor, amount;
$$;
CREATE TABLE receipt (event jsonb, id uuid, transfer uuid);
CREATE FUNCTION settle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE transfer SET settled = settled + 1 WHERE id = new.transfer;
	RETURN new;
END $$;
SELECT eo.deduplicate_table('receipt', 'settlement', 'id');
CREATE TRIGGER settle AFTER INSERT ON receipt FOR EACH ROW EXECUTE FUNCTION settle();
EOS
value($node, <<'EOS', 'clearing');
CREATE TABLE fees AS SELECT 0::bigint AS balance, 0 AS n;
CREATE FUNCTION clear(e jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	amount int := e -> 'data' -> 'amount';
	fee int := 1 + amount / 100;
BEGIN
	IF eo.receive('clearing', e ->> 'id', e) THEN
		UPDATE fees SET balance = balance + fee, n = n + 1;
		PERFORM eo.enqueue('cleared', jsonb_set(e -> 'data', '{amount}', to_jsonb(amount - fee)), e -> 'data' ->> 'creditor');
	END IF;
END $$;
EOS
value($node, sprintf(<<'EOS', ACCOUNTS), 'partner');
CREATE TABLE account AS SELECT id, 0::bigint AS balance FROM generate_series(1, %d) AS id;
CREATE FUNCTION credit(e jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	answer text := eo.receive_at('partner', concat_ws('/', e ->> 'source', e ->> 'topic'), (e ->> 'position')::bigint);
	by_sequence text := eo.receive_at('by sequence', concat_ws('/', e ->> 'source', 'cleared'), (e ->> 'sequence')::bigint, dense => false);
BEGIN
	IF answer <> 'gap' AND answer <> by_sequence THEN
		RAISE EXCEPTION 'position %% is %%, but sequence %% is %%', e ->> 'position', answer, e ->> 'sequence', by_sequence;
	END IF;
	IF answer = 'gap' THEN
		RAISE EXCEPTION 'position %% is too early', e ->> 'position';
	ELSIF answer = 'new' THEN
		UPDATE account SET balance = balance + (e -> 'data' ->> 'amount')::int WHERE id = (e -> 'data' ->> 'creditor')::int;
		PERFORM eo.enqueue('receipts', to_jsonb(e ->> 'correlationid'), headers => jsonb_build_object('correlationid', e ->> 'correlationid'));
	END IF;
END $$;
EOS

# ---- readers --------------------------------------------------------------------------

# `at` is what the reader remembers, `saved` what it finds after a restart.
my %link = (
	transfers => { from => 'bank', to => 'clearing', function => 'clear' },
	cleared => { from => 'clearing', to => 'partner', function => 'credit', ordered => 1 },
	receipts => { from => 'partner', to => 'bank' });
foreach my $topic (keys %link)
{
	$link{$topic}{path} = subscribe_file($node, $topic, topics => $topic, db => $link{$topic}{from});
	$link{$topic}{at} = $link{$topic}{saved} = 0;
}
my %count = (delivered => 0, failed => 0, undone => 0, restarted => 0, killed => 0);

sub lines_of
{
	my ($link) = @_;
	return () unless -e $link->{path};
	return slurp_file($link->{path}) =~ /^(.*)\n/mg;
}

sub literal
{
	return "'" . ($_[0] =~ s/'/''/gr) . "'";
}

# The SQL that hands events over, each in a transaction, or all at once.
sub hand_over
{
	my ($link, @events) = @_;

	if (!$link->{function})
	{
		return 'COPY receipt FROM stdin;' . "\n"
		  . join('', map {
			my $event = JSON::decode_json($_);
			join("\t", s/\\/\\\\/gr, $event->{id}, $event->{data}) . "\n" } @events) . "\\.\n";
	}
	return join '', map {
		my $end = rand() < 0.03 ? 'ROLLBACK' : 'COMMIT';
		$count{undone}++ if $end eq 'ROLLBACK';
		# what is undone has to come again
		"BEGIN; SELECT $link->{function}(" . literal($_) . "); $end;\n" . ($end eq 'ROLLBACK' ? "SELECT 1 / 0;\n" : '')
	} @events;
}

# Starts a psql, which goes on by itself; returns what to do when it has ended.
my $scripts = PostgreSQL::Test::Utils::tempdir();
my $started = 0;

sub start_psql
{
	my ($db, $sql, $done) = @_;
	my $out = '';
	my $script = "$scripts/" . ++$started;

	append_to_file($script, $sql);
	local $ENV{PGAPPNAME} = 'reader';
	local $ENV{PGOPTIONS} = rand() < 0.3 ? '-c default_transaction_isolation=serializable' : '';
	my $handle = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', $script, '-d', $node->connstr($db) ],
		'<', \undef, '>', \$out, '2>&1');
	return sub {
		my $good = $handle->finish;
		unlink $script;
		$done->($good);
	};
}

sub start_reader
{
	my ($link) = @_;
	my @lines = lines_of($link);
	my $from = max(0, $link->{at} - (rand() < 0.4 ? int(rand(12)) : 0));
	my $to = min($from + 30, scalar @lines);
	my @events = @lines[ $from .. $to - 1 ];

	return () if $to <= $from;
	@events = shuffle(@events) unless $link->{ordered};
	return start_psql(
		$link->{to},
		hand_over($link, @events),
		sub {
			my ($good) = @_;
			$count{ $good ? 'delivered' : 'failed' } += $good ? @events : 1;
			$link->{at} = max($link->{at}, $to) if $good;
			$link->{saved} = $link->{at} if rand() < 0.5;
		});
}

my $produced = 0;

sub start_producer
{
	return () if $produced >= TRANSFERS;
	my $sql = '';
	foreach (1 .. 20)
	{
		my ($debtor, $creditor) = map { 1 + int(rand(ACCOUNTS)) } 1 .. 2;
		$sql .= "BEGIN; SELECT send($debtor, $creditor, " . (10 + int(rand(990))) . '); '
		  . (rand() < 0.2 ? 'ROLLBACK' : 'COMMIT') . ";\n";
	}
	return start_psql('bank', $sql, sub { });
}

# ---- until all is settled ----------------------------------------------------------------

sub incident
{
	my ($round) = @_;

	if ($round == 25)
	{
		kill_everything($node);
	}
	elsif ($round % 4 == 1)
	{
		foreach my $link (values %link)
		{
			my ($ret, $pid) = $node->psql($link->{from}, 'SELECT publisher_pid FROM eo.subscriptions');
			kill 'KILL', $pid and $count{killed}++ if rand() < 0.5 && ($pid // '') ne '';
		}
	}
	elsif ($round % 4 == 3)
	{
		$node->psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reader' ORDER BY random() LIMIT 1");
	}
	foreach my $link (values %link)
	{
		next if rand() > 0.1;
		$link->{at} = $link->{saved};
		$count{restarted}++;
	}
	return;
}

my $rounds = 0;
wait_until(
	'all transfers are settled',
	sub {
		$rounds++;
		my @running = (start_producer(), map { (start_reader($_), start_reader($_)) } values %link);
		incident($rounds);
		$_->() foreach @running;
		$produced = value($node, 'SELECT count(*) FROM transfer', 'bank');
		return $produced >= TRANSFERS && $rounds > 30
		  && value($node, 'SELECT count(*) FROM transfer WHERE settled = 0', 'bank') == 0
		  && !grep { $_->{at} < lines_of($_) } values %link;
	},
	4);
diag("$rounds rounds: " . join(', ', map { "$_ $count{$_}" } sort keys %count));

# Once more from the beginning, in one go.
foreach my $topic (qw(transfers cleared receipts))
{
	my $link = $link{$topic};
	my @lines = lines_of($link);
	my $sql = join '', map { "SELECT $link->{function}(" . literal($_) . ");\n" } @lines if $link->{function};

	cmp_ok(scalar @lines, '>=', TRANSFERS, "$topic: an event for each transfer");
	is(scalar @lines, $produced, "$topic: and no other");
	value($node, $sql // hand_over($link, @lines), $link->{to});
}

# ---- the books ---------------------------------------------------------------------------

my (%debit, %credit);
my $fees = 0;
foreach my $row (split /\n/, value($node, 'SELECT debtor, creditor, amount FROM transfer', 'bank'))
{
	my ($debtor, $creditor, $amount) = split /\|/, $row;
	my $fee = 1 + int($amount / 100);

	$debit{$debtor} -= $amount;
	$credit{$creditor} += $amount - $fee;
	$fees += $fee;
}
my $balances = "SELECT string_agg(id || ':' || balance, ' ' ORDER BY id) FROM account";
is(value($node, $balances, 'bank'), join(' ', map { "$_:" . ($debit{$_} // 0) } 1 .. ACCOUNTS), 'the bank has debited every account');
is(value($node, 'SELECT balance, n FROM fees', 'clearing'), "$fees|$produced", 'clearing has kept its fees');
is(value($node, $balances, 'partner'), join(' ', map { "$_:" . ($credit{$_} // 0) } 1 .. ACCOUNTS), 'the partner has credited every account');
is(sum0(values %debit) + sum0(values %credit) + $fees, 0, 'no money was made or lost');
is(value($node, 'SELECT min(settled), max(settled), count(*) FROM transfer', 'bank'), "1|1|$produced", 'every transfer is settled once');
is(value($node, 'SELECT count(*), count(DISTINCT id), count(DISTINCT transfer) FROM receipt', 'bank'), join('|', ($produced) x 3), 'by a receipt each');
is(value($node, "SELECT count(*) FROM receipt WHERE event ->> 'correlationid' <> transfer::text OR event ->> 'causationid' IS NOT NULL", 'bank'), '0',
	'that names the transfer as its correlation');
is(value($node, "SELECT count(*) FROM eo.events WHERE topic = 'cleared' AND headers ->> 'causationid' IS DISTINCT FROM headers ->> 'correlationid'", 'clearing'), '0',
	'as do the events between, which it has caused');
cmp_ok($count{delivered}, '>', 3 * TRANSFERS * 1.2, 'with duplicates');
cmp_ok($count{failed}, '>', 5, 'and errors');
cmp_ok($count{killed}, '>', 5, 'and killed publishers');
$node->stop;
done_testing();
