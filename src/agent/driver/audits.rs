//! Runs drawn jobs again on another node, behind the user's back, and tells what came of it.
//!
//! What is compared and who is wrong is decided in `audit`. The user's compile has its answer before its audit begins;
//! the second run is served by the coordinator after all jobs that somebody waits for, or like one of them once it has
//! waited for [`PATIENCE`]. It gets the same inputs, by digest: where a file has changed since, there is nothing to compare
//! and the audit counts as skipped. Invariant: at most [`AUDITS_MAX`] wait or run at any time, and each that was drawn is
//! counted once, as audited or as skipped, unless the agent ends first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Driver;
use crate::agent::audit::{self, Lottery, Made, Verdict};
use crate::agent::fallback::Reason;
use crate::agent::farm::{Farm, Placed, Want};
use crate::agent::job::Job;
use crate::agent::ledger::Ledger;
use crate::agent::placing::Reach;
use crate::agent::preparation::{Prepared, Trouble};
use crate::agent::race;
use crate::agent::watch::Watch;
use crate::digest::Digest;
use crate::exchange::{AuditNote, Counters};
use crate::ids::Name;
use crate::job::{InputKind, Outcome};
use crate::runtime::clock::unix_ms;
use crate::runtime::tasks::Tasks;

/// Audits under way at one time. What waits holds a job's description and, in mode B, its text of some megabytes.
const AUDITS_MAX: usize = 64;

/// How long an audit gives way to every job that somebody waits for. A node that makes wrong objects should not do so for as
/// long as the farm is full.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The way to the audits.
#[derive(Debug)]
pub struct Auditor<F> {
    lottery: Lottery,
    room: Arc<Semaphore>,
    parts: Parts<F>,
}

#[derive(Debug)]
struct Parts<F> {
    farm: Arc<F>,
    ledger: Arc<Ledger>,
    watch: Watch,
    tasks: Tasks,
}

/// A job that was drawn, with its first result.
#[derive(Debug)]
pub struct Sample {
    prepared: Arc<Prepared>,
    made: Made,
    made_unix_ms: u64,
    worker: Name,
    want: Want,
}

impl<F: Farm> Auditor<F> {
    /// Draws by `lottery` and runs what is drawn on `farm`.
    pub fn new(lottery: Lottery, farm: Arc<F>, ledger: Arc<Ledger>, watch: Watch, tasks: &Tasks) -> Self {
        Self {
            lottery,
            room: Arc::new(Semaphore::new(AUDITS_MAX)),
            parts: Parts {
                farm,
                ledger,
                watch,
                tasks: tasks.clone(),
            },
        }
    }

    /// Runs a sample elsewhere, as soon as there is a place. Returns at once.
    pub(super) fn audit(&self, sample: Sample) {
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return self.parts.skipped("too many audits are under way", &sample);
        };
        let parts = self.parts.clone();
        self.parts.tasks.spawn_until_cancelled(async move {
            let _permit = permit;
            parts.audit(sample).await;
        });
    }
}

// Derived, it would ask for a farm that can be cloned.
impl<F> Clone for Parts<F> {
    fn clone(&self) -> Self {
        Self {
            farm: self.farm.clone(),
            ledger: self.ledger.clone(),
            watch: self.watch.clone(),
            tasks: self.tasks.clone(),
        }
    }
}

impl<F> Parts<F> {
    fn skipped(&self, why: &str, sample: &Sample) {
        tracing::debug!(worker = %sample.worker, object = %sample.object(), why, "a job is not audited");
        self.ledger.add(&Counters {
            audit_skipped: 1,
            ..Counters::default()
        });
    }
}

impl<F: Farm> Parts<F> {
    async fn audit(&self, sample: Sample) {
        let (worker, made) = match self.run_without(&sample, [&sample.worker]).await {
            Ok(second) => second,
            Err(trouble) => return self.skipped(&format!("{}: {}", trouble.reason, trouble.note), &sample),
        };
        let (made_unix_ms, second_unix_ms) = (sample.made_unix_ms, unix_ms());
        let Some(difference) = sample.made.difference(&made) else {
            self.good(&sample.worker, made_unix_ms);
            self.good(&worker, second_unix_ms);
            return self.ledger.add(&Counters {
                audited: 1,
                ..Counters::default()
            });
        };
        self.ledger.add(&Counters {
            audited: 1,
            audit_differed: 1,
            ..Counters::default()
        });
        let third = self.run_without(&sample, [&sample.worker, &worker]).await;
        let third = third
            .inspect_err(|trouble| tracing::info!(%trouble.note, "no third node judges an audit"))
            .ok();
        let verdict = audit::judge(&sample.made, &made, third.as_ref().map(|(_, made)| made));
        let what = self.tell(&sample, &worker, &difference, verdict);
        match verdict {
            Verdict::FirstWrong => self.wrong(&sample.worker, made_unix_ms, what),
            Verdict::SecondWrong => self.wrong(&worker, second_unix_ms, what),
            Verdict::Same | Verdict::Undecided => {}
        }
    }

    fn good(&self, node: &Name, made_unix_ms: u64) {
        let node = node.to_string();
        self.ledger.note_audit(AuditNote::Good { node, made_unix_ms });
    }

    /// Has a node put in quarantine, and its objects remembered that nobody has confirmed.
    fn wrong(&self, node: &Name, made_unix_ms: u64, what: String) {
        self.farm.accuse(node, &what);
        self.ledger.note_audit(AuditNote::Wrong {
            node: node.to_string(),
            made_unix_ms,
            found_unix_ms: unix_ms(),
            what,
        });
    }

    /// Runs a sample at a node that is none of these. Returns the node, and what it made.
    async fn run_without<const N: usize>(&self, sample: &Sample, avoid: [&Name; N]) -> Result<(Name, Made), Trouble> {
        let mut want = sample.want.clone();
        want.ask.avoid = avoid.into_iter().cloned().collect();
        let Placed::There(place) = place(&*self.farm, want).await? else {
            return Err(super::out_of_turn());
        };
        let worker = Name::new(F::worker(&place)).map_err(|error| Trouble::new(Reason::Internal, error))?;
        let ran = self
            .farm
            .run(place, sample.prepared.clone(), || sample.want.ask.prediction)
            .await?;
        let made = self.tasks.blocking(move || Made::of(&ran.outcome)).await;
        Ok((worker, made))
    }

    /// Tells the user. Returns what was found.
    fn tell(&self, sample: &Sample, second: &Name, difference: &str, verdict: Verdict) -> String {
        let (first, object) = (&sample.worker, sample.object());
        let both = format!("an audit of {object} found other results on `{first}` and `{second}` ({difference})");
        let hint = |node: &Name| {
            format!(
                "it gets no more jobs; `rdcc audit` lists what it made since it was last known to be right, to be compiled \
                 again; check its memory and disk, then `rdcc drain {node} --off`"
            )
        };
        let (what, hint) = match verdict {
            Verdict::FirstWrong => (
                format!("{both}: a third node agrees with `{second}`, so the object from `{first}` is wrong"),
                hint(first),
            ),
            Verdict::SecondWrong => (
                format!("{both}: a third node agrees with `{first}`, so `{second}` is wrong, this object is right"),
                hint(second),
            ),
            Verdict::Same | Verdict::Undecided => (
                format!("{both}, and no third node could decide"),
                "compile it again with RDCC_DISABLE=1 to see which is right, and `rdcc drain` the other node"
                    .to_owned(),
            ),
        };
        self.watch.remark(&what, Some(&hint));
        what
    }
}

/// Finds a place that nobody waits for, or else one like any job's.
pub(super) async fn place<F: Farm>(farm: &F, mut want: Want) -> Result<Placed<F::Place>, Trouble> {
    if let Ok(placed) = tokio::time::timeout(PATIENCE, farm.place(want.clone())).await {
        return placed;
    }
    want.ask.reach = Reach::Workers;
    farm.place(want).await
}

impl Sample {
    fn object(&self) -> String {
        format!("`{}`", self.prepared.expected.object.display())
    }
}

impl<F: Farm> Driver<F> {
    /// Takes a job's first result along when the job is drawn and can be compared at all.
    pub(super) async fn sample(&self, job: &mut Job<F::Place>, outcome: Outcome) -> Outcome {
        job.sample = None;
        if !self.auditor.lottery.is_on() || job.request.worker.is_some() {
            return outcome;
        }
        let repeatable = |command: &crate::compile::CompileCommand| race::is_repeatable(command.facts.features);
        let (Some(prepared), Some(traits), Some(prediction), Some(worker)) = (
            // The second run of a job on a variant would have to be on the same one.
            job.running().filter(|prepared| prepared.run_as.is_none()),
            job.traits.as_ref(),
            job.prediction,
            Name::new(&job.worker).ok(),
        ) else {
            return outcome;
        };
        if !job.command.as_deref().is_some_and(repeatable) {
            return outcome;
        }
        let want = self.want(traits, prediction, Reach::Chosen);
        let lottery = self.auditor.lottery;
        let take = move || {
            let content = prepared.inputs.refs.iter().filter_map(|input| match input.kind {
                InputKind::File { digest, .. } => Some(digest),
                InputKind::Symlink(_) | InputKind::Directory | InputKind::Absent => None::<Digest>,
            });
            let drawn = lottery.draws(audit::key(&prepared.spec, content));
            let made = drawn.then(|| Made::of(&outcome));
            (made, prepared, outcome)
        };
        let (made, prepared, outcome) = self.tasks.blocking(take).await;
        job.sample = made.map(|made| Sample {
            prepared,
            made,
            made_unix_ms: unix_ms(),
            worker,
            want,
        });
        outcome
    }
}
