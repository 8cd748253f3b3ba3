# Tells whose CPU time it was; sourced (by bash) from the benchmarks. Each group is a cgroup with CPU accounting, of
# version 1 (cpuacct) or 2, so that short-lived children, orphans and kernel work on a process's behalf are all in it. Where
# no cgroup can be made, sums of /proc stand in: ticks of 10 ms, and only of what is still there or has been waited for.

cpu_groups_dir=
declare -A cpu_groups_pids=()

# cpu_groups_up NAME...: makes the groups.
cpu_groups_up() {
	local base name
	for base in /sys/fs/cgroup/cpuacct /sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup/unified /sys/fs/cgroup; do
		[ -e "$base/cpuacct.usage" ] || [ -e "$base/cgroup.controllers" ] || continue
		mkdir "$base/rdcc-bench-$$" 2>/dev/null || continue
		cpu_groups_dir=$base/rdcc-bench-$$
		for name in "$@"; do mkdir "$cpu_groups_dir/$name"; done
		[ -e "$cpu_groups_dir/$1/cpuacct.usage" ] || [ -e "$cpu_groups_dir/$1/cpu.stat" ] && return 0
		cpu_groups_down
	done
	echo "no cgroups here: CPU times are sums of /proc" >&2
}

# cpu_groups_down: removes the groups when they are empty: an agent that was asked to end writes down what it knows first.
cpu_groups_down() {
	local _
	[ -n "$cpu_groups_dir" ] || return 0
	for _ in $(seq 50); do
		rmdir "$cpu_groups_dir"/*/ "$cpu_groups_dir" 2>/dev/null || true
		[ -d "$cpu_groups_dir" ] || break
		sleep 0.2
	done
	cpu_groups_dir=
}

# cpu_group_enter NAME: puts the calling (sub)shell into a group, and with it all that it starts.
cpu_group_enter() {
	[ -z "$cpu_groups_dir" ] || echo $BASHPID >"$cpu_groups_dir/$1/cgroup.procs"
}

# cpu_group_watch NAME PID...: names the processes that stand for a group where there are no cgroups.
cpu_group_watch() {
	local name=$1
	shift
	cpu_groups_pids[$name]=$*
}

# cpu_group_us NAME: CPU time of a group so far, microseconds.
cpu_group_us() {
	local group=$cpu_groups_dir/$1 pid sum=0 own waited
	if [ -n "$cpu_groups_dir" ] && [ -e "$group/cpuacct.usage" ]; then
		echo $(($(<"$group/cpuacct.usage") / 1000))
	elif [ -n "$cpu_groups_dir" ]; then
		awk '$1 == "usage_usec" { print $2 }' "$group/cpu.stat"
	else
		for pid in ${cpu_groups_pids[$1]:-}; do
			for pid in $(cpu_descendants "$pid"); do
				read -r own waited < <(cpu_ticks "$pid") || continue
				sum=$((sum + own + waited))
			done
		done
		echo $((sum * 1000000 / $(getconf CLK_TCK)))
	fi
}

cpu_ticks() { # PID: its own CPU time, and that of children it has waited for, clock ticks; nothing when it is gone
	local rest
	rest=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
	set -- ${rest##*) }
	echo $((${12} + ${13})) $((${14} + ${15}))
}

cpu_descendants() { # PID: it and its live descendants
	local child
	echo "$1"
	for child in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do cpu_descendants "$child"; done
}
