//! Jobs and clusters.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Build, Node};

/// A tape of compiles.
#[derive(Debug, Clone, Copy)]
pub struct Tape {
    pub jobs: usize,
    /// Mean work, seconds.
    pub mean: f64,
    /// Client CPU of a job, seconds.
    pub client: f64,
    /// What the agent knows of its jobs.
    pub knows: Knowledge,
    /// Error of predictions: standard deviation of the logarithm.
    pub spread: f64,
}

/// What an agent knows of jobs before they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// It has seen them; predictions are off by the tape's spread.
    Jobs,
    /// What one costs there in the mean, so predictions are all the same.
    Mean,
    /// Other projects, and then what it learns on the way.
    Others,
}

/// How jobs differ: standard deviation of the logarithm of their work. It gives jobs of four to six seconds among 260 of 1.16.
const JOBS_SPREAD: f64 = 0.6;

/// The closures of a kernel's units: some two megabytes, much the same for all, which tells a little of what they cost.
const CLOSURE_BYTES: f64 = 2e6;
const CLOSURE_SPREAD: f64 = 0.25;
const CLOSURE_TELLS: f64 = 0.5;

impl Tape {
    /// Like the kernel's `net/`: 260 jobs of 302 CPU-s, of which make, sh and fixdep take 18 CPU-s on the client.
    pub const NET: Tape = Tape {
        jobs: 260,
        mean: 1.16,
        client: 0.075,
        knows: Knowledge::Jobs,
        spread: 0.2,
    };
    /// The same jobs for an agent that has never seen them, and knows no more than what one costs there in the mean.
    pub const FIRST: Tape = Tape {
        knows: Knowledge::Mean,
        spread: JOBS_SPREAD,
        ..Tape::NET
    };
    /// The same jobs for an agent that has seen but a few small ones of another project.
    pub const NEW: Tape = Tape {
        knows: Knowledge::Others,
        ..Tape::FIRST
    };
    /// The same sort of jobs, five times as many, with a build system that costs less.
    pub const LONG: Tape = Tape {
        jobs: 1300,
        mean: 1.16,
        client: 0.025,
        knows: Knowledge::Jobs,
        spread: 0.2,
    };

    /// The build of this tape with `window` jobs at one time.
    pub fn build(&self, window: usize, seed: u64) -> Build {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let deviates: Vec<f64> = (0..self.jobs).map(|_| normal(&mut random)).collect();
        let work: Vec<f64> = deviates.iter().map(|deviate| (JOBS_SPREAD * deviate).exp()).collect();
        let scale = self.mean * self.jobs as f64 / work.iter().sum::<f64>();
        let work: Vec<f64> = work.into_iter().map(|work| work * scale).collect();
        let predicted = |work: &f64| match self.knows {
            Knowledge::Jobs => work * (self.spread * normal(&mut random)).exp(),
            Knowledge::Mean | Knowledge::Others => scale,
        };
        let predicted = work.iter().map(predicted).collect();
        let mut size_of = |deviate: &f64| {
            let told = CLOSURE_TELLS * deviate + (1.0 - CLOSURE_TELLS * CLOSURE_TELLS).sqrt() * normal(&mut random);
            (CLOSURE_BYTES * (CLOSURE_SPREAD * told).exp()) as u64
        };
        Build {
            predicted,
            closures: deviates.iter().map(&mut size_of).collect(),
            learns: self.knows == Knowledge::Others,
            work,
            spread: self.spread,
            window,
            settled: window,
            client: self.client,
        }
    }
}

/// A normal deviate: the sum of twelve even ones, less six.
fn normal(random: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| random.random_range(0.0..1.0)).sum::<f64>() - 6.0
}

/// The clusters that are measured.
pub mod clusters {
    use super::Node;

    /// The owner's: eight nodes of two slots.
    pub fn equal() -> Vec<Node> {
        vec![Node::new(1.0, 2); 8]
    }

    /// A PC, a laptop and boards.
    pub fn mixed() -> Vec<Node> {
        let powers = [
            (4.0, 4),
            (2.0, 4),
            (1.0, 2),
            (1.0, 2),
            (0.5, 2),
            (0.5, 2),
            (0.25, 2),
            (0.25, 2),
        ];
        powers.map(|(power, slots)| Node::new(power, slots)).to_vec()
    }

    /// The same in trouble from `half` on: two nodes throttled to a third, one killed, one new.
    pub fn troubled(half: f64) -> Vec<Node> {
        let mut nodes = mixed();
        nodes[1].throttled = Some((half, 1.0 / 3.0));
        nodes[2].throttled = Some((half, 1.0 / 3.0));
        nodes[3].dies = half;
        nodes.push(Node {
            joins: half,
            ..Node::new(2.0, 2)
        });
        nodes
    }

    /// The mixed one, said to be all alike.
    pub fn mislabelled() -> Vec<Node> {
        let told = |node| Node { told: 1.0, ..node };
        mixed().into_iter().map(told).collect()
    }

    /// Six boards with two fast cores and four slow ones.
    pub fn big_little() -> Vec<Node> {
        let little = Node {
            with_previous: true,
            ..Node::new(0.5, 4)
        };
        [Node::new(2.0, 2), little].repeat(6)
    }

    /// A hundred and twenty-eight slots.
    pub fn large() -> Vec<Node> {
        vec![Node::new(1.0, 4); 32]
    }
}
