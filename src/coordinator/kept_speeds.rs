//! What the farm taught, for the coordinator's next life: how fast each worker was for each toolchain.
//!
//! Kept is what is usual for a worker, not what the last jobs said: a throttled node may have recovered meanwhile. It is
//! believed about as much as some jobs' word, so that another machine under the same name is learned in a few.
//! Invariant: what was packed comes out again, and nothing else comes out of any bytes but numbers within bounds.

use super::scheduler::Scheduler;
use super::scopes::Scope;
use super::speed::{BANDS, Speed};
use crate::digest::Digest;
use crate::ids::{Name, ToolchainId};
use crate::store::packed::{Packer, Unpacker};

/// Entries kept: each worker that the rules allow for, with sixteen toolchains.
const ENTRIES_MAX: usize = 16 * 4096;
/// Most bytes that [`KeptSpeeds::pack`] makes.
pub const BYTES_MAX: usize = ENTRIES_MAX * ENTRY_BYTES_MAX;
/// A name, an identity, and eight numbers of at most ten bytes.
const ENTRY_BYTES_MAX: usize = 256;
/// Logarithms are kept as whole numbers of this size.
const STEP: f64 = 1e-6;

/// One worker's usual speed for one toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usual {
    /// Power as it was configured, thousandths.
    pub power_milli: u32,
    /// Slots.
    pub slots: u32,
    /// Jobs that it was learned from; at least one.
    pub jobs: u32,
    /// Logarithm of its speed with all slots in use, in millionths.
    pub level: i32,
    /// What fewer jobs bring it, by bands of occupancy, likewise.
    pub bands: [i32; BANDS],
}

/// Speeds of all workers that were ever connected, up to a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptSpeeds(Vec<(Name, Scope, Usual)>);

/// Takes a logarithm into what is kept. Speeds are bounded, so that it fits.
pub(super) fn to_kept(log: f64) -> i32 {
    (log / STEP).round() as i32
}

/// Takes it out.
pub(super) fn from_kept(kept: i32) -> f64 {
    f64::from(kept) * STEP
}

impl KeptSpeeds {
    /// Writes them down.
    pub fn pack(&self) -> Vec<u8> {
        let mut packer = Packer::default();
        packer.number(self.0.len() as u64);
        for (name, scope, usual) in &self.0 {
            packer.bytes(name.as_str().as_bytes());
            packer.number(u64::from(matches!(scope, Scope::Variants(_))));
            packer.raw(scope.toolchain().0.as_bytes());
            for number in [usual.power_milli, usual.slots, usual.jobs] {
                packer.number(u64::from(number));
            }
            for log in std::iter::once(&usual.level).chain(&usual.bands) {
                packer.signed(i64::from(*log));
            }
        }
        packer.finish()
    }

    /// Reads what [`KeptSpeeds::pack`] wrote. `None` for anything else.
    pub fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Unpacker::new(bytes);
        let count = bytes.count().filter(|count| *count <= ENTRIES_MAX)?;
        let entries = (0..count).map(|_| entry(&mut bytes)).collect::<Option<_>>()?;
        bytes.is_empty().then_some(Self(entries))
    }
}

fn entry(bytes: &mut Unpacker<'_>) -> Option<(Name, Scope, Usual)> {
    let name = Name::new(std::str::from_utf8(bytes.bytes()?).ok()?).ok()?;
    let of_variants = bytes.number()?;
    let toolchain = ToolchainId(Digest::from_slice(bytes.raw(size_of::<Digest>())?).ok()?);
    let scope = match of_variants {
        0 => Scope::Own(toolchain),
        1 => Scope::Variants(toolchain),
        _ => return None,
    };
    let mut number = || u32::try_from(bytes.number()?).ok();
    let (power_milli, slots, jobs) = (number()?, number()?, number().filter(|jobs| *jobs > 0)?);
    let mut log = || i32::try_from(bytes.signed()?).ok();
    let level = log()?;
    let mut bands = [0; BANDS];
    for band in &mut bands {
        *band = log()?;
    }
    let usual = Usual {
        power_milli,
        slots,
        jobs,
        level,
        bands,
    };
    Some((name, scope, usual))
}

impl Scheduler {
    /// Returns what has been learned of workers that are connected or were.
    pub fn kept_speeds(&self) -> KeptSpeeds {
        let there = self.workers.values().map(|worker| (&worker.hello.name, &worker.speeds));
        let all = there.chain(&self.remembered);
        let usual = all.flat_map(|(name, speeds)| {
            let usual = speeds
                .iter()
                .filter_map(|(scope, speed)| Some((*scope, speed.usual()?)));
            usual.map(|(scope, usual)| (name.clone(), scope, usual))
        });
        KeptSpeeds(usual.take(ENTRIES_MAX).collect())
    }

    /// Takes what an earlier life learned, as far as its toolchains are still in the catalogue.
    pub(super) fn handle_speeds_kept(&mut self, kept: KeptSpeeds) {
        for (name, scope, usual) in kept.0 {
            if self.remembered.len() >= self.rules.workers_max && !self.remembered.contains_key(&name) {
                continue;
            }
            let Some(supply) = self.supplies.get_mut(&scope) else {
                continue;
            };
            let speeds = self.remembered.entry(name).or_default();
            speeds.entry(scope).or_insert_with(|| {
                let speed = Speed::recalled(usual, self.now);
                supply.pace.add(&speed);
                speed
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(level: i32) -> KeptSpeeds {
        let usual = Usual {
            power_milli: 250,
            slots: 2,
            jobs: 17,
            level,
            bands: [60_000, -40_000, 0],
        };
        let tool = ToolchainId(Digest::of(b"t"));
        let name = |name: &str| Name::new(name).expect("a name");
        KeptSpeeds(vec![
            (name("board"), Scope::Own(tool), usual),
            (name("board"), Scope::Variants(tool), usual),
            (name("pc"), Scope::Own(tool), usual),
        ])
    }

    #[test]
    fn what_is_packed_comes_out_again_and_nothing_else_does() {
        for kept in [KeptSpeeds::default(), sample(-1_386_294), sample(i32::MAX)] {
            let bytes = kept.pack();
            assert_eq!(KeptSpeeds::unpack(&bytes).as_ref(), Some(&kept));
            for end in 0..bytes.len() {
                assert_eq!(KeptSpeeds::unpack(&bytes[..end]), None, "{end} bytes");
            }
        }
        let mut longer = sample(1).pack();
        longer.push(0);
        assert_eq!(KeptSpeeds::unpack(&longer), None);
    }
}
