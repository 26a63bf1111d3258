# Sourced by the drivers (test/run, test/demo/run, ...).
#
# A sandbox is a directory with everything one run needs:
#
#   tree/    a copy of the sources, built here
#   pg/      a private copy of the PostgreSQL of PG_CONFIG with the extension in
#            it; PostgreSQL finds its files relative to its own executable, so
#            the copy is complete and the installed one is not touched
#   tmp/     TMPDIR of everything that runs in here
#
# Everything in it is built and run by an unprivileged user (PostgreSQL refuses
# root): the caller, or `postgres` where root calls.  No process outlives it:
# sandbox_close ends whatever still runs from its files, and says so.

# Where downloads and brokers' jars are kept between runs.
sandbox_cache() {
	if [ -n "${EO_CACHE:-}" ]; then
		echo "$EO_CACHE"
	elif [ "$(id -u)" -eq 0 ]; then
		echo /var/cache/eo_outbox
	else
		echo "$HOME/.cache/eo_outbox"
	fi
}

# sandbox_open SOURCE_DIR NAME: creates it, or reuses the one named by WORK
# (then it is kept, and builds are incremental).  Sets SANDBOX and SANDBOX_USER.
sandbox_open() {
	sandbox_source=$1
	if [ "$(id -u)" -eq 0 ]; then
		SANDBOX_USER=${EO_USER:-postgres}
		id "$SANDBOX_USER" >/dev/null 2>&1 || SANDBOX_USER=nobody
	else
		SANDBOX_USER=$(id -un)
	fi
	if [ -n "${WORK:-}" ]; then
		mkdir -p "$WORK"
		SANDBOX=$(cd "$WORK" && pwd -P)
	else
		SANDBOX=$(mktemp -d "/tmp/eo-$2.XXXXXX")
	fi
	chmod 755 "$SANDBOX"
	mkdir -p "$SANDBOX/tree" "$SANDBOX/tmp" "$SANDBOX/pg"
	sandbox_copy_tree
	[ "$(id -u)" -ne 0 ] ||
		chown -R "$SANDBOX_USER:$(id -gn "$SANDBOX_USER")" "$SANDBOX"
}

# Sources only, with their times, so that make rebuilds what has changed.
sandbox_copy_tree() {
	(
		cd "$SANDBOX/tree"
		find . -path ./build -prune -o -type f ! -name '*.o' ! -name '*.d' \
			! -name '*.so' ! -name '.build-flags' ! -name '*--*.sql' ! -name '*.gc??' -print |
		while read -r file; do
			[ -e "$sandbox_source/$file" ] || rm -f "$file"
		done
	)
	tar -C "$sandbox_source" --exclude='*.o' --exclude='*.d' --exclude='*.so' \
		--exclude='eo_outbox--*.sql' --exclude='./build' --exclude='./results' \
		--exclude='__pycache__' --exclude='./.git' --exclude='.build-flags' -cf - . | tar -C "$SANDBOX/tree" -xpf -
}

# sandbox_run COMMAND...: as the sandbox's user, with a clean environment in
# which the private PostgreSQL comes first.
sandbox_run() {
	set -- env -i \
		HOME="$SANDBOX/tmp" TMPDIR="$SANDBOX/tmp" USER="$SANDBOX_USER" \
		LOGNAME="$SANDBOX_USER" SHELL=/bin/sh LC_ALL=C.UTF-8 TERM="${TERM:-dumb}" \
		PATH="${PGBIN:+$PGBIN:}/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" \
		SANDBOX="$SANDBOX" PG_CONFIG="${PG_CONFIG:-}" EO_SANDBOX_ENV=1 \
		CI="${CI:-}" ONLY="${ONLY:-}" TESTS="${TESTS:-}" BROKER="${BROKER:-}" \
		EO_CACHE="$(sandbox_cache)" EO_MUTANT="${EO_MUTANT:-}" \
		EO_OLD_PG="${EO_OLD_PG:-}" \
		EO_STATEMENTS="${EO_STATEMENTS:-}" EO_SEED="${EO_SEED:-}" \
		PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-180}" "$@"
	if [ "$(id -u)" -eq 0 ]; then
		set -- setpriv --reuid="$SANDBOX_USER" --init-groups \
			--regid="$(id -gn "$SANDBOX_USER")" -- "$@"
	fi
	(cd "$SANDBOX/tree" && "$@")
}

# sandbox_postgres PG_CONFIG: copies what it must, links the rest.  Executables
# must be real files, as a link would lead them back to their first home.
sandbox_postgres() {
	PG_CONFIG=$1
	for what in bindir pkglibdir sharedir includedir-server pkgincludedir; do
		dir=$("$PG_CONFIG" --$what) || return 1
		copy=$SANDBOX/pg$dir
		[ ! -e "$copy" ] || continue
		case $what in
			bindir)
				sandbox_run mkdir -p "$copy"
				sandbox_run cp -r "$dir/." "$copy/" ;;
			pkglibdir | sharedir)
				sandbox_run mkdir -p "$copy"
				sandbox_run cp -rs "$dir/." "$copy/"
				sandbox_run find "$copy" -name '*eo_outbox*' -prune \
					-exec rm -rf {} + ;;
			*)
				sandbox_run mkdir -p "${copy%/*}"
				sandbox_run ln -s "$dir" "$copy" ;;
		esac
	done
	PGBIN=$SANDBOX/pg$("$1" --bindir)
	PG_CONFIG=$PGBIN/pg_config
}

# sandbox_build [MAKE VARIABLES]: builds the tree and installs it in pg/.  The
# output is in $SANDBOX/build.log, and shown if it fails.
sandbox_build() {
	if sandbox_run make -s -j"$(nproc)" "$@" all >"$SANDBOX/build.log" 2>&1 &&
		sandbox_run make -s "$@" install >>"$SANDBOX/build.log" 2>&1
	then
		return 0
	fi
	cat "$SANDBOX/build.log"
	return 1
}

# Prints the ids of processes that run an executable of this sandbox, or were
# started with EO_MARK=$SANDBOX in their environment (brokers are).
sandbox_processes() {
	for proc in /proc/[0-9]*; do
		exe=$(readlink "$proc/exe" 2>/dev/null) || continue
		case $exe in
			"$SANDBOX"/*) echo "${proc#/proc/}" ;;
			*)
				if grep -qzx "EO_MARK=$SANDBOX" "$proc/environ" 2>/dev/null; then
					echo "${proc#/proc/}"
				fi ;;
		esac
	done
}

# Waits for what still runs to end, 10 s at most; kills what is left then, names
# it, and returns 1.
sandbox_settle() {
	settled=0
	deadline=$(($(date +%s) + 10))
	for pid in $(sandbox_processes); do
		seconds=$((deadline - $(date +%s)))
		[ "$seconds" -gt 0 ] || seconds=1
		timeout "$seconds" tail --pid="$pid" -f /dev/null || :
	done
	for pid in $(sandbox_processes); do
		printf 'left running: %s %s\n' "$pid" \
			"$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
		kill -9 "$pid" 2>/dev/null || :
		settled=1
	done
	return $settled
}

# Ends what still runs, removes the sandbox unless WORK or KEEP asks for it.
sandbox_close() {
	[ -n "${SANDBOX:-}" ] || return 0
	for pid in $(sandbox_processes); do
		kill -9 "$pid" 2>/dev/null || :
	done
	if [ -n "${WORK:-}${KEEP:-}" ]; then
		printf 'kept: %s\n' "$SANDBOX"
	else
		rm -rf "$SANDBOX"
	fi
}
