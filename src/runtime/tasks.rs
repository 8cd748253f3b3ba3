//! Tasks with an owner: whoever starts one also waits for it.
//!
//! A [`Tasks`] hands out one cancellation signal to all it started, and [`Tasks::shut_down`] returns only when they
//! have ended or the grace period has. Invariant: no task outlives its owner's shutdown unnoticed.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of running tasks.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancelled: CancellationToken,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All tasks ended by themselves.
    Cleanly,
    /// This many were still running when the grace period was over.
    Abandoned(usize),
}

impl Tasks {
    /// Starts a set that is cancelled together with this one, but can be cancelled alone.
    pub fn child(&self) -> Tasks {
        Tasks {
            tracker: self.tracker.clone(),
            cancelled: self.cancelled.child_token(),
        }
    }

    /// Starts a task. It should watch [`Tasks::cancelled`] itself, so that it can end in order.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Starts a task that is dropped where it stands when the set is cancelled.
    pub fn spawn_until_cancelled<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancelled = self.cancelled.clone();
        self.tracker.spawn(async move {
            cancelled.run_until_cancelled_owned(task).await;
        });
    }

    /// Runs `work` on a thread where it may block. How many run at once is bounded by the runtime's blocking pool.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let handle = self.tracker.spawn_blocking(work);
        match handle.await {
            Ok(value) => value,
            Err(stopped) => std::panic::resume_unwind(stopped.into_panic()),
        }
    }

    /// Asks all tasks to end.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Returns when the tasks have been asked to end.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Returns the signal itself, for parts that pass it on.
    pub fn token(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Asks all tasks to end and waits for them, at most for `grace`.
    pub async fn shut_down(&self, grace: Duration) -> Ended {
        self.cancel();
        self.tracker.close();
        match tokio::time::timeout(grace, self.tracker.wait()).await {
            Ok(()) => Ended::Cleanly,
            Err(_) => Ended::Abandoned(self.tracker.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shutdown_waits_for_tasks_that_watch_the_signal() {
        let tasks = Tasks::default();
        let seen = tasks.clone();
        tasks.spawn(async move { seen.cancelled().await });
        tasks.spawn_until_cancelled(std::future::pending());
        assert_eq!(tasks.shut_down(Duration::from_secs(60)).await, Ended::Cleanly);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_names_what_would_not_end() {
        let tasks = Tasks::default();
        tasks.spawn(std::future::pending());
        assert_eq!(tasks.shut_down(Duration::from_secs(1)).await, Ended::Abandoned(1));
    }
}
