#!/bin/bash
# Parts of Linux 6.1 with gcc plugins, for gcov, with DWARF 5, and with debug information split off
need bc bc bison bison flex flex /usr/lib/gcc-cross/arm-linux-gnueabi/12/plugin/include/gcc-plugin.h gcc-12-plugin-dev-arm-linux-gnueabi
WAYS="CC"
# kbuild writes the compiler as it was given into its records of commands. gcc 12 draws the id that ties an object to its
# .dwo anew at each run, with a seed too: what is compared there is the code.
LEFT_OUT=(! -name '*.cmd' ! -name .config.old ! -name '*.dwo')
PARTS="lib/math/ kernel/time/ arch/arm/mach-at91/"
. scripts/systems/linux-source.sh
fresh() { mkdir "$TREE"; }
options() { # what is switched on, besides at91_dt_defconfig
	case $1 in
	plugins) echo "-e GCC_PLUGINS -e GCC_PLUGIN_LATENT_ENTROPY" ;;
	gcov) echo "-e DEBUG_FS -e GCOV_KERNEL -e GCOV_PROFILE_ALL" ;;
	dwarf5) echo "-d DEBUG_INFO_NONE -e DEBUG_INFO_DWARF5" ;;
	split) echo "-d DEBUG_INFO_NONE -e DEBUG_INFO_DWARF4 -e DEBUG_INFO_SPLIT" ;;
	esac
}
wanted() { # what the configuration has to say, else this compares something else
	case $1 in
	plugins) echo CONFIG_GCC_PLUGIN_LATENT_ENTROPY=y ;;
	gcov) echo CONFIG_GCOV_PROFILE_ALL=y ;;
	dwarf5) echo CONFIG_DEBUG_INFO_DWARF5=y ;;
	split) echo CONFIG_DEBUG_INFO_SPLIT=y ;;
	esac
}
build() {
	local kind cc=() seed
	[ "$1" = local ] || cc=(CC="rdcc --toolchain arm926" HOSTCC="rdcc --toolchain this-machine gcc" HOSTCXX="rdcc --toolchain this-machine g++")
	for kind in plugins gcov dwarf5 split; do
		kernel_make $kind "${cc[@]}" at91_dt_defconfig
		"$kernel/scripts/config" --file "$TREE/$kind/.config" $(options $kind)
		kernel_make $kind "${cc[@]}" olddefconfig
		grep -q "^$(wanted $kind)$" "$TREE/$kind/.config" || { echo "no $(wanted $kind)"; return 1; }
		# For gcov gcc stamps each object with the time, and the plugin puts random numbers into each, unless there is a seed.
		seed=()
		case $kind in gcov | plugins) seed=(KCFLAGS=-frandom-seed=1) ;; esac
		kernel_make $kind "${cc[@]}" "${seed[@]}" prepare
		kernel_make $kind "${cc[@]}" "${seed[@]}" $PARTS
	done
	[ -n "$(find "$TREE/split" -name '*.dwo' -print -quit)" ] && [ -n "$(find "$TREE/gcov" -name '*.gcno' -print -quit)" ]
}
split_off() { find "$TREE/split" -name '*.dwo' | wc -l; }
same() {
	find "$TREE/split" -name '*.o' ! -path '*/scripts/*' -exec $CROSS-strip -g {} +
	[ "$1" != local ] || split_off_locally=$(split_off)
}
finish() {
	[ "$(split_off)" -eq "$split_off_locally" ] || { echo "debug information that was split off is missing"; return 1; }
}
