# What a build costs, locally and by rdcc; sourced (by bash) from the benchmarks of whole builds. They give:
#   TOOLCHAIN        a toolchain file
#   REAL             the real compiler
#   clean            removes what a build leaves
#   settle CC...     makes the build system know a compiler
#   build CC...      builds; CC... is empty for the local compiler
#   objects, lists   print a digest of each object, and of each list of dependencies, whoever compiled
#   keep_floor DIR   keeps the local objects and lists there, for free-compiler.c
#   compiler COMMAND prints CC... for a compiler of that command
# The client (make, wrappers, agent), the worker and the coordinator are accounted for apart.
. scripts/cluster.sh
. benches/cpu-groups.sh
if [ -z "${BIN:-}" ]; then
	BIN=$TOP/target/release
	cargo build --release --quiet --bins
fi
RUN=$(mktemp -d)
trap 'cluster_stop; cpu_groups_down; rm -rf "$RUN"' EXIT
trap 'exit 130' INT TERM
cpu_groups_up client worker coordinator
# Every compile goes to the worker: what runs here by choice would count as the client's.
export XDG_CONFIG_HOME=$RUN/config
mkdir -p "$XDG_CONFIG_HOME/rdcc"
echo 'local_share = false' >"$XDG_CONFIG_HOME/rdcc/config.toml"
cluster_enter() { cpu_group_enter "${1%[0-9]}"; }

# timed COMMAND...: sets client_us, the CPU time of the command with its agent, and wall_ms.
timed() {
	local begin before TIMEFORMAT='%3U %3S'
	begin=$(date +%s%3N)
	before=$(cpu_group_us client)
	{ time (cpu_group_enter client; "$@" 2>&3); } 3>&2 2>"$RUN/time"
	wall_ms=$(($(date +%s%3N) - begin))
	client_us=$(($(cpu_group_us client) - before))
	[ -n "$cpu_groups_dir" ] || client_us=$((client_us + $(awk '{ printf "%d", ($1 + $2) * 1000000 }' "$RUN/time")))
}
row() { printf '%-44s %12s\n' "$1" "$2"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }
per_compile() { awk -v a="$1" -v b="$2" -v n="$compiles" 'BEGIN { printf "%.2f ms", (a - b) / n / 1000 }'; }
differing() { diff "$1" "$2" | grep -c '^[<>]' || true; }
peak_kb() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status" 2>/dev/null || echo 0; }
agent_pid() { # prints nothing when there is none
	"$BIN/rdcc" status --json 2>/dev/null | tr -d ' \n' | grep -o '"agent":{[^}]*' | grep -o '"pid":[0-9]*' | grep -o '[0-9]*$' || true
}

agent_us() { # PID: CPU time of the agent itself so far, microseconds; 0 when there is none
	local own=0
	read -r own _ < <(cpu_ticks "${1:-none}") || true
	echo $((own * 1000000 / $(getconf CLK_TCK)))
}
# keep WHAT VALUE: for the medians of all rounds, and between what they lie.
keep() { echo "$2" >>"$RUN/kept.$1"; }
median() { sort -g "$RUN/kept.$1" | awk '{ of[NR] = $1 } END { print of[int((NR + 1) / 2)] }'; }
span() { sort -g "$RUN/kept.$1" | awk 'NR == 1 { least = $1 } END { print least " to " $1 }'; }

# keep_local: keeps what the local build made, with which all others are compared.
keep_local() {
	objects >"$RUN/local.objects"
	lists >"$RUN/local.lists"
	compiles=$(grep -c . "$RUN/local.lists")
	mkdir -p "$RUN/floor" "$RUN/free"
	keep_floor "$RUN/floor"
	gcc -O2 -o "$RUN/free/rdcc" "$TOP/benches/free-compiler.c"
	export FREE_REAL=$REAL
	row "compiles" "$compiles"
}

# measure_floor: sets floor_us, what make itself takes; called with make knowing "$RDCC".
measure_floor() {
	clean
	FREE_OBJECTS=$RUN/floor PATH=$RUN/free:$PATH timed build "$(compiler "$RDCC")"
	floor_us=$client_us
}

# measure_plain SLOTS: builds locally; sets plain_us, what the compiles take when as many run at once as at the worker. More of them at once
# on the same cores disturb each other, and take more CPU time.
measure_plain() {
	local JOBS=$1
	settle
	clean
	timed build
	plain_us=$client_us
	[ -d "$RUN/floor" ] || keep_local
	settle "$(compiler "$RDCC")"
	measure_floor
	plain_us=$((plain_us - floor_us))
	row "plain compiles, $1 at once, CPU" "$((plain_us / 1000)) ms"
}

# rdcc_up SLOTS: a coordinator and a worker that have the toolchain.
rdcc_up() {
	cluster_up "$1"
	worker_pid=${cluster_pids[1]}
	cpu_group_watch worker "$worker_pid"
	cpu_group_watch coordinator "${cluster_pids[0]}"
	"$BIN/rdcc" toolchain push "$TOOLCHAIN" >"$RUN/push.log" 2>&1 || { cat "$RUN/push.log" >&2; exit 1; }
	PATH=$BIN:$PATH
}

# measure_rdcc LABEL cold|warm|restarted: a build by rdcc whose agent knows nothing, has built this before, or is new. What
# make itself takes is measured before and after it: it is larger than what is left, so a hundredth of it counts.
measure_rdcc() {
	local worker coordinator remote agent own client wall before after floor
	agent=$(agent_pid || true)
	[ "$2" = warm ] || "$BIN/rdcc" agent stop >/dev/null 2>&1 || true
	# It writes down what it knows before it is gone.
	[ "$2" = warm ] || [ -z "$agent" ] || timeout 20 tail --pid="$agent" -f /dev/null || true
	[ "$2" != cold ] || rm -rf "$RUN/agent/agents"
	measure_floor
	before=$floor_us
	clean
	"$BIN/rdcc" stats --zero >/dev/null
	cpu_group_watch client
	own=0
	[ "$2" != warm ] || { cpu_group_watch client "$agent"; own=$(agent_us "$agent"); }
	worker=$(cpu_group_us worker) coordinator=$(cpu_group_us coordinator)
	timed build "$(compiler "$RDCC")"
	client=$client_us wall=$wall_ms
	worker=$(($(cpu_group_us worker) - worker)) coordinator=$(($(cpu_group_us coordinator) - coordinator))
	agent=$(agent_pid)
	own=$(($(agent_us "$agent") - own))
	"$BIN/rdcc" stats --json >"$RUN/stats"
	remote=$(counter remote_cpu_us <"$RUN/stats")
	objects >"$RUN/rdcc.objects"
	lists >"$RUN/rdcc.lists"
	"$BIN/rdcc" stats >"$RUN/stats.text"
	measure_floor
	after=$floor_us floor=$(((before + floor_us) / 2))
	keep floor "$((before / 1000))"
	keep floor "$((after / 1000))"
	keep "client.$2" "$(per_compile "$client" "$floor")"
	keep "agent.$2" "$(per_compile "$own" 0)"
	keep "worker.$2" "$(ratio "$worker" "$plain_us")"
	echo "== $1"
	row "client CPU per compile, floor off" "$(per_compile "$client" "$floor")"
	row "  the agent's own" "$(per_compile "$own" 0)"
	row "make's floor, before and after, per compile" "$(per_compile "$before" 0), $(per_compile "$after" 0)"
	row "worker CPU / plain compiles" "$(ratio "$worker" "$plain_us")"
	row "  its own, besides the jobs" "$(per_compile "$worker" "$remote")"
	row "  the jobs / plain compiles" "$(ratio "$remote" "$plain_us")"
	row "coordinator CPU per compile" "$(per_compile "$coordinator" 0)"
	row "agent, peak memory" "$(peak_kb "$agent") kB"
	row "worker, peak memory" "$(peak_kb "$worker_pid") kB"
	row "jobs in mode A, mode B, local" "$(counter A <"$RUN/stats"), $(counter B <"$RUN/stats"), $(counter local <"$RUN/stats")"
	row "scan and compiler differ" "$(counter dependency_mismatch <"$RUN/stats")"
	row "objects that differ" "$(differing "$RUN/local.objects" "$RUN/rdcc.objects")"
	row "lists of dependencies that differ" "$(differing "$RUN/local.lists" "$RUN/rdcc.lists")"
	row "wall" "$wall ms"
	sed -n '/BECAUSE/,$p' "$RUN/stats.text"
}

# measure_rounds: the medians of all rounds, and between what they lie.
measure_rounds() {
	local what label
	echo "== medians of $ROUNDS rounds (least to most)"
	while read -r what label; do
		row "$label" "$(median "$what") ($(span "$what"))"
	done <<-'ROWS'
		client.cold client CPU per compile, first build
		agent.cold   the agent's own
		client.warm client CPU per compile, second build
		agent.warm   the agent's own
		client.restarted client CPU per compile, third build
		agent.restarted   the agent's own
		worker.cold worker CPU / plain, first build
		worker.warm worker CPU / plain, second build
		worker.restarted worker CPU / plain, third build
		floor make's floor, CPU ms
	ROWS
}

# peer_up SLOTS: a distccd, as Debian starts it; measure_peer writes the list of hosts.
peer_up() {
	peer_port=$(cluster_port)
	export DISTCC_DIR=$RUN/distcc
	mkdir -p "$DISTCC_DIR"
	(cluster_enter worker; exec distccd --no-detach --daemon --user nobody --listen 127.0.0.1 --port "$peer_port" \
		--allow 127.0.0.0/8 --jobs "$1" --nice 0 --enable-tcp-insecure --log-stderr --log-level error) 2>"$RUN/distccd.log" &
	cluster_pids+=($!)
	cpu_group_watch worker $!
}

# measure_peer LABEL FLAGS COMMAND...: a build by distcc, or by what COMMAND puts around it; FLAGS follow the host.
# A job that its server does not do is done here, and would count as the client's work; so would preprocessing in pump
# mode, which falls back to it (and which Debian 12's pump always does, being older than its Python): each is a row.
measure_peer() {
	local label=$1 worker
	echo "127.0.0.1:$peer_port/$peer_slots$2" >"$DISTCC_DIR/hosts"
	shift 2
	settle "$(compiler "distcc $REAL")"
	clean
	: >"$RUN/distcc.log"
	worker=$(cpu_group_us worker)
	DISTCC_VERBOSE=0 DISTCC_LOG=$RUN/distcc.log timed "$@" build "$(compiler "distcc $REAL")"
	worker=$(($(cpu_group_us worker) - worker))
	objects >"$RUN/peer.objects"
	echo "== $label"
	row "client CPU per compile, floor off" "$(per_compile "$client_us" "$floor_us")"
	row "worker CPU / plain compiles" "$(ratio "$worker" "$plain_us")"
	row "not done by its server" "$(grep -c 'running locally' "$RUN/distcc.log" || true)"
	[ $# -eq 0 ] || row "preprocessed here" "$(grep -c 'preprocessing locally' "$RUN/distcc.log" || true)"
	row "objects that differ" "$(differing "$RUN/local.objects" "$RUN/peer.objects")"
	row "wall" "$wall_ms ms"
}

in_pump() { # COMMAND...: with an include server, which is the client's too
	eval "$(distcc-pump --startup)"
	"$@"
	distcc-pump --shutdown
}

# measure_all: everything, in one run, ROUNDS times (1). PEERS=0 leaves distcc and its pump mode out.
measure_all() {
	local peer_slots=2 round
	local ROUNDS=${ROUNDS:-1}
	rdcc_up "$peer_slots"
	for round in $(seq "$ROUNDS"); do
		[ "$ROUNDS" = 1 ] || echo "== round $round"
		measure_plain "$peer_slots"
		measure_rdcc "rdcc, first build, nothing known" cold
		measure_rdcc "rdcc, second build, after clean" warm
		measure_rdcc "rdcc, third build, after clean, the agent started anew" restarted
	done
	[ "$ROUNDS" = 1 ] || measure_rounds
	[ "${PEERS:-1}" = 1 ] || return 0
	cluster_stop
	peer_up "$peer_slots"
	measure_peer "distcc" ""
	measure_peer "distcc, pump mode" ,lzo,cpp in_pump
}
