#!/bin/bash
# What certificates cost a job on warm connections: the same small compile again and again, on a farm with certificates and on one
# without, in turns. Prints medians, in one run, and their difference as part of what a job takes beyond the compile itself.
#   benches/certificates.sh [RUNS-PER-ROUND] [ROUNDS]       BIN=DIR takes binaries that are there
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
runs=${1:-40} rounds=${2:-7}
scripts/prepare.sh test
if [ -z "${BIN:-}" ]; then
	BIN=$TOP/target/release
	cargo build --release --quiet --bins
fi
BIN=$(realpath "$BIN")
. scripts/cluster.sh
RUN=$(mktemp -d)
# The farm with certificates has an agent of its own, for the coordinator that `join` wrote down.
secure() { (unset RDCC_COORDINATOR; RDCC_STATE_DIR=$RUN/secure/agent exec "$BIN/rdcc" "$@"); }
finish() {
	secure agent stop >/dev/null 2>&1 || true
	cluster_stop
	rm -rf "$RUN"
}
trap finish EXIT
trap 'exit 130' INT TERM
export XDG_CONFIG_HOME=$RUN/config
mkdir -p "$XDG_CONFIG_HOME/rdcc" "$RUN/src" "$RUN/secure"
echo 'local_share = false' >"$XDG_CONFIG_HOME/rdcc/config.toml"

cluster_up 2
"$BIN/rdcc" toolchain push toolchains/arm926.toml >/dev/null 2>&1
plain() { "$BIN/rdcc" --toolchain arm926 arm-linux-gnueabi-gcc -O1 -c unit.c -o unit.o; }

port=$(cluster_port)
state=$RUN/secure/coordinator
"$BIN/rdcc-coordinator" --state-dir "$state" init >/dev/null
cluster_start secure-coordinator "listening on" "$BIN/rdcc-coordinator" --listen "127.0.0.1:$port" --state-dir "$state"
secure join "127.0.0.1:$port" "$("$BIN/rdcc-coordinator" --state-dir "$state" token 2>/dev/null)" --name bench >/dev/null
token=$(secure token create --role worker)
"$BIN/rdcc-worker" --state-dir "$RUN/secure/worker" --name node1 join "127.0.0.1:$port" "$token" >/dev/null
cluster_start secure-worker "ready on" "$BIN/rdcc-worker" --listen "127.0.0.1:$(cluster_port)" --slots 2 --power 1.0 --state-dir "$RUN/secure/worker"
secure toolchain push toolchains/arm926.toml >/dev/null 2>&1
certified() { secure --toolchain arm926 arm-linux-gnueabi-gcc -O1 -c unit.c -o unit.o; }
# The same shell around it.
uncertified() { (unset NOTHING; NOTHING=x exec "$BIN/rdcc" --toolchain arm926 arm-linux-gnueabi-gcc -O1 -c unit.c -o unit.o); }
alone() { (exec arm-linux-gnueabi-gcc -O1 -c unit.c -o unit.o); }

cd "$RUN/src"
printf '#include <stdio.h>\nint unit(int a) { return printf("%%d", a); }\n' >unit.c
walls() { # COMMAND...: microseconds of each run
	local i begin
	for ((i = 0; i < runs; i++)); do
		begin=$(date +%s%N)
		"$@"
		echo $((($(date +%s%N) - begin) / 1000))
	done
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
for way in alone uncertified certified; do "$way"; "$way"; done
for ((round = 0; round < rounds; round++)); do
	for way in alone uncertified certified; do walls "$way" >>"$RUN/$way"; done
done
a=$(median <"$RUN/alone") u=$(median <"$RUN/uncertified") c=$(median <"$RUN/certified")
printf '%-36s %7d us\n' "the compile alone, here" "$a" "a job, without certificates" "$u" "a job, with certificates" "$c"
awk -v a="$a" -v u="$u" -v c="$c" 'BEGIN { printf "certificates cost %d us: %.1f %% of the job, %.1f %% of what it takes beyond the compile\n", c - u, 100 * (c - u) / u, 100 * (c - u) / (u - a) }'
secure stats | sed -n '1,3p'
