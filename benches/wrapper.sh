#!/bin/bash
# What the wrapper costs, in CPU time of the process that make starts: for a command that is not distributable (against
# the plain compiler), and for a remote job (against a program that does nothing). Prints medians of several rounds.
#   benches/wrapper.sh [RUNS-PER-ROUND] [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
BIN=$TOP/target/release
runs=${1:-100}
rounds=${2:-7}
. scripts/cluster.sh
scripts/prepare.sh test
cargo build --release --quiet --bins
RUN=$(mktemp -d)
trap 'cluster_stop; rm -rf "$RUN"' EXIT
trap 'exit 130' INT TERM

echo 'int main(void) { return 0; }' >"$RUN/nothing.c"
gcc -O2 -o "$RUN/nothing" "$RUN/nothing.c"
cp "$RUN/nothing.c" "$RUN/unit.c"
arm-linux-gnueabi-gcc -c "$RUN/unit.c" -o "$RUN/unit.o"
# A job this small had better run here; it is the wrapper's part of a remote one that is measured.
export XDG_CONFIG_HOME=$RUN/config
mkdir -p "$XDG_CONFIG_HOME/rdcc"
echo 'local_share = false' >"$XDG_CONFIG_HOME/rdcc/config.toml"
cluster_up 2
"$BIN/rdcc" toolchain push toolchains/arm926.toml >/dev/null

# cpu_us COMMAND...: CPU time per run, microseconds, shell's own fork included (it is the same for all).
cpu_us() {
	local i
	TIMEFORMAT='%3U %3S'
	{ time (for ((i = 0; i < runs; i++)); do "$@" >/dev/null 2>&1; done); } 2>"$RUN/time"
	awk -v n="$runs" '{ printf "%d\n", ($1 + $2) * 1e6 / n }' "$RUN/time"
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
measure() { # LABEL BASE-COMMAND -- COMMAND
	local label=$1 base=() command=() round
	shift
	while [ "$1" != -- ]; do base+=("$1"); shift; done
	shift
	command=("$@")
	"${command[@]}" >/dev/null 2>&1
	for ((round = 0; round < rounds; round++)); do
		cpu_us "${base[@]}" >>"$RUN/base"
		cpu_us "${command[@]}" >>"$RUN/command"
	done
	local a b
	a=$(median <"$RUN/base") b=$(median <"$RUN/command")
	rm "$RUN/base" "$RUN/command"
	printf '%-46s %6d us - %6d us = %5d us\n' "$label" "$b" "$a" "$((b - a))"
}
cd "$RUN"
measure "query (--version), over the plain compiler" arm-linux-gnueabi-gcc --version -- \
	"$BIN/rdcc" --toolchain arm926 arm-linux-gnueabi-gcc --version
measure "link, over the plain compiler" arm-linux-gnueabi-gcc unit.o -o unit -- \
	"$BIN/rdcc" --toolchain arm926 arm-linux-gnueabi-gcc unit.o -o unit
measure "remote job, over a program that does nothing" ./nothing -- \
	"$BIN/rdcc" --toolchain arm926 arm-linux-gnueabi-gcc -c unit.c -o unit.o
"$BIN/rdcc" stats
