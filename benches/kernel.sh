#!/bin/bash
# Measures rdcc on a part of the Linux kernel: what the submitting side and the worker spend per compile, in which
# mode jobs ran, and whether every object and every list of dependencies is the local build's. Prints ratios from one run.
#   benches/kernel.sh [DIRECTORY-OF-THE-KERNEL-TREE] [PART]          default: target/kernel net/
# JOBS=N is make's -j for all builds (8); BIN=DIR takes binaries that are there instead of building them;
# ROUNDS=N measures N times (1), and prints the medians; PEERS=0 leaves distcc out.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
TREE=$(realpath -m "${1:-$TOP/target/kernel}")
PART=${2:-net/}
JOBS=${JOBS:-8}
TOOLCHAIN=$TOP/toolchains/arm926.toml
RDCC="rdcc --toolchain arm926"
scripts/prepare.sh bench
benches/kernel-source.sh "$TREE"
REAL=$(command -v arm-linux-gnueabi-gcc)
. benches/build-cost.sh

compiler() { echo "CC=$1"; }
kernel_make() {
	make -s -C "$TREE" -j"$JOBS" ARCH=arm CROSS_COMPILE=arm-linux-gnueabi- KBUILD_BUILD_TIMESTAMP=1970-01-01 "$@" \
		>"$RUN/make.log" 2>&1 || { tail -n 30 "$RUN/make.log" >&2; exit 1; }
}
# kbuild asks a compiler that it does not know a hundred questions; that is no part of a compile.
settle() { kernel_make "$@" prepare; }
build() { kernel_make "$@" "$PART"; }
left_by_a_build=(-name '*.o' -o -name '*.a' -o -name '*.ko' -o -name '.*.cmd' -o -name '*.d' -o -name 'modules.order')
clean() { (cd "$TREE" && find "$PART" \( "${left_by_a_build[@]}" \) -delete); }
objects() { (cd "$TREE" && find "$PART" -name '*.o' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }
# What fixdep has made of each list of dependencies.
command_files() { find "$PART" -name '.*.o.cmd' -print0 | LC_ALL=C sort -z | xargs -0 grep -l ^source_; }
lists() {
	(cd "$TREE" && command_files | while IFS= read -r file; do
		echo "$(sed -e "s/ := $RDCC / := arm-linux-gnueabi-gcc /" "$file" | sha256sum) $file"
	done)
}
# list_of FILE.cmd: the list of dependencies that fixdep was given, less what it leaves out.
list_of() {
	awk '/^source_/ { object = $1; sub(/^source_/, "", object); list = $3 }
		/^  [^ $]/ { list = list " \\\n " $1 }
		END { print object ": " list "\n" }' "$1"
}
keep_floor() {
	(cd "$TREE" && find "$PART" -name '*.o' -print0 | xargs -0 cp --parents -t "$1" &&
		command_files | while IFS= read -r file; do list_of "$file" >"$1/${file%.cmd}.d"; done)
}
measure_all
