#!/bin/bash
# Makes an external toolchain for Buildroot of Debian's arm-linux-gnueabi cross gcc, in the shape that crosstool-NG and
# vendors give theirs: one directory that can stand anywhere, with the C library in a sysroot of its own.
#   scripts/systems/external-toolchain.sh DIRECTORY [PREFIX]          default: arm-arietta-linux-gnueabi
# Buildroot refuses a distribution's own compiler, because that looks into /usr; this one does not.
set -euo pipefail
to=${1:?usage: scripts/systems/external-toolchain.sh DIRECTORY [PREFIX]}
prefix=${2:-arm-arietta-linux-gnueabi}
from=arm-linux-gnueabi
version=$($from-gcc -dumpversion)
[ ! -e "$to/.ready" ] || exit 0
rm -rf "$to"
mkdir -p "$to/bin" "$to/lib" "$to/$from"/{bin,lib,include,usr/include,usr/lib}

# gcc finds its parts by where it stands: bin/../lib/gcc-cross, and from there ../../../../arm-linux-gnueabi.
cp -a /usr/lib/gcc-cross "$to/lib/"
cp -aL /usr/$from/bin/. "$to/$from/bin/"
cp -a /usr/$from/lib/. "$to/$from/lib/"
# Linker scripts name the C library without a directory, so that it comes from where the others do.
for script in $(grep -lI 'GROUP (' "$to/$from"/lib/*.so); do
	sed -i "s|/usr/$from/lib/||g" "$script"
done
cp -a /usr/$from/include/. "$to/$from/usr/include/"
if [ -d "$to/$from/usr/include/c++" ]; then mv "$to/$from/usr/include/c++" "$to/$from/include/"; fi

for program in gcc g++ cpp gcov gcc-ar gcc-nm gcc-ranlib; do
	[ ! -x /usr/bin/$from-$program-"$version" ] || cp -L /usr/bin/$from-$program-"$version" "$to/bin/$prefix-$program"
done
ln -s "$prefix-gcc" "$to/bin/$prefix-cc"
for program in addr2line ar as c++filt elfedit gprof ld ld.bfd nm objcopy objdump ranlib readelf size strings strip; do
	[ ! -x /usr/bin/$from-$program ] || cp -L /usr/bin/$from-$program "$to/bin/$prefix-$program"
done
# What the drivers say of how they were configured, by which Buildroot tells a distribution's compiler.
sed -i 's|--with-sysroot=/ |--with-sysroot=. |' "$to/bin/$prefix-gcc" "$to/bin/$prefix-g++" "$to/bin/$prefix-cpp"
touch "$to/.ready"
