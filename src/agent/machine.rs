//! What the kernel tells about this machine: time spent, memory, and the memory of one process and its children.
//!
//! Reads `/proc` and decides nothing. What cannot be read is told as unknown.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::local_room::Memory;
use super::local_share::Reading;

/// Deepest tree of children that is followed: a driver, its `collect2`, its `ld`, and scripts around them.
const CHILDREN_DEPTH: u32 = 6;

/// Reads the counters of processor time, and the memory that is left.
pub fn reading() -> Option<Reading> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let mut reading = parse_stat(&text)?;
    reading.memory_available = memory().map(|memory| memory.available);
    Some(reading)
}

/// Reads how much memory there is.
pub fn memory() -> Option<Memory> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// Returns the peak memory of a process and all below it, bytes; 0 when it is gone.
pub fn memory_of_tree(pid: u32) -> u64 {
    let mut sum = 0;
    let mut level = vec![pid];
    for _ in 0..CHILDREN_DEPTH {
        let mut next = Vec::new();
        for pid in level {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            sum += field_kb(&status, "VmHWM:").unwrap_or(0) << 10;
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            next.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        level = next;
    }
    sum
}

/// Returns the CPU time of this machine that went into anything, all processors together, since it booted.
pub fn cpu_time() -> Option<Duration> {
    let reading = parse_stat(&std::fs::read_to_string("/proc/stat").ok()?)?;
    Some(reading.busy + reading.niced)
}

/// Tells whether `ADDRESS:PORT` is an address of this machine (and of this network name space).
pub fn owns_address(address: &str) -> bool {
    // The kernel lets a socket be bound to an address of its own only.
    let ours = |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok();
    address.parse::<SocketAddr>().is_ok_and(|address| ours(address.ip()))
}

fn parse_stat(text: &str) -> Option<Reading> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    // user, nice, system, idle, iowait, irq, softirq, steal
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = *ticks.first_chunk::<8>()?;
    let time = |ticks: u64| Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second));
    Some(Reading {
        busy: time(user + system + irq + softirq + steal),
        niced: time(nice),
        memory_available: None,
    })
}

fn parse_meminfo(text: &str) -> Option<Memory> {
    Some(Memory {
        total: field_kb(text, "MemTotal:")? << 10,
        available: field_kb(text, "MemAvailable:")? << 10,
    })
}

fn field_kb(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_understood() {
        let text = "cpu  100 20 30 4000 5 6 7 8 0 0\ncpu0 1 2 3\n";
        let reading = parse_stat(text).unwrap();
        let tick = Duration::from_nanos(1_000_000_000 / rustix::param::clock_ticks_per_second());
        assert_eq!((reading.busy, reading.niced), (tick * 151, tick * 20));
        let memory = parse_meminfo("MemTotal:  1024 kB\nMemFree: 1 kB\nMemAvailable:   512 kB\n").unwrap();
        assert_eq!((memory.total, memory.available), (1 << 20, 512 << 10));
        for text in ["", "cpu", "cpu  1 2 3\n", "intr 1 2\n"] {
            assert_eq!(parse_stat(text), None, "{text:?}");
        }
        assert_eq!(parse_meminfo("MemTotal: 3 kB\n"), None);
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        let rows = [
            ("127.0.0.1:9", true),
            ("[::ffff:127.0.0.1]:9", true),
            ("192.0.2.1:9", false),
            ("a20:9", false),
        ];
        for (address, expected) in rows {
            assert_eq!(owns_address(address), expected, "{address}");
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(reading().is_some_and(|reading| reading.busy > Duration::ZERO));
        assert!(memory_of_tree(std::process::id()) > 1 << 20);
        assert_eq!(memory_of_tree(u32::MAX), 0);
    }
}
