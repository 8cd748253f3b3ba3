#!/bin/bash
# Measures rdcc on a part of the Linux kernel: what the submitting side and the worker spend per compile, in which
# mode jobs ran, and whether every object is the local build's. Prints ratios from one run.
#   benches/kernel.sh [DIRECTORY-OF-THE-KERNEL-TREE] [PART]          default: target/kernel net/
# PEERS=1 measures distcc (and pump, where it works) beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
BIN=$TOP/target/release
TREE=$(realpath -m "${1:-$TOP/target/kernel}")
PART=${2:-net/}
JOBS=${JOBS:-8}
. scripts/cluster.sh
scripts/prepare.sh bench
cargo build --release --quiet --bins
benches/kernel-source.sh "$TREE"
RUN=$(mktemp -d)
trap 'cluster_stop; rm -rf "$RUN"' EXIT
trap 'exit 130' INT TERM
ticks=$(getconf CLK_TCK)

# cpu PID...: CPU ticks of these processes and of all children they have waited for.
cpu() {
	local pid sum=0 rest
	for pid in "$@"; do
		[ -r "/proc/$pid/stat" ] || continue
		rest=$(<"/proc/$pid/stat")
		set -- ${rest##*) }
		sum=$((sum + ${12} + ${13} + ${14} + ${15}))
	done
	echo $sum
}
peak_kb() { awk '/^VmHWM/ { print $2 }' "/proc/$1/status" 2>/dev/null || echo 0; }
descendants() { # PID: it and its live descendants
	local pid child
	echo "$1"
	for child in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do descendants "$child"; done
}
clean() { (cd "$TREE" && find "$PART" \( -name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '.*.cmd' -o -name '*.d' -o -name 'modules.order' \) -delete); }
build() { make -s -C "$TREE" -j"$JOBS" ARCH=arm CROSS_COMPILE=arm-linux-gnueabi- KBUILD_BUILD_TIMESTAMP=1970-01-01 "$@" "$PART" >"$RUN/make.log" 2>&1 || { tail -n 30 "$RUN/make.log" >&2; exit 1; }; }
objects() { (cd "$TREE" && find "$PART" -name '*.o' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }
# timed COMMAND...: sets user_ms (user and system CPU of the command and its children) and wall_ms.
timed() {
	local begin
	begin=$(date +%s%3N)
	TIMEFORMAT='%3U %3S'
	{ time "$@" 2>&3; } 3>&2 2>"$RUN/time"
	wall_ms=$(($(date +%s%3N) - begin))
	user_ms=$(awk '{ printf "%d", ($1 + $2) * 1000 }' "$RUN/time")
}
row() { printf '%-34s %10s\n' "$1" "$2"; }
per_compile() { awk -v a="$1" -v b="$2" -v n="$3" 'BEGIN { printf "%.1f ms", (a - b) / n }'; }

echo "== local build (make -j$(nproc))"
clean
JOBS=$(nproc) timed build
local_ms=$user_ms local_wall=$wall_ms
objects >"$RUN/local.sums"
compiles=$(grep -c . "$RUN/local.sums")

echo "== make's own floor: every compile free"
mkdir -p "$RUN/floor"
(cd "$TREE" && find "$PART" -name '*.o' -print0 | xargs -0 cp --parents -t "$RUN/floor")
gcc -O2 -o "$RUN/arm-linux-gnueabi-free" benches/free-compiler.c
clean
FREE_OBJECTS=$RUN/floor FREE_TREE=$TREE FREE_REAL=$(command -v arm-linux-gnueabi-gcc) timed build CC="$RUN/arm-linux-gnueabi-free"
floor_ms=$user_ms
plain_ms=$((local_ms - floor_ms))

cluster_up 2
server_pids=("${cluster_pids[@]}")
worker_pid=${server_pids[1]}
"$BIN/rdcc" toolchain push "$TOP/toolchains/arm926.toml" >/dev/null
measure_rdcc() { # LABEL
	local label=$1 worker_before worker_after agent agent_before agent_after
	clean
	"$BIN/rdcc" stats --zero >/dev/null
	agent=$(pgrep -o -f "^rdcc agent|/rdcc agent" || true)
	worker_before=$(cpu $(descendants "$worker_pid"))
	agent_before=$( [ -n "$agent" ] && cpu "$agent" || echo 0)
	PATH=$BIN:$PATH timed build CC="rdcc --toolchain arm926"
	agent=$(pgrep -o -f "/rdcc agent" || true)
	agent_after=$(cpu "$agent")
	worker_after=$(cpu $(descendants "$worker_pid"))
	local agent_ms=$(((agent_after - agent_before) * 1000 / ticks)) worker_ms=$(((worker_after - worker_before) * 1000 / ticks))
	echo "== rdcc, $label"
	row "client CPU per compile" "$(per_compile $((user_ms + agent_ms)) "$floor_ms" "$compiles")"
	row "  of it the agent" "$(per_compile "$agent_ms" 0 "$compiles")"
	row "worker CPU / plain compiles" "$(awk -v a="$worker_ms" -v b="$plain_ms" 'BEGIN { printf "%.3f", a / b }')"
	row "wall" "$wall_ms ms"
	row "agent peak memory" "$(peak_kb "$agent") kB"
	row "worker peak memory" "$(peak_kb "$worker_pid") kB"
	objects >"$RUN/rdcc.sums"
	row "objects that differ" "$(diff "$RUN/local.sums" "$RUN/rdcc.sums" | grep -c '^[<>]' || true)"
	"$BIN/rdcc" stats
}
row "compiles" "$compiles"
row "plain compiles, CPU" "$plain_ms ms"
row "make's floor, CPU" "$floor_ms ms"
measure_rdcc "first build"
measure_rdcc "second build, after clean"
