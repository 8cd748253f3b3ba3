#!/bin/bash
# Linux 6.1 for the Arietta (at91_dt_defconfig) and the Banana Pi (sunxi_defconfig); a part of it, or all with FULL=1
need bc bc bison bison flex flex
WAYS="CC"
# kbuild writes the compiler as it was given into its records of commands.
LEFT_OUT=(! -name '*.cmd' ! -name .config.old)
PARTS="lib/zlib_inflate/ lib/math/ kernel/time/ drivers/rtc/ drivers/pinctrl/ arch/arm/lib/ arch/arm/mach-at91/ arch/arm/mach-sunxi/"
. scripts/systems/linux-source.sh
fresh() { mkdir "$TREE"; }
build() {
	local board cc=() targets=$PARTS
	[ "$1" = local ] || cc=(CC="rdcc --toolchain arm926" HOSTCC="rdcc --toolchain this-machine gcc")
	[ -z "${FULL:-}" ] || targets="zImage dtbs"
	for board in at91_dt sunxi; do
		kernel_make $board "${cc[@]}" ${board}_defconfig
		kernel_make $board "${cc[@]}" prepare
		kernel_make $board "${cc[@]}" $targets
	done
}
finish() {
	local compiles
	# What kbuild compiles in order to learn of the compiler goes to /dev/null, or is a query.
	compiles=$(find "$TREE" -name '*.o' ! -name 'built-in.o' ! -path '*/scripts/*' ! -path '*/vdso/*' | wc -l)
	[ $(($(number remote) * 100)) -ge $((compiles * 98)) ] || { echo "fewer than 98 % of $compiles objects came from workers"; return 1; }
}
