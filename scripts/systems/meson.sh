#!/bin/bash
# meson: pkgconf, by a cross file that names rdcc
need meson meson ninja ninja-build
WAYS="crossfile"
# What meson knows of the compiler, pickled.
LEFT_OUT=(! -path '*/meson-logs/*' ! -path '*/meson-private/*' ! -path '*/meson-info/*' ! -name build.ninja ! -name compile_commands.json)
pkgconf=$(source_of pkgconf)
fresh() { cp -a "$pkgconf" "$TREE"; }
build() {
	local c="'$CROSS-gcc'"
	[ "$1" = local ] || c="'rdcc', '--toolchain', 'arm926', $c"
	cat >"$RUN/cross.ini" <<-CROSS
		[binaries]
		c = [$c]
		ar = '$CROSS-ar'
		strip = '$CROSS-strip'
		[host_machine]
		system = 'linux'
		cpu_family = 'arm'
		cpu = 'arm926ej-s'
		endian = 'little'
	CROSS
	meson setup --cross-file "$RUN/cross.ini" -Dtests=false "$TREE/build" "$TREE"
	ninja -C "$TREE/build" -j "$JOBS"
}
