#!/bin/bash
# Makes the disk of an emulated board, once: Debian for armhf with its own gcc and kernel.
#   scripts/a20/disk.sh DIRECTORY         leaves board.ext4, vmlinuz and initrd there
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1"
place=$(realpath "$1")
[ ! "$place/.ready" -nt scripts/a20/board ] || exit 0
root=$place/root
binfmt=/proc/sys/fs/binfmt_misc
log=$place/disk.log
finish() {
	[ -z "${registered:-}" ] || echo -1 >$binfmt/rdcc-arm
	[ -z "${mounted:-}" ] || umount $binfmt
	rm -rf "$root"
}
trap finish EXIT
trap 'exit 130' INT TERM
echo "a20: making the boards' disk, some minutes" >&2

# Packages configure themselves by running programs of the board. Where no service has told the kernel who runs those: for now.
if [ ! -e $binfmt/register ]; then
	mount -t binfmt_misc binfmt_misc $binfmt
	mounted=yes
fi
if [ ! -e $binfmt/qemu-arm ]; then
	printf '%s' ':rdcc-arm:M::\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-arm-static:OF' >$binfmt/register
	registered=yes
fi
quiet() { "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }; }
scripts/debian-root.sh bookworm "$root" gcc,g++,libc6-dev,make,kmod,iproute2 armhf
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nBUSYBOX=n\n' >"$root/etc/initramfs-tools/conf.d/board"
printf '%s\n' virtio_mmio virtio_blk virtio_net ext4 >"$root/etc/initramfs-tools/modules"
[ ! -e /etc/resolv.conf ] || cp -L /etc/resolv.conf "$root/etc/resolv.conf"
quiet env DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" apt-get install -y --no-install-recommends \
	-o Dpkg::Options::=--force-confold linux-image-armmp initramfs-tools
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
install -m 755 scripts/a20/board "$root/sbin/board"
cp "$root"/boot/vmlinuz-* "$place/vmlinuz"
cp "$root"/boot/initrd.img-* "$place/initrd"
quiet mke2fs -q -t ext4 -L board -d "$root" "$place/board.ext4" 3G
touch "$place/.ready"
