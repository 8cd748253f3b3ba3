//! A simulated agent: so many jobs, so many at a time; each asks for a place until it ran or is given up for local.

use std::collections::BTreeMap;
use std::time::Duration;

use rdcc::ids::{AgentSessionId, GrantId, RequestId, ToolchainId};
use rdcc::job::Variants;

/// One agent.
#[derive(Debug)]
pub struct SimAgent {
    pub session: Option<AgentSessionId>,
    pub todo: Vec<SimJob>,
    pub next_request: u64,
    /// Every job that was begun and has not ended is here under its present request, and nowhere else.
    pub jobs: BTreeMap<RequestId, (SimJob, JobState)>,
    pub ran: usize,
    pub local: usize,
    pub longest_wait: Duration,
}

/// One job.
#[derive(Debug, Clone, Copy)]
pub struct SimJob {
    pub toolchain: ToolchainId,
    pub variants: Variants,
    pub work: Duration,
    pub attempts: u32,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Asked for, at this time.
    Wanted(Duration),
    /// Has a place and has not shown it to the worker yet.
    Granted(GrantId),
    /// Shown to the worker; the answer will come, or the link breaks.
    Shown(GrantId),
}

impl SimAgent {
    pub fn new(todo: Vec<SimJob>) -> Self {
        Self {
            session: None,
            todo,
            next_request: 1,
            jobs: BTreeMap::new(),
            ran: 0,
            local: 0,
            longest_wait: Duration::ZERO,
        }
    }

    /// Returns the job that holds `grant`.
    pub fn holder(&self, grant: GrantId) -> Option<RequestId> {
        let holds = |state: &JobState| matches!(state, JobState::Granted(g) | JobState::Shown(g) if *g == grant);
        let found = self.jobs.iter().find(|(_, (_, state))| holds(state));
        found.map(|(request, _)| *request)
    }

    pub fn is_through(&self) -> bool {
        self.todo.is_empty() && self.jobs.is_empty()
    }
}
