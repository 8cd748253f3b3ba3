//! Jobs on variants: who is granted which pair, and what ends it.

use std::collections::BTreeMap;

use super::super::super::events::{Grant, StandIn, StandIns};
use super::*;
use crate::toolchains::definition::Certify;

const BOARD: u64 = 1;
const PC: u64 = 2;

fn kind(name: &str) -> HostKind {
    HostKind(name.into())
}

fn table(pairs: &[(&str, &str, &str)]) -> StandIns {
    let mut table = StandIns::new();
    for (own, host, stand_in) in pairs {
        let stand_in = StandIn {
            toolchain: tool(stand_in),
            level: Certify::SameCode,
        };
        let by_host: &mut BTreeMap<_, _> = table.entry(tool(own)).or_default();
        by_host.insert(kind(host), stand_in);
    }
    table
}

impl Farm {
    /// A farm with toolchain `a` for boards (kind `x`) and its variant `pc` for PCs, not certified yet, and a PC.
    fn with_pc() -> Self {
        let mut farm = Self::new();
        farm.tell(Event::ToolchainAdded(tool("pc"), kind("y")));
        farm.join(PC, Self::pc());
        farm
    }

    fn pc() -> WorkerHello {
        WorkerHello {
            host_kind: kind("y"),
            ..Self::hello("pc", 2, 4000, &["pc"])
        }
    }

    fn certify(&mut self) -> Vec<Action> {
        self.tell(Event::StandIns(table(&[("a", "y", "pc")])))
    }

    fn want_variant(&mut self, purpose: Purpose) -> Vec<Action> {
        let want = Want {
            request: RequestId(self.next_request),
            toolchain: tool("a"),
            variants: Variants::Certified,
            build: String::new(),
            purpose,
            demand: Demand::default(),
            avoid: Vec::new(),
            only: None,
        };
        self.next_request += 1;
        self.tell(Event::Want(AGENT, want))
    }
}

fn granted(actions: &[Action]) -> Grant {
    match actions {
        [Action::Grant(grant)] => *grant,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certified_variant_serves_the_jobs_that_may_run_on_it() {
    let mut farm = Farm::with_pc();
    let (kind_of_refusal, message) = {
        let actions = farm.want_variant(Purpose::Job);
        let (kind, message) = refused(&actions);
        (kind, message.to_owned())
    };
    assert_eq!(kind_of_refusal, RefusalKind::NoToolchain, "{message}");
    assert_eq!(farm.certify(), []);
    let grant = granted(&farm.want_variant(Purpose::Job));
    let run_as = grant.run_as.expect("on the variant");
    assert_eq!(
        (grant.toolchain, run_as.toolchain, run_as.level),
        (tool("a"), tool("pc"), Certify::SameCode)
    );
    let actions = farm.want();
    let (kind_of_refusal, message) = refused(&actions);
    assert_eq!(kind_of_refusal, RefusalKind::Unsupported, "{message}");
    // The toolchain's own workers serve both.
    farm.join(BOARD, Farm::hello("board", 1, 1000, &["a"]));
    let own = granted(&farm.want());
    assert_eq!((own.worker, own.run_as), (WorkerSessionId(BOARD), None));
    let again = granted(&farm.want_variant(Purpose::Job));
    assert_eq!((again.worker, again.run_as), (WorkerSessionId(PC), Some(run_as)));
    // And the PC's own jobs are nobody else's.
    let of_pc = granted_for(&mut farm, "pc");
    assert_eq!(of_pc, None, "both slots are taken");
    farm.done(again.grant, ran());
}

/// What a want for a toolchain's own workers gets.
fn granted_for(farm: &mut Farm, name: &str) -> Option<Grant> {
    let actions = farm.want_for(AGENT, "", name);
    actions.iter().find_map(|action| match action {
        Action::Grant(grant) => Some(*grant),
        _ => None,
    })
}

#[test]
fn what_waits_gets_a_variant_as_soon_as_it_is_certified_or_a_worker_comes() {
    let mut farm = Farm::with_pc();
    farm.join(BOARD, Farm::hello("board", 1, 4000, &["a"]));
    farm.certify();
    for _ in 0..3 {
        granted(&farm.want_variant(Purpose::Job));
    }
    assert_eq!(farm.want_variant(Purpose::Job), [], "all three slots are taken");
    let other = WorkerHello {
        name: Name::new("pc2").expect("a name"),
        ..Farm::pc()
    };
    let actions = farm.tell(Event::WorkerJoined(WorkerSessionId(3), other));
    let grants: Vec<Grant> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Grant(grant) => Some(*grant),
            _ => None,
        })
        .collect();
    assert!(
        grants.len() == 1 && grants[0].worker == WorkerSessionId(3),
        "{actions:?}"
    );
}

#[test]
fn revoked_certification_ends_unused_grants_and_gives_no_more() {
    let mut farm = Farm::with_pc();
    farm.certify();
    let running = granted(&farm.want_variant(Purpose::Job)).grant;
    farm.report(PC, 1, &[running], &[]);
    let unused = granted(&farm.want_variant(Purpose::Ahead)).grant;
    let revoked = farm.tell(Event::StandIns(StandIns::new()));
    assert_eq!(
        revoked,
        [
            Action::VoidAtAgent(AGENT, unused, VoidReason::Expired),
            Action::VoidAtWorker(WorkerSessionId(PC), unused, VoidReason::Expired)
        ],
        "what runs goes on"
    );
    let actions = farm.want_variant(Purpose::Job);
    assert_eq!(refused(&actions).0, RefusalKind::NoToolchain);
    farm.report(PC, 2, &[running], &[unused]);
    farm.done(running, ran());
    // Another identity under the variant's name has to be certified anew.
    farm.tell(Event::ToolchainAdded(tool("pc2"), kind("y")));
    farm.tell(Event::WorkerToolchain(
        WorkerSessionId(PC),
        tool("pc2"),
        ToolchainNews::Bundle,
    ));
    let actions = farm.want_variant(Purpose::Job);
    assert_eq!(refused(&actions).0, RefusalKind::NoToolchain);
    farm.tell(Event::StandIns(table(&[("a", "y", "pc2")])));
    let grant = granted(&farm.want_variant(Purpose::Job));
    assert_eq!(grant.run_as.map(|run_as| run_as.toolchain), Some(tool("pc2")));
}

#[test]
fn worker_on_which_the_variant_is_no_such_thing_gets_only_the_variants_own_jobs() {
    let mut farm = Farm::with_pc();
    farm.certify();
    let grant = granted(&farm.want_variant(Purpose::Job)).grant;
    farm.done(grant, Ending::Refused(RefusalKind::Uncertified));
    let actions = farm.want_variant(Purpose::Job);
    assert_eq!(refused(&actions).0, RefusalKind::NoToolchain);
    assert!(granted_for(&mut farm, "pc").is_some());
    let note = farm.scheduler.view().workers[0].note.clone();
    assert!(note.contains("golden objects"), "{note}");
    // Flags that are not alike say nothing about the worker; a new session is a new beginning.
    farm.join(PC + 1, Farm::pc());
    let grant = granted(&farm.want_variant(Purpose::Job)).grant;
    farm.done(grant, Ending::Refused(RefusalKind::Unlike));
    granted(&farm.want_variant(Purpose::Job));
}

#[test]
fn worker_that_does_not_know_of_variants_runs_none() {
    let mut farm = Farm::new();
    farm.tell(Event::ToolchainAdded(tool("pc"), kind("y")));
    let old = WorkerHello {
        variants: Variants::Never,
        ..Farm::pc()
    };
    farm.join(PC, old);
    farm.certify();
    let actions = farm.want_variant(Purpose::Job);
    assert_eq!(refused(&actions).0, RefusalKind::NoToolchain);
}

#[test]
fn variant_that_has_to_be_fetched_is_fetched_for_the_jobs_that_wait() {
    let mut farm = Farm::new();
    farm.tell(Event::ToolchainAdded(tool("pc"), kind("y")));
    let hello = WorkerHello {
        ready: Vec::new(),
        ..Farm::pc()
    };
    farm.join(PC, hello);
    farm.certify();
    farm.tell(Event::WorkerToolchain(
        WorkerSessionId(PC),
        tool("pc"),
        ToolchainNews::Fetchable,
    ));
    let fetch = Action::Prepare(WorkerSessionId(PC), tool("pc"), Effort::Fetch);
    assert_eq!(farm.want_variant(Purpose::Job), [fetch]);
    let come = farm.tell(Event::WorkerToolchain(
        WorkerSessionId(PC),
        tool("pc"),
        ToolchainNews::Bundle,
    ));
    assert!(granted(&come).run_as.is_some());
}

#[test]
fn removed_toolchains_stand_in_for_nobody() {
    for removed in ["a", "pc"] {
        let mut farm = Farm::with_pc();
        farm.certify();
        farm.tell(Event::ToolchainRemoved(tool(removed)));
        let actions = farm.want_variant(Purpose::Job);
        assert_eq!(refused(&actions).0, RefusalKind::NoToolchain, "without {removed}");
    }
}
