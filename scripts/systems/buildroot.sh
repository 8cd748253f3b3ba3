#!/bin/bash
# Buildroot for the Arietta with an external toolchain: BUILDROOT=DIR, its unpacked source; PER_PACKAGE=1 builds packages side by side
# Packages come from Debian's sources, so nothing is downloaded but those. See docs/buildroot.md.
BUILDROOT=$(realpath "${BUILDROOT:?BUILDROOT has to name an unpacked Buildroot, see docs/buildroot.md}")
need autoconf autoconf automake automake libtoolize libtool pkg-config pkg-config /usr/share/aclocal/ltdl.m4 libltdl-dev \
	cpio cpio rsync rsync bc bc unzip unzip file file wget wget cmake cmake
WAYS="slot"
# What names rdcc (the configuration, the toolchain wrapper with its slot, host compilers), and lists with times in them.
LEFT_OUT=(! -path './.*' ! -path './build/buildroot-config/*' ! -path './build/rdcc/*' ! -name toolchain-wrapper
	! -name '.files-list*' ! -name 'packages-file-list*' ! -path './build/host-*/config.status' ! -path './build/host-*/Makefile'
	! -path './build/lzip-custom/config.status')
"$TOP/scripts/systems/external-toolchain.sh" "$TOP/target/systems/external-toolchain"

override=$RUN/local.mk
for package in busybox dropbear libxcrypt lzip patchelf pkgconf pugixml zlib; do
	source=$(source_of $package)
	[ -e "$source/configure" ] || [ ! -e "$source/configure.ac" ] || (cd "$source" && autoreconf -fi >"$RUN/autoreconf.log" 2>&1)
	variable=${package^^}
	[ $package != zlib ] || variable=LIBZLIB
	echo "${variable}_OVERRIDE_SRCDIR = $source"
done >"$override"

configuration() { # WAY
	cat <<-CONFIG
		BR2_arm=y
		BR2_arm926t=y
		BR2_SOFT_FLOAT=y
		BR2_OPTIMIZE_S=y
		BR2_TOOLCHAIN_EXTERNAL=y
		BR2_TOOLCHAIN_EXTERNAL_CUSTOM=y
		BR2_TOOLCHAIN_EXTERNAL_PREINSTALLED=y
		BR2_TOOLCHAIN_EXTERNAL_PATH="$TOP/target/systems/external-toolchain"
		BR2_TOOLCHAIN_EXTERNAL_CUSTOM_PREFIX="arm-arietta-linux-gnueabi"
		BR2_TOOLCHAIN_EXTERNAL_GCC_12=y
		BR2_TOOLCHAIN_EXTERNAL_HEADERS_6_1=y
		BR2_TOOLCHAIN_EXTERNAL_CUSTOM_GLIBC=y
		# BR2_TOOLCHAIN_EXTERNAL_INET_RPC is not set
		BR2_TOOLCHAIN_EXTERNAL_CXX=y
		BR2_TOOLCHAIN_EXTERNAL_OPENMP=y
		BR2_PACKAGE_OVERRIDE_FILE="$override"
		BR2_PACKAGE_DROPBEAR=y
		BR2_PACKAGE_LZIP=y
		BR2_PACKAGE_PUGIXML=y
		BR2_PACKAGE_ZLIB=y
		# BR2_TARGET_ROOTFS_TAR is not set
	CONFIG
	[ -z "${PER_PACKAGE:-}" ] || echo BR2_PER_PACKAGE_DIRECTORIES=y
	[ "$1" = local ] || printf 'BR2_RDCC=y\nBR2_RDCC_TOOLCHAIN="arietta"\n'
}
fresh() { mkdir "$TREE"; }
build() {
	local make=(make -s -C "$BUILDROOT" O="$TREE" TAR=/usr/bin/tar BR2_TAR_HOST_DEPENDENCY=)
	export KCONFIG_NOTIMESTAMP=1
	configuration "$1" >"$RUN/defconfig"
	[ "$1" = local ] || make+=(BR2_EXTERNAL="$TOP/packaging/buildroot")
	"${make[@]}" BR2_DEFCONFIG="$RUN/defconfig" defconfig
	[ "$1" = local ] || "${make[@]}" rdcc-push
	[ -z "${PER_PACKAGE:-}" ] || make+=(-j"$JOBS")
	"${make[@]}"
}
