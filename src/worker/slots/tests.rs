//! Claims as tables and short stories.

use std::time::Duration;

use super::*;
use crate::digest::Digest;
use crate::ids::ToolchainId;

const KEY: GrantKey = GrantKey([1; 32]);

fn toolchain() -> ToolchainId {
    ToolchainId(Digest::of(b"toolchain"))
}

fn claim(key: &GrantKey, grant: u64, agent: u64) -> Claim {
    let (grant, agent) = (GrantId(grant), AgentSessionId(agent));
    Claim {
        grant,
        agent,
        cores: CoreGroupId::default(),
        job: toolchain().into(),
        holder: Arc::from(""),
        token: key.token(grant, agent, toolchain()).to_vec(),
    }
}

fn slots(count: u32) -> Slots {
    let mut slots = Slots::new(vec![count]);
    slots.new_session(KEY);
    slots
}

fn start(slots: &mut Slots, grant: u64, agent: u64) -> Ticket {
    match slots.admit(&claim(&KEY, grant, agent), Instant::now()) {
        Ok(Admission::Start(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

fn wait(slots: &mut Slots, grant: u64, agent: u64) -> Ticket {
    match slots.admit(&claim(&KEY, grant, agent), Instant::now()) {
        Ok(Admission::Wait(ticket)) => ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn grant_serves_once_and_only_for_whom_it_was_made() {
    let mut slots = slots(4);
    start(&mut slots, 1, 7);
    assert!(slots.admit(&claim(&KEY, 1, 7), Instant::now()).is_err(), "used");
    assert!(
        slots.admit(&claim(&GrantKey([2; 32]), 2, 7), Instant::now()).is_err(),
        "forged"
    );
    let mut stolen = claim(&KEY, 2, 7);
    stolen.agent = AgentSessionId(8);
    assert!(slots.admit(&stolen, Instant::now()).is_err(), "stolen");
    assert!(
        Slots::new(vec![1]).admit(&claim(&KEY, 1, 1), Instant::now()).is_err(),
        "no session yet"
    );
}

#[test]
fn successor_waits_and_the_agent_with_fewest_running_jobs_is_next() {
    let mut slots = slots(2);
    let first = start(&mut slots, 1, 7);
    let second = start(&mut slots, 2, 7);
    let same = wait(&mut slots, 3, 7);
    let other = wait(&mut slots, 4, 8);
    assert!(
        slots.admit(&claim(&KEY, 5, 9), Instant::now()).is_err(),
        "enough are waiting"
    );
    assert_eq!(slots.finished(first), Some(other));
    assert_eq!(slots.finished(second), Some(same));
    assert_eq!(slots.running(), 2);
    assert_eq!(slots.finished(other), None);
}

#[test]
fn job_is_on_the_cores_that_it_was_given_as_far_as_they_have_a_slot() {
    let mut slots = Slots::new(vec![1, 2]);
    slots.new_session(KEY);
    let mut enter = |grant, cores| {
        let cores = CoreGroupId(cores);
        let claim = Claim {
            cores,
            ..claim(&KEY, grant, 7)
        };
        match slots.admit(&claim, Instant::now()) {
            Ok(Admission::Start(ticket) | Admission::Wait(ticket)) => ticket,
            Err(refusal) => panic!("{refusal:?}"),
        }
    };
    let tickets = [enter(1, 1), enter(2, 0), enter(3, 0), enter(4, 9)];
    let on: Vec<_> = tickets
        .iter()
        .map(|ticket| slots.cores(*ticket).map(|cores| cores.0))
        .collect();
    assert_eq!(
        on,
        [Some(1), Some(0), Some(1), None],
        "the third takes what is left, the fourth waits"
    );
    assert_eq!(slots.finished(tickets[1]), Some(tickets[3]));
    assert_eq!(slots.cores(tickets[3]), Some(CoreGroupId(0)), "there is no ninth group");
}

#[test]
fn job_that_gives_up_waiting_frees_no_slot() {
    let mut slots = slots(1);
    let first = start(&mut slots, 1, 7);
    let second = wait(&mut slots, 2, 7);
    assert_eq!(slots.finished(second), None);
    assert_eq!(slots.running(), 1);
    assert_eq!(slots.finished(first), None);
    assert_eq!(slots.grants(), []);
}

#[test]
fn voided_grant_starts_nothing_and_is_reported_unless_its_job_runs() {
    let mut slots = slots(1);
    start(&mut slots, 2, 7);
    wait(&mut slots, 3, 7);
    (1..=3).for_each(|grant| slots.void(GrantId(grant)));
    assert!(slots.admit(&claim(&KEY, 1, 7), Instant::now()).is_err());
    assert_eq!(slots.take_voided(), [GrantId(1)]);
    assert_eq!(slots.take_voided(), []);
    assert_eq!(slots.grants(), [GrantId(2), GrantId(3)]);
}

#[test]
fn only_the_present_sessions_grants_count() {
    let mut slots = slots(9);
    start(&mut slots, 1, 7);
    let next = GrantKey([2; 32]);
    slots.new_session(next.clone());
    assert!(slots.admit(&claim(&KEY, 2, 7), Instant::now()).is_err());
    assert!(
        slots.admit(&claim(&next, 1, 7), Instant::now()).is_ok(),
        "numbers belong to their session"
    );
    slots.new_session(next.clone());
    assert!(
        slots.admit(&claim(&next, 1, 7), Instant::now()).is_err(),
        "the same session goes on"
    );
}

#[test]
fn without_a_coordinator_a_place_serves_one_job_after_another_for_a_while() {
    let mut slots = slots(1);
    let now = Instant::now();
    let early = start(&mut slots, 1, 7);
    slots.finished(early);
    let first = start(&mut slots, 2, 7);
    slots.parted(now);
    assert!(slots.admit(&claim(&KEY, 2, 7), now).is_err(), "it runs");
    slots.finished(first);
    let mut stolen = claim(&KEY, 2, 7);
    stolen.holder = Arc::from("6162.client.rdcc");
    assert!(slots.admit(&stolen, now).is_err(), "another member's");
    assert!(
        slots.admit(&claim(&KEY, 1, 7), now).is_err(),
        "it ended before the last one"
    );
    for seconds in [0, 1, 100] {
        let later = now + Duration::from_secs(seconds);
        slots.parted(later);
        let Ok(Admission::Start(ticket)) = slots.admit(&claim(&KEY, 2, 7), later) else {
            panic!("refused after {seconds} s");
        };
        assert_eq!(slots.grants(), [GrantId(2)]);
        assert_eq!(slots.finished(ticket), None);
    }
    assert!(slots.admit(&claim(&KEY, 2, 7), now + REUSED_FOR).is_err(), "too long");
    start(&mut slots, 3, 7);
}

#[test]
fn what_the_coordinator_took_back_or_a_new_session_ended_is_not_used_again() {
    let mut slots = slots(3);
    let now = Instant::now();
    let tickets = [1, 2, 3].map(|grant| start(&mut slots, grant, 7));
    slots.void(GrantId(1));
    slots.finished(tickets[0]);
    slots.finished(tickets[1]);
    slots.void(GrantId(2));
    slots.parted(now);
    assert!(slots.admit(&claim(&KEY, 1, 7), now).is_err(), "taken back while it ran");
    assert!(slots.admit(&claim(&KEY, 2, 7), now).is_err(), "taken back afterwards");
    let next = GrantKey([2; 32]);
    slots.new_session(next.clone());
    slots.finished(tickets[2]);
    slots.parted(now);
    for key in [&KEY, &next] {
        let mut old = claim(key, 3, 7);
        old.token = KEY.token(GrantId(3), AgentSessionId(7), toolchain()).to_vec();
        assert!(slots.admit(&old, now).is_err());
    }
}

#[test]
fn memory_of_used_grants_is_bounded_and_errs_towards_refusing() {
    let mut slots = slots(1);
    for grant in 1..=2 * SPENT_MAX as u64 {
        let ticket = start(&mut slots, grant, 7);
        slots.finished(ticket);
    }
    assert_eq!(
        slots.session.as_ref().map_or(0, |session| session.spent.len()),
        SPENT_MAX
    );
    assert!(slots.admit(&claim(&KEY, 1, 7), Instant::now()).is_err());
}

#[test]
fn closed_worker_starts_nothing() {
    let mut slots = slots(1);
    slots.close();
    assert!(slots.admit(&claim(&KEY, 1, 7), Instant::now()).is_err());
}
