#!/bin/bash
# The main job on real input: BusyBox for the Arietta (arm926), built by this machine alone and then by a coordinator
# and three workers, compared byte for byte, and run under qemu-arm. Leaves nothing behind but the unpacked source
# under target/ (so that a second demo is quicker).
#   scripts/demo.sh [JOBS]
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
BIN=$TOP/target/release
jobs=${1:-}
. scripts/cluster.sh

scripts/prepare.sh demo
cargo build --release --quiet --bins
SOURCE=$TOP/target/demo-source/busybox
mkdir -p "$TOP/target/demo-source"
scripts/fetch-source.sh busybox "$SOURCE"

RUN=$(mktemp -d)
clean_up() {
	trap - EXIT INT TERM
	cluster_stop
	rm -rf "$RUN"
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT
trap 'clean_up; exit 143' TERM

# Both builds happen at the same path: where a build stands is part of its bits.
TREE=$RUN/busybox
fresh_tree() {
	cp -a "$SOURCE" "$TREE"
	make -s -C "$TREE" KCONFIG_NOTIMESTAMP=1 CROSS_COMPILE=arm-linux-gnueabi- defconfig >/dev/null 2>&1
	sed -i -e 's/^# CONFIG_STATIC is not set/CONFIG_STATIC=y/' \
		-e 's/^CONFIG_EXTRA_CFLAGS=.*/CONFIG_EXTRA_CFLAGS="-mcpu=arm926ej-s"/' "$TREE/.config"
	{ yes '' || true; } | make -s -C "$TREE" KCONFIG_NOTIMESTAMP=1 CROSS_COMPILE=arm-linux-gnueabi- oldconfig >/dev/null 2>&1
}
build() { # LOG MAKE-ARGUMENTS...
	local log=$1
	shift
	make -C "$TREE" KCONFIG_NOTIMESTAMP=1 SKIP_STRIP=n CROSS_COMPILE=arm-linux-gnueabi- "$@" busybox >"$log" 2>&1 || {
		tail -n 40 "$log" >&2
		return 1
	}
}
now_ms() { date +%s%3N; }
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }
# Every file that a build leaves, with its digest, but for its records of commands, which name the compiler as typed.
digests() { (cd "$TREE" && find . -type f ! -name '*.cmd' ! -name busybox_unstripped.out -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }

echo "== BusyBox for arm926, by this machine alone (make -j$(nproc))"
fresh_tree
begin=$(now_ms)
build "$RUN/local.log" -j"$(nproc)" CC=arm-linux-gnueabi-gcc
local_ms=$(($(now_ms) - begin))
digests >"$RUN/local.sums"
rm -rf "$TREE"
echo "   $(seconds $local_ms)"

echo "== A coordinator and three workers on loopback"
cluster_up 2 2 1
"$BIN/rdcc" toolchain push "$TOP/toolchains/arm926.toml"
"$BIN/rdcc" nodes

: "${jobs:=$("$BIN/rdcc" slots)}"
echo "== The same by the cluster (make -j$jobs CC=\"rdcc --toolchain arm926\")"
fresh_tree
begin=$(now_ms)
PATH=$BIN:$PATH build "$RUN/rdcc.log" -j"$jobs" CC="rdcc --toolchain arm926"
rdcc_ms=$(($(now_ms) - begin))
digests >"$RUN/rdcc.sums"
echo "   $(seconds $rdcc_ms)"

echo "== What happened"
"$BIN/rdcc" stats
objects=$(grep -c '\.o$' "$RUN/local.sums")
differing=$(diff "$RUN/local.sums" "$RUN/rdcc.sums" | grep -c '^[<>]' || true)
echo "files compared: $(wc -l <"$RUN/local.sums") ($objects objects), differing: $differing"
diff "$RUN/local.sums" "$RUN/rdcc.sums" | head -n 20 || true
echo "wall time: this machine alone $(seconds $local_ms), with the cluster $(seconds $rdcc_ms)"
echo "(all nodes share this machine's $(nproc) cores here: the point is the same bits, not the speed)"

echo "== It runs"
qemu-arm "$TREE/busybox" echo "hello from arm926"
qemu-arm "$TREE/busybox" uname -m
remote=$("$BIN/rdcc" stats --json | sed -n 's/.*"remote": *\([0-9]*\).*/\1/p' | head -n 1)
[ "$differing" -eq 0 ] || { echo "demo: objects differ" >&2; exit 1; }
[ "${remote:-0}" -gt 0 ] || { echo "demo: nothing was compiled on the cluster" >&2; exit 1; }
