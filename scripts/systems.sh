#!/bin/bash
# Builds real programs of each build system, by this machine alone and then through rdcc in each way that is meant for it,
# and compares every file that the builds leave. Sources are Debian's; nothing is installed but what a build needs.
#   scripts/systems.sh [SYSTEM...]          default: all that are short; `scripts/systems.sh list` says which there are
# FULL=1 builds whole kernels instead of a part. JOBS=N is make's -j. BIN=DIR takes rdcc's programs from there instead of
# building them. Unpacked sources stay in target/systems. Everything else is removed.
# What a system is, and what it may say: scripts/systems/README.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
SHORT="autotools cmake meson make ccache linux uboot"
all=$(cd scripts/systems && ls ./*.sh | sed 's|^\./||; s|\.sh$||' | grep -vE '^(external-toolchain|linux-source)$' | tr '\n' ' ')
case ${1:-} in
list) for name in $all; do printf '%-12s %s\n' "$name" "$(sed -n '2s/^# *//p' "scripts/systems/$name.sh")"; done; exit ;;
esac
JOBS=${JOBS:-$(($(nproc) * 2))}
CROSS=arm-linux-gnueabi
. scripts/cluster.sh
scripts/prepare.sh test
if [ -z "${BIN:-}" ]; then
	BIN=$TOP/target/release
	cargo build --release --quiet --bins
fi
BIN=$(realpath "$BIN")
RUN=$(mktemp -d)
clean_up() {
	trap - EXIT INT TERM
	! declare -F tidy_up >/dev/null || tidy_up || true
	cluster_stop
	rm -rf "$RUN"
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT
trap 'clean_up; exit 143' TERM
PLAIN_PATH=$PATH

# need COMMAND-OR-FILE PACKAGE...: installs what a system needs.
need() { scripts/prepare.sh wanted "$@"; }

# source_of PACKAGE: prints where the unpacked source is.
source_of() {
	scripts/fetch-source.sh "$1" "$TOP/target/systems/$1" >&2
	echo "$TOP/target/systems/$1"
}

# Every file below $TREE with its digest, but for logs, which have times in them, and what the system leaves out.
digests() {
	(cd "$TREE" && find . -type f ! -name '*.log' ! -name .ninja_log ! -name .ninja_deps "${LEFT_OUT[@]}" -print0 |
		LC_ALL=C sort -z | xargs -0 sha256sum)
}

toolchain_file() { # NAME C-COMPILER C++-COMPILER
	printf 'name = "%s"\ntarget = "%s"\ncompilers = { c = "%s", "c++" = "%s" }\n' "$1" "$("$2" -dumpmachine)" "$2" "$3" \
		>"$RUN/$1.toml"
	"$BIN/rdcc" toolchain push "$RUN/$1.toml" >"$RUN/push.log" 2>&1 || { cat "$RUN/push.log" >&2; exit 1; }
}

# The farm: two workers; this machine takes no share, so that what can go to a worker does.
farm_up() {
	export XDG_CONFIG_HOME=$RUN/config
	mkdir -p "$XDG_CONFIG_HOME/rdcc" "$TOP/target/systems"
	echo 'local_share = false' >"$XDG_CONFIG_HOME/rdcc/config.toml"
	cluster_up 2 2
	"$BIN/rdcc" toolchain push toolchains/arm926.toml >"$RUN/push.log" 2>&1 || { cat "$RUN/push.log" >&2; exit 1; }
	# What the same builds compile for this machine.
	toolchain_file this-machine gcc g++
}

number() { "${rdcc[@]}" stats --json | counter "$1"; }
counted() { # prints the counters on one line
	"${rdcc[@]}" stats --json | tr -d ' \n"' | sed -n 's/.*,remote_by_mode:{\([^}]*\)}.*,local_by_reason:{\([^}]*\)}.*/\1 | local: \2/p'
}

# step COMMAND...: one build, its words kept for when it fails. In the background, since bash lets a function go on after
# an error where its own status is looked at.
step() {
	(set -e; "$@") >"$RUN/build.log" 2>&1 &
	wait $! || { tail -n 40 "$RUN/build.log" >&2; echo "systems: $name: $* failed" >&2; return 1; }
}

failures=0
one() { # SYSTEM
	local name=$1 way count differing remote
	LEFT_OUT=() WAYS="" TREE=$RUN/tree rdcc=("$BIN/rdcc")
	unset -f fresh build same finish tidy_up 2>/dev/null || true
	same() { :; }
	finish() { :; }
	. "scripts/systems/$name.sh"
	echo "== $name"
	PATH=$PLAIN_PATH
	rm -f "$TOP/target/systems/$name.differing"
	step fresh
	step build local
	same local
	digests >"$RUN/local.sums"
	for way in $WAYS; do
		rm -rf "$TREE"
		step fresh
		"${rdcc[@]}" stats --zero >/dev/null
		PATH=$BIN:$PLAIN_PATH
		step build "$way"
		PATH=$PLAIN_PATH
		same "$way"
		digests >"$RUN/rdcc.sums"
		count=$(wc -l <"$RUN/local.sums")
		diff "$RUN/local.sums" "$RUN/rdcc.sums" | grep '^[<>]' >"$RUN/differing" || true
		differing=$(wc -l <"$RUN/differing")
		remote=$(number remote)
		printf '%-20s files %5d, objects %4d, differing %d; remote %d (%s)\n' "$way" "$count" \
			"$(grep -c '\.o$' "$RUN/local.sums")" "$differing" "$remote" "$(counted)"
		if [ "$differing" -ne 0 ]; then
			head -n 20 "$RUN/differing"
			cp "$RUN/differing" "$TOP/target/systems/$name.differing"
			echo "the whole list: target/systems/$name.differing"
			failures=$((failures + 1))
		fi
		[ "$remote" -gt 0 ] || { echo "nothing was compiled by a worker"; failures=$((failures + 1)); }
		finish "$way" || failures=$((failures + 1))
	done
	rm -rf "$TREE"
	! declare -F tidy_up >/dev/null || tidy_up
}

[ $# -gt 0 ] || set -- $SHORT
for name in "$@"; do
	[ -e "scripts/systems/$name.sh" ] || { echo "systems: no system \`$name\`; there are: $all" >&2; exit 2; }
done
farm_up
for name in "$@"; do
	one "$name"
done
[ "$failures" -eq 0 ] || { echo "systems: $failures failures" >&2; exit 1; }
