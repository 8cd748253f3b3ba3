#!/bin/bash
# Builds rdcc's three programs for other machines than this one.
#   scripts/programs.sh armv7            for the boards: armv7-unknown-linux-gnueabihf, on Debian 12
#   scripts/programs.sh armv7 static     the same with nothing to find at run time: for boards with another C library, or an older one
#   scripts/programs.sh here static      for this kind of machine: for chroots with another C library, or an older one
# With rustup that has the target, its compiler is taken; else Debian's rustc-web, which builds Rust's own library from
# rust-web-src on the way. Programs are left in target/TARGET/release, static ones in target/static/TARGET/release.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-}
how=${2:-}
usage() { sed -n '3,5s/^# *//p' "$0" >&2; exit 2; }
case $how in '' | static) ;; *) usage ;; esac
case $kind in
armv7)
	target=armv7-unknown-linux-gnueabihf
	scripts/prepare.sh wanted arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf /usr/arm-linux-gnueabihf/include/stdio.h libc6-dev-armhf-cross
	export CC_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-gcc
	export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
	;;
here)
	[ "$how" = static ] || usage
	scripts/prepare.sh build
	target=$(rustc -vV | sed -n 's/^host: //p')
	case $target in *-linux-gnu*) ;; *) echo "programs: $target is not linked against glibc, see Rust's documentation for it" >&2; exit 1 ;; esac
	;;
*) usage ;;
esac

# Tables of source lines are six sevenths of a program, and cards of boards are small. Names of functions stay.
export CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=debuginfo

cargo=cargo
options=(build --locked --release --bins --target "$target")
# Without a --target's library, rustc names a directory that is not there.
if [ ! -d "$(rustc --print target-libdir --target "$target" 2>/dev/null)" ]; then
	scripts/prepare.sh wanted /usr/bin/rustc rustc-web /usr/bin/cargo cargo-web /usr/lib/rustlib/src/rust/library/std/src/lib.rs rust-web-src
	# What Debian released with is too old; its security updates are not, and lists may not know them yet.
	needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	has=$(/usr/bin/rustc --version | cut -d' ' -f2)
	if [ "$(printf '%s\n' "$needed" "$has" | sort -V | head -n 1)" != "$needed" ]; then
		scripts/prepare.sh newest rustc-web cargo-web rust-web-src
		has=$(/usr/bin/rustc --version | cut -d' ' -f2)
	fi
	if [ "$(printf '%s\n' "$needed" "$has" | sort -V | head -n 1)" != "$needed" ]; then
		echo "programs: Debian's Rust here is $has, and $needed or newer is needed; with rustup: rustup target add $target" >&2
		exit 1
	fi
	# Debian's compiler is a release; building its library takes what it calls unstable.
	export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc
	cargo=/usr/bin/cargo
	options+=(-Zbuild-std=std,panic_abort)
fi
directory=target
if [ "$how" = static ]; then
	# Debian's glibc, from 2.34 on, has what names need (hosts, DNS) inside, so nothing is loaded at run time.
	export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static"
	directory=target/static
fi
CARGO_TARGET_DIR=$directory "$cargo" "${options[@]}"
for program in rdcc rdcc-worker rdcc-coordinator; do
	file=$directory/$target/release/$program
	[ -e "$file" ] && echo "$file"
done
