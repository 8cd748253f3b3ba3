#!/bin/sh
# Installs what is missing for a task on a Debian machine, and nothing that is there already.
#   scripts/prepare.sh build   what `cargo build` needs besides Rust
#   scripts/prepare.sh test    and what the tests compile with
#   scripts/prepare.sh demo    and what the demo runs
#   scripts/prepare.sh bench   and what the benchmarks compare with
#   scripts/prepare.sh deny    what `make deny` runs, built by cargo: two minutes, once on a machine
#   scripts/prepare.sh fuzz    what `make fuzz` runs, likewise
#   scripts/prepare.sh wanted COMMAND-OR-FILE PACKAGE...   what is named
#   scripts/prepare.sh newest PACKAGE...   what is named, in the newest version that Debian has for this release
# On another system it names what is missing and goes on: the tests say what they skip.
set -eu

wanted() { # COMMAND-OR-FILE PACKAGE
	case $1 in
	/*) [ -e "$1" ] || echo "$2" ;;
	*) command -v "$1" >/dev/null 2>&1 || echo "$2" ;;
	esac
}

packages() {
	if [ "$1" = wanted ]; then
		shift
		while [ $# -ge 2 ]; do
			wanted "$1" "$2"
			shift 2
		done
		return 0
	fi
	if [ "$1" = newest ]; then
		shift
		printf '%s\n' "$@"
		return 0
	fi
	wanted gcc gcc
	wanted make make
	wanted /usr/include/stdio.h libc6-dev
	case $1 in build | deny) return 0 ;; esac
	wanted g++ g++
	[ "$1" = fuzz ] && return 0
	wanted arm-linux-gnueabi-gcc gcc-arm-linux-gnueabi
	wanted arm-linux-gnueabi-g++ g++-arm-linux-gnueabi
	wanted /usr/arm-linux-gnueabi/include/stdio.h libc6-dev-armel-cross
	wanted arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf
	wanted setpriv util-linux
	wanted ccache ccache
	wanted ip iproute2
	wanted "$(echo /usr/lib/*/faketime/libfaketimeMT.so.1)" libfaketime
	[ "$1" = test ] && return 0
	wanted qemu-arm qemu-user
	wanted bzip2 bzip2
	wanted xz xz-utils
	[ "$1" = demo ] && return 0
	wanted bc bc
	wanted mkfs.ext4 e2fsprogs
	wanted bison bison
	wanted flex flex
	wanted distcc distcc
	wanted distcc-pump distcc-pump
}

# A subcommand of cargo, in a version that is known to do what is asked of it; one that is there is taken as it is.
# Not optimised: it is built in half of the time, and works for a second.
cargo_command() { # NAME VERSION
	cargo "$1" --version >/dev/null 2>&1 && return 0
	echo "prepare: building cargo-$1 $2" >&2
	cargo install --quiet --locked --debug --version "$2" "cargo-$1"
}

cargo_commands() {
	case $1 in
	deny) cargo_command deny 0.20.2 ;;
	fuzz) cargo_command fuzz 0.13.2 ;;
	esac
}

task=${1:?usage: scripts/prepare.sh build|test|demo|bench|deny|fuzz|wanted COMMAND-OR-FILE PACKAGE...|newest PACKAGE...}
if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
	echo "prepare: cargo is in ~/.cargo/bin; put that on PATH" >&2
	exit 1
fi
command -v cargo >/dev/null 2>&1 || { echo "prepare: no Rust here: install it from your distribution or with rustup" >&2; exit 1; }
missing=$(packages "$@" | sort -u | tr '\n' ' ')
if [ -z "${missing% }" ]; then
	cargo_commands "$task"
	exit
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "prepare: this is no Debian system; please install what stands for: $missing" >&2
	cargo_commands "$task"
	exit
fi
root=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null 2>&1 || { echo "prepare: please install as root: $missing" >&2; exit 1; }
	root=sudo
fi
echo "prepare: installing $missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Another target, or the system's own updates, may be installing just now.
install() { $root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing >"$log" 2>&1; }
[ "$task" != newest ] || $root apt-get update >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
# Package lists may be absent or old on a fresh machine: one update, one more try.
install || { $root apt-get update >>"$log" 2>&1 && install; } || { cat "$log" >&2; exit 1; }
cargo_commands "$task"
