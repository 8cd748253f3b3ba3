#!/bin/bash
# Builds a small project by rdcc again and again on a cluster of three workers on loopback, while parts of the cluster are
# killed, frozen and started anew, and says what is left behind: wrong objects, failed builds, memory, descriptors,
# processes, mounts, files. Exits 1 when an object differed, a build failed, or anything was left at the end.
#   scripts/soak.sh [MINUTES]            20 by default; `make soak MINUTES=480` for a night
# UNITS=N sources (60), JOBS=N for make (8), CALM=1 disturbs nothing, BIN=DIR takes binaries that are there, SEED=N repeats
# the disturbances of a run.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
MINUTES=${1:-20} UNITS=${UNITS:-60} JOBS=${JOBS:-8} SEED=${SEED:-$RANDOM}
scripts/prepare.sh test
if [ -z "${BIN:-}" ]; then
	BIN=$TOP/target/release
	cargo build --release --quiet --bins
fi
BIN=$(realpath "$BIN")
. scripts/cluster.sh
RUN=$(mktemp -d)
finish() {
	cluster_stop
	chmod -R u+rwX "$RUN" 2>/dev/null || true
	rm -rf "$RUN"
}
trap finish EXIT
trap 'exit 130' INT TERM
RANDOM=$SEED
mounts_before=$(wc -l </proc/self/mountinfo)

# A project whose units share headers, one of which is made during the build.
mkdir "$RUN/src"
cd "$RUN/src"
for ((i = 0; i < 20; i++)); do
	echo "#ifndef H$i"
	echo "#define H$i"
	[ "$i" -eq 0 ] || echo "#include \"h$((i - 1)).h\""
	echo "static inline int f$i(int a) { return a * $i + MADE; }"
	echo "#endif"
done | awk '/^#ifndef/ { close(file); file = tolower($2) ".h" } { print >file }'
for ((i = 0; i < UNITS; i++)); do
	printf '#include "made.h"\n#include "h%d.h"\n#include <stdio.h>\nint u%d(int a) { return printf("%%d", f%d(a)); }\n' $((i % 20)) "$i" $((i % 20)) >"u$i.c"
done
cat >Makefile <<'M'
objects = $(patsubst %.c,%.o,$(wildcard u*.c))
all: $(objects)
made.h:
	echo "#define MADE $(MADE)" >$@
$(objects): %.o: %.c made.h
	$(CC) -O2 -MMD -c $< -o $@
M
digests() { sha256sum -- *.o *.d; }

cluster_up 2 2 2
"$BIN/rdcc" toolchain push "$TOP/toolchains/arm926.toml" >/dev/null
port=${RDCC_COORDINATOR##*:}
cluster_ports=()
for ((i = 1; i <= 3; i++)); do
	cluster_ports+=("$(tr '\0' '\n' </proc/"${cluster_pids[$i]}"/cmdline | sed -n '/^--listen$/ { n; s/.*://p }')")
done

agent_pid() {
	"$BIN/rdcc" status --json 2>/dev/null | tr -d ' \n' | grep -o '"agent":{[^}]*' | grep -o '"pid":[0-9]*' | grep -o '[0-9]*$' || true
}
again() { # WORKER-NUMBER: starts a worker anew
	local before=${#cluster_pids[@]}
	cluster_worker "$1" 2 "${cluster_ports[$(($1 - 1))]}"
	cluster_pids[$1]=${cluster_pids[$before]}
	unset "cluster_pids[$before]"
}
coordinator_again() {
	local before=${#cluster_pids[@]}
	cluster_coordinator "$port"
	cluster_pids[0]=${cluster_pids[$before]}
	unset "cluster_pids[$before]"
}
gone() { kill -KILL "$1" 2>/dev/null && wait "$1" 2>/dev/null || true; }
disturb() {
	local worker=$((RANDOM % 3 + 1)) agent
	case $((RANDOM % 6)) in
	0 | 1)
		gone "${cluster_pids[$worker]}"
		sleep 0.3
		again "$worker"
		echo "worker killed"
		;;
	2)
		kill -STOP "${cluster_pids[$worker]}"
		sleep 2
		kill -CONT "${cluster_pids[$worker]}"
		echo "worker frozen"
		;;
	3)
		gone "${cluster_pids[0]}"
		sleep 0.5
		coordinator_again
		echo "coordinator killed"
		;;
	4)
		agent=$(agent_pid)
		[ -z "$agent" ] || kill -KILL "$agent" 2>/dev/null || true
		echo "agent killed"
		;;
	5)
		gone "${cluster_pids[1]}"
		gone "${cluster_pids[2]}"
		again 1
		again 2
		echo "two workers killed"
		;;
	esac
}

# ours: prints the processes of this cluster, whoever is their parent now.
ours() {
	local file pid
	for file in /proc/[0-9]*/environ; do
		pid=${file#/proc/}
		pid=${pid%/environ}
		[ "$pid" != $$ ] && [ "$pid" != $BASHPID ] || continue
		grep -qz "^RDCC_STATE_DIR=$RUN/agent$" "$file" 2>/dev/null && [[ $(readlink "/proc/$pid/exe") == "$BIN/rdcc"* ]] || continue
		echo "$pid $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"
	done
}

# figures LABEL: what the cluster holds now.
figures() {
	local pid rss=0 fds=0 line
	for pid in "${cluster_pids[@]}" $(agent_pid); do
		line=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status" 2>/dev/null || echo 0)
		rss=$((rss + line))
		fds=$((fds + $(find "/proc/$pid/fd" -mindepth 1 2>/dev/null | wc -l)))
	done
	printf '%-22s %9d kB %6d %10d %8d %10d kB\n' "$1" "$rss" "$fds" "$(ours | wc -l)" \
		"$(($(wc -l </proc/self/mountinfo) - mounts_before))" "$(du -sk "$RUN" 2>/dev/null | cut -f1)"
}

builds=0 jobs=0 failed=0 wrong=0
declare -A disturbances=()
end=$((SECONDS + MINUTES * 60)) shown=0
echo "seed $SEED"
printf '%-22s %12s %6s %10s %8s %13s\n' "AFTER" MEMORY FDS PROCESSES MOUNTS DISK
while [ $SECONDS -lt $end ]; do
	value=$((builds % 7))
	rm -f ./*.o ./*.d made.h
	if [ ! -e "$RUN/expected.$value" ]; then
		make -s -j"$JOBS" MADE=$value CC=arm-linux-gnueabi-gcc
		digests >"$RUN/expected.$value"
		rm -f ./*.o ./*.d made.h
	fi
	make -s -j"$JOBS" MADE=$value CC="$BIN/rdcc --toolchain arm926 arm-linux-gnueabi-gcc" >"$RUN/make.log" 2>&1 &
	build=$!
	if [ -z "${CALM:-}" ] && [ $((builds % 2)) -eq 1 ]; then
		sleep "0.$((RANDOM % 9))"
		disturb >"$RUN/what"
		what=$(<"$RUN/what")
		disturbances[$what]=$((${disturbances[$what]:-0} + 1))
	fi
	if ! wait $build; then
		failed=$((failed + 1))
		cat "$RUN/make.log" >&2
	elif ! digests | cmp -s - "$RUN/expected.$value"; then
		wrong=$((wrong + 1))
		digests | diff - "$RUN/expected.$value" >&2 || true
	fi
	builds=$((builds + 1)) jobs=$((jobs + UNITS))
	if [ $SECONDS -ge $shown ]; then
		figures "$jobs jobs"
		shown=$((SECONDS + MINUTES * 6))
	fi
done

figures "$jobs jobs"
echo
"$BIN/rdcc" stats | sed '/^REMOTE BY NODE/,/^$/d; /^LAST BUILD/,$d'
agent=$(agent_pid)
cluster_stop
# An agent that was killed leaves nothing that runs; the last one ends when it is told to, within seconds.
for ((i = 0; i < 100; i++)); do
	[ -n "$agent" ] && [ -d "/proc/$agent" ] || break
	sleep 0.1
done
left=$(ours)
mounts=$(($(wc -l </proc/self/mountinfo) - mounts_before))
echo "builds $builds, jobs $jobs, failed builds $failed, builds with wrong files $wrong"
for what in "${!disturbances[@]}"; do echo "  $what: ${disturbances[$what]}"; done
echo "left at the end: $(printf '%s' "$left" | grep -c . || true) processes, $mounts mounts"
[ -z "$left" ] || echo "$left"
[ $((failed + wrong + mounts)) -eq 0 ] && [ -z "$left" ]
