# Functions for benches/replay.sh: the replay toolchain and its tape, nodes that sleep instead of compiling, who spent
# which CPU, and the bound. Sourced by bash, after scripts/cluster.sh; needs $TOP, $BIN, $RUN, $TREE and $TC.

PREFIX_NAME=arm-linux-gnueabi-
node_pids=() node_specs=()

# --- the toolchain and its tape ----------------------------------------------------------------------------------

# tape_ready: builds the stand-in compiler, and records the tape once (every compile of net/ twice: CPU minutes).
tape_ready() {
	local tool real
	real=$(command -v ${PREFIX_NAME}gcc)
	mkdir -p "$TC/bin" "$TC/tape"
	gcc -O2 -static -o "$TC/bin/${PREFIX_NAME}gcc.new" "$TOP/benches/replaycc.c"
	if cmp -s "$TC/bin/${PREFIX_NAME}gcc.new" "$TC/bin/${PREFIX_NAME}gcc"; then
		rm "$TC/bin/${PREFIX_NAME}gcc.new"
	else
		mv "$TC/bin/${PREFIX_NAME}gcc.new" "$TC/bin/${PREFIX_NAME}gcc"
	fi
	echo "$real" >"$TC/replay.conf"
	for tool in ld ar nm objcopy objdump strip readelf as ranlib size; do
		ln -sf "$(command -v $PREFIX_NAME$tool)" "$TC/bin/$PREFIX_NAME$tool"
	done
	cat >"$TC/replay.toml" <<-END
		name = "replay"
		description = "arm-linux-gnueabi gcc that sleeps on simulated nodes and hands over recorded objects"
		target = "arm-linux-gnueabi"
		compilers = { c = "$TC/bin/${PREFIX_NAME}gcc" }
		include = ["$TC/replay.conf", "$TC/tape", "$real"]
		[[variant]]
		host = "$(uname -m)-linux"
	END
	[ ! -e "$TC/recorded" ] || return 0
	echo "recording the tape: every compile of net/ runs twice" >&2
	rm -f "$TC"/tape/*
	clean "$TREE"
	kernel_make "$TREE" "$(nproc)" prepare
	REPLAY_RECORD=1 kernel_make "$TREE" "$(nproc)" net/
	objects "$TREE" >"$TC/objects.sums"
	small_project
	REPLAY_RECORD=1 make -s -C "$SMALL/src" -j"$(nproc)" CC="$TC/bin/${PREFIX_NAME}gcc"
	touch "$TC/recorded"
}

tape_jobs() { cat "$TC"/tape/*.t | grep -c ' net/'; }

# recorded_objects DIRECTORY: the tape's objects of net/ and their lists, by their paths in the tree.
recorded_objects() {
	local entry source object
	for entry in "$TC"/tape/*.t; do
		read -r _ _ source <"$entry"
		[[ $source == net/* ]] || continue
		mkdir -p "$1/${source%/*}"
		object=${source%.*}.o
		cp "${entry%.t}.o" "$1/$object"
		cp "${entry%.t}.d" "$1/${object%/*}/.${object##*/}.d"
	done
}

# small_project: ten files of Lua, with a makefile that asks for depfiles by name, as the tape needs it.
small_project() {
	[ ! -e "$SMALL/.ready" ] || return 0
	"$TOP/scripts/fetch-source.sh" lua5.3 "$SMALL"
	cat >"$SMALL/src/Makefile" <<-'END'
		OBJECTS = lapi.o lcode.o ldebug.o ldo.o lgc.o llex.o lparser.o lstrlib.o ltable.o lvm.o
		all: $(OBJECTS)
		%.o: %.c ; $(CC) -O2 -g -DLUA_USE_LINUX -MD -MF $*.d -c $< -o $@
		clean: ; rm -f *.o *.d
	END
	touch "$SMALL/.ready"
}

kernel_make() { # TREE JOBS TARGET-OR-VARIABLE...
	local tree=$1 jobs=$2
	shift 2
	make -s -C "$tree" -j"$jobs" ARCH=arm CROSS_COMPILE="$TC/bin/$PREFIX_NAME" KBUILD_BUILD_TIMESTAMP=1970-01-01 "$@" \
		>"$RUN/make.log" 2>&1 || { tail -n 30 "$RUN/make.log" >&2; return 1; }
}

clean() { # TREE...
	local tree
	for tree in "$@"; do
		find "$tree/net" \( -name '*.o' -o -name '*.a' -o -name '.*.cmd' -o -name '*.d' -o -name modules.order \) -delete
	done
}

objects() { (cd "$1" && find net/ -name '*.o' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }

# tree_copies COUNT: sets `trees` to COUNT trees of the same content at different paths. What a build writes is not shared.
tree_copies() {
	local number
	trees=("$TREE")
	for ((number = 2; number <= $1; number++)); do
		trees+=("$TREE-$number")
		[ ! -e "$TREE-$number/.rdcc-ready" ] || continue
		rm -rf "$TREE-$number"
		clean "$TREE"
		cp -al "$TREE" "$TREE-$number"
		# These are written in place whenever the compiler's name changes.
		find "$TREE-$number" -name '*.s' -delete
	done
}

# --- CPU accounts ------------------------------------------------------------------------------------------------

groups=
groups_make() {
	local base
	for base in /sys/fs/cgroup/cpuacct /sys/fs/cgroup; do
		[ -e "$base/cpuacct.usage" ] || [ -e "$base/cgroup.controllers" ] || continue
		mkdir "$base/rdcc-replay-$$" 2>/dev/null || continue
		groups=$base/rdcc-replay-$$
		mkdir "$groups/client" "$groups/workers" "$groups/coordinator"
		return 0
	done
	echo "replay: no cgroups can be made here: CPU is not told" >&2
}
groups_remove() {
	local group
	[ -n "$groups" ] || return 0
	for group in client workers coordinator; do
		for _ in $(seq 50); do
			# Those that are left may start others before they are killed.
			while read -r pid; do kill -9 "$pid" 2>/dev/null || true; done <"$groups/$group/cgroup.procs"
			rmdir "$groups/$group" 2>/dev/null && break || sleep 0.1
		done
	done
	rmdir "$groups" 2>/dev/null || true
	groups=
}
# in_group GROUP: sets `within` to the words in front of a command whose CPU is to go to that account. They become the
# command by exec, so that it has the pid that was started.
in_group() {
	within=()
	[ -z "$groups" ] || within=(sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$groups/$1")
}
# cpu_ms GROUP: CPU that it has used so far.
cpu_ms() {
	if [ -e "$groups/$1/cpuacct.usage" ]; then
		echo $(($(cat "$groups/$1/cpuacct.usage") / 1000000))
	elif [ -e "$groups/$1/cpu.stat" ]; then
		awk '/^usage_usec/ { print int($2 / 1000) }' "$groups/$1/cpu.stat"
	else
		echo 0
	fi
}

# --- nodes -------------------------------------------------------------------------------------------------------

address() { echo "127.0.0.$((20 + $1))"; }
# on_node POWER NUMBER: sets `within` to the words that make a command run on a node of POWER percent.
on_node() {
	in_group workers
	within+=(unshare -u sh -c 'hostname "$0" && exec "$@"' "rn-$1-$2")
}
# farm_up POWER:SLOTS...: POWER in percent. The coordinator keeps the toolchain from one farm to the next, and no speeds. FARM_POWER overrides what the workers are configured with (1.0 for "wrong").
farm_up() {
	local port spec
	port=$(cluster_port)
	export RDCC_COORDINATOR=http://127.0.0.1:$port RDCC_STATE_DIR=$RUN/agent
	disk_up
	# What it learned of nodes of these names was of other runs.
	rm -f "$TOP/target/replay-coordinator/speeds"
	farm_coordinator "$port"
	node_pids=() node_specs=()
	for spec in "$@"; do farm_node "$spec"; done
	"$BIN/rdcc" toolchain push "$TC/replay.toml" >/dev/null 2>"$RUN/push.log" || { cat "$RUN/push.log" >&2; return 1; }
	farm_ready
}
farm_coordinator() { # PORT
	in_group coordinator
	cluster_start coordinator "listening on" "${within[@]}" "$BIN/rdcc-coordinator" --listen "127.0.0.1:$1" \
		--state-dir "$TOP/target/replay-coordinator"
}
farm_node() { # POWER:SLOTS
	local power=${1%:*} slots=${1#*:} number=$((${#node_specs[@]} + 1))
	local told
	told=$(awk -v p="$power" 'BEGIN { print p / 100 }')
	on_node "$power" "$number"
	cluster_start "worker$number" "ready on" "${within[@]}" "$BIN/rdcc-worker" \
		--coordinator "$RDCC_COORDINATOR" --listen "$(address $number):7431" --name "n$number-$power" --slots "$slots" \
		--power "${FARM_POWER:-$told}" --state-dir "$RUN/nodes/$number"
	node_pids+=("${cluster_pids[-1]}") node_specs+=("$1")
}
# farm_ready: lets small jobs through until every node has the toolchain. Their headers are none of net/'s.
farm_ready() {
	local number round warm=()
	in_group client
	for number in $(seq 1 64); do echo "int x$number;" >"$RUN/warm$number.c"; done
	for round in $(seq 1 60); do
		[ "$("$BIN/rdcc" nodes | grep -c 'replay (\(installed\|bundle\))')" -lt ${#node_specs[@]} ] || return 0
		for number in $(seq 1 64); do
			"${within[@]}" "$BIN/rdcc" --toolchain replay -c "$RUN/warm$number.c" -o "$RUN/warm$number.o" &
			warm[$number]=$!
		done
		wait "${warm[@]}"
	done
	"$BIN/rdcc" nodes >&2
	echo "replay: not every node has the toolchain" >&2
}
farm_down() {
	cluster_stop
	disk_down
	rm -rf "$RUN"/{coordinator.*,agent,agent2,worker*}
}
# disk_up: an empty disk for the nodes of one farm. ext4 does not give out the inode of a file removed within the last minutes,
# and looks at all of them for every file that is made: on the disk where the last farm and the client's objects were just
# removed, the nodes of `owner` took 6 to 7.5 CPU-s for what takes 2 to 3. Nodes have disks of their own.
disk_up() {
	mkdir -p "$RUN/nodes"
	truncate -s 16G "$RUN/disk"
	mkfs.ext4 -q -F "$RUN/disk"
	mount -o loop "$RUN/disk" "$RUN/nodes" || echo "replay: no disk of their own for the nodes" >&2
}
disk_down() {
	! mountpoint -q "$RUN/nodes" || umount "$RUN/nodes"
	rm -rf "$RUN"/{disk,nodes}
}
# distcc_up POWER:SLOTS...: a distccd for each, and the list of hosts, fastest first as its users have it.
distcc_up() {
	local spec
	node_pids=() node_specs=()
	mkdir -p "$RUN/distcc"
	export DISTCC_DIR=$RUN/distcc
	for spec in "$@"; do distcc_node "$spec"; done
	distcc_hosts ""
}
distcc_node() { # POWER:SLOTS
	local power=${1%:*} slots=${1#*:} number=$((${#node_specs[@]} + 1))
	on_node "$power" "$number"
	"${within[@]}" distccd --no-detach --daemon --user nobody --listen "$(address $number)" --port 3632 \
		--allow 127.0.0.0/8 --jobs "$slots" --nice 0 --enable-tcp-insecure --log-stderr \
		--log-level error 2>"$RUN/distccd$number.log" &
	cluster_pids+=($!) node_pids+=($!) node_specs+=("$1")
}
distcc_hosts() { # FLAGS [FIRST...]
	local flags=$1 number spec
	shift
	{
		[ $# -eq 0 ] || printf '%s\n' "$@"
		for number in "${!node_specs[@]}"; do
			spec=${node_specs[$number]}
			echo "${spec%:*} $(address $((number + 1)))/${spec#*:}$flags"
		done | sort -rns -k1,1 | cut -d' ' -f2
	} >"$RUN/distcc/hosts"
}
distcc_down() { cluster_stop; }

slots_of() { # POWER:SLOTS...
	local spec sum=0
	for spec in "$@"; do sum=$((sum + ${spec#*:})); done
	echo $sum
}

# --- the bound ---------------------------------------------------------------------------------------------------

# bound COPIES CLIENT-CORES FLOOR-SECONDS POWER:SLOTS...: no build of COPIES tapes can end sooner, s: all work over all
# speed, the k longest jobs on the k fastest slots, and make's own CPU on the client. With client cores that help,
# make's own CPU is part of the work, and they of the speed.
bound() {
	local copies=$1 cores=$2 floor=$3
	shift 3
	cat "$TC"/tape/*.t | grep ' net/' | awk -v copies="$copies" -v cores="$cores" -v floor="$floor" -v all="$(nproc)" -v nodes="$*" '
		{ job[++jobs] = $1 }
		function fill(value, times) { while (times-- > 0) speed[++slots] = value }
		function sorted(list, n,    i, j, v) { for (i = 2; i <= n; i++) { v = list[i]; for (j = i - 1; j > 0 && list[j] < v; j--) list[j + 1] = list[j]; list[j + 1] = v } }
		END {
			count = split(nodes, node, " ")
			for (i = 1; i <= count; i++) { split(node[i], part, ":"); fill(part[1] / 100, part[2]) }
			fill(1, cores)
			sorted(speed, slots); sorted(job, jobs)
			for (i = 1; i <= jobs; i++) work += copies * job[i]
			for (i = 1; i <= slots; i++) power += speed[i]
			best = (work + (cores ? floor : 0)) / power
			for (k = 1; k <= slots && k <= jobs * copies; k++) {
				longest += job[int((k - 1) / copies) + 1]; fastest += speed[k]
				if (longest / fastest > best) best = longest / fastest
			}
			if (floor / all > best) best = floor / all
			printf "%.2f", best
		}'
}
