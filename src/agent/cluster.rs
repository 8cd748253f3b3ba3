//! The farm as it is: places from the coordinator, runs at workers, one link to each.
//!
//! Translates between what the links say and what `fallback` decides by. A worker's link is kept for as long as jobs keep
//! coming, and left when it breaks. Invariant: every grant goes back to the broker with the ending that it had.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::broker::{self, Broker, Found, Stay};
use super::coordinator_link::{
    CoordinatorLink, Cost, Ending, FarmView, GrantHeld, LinkState, StandIn, Void, WantError,
};
use super::fallback::Reason;
use super::farm::{Farm, Placed, Ran, Slot, Want, transfer_time};
use super::forecast::{Prediction, is_meant};
use super::machine;
use super::preparation::{Prepared, Trouble};
use super::toolchain_resolve::{DefinitionSource, Told};
use super::worker_link::{LinkError, LinkRun, LinkTarget, WorkerLink};
use crate::digest::Digest;
use crate::ids::{AgentSessionId, Name};
use crate::job::{RefusalKind, RunReport};
use crate::runtime::tasks::Tasks;
use crate::trust::credentials::Trust;

/// Most bytes that one job may send back. The largest objects known, with all debug information, have some 300 MB.
const OUTPUT_BYTES_MAX: u64 = 512 << 20;
/// How long a job stays on a worker that the coordinator has lost: our own link may well be whole.
const LOST_WAIT: Duration = Duration::from_secs(5);
/// Links that no job has used for this long are given up.
const LINK_IDLE: Duration = Duration::from_secs(300);

/// The coordinator and its workers.
#[derive(Debug)]
pub struct Cluster {
    broker: Broker,
    coordinator: CoordinatorLink,
    trust: Trust,
    address: String,
    tree: Digest,
    tasks: Tasks,
    links: Mutex<HashMap<(String, AgentSessionId), Kept>>,
}

#[derive(Debug)]
struct Kept {
    link: Arc<WorkerLink>,
    on_this_machine: bool,
    used: Instant,
}

/// A grant that is told how it ended, whatever happens to the job.
#[derive(Debug)]
pub struct HeldPlace {
    grant: Option<GrantHeld>,
    worker: String,
    prediction: Prediction,
    stay: Stay,
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.stay.vacate(grant);
        }
    }
}

impl Cluster {
    /// Finds places through `broker`, which uses the link `coordinator` to the coordinator at `address`; workers know this
    /// client's files as `tree`.
    pub fn new(
        broker: Broker,
        coordinator: CoordinatorLink,
        address: &str,
        trust: Trust,
        tree: Digest,
        tasks: &Tasks,
    ) -> Self {
        Self {
            broker,
            trust,
            coordinator,
            address: address.to_owned(),
            tree,
            tasks: tasks.clone(),
            links: Mutex::default(),
        }
    }

    /// Returns the link to the grant's worker, and whether that is on this very machine.
    fn link(&self, grant: &GrantHeld) -> (Arc<WorkerLink>, bool) {
        let key = (grant.address.clone(), grant.agent_session);
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, kept| kept.used.elapsed() < LINK_IDLE || Arc::strong_count(&kept.link) > 1);
        let kept = links.entry(key).or_insert_with(|| Kept {
            link: Arc::new(WorkerLink::new(
                LinkTarget {
                    address: grant.address.clone(),
                    worker: grant.worker.clone(),
                    trust: self.trust.clone(),
                    agent: grant.agent_session,
                    tree: self.tree,
                },
                &self.tasks,
            )),
            on_this_machine: machine::owns_address(&grant.address),
            used: Instant::now(),
        });
        kept.used = Instant::now();
        (kept.link.clone(), kept.on_this_machine)
    }

    /// Runs a job on its worker. The place's ending is told by the caller.
    async fn attempt(
        &self,
        place: &mut HeldPlace,
        job: &Prepared,
        foretold: impl Fn() -> Prediction + Send,
    ) -> Result<Ran, LinkError> {
        let grant = place.grant.as_mut().expect("a place is ended by its drop only");
        let (link, on_this_machine) = self.link(grant);
        let (sent, received) = (link.traffic().sent(), link.traffic().received());
        let cost = match place.prediction {
            Prediction { spread_milli: 0, .. } => Cost::default(),
            known => Cost {
                work: known.work,
                spread_milli: known.spread_milli,
                memory_bytes: known.memory_bytes,
            },
        };
        let token = grant.show(cost).to_vec();
        let began = Instant::now();
        // A job that is cancelled from here on says nothing about the worker.
        grant.end(Ending::Ran(RunReport::default()));
        let run = link.run(LinkRun {
            grant: grant.grant,
            token,
            cores: grant.cores,
            spec: job.spec.clone(),
            inputs: job.inputs.refs.clone(),
            content: job.inputs.content.clone(),
            output_bytes_max: OUTPUT_BYTES_MAX,
            run_as: job.run_as.clone(),
        });
        let given_up = async {
            match grant.voided().await {
                Void::WorkerLost => {
                    tokio::time::sleep(LOST_WAIT).await;
                    "the coordinator has lost the worker, and no answer came"
                }
                Void::Distrusted => DISTRUSTED,
                // A job that runs does not mind, and nothing more will be said.
                Void::Expired | Void::Recalled => std::future::pending().await,
            }
        };
        let broken = |reason: &str| LinkError::Broken {
            address: grant.address.clone(),
            reason: reason.to_owned(),
        };
        let outcome = tokio::select! {
            outcome = run => outcome?,
            reason = given_up => return Err(broken(reason)),
        };
        if grant.void() == Some(Void::Distrusted) {
            return Err(broken(DISTRUSTED));
        }
        let elapsed = began.elapsed();
        let usage = &outcome.usage;
        let ran = Ran {
            slot: Slot {
                cores: grant.cores,
                // What only pretends to compile here (a replayed node) takes nothing of these cores.
                on_this_machine: on_this_machine && is_meant(usage.user + usage.system, usage.wall),
            },
            outcome,
            bytes_sent: link.traffic().sent().saturating_sub(sent),
            bytes_received: link.traffic().received().saturating_sub(received),
        };
        grant.end(Ending::Ran(report(&ran, elapsed, &foretold())));
        Ok(ran)
    }
}

/// Why a job is run again that had an answer, or might soon have had one.
const DISTRUSTED: &str = "an audit has found this node's results wrong";

impl DefinitionSource for Cluster {
    async fn definition(&self, name: &Name) -> Told {
        self.coordinator.definition(name).await
    }
}

impl Farm for Cluster {
    type Place = HeldPlace;

    async fn place(&self, want: Want) -> Result<Placed<HeldPlace>, Trouble> {
        let prediction = want.ask.prediction;
        let wish = broker::wish(&want.ask, want.closure_bytes);
        match self.broker.find(want.ask, wish).await.map_err(not_placed)? {
            Found::Here(choice, stay) => Ok(Placed::Here(choice, stay)),
            Found::There(grant, stay) => Ok(Placed::There(HeldPlace {
                worker: grant.worker.to_string(),
                prediction,
                grant: Some(*grant),
                stay,
            })),
        }
    }

    fn worker(place: &HeldPlace) -> &str {
        &place.worker
    }

    fn stand_in(place: &HeldPlace) -> Option<&StandIn> {
        place.grant.as_ref()?.stand_in.as_ref()
    }

    fn power(place: &HeldPlace) -> f64 {
        place.grant.as_ref().map_or(1.0, GrantHeld::power)
    }

    async fn run(
        &self,
        mut place: HeldPlace,
        job: Arc<Prepared>,
        foretold: impl Fn() -> Prediction + Send,
    ) -> Result<Ran, Trouble> {
        let void = place.grant.as_ref().and_then(GrantHeld::void);
        // One that is wanted back now came too late for that: it has its job.
        if void.is_some_and(|void| void != Void::Recalled) {
            return Err(Trouble::new(
                Reason::WorkerBusy,
                "the place was gone before it was used",
            ));
        }
        match self.attempt(&mut place, &job, foretold).await {
            Ok(ran) => Ok(ran),
            Err(error) => {
                let worker = place.worker.clone();
                let (reason, ending) = meaning(&error);
                if let Some(grant) = &mut place.grant {
                    grant.end(ending);
                }
                Err(Trouble::new(reason, format!("{worker}: {error}")))
            }
        }
    }

    fn accuse(&self, worker: &Name, what: &str) {
        self.coordinator.accuse(worker.clone(), what.to_owned());
    }

    fn view(&self) -> Option<FarmView> {
        self.broker.farm()
    }

    fn link(&self) -> String {
        match self.coordinator.state() {
            LinkState::Connecting => "connecting".to_owned(),
            LinkState::Up => "connected".to_owned(),
            LinkState::Down(why) => format!("not connected: {why}"),
        }
    }

    fn coordinator(&self) -> String {
        self.address.clone()
    }
}

fn report(ran: &Ran, elapsed: Duration, prediction: &Prediction) -> RunReport {
    let usage = ran.outcome.usage;
    let known = prediction.spread_milli != 0;
    RunReport {
        usage,
        work: known.then_some(prediction.work),
        spread_milli: known.then_some(prediction.spread_milli),
        sent_bytes: ran.bytes_sent,
        transfer: transfer_time(elapsed, usage.wall, ran.bytes_sent),
    }
}

fn not_placed(error: WantError) -> Trouble {
    let reason = match &error {
        WantError::Unreachable(_) => Reason::NoCoordinator,
        WantError::Refused(refusal) => match refusal.kind {
            RefusalKind::NoToolchain => Reason::ToolchainNotOnFarm,
            RefusalKind::Busy | RefusalKind::Fault => Reason::NoWorker,
            // What the coordinator says of a job that may not run on the variants at hand.
            RefusalKind::Unsupported => Reason::OwnToolchainOnly,
            RefusalKind::Limit
            | RefusalKind::Changed
            | RefusalKind::ReadOnly
            | RefusalKind::Uncertified
            | RefusalKind::Unlike => Reason::WorkerUnsupported,
        },
    };
    Trouble::new(reason, error)
}

/// What an error of a worker's link means for the job and for the grant.
fn meaning(error: &LinkError) -> (Reason, Ending) {
    match error {
        LinkError::Refused(refusal) => match refusal.kind {
            RefusalKind::Unsupported => (Reason::WorkerUnsupported, Ending::Refused(refusal.kind)),
            RefusalKind::ReadOnly => (Reason::SandboxReadOnly, Ending::Refused(refusal.kind)),
            RefusalKind::NoToolchain => (Reason::WorkerNoToolchain, Ending::Refused(refusal.kind)),
            RefusalKind::Busy => (Reason::WorkerBusy, Ending::Refused(refusal.kind)),
            RefusalKind::Fault => (Reason::WorkerFault, Ending::Fault),
            RefusalKind::Limit => (Reason::LimitReached, Ending::Refused(refusal.kind)),
            RefusalKind::Changed => (Reason::FileChanged, Ending::Refused(refusal.kind)),
            RefusalKind::Uncertified => (Reason::VariantUncertified, Ending::Refused(refusal.kind)),
            RefusalKind::Unlike => (Reason::VariantUnlike, Ending::Refused(refusal.kind)),
        },
        // The worker is as well as ever; it is our file that changed.
        LinkError::Changed(_) => (Reason::FileChanged, Ending::Ran(RunReport::default())),
        LinkError::Broken { .. } => (Reason::WorkerLost, Ending::Fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Refusal;

    #[test]
    fn only_faults_and_broken_links_speak_against_a_worker() {
        let refused = |kind| {
            LinkError::Refused(Refusal {
                kind,
                message: String::new(),
            })
        };
        let broken = LinkError::Broken {
            address: String::new(),
            reason: String::new(),
        };
        let rows = [
            (refused(RefusalKind::Unsupported), Reason::WorkerUnsupported, false),
            (refused(RefusalKind::NoToolchain), Reason::WorkerNoToolchain, false),
            (refused(RefusalKind::Busy), Reason::WorkerBusy, false),
            (refused(RefusalKind::ReadOnly), Reason::SandboxReadOnly, false),
            (refused(RefusalKind::Fault), Reason::WorkerFault, true),
            (refused(RefusalKind::Limit), Reason::LimitReached, false),
            (refused(RefusalKind::Uncertified), Reason::VariantUncertified, false),
            (refused(RefusalKind::Unlike), Reason::VariantUnlike, false),
            (refused(RefusalKind::Changed), Reason::FileChanged, false),
            (LinkError::Changed("/a".into()), Reason::FileChanged, false),
            (broken, Reason::WorkerLost, true),
        ];
        for (error, reason, blames) in rows {
            let (told, ending) = meaning(&error);
            assert_eq!((told, ending == Ending::Fault), (reason, blames), "{error}");
        }
    }

    #[test]
    fn refusal_of_a_want_names_what_is_missing() {
        let refused = |kind| {
            not_placed(WantError::Refused(Refusal {
                kind,
                message: String::new(),
            }))
            .reason
        };
        assert_eq!(refused(RefusalKind::NoToolchain), Reason::ToolchainNotOnFarm);
        assert_eq!(refused(RefusalKind::Busy), Reason::NoWorker);
        assert_eq!(refused(RefusalKind::Unsupported), Reason::OwnToolchainOnly);
        let unreachable = not_placed(WantError::Unreachable("no route".into()));
        assert_eq!(unreachable.reason, Reason::NoCoordinator);
        assert!(unreachable.note.contains("no route"));
    }
}
