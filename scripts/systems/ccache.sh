#!/bin/bash
# ccache above rdcc: misses go to workers, hits stay hits and ask nobody
need ccache ccache
WAYS="prefix"
lz4=$(source_of lz4)
fresh() { cp -a "$lz4" "$TREE"; }
through_ccache() {
	CCACHE_DIR=$RUN/ccache CCACHE_PREFIX=rdcc RDCC_TOOLCHAIN=arm926 \
		make -s -C "$TREE" -j"$JOBS" CC="ccache $CROSS-gcc" AR=$CROSS-ar TARGET_OS=Linux lib lz4
}
build() {
	case $1 in
	local) make -s -C "$TREE" -j"$JOBS" CC=$CROSS-gcc AR=$CROSS-ar TARGET_OS=Linux lib lz4 ;;
	*) rm -rf "$RUN/ccache"; through_ccache ;;
	esac
}
# Once more from scratch: every compile is a hit, the objects are the same, and no job comes to rdcc.
finish() {
	local before after hits
	before=$(number remote)
	rm -rf "$TREE"
	step fresh || return 1
	PATH=$BIN:$PLAIN_PATH
	CCACHE_DIR=$RUN/ccache ccache --zero-stats >/dev/null
	step through_ccache || return 1
	PATH=$PLAIN_PATH
	after=$(number remote)
	hits=$(CCACHE_DIR=$RUN/ccache ccache --print-stats | awk '$1 ~ /^(direct|preprocessed)_cache_hit$/ { sum += $2 } END { print sum + 0 }')
	digests >"$RUN/again.sums"
	echo "                     second time: $hits hits of ccache, $((after - before)) jobs of rdcc"
	cmp -s "$RUN/local.sums" "$RUN/again.sums" || { echo "what came out of the cache differs"; return 1; }
	[ "$hits" -gt 0 ] && [ "$after" -eq "$before" ] || { echo "hits did not stay hits"; return 1; }
}
