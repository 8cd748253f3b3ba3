//! How fast one core of this node is, against one reference core.
//!
//! The work is the kind a compiler does: hashing short names into a table, chasing pointers through a tree of some
//! megabytes, branching on what is found. One reference core, power 1.0, does [`REFERENCE_ROUNDS_PER_SECOND`] rounds of it.
//! That figure sets the unit and nothing else, since only ratios between nodes matter, and placement learns the rest.
//! Measured in CPU time, so that a busy node does not
//! look slow, once per (CPU model, program version): `bin/` keeps the answer.

use std::time::Duration;

use rustix::thread::CpuSet;

use super::cores::CpuList;

/// Rounds that the reference core does in a second of CPU time: one core of a virtual machine on an AMD EPYC with 1 MB of
/// second-level cache, shared with other work at the time. Nine runs of a release build gave 31 to 47; this is their median.
pub const REFERENCE_ROUNDS_PER_SECOND: f64 = 40.0;
/// CPU time that a measurement may take.
const MEASURE_FOR: Duration = Duration::from_millis(1500);
/// Names in the table: with their nodes some 6 MB, more than the second-level cache of a board, as a compiler's are.
const NAMES: usize = 1 << 16;

struct Node {
    name: [u8; 16],
    left: u32,
    right: u32,
    seen: u64,
}

/// A small symbol table; the same on every node.
struct Work {
    nodes: Vec<Node>,
    random: u64,
}

impl Work {
    fn new() -> Self {
        let mut work = Self {
            nodes: Vec::with_capacity(NAMES + 1),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        work.nodes.push(Node {
            name: [0x80; 16],
            left: 0,
            right: 0,
            seen: 0,
        });
        for _ in 0..NAMES {
            let name = work.next_name(usize::MAX);
            work.find_or_add(name);
        }
        work
    }

    /// xorshift64*: any generator would do that every node computes alike.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn next_name(&mut self, of: usize) -> [u8; 16] {
        let seed = if of == usize::MAX {
            self.next_random()
        } else {
            of as u64
        };
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut name = [0; 16];
        for (index, byte) in name.iter_mut().enumerate() {
            hash = (hash ^ (seed >> (index % 8 * 8)) & 0xff).wrapping_mul(0x0100_0000_01b3);
            *byte = (hash >> 32) as u8;
        }
        name
    }

    fn find_or_add(&mut self, name: [u8; 16]) -> u64 {
        let mut at = 0;
        loop {
            let node = &mut self.nodes[at];
            let next = match name.cmp(&node.name) {
                std::cmp::Ordering::Equal => {
                    node.seen += 1;
                    return node.seen;
                }
                std::cmp::Ordering::Less => &mut node.left,
                std::cmp::Ordering::Greater => &mut node.right,
            };
            if *next != 0 {
                at = *next as usize;
                continue;
            }
            if self.nodes.len() > NAMES {
                return 0;
            }
            let added = self.nodes.len() as u32;
            let node = &mut self.nodes[at];
            *(if name < node.name {
                &mut node.left
            } else {
                &mut node.right
            }) = added;
            self.nodes.push(Node {
                name,
                left: 0,
                right: 0,
                seen: 1,
            });
            return 1;
        }
    }

    /// One round: look up as many names as the table has. Returns a sum so that nothing is optimised away.
    fn round(&mut self) -> u64 {
        let mut sum = 0_u64;
        for number in 0..NAMES {
            let name = self.next_name(usize::MAX);
            sum = sum
                .wrapping_add(self.find_or_add(name))
                .rotate_left((number % 63) as u32);
        }
        sum
    }
}

/// Measures this machine, or some of its cores. Takes some two seconds on one core.
pub fn measure(cpus: Option<&CpuList>) -> f64 {
    let Some(cpus) = cpus else { return measured() };
    let mut set = CpuSet::new();
    cpus.numbers().for_each(|cpu| set.set(usize::from(cpu)));
    std::thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            // Settings name only processors that this program may use; one switched off since is no reason not to start.
            if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
                tracing::warn!(%cpus, %error, "cannot measure on these processors; measuring on any");
            }
            measured()
        });
        measuring
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measured() -> f64 {
    let mut work = Work::new();
    let begin = cpu_time();
    let mut rounds = 0_u32;
    loop {
        std::hint::black_box(work.round());
        rounds += 1;
        let spent = cpu_time().saturating_sub(begin);
        if spent >= MEASURE_FOR {
            return f64::from(rounds) / spent.as_secs_f64() / REFERENCE_ROUNDS_PER_SECOND;
        }
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_does_the_same_work() {
        let mut work = Work::new();
        assert_eq!(work.nodes.len(), NAMES + 1);
        let sum = work.round();
        let mut again = Work::new();
        assert_eq!(again.round(), sum);
    }
}
