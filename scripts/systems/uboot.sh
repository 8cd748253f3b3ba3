#!/bin/bash
# U-Boot for an AT91SAM9X5 and the Banana Pi; its host tools by another toolchain in the same build
need bison bison flex flex bc bc swig swig dtc device-tree-compiler /usr/include/openssl/evp.h libssl-dev \
	/usr/include/python3.11/Python.h python3-dev /usr/lib/python3/dist-packages/setuptools/__init__.py python3-setuptools
WAYS="CC"
LEFT_OUT=(! -name '*.cmd' ! -name .config.old ! -name '*.pyc')
uboot=$(source_of u-boot)
fresh() { mkdir "$TREE"; }
build() {
	local board cc=() target
	[ "$1" = local ] || cc=(CC="rdcc --toolchain arm926" HOSTCC="rdcc --toolchain this-machine gcc")
	for board in at91sam9x5ek_mmc Bananapi; do
		target=(u-boot.bin)
		[ $board = at91sam9x5ek_mmc ] || target=(u-boot.bin spl/sunxi-spl.bin)
		SOURCE_DATE_EPOCH=0 make -s -C "$uboot" O="$TREE/$board" CROSS_COMPILE=$CROSS- "${cc[@]}" ${board}_defconfig
		SOURCE_DATE_EPOCH=0 make -s -C "$uboot" O="$TREE/$board" CROSS_COMPILE=$CROSS- -j"$JOBS" "${cc[@]}" "${target[@]}"
	done
}
