//! How fresh a look at a file has to be when a job that has run is checked.
//!
//! What counts is that a change between the scan and the compile is seen. A look that was taken while the compiler ran, or
//! later, sees it; what changes after that could have escaped a local compiler as well, which reads a header once. So the
//! looks of one check serve for the next ones whose compiler was running at the time, and a thousand headers are not looked
//! at once more for every object. Invariant: no look that is relied on is older than the start of the compiler.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::includes::source_tree::disk::DiskTree;
use crate::includes::source_tree::{Epoch, SourceTree};

/// However long a compiler ran, looks older than this are not relied on.
const AGE_MAX: Duration = Duration::from_secs(1);

/// The last epoch that was begun for a check, and when.
#[derive(Debug, Default)]
pub struct Rechecks {
    last: Mutex<Option<(Instant, Epoch)>>,
}

impl Rechecks {
    /// Returns an epoch for the check of a job whose compiler ran for `ran` and ended before `now`, its answer having been
    /// waited for since `asked`: the last one if it will do, else a new one of `tree`.
    pub fn epoch(&self, tree: &DiskTree, asked: Instant, ran: Duration, now: Instant) -> Epoch {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((began, epoch)) if began >= oldest(asked, ran, now) => epoch,
            _ => {
                let epoch = tree.begin();
                *last = Some((now, epoch));
                epoch
            }
        }
    }
}

/// The age that looks may have. What a worker says of how long its compiler ran is not relied on beyond what can be.
fn oldest(asked: Instant, ran: Duration, now: Instant) -> Instant {
    let started = now.checked_sub(ran.min(AGE_MAX)).unwrap_or(now);
    started.max(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::includes::source_tree::disk::Bounds;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn looks_serve_jobs_whose_compiler_was_running_then_and_no_others() {
        let tree = DiskTree::new(Bounds::default());
        let rechecks = Rechecks::default();
        let start = Instant::now();
        let at = |ms: u32| start + ms * MS;
        let epoch = |asked: u32, ran: u32, now: u32| rechecks.epoch(&tree, at(asked), ran * MS, at(now));
        let first = epoch(0, 50, 100);
        assert_eq!(epoch(0, 90, 150), first, "its compiler started at 60");
        assert_eq!(epoch(0, 50, 150), first, "its compiler started when the looks began");
        let second = epoch(0, 49, 150);
        assert!(second > first, "its compiler started after the looks");
        assert_eq!(epoch(0, 5000, 1150), second);
        assert!(epoch(0, 5000, 1151) > second, "too old, whatever the worker says");
    }

    #[test]
    fn worker_cannot_have_run_before_it_was_asked() {
        let tree = DiskTree::new(Bounds::default());
        let rechecks = Rechecks::default();
        let start = Instant::now();
        let first = rechecks.epoch(&tree, start, MS, start + 10 * MS);
        assert!(rechecks.epoch(&tree, start + 20 * MS, 100 * MS, start + 30 * MS) > first);
    }
}
