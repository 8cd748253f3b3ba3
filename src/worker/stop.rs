//! How a job is told to end early, and why.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::job::{Refusal, RefusalKind};

/// One job's stop signal. Clones share it. The first reason given counts.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    reason: Arc<OnceLock<Refusal>>,
}

impl Stop {
    /// Asks the job to end. Asking again changes nothing.
    pub fn stop(&self, kind: RefusalKind, message: impl Into<String>) {
        let message = message.into();
        // A reason that was there first stays.
        let _ = self.reason.set(Refusal { kind, message });
        self.token.cancel();
    }

    /// Returns why, once the job has been asked to end.
    pub async fn stopped(&self) -> Refusal {
        self.token.cancelled().await;
        self.reason().unwrap_or_else(|| Refusal {
            kind: RefusalKind::Busy,
            message: "the job was stopped".to_owned(),
        })
    }

    /// Returns why, if the job has been asked to end.
    pub fn reason(&self) -> Option<Refusal> {
        self.reason.get().cloned()
    }

    /// Waits for `work`, or returns why the job has to end before that.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Refusal> {
        tokio::select! {
            biased;
            refusal = self.stopped() => Err(refusal),
            value = work => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_reason_counts_and_ends_the_wait() {
        let stop = Stop::default();
        assert_eq!(stop.unless_stopped(async { 1 }).await, Ok(1));
        stop.stop(RefusalKind::Unsupported, "first");
        stop.stop(RefusalKind::Fault, "second");
        let refusal = stop
            .unless_stopped(std::future::pending::<()>())
            .await
            .expect_err("stopped");
        assert_eq!(
            (refusal.kind, refusal.message.as_str()),
            (RefusalKind::Unsupported, "first")
        );
    }
}
