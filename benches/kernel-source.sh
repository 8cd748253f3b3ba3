#!/bin/bash
# Makes a configured Linux tree to measure on: Debian's linux-source-6.1, the Arietta's at91_dt_defconfig, with all
# that `net/` needs generated. Nothing is installed; the tree is made once.
#   benches/kernel-source.sh DIRECTORY
set -euo pipefail
tree=${1:?usage: benches/kernel-source.sh DIRECTORY}
[ ! -e "$tree/.rdcc-ready" ] || exit 0
"$(dirname "$0")/../scripts/prepare.sh" bench
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -q download linux-source-6.1 >/dev/null && dpkg-deb --fsys-tarfile linux-source-6.1_*.deb |
	tar -x --wildcards '*/linux-source-6.1.tar.xz')
mkdir -p "$tree"
tar -xf "$work"/usr/src/linux-source-6.1.tar.xz -C "$tree" --strip-components=1
cd "$tree"
make -s ARCH=arm CROSS_COMPILE=arm-linux-gnueabi- at91_dt_defconfig
make -s -j"$(nproc)" ARCH=arm CROSS_COMPILE=arm-linux-gnueabi- prepare >/dev/null
touch .rdcc-ready
