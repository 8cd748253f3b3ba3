# Functions that start and stop a small cluster on this machine; sourced (by bash) from the demo and the benchmarks.
# Needs $BIN, the directory of the rdcc binaries, and $RUN, a private directory for state and logs.
# Everything listens on loopback. `cluster_stop` ends all of it and may be called twice; it succeeds however the servers end, since
# what a caller does after it has to be done.

cluster_pids=()

# cluster_enter NAME: called by each server before it becomes one; for scripts that want it in a cgroup, or elsewhere.
cluster_enter() { :; }

# cluster_start NAME LINE COMMAND...: starts a server and waits, 20 s at most, until it prints a line with LINE in it.
cluster_start() {
	local name=$1 wanted=$2 line out
	shift 2
	rm -f "$RUN/$name.out"
	mkfifo "$RUN/$name.out"
	exec {out}<>"$RUN/$name.out"
	(cluster_enter "$name"; exec "$@" {out}>&-) >&"$out" 2>"$RUN/$name.log" &
	cluster_pids+=($!)
	while read -r -t 20 -u "$out" line; do
		# The server has the pipe open itself, for reading too: it may go on writing, and nobody else inherits it.
		[[ $line == *"$wanted"* ]] && { exec {out}>&-; return 0; }
	done
	exec {out}>&-
	echo "$name did not start: $*" >&2
	cat "$RUN/$name.log" >&2
	return 1
}

# cluster_port: prints a loopback port that nobody listens on now.
cluster_port() {
	local port
	for port in $(shuf -i 20000-29999 -n 50); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return 0; }
	done
	return 1
}

# cluster_coordinator PORT, and cluster_worker NUMBER SLOTS PORT: one of them, for the first time or once more.
cluster_coordinator() {
	export RDCC_COORDINATOR=http://127.0.0.1:$1 RDCC_STATE_DIR=$RUN/agent
	cluster_start coordinator "listening on" "$BIN/rdcc-coordinator" --listen "127.0.0.1:$1" --state-dir "$RUN/coordinator"
}
cluster_worker() {
	cluster_start "worker$1" "ready on" "$BIN/rdcc-worker" --coordinator "$RDCC_COORDINATOR" --listen "127.0.0.1:$3" \
		--name "node$1" --slots "$2" --power 1.0 --state-dir "$RUN/worker$1"
}

# cluster_up SLOTS...: a coordinator and one worker for each argument, with that many slots.
cluster_up() {
	local number=0 slots
	cluster_coordinator "$(cluster_port)"
	for slots in "$@"; do
		number=$((number + 1))
		cluster_worker $number "$slots" "$(cluster_port)"
	done
}

# counter NAME: prints a number of the report that `rdcc stats --json` writes to its input; 0 if it is not there.
counter() { tr -d ' \n' | grep -o "\"$1\":[0-9]*" | head -n 1 | grep -o '[0-9]*$' || echo 0; }

cluster_stop() {
	[ ! -x "$BIN/rdcc" ] || [ ! -d "$RUN/agent" ] || "$BIN/rdcc" agent stop >/dev/null 2>&1 || true
	[ ${#cluster_pids[@]} -eq 0 ] || kill "${cluster_pids[@]}" 2>/dev/null || true
	[ ${#cluster_pids[@]} -eq 0 ] || wait "${cluster_pids[@]}" 2>/dev/null || true
	cluster_pids=()
	return 0
}
