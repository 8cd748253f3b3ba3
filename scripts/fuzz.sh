#!/bin/bash
# Fuzzes each reader of foreign bytes for some time, one after another: fuzz/src says what has to hold.
#   scripts/fuzz.sh SECONDS [TARGET]...
# New inputs are kept in fuzz/found, those that break something in fuzz/artifacts. Ends with 1 when any did.
# Without a sanitizer, as these readers have no unsafe code: so a stable Rust will do. `cargo fuzz run` by itself adds the
# sanitizer for addresses, for which Rust has to be a nightly one or be told RUSTC_BOOTSTRAP=1.
set -euo pipefail
seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET]...}
shift
cd "$(dirname "$0")/.."
scripts/prepare.sh fuzz
if [ $# -eq 0 ]; then
	mapfile -t all < <(cargo fuzz list)
	set -- "${all[@]}"
fi
cargo fuzz build --sanitizer none
broken=()
for target in "$@"; do
	mkdir -p "fuzz/found/$target"
	echo "fuzz: $target for $seconds seconds"
	# The longest scan that is allowed takes some seconds at this speed; what takes longer is an error.
	cargo fuzz run --sanitizer none "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
		-max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -max_len=4096 -dict="fuzz/words/$target" \
		-print_final_stats=1 >"fuzz/found/$target.log" 2>&1 || broken+=("$target")
	grep -a 'cov:' "fuzz/found/$target.log" | tail -n 1
done
[ ${#broken[@]} -eq 0 ] && exit
echo "fuzz: broken: ${broken[*]}; see fuzz/found/TARGET.log. Once mended, the input belongs to fuzz/corpus/TARGET." >&2
exit 1
