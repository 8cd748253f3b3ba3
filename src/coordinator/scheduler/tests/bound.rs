//! Wants that name the one worker that may serve them.

use super::*;

fn want_at(farm: &mut Farm, worker: &str) -> Vec<Action> {
    let want = Want {
        request: RequestId(farm.next_request),
        toolchain: tool("a"),
        variants: Variants::Never,
        build: String::new(),
        purpose: Purpose::Job,
        demand: Demand::default(),
        avoid: Vec::new(),
        only: Some(Name::new(worker).expect("a name")),
    };
    farm.next_request += 1;
    farm.tell(Event::Want(AGENT, want))
}

fn news(farm: &mut Farm, worker: u64, news: ToolchainNews) -> Vec<Action> {
    farm.tell(Event::WorkerToolchain(WorkerSessionId(worker), tool("a"), news))
}

#[test]
fn named_worker_serves_however_slow_it_is_and_however_many_are_faster() {
    let mut farm = Farm::new();
    for id in 1..=30 {
        farm.join(id, Farm::hello(&format!("fast{id}"), 2, 4000, &["a"]));
    }
    farm.join(99, Farm::hello("slow", 1, 50, &["a"]));
    let actions = want_at(&mut farm, "slow");
    let [Action::Grant(grant)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(grant.worker, WorkerSessionId(99));
    assert_eq!(
        want_at(&mut farm, "slow"),
        [],
        "its slot is taken; the others do not count"
    );
    let next = farm.done(grant.grant, ran());
    assert!(matches!(next.as_slice(), [Action::Grant(next)] if next.worker == WorkerSessionId(99)));
}

#[test]
fn named_worker_fetches_the_toolchain_that_others_have() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("has", 2, 1000, &["a"]));
    farm.join(2, Farm::hello("strong", 8, 4000, &[]));
    farm.join(3, Farm::hello("named", 1, 500, &[]));
    news(&mut farm, 2, ToolchainNews::Fetchable);
    news(&mut farm, 3, ToolchainNews::Fetchable);
    let asked = want_at(&mut farm, "named");
    assert_eq!(asked, [Action::Prepare(WorkerSessionId(3), tool("a"), Effort::Fetch)]);
    let got = news(&mut farm, 3, ToolchainNews::Bundle);
    assert!(matches!(got.as_slice(), [Action::Grant(grant)] if grant.worker == WorkerSessionId(3)));
}

#[test]
fn named_worker_that_cannot_serve_is_said_with_its_reason() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("has", 2, 1000, &["a"]));
    let (kind, message) = refused_owned(&want_at(&mut farm, "nobody"));
    assert_eq!(kind, RefusalKind::Busy);
    assert!(message.contains("`nobody` is not connected"), "{message}");

    farm.join(2, Farm::hello("poor", 1, 1000, &[]));
    assert_eq!(want_at(&mut farm, "poor"), [], "it is being asked");
    let (kind, message) = refused_owned(&news(&mut farm, 2, ToolchainNews::Failed("disk full".into())));
    assert_eq!(kind, RefusalKind::NoToolchain);
    assert!(message.contains("disk full"), "{message}");

    farm.join(3, Farm::hello("other", 1, 1000, &["a"]));
    farm.granted_at("has");
    farm.granted_at("has");
    assert_eq!(want_at(&mut farm, "has"), []);
    let drained = farm.tell(Event::DrainSet(Name::new("has").expect("a name"), Drain::On));
    let refusal = drained.iter().find(|action| matches!(action, Action::Refuse(..)));
    let (kind, message) = refused_owned(&[refusal.expect("refused at once").clone()]);
    assert_eq!(kind, RefusalKind::Busy);
    assert!(message.contains("takes no jobs"), "{message}");
}

impl Farm {
    fn granted_at(&mut self, worker: &str) {
        let actions = want_at(self, worker);
        assert!(matches!(actions.as_slice(), [Action::Grant(_)]), "{actions:?}");
    }
}

fn refused_owned(actions: &[Action]) -> (RefusalKind, String) {
    let (kind, message) = refused(actions);
    (kind, message.to_owned())
}
