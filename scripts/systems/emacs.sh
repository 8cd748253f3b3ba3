#!/bin/bash
# a large C project: Emacs for a terminal, up to the program before its Lisp is compiled (not among the short ones)
# By masquerade only: its config.h holds configure's words, and -g3 brings that into every object.
WAYS="masquerade"
need autoconf autoconf /usr/include/ncurses.h libncurses-dev makeinfo texinfo
emacs=$(source_of emacs)
# Made once, outside of what is compared: Debian leaves out the generated script, and the manuals, which configure asks for.
if [ ! -e "$emacs/configure" ]; then
	(cd "$emacs" && ./autogen.sh autoconf >/dev/null 2>&1)
fi
for manual in emacs misc lispintro lispref; do
	mkdir -p "$emacs/doc/$manual"
	[ -e "$emacs/doc/$manual/Makefile.in" ] || echo 'all doc-emacsver:' >"$emacs/doc/$manual/Makefile.in"
done
# Autoconf's own notes hold times and the options of the run; what they are made into is compared.
LEFT_OUT=(! -path '*/autom4te.cache/*')
fresh() { cp -a "$emacs" "$TREE"; }
build() {
	if [ "$1" = masquerade ]; then
		rdcc masquerade install "$RUN/links-emacs" --toolchain this-machine
		PATH=$RUN/links-emacs:$PATH
	fi
	(cd "$TREE" && ./configure --quiet --without-all --without-x CC=gcc &&
		make -s -j"$JOBS" -C lib && make -s -j"$JOBS" -C lib-src && make -s -j"$JOBS" -C src temacs)
}
finish() {
	[ -x "$TREE/src/temacs" ] || { echo "no temacs was linked"; return 1; }
}
