#!/bin/bash
# Measures rdcc on a part of the Linux kernel: what the submitting side and the worker spend per compile, in which
# mode jobs ran, and whether every object and every list of dependencies is the local build's. Prints ratios from one run.
#   benches/kernel.sh [DIRECTORY-OF-THE-KERNEL-TREE] [PART]          default: target/kernel net/
# JOBS=N is make's -j (8); BIN=DIR takes binaries that are there instead of building them. The client (make, wrappers,
# agent), the worker and the coordinator are accounted for apart.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
TREE=$(realpath -m "${1:-$TOP/target/kernel}")
PART=${2:-net/}
JOBS=${JOBS:-8}
. scripts/cluster.sh
. benches/cpu-groups.sh
scripts/prepare.sh bench
if [ -z "${BIN:-}" ]; then
	BIN=$TOP/target/release
	cargo build --release --quiet --bins
fi
benches/kernel-source.sh "$TREE"
RUN=$(mktemp -d)
trap 'cluster_stop; cpu_groups_down; rm -rf "$RUN"' EXIT
trap 'exit 130' INT TERM
cpu_groups_up client worker coordinator
cluster_enter() { cpu_group_enter "${1%[0-9]}"; }

peak_kb() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status" 2>/dev/null || echo 0; }
left_by_a_build=(-name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '.*.cmd' -o -name '*.d' -o -name 'modules.order')
clean() { (cd "$TREE" && find "$PART" \( "${left_by_a_build[@]}" \) -delete); }
kernel_make() {
	make -s -C "$TREE" -j"$JOBS" ARCH=arm CROSS_COMPILE=arm-linux-gnueabi- KBUILD_BUILD_TIMESTAMP=1970-01-01 "$@" \
		>"$RUN/make.log" 2>&1 || { tail -n 30 "$RUN/make.log" >&2; exit 1; }
}
# settle CC=COMPILER: kbuild asks a compiler that it does not know a hundred questions; that is no part of a compile.
settle() { kernel_make "$@" prepare; }
build() { kernel_make "$@" "$PART"; }
objects() { (cd "$TREE" && find "$PART" -name '*.o' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }
# lists: what fixdep has made of each list of dependencies, whoever compiled.
lists() {
	(cd "$TREE" && find "$PART" -name '.*.o.cmd' -print0 | LC_ALL=C sort -z | while IFS= read -r -d '' file; do
		echo "$(sed -e 's/ := rdcc --toolchain arm926 / := arm-linux-gnueabi-gcc /' "$file" | sha256sum) $file"
	done)
}
# list_of FILE.cmd: the list of dependencies that fixdep was given, less what it leaves out.
list_of() {
	awk '/^source_/ { object = $1; sub(/^source_/, "", object); list = $3 }
		/^  [^ $]/ { list = list " \\\n " $1 }
		END { print object ": " list "\n" }' "$1"
}
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
row() { printf '%-40s %12s\n' "$1" "$2"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }
per_compile() { awk -v a="$1" -v b="$2" -v n="$compiles" 'BEGIN { printf "%.2f ms", (a - b) / n / 1000 }'; }
differing() { diff "$1" "$2" | grep -c '^[<>]' || true; }
counter() { tr -d ' \n' <"$RUN/stats" | grep -o "\"$1\":[0-9]*" | grep -o '[0-9]*$' || echo 0; }

echo "== local build (make -j$(nproc))"
settle
clean
JOBS=$(nproc) timed build
local_us=$client_us
objects >"$RUN/local.objects"
lists >"$RUN/local.lists"
compiles=$(cd "$TREE" && find "$PART" -name '.*.o.cmd' -print0 | xargs -0 grep -l ^source_ | grep -c .)

echo "== make's own floor: every compile free"
mkdir -p "$RUN/floor"
(cd "$TREE" && find "$PART" -name '*.o' -print0 | xargs -0 cp --parents -t "$RUN/floor")
(cd "$TREE" && find "$PART" -name '.*.o.cmd' -print0 | while IFS= read -r -d '' file; do
	grep -q ^source_ "$file" && list_of "$file" >"$RUN/floor/${file%.cmd}.d"
done)
gcc -O2 -o "$RUN/arm-linux-gnueabi-free" benches/free-compiler.c
clean
export FREE_REAL=$(command -v arm-linux-gnueabi-gcc)
settle CC="$RUN/arm-linux-gnueabi-free"
FREE_OBJECTS=$RUN/floor timed build CC="$RUN/arm-linux-gnueabi-free"
floor_us=$client_us
plain_us=$((local_us - floor_us))

cluster_up 2
worker_pid=${cluster_pids[1]}
cpu_group_watch worker "$worker_pid"
cpu_group_watch coordinator "${cluster_pids[0]}"
"$BIN/rdcc" toolchain push "$TOP/toolchains/arm926.toml" >/dev/null
"$BIN/rdcc" agent stop >/dev/null 2>&1 || true
# agent_pid: the agent's, or nothing.
agent_pid() { "$BIN/rdcc" status --json 2>/dev/null | tr -d ' \n' | grep -o '"agent":{[^}]*' | grep -o '"pid":[0-9]*' | grep -o '[0-9]*$' || true; }
measure_rdcc() { # LABEL
	local worker coordinator remote agent
	clean
	[ ! -d "$RUN/agent/agents" ] || "$BIN/rdcc" stats --zero >/dev/null
	[ "$2" = warm ] || "$BIN/rdcc" agent stop >/dev/null 2>&1 || true
	[ "$2" != cold ] || rm -rf "$RUN/agent/agents"
	[ "$2" = warm ] && cpu_group_watch client "$(agent_pid)" || cpu_group_watch client
	worker=$(cpu_group_us worker) coordinator=$(cpu_group_us coordinator)
	PATH=$BIN:$PATH timed build CC="rdcc --toolchain arm926"
	worker=$(($(cpu_group_us worker) - worker)) coordinator=$(($(cpu_group_us coordinator) - coordinator))
	agent=$(agent_pid)
	"$BIN/rdcc" stats --json >"$RUN/stats"
	remote=$(counter remote_cpu_us)
	echo "== rdcc, $1"
	row "client CPU per compile, floor off" "$(per_compile "$client_us" "$floor_us")"
	row "worker CPU / plain compiles" "$(ratio "$worker" "$plain_us")"
	row "  its own, besides the jobs" "$(per_compile "$worker" "$remote")"
	row "  the jobs / plain compiles" "$(ratio "$remote" "$plain_us")"
	row "coordinator CPU per compile" "$(per_compile "$coordinator" 0)"
	row "agent, peak memory" "$(peak_kb "$agent") kB"
	row "worker, peak memory" "$(peak_kb "$worker_pid") kB"
	row "jobs" "$(counter jobs)"
	row "  mode A" "$(counter A)"
	row "  mode B" "$(counter B)"
	row "  local" "$(counter local)"
	row "scan and compiler differ" "$(counter dependency_mismatch)"
	objects >"$RUN/rdcc.objects"
	row "objects that differ" "$(differing "$RUN/local.objects" "$RUN/rdcc.objects")"
	lists >"$RUN/rdcc.lists"
	row "lists of dependencies that differ" "$(differing "$RUN/local.lists" "$RUN/rdcc.lists")"
	row "wall" "$wall_ms ms"
	"$BIN/rdcc" stats | sed -n '/BECAUSE/,$p'
}
row "compiles" "$compiles"
row "plain compiles, CPU" "$((plain_us / 1000)) ms"
row "make's floor, CPU" "$((floor_us / 1000)) ms"
PATH=$BIN:$PATH settle CC="rdcc --toolchain arm926"
measure_rdcc "first build, nothing known" cold
measure_rdcc "second build, after clean" warm
measure_rdcc "third build, after clean, the agent started anew" restarted
