#!/bin/sh
# Builds Lua (C) and lzip (C++) on a board, and compares every object with those of the first time.
#   build.sh alone                         by the board's own gcc, without rdcc
#   build.sh NAME same-bytes|same-code     by rdcc; `same-code` leaves out .comment, where Debian's compilers sign with their revision
set -eu
name=$1 level=${2:-}
rm -rf /root/tree
mkdir /root/tree
cp -a /usr/local/lua /usr/local/lzip /root/tree
cc=gcc cxx=g++
if [ "$name" != alone ]; then
	cc="rdcc --toolchain a20-native" cxx="rdcc --toolchain a20-native --driver c++"
	rdcc stats --zero >/dev/null
fi
begin=$(date +%s)
cd /root/tree/lua/src
make -s -j6 CC="$cc -std=gnu99" generic >/tmp/build.log 2>&1 || { tail /tmp/build.log; exit 1; }
cd /root/tree/lzip
sh configure CXX="$cxx" >/dev/null
make -s -j6 >/tmp/build.log 2>&1 || { tail /tmp/build.log; exit 1; }
seconds=$(($(date +%s) - begin))
cd /root/tree
printf '%s: %s s, %s objects\n' "$name" "$seconds" "$(find . -name '*.o' | wc -l)"
if [ "$name" = alone ]; then
	rm -rf /root/alone
	mv /root/tree /root/alone
	exit
fi
rdcc stats
differing=0
for object in $(find . -name '*.o'); do
	alone=/root/alone/$object
	if [ "$level" = same-code ]; then
		objcopy -R .comment "$object" /tmp/one.o
		objcopy -R .comment "$alone" /tmp/other.o
		cmp /tmp/one.o /tmp/other.o || differing=$((differing + 1))
	else
		cmp "$object" "$alone" || differing=$((differing + 1))
	fi
done
remote=$(rdcc stats --json | tr -d ' \n' | sed -n 's/.*"remote":\([0-9]*\).*/\1/p')
printf '%s: %s compiled by workers, %s differ (%s)\n' "$name" "$remote" "$differing" "$level"
[ "$differing" -eq 0 ] && [ "$remote" -gt 0 ]
