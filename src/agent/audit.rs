//! Which jobs are run a second time on another node to check the first one, and what differing results say.
//!
//! Pure. Bad memory does not announce itself: the node answers in time, and its object is wrong. So a share of all jobs
//! (`audit` in the settings) goes to a second node after its user has the first answer. Where two results differ a third
//! decides: who is alone with its result is the one that is wrong. Without a third nobody is accused. Invariant: all that
//! a job leaves is compared by content, except what it cost.

use crate::digest::{Digest, Hasher};
use crate::job::{JobSpec, Outcome, OutputKind, Status};

/// Draws jobs: each with the same probability, and the same job with the same seed always the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lottery {
    /// Draws below this are audited; 2^64 and more: all.
    below: u128,
    seed: [u8; 32],
}

impl Lottery {
    /// Draws a `share` of jobs, 0.0 to 1.0; beyond counts as the nearer end.
    pub fn new(share: f64, seed: [u8; 32]) -> Self {
        const ALL: f64 = 18_446_744_073_709_551_616.0; // 2^64
        Self {
            below: (share.clamp(0.0, 1.0) * ALL) as u128,
            seed,
        }
    }

    /// Tells whether any job is drawn.
    pub fn is_on(&self) -> bool {
        self.below > 0
    }

    /// Tells whether the job of this key is audited.
    pub fn draws(&self, key: Digest) -> bool {
        let mut text = self.seed.to_vec();
        text.extend_from_slice(key.as_bytes());
        let drawn = u64::from_le_bytes(
            Digest::of(&text).as_bytes()[..8]
                .try_into()
                .expect("a digest has 32 bytes"),
        );
        u128::from(drawn) < self.below
    }
}

/// Returns what tells a job from others: the same for the same command on the same inputs, whose digests are `inputs`.
pub fn key(spec: &JobSpec, inputs: impl Iterator<Item = Digest>) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(spec.toolchain.0.as_bytes());
    let mut word = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    word(spec.cwd.as_os_str().as_encoded_bytes());
    for text in &spec.argv {
        word(text.as_encoded_bytes());
    }
    for digest in inputs {
        word(digest.as_bytes());
    }
    hasher.finish()
}

/// A result, by content: as much as is needed to compare it with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    status: Status,
    stdout: Digest,
    stderr: Digest,
    dependencies: Option<Digest>,
    /// By path: permissions and content; `None`: the job removed what was there.
    files: Vec<(std::path::PathBuf, Option<(u32, Digest)>)>,
}

impl Made {
    /// Takes the digests of what a worker sent. Costs a few milliseconds per megabyte.
    pub fn of(outcome: &Outcome) -> Self {
        let file = |kind: &OutputKind| match kind {
            OutputKind::File { mode, content } => Some((*mode, Digest::of(content))),
            OutputKind::Removed => None,
        };
        let files = outcome.outputs.iter();
        Self {
            status: outcome.status,
            stdout: Digest::of(&outcome.stdout),
            stderr: Digest::of(&outcome.stderr),
            dependencies: outcome.dependencies.as_deref().map(Digest::of),
            files: files.map(|output| (output.path.clone(), file(&output.kind))).collect(),
        }
    }

    /// Names the first difference, if there is any.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.status != other.status {
            return Some(format!("status {:?} and {:?}", self.status, other.status));
        }
        if (self.stdout, self.stderr) != (other.stdout, other.stderr) {
            return Some("other words".to_owned());
        }
        if self.dependencies != other.dependencies {
            return Some("other lists of dependencies".to_owned());
        }
        if self.files.len() != other.files.len() {
            return Some(format!("{} and {} files", self.files.len(), other.files.len()));
        }
        let mut pairs = self.files.iter().zip(&other.files);
        let differing = pairs.find(|(one, other)| one != other);
        differing.map(|(one, _)| format!("`{}` differs", one.0.display()))
    }
}

/// What an audit found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both results are the same.
    Same,
    /// The first node is alone with its result, so the user has a wrong one.
    FirstWrong,
    /// The second node is alone with its result.
    SecondWrong,
    /// They differ, and nobody can tell who is wrong.
    Undecided,
}

/// Judges two results, and a third where there is one.
pub fn judge(first: &Made, second: &Made, third: Option<&Made>) -> Verdict {
    if first == second {
        return Verdict::Same;
    }
    match third {
        Some(third) if third == first => Verdict::SecondWrong,
        Some(third) if third == second => Verdict::FirstWrong,
        _ => Verdict::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Output, Usage};

    fn outcome(status: u8, stderr: &str, object: &[u8]) -> Outcome {
        Outcome {
            status: Status::Exited(status),
            stdout: Vec::new(),
            stderr: stderr.into(),
            outputs: vec![Output {
                path: "/a.o".into(),
                kind: OutputKind::File {
                    mode: 0o644,
                    content: object.to_vec(),
                },
            }],
            dependencies: Some(b"a.o: a.c".to_vec()),
            usage: Usage::default(),
        }
    }

    #[test]
    fn share_of_jobs_is_drawn_whatever_the_seed_and_always_the_same_ones() {
        for (share, least, most) in [(0.0, 0, 0), (0.01, 60, 140), (0.5, 4800, 5200), (1.0, 10_000, 10_000)] {
            for seed in 0..5 {
                let lottery = Lottery::new(share, [seed; 32]);
                let drawn = || (0..10_000_u32).map(|job| lottery.draws(Digest::of(&job.to_le_bytes())));
                let count = drawn().filter(|drawn| *drawn).count();
                assert!((least..=most).contains(&count), "{share} {seed}: {count}");
                assert!(drawn().eq(drawn()));
                assert_eq!(lottery.is_on(), share > 0.0);
            }
        }
        let (one, other) = (Lottery::new(0.5, [1; 32]), Lottery::new(0.5, [2; 32]));
        let differ = (0..64_u8).any(|job| one.draws(Digest::of(&[job])) != other.draws(Digest::of(&[job])));
        assert!(differ, "another seed draws other jobs");
    }

    #[test]
    fn every_difference_counts_but_the_cost() {
        let first = Made::of(&outcome(0, "", b"x"));
        let mut dearer = outcome(0, "", b"x");
        dearer.usage.memory_peak_bytes = 1;
        assert_eq!(first.difference(&Made::of(&dearer)), None);
        let mut listless = outcome(0, "", b"x");
        listless.dependencies = None;
        let mut readable = outcome(0, "", b"x");
        readable.outputs[0].kind = OutputKind::File {
            mode: 0o600,
            content: b"x".to_vec(),
        };
        let mut removed = outcome(0, "", b"x");
        removed.outputs[0].kind = OutputKind::Removed;
        let mut fuller = outcome(0, "", b"x");
        fuller.outputs.push(fuller.outputs[0].clone());
        for (other, expected) in [
            (outcome(1, "", b"x"), "status"),
            (outcome(0, "warning", b"x"), "words"),
            (outcome(0, "", b"y"), "`/a.o`"),
            (listless, "dependencies"),
            (readable, "`/a.o`"),
            (removed, "`/a.o`"),
            (fuller, "1 and 2 files"),
        ] {
            let found = first.difference(&Made::of(&other)).unwrap();
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn who_is_alone_is_wrong_and_without_a_third_nobody_is() {
        let [x, y, z] = [b"x", b"y", b"z"].map(|object| Made::of(&outcome(0, "", object)));
        for (first, second, third, expected) in [
            (&x, &x, None, Verdict::Same),
            (&x, &y, None, Verdict::Undecided),
            (&x, &y, Some(&x), Verdict::SecondWrong),
            (&x, &y, Some(&y), Verdict::FirstWrong),
            (&x, &y, Some(&z), Verdict::Undecided),
        ] {
            assert_eq!(judge(first, second, third), expected);
        }
    }
}
