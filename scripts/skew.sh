#!/bin/bash
# Tries farms whose members are not all of one version: this tree's programs with those of an earlier commit, in each mix of
# coordinator, client and workers, on state that the other version has left. Every object is compared with a local build's.
#   scripts/skew.sh [COMMIT]             default: the last tag, or the last commit before the messages changed (proto/kept.txt)
# BIN=DIR and OLD=DIR take programs that are there instead of building them. UNITS=N sources (40).
# Exits 1 when an object differed, a build failed, or a worker got no job.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
UNITS=${UNITS:-40}
scripts/prepare.sh test
RUN=$(mktemp -d)
. scripts/cluster.sh
finish() {
	cluster_stop
	[ ! -e "$RUN/source" ] || git -C "$TOP" worktree remove --force "$RUN/source"
	rm -rf "$RUN"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ -z "${BIN:-}" ]; then
	BIN=$TOP/target/release
	cargo build --release --quiet --bins
fi
NEW=$(realpath "$BIN")
if [ -z "${OLD:-}" ]; then
	commit=${1:-$(git describe --tags --abbrev=0 HEAD^ 2>/dev/null || echo "$(git log -1 --format=%H -- proto/kept.txt)^")}
	git rev-parse --quiet --verify "$commit^{commit}" >/dev/null ||
		{ echo "skew: this clone has no commit $commit; name one that it has, or fetch the history (git fetch --unshallow)" >&2; exit 2; }
	git worktree add --quiet --detach "$RUN/source" "$commit"
	echo "old: $(git -C "$RUN/source" log -1 --format='%h %s')"
	(cd "$RUN/source" && CARGO_TARGET_DIR=$TOP/target/skew cargo build --release --locked --quiet --bins)
	OLD=$TOP/target/skew/release
fi
OLD=$(realpath "$OLD")

mkdir "$RUN/src"
cd "$RUN/src"
for ((i = 0; i < UNITS; i++)); do
	printf '#include <stdio.h>\n#include "shared.h"\nint u%d(int a) { return printf("%%d %%s", SHARED(a), __FILE__); }\n' "$i" >"u$i.c"
done
echo '#define SHARED(a) ((a) * 3)' >shared.h
printf 'all: $(patsubst %%.c,%%.o,$(wildcard u*.c))\n%%.o: %%.c\n\t$(CC) -O2 -g -c $< -o $@\n' >Makefile
objects() { sha256sum -- *.o; }
make -s -j4 CC=arm-linux-gnueabi-gcc
objects >"$RUN/expected"

failures=0
wrong() { echo "  $1"; failures=$((failures + 1)); }

# farm COORDINATOR CLIENT FIRST-WORKER SECOND-WORKER: each OLD or NEW; on what the farm before it has left in $RUN.
farm() {
	local i remote
	echo "coordinator $1, client $2, workers $3 and $4"
	BIN=${!1} cluster_coordinator "$(cluster_port)"
	BIN=${!3} cluster_worker 1 2 "$(cluster_port)"
	BIN=${!4} cluster_worker 2 2 "$(cluster_port)"
	BIN=${!2}
	"$BIN/rdcc" toolchain push "$TOP/toolchains/arm926.toml" >"$RUN/push.log" 2>&1 || { cat "$RUN/push.log"; wrong "the push failed"; }
	"$BIN/rdcc" check --toolchain arm926 >"$RUN/check.log" 2>&1 || { cat "$RUN/check.log"; wrong "a node failed rdcc check"; }
	"$BIN/rdcc" stats --zero >/dev/null
	rm -f -- *.o
	make -s -j6 CC="$BIN/rdcc --toolchain arm926" || wrong "the build failed"
	objects | diff "$RUN/expected" - || wrong "objects differ"
	remote=$("$BIN/rdcc" stats --json | counter remote)
	[ "$remote" -eq "$UNITS" ] || { "$BIN/rdcc" stats; wrong "$remote of $UNITS were compiled by workers"; }
	for i in 1 2; do
		"$BIN/rdcc" stats | grep -q "^node$i " || wrong "node$i compiled nothing"
	done
	"$BIN/rdcc" status >/dev/null || wrong "rdcc status failed"
	cluster_stop
}
export XDG_CONFIG_HOME=$RUN/config
mkdir -p "$XDG_CONFIG_HOME/rdcc"
echo 'local_share = false' >"$XDG_CONFIG_HOME/rdcc/config.toml"

# From all old to all new one member after the other, and back.
farm OLD OLD OLD OLD
farm OLD NEW OLD OLD
farm OLD NEW NEW OLD
farm NEW NEW NEW OLD
farm NEW OLD NEW OLD
farm NEW OLD NEW NEW
farm NEW NEW NEW NEW
farm OLD OLD OLD NEW
farm OLD OLD OLD OLD
[ "$failures" -eq 0 ] || { echo "skew: $failures failures" >&2; exit 1; }
echo "skew: all mixes built the same objects"
