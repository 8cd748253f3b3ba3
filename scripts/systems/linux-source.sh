# Linux 6.1's source for the systems that are kernels; sourced by them.
kernel=$TOP/target/systems/linux
if [ ! -e "$kernel/.ready" ]; then
	mkdir -p "$kernel"
	(cd "$RUN" && apt-get -q download linux-source-6.1 >/dev/null && dpkg-deb --fsys-tarfile linux-source-6.1_*.deb |
		tar -x --wildcards '*/linux-source-6.1.tar.xz')
	tar -xf "$RUN"/usr/src/linux-source-6.1.tar.xz -C "$kernel" --strip-components=1
	touch "$kernel/.ready"
fi
kernel_make() { # DIRECTORY-BELOW-THE-TREE ARGUMENTS...
	local out=$TREE/$1
	shift
	make -s -C "$kernel" O="$out" -j"$JOBS" ARCH=arm CROSS_COMPILE=$CROSS- KBUILD_BUILD_TIMESTAMP=1970-01-01 \
		KBUILD_BUILD_USER=builder KBUILD_BUILD_HOST=builder "$@"
}
