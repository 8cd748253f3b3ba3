//! What waits for one toolchain, and in which order it is served.
//!
//! Among agents and among an agent's builds the order is [`fairness`](super::fairness)'s. Within a build it is by
//! arrival, except that a job with much predicted work counts as having come earlier: long jobs first, without
//! letting short ones starve. Invariant: an agent is in `order` exactly if it has tickets, under its present share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::fairness::Share;
use super::moment::Moment;
use crate::ids::{AgentSessionId, RequestId};

/// A job counts as having come earlier by this many times its predicted work. Guessed: a job of five seconds passes
/// what came less than twenty seconds before it.
const LEAD_PER_WORK: u32 = 4;
/// The most that a job may be ahead of its arrival, so the longest that another can be passed over for it.
const LEAD_MAX: Duration = Duration::from_secs(60);

/// How many wants of one build are looked at for one slot, first and last, while few agents wait and else: enough to find
/// a short one for a slow worker.
const FEW_AGENTS: usize = 2;
const FEW_LOOK: (usize, usize) = (12, 4);
const MANY_LOOK: (usize, usize) = (3, 2);
/// How many builds of one agent are looked at for one slot.
const BUILDS_LOOK_MAX: usize = 4;

/// A want's place in the order of its build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    counts_from_us: i64,
    arrival: u64,
    /// The want.
    pub request: RequestId,
}

impl Ticket {
    /// Draws a ticket for a want that came as number `arrival` of all.
    pub fn draw(request: RequestId, arrival: u64, now: Moment, work: Option<Duration>) -> Self {
        let lead = work.unwrap_or_default().saturating_mul(LEAD_PER_WORK).min(LEAD_MAX);
        Self {
            counts_from_us: now.micros() - lead.as_micros() as i64,
            arrival,
            request,
        }
    }
}

#[derive(Debug)]
struct Line {
    share: Share,
    builds: BTreeMap<Arc<str>, BTreeSet<Ticket>>,
}

/// The wants that wait for one toolchain.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeSet<(Share, AgentSessionId)>,
    lines: BTreeMap<AgentSessionId, Line>,
    length: usize,
}

impl Queue {
    /// Returns how many wants wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Adds a want of an agent whose account stands at `share`.
    pub fn push(&mut self, agent: AgentSessionId, share: Share, build: &Arc<str>, ticket: Ticket) {
        let line = self.lines.entry(agent).or_insert_with(|| Line {
            share,
            builds: BTreeMap::new(),
        });
        if line.builds.is_empty() {
            self.order.insert((share, agent));
        }
        line.builds.entry(Arc::clone(build)).or_default().insert(ticket);
        self.length += 1;
    }

    /// Takes a want out.
    pub fn remove(&mut self, agent: AgentSessionId, build: &str, ticket: Ticket) {
        let Some(line) = self.lines.get_mut(&agent) else { return };
        let Some(tickets) = line.builds.get_mut(build) else {
            return;
        };
        if tickets.remove(&ticket) {
            self.length -= 1;
        }
        if tickets.is_empty() {
            line.builds.remove(build);
        }
        if line.builds.is_empty() {
            self.order.remove(&(line.share, agent));
            self.lines.remove(&agent);
        }
    }

    /// Moves an agent to where its account puts it now.
    pub fn reshare(&mut self, agent: AgentSessionId, share: Share) {
        if let Some(line) = self.lines.get_mut(&agent)
            && line.share != share
        {
            self.order.remove(&(line.share, agent));
            self.order.insert((share, agent));
            line.share = share;
        }
    }

    /// Returns the agent to be served next and its account.
    pub fn head(&self) -> Option<(Share, AgentSessionId)> {
        self.order.first().copied()
    }

    /// Returns the agents in the order in which they are to be served.
    pub fn agents(&self) -> impl Iterator<Item = AgentSessionId> {
        self.order.iter().map(|(_, agent)| *agent)
    }

    /// Returns the agent's wants that are looked at, in the order in which they are to be served: of each build the
    /// first few and the last few, which are the shortest; fewer where many agents wait. `account` tells how its builds'
    /// accounts stand.
    pub fn window(&self, agent: AgentSessionId, account: impl Fn(&str) -> Share) -> Vec<Ticket> {
        let (front, back) = if self.order.len() <= FEW_AGENTS {
            FEW_LOOK
        } else {
            MANY_LOOK
        };
        let Some(line) = self.lines.get(&agent) else {
            return Vec::new();
        };
        let mut builds: Vec<_> = line.builds.iter().collect();
        builds.sort_by_key(|(build, _)| account(build));
        let mut window = Vec::new();
        for (_, tickets) in builds.into_iter().take(BUILDS_LOOK_MAX) {
            window.extend(tickets.iter().take(front));
            let rest = tickets.len().saturating_sub(front).min(back);
            window.extend(tickets.iter().rev().take(rest));
        }
        window
    }

    /// Returns all that wait.
    pub fn all(&self) -> Vec<(AgentSessionId, RequestId)> {
        self.lines
            .iter()
            .flat_map(|(agent, line)| line.builds.values().flatten().map(|ticket| (*agent, ticket.request)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_of(jobs: &[(u64, u64)]) -> Vec<u64> {
        let agent = AgentSessionId(1);
        let build: Arc<str> = "b".into();
        let mut queue = Queue::default();
        for (number, (second, work)) in (0..).zip(jobs) {
            let now = Moment::at(Duration::from_secs(*second));
            let ticket = Ticket::draw(RequestId(number), number, now, Some(Duration::from_secs(*work)));
            queue.push(agent, Share::default(), &build, ticket);
        }
        let mut order = Vec::new();
        while let Some(ticket) = queue.window(agent, |_| Share::default()).first().copied() {
            order.push(ticket.request.0);
            queue.remove(agent, &build, ticket);
        }
        assert_eq!((queue.len(), queue.head()), (0, None));
        order
    }

    #[test]
    fn equal_jobs_are_served_in_order_of_arrival() {
        assert_eq!(order_of(&[(0, 1), (0, 1), (1, 1)]), [0, 1, 2]);
    }

    #[test]
    fn long_jobs_pass_short_ones_but_not_for_ever() {
        assert_eq!(order_of(&[(0, 0), (1, 5), (2, 1)]), [1, 2, 0]);
        assert_eq!(order_of(&[(0, 0), (61, 5000)]), [0, 1]);
    }

    #[test]
    fn agent_with_the_smaller_share_is_at_the_head() {
        let build: Arc<str> = "".into();
        let ticket = Ticket::draw(RequestId(1), 0, Moment::START, None);
        let mut queue = Queue::default();
        queue.push(AgentSessionId(1), Share::default(), &build, ticket);
        queue.push(AgentSessionId(2), Share::default(), &build, ticket);
        let mut share = Share::default();
        share.charge(1000, 1);
        queue.reshare(AgentSessionId(1), share);
        assert_eq!(queue.head().map(|(_, agent)| agent), Some(AgentSessionId(2)));
        queue.remove(AgentSessionId(2), "", ticket);
        assert_eq!(queue.head(), Some((share, AgentSessionId(1))));
        assert_eq!(queue.all(), [(AgentSessionId(1), RequestId(1))]);
    }
}
