#!/bin/bash
# a chroot with its own compiler, of an older Debian (debootstrap; as root): rdcc inside it, with an agent of its own
# The programs have to run with the chroot's C library, so they are static ones: STATIC=DIR has them, or they are built.
[ "$(id -u)" -eq 0 ] || { echo "systems: chroot needs root" >&2; exit 1; }
WAYS="CC"
chroot=$TOP/target/systems/chroot
if [ ! -e "$chroot/.ready" ]; then
	scripts/debian-root.sh bullseye "$chroot" gcc,libc6-dev,make
	touch "$chroot/.ready"
fi
static=${STATIC:-$(dirname "$(scripts/programs.sh here static | grep 'rdcc$')")}
cp "$static/rdcc" "$chroot/usr/local/bin/rdcc"
mountpoint -q "$chroot/proc" || mount -t proc proc "$chroot/proc"
unmounted() { ! mountpoint -q "$chroot/proc" || umount "$chroot/proc"; }
tidy_up() {
	[ ! -e "$chroot/rdcc-state" ] || "${rdcc[@]}" agent stop >/dev/null 2>&1 || true
	# The agent writes down what it knows before it is gone, and looks at what is mounted until then.
	local try
	for try in 1 2 3 4 5 6 7 8 9 10; do
		! rm -rf "$chroot/rdcc-state" "$chroot/build" 2>/dev/null || ! unmounted 2>/dev/null || return 0
		sleep 0.5
	done
	unmounted
}
enter=$(command -v chroot)
inside() { env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root RDCC_COORDINATOR="$RDCC_COORDINATOR" RDCC_STATE_DIR=/rdcc-state \
	"$enter" "$chroot" "$@"; }
rdcc=(inside rdcc)
mkdir -p "$chroot/build"
TREE=$chroot/build/tree
lz4=$(source_of lz4)
fresh() { cp -a "$lz4" "$TREE"; }
build() {
	local cc=gcc
	if [ "$1" != local ]; then
		cc="rdcc --toolchain chroot"
		printf 'name = "chroot"\ntarget = "%s"\ncompilers = { c = "gcc" }\n' "$(inside gcc -dumpmachine)" >"$chroot/build/chroot.toml"
		inside rdcc toolchain push /build/chroot.toml
		inside rdcc check --toolchain chroot
	fi
	inside make -s -C /build/tree -j"$JOBS" CC="$cc" lib lz4
}
finish() {
	readelf -p .comment "$(find "$TREE/lib" -name '*.o' | head -n 1)" | grep -q "$(inside gcc -dumpfullversion)" ||
		{ echo "the objects are not of the chroot's compiler"; return 1; }
}
