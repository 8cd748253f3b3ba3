#!/bin/sh
# Fetches the upstream source of a Debian source package, without touching the machine's apt configuration:
# apt is given a private configuration made from the machine's own mirrors.
#   scripts/fetch-source.sh PACKAGE DIRECTORY     unpacks into DIRECTORY, which must not exist
set -eu
package=${1:?usage: scripts/fetch-source.sh PACKAGE DIRECTORY}
target=${2:?usage: scripts/fetch-source.sh PACKAGE DIRECTORY}
[ ! -e "$target" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work" "$target.part"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/src"
# The lines of the machine's own package sources, asked of apt so that both formats of its files are understood.
key=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
	sort -u | while read -r uri release component; do
		[ "$component" = main ] || continue
		echo "deb-src [signed-by=$key] $uri $release $component"
	done >"$work/sources.list"
[ -s "$work/sources.list" ] || { echo "fetch-source: no Debian mirror is configured on this machine" >&2; exit 1; }
apt() {
	apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" \
		-o Acquire::Languages=none "$@"
}
apt update >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
download() { (cd "$work/src" && apt source --download-only "$package" >>"$work/log" 2>&1); }
without_security() {
	# Some mirrors list the sources of security updates and do not carry them; the release's own do as well.
	sed -i '/-security/d' "$work/sources.list"
	apt update >>"$work/log" 2>&1 && download
}
download || without_security || { cat "$work/log" >&2; exit 1; }
mkdir -p "$target.part"
for archive in "$work"/src/*.orig.tar.*; do
	case $archive in *.asc) continue ;; esac
	tar -xf "$archive" -C "$target.part" --strip-components=1
done
mv "$target.part" "$target"
