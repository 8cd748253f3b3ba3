#!/bin/bash
# Two A20 boards in emulation and this machine as one farm: a build on one board, whose own gcc is `a20-native`, is compiled
# by the other board's gcc, and then by this machine's cross gcc; and a build for the Arietta here is compiled by a board's gcc.
# Every object is compared with what the builder's own compiler makes alone.
#   scripts/a20.sh              as root; BIN=DIR takes this machine's programs, BOARD_BIN=DIR the boards', instead of building them
# The boards are qemu's Cortex-A7 with Debian's own kernel and compiler for armhf, so name spaces, mounts, filters and the
# sizes of things are those of a real one; only time is not. They are on a bridge in a network name space of their own, with
# certificates; the second one's clock begins in 1970, as without a battery. Their disk is made once, in target/a20 (some five minutes, 1 GB); all else is removed.
set -euo pipefail
cd "$(dirname "$0")/.."
TOP=$PWD
NETWORK=10.20.0
CROSS=arm-linux-gnueabihf
[ "$(id -u)" -eq 0 ] || { echo "a20: this needs root: boards, bridges and mounts are made" >&2; exit 1; }

# Outside the name spaces: what is installed, built and kept.
if [ "${1:-}" != inside ]; then
	scripts/prepare.sh test
	scripts/prepare.sh wanted qemu-system-arm qemu-system-arm qemu-arm-static qemu-user-static \
		mke2fs e2fsprogs arm-linux-gnueabi-g++ g++-arm-linux-gnueabi $CROSS-gcc gcc-$CROSS $CROSS-g++ g++-$CROSS /usr/$CROSS/include/stdio.h libc6-dev-armhf-cross
	if [ -z "${BIN:-}" ]; then
		cargo build --release --quiet --bins
		BIN=$TOP/target/release
	fi
	[ -n "${BOARD_BIN:-}" ] || BOARD_BIN=$(dirname "$(scripts/programs.sh armv7 | grep 'rdcc$')")
	scripts/a20/disk.sh "$TOP/target/a20"
	for package in lua5.4 lzip; do
		scripts/fetch-source.sh $package "$TOP/target/systems/$package"
	done
	BIN=$(realpath "$BIN") BOARD_BIN=$(realpath "$BOARD_BIN")
	export BIN BOARD_BIN
	# Its end is the end of everything that was started in it.
	exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" inside
fi

RUN=$(mktemp -d)
. scripts/cluster.sh
finish() {
	trap - EXIT
	cluster_stop
	rm -rf "$RUN"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
unset RDCC_COORDINATOR
export RDCC_STATE_DIR=$RUN/agent XDG_CONFIG_HOME=$RUN/config

ip link set lo up
ip link add boards type bridge
ip addr add $NETWORK.1/24 dev boards
ip link set boards up

# board_up NUMBER: starts a board; what it hears and says are descriptors of this shell.
declare -A hears says
board_up() {
	local number=$1 to from
	ip tuntap add "tap$number" mode tap
	ip link set "tap$number" master boards up
	mkfifo "$RUN/to$number" "$RUN/from$number"
	exec {to}<>"$RUN/to$number" {from}<>"$RUN/from$number"
	hears[$number]=$to says[$number]=$from
	local clock=utc
	[ "$number" != 2 ] || clock=1970-01-01T00:05:00
	qemu-system-arm -rtc "base=$clock" -M virt,highmem=off -cpu cortex-a7 -smp 2 -m 1024 -accel tcg,thread=multi -no-reboot -display none \
		-kernel target/a20/vmlinuz -initrd target/a20/initrd \
		-append "console=ttyAMA0 root=LABEL=board rw init=/sbin/board quiet board.name=a20-$number board.address=$NETWORK.1$number/24" \
		-drive "file=target/a20/board.ext4,format=raw,if=none,id=root,snapshot=on" -device virtio-blk-device,drive=root \
		-drive "file=$RUN/brought.tar,format=raw,if=none,id=brought,readonly=on" -device virtio-blk-device,drive=brought,serial=brought \
		-netdev "tap,id=net,ifname=tap$number,script=no,downscript=no" -device "virtio-net-device,netdev=net,mac=52:54:00:00:00:0$number" \
		-serial "file:$RUN/board$number.log" -device virtio-serial-device -chardev stdio,id=shell -device virtconsole,chardev=shell \
		<"$RUN/to$number" >"$RUN/from$number" 2>"$RUN/qemu$number.log" &
	cluster_pids+=($!)
}

# on NUMBER COMMAND: runs a command in a board's shell and prints what it prints; ends as it ends, after 15 minutes at most.
# Without a command it waits for the board to be ready.
on() {
	local number=$1 line from=${says[$1]}
	[ -z "$2" ] || printf '%s\necho "@@ended $?"\n' "$2" >&"${hears[$number]}"
	while IFS= read -r -t 900 -u "$from" line; do
		line=${line%$'\r'}
		case $line in
		'@@ended '*) return "${line#* }" ;;
		*) printf '%s\n' "$line" ;;
		esac
	done
	echo "a20: board $number does not answer:" >&2
	tail -n 20 "$RUN/board$number.log" "$RUN/qemu$number.log" >&2
	return 1
}

step() { printf '\n== %s\n' "$*"; }

step "a farm with certificates, and two boards"
mkdir "$RUN/brought" "$RUN/brought/bin"
cp "$BOARD_BIN/rdcc" "$BOARD_BIN/rdcc-worker" "$RUN/brought/bin"
cp -a target/systems/lua5.4 "$RUN/brought/lua"
cp -a target/systems/lzip "$RUN/brought/lzip"
cp toolchains/a20-native.toml toolchains/arm926.toml scripts/a20/build.sh "$RUN/brought"
tar -C "$RUN/brought" -cf "$RUN/brought.tar" .
# A disk is a number of sectors.
truncate -s %1M "$RUN/brought.tar"
"$BIN/rdcc-coordinator" --state-dir "$RUN/coordinator" init >/dev/null
cluster_start coordinator "listening on" "$BIN/rdcc-coordinator" --listen "$NETWORK.1:7420" --state-dir "$RUN/coordinator"
"$BIN/rdcc" join $NETWORK.1 "$("$BIN/rdcc-coordinator" --state-dir "$RUN/coordinator" token 2>/dev/null)" --name pc-user
board_up 1
board_up 2
on 1 ''
on 2 ''
on 1 'grep -m 1 "model name" /proc/cpuinfo; uname -srm; gcc --version | head -n 1'

step "the second board joins as a worker"
on 2 'date --utc "+in %Y by its clock"'
on 2 "rdcc-worker --state-dir /var/lib/rdcc-worker --name a20-2 join $NETWORK.1 $("$BIN/rdcc" token create --role worker)"
on 2 "rdcc-worker --state-dir /var/lib/rdcc-worker --listen $NETWORK.12:7431 --slots 2 --power 0.1 >/tmp/worker.log 2>&1 &"
on 2 'for i in $(seq 120); do ! grep -q "ready on" /tmp/worker.log || break; sleep 0.5; done; grep "ready on" /tmp/worker.log || { cat /tmp/worker.log; false; }'
on 2 "rdcc-worker --state-dir /var/lib/rdcc-worker doctor"

step "the first board pushes its own gcc, the second one has it"
on 1 "rdcc join $NETWORK.1 $("$BIN/rdcc" token create --role admin) --name a20-1"
# So that whatever can go to a worker does.
on 1 "mkdir -p /root/.config/rdcc; echo 'local_share = false' >/root/.config/rdcc/config.toml"
on 1 "rdcc toolchain push /usr/local/a20-native.toml 2>/tmp/push.log || { cat /tmp/push.log; false; }"
on 1 "rdcc check --toolchain a20-native"
on 1 "sh /usr/local/build.sh alone"
on 1 "sh /usr/local/build.sh board same-bytes"

step "this machine's cross gcc stands in"
"$BIN/rdcc-worker" --state-dir "$RUN/worker" --name pc join $NETWORK.1 "$("$BIN/rdcc" token create --role worker)"
cluster_start pc "ready on" "$BIN/rdcc-worker" --listen $NETWORK.1:7431 --slots 2 --power 1.0 --state-dir "$RUN/worker"
"$BIN/rdcc" toolchain push toolchains/a20-native.toml
"$BIN/rdcc" toolchain show a20-native
"$BIN/rdcc" drain a20-2
on 1 "sh /usr/local/build.sh pc same-code"

step "both"
"$BIN/rdcc" drain a20-2 --off
on 1 "sh /usr/local/build.sh both same-code"
"$BIN/rdcc" nodes

step "this machine builds for the Arietta, and a board's own gcc stands in"
on 1 "rdcc toolchain push /usr/local/arm926.toml 2>/tmp/push.log || { cat /tmp/push.log; false; }"
"$BIN/rdcc" toolchain push toolchains/arm926.toml
"$BIN/rdcc" toolchain show arm926
mkdir -p "$RUN/config/rdcc" "$RUN/arietta"
echo 'local_share = false' >"$RUN/config/rdcc/config.toml"
# An agent knows its settings from its start.
"$BIN/rdcc" agent stop >/dev/null
"$BIN/rdcc" drain pc
arietta() { PATH=$BIN:$PATH TOOLCHAIN=arm926 PREFIX=arm-linux-gnueabi- FROM=$RUN/brought WITHIN=$RUN/arietta sh scripts/a20/build.sh "$@"; }
arietta alone
arietta board same-code
"$BIN/rdcc" stats | grep -q armv7-linux
