#!/bin/bash
# Measures rdcc and distcc on simulated clusters: nodes sleep for as long as a compile took when it was recorded, and
# hand over the recorded object (replaycc.c), so that the CPU that is left is the tools' own, and a cluster of any size
# fits one machine. Prints wall time, CPU, and wall time over the bound for each tool, interleaved.
#   benches/replay.sh SCENARIO...
#     owner        8 nodes of power 1 with 2 slots, the client helping and not; distcc, pump
#     mixed        powers 4 2 1 1 .5 .5 .25 .25 with 4 4 2 2 2 2 2 2 slots
#     changing     the same, long: half-way two nodes slow down to a third, one is killed, one is new
#     faults       8 nodes of power 1, long: half-way the coordinator is away for ten seconds, or a node is killed
#     long         the mixed cluster with a tape of 1,040 compiles
#     two          two builds at once on the mixed cluster
#     wide         32 nodes of 4 slots: the client is the bound
#     wrong        the mixed cluster, every node configured as 1.0
#     small        ten files, warm, against make alone
#     configure    ./configure of GNU hello, against the plain compiler
#     record       nothing but the tape
#     all          every one of them
# Needs root (host names, cgroups). The tape is recorded once, under target/replay. PEERS=0 leaves distcc out, PUMP=1 adds
# pump. SLOW=5 makes every node that many times slower: what is lost by placement then shows on a machine that is busy, too.
# HELP=0 leaves the client's cores out of the bound. TRACES=DIR writes a trace of each build by rdcc there, for Perfetto.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
BIN=${RDCC_BIN:-$TOP/target/release}
TREE=${REPLAY_TREE:-$TOP/target/kernel}
TC=${REPLAY_TOOLCHAIN:-$TOP/target/replay}
SMALL=$TOP/target/replay-small
PEERS=${PEERS:-1}
HELP=${HELP:-$(nproc)}
. scripts/cluster.sh
. benches/replay-nodes.sh

SLOW=${SLOW:-1}
slowed() { # POWER:SLOTS...: sets `nodes` to POWER:SLOTS... at that speed
	local spec
	nodes=()
	for spec in "$@"; do nodes+=($((${spec%:*} / SLOW)):${spec#*:}); done
}
OWNER=(100:2 100:2 100:2 100:2 100:2 100:2 100:2 100:2)
MIXED=(400:4 200:4 100:2 100:2 50:2 50:2 25:2 25:2)
WIDE=()
for _ in $(seq 1 32); do WIDE+=(100:4); done
slowed "${OWNER[@]}" && OWNER=("${nodes[@]}")
slowed "${MIXED[@]}" && MIXED=("${nodes[@]}")
slowed "${WIDE[@]}" && WIDE=("${nodes[@]}")

# --- one measured build ------------------------------------------------------------------------------------------

# measured LABEL BOUND COMMAND...: runs the command in the client's account and prints a row.
measured() {
	local label=$1 bound=$2 client workers begin
	shift 2
	client=$(cpu_ms client) workers=$(cpu_ms workers) begin=$(date +%s%3N)
	in_group client
	"${within[@]}" "$@" >"$RUN/build.log" 2>&1 || { echo "replay: $label failed: $*" >&2; tail -n 30 "$RUN/build.log" >&2; return 1; }
	wall_ms=$(($(date +%s%3N) - begin))
	client_ms=$(($(cpu_ms client) - client)) workers_ms=$(($(cpu_ms workers) - workers))
	awk -v label="$label" -v wall=$wall_ms -v client=$client_ms -v workers=$workers_ms -v bound="$bound" -v note="${note:-}" 'BEGIN {
		printf "%-34s %8.1f %8.1f %8.1f %8.1f %7.2f  %s\n", label, wall / 1000, client / 1000, workers / 1000, bound, wall / 1000 / bound, note }'
}
heading() {
	echo "== $1"
	printf '%-34s %8s %8s %8s %8s %7s\n' tool "wall s" "client s" "nodes s" "bound s" ratio
}
# kernels JOBS CC TREE...: the words of a build of net/ in all these trees, by one make's job server.
kernels() {
	local jobs=$1 cc=$2
	shift 2
	build=(make -s -f "$RUN/trees.mk" -j"$jobs" TREES="$*" REPLAY_PREFIX="$TC/bin/$PREFIX_NAME" CC="$cc")
}
cat_trees_mk() {
	cat <<-'END'
		all: $(addsuffix /net,$(TREES))
		.PHONY: all $(addsuffix /net,$(TREES))
		$(addsuffix /net,$(TREES)): ; +$(MAKE) -s -C $(@D) ARCH=arm CROSS_COMPILE=$(REPLAY_PREFIX) CC="$(CC)" KBUILD_BUILD_TIMESTAMP=1970-01-01 net/
	END
}
# prepared CC TREE...: what kbuild makes anew for another compiler, so that no tool pays for it.
prepared() {
	local cc=$1 tree
	shift
	for tree in "$@"; do
		in_group client
		"${within[@]}" make -s -C "$tree" -j"$(nproc)" ARCH=arm CROSS_COMPILE="$TC/bin/$PREFIX_NAME" CC="$cc" prepare >"$RUN/prepare.log" 2>&1 ||
			{ tail -n 30 "$RUN/prepare.log" >&2; return 1; }
	done
	clean "$@"
}
differing() { # TREE...
	local tree sum=0
	for tree in "$@"; do
		objects "$tree" >"$RUN/sums"
		sum=$((sum + $(diff "$TC/objects.sums" "$RUN/sums" | grep -c '^[<>]' || true)))
	done
	echo $sum
}
# Where rdcc's jobs of the last build ran.
told() {
	"$BIN/rdcc" stats --json | python3 -c '
import json, sys
s = json.load(sys.stdin)
def of(key): return " ".join(f"{k} {n}" for k, n in sorted(s[key].items())) or "-"
print("   remote by mode:", of("remote_by_mode"), "| local:", of("local_by_reason"), "| again:", of("fallbacks_by_reason"))
print("   by node:", of("remote_by_worker"))'
}
RDCC="rdcc --toolchain replay"
traces=0
rdcc_build() { # LABEL BOUND JOBS TREE...
	local label=$1 bound=$2 jobs=$3
	shift 3
	prepared "$RDCC" "$@"
	"$BIN/rdcc" stats --zero >/dev/null
	kernels "$jobs" "$RDCC" "$@"
	measured "$label, -j$jobs" "$bound" "${build[@]}"
	told
	echo "   objects that differ: $(differing "$@")"
	[ -z "${beside_make:-}" ] || awk -v wall=$wall_ms -v own="$(cat "$TC/floor.wall")" 'BEGIN {
		printf "   over what make takes when every compile is free: %.2f\n", wall / own }'
	[ -z "${TRACES:-}" ] || "$BIN/rdcc" trace "$TRACES/$((traces += 1)) ${label//[, ]/-}.json" >/dev/null
}
distcc_build() { # LABEL BOUND JOBS TREE...
	local label=$1 bound=$2 jobs=$3
	shift 3
	prepared "distcc $TC/bin/${PREFIX_NAME}gcc" "$@"
	kernels "$jobs" "distcc $TC/bin/${PREFIX_NAME}gcc" "$@"
	measured "$label, -j$jobs" "$bound" ${pump:-} "${build[@]}"
}
# floor_s: make's own CPU for net/: every compile free. Measured once.
floor_s() {
	if [ ! -s "$TC/floor" ]; then
		gcc -O2 -o "$RUN/free-gcc" "$TOP/benches/free-compiler.c"
		export FREE_OBJECTS=$RUN/floor FREE_REAL=$TC/bin/${PREFIX_NAME}gcc
		recorded_objects "$RUN/floor"
		prepared "$RUN/free-gcc" "$TREE"
		kernels "$(nproc)" "$RUN/free-gcc" "$TREE"
		measured "make's own, every compile free" 1 "${build[@]}" >&2
		awk -v ms=$client_ms 'BEGIN { printf "%.2f\n", ms / 1000 }' >"$TC/floor"
		echo "$wall_ms" >"$TC/floor.wall"
		unset FREE_OBJECTS FREE_REAL
	fi
	cat "$TC/floor"
}
times() { awk -v a="$1" -v b="$2" 'BEGIN { print a * b }'; }
plus() { awk -v a="$1" -v b="$2" 'BEGIN { print a + b }'; }
# helped_bound COPIES POWER:SLOTS...: with the client's cores, and make's own work on that many trees.
helped_bound() { bound "$1" "$HELP" "$(times "$(floor_s)" "$1")" "${@:2}"; }

# --- scenarios ---------------------------------------------------------------------------------------------------

scenario_record() { echo "$(tape_jobs) compiles of net/ on tape"; }

# both TITLE ROUNDS COPIES POWER:SLOTS...: rdcc and distcc on the same nodes, interleaved.
both() {
	local title=$1 rounds=$2 copies=$3 round slots with jobs
	shift 3
	slots=$(slots_of "$@")
	tree_copies "$copies"
	with=$(helped_bound "$copies" "$@")
	heading "$title: $slots slots, $((copies * $(tape_jobs))) compiles"
	farm_up "$@"
	for round in $(seq 1 "$rounds"); do
		jobs=$("$BIN/rdcc" slots)
		rdcc_build "rdcc, build $round" "$with" "$jobs" "${trees[@]}"
		[ "$PEERS" = 1 ] && [ "$round" -eq 1 ] || continue
		distcc_with "$with" $((slots + 4)) "$@"
	done
	[ -z "${unhelped:-}" ] || unhelped_build "$copies" "$@"
	farm_down
}
# unhelped_build COPIES POWER:SLOTS...: once more, the client told to compile nothing by choice.
unhelped_build() {
	local copies=$1 limit
	shift
	limit=$(bound "$copies" 0 "$(times "$(floor_s)" "$copies")" "$@")
	"$BIN/rdcc" agent stop >/dev/null 2>&1 || true
	mkdir -p "$RUN/config/rdcc"
	echo 'local_share = false' >"$RUN/config/rdcc/config.toml"
	XDG_CONFIG_HOME=$RUN/config rdcc_build "rdcc, local_share = false" "$limit" "$("$BIN/rdcc" slots)" "${trees[@]}"
	"$BIN/rdcc" agent stop >/dev/null 2>&1 || true
}
distcc_with() { # BOUND JOBS POWER:SLOTS...: beside a farm that is idle meanwhile
	local bound=$1 jobs=$2 kept_pids=("${cluster_pids[@]}") kept_nodes=("${node_pids[@]}") kept_specs=("${node_specs[@]}")
	shift 2
	cluster_pids=()
	distcc_up "$@"
	distcc_build "distcc" "$bound" "$jobs" "${trees[@]}"
	distcc_hosts "" localhost/2
	distcc_build "distcc with localhost" "$bound" $((jobs + 2)) "${trees[@]}"
	if [ "${PUMP:-0}" = 1 ]; then
		distcc_hosts ,lzo,cpp
		pump=distcc-pump distcc_build "pump" "$bound" "$jobs" "${trees[@]}" || true
	fi
	kill "${cluster_pids[@]}"; wait "${cluster_pids[@]}" 2>/dev/null || true
	cluster_pids=("${kept_pids[@]}") node_pids=("${kept_nodes[@]}") node_specs=("${kept_specs[@]}")
}
scenario_owner() { unhelped=yes both "owner: 8 nodes of power 1" 2 1 "${OWNER[@]}"; }
scenario_mixed() { both "mixed: powers 4 to 1/4" 2 1 "${MIXED[@]}"; }
scenario_long() { both "long: powers 4 to 1/4" 1 4 "${MIXED[@]}"; }

# half_done TREES...: waits until half of the objects are there.
half_done() {
	local half=$(($# * $(grep -c . "$TC/objects.sums") / 2))
	while [ "$(for tree in "$@"; do find "$tree/net" -name '*.o'; done | wc -l)" -lt $half ]; do sleep 0.5; done
}
# upset: two nodes slow down to a third, one is killed, one is new.
upset() {
	half_done "${trees[@]}"
	nsenter -t "${node_pids[1]}" -u hostname "rn-$((200 / SLOW / 3))-2"
	nsenter -t "${node_pids[2]}" -u hostname "rn-$((100 / SLOW / 3))-3"
	kill -9 "${node_pids[3]}"
}
scenario_changing() {
	# After the middle: 400:4 66:4 33:2 (gone) 50:2 50:2 25:2 25:2 and a new 200:4. Half of the work at each speed.
	local before=("${MIXED[@]}") after limit new=$((200 / SLOW)):4
	slowed 400:4 66:4 33:2 200:4 50:2 50:2 25:2 25:2
	after=("${nodes[@]}")
	tree_copies 4
	limit=$(plus "$(helped_bound 2 "${before[@]}")" "$(helped_bound 2 "${after[@]}")")
	heading "changing: half-way two nodes at a third, one killed, one new; $((4 * $(tape_jobs))) compiles"
	farm_up "${MIXED[@]}"
	prepared "$RDCC" "${trees[@]}"
	{ upset; farm_node "$new"; echo "${cluster_pids[-1]}" >"$RUN/new.pid"; } &
	rdcc_build "rdcc" "$limit" "$("$BIN/rdcc" slots)" "${trees[@]}"
	wait $! || true
	kill "$(cat "$RUN/new.pid")" 2>/dev/null || true
	farm_down
	[ "$PEERS" = 1 ] || return 0
	distcc_up "${MIXED[@]}"
	prepared "distcc $TC/bin/${PREFIX_NAME}gcc" "${trees[@]}"
	{ upset; distcc_node "$new"; distcc_hosts ""; echo "${cluster_pids[-1]}" >"$RUN/new.pid"; } &
	distcc_build "distcc" "$limit" 28 "${trees[@]}"
	wait $! || true
	kill "$(cat "$RUN/new.pid")" 2>/dev/null || true
	distcc_down
}

# coordinator_away SECONDS: half-way, as after a power cut.
coordinator_away() {
	half_done "${trees[@]}"
	kill -9 "${cluster_pids[0]}"
	sleep "$1"
	farm_coordinator "${RDCC_COORDINATOR##*:}"
	echo "${cluster_pids[-1]}" >"$RUN/new.pid"
}
node_killed() { half_done "${trees[@]}" && kill -9 "${node_pids[3]}"; }
scenario_faults() {
	local whole limit jobs
	tree_copies 4
	whole=$(helped_bound 4 "${OWNER[@]}")
	# Half of the work by eight nodes, half by seven.
	limit=$(plus "$(helped_bound 2 "${OWNER[@]}")" "$(helped_bound 2 "${OWNER[@]:1}")")
	heading "faults: 8 nodes of power 1; $((4 * $(tape_jobs))) compiles"
	farm_up "${OWNER[@]}"
	jobs=$("$BIN/rdcc" slots)
	rdcc_build "nothing happens, first" "$whole" "$jobs" "${trees[@]}"
	rdcc_build "nothing happens" "$whole" "$jobs" "${trees[@]}"
	prepared "$RDCC" "${trees[@]}"
	coordinator_away 10 &
	rdcc_build "coordinator away for 10 s" "$whole" "$jobs" "${trees[@]}"
	wait $!
	prepared "$RDCC" "${trees[@]}"
	node_killed &
	rdcc_build "a node killed half-way" "$limit" "$jobs" "${trees[@]}"
	wait $!
	kill "$(cat "$RUN/new.pid")"
	farm_down
}

scenario_two() {
	local half
	tree_copies 2
	half=$(helped_bound 2 "${MIXED[@]}")
	heading "two: two builds at once, each with half of the mixed cluster"
	farm_up "${MIXED[@]}"
	prepared "$RDCC" "${trees[@]}"
	local jobs users=()
	jobs=$("$BIN/rdcc" slots)
	{
		export RDCC_STATE_DIR=$RUN/agent2
		kernels "$jobs" "$RDCC" "${trees[1]}"
		note="CPU of both" measured "second user" "$half" "${build[@]}"
		"$BIN/rdcc" agent stop >/dev/null 2>&1
	} >"$RUN/second" &
	users+=($!)
	{
		kernels "$jobs" "$RDCC" "${trees[0]}"
		note="CPU of both" measured "first user" "$half" "${build[@]}"
	} >"$RUN/first" &
	users+=($!)
	wait -n "${users[@]}"
	local shares=("$(work_done "${trees[0]}")" "$(work_done "${trees[1]}")")
	wait "${users[@]}"
	cat "$RUN/first" "$RUN/second"
	echo "   work done when the first of them ended: ${shares[0]} s and ${shares[1]} s"
	echo "   objects that differ: $(differing "${trees[@]}")"
	farm_down
}
# work_done TREE: work of the compiles whose objects are there, s.
work_done() {
	(cd "$1" && find net/ -name '*.o') | sort >"$RUN/there"
	cat "$TC"/tape/*.t | awk -v there="$RUN/there" '
		BEGIN { while ((getline name <there) > 0) done[name] }
		{ sub(/\.[^.]*$/, ".o", $3); if ($3 in done) work += $1 }
		END { printf "%.1f", work }'
}

scenario_wide() {
	# Here the floor is the bound, so it is measured in the same run.
	rm -f "$TC/floor"
	beside_make=yes both "wide: 32 nodes of power 1, make's own CPU is the bound" 2 1 "${WIDE[@]}"
}

scenario_wrong() {
	local limit jobs
	tree_copies 1
	limit=$(helped_bound 1 "${MIXED[@]}")
	heading "wrong: the mixed cluster, configured as 1.0 everywhere"
	FARM_POWER=1.0 farm_up "${MIXED[@]}"
	jobs=$("$BIN/rdcc" slots)
	rdcc_build "configured wrong, build 1" "$limit" "$jobs" "${trees[@]}"
	rdcc_build "configured wrong, build 2" "$limit" "$jobs" "${trees[@]}"
	farm_down
	farm_up "${MIXED[@]}"
	rdcc_build "configured right, build 1" "$limit" "$jobs" "${trees[@]}"
	rdcc_build "configured right, build 2" "$limit" "$jobs" "${trees[@]}"
	farm_down
}

scenario_small() {
	local round
	small_project
	heading "small: ten files of Lua, 8 nodes of power 1; make -j$(nproc) alone is the bound"
	farm_up "${OWNER[@]}"
	in_group client
	for round in 1 2 3 4; do
		make -s -C "$SMALL/src" clean
		measured "make -j$(nproc) alone" 1 make -s -C "$SMALL/src" -j"$(nproc)" CC="$TC/bin/${PREFIX_NAME}gcc" >"$RUN/row"
		local alone=$wall_ms
		[ $round -eq 1 ] || cat "$RUN/row"
		make -s -C "$SMALL/src" clean
		measured "rdcc, -j$("$BIN/rdcc" slots)" "$(awk -v ms="$alone" 'BEGIN { print ms / 1000 }')" \
			make -s -C "$SMALL/src" -j"$("$BIN/rdcc" slots)" CC="$RDCC" >"$RUN/row"
		[ $round -eq 1 ] || cat "$RUN/row"
	done
	told
	farm_down
}

# configured LABEL BOUND CC: runs configure in an empty directory; prints a row, and notes wall and CPU time.
configured() {
	rm -rf "$RUN/hello" && mkdir "$RUN/hello"
	(cd "$RUN/hello" && measured "$1" "$2" "$source/configure" --quiet --host=arm-linux-gnueabi CC="$3" &&
		echo "$wall_ms $client_ms" >"$RUN/$1")
}
scenario_configure() {
	local source=$TOP/target/replay-hello round alone
	scripts/fetch-source.sh hello "$source"
	heading "configure of GNU hello; the plain compiler is the bound. client s is what to look at on a busy machine"
	farm_up "${OWNER[@]}"
	: >"$RUN/pairs"
	for round in 1 2 3 4 5; do
		configured plain 1 "$TC/bin/${PREFIX_NAME}gcc"
		read -r alone _ <"$RUN/plain"
		configured rdcc "$(awk -v ms="$alone" 'BEGIN { print ms / 1000 }')" "$RDCC"
		paste -d' ' "$RUN/plain" "$RUN/rdcc" >>"$RUN/pairs"
	done
	# Five of each in turns: medians, since one run differs from the next by more than what is looked for.
	awk '{ print $3 / $1 }' "$RUN/pairs" | sort -n | awk '{ of[NR] = $1 } END { printf "   rdcc / plain, median of %d pairs: wall %.3f", NR, of[(NR + 1) / 2] }'
	awk '{ print $4 / $2 }' "$RUN/pairs" | sort -n | awk '{ of[NR] = $1 } END { printf ", CPU %.3f\n", of[(NR + 1) / 2] }'
	told
	farm_down
}

# --- all together ------------------------------------------------------------------------------------------------

known=(record owner mixed changing faults long two wide wrong small configure)
[ $# -gt 0 ] || { sed -n '/^# /s/^# //p' "$0" | head -n 19 >&2; exit 2; }
[ "$1" != all ] || set -- "${known[@]}"
for scenario in "$@"; do
	[[ " ${known[*]} " == *" $scenario "* ]] || { echo "replay: no scenario \`$scenario\`; there are ${known[*]}" >&2; exit 2; }
done
scripts/prepare.sh bench
[ -n "${RDCC_BIN:-}" ] || cargo build --release --quiet --bins
benches/kernel-source.sh "$TREE"
RUN=$(mktemp -d)
clean_up() {
	trap - EXIT INT TERM
	cluster_stop
	groups_remove
	[ -n "${REPLAY_KEEP:-}" ] || { disk_down && rm -rf "$RUN"; }
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT
trap 'clean_up; exit 143' TERM
export PATH=$BIN:$PATH
cat_trees_mk >"$RUN/trees.mk"
groups_make
tape_ready
for scenario in "$@"; do "scenario_$scenario"; done
