#!/bin/bash
# Buildroot for the Arietta with an external toolchain: BUILDROOT=DIR, its unpacked source; PER_PACKAGE=1 builds packages side by side
# INTERNAL=1 has Buildroot make the toolchain itself (binutils, gcc, musl), through rdcc too; that takes an hour on two cores.
# Packages come from Debian's sources, so nothing is downloaded but those. See docs/buildroot.md.
BUILDROOT=$(realpath "${BUILDROOT:?BUILDROOT has to name an unpacked Buildroot, see docs/buildroot.md}")
need autoconf autoconf automake automake libtoolize libtool pkg-config pkg-config /usr/share/aclocal/ltdl.m4 libltdl-dev \
	cpio cpio rsync rsync bc bc unzip unzip file file wget wget cmake cmake
WAYS="slot"
# What names rdcc (the configuration, the toolchain wrapper with its slot, host compilers), and lists with times in them.
LEFT_OUT=(! -path './.*' ! -path './build/buildroot-config/*' ! -path './build/rdcc/*' ! -name toolchain-wrapper
	! -name '.files-list*' ! -name 'packages-file-list*' ! -path './build/host-*/config.status' ! -path './build/host-*/Makefile'
	! -path './build/lzip-custom/config.status')
packages="busybox dropbear libxcrypt lzip patchelf pkgconf pugixml zlib"
if [ -z "${INTERNAL:-}" ]; then
	"$TOP/scripts/systems/external-toolchain.sh" "$TOP/target/systems/external-toolchain"
else
	need makeinfo texinfo bison bison flex flex help2man help2man
	# What else has the host compilers' names in it, or the time at which it was made.
	for path in 'build/host-*/'{config.cache,config.lt,libtool,Makefile.in,'stamp-*',autom4te.cache/requests,'t/ax/*'} \
		build/host-mpc-custom/config.h 'build/linux-headers-custom/scripts/*.cmd' host/bin/libtool '*/gmp.h'; do
		LEFT_OUT+=(! -path "./$path")
	done
	# gcc makes another one each time.
	LEFT_OUT+=(! -name '*.gch')
	packages+=" autoconf automake-1.16 binutils gcc-12 gmp libtool m4 mpclib3 mpfr4 musl"
fi

# The unpacked source of a Buildroot package, in the state that Buildroot expects of a released archive.
unpacked() { # PACKAGE
	local source
	source=$(source_of "$1")
	case $1 in
	binutils)
		# Archives without times, as Debian makes them, or no two builds are equal.
		sed -i 's/^\( *default_ar_deterministic\)=0/\1=1/' "$source/binutils/configure"
		;;
	gcc-12)
		# An archive in the archive, without the parts of its manual that it compares with what it makes.
		if [ ! -e "$source/configure" ]; then
			tar -xf "$source"/gcc-[0-9]*.tar.xz -C "$source" --strip-components=1
			sed -i '/^\$(srcdir)\/doc\/tm.texi: s-tm-texi/d' "$source/gcc/Makefile.in"
		fi
		# cc1 has a checksum in it: of its objects, and of the name of who links them.
		sed -i 's/echo "$(LINKER) $(ALL_LINKERFLAGS)/echo "$(ALL_LINKERFLAGS)/' "$source/gcc/Makefile.in"
		;;
	gmp)
		# Without its manual, which its makefiles name.
		mkdir -p "$source/doc"
		touch "$source/doc/Makefile.am"
		;;
	esac
	[ -e "$source/configure" ] || [ ! -e "$source/configure.ac" ] || (cd "$source" && autoreconf -fi >"$RUN/autoreconf.log" 2>&1)
	echo "$source"
}
override=$RUN/local.mk
for package in $packages; do
	source=$(unpacked "$package")
	case $package in
	automake-1.16) variables=AUTOMAKE ;;
	gcc-12) variables="GCC_INITIAL GCC_FINAL" ;;
	mpclib3) variables=MPC ;;
	mpfr4) variables=MPFR ;;
	zlib) variables=LIBZLIB ;;
	*) variables=${package^^} ;;
	esac
	for variable in $variables; do
		echo "${variable}_OVERRIDE_SRCDIR = $source"
	done
done >"$override"
if [ -n "${INTERNAL:-}" ]; then
	. scripts/systems/linux-source.sh
	echo "LINUX_HEADERS_OVERRIDE_SRCDIR = $kernel" >>"$override"
	# A list of macros that is the same in every BSD, and a header of Buildroot's own. They have no archive, and Buildroot asks
	# for a site once they are overridden.
	headers=$RUN/musl-compat-headers
	mkdir "$headers"
	cp "$(echo '#include <sys/queue.h>' | gcc -E - | sed -n 's|^# [0-9]* "\(/.*/queue.h\)".*|\1|p' | head -n 1)" \
		"$BUILDROOT/package/musl-compat-headers/cdefs.h" "$headers"
	printf 'MUSL_COMPAT_HEADERS_%s = %s\n' SITE "$headers" OVERRIDE_SRCDIR "$headers" >>"$override"
fi

configuration() { # WAY
	cat <<-CONFIG
		BR2_arm=y
		BR2_arm926t=y
		BR2_SOFT_FLOAT=y
		BR2_OPTIMIZE_S=y
		BR2_PACKAGE_OVERRIDE_FILE="$override"
		BR2_PACKAGE_DROPBEAR=y
		BR2_PACKAGE_LZIP=y
		BR2_PACKAGE_PUGIXML=y
		BR2_PACKAGE_ZLIB=y
		# BR2_TARGET_ROOTFS_TAR is not set
	CONFIG
	if [ -z "${INTERNAL:-}" ]; then
		cat <<-CONFIG
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
		CONFIG
	else
		# The names of versions are Buildroot's; what is built is Debian's.
		cat <<-CONFIG
			BR2_TOOLCHAIN_BUILDROOT_MUSL=y
			BR2_TOOLCHAIN_BUILDROOT_CXX=y
			BR2_KERNEL_HEADERS_6_1=y
			BR2_BINUTILS_VERSION_2_44_X=y
			BR2_GCC_VERSION_14_X=y
		CONFIG
	fi
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
