//! One build as an agent saw it: what it cost, how soon it could have been done, and each of its jobs.
//!
//! Plain data and arithmetic. `rdcc stats` shows the [`BuildSummary`], `rdcc trace` writes the [`BuildTrace`]. The field
//! names of the summary are keys of `rdcc stats --json`, a contract. Times are microseconds.

use serde::{Deserialize, Serialize};

use super::record::{Phase, Ran};

/// Longest jobs that are kept for the bound; more slots than that, and the area says more.
pub const LONGEST_MAX: usize = 128;

/// What a build cost, and the least that it could have taken.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildSummary {
    /// When its first job came, milliseconds since 1970.
    pub began_unix_ms: u64,
    /// From its first job's beginning to its last one's end.
    pub wall_us: u64,
    /// Jobs. Called otherwise than the counters beside it, so that a script that looks for those finds one of each.
    #[serde(rename = "build_jobs")]
    pub jobs: u64,
    /// Those that workers ran.
    #[serde(rename = "build_remote")]
    pub remote: u64,
    /// Work of all compiles that could be distributed, time on a reference core.
    pub work_us: u64,
    /// CPU time of this machine meanwhile, whatever for, without compiles that it took by choice.
    pub client_cpu_us: u64,
    /// Bytes sent to workers and received from them.
    pub bytes: u64,
    /// What nobody could have been quicker than.
    pub bound: Bound,
    /// `wall_us` over the greatest part of `bound`, thousandths; 0 when there is no bound.
    pub wall_over_bound_milli: u64,
}

/// Lower bounds of a build's duration, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bound {
    /// All work, spread over all slots; where this machine's cores are among them, with what it had to do besides.
    pub area_us: u64,
    /// The longest jobs on the fastest slots.
    pub longest_us: u64,
    /// What this machine had to do besides compiling, on its own cores.
    pub client_us: u64,
    /// All bytes at the greatest speed that was seen; 0 when none was.
    pub network_us: u64,
}

impl Bound {
    /// Returns the greatest, with its name.
    pub fn greatest(&self) -> (&'static str, u64) {
        let parts = [
            ("work over all slots", self.area_us),
            ("longest jobs on fastest slots", self.longest_us),
            ("this machine's own work", self.client_us),
            ("network", self.network_us),
        ];
        parts
            .into_iter()
            .max_by_key(|(_, time)| *time)
            .expect("there are four parts")
    }
}

/// What bounds a build.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// Work of the longest jobs, longest first.
    pub longest_us: &'a [u64],
    /// Power of each slot, this machine's cores included where they compile: work per second.
    pub slots: &'a [f64],
    /// Cores of this machine.
    pub cores: u32,
    /// Power of one of them; none where they are not among the slots.
    pub power_here: Option<f64>,
    /// Least time that the network can have taken, microseconds.
    pub network_us: u64,
}

impl BuildSummary {
    /// Works the bound out, with everything else in place.
    pub fn set_bound(&mut self, means: &Means<'_>) {
        let mut slots = means.slots.to_vec();
        slots.sort_by(|one, other| other.total_cmp(one));
        let all: f64 = slots.iter().sum();
        let over = |work: f64, power: f64| if power > 0.0 { (work / power) as u64 } else { 0 };
        let client = self.client_cpu_us as f64;
        let (mut work, mut power, mut longest) = (0.0, 0.0, 0);
        for (job, slot) in means.longest_us.iter().zip(&slots) {
            work += *job as f64;
            power += slot;
            longest = longest.max(over(work, power));
        }
        self.bound = Bound {
            area_us: over(self.work_us as f64 + client * means.power_here.unwrap_or(0.0), all),
            longest_us: longest,
            client_us: over(client, f64::from(means.cores)),
            network_us: means.network_us,
        };
        self.wall_over_bound_milli = match self.bound.greatest().1 {
            0 => 0,
            bound => self.wall_us.saturating_mul(1000) / bound,
        };
    }
}

/// A build, job by job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildTrace {
    /// All of it.
    pub summary: BuildSummary,
    /// Its jobs, in the order of their ends.
    pub jobs: Vec<TracedJob>,
    /// Jobs that are not in the list, which is bounded.
    pub left_out: u64,
}

/// One job of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedJob {
    /// What was compiled, made printable.
    pub source: String,
    /// When it came, since the build's beginning.
    pub began_us: u64,
    /// What it went through, one after the other.
    pub phases: Vec<Phase>,
    /// Where it ran.
    pub ran: Ran,
    /// Whether the compiler reported success, where that is known.
    pub success: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(work_s: u64, client_s: u64, wall_s: u64) -> BuildSummary {
        BuildSummary {
            work_us: work_s * 1_000_000,
            client_cpu_us: client_s * 1_000_000,
            wall_us: wall_s * 1_000_000,
            bytes: 10_000_000,
            ..BuildSummary::default()
        }
    }

    #[test]
    fn each_bound_is_what_it_says() {
        let slots = [1.0; 18];
        let means = |longest_us| Means {
            longest_us,
            slots: &slots,
            cores: 2,
            power_here: Some(1.0),
            network_us: 10_000_000,
        };
        let mut kernel = summary(302, 18, 20);
        kernel.set_bound(&means(&[6_000_000, 5_000_000]));
        assert_eq!(
            kernel.bound,
            Bound {
                area_us: 17_777_777,
                longest_us: 6_000_000,
                client_us: 9_000_000,
                network_us: 10_000_000,
            }
        );
        assert_eq!(kernel.wall_over_bound_milli, 1125);
        let mut tail = summary(30, 1, 20);
        tail.set_bound(&means(&[20_000_000]));
        assert_eq!(tail.bound.greatest(), ("longest jobs on fastest slots", 20_000_000));
        let mut nothing = BuildSummary::default();
        nothing.set_bound(&Means {
            longest_us: &[],
            slots: &[],
            cores: 0,
            power_here: Some(1.0),
            network_us: 0,
        });
        assert_eq!(nothing.wall_over_bound_milli, 0);
    }

    #[test]
    fn two_long_jobs_share_two_unlike_slots() {
        let mut two = summary(16, 0, 10);
        two.set_bound(&Means {
            longest_us: &[8_000_000, 8_000_000],
            slots: &[1.0, 4.0],
            cores: 0,
            power_here: Some(1.0),
            network_us: 0,
        });
        // One after the other on the fast slot takes 4 s, and 3.2 s is what nobody can beat.
        assert_eq!(two.bound.longest_us, 3_200_000);
    }
}
