#!/bin/bash
# ./configure and make: GNU hello, and popt with libtool's shared and static objects
# A masquerade directory has to leave every generated file as it is; with CC="rdcc ..." that name alone may differ.
WAYS="masquerade CC"
hello=$(source_of hello) popt=$(source_of popt)
fresh() {
	mkdir "$TREE"
	cp -a "$hello" "$TREE/hello"
	cp -a "$popt" "$TREE/popt"
}
build() {
	local cc=$CROSS-gcc project
	case $1 in
	masquerade)
		rdcc masquerade install "$RUN/links" --toolchain arm926
		PATH=$RUN/links:$PATH
		;;
	CC) cc="rdcc --toolchain arm926" ;;
	esac
	for project in hello popt; do
		(cd "$TREE/$project" && ./configure --quiet --host=$CROSS --disable-nls CC="$cc" && make -s -j"$JOBS" MAKEINFO=: HELP2MAN=:)
	done
}
# Two words are quoted where one is not.
same() {
	[ "$1" != CC ] || grep -rlI -- 'rdcc --toolchain arm926' "$TREE" |
		xargs sed -i -e "s/rdcc --toolchain arm926/$CROSS-gcc/g" -e "s/'\\\\''CC=$CROSS-gcc'\\\\''/CC=$CROSS-gcc/"
}
finish() {
	[ -n "$(find "$TREE/popt" -path '*/.libs/*.o')" ] || { echo "no object with -fPIC was made"; return 1; }
}
