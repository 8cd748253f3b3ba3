//! Which content one link's jobs wait for, and which of them has asked for it.
//!
//! Content that several jobs of a link lack is asked for once, in the name of the first. When that job ends before the
//! content has come, it is asked for again in the name of another. Invariant: content that some job waits for has been
//! asked for in the name of a job that still waits.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::ids::JobId;

/// One input whose content a job lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// Its number on the link.
    pub number: u32,
    /// Its content.
    pub digest: Digest,
    /// Length of the content, bytes.
    pub size: u64,
}

/// Inputs to be asked for in the name of a job; ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The job.
    pub job: JobId,
    /// Numbers of its inputs.
    pub numbers: Vec<u32>,
}

#[derive(Debug)]
struct Wanted {
    size: u64,
    /// Who waits, and the input's number for it; the first has asked.
    waiting: Vec<(JobId, u32)>,
}

/// What a link waits for.
#[derive(Debug, Default)]
pub struct Transfers {
    wanted: BTreeMap<Digest, Wanted>,
    /// How much each job still waits for.
    jobs: BTreeMap<JobId, usize>,
}

impl Transfers {
    /// Notes what a job lacks; returns the part that has not been asked for. A job has one such list at a time.
    pub fn want(&mut self, job: JobId, lacking: &[Lacking]) -> Vec<u32> {
        let mut ask = Vec::new();
        for input in lacking {
            let wanted = self.wanted.entry(input.digest).or_insert_with(|| Wanted {
                size: input.size,
                waiting: Vec::new(),
            });
            // One content at two paths is needed once.
            if wanted.waiting.iter().any(|(waiting, _)| *waiting == job) {
                continue;
            }
            if wanted.waiting.is_empty() {
                ask.push(input.number);
            }
            wanted.waiting.push((job, input.number));
            *self.jobs.entry(job).or_default() += 1;
        }
        ask.sort_unstable();
        ask
    }

    /// Returns the length of content that is waited for; nothing for any other.
    pub fn expected(&self, digest: &Digest) -> Option<u64> {
        self.wanted.get(digest).map(|wanted| wanted.size)
    }

    /// Takes content as arrived; returns the jobs that now have all they waited for.
    pub fn arrived(&mut self, digest: &Digest) -> Vec<JobId> {
        let mut ready = Vec::new();
        for (job, _) in self
            .wanted
            .remove(digest)
            .map(|wanted| wanted.waiting)
            .unwrap_or_default()
        {
            let Some(left) = self.jobs.get_mut(&job) else { continue };
            *left -= 1;
            if *left == 0 {
                self.jobs.remove(&job);
                ready.push(job);
            }
        }
        ready
    }

    /// Returns the jobs that wait for content which cannot be had; each has to be ended with [`Transfers::ended`].
    pub fn waiting_for(&self, digest: &Digest) -> Vec<JobId> {
        let waiting = self.wanted.get(digest).map(|wanted| wanted.waiting.as_slice());
        waiting.unwrap_or_default().iter().map(|(job, _)| *job).collect()
    }

    /// Takes a job as ended, for whatever reason; returns what others must now ask for.
    pub fn ended(&mut self, job: JobId) -> Vec<Ask> {
        if self.jobs.remove(&job).is_none() {
            return Vec::new();
        }
        let mut asks = BTreeMap::<JobId, Vec<u32>>::new();
        self.wanted.retain(|_, wanted| {
            let asked = wanted.waiting.first().is_some_and(|(first, _)| *first == job);
            wanted.waiting.retain(|(waiting, _)| *waiting != job);
            if asked && let Some((next, number)) = wanted.waiting.first() {
                asks.entry(*next).or_default().push(*number);
            }
            !wanted.waiting.is_empty()
        });
        let sorted = |mut numbers: Vec<u32>| {
            numbers.sort_unstable();
            numbers
        };
        asks.into_iter()
            .map(|(job, numbers)| Ask {
                job,
                numbers: sorted(numbers),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(list: &[(u32, &[u8])]) -> Vec<Lacking> {
        let input = |(number, content): &(u32, &[u8])| Lacking {
            number: *number,
            digest: Digest::of(content),
            size: content.len() as u64,
        };
        list.iter().map(input).collect()
    }

    #[test]
    fn content_that_two_jobs_lack_is_asked_for_once() {
        let mut transfers = Transfers::default();
        assert_eq!(
            transfers.want(JobId(1), &lacking(&[(4, b"x"), (2, b"y"), (3, b"y")])),
            [2, 4]
        );
        assert_eq!(transfers.want(JobId(2), &lacking(&[(2, b"y"), (5, b"z")])), [5]);
        assert_eq!(transfers.expected(&Digest::of(b"y")), Some(1));
        assert_eq!(transfers.arrived(&Digest::of(b"y")), []);
        assert_eq!(transfers.arrived(&Digest::of(b"z")), [JobId(2)]);
        assert_eq!(transfers.arrived(&Digest::of(b"x")), [JobId(1)]);
        assert_eq!(transfers.expected(&Digest::of(b"y")), None);
    }

    #[test]
    fn next_job_asks_when_the_first_ends_early() {
        let mut transfers = Transfers::default();
        transfers.want(JobId(1), &lacking(&[(1, b"x"), (2, b"y")]));
        transfers.want(JobId(2), &lacking(&[(7, b"x"), (8, b"z")]));
        assert_eq!(transfers.waiting_for(&Digest::of(b"x")), [JobId(1), JobId(2)]);
        let numbers = vec![7];
        assert_eq!(transfers.ended(JobId(1)), [Ask { job: JobId(2), numbers }]);
        assert_eq!(transfers.expected(&Digest::of(b"y")), None);
        assert_eq!(transfers.ended(JobId(2)), []);
        assert!(transfers.wanted.is_empty() && transfers.jobs.is_empty());
    }
}
