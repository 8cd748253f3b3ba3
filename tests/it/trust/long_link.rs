//! A link that holds every packet for a while and loses some: what the kernel's `netem` does, where a kernel has none.
//!
//! Each end is a TUN device on a host of its own, and a thread for each direction carries packets from one to the other.
//! Which are lost is drawn by a generator that starts alike each time; which packets there are depends on the hosts.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::network::{command_on, on, place};

/// Packets on their way in one direction; beyond, they are lost, as at a router whose queue is full. Some 10 Mbit/s at
/// 100 ms.
const UNDER_WAY_MAX: usize = 1000;
/// A device's packets have 1500 bytes at most.
const PACKET_BYTES_MAX: usize = 2048;
/// How often a thread looks whether the link is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a link does to packets, in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    /// For how long each is held.
    pub delay: Duration,
    /// How many of a hundred are lost.
    pub lost_percent: u32,
}

impl Conditions {
    /// Nothing.
    pub const FINE: Self = Self {
        delay: Duration::ZERO,
        lost_percent: 0,
    };
}

/// The link. Dropping it takes it away.
#[derive(Debug)]
pub struct LongLink {
    shared: Arc<Shared>,
    directions: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    conditions: Mutex<Conditions>,
    carried: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
}

impl LongLink {
    /// Links a host, 10.213.9.2, to the hub, 10.213.9.1, which passes on what is meant for others.
    pub fn between(hub: &Child, far: &Child) -> io::Result<Self> {
        let ends = [tun_on(hub, "l9")?, tun_on(far, "hub0")?];
        let set_up = on(hub, "ip addr add 10.213.9.1/24 dev l9")
            && on(hub, "ip link set l9 up")
            && on(far, "ip addr add 10.213.9.2/24 dev hub0")
            && on(far, "ip link set hub0 up")
            && on(far, "ip route add default via 10.213.9.1")
            && command_on(hub, "sh")
                .args(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
                .status()?
                .success();
        if !set_up {
            return Err(io::Error::other("`ip` fails"));
        }
        let shared = Arc::new(Shared {
            conditions: Mutex::new(Conditions::FINE),
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let [near, far] = ends;
        let ways = [(near.try_clone()?, far.try_clone()?), (far, near)];
        let directions = (0..).zip(ways).map(|(seed, (from, to))| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || carry(&shared, from, to, seed))
        });
        Ok(Self {
            directions: directions.collect(),
            shared,
        })
    }

    /// Changes what happens to packets that come from now on.
    pub fn set(&self, conditions: Conditions) {
        *self.shared.conditions.lock().expect("whole") = conditions;
    }

    /// Returns how many packets were carried, and how many lost.
    pub fn traffic(&self) -> (u64, u64) {
        let Shared { carried, lost, .. } = &*self.shared;
        (carried.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
    }
}

impl Drop for LongLink {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for direction in self.directions.drain(..) {
            let _ = direction.join();
        }
    }
}

/// Makes a TUN device on a host. It is gone when the file is closed.
fn tun_on(host: &Child, name: &str) -> io::Result<File> {
    // A device belongs where the thread is that opens it; that thread does not come back.
    let open = || {
        let there = File::open(place(host))?;
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))?;
        let mut options = File::options();
        let tun = options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let tun = tun.open("/dev/net/tun")?;
        become_device(&tun, name)?;
        Ok(tun)
    };
    std::thread::scope(|scope| scope.spawn(open).join().expect("no panic"))
}

#[expect(unsafe_code, reason = "no safe call names a TUN device")]
fn become_device(tun: &File, name: &str) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI) as i16,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: the kernel reads and writes one `ifreq`, which outlives the call.
    match unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Carries packets in one direction until the link is over.
fn carry(shared: &Shared, mut from: File, mut to: File, seed: u64) {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut packet = [0; PACKET_BYTES_MAX];
    while !shared.over.load(Ordering::Relaxed) {
        let until_next = under_way
            .front()
            .map(|(due, _)| due.saturating_duration_since(Instant::now()));
        wait_for_packet(&from, until_next.map_or(LOOK_EVERY, |next| next.min(LOOK_EVERY)));
        while let Ok(length) = from.read(&mut packet) {
            let Conditions { delay, lost_percent } = *shared.conditions.lock().expect("whole");
            if under_way.len() >= UNDER_WAY_MAX || draw.random_ratio(lost_percent, 100) {
                shared.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            under_way.push_back((Instant::now() + delay, packet[..length].to_vec()));
        }
        while under_way.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let Some((_, packet)) = under_way.pop_front() else {
                break;
            };
            // A device that is down takes none.
            if to.write_all(&packet).is_ok() {
                shared.carried.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn wait_for_packet(from: &File, longest: Duration) {
    let longest = Timespec::try_from(longest).expect("short");
    // Interrupted, the caller looks and comes back.
    let _ = rustix::event::poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&longest));
}
