#!/bin/sh
# Makes a root directory of Debian, with the packages named, from the mirror that this machine uses. As root.
#   scripts/debian-root.sh SUITE DIRECTORY PACKAGE[,PACKAGE...] [ARCHITECTURE]
# For an architecture that this machine does not run, the kernel has to know who runs its programs (binfmt_misc).
set -eu
usage="usage: scripts/debian-root.sh SUITE DIRECTORY PACKAGE[,PACKAGE...] [ARCHITECTURE]"
suite=${1:?$usage} root=${2:?$usage} packages=${3:?$usage} architecture=${4:-$(dpkg --print-architecture)}
"$(dirname "$0")/prepare.sh" wanted debootstrap debootstrap
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
rm -rf "$root"
debootstrap --arch="$architecture" --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$log" 2>&1 ||
	{ tail -n 20 "$log" >&2; exit 1; }
