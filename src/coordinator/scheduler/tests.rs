//! The scheduler's rules, one small history each. Rough histories are in `tests/sim`.

use std::time::Duration;

use super::super::events::{
    AgentHello, CoreGroup, Demand, Effort, Ending, Event, HostKind, Leaving, LoadReport, Purpose, ToolchainNews,
    VoidReason, Want, WorkerHello,
};
use super::super::view::WorkerState;
use super::*;
use crate::digest::Digest;
use crate::ids::{RequestId, ToolchainId};
use crate::job::{RefusalKind, RunReport, Usage, Variants};

const AGENT: AgentSessionId = AgentSessionId(1);

fn tool(name: &str) -> ToolchainId {
    ToolchainId(Digest::of(name.as_bytes()))
}

/// A scheduler with its clock; every step is audited.
struct Farm {
    scheduler: Scheduler,
    now: Duration,
    next_request: u64,
}

impl Farm {
    fn new() -> Self {
        let scheduler = Scheduler::new(Rules::default(), 1, 1, Moment::START);
        let mut farm = Self {
            scheduler,
            now: Duration::ZERO,
            next_request: 1,
        };
        farm.tell(Event::ToolchainAdded(tool("a"), HostKind("x".into())));
        farm.join_agent(AGENT);
        // Past the time in which workers may still come.
        farm.pass(6_000);
        farm
    }

    /// Hands in an event. What agents are told of the farm as a whole is left out of the answer.
    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.scheduler.handle(event, Moment::at(self.now));
        self.scheduler.audit().expect("invariants hold");
        actions.retain(|action| !matches!(action, Action::TellFarm(..)));
        actions
    }

    fn pass(&mut self, millis: u64) -> Vec<Action> {
        self.now += Duration::from_millis(millis);
        self.tell(Event::Tick)
    }

    fn join_agent(&mut self, id: AgentSessionId) {
        let hello = AgentHello {
            host: "h".into(),
            user: "u".into(),
            pid: 1,
        };
        self.tell(Event::AgentJoined(id, hello));
    }

    fn hello(name: &str, slots: u32, power_milli: u32, ready: &[&str]) -> WorkerHello {
        WorkerHello {
            name: Name::new(name).expect("a name"),
            address: "127.0.0.1:1".into(),
            slots,
            power_milli,
            cores: Vec::new(),
            host_kind: HostKind("x".into()),
            memory_bytes: 1 << 30,
            sandbox: String::new(),
            version: String::new(),
            variants: Variants::Certified,
            ready: ready.iter().map(|name| tool(name)).collect(),
            running: Vec::new(),
            drain: Drain::Off,
        }
    }

    fn join(&mut self, id: u64, hello: WorkerHello) -> Vec<Action> {
        self.tell(Event::WorkerJoined(WorkerSessionId(id), hello))
    }

    fn want_for(&mut self, agent: AgentSessionId, build: &str, toolchain: &str) -> Vec<Action> {
        let want = Want {
            request: RequestId(self.next_request),
            toolchain: tool(toolchain),
            variants: Variants::Never,
            build: build.into(),
            purpose: Purpose::Job,
            demand: Demand::default(),
            avoid: Vec::new(),
            only: None,
        };
        self.next_request += 1;
        self.tell(Event::Want(agent, want))
    }

    fn want(&mut self) -> Vec<Action> {
        self.want_for(AGENT, "", "a")
    }

    /// Wants a place and gets it.
    fn granted(&mut self) -> (GrantId, u64) {
        let actions = self.want();
        match actions.as_slice() {
            [Action::Grant(grant)] => (grant.grant, grant.worker.0),
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, id: u64, number: u64, running: &[GrantId], voided: &[GrantId]) -> Vec<Action> {
        let report = LoadReport {
            number,
            running: running.to_vec(),
            voided: voided.to_vec(),
            ..LoadReport::default()
        };
        self.tell(Event::WorkerLoad(WorkerSessionId(id), report))
    }

    fn done(&mut self, grant: GrantId, ending: Ending) -> Vec<Action> {
        self.tell(Event::GrantDone(AGENT, grant, ending))
    }

    fn busy(&self) -> Vec<u32> {
        self.scheduler.view().workers.iter().map(|worker| worker.busy).collect()
    }
}

fn ran() -> Ending {
    Ending::Ran(RunReport::default())
}

fn refused(actions: &[Action]) -> (RefusalKind, &str) {
    match actions {
        [Action::Refuse(_, _, refusal)] => (refusal.kind, &refusal.message),
        other => panic!("{other:?}"),
    }
}

mod bound;
mod placing;
mod quarantine;
mod variants;

#[test]
fn slot_is_given_again_when_the_agent_says_that_the_job_ran() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let (grant, _) = farm.granted();
    assert_eq!(farm.want(), []);
    assert!(matches!(farm.done(grant, ran()).as_slice(), [Action::Grant(_)]));
    assert_eq!(farm.done(grant, ran()), [], "its second end changes nothing");
    assert_eq!(farm.scheduler.view().workers[0].jobs_done, 1);
}

#[test]
fn unused_grant_is_void_after_its_time_and_its_slot_free_when_the_worker_agrees() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let (grant, _) = farm.granted();
    farm.report(1, 1, &[], &[]);
    farm.pass(9_000);
    farm.report(1, 2, &[], &[]);
    let worker = WorkerSessionId(1);
    let void = Action::VoidAtWorker(worker, grant, VoidReason::Expired);
    assert_eq!(
        farm.pass(1_000),
        [Action::VoidAtAgent(AGENT, grant, VoidReason::Expired), void.clone()]
    );
    assert_eq!(farm.want(), [], "the agent might have shown it just before");
    assert_eq!(
        farm.report(1, 3, &[], &[]),
        [void],
        "said again until it is acknowledged"
    );
    assert!(matches!(
        farm.report(1, 4, &[], &[grant]).as_slice(),
        [Action::Grant(_)]
    ));
}

#[test]
fn void_that_crosses_the_start_of_the_job_lets_it_run() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let (grant, _) = farm.granted();
    farm.pass(5_000);
    farm.report(1, 1, &[], &[]);
    farm.pass(5_000);
    assert_eq!(farm.report(1, 2, &[grant], &[]), []);
    assert_eq!(farm.busy(), [1]);
    farm.done(grant, ran());
    assert_eq!(farm.busy(), [0]);
}

#[test]
fn worker_that_never_acknowledges_is_dropped_rather_than_short_of_a_slot_for_ever() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    farm.granted();
    let mut dropped = false;
    for number in 1..40 {
        dropped |= farm.pass(1_000).iter().any(|a| matches!(a, Action::DropWorker(..)));
        farm.report(1, number, &[], &[]);
    }
    assert!(dropped);
}

#[test]
fn job_of_an_agent_that_left_keeps_its_slot_until_the_report_lacks_it() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 2, 1000, &["a"]));
    let (used, _) = farm.granted();
    let (unused, _) = farm.granted();
    farm.report(1, 1, &[used], &[]);
    let left = farm.tell(Event::AgentLeft(AGENT));
    assert_eq!(
        left,
        [Action::VoidAtWorker(WorkerSessionId(1), unused, VoidReason::Returned)]
    );
    assert_eq!(farm.busy(), [2]);
    farm.report(1, 2, &[used], &[unused]);
    assert_eq!(farm.busy(), [1]);
    farm.report(1, 3, &[], &[]);
    assert_eq!(farm.busy(), [0]);
}

#[test]
fn report_that_is_older_than_the_agents_word_does_not_bring_a_job_back() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let (grant, _) = farm.granted();
    farm.done(grant, ran());
    farm.report(1, 1, &[grant], &[]);
    assert_eq!(farm.busy(), [0]);
}

#[test]
fn cancelled_want_whose_grant_is_on_its_way_is_given_back() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let (grant, _) = farm.granted();
    let actions = farm.tell(Event::CancelWant(AGENT, RequestId(1)));
    assert_eq!(
        actions,
        [Action::VoidAtWorker(WorkerSessionId(1), grant, VoidReason::Returned)]
    );
    assert_eq!(farm.busy(), [0]);
}

#[test]
fn session_that_broke_is_taken_up_with_what_still_runs() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 2, 1000, &["a"]));
    let (used, _) = farm.granted();
    let (unused, _) = farm.granted();
    farm.tell(Event::WorkerLeft(WorkerSessionId(1)));
    assert_eq!(farm.scheduler.view().workers[0].state, WorkerState::Lost);
    let hello = WorkerHello {
        running: vec![used],
        ..Farm::hello("w", 2, 1000, &["a"])
    };
    let actions = farm.join(2, hello);
    assert!(actions.contains(&Action::VoidAtAgent(AGENT, unused, VoidReason::WorkerLost)));
    assert_eq!(farm.busy(), [1]);
    farm.done(used, ran());
    assert_eq!(farm.busy(), [0]);
}

#[test]
fn jobs_given_by_an_earlier_coordinator_take_their_slots() {
    let mut farm = Farm::new();
    let hello = WorkerHello {
        running: vec![GrantId(7)],
        ..Farm::hello("w", 1, 1000, &["a"])
    };
    farm.join(1, hello);
    assert_eq!(farm.want(), []);
    assert!(matches!(farm.report(1, 1, &[], &[]).as_slice(), [Action::Grant(_)]));
}

#[test]
fn silent_worker_is_lost_and_its_grants_with_it() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let (grant, _) = farm.granted();
    farm.report(1, 1, &[grant], &[]);
    let actions = farm.pass(10_000);
    assert!(matches!(
        actions.as_slice(),
        [
            Action::DropWorker(..),
            Action::VoidAtAgent(AGENT, _, VoidReason::WorkerLost)
        ]
    ));
    assert_eq!(farm.scheduler.view().workers, []);
}

#[test]
fn second_worker_of_a_name_takes_the_place_of_the_first() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let actions = farm.join(2, Farm::hello("w", 1, 1000, &["a"]));
    assert!(matches!(&actions[0], Action::DropWorker(WorkerSessionId(1), reason) if reason.contains("`w`")));
    assert_eq!(farm.granted().1, 2);
}

#[test]
fn drained_and_leaving_workers_get_nothing_and_wants_say_so() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let name = Name::new("w").expect("a name");
    farm.tell(Event::DrainSet(name.clone(), Drain::On));
    assert_eq!(refused(&farm.want()).0, RefusalKind::Busy);
    farm.tell(Event::WorkerLeft(WorkerSessionId(1)));
    let again = farm.join(2, Farm::hello("w", 1, 1000, &["a"]));
    assert!(
        again.contains(&Action::Drain(WorkerSessionId(2), Drain::On)),
        "it stays drained"
    );
    farm.tell(Event::DrainSet(name, Drain::Off));
    let (grant, _) = farm.granted();
    farm.done(grant, ran());
    let leaving = LoadReport {
        number: 1,
        leaving: Leaving::Yes,
        ..LoadReport::default()
    };
    farm.tell(Event::WorkerLoad(WorkerSessionId(2), leaving));
    farm.pass(6_000);
    assert_eq!(refused(&farm.want()).0, RefusalKind::Busy);
}

#[test]
fn want_that_nothing_can_serve_is_refused_with_the_reason() {
    let mut farm = Farm::new();
    let (kind, message) = {
        let actions = farm.want_for(AGENT, "", "b");
        let (kind, message) = refused(&actions);
        (kind, message.to_owned())
    };
    assert_eq!(kind, RefusalKind::NoToolchain);
    assert!(message.contains("not known"), "{message}");
    assert!(refused(&farm.want()).1.contains("no worker of kind `x`"));
    farm.join(1, Farm::hello("w", 1, 1000, &[]));
    assert_eq!(farm.want(), [], "it may have it installed");
    let news = ToolchainNews::Failed("no space left".into());
    let actions = farm.tell(Event::WorkerToolchain(WorkerSessionId(1), tool("a"), news));
    assert!(refused(&actions).1.contains("`w`: no space left"), "{actions:?}");
}

#[test]
fn wants_wait_a_moment_for_workers_after_a_start() {
    let mut farm = Farm::new();
    farm.scheduler = Scheduler::new(Rules::default(), 2, 1, Moment::START);
    farm.now = Duration::ZERO;
    farm.tell(Event::ToolchainAdded(tool("a"), HostKind("x".into())));
    farm.join_agent(AGENT);
    assert_eq!(farm.want(), []);
    assert_eq!(refused(&farm.pass(5_000)).0, RefusalKind::NoToolchain);
}

#[test]
fn fetch_is_ordered_when_more_wait_than_is_coming_and_nobody_waits_for_it_who_need_not() {
    let mut farm = Farm::new();
    let look = Action::Prepare(WorkerSessionId(1), tool("a"), Effort::Look);
    assert_eq!(farm.join(1, Farm::hello("w1", 2, 1000, &[])), [look]);
    farm.join(2, Farm::hello("w2", 2, 2000, &[]));
    for worker in [1, 2] {
        let news = ToolchainNews::Fetchable;
        assert_eq!(
            farm.tell(Event::WorkerToolchain(WorkerSessionId(worker), tool("a"), news)),
            []
        );
    }
    let fetch = |worker| [Action::Prepare(WorkerSessionId(worker), tool("a"), Effort::Fetch)];
    assert_eq!(farm.want(), fetch(2), "the stronger one first");
    assert_eq!(farm.want(), []);
    assert_eq!(farm.want(), fetch(1));
    let ready = Event::WorkerToolchain(WorkerSessionId(2), tool("a"), ToolchainNews::Bundle);
    assert_eq!(farm.tell(ready).len(), 2);
    farm.join(3, Farm::hello("w3", 1, 1000, &["a"]));
    assert_eq!(farm.scheduler.view().queued, 0);
}

#[test]
fn faulty_worker_is_tried_with_one_job_at_a_time() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 3, 1000, &["a"]));
    let (grant, _) = farm.granted();
    farm.report(1, 1, &[], &[]);
    assert!(matches!(
        farm.done(grant, Ending::Fault).as_slice(),
        [Action::VoidAtWorker(..)]
    ));
    farm.report(1, 2, &[], &[grant]);
    assert_eq!(farm.want(), []);
    assert_eq!(farm.want(), []);
    let probes = farm.pass(1_000);
    let [Action::Grant(probe)] = probes.as_slice() else {
        panic!("{probes:?}")
    };
    assert_eq!(farm.done(probe.grant, ran()).len(), 1);
    assert!(matches!(farm.want().as_slice(), [Action::Grant(_)]), "trusted again");
}

#[test]
fn nobody_waits_for_workers_that_all_pause_for_long_after_faults() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let mut number = 0;
    let mut was_refused = Vec::new();
    for _ in 0..5 {
        let (grant, _) = farm.granted();
        assert_eq!(farm.want(), [], "waits for the slot");
        let actions = farm.done(grant, Ending::Fault);
        was_refused.push(actions.iter().any(|action| matches!(action, Action::Refuse(..))));
        for _ in 0..13 {
            number += 1;
            for action in farm
                .report(1, number, &[], &[grant])
                .into_iter()
                .chain(farm.pass(5_000))
            {
                let Action::Grant(grant) = action else {
                    panic!("{action:?}")
                };
                farm.done(grant.grant, Ending::Unused);
            }
        }
    }
    assert_eq!(was_refused.first(), Some(&false), "a second is waited for");
    assert_eq!(was_refused.last(), Some(&true), "many are not");

    let (grant, _) = farm.granted();
    farm.done(grant, Ending::Fault);
    farm.report(1, number + 1, &[], &[grant]);
    let actions = farm.want();
    let (kind, message) = refused(&actions);
    assert_eq!(kind, RefusalKind::Busy);
    assert!(message.contains("tried again in"), "{message}");
    farm.join(2, Farm::hello("sound", 1, 1000, &["a"]));
    assert!(matches!(farm.want().as_slice(), [Action::Grant(_)]));
    assert_eq!(farm.want(), [], "another one's slot is waited for");
}

#[test]
fn worker_that_was_busy_after_all_is_left_alone_until_its_report() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 2, 1000, &["a"]));
    let (grant, _) = farm.granted();
    farm.done(grant, Ending::Refused(RefusalKind::Busy));
    assert_eq!(farm.want(), []);
    assert!(matches!(farm.report(1, 1, &[], &[]).as_slice(), [Action::Grant(_)]));
}

#[test]
fn worker_without_the_toolchain_after_all_is_asked_again() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 2, 1000, &["a"]));
    let (grant, _) = farm.granted();
    let actions = farm.done(grant, Ending::Refused(RefusalKind::NoToolchain));
    assert_eq!(actions, [Action::Prepare(WorkerSessionId(1), tool("a"), Effort::Look)]);
    assert_eq!(farm.want(), []);
}

#[test]
fn builds_of_one_agent_take_turns() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("w", 1, 1000, &[]));
    for build in ["big", "big", "big", "small"] {
        farm.want_for(AGENT, build, "a");
    }
    let mut order = Vec::new();
    let mut actions = farm.tell(Event::WorkerToolchain(
        WorkerSessionId(1),
        tool("a"),
        ToolchainNews::Installed,
    ));
    while let [Action::Grant(grant)] = actions.as_slice() {
        order.push(grant.request.0);
        actions = farm.done(grant.grant, ran());
    }
    assert_eq!(order, [1, 4, 2, 3]);
}

#[test]
fn full_queue_refuses_as_busy_and_removed_toolchain_empties_it() {
    let mut farm = Farm::new();
    farm.scheduler.rules.wants_per_agent_max = 2;
    farm.join(1, Farm::hello("w", 1, 1000, &[]));
    farm.want();
    farm.want();
    assert_eq!(refused(&farm.want()).0, RefusalKind::Busy);
    let actions = farm.tell(Event::ToolchainRemoved(tool("a")));
    assert_eq!(actions.len(), 2);
    assert!(refused(&actions[..1]).1.contains("removed"));
}

#[test]
fn agents_and_workers_beyond_the_bounds_are_dropped_with_the_reason() {
    let mut farm = Farm::new();
    farm.scheduler.rules.agents_max = 1;
    farm.scheduler.rules.workers_max = 0;
    let hello = AgentHello {
        host: String::new(),
        user: String::new(),
        pid: 0,
    };
    let actions = farm.tell(Event::AgentJoined(AgentSessionId(2), hello));
    assert!(matches!(actions.as_slice(), [Action::DropAgent(..)]));
    let actions = farm.join(1, Farm::hello("w", 1, 1000, &[]));
    assert!(matches!(actions.as_slice(), [Action::DropWorker(..)]));
}

#[test]
fn want_waits_no_longer_than_its_bound() {
    let mut farm = Farm::new();
    farm.scheduler.rules.queue_wait = Duration::from_secs(200);
    farm.join(1, Farm::hello("w", 1, 1000, &["a"]));
    let (grant, _) = farm.granted();
    farm.want();
    let mut ended = None;
    for number in 1..250 {
        let mut actions = farm.pass(1_000);
        actions.extend(farm.report(1, number, &[grant], &[]));
        if !actions.is_empty() {
            ended.get_or_insert((number, refused(&actions).0));
        }
    }
    assert_eq!(ended, Some((200, RefusalKind::Busy)));
}
