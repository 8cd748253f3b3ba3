#!/bin/sh
# Builds Lua (C) and lzip (C++), and compares every object with those of the first time.
#   build.sh alone                         by the machine's own compiler, without rdcc
#   build.sh NAME same-bytes|same-code     by rdcc; `same-code` leaves out .comment, where Debian's compilers sign with their revision
# TOOLCHAIN=a20-native is built for, PREFIX= is what its programs' names begin with, FROM=/usr/local has the sources, WITHIN=/root is built in.
set -eu
name=$1 level=${2:-}
toolchain=${TOOLCHAIN:-a20-native} prefix=${PREFIX:-} from=${FROM:-/usr/local} within=${WITHIN:-/root}
rm -rf "$within/tree"
mkdir "$within/tree"
cp -a "$from/lua" "$from/lzip" "$within/tree"
cc=${prefix}gcc cxx=${prefix}g++ log=$within/build.log
if [ "$name" != alone ]; then
	cc="rdcc --toolchain $toolchain" cxx="rdcc --toolchain $toolchain --driver c++"
	rdcc stats --zero >/dev/null
fi
begin=$(date +%s)
cd "$within/tree/lua/src"
make -s -j6 CC="$cc -std=gnu99" generic >"$log" 2>&1 || { tail "$log"; exit 1; }
cd "$within/tree/lzip"
sh configure CXX="$cxx" >/dev/null
make -s -j6 >"$log" 2>&1 || { tail "$log"; exit 1; }
seconds=$(($(date +%s) - begin))
cd "$within/tree"
printf '%s: %s s, %s objects\n' "$name" "$seconds" "$(find . -name '*.o' | wc -l)"
if [ "$name" = alone ]; then
	rm -rf "$within/alone"
	mv "$within/tree" "$within/alone"
	exit
fi
rdcc stats
differing=0
for object in $(find . -name '*.o'); do
	alone=$within/alone/$object
	if [ "$level" = same-code ]; then
		"${prefix}objcopy" -R .comment "$object" "$within/one.o"
		"${prefix}objcopy" -R .comment "$alone" "$within/other.o"
		cmp "$within/one.o" "$within/other.o" || differing=$((differing + 1))
	else
		cmp "$object" "$alone" || differing=$((differing + 1))
	fi
done
remote=$(rdcc stats --json | tr -d ' \n' | sed -n 's/.*"remote":\([0-9]*\).*/\1/p')
printf '%s: %s compiled by workers, %s differ (%s)\n' "$name" "$remote" "$differing" "$level"
[ "$differing" -eq 0 ] && [ "$remote" -gt 0 ]
