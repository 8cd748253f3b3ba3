//! One compile under way: what is known of it so far, and the account of it that `rdcc why` gives in the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::broker::Stay;
use super::coordinator_link::StandIn;
use super::driver::Sample;
use super::fallback::Reason;
use super::farm::Slot;
use super::flow::{CompilerNamed, Why};
use super::forecast::{Features, Prediction};
use super::preparation::{Order, Prepared, Trouble};
use super::toolchain_resolve::{Resolved, Unresolved};
use crate::compile::{CompileCommand, OwnOnly};
use crate::exchange::journal::output_of;
use crate::exchange::{CompileRequest, Compiler, Complaint, Driver, JobRecord, Mode, Race, Ran, Variant};
use crate::ids::{Name, ToolchainId};
use crate::job::{Outcome, Output};
use crate::runtime::clock::unix_ms;

/// Notes kept of one job: a job that fails again and again says the same things.
const NOTES_MAX: usize = 12;

/// What tells how much work a compile will be.
#[derive(Debug, Clone)]
pub struct Traits {
    /// The toolchain.
    pub toolchain: ToolchainId,
    /// The source, absolute.
    pub source: PathBuf,
    /// See [`super::flags_class`].
    pub flags_class: u64,
    /// Sum of the sizes of all files that it reads, bytes.
    pub closure_bytes: u64,
}

impl Traits {
    /// Returns them as the forecast wants them.
    pub fn features(&self) -> Features<'_> {
        Features {
            toolchain: self.toolchain,
            source: &self.source,
            flags_class: self.flags_class,
            closure_bytes: self.closure_bytes,
        }
    }
}

/// One compile.
#[derive(Debug)]
pub struct Job<P> {
    /// What the wrapper asked for.
    pub request: Arc<CompileRequest>,
    /// The command, once it is known to be distributable.
    pub command: Option<Arc<CompileCommand>>,
    /// Its toolchain, once that is found.
    pub resolved: Option<Resolved>,
    /// Or why it is not.
    pub unresolved: Option<Unresolved>,
    /// What the job is made from.
    pub order: Option<Arc<Order>>,
    /// The job, once it is made.
    pub prepared: Option<Arc<Prepared>>,
    /// The same, made for the variant that it was placed on.
    pub adapted: Option<Arc<Prepared>>,
    /// Where it may run.
    pub place: Option<P>,
    /// The worker that ran it.
    pub worker: String,
    /// Workers that have failed it.
    pub avoid: Vec<Name>,
    /// What it is known by from one build to the next, once it is made.
    pub traits: Option<Traits>,
    /// What it will cost.
    pub prediction: Option<Prediction>,
    /// Power of the place that it ran at.
    pub power: f64,
    /// The slot there.
    pub slot: Slot,
    /// The time that it took there.
    pub spent: Option<Duration>,
    /// Set when it runs here by choice.
    pub here: Option<Stay>,
    /// When the worker was asked to run it.
    pub asked: Option<Instant>,
    /// The compiler's answer, less what is to be delivered.
    pub outcome: Option<Outcome>,
    /// Set when the job was drawn to be audited.
    pub sample: Option<Sample>,
    /// The files to put in place.
    pub outputs: Vec<Output>,
    account: JobRecord,
}

impl<P> Job<P> {
    /// Starts with the request alone.
    pub fn new(request: CompileRequest) -> Self {
        let reason = Reason::Internal.name().to_owned();
        Self {
            request: Arc::new(request),
            command: None,
            resolved: None,
            unresolved: None,
            order: None,
            prepared: None,
            adapted: None,
            place: None,
            worker: String::new(),
            avoid: Vec::new(),
            traits: None,
            prediction: None,
            power: 1.0,
            slot: Slot::default(),
            spent: None,
            here: None,
            asked: None,
            outcome: None,
            sample: None,
            outputs: Vec::new(),
            account: JobRecord::new(Ran::Local { reason }),
        }
    }

    /// Tells whether a local run needs no toolchain.
    pub fn compiler_named(&self) -> CompilerNamed {
        match self.request.compiler {
            Compiler::At(_) => CompilerNamed::Yes,
            Compiler::OfToolchain(_) => CompilerNamed::No,
        }
    }

    /// Returns which driver the command seems to call, before anything is known of its toolchain.
    pub fn driver(&self) -> crate::compile::Driver {
        let cxx = match &self.request.compiler {
            Compiler::OfToolchain(driver) => *driver == Driver::Cxx,
            Compiler::At(path) => {
                let name = path.file_name().unwrap_or_default();
                memchr::memmem::find(name.as_encoded_bytes(), b"++").is_some()
            }
        };
        match cxx {
            true => crate::compile::Driver::Cxx,
            false => crate::compile::Driver::C,
        }
    }

    /// Notes how long a phase took.
    pub fn phase(&mut self, name: &str, began: Instant) {
        self.account.phase(name, began.elapsed());
    }

    /// Notes something for `rdcc why`.
    pub fn note(&mut self, note: String) {
        if !note.is_empty() && self.account.notes.len() < NOTES_MAX {
            self.account.notes.push(note);
        }
    }

    /// Notes what went wrong and returns the reason.
    pub fn trouble(&mut self, trouble: Trouble) -> Reason {
        if !trouble.note.is_empty() {
            self.note(format!("{}: {}", trouble.reason, trouble.note));
        }
        trouble.reason
    }

    /// Returns the job as it runs where it was placed.
    pub fn running(&self) -> Option<Arc<Prepared>> {
        self.adapted.clone().or_else(|| self.prepared.clone())
    }

    /// Notes the variant that the job was placed on, or none.
    pub fn on_variant(&mut self, stand_in: Option<&StandIn>) {
        self.adapted = None;
        self.account.variant = stand_in.map(|stand_in| Variant {
            toolchain: stand_in.toolchain.0.short(),
            host: stand_in.host.to_string(),
            level: stand_in.level.as_str().to_owned(),
        });
    }

    /// Notes why the job keeps to its own toolchain although that has variants.
    pub fn own_only(&mut self, why: OwnOnly) {
        self.account.own_only = Some(why.to_string());
    }

    /// Notes that a second copy ran, and whether it was the first to end; `None`: after all it did not.
    pub fn raced(&mut self, race: Option<Race>) {
        self.account.race = race;
    }

    /// Adds what a run has carried.
    pub fn carried(&mut self, sent: u64, received: u64) {
        self.account.bytes_sent += sent;
        self.account.bytes_received += received;
    }

    /// Returns the account of a job that a worker ran.
    pub fn account_of_remote(self, mode: Mode, failures: &[Reason]) -> JobRecord {
        let worker = self.worker.clone();
        let mut account = self.account(failures, Ran::Remote { mode, worker });
        account.success = false;
        account
    }

    /// Returns the account of a job that is left to the local compiler.
    pub fn account_of_local(self, why: Why, failures: &[Reason]) -> JobRecord {
        let reason = why.name().to_owned();
        self.account(failures, Ran::Local { reason })
    }

    fn account(mut self, failures: &[Reason], ran: Ran) -> JobRecord {
        let fallbacks = failures.iter().map(|reason| reason.name().to_owned());
        self.account.ran = ran;
        self.account.fallbacks = fallbacks.collect();
        self.account.outputs = self.written();
        self.account.toolchain = self.toolchain_name();
        self.account.ended_unix_ms = unix_ms();
        if let Some(outcome) = &self.outcome {
            let cpu = outcome.usage.user + outcome.usage.system;
            self.account.cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        }
        self.account
    }

    fn written(&self) -> Vec<PathBuf> {
        let cwd = &self.request.cwd;
        let output = match &self.command {
            Some(command) => Some(cwd.join(&command.output)),
            None => output_of(&self.request.argv).map(|output| cwd.join(output)),
        };
        output.into_iter().collect()
    }

    fn toolchain_name(&self) -> String {
        match (&self.resolved, &self.request.toolchain) {
            (Some(resolved), _) => resolved.toolchain.definition.name.to_string(),
            (None, Some(name)) => name.to_string(),
            (None, None) => String::new(),
        }
    }

    /// Returns what is said when the job fails for `reason` and must not run locally.
    pub fn complaint(&self, reason: Reason, coordinator: &str) -> Complaint {
        let toolchain = self.toolchain_name();
        let mut complaint = Complaint::new(match reason {
            Reason::NoCoordinator => format!("the coordinator at `{coordinator}` cannot be reached"),
            Reason::ToolchainNotOnFarm => {
                format!("no node of the farm has toolchain `{toolchain}` as it is installed here")
            }
            Reason::NoWorker => format!("no worker takes jobs for toolchain `{toolchain}`"),
            reason => format!("the compile cannot be distributed (`{reason}`)"),
        });
        if let Some(unresolved) = &self.unresolved {
            complaint = Complaint::new(unresolved.message.clone());
        }
        // The message is a note of the job's as well.
        let notes = self.account.notes.iter().filter(|note| **note != complaint.error);
        complaint.causes = notes.cloned().collect();
        let hint = match (&self.unresolved, reason) {
            (Some(unresolved), _) => unresolved.hint.clone(),
            (None, Reason::ToolchainNotOnFarm) => Some(format!(
                "`rdcc toolchain push {toolchain}.toml` gives it to the farm; `rdcc nodes` shows who has it"
            )),
            (None, Reason::NoCoordinator) => {
                Some("see `rdcc status`; without RDCC_STRICT it is compiled here".to_owned())
            }
            (None, _) => Some("see `rdcc status` and `rdcc nodes`".to_owned()),
        };
        complaint.hint = hint;
        complaint
    }
}
