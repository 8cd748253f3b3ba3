#!/bin/bash
# a large C project: Emacs for a terminal, up to the program before its Lisp is compiled (not among the short ones)
WAYS="masquerade CC"
need autoconf autoconf /usr/include/ncurses.h libncurses-dev makeinfo texinfo
emacs=$(source_of emacs)
# Made once, outside of what is compared: Debian leaves out the generated script, and the manuals, which configure asks for.
if [ ! -e "$emacs/configure" ]; then
	(cd "$emacs" && ./autogen.sh autoconf >/dev/null 2>&1)
fi
for manual in emacs misc lispintro lispref; do
	mkdir -p "$emacs/doc/$manual"
	[ -e "$emacs/doc/$manual/Makefile.in" ] || echo 'all:' >"$emacs/doc/$manual/Makefile.in"
done
# Autoconf's own notes hold times and the options of the run; what they are made into is compared.
LEFT_OUT=(! -path '*/autom4te.cache/*')
fresh() { cp -a "$emacs" "$TREE"; }
build() {
	local cc=gcc
	case $1 in
	masquerade)
		rdcc masquerade install "$RUN/links-emacs" --toolchain this-machine
		PATH=$RUN/links-emacs:$PATH
		;;
	CC) cc="rdcc --toolchain this-machine" ;;
	esac
	(cd "$TREE" && ./configure --quiet --without-all --without-x CC="$cc" &&
		make -s -j"$JOBS" -C lib && make -s -j"$JOBS" -C lib-src && make -s -j"$JOBS" -C src temacs)
}
same() {
	[ "$1" != CC ] || grep -rlI -- 'rdcc --toolchain this-machine' "$TREE" |
		xargs sed -i -e 's/rdcc --toolchain this-machine/gcc/g' -e "s/'\\\\''CC=gcc'\\\\''/CC=gcc/"
}
finish() {
	[ -x "$TREE/src/temacs" ] || { echo "no temacs was linked"; return 1; }
}
