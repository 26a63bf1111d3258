# Numbers are never used twice for what anybody may have seen, though VACUUM may
# take away the rows that used the latest ones.

use strict;
use warnings;
use EoLog;
use EoRelay;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_log_server('numbers');
my $path = subscribe_file($node, 'f');
subscribe_pull($node, 'p');

# A subscription that starts behind aborted rows.
value($node, 'CALL test.put(10)');
abort_after_append($node, 5);
my $last = value($node, 'SELECT last_seq FROM eo.log_status()');
is(value($node, 'SELECT max(seq) FROM eo.events'), $last - 5, 'the last numbers were not used');
subscribe_pull($node, 'late');
wait_published($node, 'f', $last - 5);
value($node, 'VACUUM eo.log_0');
$node->restart;
value($node, 'CALL test.put(3)');
is(pull($node, 'p'), 13, 'events after a restart are read');
is(pull($node, 'late'), 3, 'also by a subscription that started behind aborted rows');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');

# A cursor that the relay wrote after it had passed aborted rows.
my $relay = stop_relay_idle($node);
value($node, 'CALL test.put(3)');
abort_after_append($node, 5);
$last = value($node, 'SELECT last_seq FROM eo.log_status()');
kill 'CONT', $relay;
ok($node->poll_query_until('postgres', "SELECT max(seq) = $last FROM eo.cursor"),
	'the relay passed aborted rows');
value($node, 'VACUUM eo.log_0');
$node->restart;
value($node, 'CALL test.put(3)');
is(pull($node, 'p'), 6, 'events after a restart are read');
check_file($node, 'f', $path, 'file');

# The same after a crash.
abort_after_append($node, 5);
subscribe_pull($node, 'later');
value($node, 'VACUUM eo.log_0');
kill_everything($node);
value($node, 'CALL test.put(3)');
is(pull($node, 'p'), 3, 'events after a crash are read');
is(pull($node, 'later'), 3, 'also by a subscription that started behind aborted rows');
check_pulled($node, 'p', 'pull');
check_file($node, 'f', $path, 'file');
$node->stop;

done_testing();
