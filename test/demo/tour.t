#!/bin/bash
# What README.md tells a newcomer to paste into psql works; TAP.  Runs in the
# sandbox of test/run.
set -u
dir=$SANDBOX/tour
mkdir -p "$dir"
number=0

check() {
	number=$((number + 1))
	if eval "$2"; then
		echo "ok $number - $1"
	else
		echo "not ok $number - $1"
		sed 's/^/# /' "$dir/output"
	fi
}

sed -n '/^```sql$/,/^```$/p' README.md | sed '/^```/d' |
	sed "s|/tmp/events.jsonl|$dir/events.jsonl|" >"$dir/tour.sql"
export PGHOST=$dir PGPORT=5432 PGUSER=owner PGDATABASE=postgres
initdb -D "$dir/data" -U owner -A trust --no-sync >"$dir/output" 2>&1
cat >>"$dir/data/postgresql.conf" <<-EOF
	listen_addresses = ''
	unix_socket_directories = '$dir'
	$(sed -n "/^shared_preload_libraries = /p" README.md)
EOF
pg_ctl -D "$dir/data" -l "$dir/server.log" -s -w start
trap 'pg_ctl -D "$dir/data" -s -w -m fast stop' EXIT

psql -X -v ON_ERROR_STOP=1 -f "$dir/tour.sql" >"$dir/output" 2>&1
status=$?
check "README.md has a tour" '[ "$(wc -l <"$dir/tour.sql")" -gt 10 ]'
check "every statement succeeds" '[ $status -eq 0 ]'
check "the committed event is in the file, once" \
	'[ "$(grep -c "{\"item\": *\"tea\"}" "$dir/events.jsonl")" -eq 1 ]'
check "the rolled-back one is not" '! grep -q "never ordered" "$dir/events.jsonl"'
check "it was published" 'grep -qE "^ to_file +\|" "$dir/output"'
check "as wait_published says" 'grep -A2 "wait_published" "$dir/output" | grep -qx " t"'
echo "1..$number"
