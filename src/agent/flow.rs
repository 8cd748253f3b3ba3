//! One compile from the wrapper's request to its reply, as a state machine: what just happened in, what to do next out.
//!
//! The order is: look at the command, find the toolchain, gather the job (mode A: the files that the unit includes, mode
//! B: the preprocessed text), get a place, run there, check what the compiler really read, put its files in place. One
//! action is under way at any time; the driver performs it and reports one event. Every failure goes through
//! [`fallback::decide`], so nothing is retried anywhere else. No clock, no I/O, no data of the job's own: only what
//! decisions depend on.
//!
//! Invariants: files are put in place only after a check that found nothing; each job ends in exactly one of
//! [`Action::Finish`], [`Action::RunHere`] and [`Action::Fail`]; what the compiler said is passed on once or not at all.

use super::fallback::{self, Reason, Step};
use super::placing::Choice;
use crate::compile::LocalReason;
use crate::exchange::{Mode, Wish};
use crate::job::Variants;

#[cfg(test)]
mod tests;

/// What the driver is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read the command line.
    Analyse,
    /// Find the toolchain, its identity and the compiler to run.
    Resolve,
    /// Find the files that the unit includes and make the job of them.
    Gather(Closure),
    /// Run the local preprocessor and make the job of its text.
    Preprocess,
    /// Ask for a place.
    Place,
    /// Make the job one for the variant that it was placed on.
    Adapt,
    /// Run the job at the place.
    Run,
    /// Compare what the compiler read with what was sent, and both with the disk.
    Check,
    /// Put the files in place.
    Deliver,
    /// Tell the wrapper what the compiler said.
    Finish,
    /// Tell the wrapper to run the compiler itself.
    RunHere(Why),
    /// Tell the wrapper that the job has failed for want of this.
    Fail(Reason),
}

/// Where the list of included files comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closure {
    /// From an earlier scan if every file it looked at is unchanged, else from a scan.
    Remembered,
    /// From a scan of the files as they are now.
    Scanned,
    /// From the local compiler's own `-M`.
    Listed,
}

/// Why a command is left to the local compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is not one that can be distributed.
    Command(LocalReason),
    /// Distributing it did not work out.
    Failure(Reason),
    /// It ends sooner here, as far as one can tell.
    Choice(Choice),
}

impl Why {
    /// Returns the reason's stable name.
    pub fn name(self) -> &'static str {
        match self {
            Why::Command(reason) => reason.name(),
            Why::Failure(reason) => reason.name(),
            Why::Choice(choice) => choice.name(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The command is a compile of one source.
    Distributable,
    /// The command has to run here.
    Undistributable(LocalReason),
    /// Toolchain and compiler are known.
    Resolved,
    /// There is no compiler to run, here or elsewhere.
    NoCompiler(Reason),
    /// The job is made.
    Gathered(Gathered),
    /// There is a place for it.
    Placed,
    /// There is a place for it, on a variant of its toolchain.
    PlacedOnVariant,
    /// The job is one for the variant.
    Adapted,
    /// It is to run here, by choice.
    StaysHere(Choice),
    /// The compiler answered.
    Answered(Answer),
    /// What the compiler read is what was sent, and the disk still has it.
    Checked,
    /// The files are in place.
    Delivered,
    /// The action failed.
    Failed(Reason),
}

/// What a job's sources say that decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gathered {
    /// The unit names the time of the compile, and nothing fixes it.
    pub names_time: bool,
    /// The unit names files that only the assembler reads.
    pub assembler_reads: bool,
    /// Diagnostics would come out in another language at the worker.
    pub foreign_locale: bool,
}

/// What the compiler's answer says that decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// It reported success.
    pub success: bool,
    /// It wrote something to stdout or stderr.
    pub spoke: bool,
    /// It failed, and its words hint at the machine rather than at the program.
    pub suspect: bool,
}

/// One job's state.
#[derive(Debug)]
pub struct Flow {
    wish: Wish,
    /// Whether the wrapper told the compiler's path, so that a local run needs no toolchain.
    compiler: CompilerNamed,
    mode: Mode,
    closure: Closure,
    failures: Vec<Reason>,
    gathered: Gathered,
    doing: Action,
    /// What it was placed on last.
    runs_on: Variants,
    /// Set while the toolchain is looked up only for the compiler's path.
    local: Option<LocalReason>,
}

/// Whether the request names the compiler itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompilerNamed {
    /// By its path.
    Yes,
    /// The toolchain's own is meant.
    No,
}

impl Flow {
    /// Starts a job; its first action is [`Flow::action`].
    pub fn new(wish: Wish, compiler: CompilerNamed) -> Self {
        Self {
            wish,
            compiler,
            mode: Mode::A,
            closure: Closure::Remembered,
            failures: Vec::new(),
            gathered: Gathered::default(),
            doing: Action::Analyse,
            runs_on: Variants::Never,
            local: None,
        }
    }

    /// Returns what is to be done now.
    pub fn action(&self) -> Action {
        self.doing
    }

    /// Returns who preprocesses.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns what has failed so far, in order.
    pub fn failures(&self) -> &[Reason] {
        &self.failures
    }

    /// Tells whether the job may still run on a variant of its toolchain: until one has failed it, or it is preprocessed here.
    pub fn variants(&self) -> Variants {
        match self.mode {
            Mode::A if !self.failures.iter().any(|reason| reason.is_of_variant()) => Variants::Certified,
            Mode::A | Mode::B => Variants::Never,
        }
    }

    /// Takes the result of the action under way and returns the next one.
    pub fn handle(&mut self, event: Event) -> Action {
        self.doing = match (self.doing, event) {
            (Action::Analyse, Event::Distributable) => self.distribute(),
            (Action::Analyse, Event::Undistributable(reason)) => match self.compiler {
                CompilerNamed::Yes => Action::RunHere(Why::Command(reason)),
                CompilerNamed::No => {
                    self.local = Some(reason);
                    Action::Resolve
                }
            },
            (Action::Resolve, Event::Resolved) => self.resolved(),
            // With the toolchain's own flags in front the command may be another one.
            (Action::Resolve, Event::Undistributable(reason)) => Action::RunHere(Why::Command(reason)),
            (Action::Resolve, Event::NoCompiler(reason)) => Action::Fail(reason),
            (Action::Gather(_) | Action::Preprocess, Event::Gathered(gathered)) => self.gathered(gathered),
            (Action::Place, Event::Placed) => self.placed(Variants::Never, Action::Run),
            (Action::Place, Event::PlacedOnVariant) => self.placed(Variants::Certified, Action::Adapt),
            (Action::Adapt, Event::Adapted) => Action::Run,
            (Action::Place, Event::StaysHere(choice)) => Action::RunHere(Why::Choice(choice)),
            (Action::Run, Event::Answered(answer)) => self.answered(answer),
            (Action::Check, Event::Checked) => Action::Deliver,
            (Action::Deliver, Event::Delivered) => Action::Finish,
            (_, Event::Failed(reason)) => self.failed(reason),
            // The driver reported something else than what it was asked for: a bug, which ends this job only.
            _ => self.failed(Reason::Internal),
        };
        self.doing
    }

    fn distribute(&self) -> Action {
        match (self.wish, self.compiler) {
            (Wish::Here, CompilerNamed::Yes) => Action::RunHere(Why::Failure(Reason::Disabled)),
            _ => Action::Resolve,
        }
    }

    fn resolved(&self) -> Action {
        match (self.local, self.wish) {
            (Some(reason), _) => Action::RunHere(Why::Command(reason)),
            (None, Wish::Here) => Action::RunHere(Why::Failure(Reason::Disabled)),
            (None, _) => self.gather(),
        }
    }

    fn gather(&self) -> Action {
        match self.mode {
            Mode::A => Action::Gather(self.closure),
            Mode::B => Action::Preprocess,
        }
    }

    fn gathered(&mut self, gathered: Gathered) -> Action {
        self.gathered = gathered;
        if gathered.names_time {
            return self.failed(Reason::TimeMacros);
        }
        Action::Place
    }

    fn placed(&mut self, runs_on: Variants, next: Action) -> Action {
        self.runs_on = runs_on;
        next
    }

    fn answered(&mut self, answer: Answer) -> Action {
        if self.runs_on == Variants::Certified && (!answer.success || answer.spoke) {
            return self.failed(Reason::VariantSpoke);
        }
        if !answer.success && answer.suspect {
            return self.failed(Reason::SuspectFailure);
        }
        if !answer.success && self.gathered.assembler_reads {
            return self.failed(Reason::AssemblerInclude);
        }
        if answer.spoke && self.mode == Mode::B {
            return self.failed(Reason::PreprocessedDiagnostics);
        }
        if answer.spoke && self.gathered.foreign_locale {
            return self.failed(Reason::LocaleDiagnostics);
        }
        Action::Check
    }

    /// Puts down to the variant what says nothing about the job's own toolchain.
    fn as_of_variant(&self, reason: Reason) -> Reason {
        match (self.runs_on, self.doing, reason) {
            (Variants::Certified, Action::Adapt, _) => Reason::VariantUnprepared,
            (Variants::Certified, Action::Run, Reason::WorkerUnsupported) => Reason::VariantUnfit,
            (
                Variants::Certified,
                Action::Check,
                Reason::DependencyMismatch
                | Reason::UnverifiedFailure
                | Reason::OutputUnexpected
                | Reason::OutputMissing
                | Reason::ObjectForeign,
            ) => Reason::VariantDiffers,
            (_, _, reason) => reason,
        }
    }

    fn failed(&mut self, reason: Reason) -> Action {
        if let Some(local) = self.local {
            // Nothing was to be distributed: the toolchain was asked for its compiler's path only.
            return Action::RunHere(Why::Command(local));
        }
        let reason = self.as_of_variant(reason);
        let step = fallback::decide(reason, &self.failures, self.mode, self.wish);
        self.failures.push(reason);
        match step {
            Step::PlaceAgain => Action::Place,
            Step::ResolveAgain => Action::Resolve,
            Step::GatherAgain => {
                // What was remembered, or listed at another time, is no better the second time.
                self.closure = Closure::Scanned;
                self.gather()
            }
            Step::AskCompiler => {
                self.closure = Closure::Listed;
                self.gather()
            }
            Step::Preprocess => {
                self.mode = Mode::B;
                self.gather()
            }
            Step::Local(reason) => {
                // Told as the reason of the local run; a fallback is what was followed by another attempt.
                self.failures.pop();
                Action::RunHere(Why::Failure(reason))
            }
            Step::Fail(reason) => Action::Fail(reason),
        }
    }
}
