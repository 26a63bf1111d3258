# Reads what pg_regress and pg_isolation_regress print, in the form up to
# PostgreSQL 15 ("test name ... ok") and since ("ok 1 - name"); prints a line a
# test, and at last "regress: PASSED FAILED" on descriptor 3.

function report(name, good, ms) {
	printf "  %-44s %s%s\n", name, good ? "ok" : "FAILED", ms ? " (" ms " ms)" : ""
	if (good) passed++; else failed++
}
/^(test | +)[^ ]+ +\.\.\. / {
	name = ($1 == "test") ? $2 : $1
	report(name, / \.\.\. ok/, /ms$/ ? $(NF - 1) : "")
	next
}
/^(ok|not ok) +[0-9]+ +[-+] / {
	good = ($1 == "ok")
	name = good ? $4 : $5
	report(name, good, /ms$/ ? $(NF - 1) : "")
	next
}
END { printf "regress: %d %d\n", passed, failed > "/dev/fd/3" }
