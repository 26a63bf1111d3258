# Events wait for the synchronous standbys where a subscription asks for that.
#
# A commit that waits for a standby is not read by anybody.  If the wait is
# cancelled, the commit is visible though no standby has it: that is when the
# option makes a difference.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary', streaming => 1);
my $plain = subscribe_file($primary, 'plain');
my $strict = subscribe_file($primary, 'strict');
$primary->safe_psql('postgres', "SELECT eo.unsubscribe('strict')");
$primary->safe_psql('postgres',
	q{SELECT eo.subscribe('strict', server => 'file_strict', options => '{"synchronous_standbys": true}')});

ok(wait_published($primary, 'strict', enqueue($primary, 'a', 5)),
	'without synchronous standbys there is nothing to wait for');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$primary->reload;
$primary->poll_query_until('postgres',
	"SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = 'standby'")
  or die 'the standby does not connect';
$primary->safe_psql('postgres', 'CHECKPOINT');    # it is the checkpointer that makes commits wait
ok(wait_published($primary, 'strict', enqueue($primary, 'a', 5)),
	'with one that answers, events are published');

# ---- the standby is away -----------------------------------------------------

$standby->stop;
my $session = session($primary);
$session->query_until(qr/ready/, <<'EOS');
SELECT 'ready';
SELECT eo.enqueue('a', '"alone"');
EOS
$primary->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
  or die 'no commit waits for the standby';
is($primary->safe_psql('postgres', "SELECT count(*) FROM eo.events WHERE payload = '\"alone\"'"),
	'0', 'a commit that waits is not visible');
$primary->safe_psql('postgres',
	"SET synchronous_commit = local; SELECT eo.enqueue('a', '\"behind\"')");
$primary->poll_query_until('postgres', 'SELECT count(*) = 1 FROM eo.stalls')
  or die 'the relay has not come to it';
is(scalar(grep { $_->{data} eq '"behind"' } read_events($plain)),
	0, 'what was committed behind it stays behind it');
is($primary->safe_psql('postgres', 'SELECT wait_event FROM eo.stalls'),
	'SyncRep', 'and eo.stalls tells what the log is waiting for');

$primary->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
my $seq = $primary->safe_psql('postgres', 'SELECT last_seq FROM eo.log_status()');
ok(wait_published($primary, 'plain', $seq), 'after a cancel it counts as committed');
ok(!wait_published($primary, 'strict', $seq, 1), 'but not for who asked for the standbys');
is(scalar(grep { $_->{sequence} == $seq } read_events($strict)), 0, 'it has not left');
is(field($primary, 'strict', 'last_error IS NULL'), 't', 'which is no error');

$standby->start;
ok(wait_published($primary, 'strict', $seq), 'when the standby is back, it leaves');
is(scalar(grep { $_->{data} eq '"behind"' } read_events($plain)),
	1, 'and so has what stood behind it');
check_events($primary, $strict, 'true', 'and all events are there once, in order');
check_events($primary, $plain, 'true', 'in both files');

$session->quit;
$standby->stop;
$primary->stop;
done_testing();
