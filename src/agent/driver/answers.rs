//! How a job ends for its wrapper: with the compiler's words, by a local run, or in failure; each is counted once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use super::Driver;
use super::costs::{ended, guess_memory, local_command};
use crate::agent::build_log::Entry;
use crate::agent::builds::EndedJob;
use crate::agent::fallback::Reason;
use crate::agent::farm::Farm;
use crate::agent::flow::{Flow, Why};
use crate::agent::job::Job;
use crate::agent::local_share;
use crate::agent::socket::Answer;
use crate::agent::watch;
use crate::exchange::{Compiler, Complaint, Connection, DEPTH, Finished, LocalRun, Reply};

impl<F: Farm> Driver<F> {
    pub(super) fn finish(&self, mut job: Job<F::Place>, flow: &Flow, entry: Entry) -> Answer {
        let Some(outcome) = &mut job.outcome else {
            return Reply::Failed(Complaint::new("a job ended without an answer")).into();
        };
        let finished = Finished {
            status: outcome.status,
            stdout: std::mem::take(&mut outcome.stdout),
            stderr: std::mem::take(&mut outcome.stderr),
        };
        if let Some(sample) = job.sample.take() {
            self.auditor.audit(sample);
        }
        let (source, spent, power, slot) = (watch::source(&job.request.argv), job.spent, job.power, job.slot);
        let mut account = job.account_of_remote(flow.mode(), flow.failures());
        account.success = finished.status.success();
        let ended = EndedJob {
            spent,
            power,
            slot,
            ..ended(source, &account)
        };
        self.end(entry, ended);
        self.ledger.record(account);
        Reply::Finished(finished).into()
    }

    pub(super) async fn run_here(
        &self,
        mut job: Job<F::Place>,
        flow: &Flow,
        why: Why,
        pid: u32,
        entry: Entry,
    ) -> Answer {
        let Some((program, flags)) = local_compiler(&job) else {
            return self.fail(&job, Reason::ToolchainUnknown);
        };
        let began = Instant::now();
        let by_choice = job.here.take();
        // One that another command waits for, which has a place already, takes none.
        let nested = job.request.variable(DEPTH).is_some();
        let place = match &by_choice {
            None if !nested => {
                let command = local_command(&job, pid);
                Some(self.slots.take(command, || guess_memory(&job)).await)
            }
            _ => None,
        };
        job.phase("local_slot", began);
        let niceness = if by_choice.is_some() { local_share::NICENESS } else { 0 };
        let (source, traits) = (watch::source(&job.request.argv), job.traits.take());
        let account = job.account_of_local(why, flow.failures());
        let runs = self.runs_here(ended(source, &account), entry, by_choice.zip(traits), place);
        self.ledger.record(account);
        Answer {
            reply: Reply::RunLocally(LocalRun {
                program,
                flags,
                connection: if nested { Connection::Close } else { Connection::Inherit },
                niceness,
            }),
            until_gone: (!nested).then(|| Box::new(runs) as Box<dyn Send>),
        }
    }

    pub(super) fn fail(&self, job: &Job<F::Place>, reason: Reason) -> Answer {
        Reply::Failed(job.complaint(reason, &self.farm.coordinator())).into()
    }
}

/// Returns the compiler for a local run, with the flags in front of the user's own.
fn local_compiler<P>(job: &Job<P>) -> Option<(PathBuf, Vec<OsString>)> {
    match (&job.request.compiler, &job.resolved, &job.unresolved) {
        (Compiler::At(path), _, _) => Some((path.clone(), Vec::new())),
        (_, Some(resolved), _) => Some((resolved.program.clone(), resolved.flags.clone())),
        (_, None, Some(unresolved)) => Some((unresolved.program.clone()?, unresolved.flags.clone())),
        (_, None, None) => None,
    }
}
