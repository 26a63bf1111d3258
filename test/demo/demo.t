#!/bin/bash
# The demonstration does what it says; TAP.  Runs in the sandbox of test/run.
here=$(dirname "$0")
if out=$(python3 "$here/demo.py" "$SANDBOX/demo-smoke" --seconds 5 2>&1); then
	echo "ok 1 - the demonstration proves its claims"
else
	echo "not ok 1 - the demonstration proves its claims"
	sed 's/^/# /' <<<"$out"
	tail -n 40 "$SANDBOX/demo-smoke/server.log" 2>/dev/null | sed 's/^/# server: /'
fi
lines=0
for words in 'kill -9 [0-9]+, the publisher' 'ok +lost +0' 'ok +doubled +0' \
	'ok +out of order +0' 'publisher_pid' 'Nothing lost'
do
	lines=$((lines + 1))
	if grep -qE "$words" <<<"$out"; then
		echo "ok $((lines + 1)) - it shows: $words"
	else
		echo "not ok $((lines + 1)) - it shows: $words"
	fi
done
echo "1..$((lines + 1))"
