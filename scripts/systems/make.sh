#!/bin/bash
# plain make with CC= and CXX=: lz4 in C, lzip in C++
WAYS="CC"
lz4=$(source_of lz4) lzip=$(source_of lzip)
fresh() {
	mkdir "$TREE"
	cp -a "$lz4" "$TREE/lz4"
	cp -a "$lzip" "$TREE/lzip"
}
build() {
	local cc=$CROSS-gcc cxx=$CROSS-g++
	[ "$1" = local ] || cc="rdcc --toolchain arm926" cxx="rdcc --toolchain arm926 --driver c++"
	make -s -C "$TREE/lz4" -j"$JOBS" CC="$cc" AR=$CROSS-ar TARGET_OS=Linux lib lz4
	(cd "$TREE/lzip" && ./configure CXX="$cxx" && make -s -j"$JOBS")
}
# configure and make write down the compiler as it was given.
LEFT_OUT=(! -name config.status ! -path ./lzip/Makefile)
