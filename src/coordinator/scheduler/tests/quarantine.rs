//! Nodes that were found wrong.

use super::*;
use crate::coordinator::quarantine::Quarantine;

fn accuse(farm: &mut Farm, name: &str) -> Vec<Action> {
    let name = Name::new(name).expect("a name");
    farm.tell(Event::Accused(AGENT, name, "other bits".into()))
}

fn drain(farm: &mut Farm, name: &str, drain: Drain) -> Vec<Action> {
    farm.tell(Event::DrainSet(Name::new(name).expect("a name"), drain))
}

fn states(farm: &Farm) -> Vec<WorkerState> {
    farm.scheduler
        .view()
        .workers
        .iter()
        .map(|worker| worker.state)
        .collect()
}

#[test]
fn accused_node_loses_its_jobs_and_gets_none_until_it_is_released() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("bad", 2, 1000, &["a"]));
    let (unused, running) = (farm.granted().0, farm.granted().0);
    farm.report(1, 1, &[running], &[]);
    let actions = accuse(&mut farm, "bad");
    for grant in [unused, running] {
        let void = Action::VoidAtAgent(AGENT, grant, VoidReason::Distrusted);
        assert!(actions.contains(&void), "{actions:?}");
    }
    assert!(actions.contains(&Action::KeepQuarantine));
    assert_eq!(states(&farm), [WorkerState::Quarantined]);
    assert!(farm.scheduler.view().workers[0].note.contains("u@h: other bits"));
    assert_eq!(accuse(&mut farm, "bad"), [], "it is in quarantine already");

    farm.join(2, Farm::hello("good", 1, 1000, &["a"]));
    assert_eq!(farm.granted().1, 2);
    assert_eq!(farm.want(), [], "`bad` gets none");
    farm.report(1, 2, &[], &[unused]);
    drain(&mut farm, "bad", Drain::On);
    let actions = drain(&mut farm, "bad", Drain::Off);
    assert!(
        actions.iter().any(|action| matches!(action, Action::Grant(_))),
        "{actions:?}"
    );
    assert_eq!(states(&farm), [WorkerState::Ready, WorkerState::Ready]);
}

#[test]
fn quarantine_outlives_sessions_and_the_coordinator() {
    let mut farm = Farm::new();
    farm.join(1, Farm::hello("bad", 1, 1000, &["a"]));
    accuse(&mut farm, "bad");
    farm.join(2, Farm::hello("bad", 1, 1000, &["a"]));
    assert_eq!(states(&farm), [WorkerState::Quarantined]);

    let kept = Quarantine::unpack(&farm.scheduler.quarantine().pack()).expect("whole");
    let mut farm = Farm::new();
    farm.tell(Event::QuarantineKept(kept));
    let name = Name::new("bad").expect("a name");
    assert!(
        farm.scheduler.knows_worker(&name),
        "it can be released before it is back"
    );
    farm.join(1, Farm::hello("bad", 1, 1000, &["a"]));
    assert_eq!(states(&farm), [WorkerState::Quarantined]);
    drain(&mut farm, "bad", Drain::Off);
    assert_eq!((states(&farm), farm.granted().1), (vec![WorkerState::Ready], 1));
}

#[test]
fn nobody_talks_more_than_a_quarter_of_the_nodes_out_of_the_farm() {
    let mut farm = Farm::new();
    for number in 1..=9 {
        farm.join(number, Farm::hello(&format!("n{number}"), 1, 1000, &["a"]));
    }
    for number in 1..=9 {
        accuse(&mut farm, &format!("n{number}"));
    }
    accuse(&mut farm, "nobody");
    let quarantined = states(&farm)
        .into_iter()
        .filter(|state| *state == WorkerState::Quarantined);
    assert_eq!(quarantined.count(), 2);
    let note = farm.scheduler.view().workers[8].note.clone();
    assert!(
        note.contains("accused by u@h") && note.contains("rdcc drain n9"),
        "{note}"
    );
    drain(&mut farm, "n9", Drain::Off);
    assert_eq!(farm.scheduler.view().workers[8].note, "");
}
