//! Messages of the `Coordinator` service to events and words, and back.
//!
//! What comes in is checked and bounded; what is for people only is cut to a bounded length rather than refused. A
//! message of a kind that this build does not know is skipped, so that a newer peer can be talked to.

use std::time::Duration;

use tonic::Status;

use crate::coordinator::driver::{AgentWord, Snapshot, WorkerWord};
use crate::coordinator::events::{
    AgentHello, CoreGroup, Demand, Drain, Effort, Ending, Event, FarmView, HostKind, Leaving, LoadReport, Purpose,
    ToolchainNews, VoidReason, Want, WorkerHello,
};
use crate::coordinator::view::{AgentView, HoldingView, JobView, WorkerState, WorkerView};
use crate::ids::{AgentSessionId, CoreGroupId, GrantId, Name, RequestId, ToolchainId, WorkerSessionId};
use crate::job::{RunReport, Usage, Variants};
use crate::protocol::convert::{WireError, refusal_from_wire, refusal_kind_to_wire, toolchain_from_wire};
use crate::protocol::token::GrantKey;
use crate::protocol::wire;

/// Longest text that is only for people, characters.
const TEXT_MAX: usize = 200;
/// Most toolchains that a worker may name; what is followed of them is for the scheduler to bound.
const TOOLCHAINS_MAX: usize = 65_536;
/// Most workers that a want may rule out: a job that failed on more runs locally.
const AVOIDED_MAX: usize = 64;

/// A hello, with the protocol that it names.
#[derive(Debug)]
pub struct Hello<T> {
    /// The newest protocol that the peer speaks.
    pub protocol: u32,
    /// Who it is.
    pub hello: T,
}

fn text(text: String) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// Takes the first message of an agent.
pub fn agent_hello(event: wire::AgentEvent) -> Result<Hello<AgentHello>, WireError> {
    let Some(wire::agent_event::Event::Hello(hello)) = event.event else {
        return Err(WireError::Missing("hello"));
    };
    Ok(Hello {
        protocol: hello.protocol,
        hello: AgentHello {
            host: text(hello.host),
            user: text(hello.user),
            pid: hello.pid,
        },
    })
}

/// Takes a later message of an agent.
pub fn agent_event(id: AgentSessionId, event: wire::AgentEvent) -> Result<Option<Event>, WireError> {
    use wire::agent_event::Event as Wire;
    let event = match event.event {
        Some(Wire::Want(want)) => Event::Want(
            id,
            Want {
                request: RequestId(want.request),
                toolchain: toolchain_from_wire(&want.toolchain)?,
                variants: variants_from(want.variants),
                build: text(want.build),
                purpose: match (want.race, want.ahead) {
                    (true, _) => Purpose::Race,
                    (false, true) => Purpose::Ahead,
                    (false, false) => Purpose::Job,
                },
                demand: Demand {
                    work: (want.work_us > 0).then(|| Duration::from_micros(want.work_us)),
                    spread_milli: (want.spread_milli > 0).then_some(want.spread_milli),
                    memory_bytes: (want.memory_bytes > 0).then_some(want.memory_bytes),
                    input_bytes: want.input_bytes,
                },
                avoid: names(want.avoid)?,
                only: only(&want.only)?,
            },
        ),
        Some(Wire::Cancel(cancel)) => Event::CancelWant(id, RequestId(cancel.request)),
        Some(Wire::Used(used)) => Event::GrantUsed(id, GrantId(used.grant), used_demand(&used)),
        Some(Wire::Done(done)) => Event::GrantDone(id, GrantId(done.grant), ending(done)),
        Some(Wire::Accuse(accusation)) => {
            let name = Name::new(&accusation.worker).map_err(|_| WireError::Range("worker"))?;
            Event::Accused(id, name, text(accusation.what))
        }
        Some(Wire::Hello(_)) | None => return Ok(None),
    };
    Ok(Some(event))
}

fn variants_from(certified: bool) -> Variants {
    if certified {
        Variants::Certified
    } else {
        Variants::Never
    }
}

fn used_demand(used: &wire::GrantUsed) -> Demand {
    Demand {
        work: (used.work_us > 0).then(|| Duration::from_micros(used.work_us)),
        spread_milli: (used.spread_milli > 0).then_some(used.spread_milli),
        memory_bytes: (used.memory_bytes > 0).then_some(used.memory_bytes),
        input_bytes: used.input_bytes,
    }
}

fn only(name: &str) -> Result<Option<Name>, WireError> {
    let named = (!name.is_empty()).then(|| Name::new(name));
    named.transpose().map_err(|_| WireError::Range("only worker"))
}

fn names(names: Vec<String>) -> Result<Vec<Name>, WireError> {
    if names.len() > AVOIDED_MAX {
        return Err(WireError::TooLarge {
            what: "workers to avoid",
            found: names.len(),
            bound: AVOIDED_MAX,
        });
    }
    let names = names.iter().map(|name| Name::new(name));
    names
        .collect::<Result<_, _>>()
        .map_err(|_| WireError::Range("worker to avoid"))
}

fn ending(done: wire::GrantDone) -> Ending {
    use wire::grant_done::Ending as Wire;
    match done.ending() {
        Wire::Ran => Ending::Ran(RunReport {
            usage: Usage {
                user: Duration::from_micros(done.cpu_us),
                system: Duration::ZERO,
                wall: Duration::from_micros(done.wall_us),
                memory_peak_bytes: done.memory_peak_bytes,
                major_faults: 0,
            },
            work: (done.work_us > 0).then(|| Duration::from_micros(done.work_us)),
            spread_milli: (done.spread_milli > 0).then_some(done.spread_milli),
            sent_bytes: done.sent_bytes,
            transfer: Duration::from_micros(done.transfer_us),
        }),
        Wire::Unused => Ending::Unused,
        Wire::Refused => Ending::Refused(refusal_from_wire(done.refusal, String::new()).kind),
        // An ending that this build does not know: the slot is freed when the worker says so.
        Wire::Fault | Wire::Unspecified => Ending::Fault,
    }
}

/// Takes the first message of a worker.
pub fn worker_hello(event: wire::WorkerEvent) -> Result<Hello<WorkerHello>, WireError> {
    let Some(wire::worker_event::Event::Hello(hello)) = event.event else {
        return Err(WireError::Missing("hello"));
    };
    if hello.toolchains.len() > TOOLCHAINS_MAX {
        return Err(WireError::TooLarge {
            what: "toolchains",
            found: hello.toolchains.len(),
            bound: TOOLCHAINS_MAX,
        });
    }
    let ready: Result<Vec<ToolchainId>, WireError> =
        hello.toolchains.iter().map(|id| toolchain_from_wire(id)).collect();
    let cores = cores_from_wire(&hello);
    let reachable = hello.address.rsplit_once(':').is_some_and(|(host, port)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%');
        !host.is_empty() && host.len() <= 255 && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|p| p > 0)
    });
    if !reachable {
        return Err(WireError::Range("address"));
    }
    Ok(Hello {
        protocol: hello.protocol,
        hello: WorkerHello {
            name: Name::new(&hello.name).map_err(|_| WireError::Range("name"))?,
            address: hello.address,
            slots: hello.slots,
            // A worker that does not say counts as a reference machine.
            power_milli: if hello.power_milli == 0 {
                1000
            } else {
                hello.power_milli
            },
            cores: cores?,
            host_kind: HostKind(text(hello.host_kind)),
            memory_bytes: hello.memory_bytes,
            sandbox: text(hello.sandbox),
            version: text(hello.version),
            variants: variants_from(hello.variants),
            ready: ready?,
            running: hello.running.into_iter().map(GrantId).collect(),
            drain: drain_from(hello.draining),
        },
    })
}

fn cores_from_wire(hello: &wire::WorkerHello) -> Result<Vec<CoreGroup>, WireError> {
    if hello.cores.len() > CoreGroupId::GROUPS_MAX {
        return Err(WireError::Range("groups of cores"));
    }
    let groups = hello.cores.iter().map(|group| CoreGroup {
        slots: group.slots,
        power_milli: group.power_milli,
    });
    Ok(groups.collect())
}

fn drain_from(on: bool) -> Drain {
    if on { Drain::On } else { Drain::Off }
}

/// Takes a later message of a worker.
pub fn worker_event(id: WorkerSessionId, event: wire::WorkerEvent) -> Result<Option<Event>, WireError> {
    use wire::worker_event::Event as Wire;
    let event = match event.event {
        Some(Wire::Toolchain(state)) => {
            let toolchain = toolchain_from_wire(&state.toolchain)?;
            match news(state) {
                Some(news) => Event::WorkerToolchain(id, toolchain, news),
                None => return Ok(None),
            }
        }
        Some(Wire::Load(load)) => Event::WorkerLoad(
            id,
            LoadReport {
                number: load.report,
                running: load.running.into_iter().map(GrantId).collect(),
                voided: load.voided.into_iter().map(GrantId).collect(),
                memory_available_bytes: load.memory_available_bytes,
                memory_pressure_milli: load.memory_pressure_milli,
                leaving: if load.leaving { Leaving::Yes } else { Leaving::No },
            },
        ),
        Some(Wire::Hello(_)) | None => return Ok(None),
    };
    Ok(Some(event))
}

fn news(state: wire::ToolchainState) -> Option<ToolchainNews> {
    use wire::toolchain_state::State;
    match state.state() {
        State::Installed => Some(ToolchainNews::Installed),
        State::Bundle => Some(ToolchainNews::Bundle),
        State::Fetchable => Some(ToolchainNews::Fetchable),
        State::Failed => Some(ToolchainNews::Failed(text(state.message))),
        State::Unspecified => None,
    }
}

/// Greets an agent.
pub fn agent_welcome(protocol: u32, id: AgentSessionId) -> wire::AgentOrder {
    let welcome = wire::AgentWelcome {
        protocol,
        session: id.0,
    };
    wire::AgentOrder {
        order: Some(wire::agent_order::Order::Welcome(welcome)),
    }
}

/// Greets a worker.
pub fn worker_welcome(protocol: u32, id: WorkerSessionId, key: &GrantKey, report_every: Duration) -> wire::WorkerOrder {
    let welcome = wire::WorkerWelcome {
        protocol,
        session: id.0,
        grant_key: key.0.to_vec(),
        report_every_ms: millis(report_every),
    };
    wire::WorkerOrder {
        order: Some(wire::worker_order::Order::Welcome(welcome)),
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Says a word to an agent; the end of the session is said by the stream's status.
pub fn agent_order(word: AgentWord) -> Result<wire::AgentOrder, Status> {
    use wire::agent_order::Order;
    let order = match word {
        AgentWord::Granted(place) => Order::Grant(wire::Grant {
            request: place.request.0,
            grant: place.grant.0,
            worker: place.worker.to_string(),
            address: place.address,
            token: place.token.to_vec(),
            valid_ms: millis(place.valid),
            power_milli: place.power_milli,
            ahead: place.purpose == Purpose::Ahead,
            cores: place.cores.0.into(),
            run_as: place.run_as.map(|run_as| wire::RunAs {
                toolchain: run_as.stand_in.toolchain.0.as_bytes().to_vec(),
                host_kind: run_as.host_kind.0,
                level: run_as.stand_in.level.as_str().to_owned(),
            }),
        }),
        AgentWord::Refused(request, refusal) => Order::Refused(wire::WantRefused {
            request: request.0,
            kind: refusal_kind_to_wire(refusal.kind),
            message: refusal.message,
        }),
        AgentWord::Void(grant, reason) => Order::Void(void(grant, reason)),
        AgentWord::Farm(view) => Order::Farm(farm(view)),
        AgentWord::Ended(reason) => return Err(Status::aborted(reason)),
    };
    Ok(wire::AgentOrder { order: Some(order) })
}

/// Says a word to a worker; the end of the session is said by the stream's status.
pub fn worker_order(word: WorkerWord) -> Result<wire::WorkerOrder, Status> {
    use wire::worker_order::Order;
    let order = match word {
        WorkerWord::Prepare(toolchain, effort) => {
            let effort = match effort {
                Effort::Look => wire::prepare::Effort::Look,
                Effort::Fetch => wire::prepare::Effort::Fetch,
            };
            Order::Prepare(wire::Prepare {
                toolchain: toolchain.0.as_bytes().to_vec(),
                effort: effort.into(),
            })
        }
        WorkerWord::Drain(drain) => Order::Drain(wire::Drain { on: drain == Drain::On }),
        WorkerWord::Void(grant, reason) => Order::Void(void(grant, reason)),
        WorkerWord::Ended(reason) => return Err(Status::aborted(reason)),
    };
    Ok(wire::WorkerOrder { order: Some(order) })
}

fn void(grant: GrantId, reason: VoidReason) -> wire::GrantVoid {
    use wire::grant_void::Reason;
    let reason = match reason {
        VoidReason::Expired => Reason::Expired,
        VoidReason::WorkerLost => Reason::WorkerLost,
        VoidReason::Returned => Reason::Returned,
        VoidReason::Recalled => Reason::Recalled,
        VoidReason::Distrusted => Reason::Distrusted,
    };
    wire::GrantVoid {
        grant: grant.0,
        reason: reason.into(),
    }
}

fn farm(view: FarmView) -> wire::FarmView {
    wire::FarmView {
        slots_total: view.slots_total,
        slots_busy: view.slots_busy,
        fastest_milli: view.fastest_milli,
        queued: view.queued,
        my_share_slots: view.my_share_slots,
    }
}

/// Describes the cluster.
pub fn status(snapshot: Snapshot) -> wire::StatusReply {
    let cluster = snapshot.cluster;
    wire::StatusReply {
        queued: cluster.queued,
        running: cluster.jobs.len() as u64,
        uptime_ms: u64::try_from(snapshot.uptime.as_millis()).unwrap_or(u64::MAX),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        workers: cluster.workers.into_iter().map(worker_status).collect(),
        agents: cluster.agents.into_iter().map(agent_status).collect(),
        jobs: cluster.jobs.into_iter().map(running_job).collect(),
        warning: String::new(),
    }
}

fn worker_status(worker: WorkerView) -> wire::WorkerStatus {
    let state = match worker.state {
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Quarantined => "quarantined",
        WorkerState::Lost => "lost",
    };
    wire::WorkerStatus {
        name: worker.hello.name.to_string(),
        address: worker.hello.address,
        slots: worker.hello.slots,
        busy: worker.busy,
        power_milli: worker.hello.power_milli,
        host_kind: worker.hello.host_kind.0,
        sandbox: worker.hello.sandbox,
        state: state.to_owned(),
        toolchains: worker.toolchains.into_iter().map(toolchain_state).collect(),
        jobs_done: worker.jobs_done,
        faults: worker.faults,
        memory_available_bytes: worker.memory_available_bytes,
        version: worker.hello.version,
        note: worker.note,
        learned_milli: worker.learned_milli.unwrap_or(0),
        cores: cores_to_wire(&worker.hello.cores),
    }
}

fn cores_to_wire(cores: &[CoreGroup]) -> Vec<wire::CoreGroup> {
    let group = |group: &CoreGroup| wire::CoreGroup {
        slots: group.slots,
        power_milli: group.power_milli,
    };
    cores.iter().map(group).collect()
}

fn toolchain_state((toolchain, holding): (ToolchainId, HoldingView)) -> wire::ToolchainState {
    use wire::toolchain_state::State;
    let (state, message) = match holding {
        HoldingView::Looking => (State::Unspecified, "being looked for".to_owned()),
        HoldingView::Installed => (State::Installed, String::new()),
        HoldingView::Bundle => (State::Bundle, String::new()),
        HoldingView::Fetchable => (State::Fetchable, String::new()),
        HoldingView::Fetching => (State::Fetchable, "being fetched".to_owned()),
        HoldingView::Failed(message) => (State::Failed, message),
    };
    wire::ToolchainState {
        toolchain: toolchain.0.as_bytes().to_vec(),
        state: state.into(),
        message,
    }
}

fn agent_status(agent: AgentView) -> wire::AgentStatus {
    wire::AgentStatus {
        host: agent.hello.host,
        user: agent.hello.user,
        pid: agent.hello.pid,
        waiting: agent.waiting,
        holding: agent.holding,
    }
}

fn running_job(job: JobView) -> wire::RunningJob {
    wire::RunningJob {
        grant: job.grant.0,
        worker: job.worker,
        host: job.host,
        toolchain: job.toolchain.map(|id| id.0.as_bytes().to_vec()).unwrap_or_default(),
        age_ms: u64::try_from(job.age.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(change: impl FnOnce(&mut wire::WorkerHello)) -> wire::WorkerEvent {
        let mut hello = wire::WorkerHello {
            protocol: 1,
            name: "node-1".into(),
            address: "127.0.0.1:7431".into(),
            slots: 2,
            ..Default::default()
        };
        change(&mut hello);
        wire::WorkerEvent {
            event: Some(wire::worker_event::Event::Hello(hello)),
        }
    }

    #[test]
    fn hello_of_a_worker_is_checked() {
        let taken = worker_hello(hello(|_| {})).expect("a good hello");
        assert_eq!((taken.hello.power_milli, taken.hello.drain), (1000, Drain::Off));
        assert!(worker_hello(hello(|h| h.address = "[::1]:7431".into())).is_ok());
        for change in [
            (|h| h.name = "a b".into()) as fn(&mut wire::WorkerHello),
            |h| h.address = "nowhere".into(),
            |h| h.address = ":1".into(),
            |h| h.address = "h:0".into(),
            |h| h.address = "h/x:1".into(),
            |h| h.toolchains = vec![vec![1; 31]],
            |h| h.toolchains = vec![Vec::new(); TOOLCHAINS_MAX + 1],
        ] {
            assert!(worker_hello(hello(change)).is_err());
        }
        assert!(worker_hello(wire::WorkerEvent::default()).is_err());
        assert!(agent_hello(wire::AgentEvent::default()).is_err());
    }

    #[test]
    fn text_for_people_is_cut_between_characters() {
        let taken = worker_hello(hello(|h| h.sandbox = "é".repeat(1000))).expect("long text is no error");
        assert_eq!(taken.hello.sandbox.chars().count(), TEXT_MAX);
    }

    #[test]
    fn unknown_messages_are_skipped_and_unknown_endings_free_nothing() {
        assert_eq!(agent_event(AgentSessionId(1), wire::AgentEvent::default()), Ok(None));
        assert_eq!(worker_event(WorkerSessionId(1), wire::WorkerEvent::default()), Ok(None));
        let done = wire::GrantDone {
            ending: 99,
            ..Default::default()
        };
        assert_eq!(ending(done), Ending::Fault);
    }
}
