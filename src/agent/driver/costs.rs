//! What a job will cost and did cost, and the second copy of one that costs far too much time.

use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Driver, out_of_turn};
use crate::agent::broker::Stay;
use crate::agent::build_log::Entry;
use crate::agent::builds::EndedJob;
use crate::agent::fallback::Reason;
use crate::agent::farm::{Farm, Placed, Ran, Slot, Want};
use crate::agent::forecast::{Observation, Prediction, spent_of, work_at};
use crate::agent::job::{Job, Traits};
use crate::agent::learned::Learned;
use crate::agent::local_slots::{Command, LocalPlace};
use crate::agent::placing::{Ask, Reach};
use crate::agent::preparation::{Prepared, Trouble};
use crate::agent::race::{self, Look, RaceBudget};
use crate::digest::Digest;
use crate::exchange::journal::output_of;
use crate::exchange::{JobRecord, Phase, Race};
use crate::ids::Name;
use crate::job::{Outcome, Variants};

/// What a linker is taken to need whatever it links, bytes.
const LINKER_BYTES: u64 = 32 << 20;
/// Files of a link that are looked at; the rest is taken to be like them.
const LOOKED_AT_MAX: usize = 256;

impl<F: Farm> Driver<F> {
    /// Makes a want that any worker may serve.
    pub(super) fn want(&self, traits: &Traits, prediction: Prediction, reach: Reach) -> Want {
        Want {
            ask: Ask {
                toolchain: traits.toolchain,
                prediction,
                power_here: self.learned.power_here(),
                avoid: Vec::new(),
                only: None,
                reach,
                variants: Variants::Never,
            },
            closure_bytes: traits.closure_bytes,
        }
    }

    /// Learns from a compile that a worker ran. What a compile costs that fails says nothing about one that does not.
    pub(super) fn learn(&self, job: &mut Job<F::Place>, outcome: &Outcome) {
        let usage = &outcome.usage;
        let spent = spent_of(usage.user + usage.system, usage.wall);
        let work = work_at(job.power, spent);
        job.spent = Some(spent);
        let Some(traits) = job.traits.as_ref().filter(|_| outcome.status.success()) else {
            return;
        };
        let seen = Observation {
            work,
            memory_bytes: usage.memory_peak_bytes,
        };
        self.learned.observe(traits.features(), seen);
        self.budget().handle_done(work);
    }

    /// Keeps what a command holds while it runs here.
    pub(super) fn runs_here(
        &self,
        job: EndedJob,
        entry: Entry,
        by_choice: Option<(Stay, Traits)>,
        place: Option<LocalPlace>,
    ) -> RunsHere {
        RunsHere {
            learned: self.learned.clone(),
            by_choice,
            _place: place,
            began: Instant::now(),
            job: Some((job, entry)),
            slots: self.farm.view().map_or(0, |view| view.slots_total),
        }
    }

    /// Counts a job's end.
    pub(super) fn end(&self, entry: Entry, job: EndedJob) {
        let slots = self.farm.view().map_or(0, |view| view.slots_total);
        entry.end(job, slots, self.learned.power_here());
    }

    /// Runs a job at its place, and at a second one when it is far beyond its prediction.
    pub(super) async fn run_or_race(
        &self,
        job: &mut Job<F::Place>,
        place: F::Place,
        prepared: Arc<Prepared>,
    ) -> Result<Ran, Trouble> {
        // The second copy of a job on a variant would have to run on the same one for the two to be compared.
        let repeatable = job.request.worker.is_none()
            && prepared.run_as.is_none()
            && job
                .command
                .as_ref()
                .is_some_and(|command| race::is_repeatable(command.facts.features));
        let traits = job.traits.clone().ok_or_else(out_of_turn)?;
        let foretold = || self.learned.predict(traits.features());
        if !repeatable {
            return self.farm.run(place, prepared, foretold).await;
        }
        let began = Instant::now();
        let mut first = pin!(self.farm.run(place, prepared.clone(), foretold));
        let mut next_look = race::FIRST_LOOK;
        let (winner, copy) = loop {
            if let Ok(ran) = tokio::time::timeout(next_look, &mut first).await {
                return ran;
            }
            let (slow, taken) = match self.look_at(began, &traits, job.power) {
                ControlFlow::Break(slow) => slow,
                ControlFlow::Continue(again) => {
                    next_look = again;
                    continue;
                }
            };
            let mut want = self.want(&traits, slow.prediction, Reach::Chosen);
            want.ask.avoid.extend(Name::new(&job.worker));
            job.raced(Some(Race::Lost));
            let mut second = pin!(self.second_copy(want, prepared.clone(), slow, taken));
            tokio::select! {
                ran = &mut first => match ran {
                    Ok(ran) => {
                        let copy = finished_too(second.as_mut()).await;
                        return self.judged(job, ran, copy.and_then(Result::ok).map(|(ran, ..)| ran));
                    }
                    // The second copy is what is left.
                    Err(_) => break (second.await?, None),
                },
                copy = &mut second => match copy {
                    Ok(copy) => break (copy, finished_too(first.as_mut()).await.and_then(Result::ok)),
                    // It got no place that is worth it; there may be one later.
                    Err(_) => {
                        job.raced(None);
                        next_look = race::FIRST_LOOK;
                    }
                },
            }
        };
        let (ran, worker, power) = winner;
        tracing::info!(
            slow = job.worker,
            quick = worker,
            "a second copy of a slow job ended first"
        );
        job.note(format!("slow on {}: a second copy on {worker} ended first", job.worker));
        job.raced(Some(Race::Won));
        (job.worker, job.power) = (worker, power);
        self.judged(job, ran, copy)
    }

    /// Looks at a running job: whether it gets a second copy, or else when to look again.
    fn look_at(&self, began: Instant, traits: &Traits, power: f64) -> ControlFlow<(SlowJob, CopyWork<'_>), Duration> {
        // Others have ended meanwhile, which tells more of this one than was known when it began.
        let prediction = self.learned.predict(traits.features());
        let slow = SlowJob {
            began,
            power,
            prediction,
        };
        match race::look(began.elapsed(), &prediction, power, self.farm.view()) {
            Look::Copy => match CopyWork::take(&self.races, prediction.work) {
                Some(taken) => ControlFlow::Break((slow, taken)),
                None => ControlFlow::Continue(race::FIRST_LOOK),
            },
            Look::Again(after) => ControlFlow::Continue(after),
        }
    }

    async fn second_copy(
        &self,
        want: Want,
        prepared: Arc<Prepared>,
        slow: SlowJob,
        mut taken: CopyWork<'_>,
    ) -> Result<(Ran, String, f64), Trouble> {
        match self.farm.place(want).await? {
            Placed::There(place) if slow.is_worth_a_copy_at(F::power(&place)) => {
                taken.ran = true;
                let (worker, power) = (F::worker(&place).to_owned(), F::power(&place));
                let foretold = || slow.prediction;
                Ok((self.farm.run(place, prepared, foretold).await?, worker, power))
            }
            Placed::There(_) | Placed::Here(..) => {
                Err(Trouble::new(Reason::WorkerBusy, "no place would be through sooner"))
            }
        }
    }

    /// Compares the results of two copies, when there are two.
    fn judged(&self, job: &Job<F::Place>, ran: Ran, other: Option<Ran>) -> Result<Ran, Trouble> {
        let Some(difference) = other.and_then(|other| race::difference(&ran.outcome, &other.outcome)) else {
            return Ok(ran);
        };
        let what = format!(
            "two workers, one of them `{}`, made different results of one job: {difference}",
            job.worker
        );
        let hint = "check both nodes' memory and toolchains, and `rdcc drain` the one that is wrong";
        self.watch.remark(&what, Some(hint));
        Err(Trouble::new(Reason::ResultsDiffer, what))
    }

    fn budget(&self) -> MutexGuard<'_, RaceBudget> {
        locked(&self.races)
    }
}

fn locked(budget: &Mutex<RaceBudget>) -> MutexGuard<'_, RaceBudget> {
    // Sums.
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The work of a second copy, out of the budget. It goes back when the copy does not run after all.
struct CopyWork<'a> {
    budget: &'a Mutex<RaceBudget>,
    work: Duration,
    ran: bool,
}

impl<'a> CopyWork<'a> {
    /// Takes it; `None` when there is not so much.
    fn take(budget: &'a Mutex<RaceBudget>, work: Duration) -> Option<Self> {
        let ran = false;
        locked(budget).take(work).then(|| Self { budget, work, ran })
    }
}

impl Drop for CopyWork<'_> {
    fn drop(&mut self) {
        if !self.ran {
            locked(self.budget).give_back(self.work);
        }
    }
}

/// A job that has a second copy.
struct SlowJob {
    began: Instant,
    power: f64,
    prediction: Prediction,
}

impl SlowJob {
    /// Tells whether a copy that begins now at a place of `power` may well end first.
    fn is_worth_a_copy_at(&self, power: f64) -> bool {
        let elapsed = self.began.elapsed();
        if race::is_late(elapsed, &self.prediction, self.power) {
            // It may never end.
            return power >= self.power;
        }
        let copy = self.prediction.work.div_f64(power.max(0.001));
        copy < race::left(elapsed, &self.prediction, self.power)
    }
}

/// Returns what a future has, if it has it now.
async fn finished_too<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = std::future::ready(()) => None,
    }
}

/// Returns what the account says of a job that ends now.
pub(super) fn ended(source: String, account: &JobRecord) -> EndedJob {
    EndedJob {
        source,
        began: Instant::now(),
        phases: account.phases.clone(),
        ran: account.ran.clone(),
        success: account.success,
        spent: None,
        power: 1.0,
        slot: Slot::default(),
        bytes: account.bytes_sent + account.bytes_received,
    }
}

/// A command that runs here, until it ends.
pub(super) struct RunsHere {
    learned: Arc<Learned>,
    by_choice: Option<(Stay, Traits)>,
    _place: Option<LocalPlace>,
    began: Instant,
    job: Option<(EndedJob, Entry)>,
    slots: u32,
}

impl Drop for RunsHere {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let Some((mut job, entry)) = self.job.take() else {
            return;
        };
        job.phases.push(Phase {
            name: "local_run".to_owned(),
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        });
        if let Some((stay, traits)) = &self.by_choice {
            job.spent = Some(took);
            if stay.is_undisturbed() {
                self.learned.observe_here(traits.features(), took);
            }
        }
        entry.end(job, self.slots, self.learned.power_here());
    }
}

/// What a command that has to run here is known by.
pub(super) fn local_command<P>(job: &Job<P>, pid: u32) -> Command {
    let mut text = job.request.cwd.as_os_str().as_bytes().to_vec();
    text.push(0);
    match output_of(&job.request.argv) {
        Some(output) => text.extend_from_slice(output.as_bytes()),
        None => job
            .request
            .argv
            .iter()
            .for_each(|word| text.extend_from_slice(word.as_bytes())),
    }
    let digest = Digest::of(&text);
    Command {
        pid,
        key: u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes")),
    }
}

/// Guesses how much memory a command may take: a linker holds its inputs and about as much again.
pub(super) fn guess_memory<P>(job: &Job<P>) -> u64 {
    let words = job.request.argv.iter().skip(1);
    let files: Vec<_> = words
        .filter(|word| !word.as_encoded_bytes().starts_with(b"-"))
        .collect();
    let sizes = files.iter().take(LOOKED_AT_MAX).filter_map(|file| {
        let metadata = std::fs::metadata(job.request.cwd.join(file)).ok()?;
        metadata.is_file().then_some(metadata.len())
    });
    let seen: u64 = sizes.sum();
    let all = seen * files.len().max(1) as u64 / files.len().clamp(1, LOOKED_AT_MAX) as u64;
    LINKER_BYTES + 2 * all
}
