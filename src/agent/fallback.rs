//! What happens when something does not work: the one place where a failure becomes a retry, a local run or an error.
//!
//! Every failure has a [`Reason`] with a stable name, counted in the ledger. Its [`Rule`] says how often the same thing
//! is tried again and what comes after; [`decide`] applies it to one job's history. A compiler error is no failure and
//! never comes here. Invariant: a job ends after at most [`ATTEMPTS_MAX`] failures.

use crate::exchange::{Mode, Wish};

#[cfg(test)]
mod tests;

/// Failures after which a job runs locally whatever their rules say. The rules alone add up to fewer for any one
/// cause; this bounds their mixture.
pub const ATTEMPTS_MAX: usize = 8;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => $rule:expr,)*) => {
        /// Why a job could not go on as it was going.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// Returns the reason's stable name, as it stands in `rdcc stats --json`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)*
                }
            }

            /// Returns what follows from it.
            pub const fn rule(self) -> Rule {
                match self {
                    $(Reason::$variant => $rule,)*
                }
            }
        }
    };
}

reasons! {
    /// `RDCC_DISABLE` is set.
    Disabled = "disabled" => Rule::HERE,
    /// No toolchain file of that name is known, here or at the coordinator.
    ToolchainUnknown = "toolchain_unknown" => Rule::farm(),
    /// The toolchain's file cannot be read.
    ToolchainInvalid = "toolchain_file_invalid" => Rule::farm(),
    /// No toolchain is named, and none has the compiler that was called.
    NoToolchain = "no_toolchain" => Rule::HERE,
    /// The toolchain has another compiler than the one that was called.
    CompilerNotInToolchain = "compiler_not_in_toolchain" => Rule::farm(),
    /// The local compiler could not be taken apart.
    CaptureFailed = "toolchain_capture_failed" => Rule::farm(),
    /// A file of the toolchain changed while a job was made.
    ToolchainChanged = "toolchain_changed" => Rule::farm().resolve_again(2),
    /// `-B` leads to compiler parts that are not the toolchain's.
    ForeignParts = "foreign_parts" => Rule::HERE,
    /// A header is missing: the local compiler says so in its own words.
    MissingHeader = "missing_header" => Rule::HERE,
    /// A device, a FIFO or a file beyond all measure is included: whoever reads it first takes it from the compiler.
    SpecialInclude = "special_include" => Rule::HERE,
    /// The coordinator does not have the toolchain as it is installed here.
    ToolchainNotOnFarm = "toolchain_not_on_farm" => Rule::farm(),
    /// The coordinator cannot be reached.
    NoCoordinator = "no_coordinator" => Rule::farm(),
    /// No worker takes jobs for this toolchain.
    NoWorker = "no_worker" => Rule::farm(),
    /// The link to the worker broke.
    WorkerLost = "worker_lost" => Rule::farm().place_again(3),
    /// The worker's own machinery failed.
    WorkerFault = "worker_fault" => Rule::farm().place_again(3),
    /// The worker has no place after all.
    WorkerBusy = "worker_busy" => Rule::farm().place_again(6),
    /// The worker cannot run this job.
    WorkerUnsupported = "worker_unsupported" => Rule::HERE,
    /// The worker does not get the toolchain.
    WorkerNoToolchain = "worker_no_toolchain" => Rule::farm().place_again(2),
    /// The job went beyond a limit of the worker's.
    LimitReached = "limit_reached" => Rule::HERE,
    /// The worker's sandbox kept the job from writing somewhere.
    SandboxReadOnly = "sandbox_read_only" => Rule::HERE,
    /// The scanner cannot tell which files the unit includes.
    ScanUndecidable = "scan_undecidable" => Rule::HERE.ask_compiler_first(),
    /// Neither can the compiler's own `-M`.
    CompilerListFailed = "compiler_list_failed" => Rule::HERE.preprocess_first(),
    /// The compiler read other files than the scan found.
    DependencyMismatch = "dependency_mismatch" => Rule::HERE.preprocess_first(),
    /// A compile failed in a way that may come from a file that is missing at the worker.
    UnverifiedFailure = "unverified_failure" => Rule::HERE,
    /// A file changed between scan and compile.
    FileChanged = "file_changed" => Rule::HERE.gather_again(3),
    /// A file that the compile reads cannot be read by us.
    InputUnreadable = "input_unreadable" => Rule::HERE,
    /// The object depends on the time and place of the compile: `__DATE__`, `__TIME__`, `__TIMESTAMP__`.
    TimeMacros = "time_macros" => Rule::HERE,
    /// Diagnostics in a language that the worker does not speak.
    LocaleDiagnostics = "locale_diagnostics" => Rule::HERE,
    /// The local preprocessor had something to say.
    PreprocessorDiagnostics = "preprocessor_diagnostics" => Rule::HERE,
    /// The command cannot be cut into preprocessing and compiling.
    NotSplittable = "not_splittable" => Rule::HERE,
    /// Diagnostics about preprocessed text lack their source lines.
    PreprocessedDiagnostics = "preprocessed_diagnostics" => Rule::HERE,
    /// Assembly failed, and the source names files that only the assembler reads.
    AssemblerInclude = "assembler_include" => Rule::HERE,
    /// The compiler's words hint at the machine, not at the program: no memory, no disk, a crash.
    SuspectFailure = "suspect_failure" => Rule::HERE,
    /// The directory for an output is not there.
    OutputDirectoryMissing = "output_directory_missing" => Rule::HERE,
    /// What stands at an output's path is no plain file.
    OutputSpecial = "output_special" => Rule::HERE,
    /// We may not write at an output's path.
    OutputNotWritable = "output_not_writable" => Rule::HERE,
    /// Writing an output failed.
    OutputFailed = "output_failed" => Rule::HERE,
    /// The worker sent a file that the command does not write.
    OutputUnexpected = "output_unexpected" => Rule::HERE,
    /// The compiler reported success and its output did not come.
    OutputMissing = "output_missing" => Rule::HERE,
    /// The object is for another machine than the toolchain makes objects for.
    ObjectForeign = "object_foreign" => Rule::HERE,
    /// Two workers made different results of one job: one of them cannot be trusted.
    ResultsDiffer = "results_differ" => Rule::HERE,
    /// No worker at hand has the job's own toolchain, and the job may not run on a variant of it.
    OwnToolchainOnly = "own_toolchain_only" => Rule::HERE,
    /// The job cannot be made for the variant that it was placed on.
    VariantUnprepared = "variant_unprepared" => Rule::HERE.place_again(1),
    /// What the worker has of the variant does not make the objects that it was certified by.
    VariantUncertified = "variant_uncertified" => Rule::HERE.place_again(1),
    /// Under the job's flags the variant is another compiler.
    VariantUnlike = "variant_unlike" => Rule::HERE.place_again(1),
    /// The worker cannot run the job on the variant: two of its files are at one path, say.
    VariantUnfit = "variant_unfit" => Rule::HERE.place_again(1),
    /// The variant failed or said something: what the job's own compiler says counts.
    VariantSpoke = "variant_spoke" => Rule::HERE.place_again(1),
    /// The variant read or wrote other files than the job's own compiler would have.
    VariantDiffers = "variant_differs" => Rule::HERE.place_again(1),
    /// The agent is ending.
    Stopping = "agent_stopping" => Rule::HERE,
    /// A bug of ours.
    Internal = "internal_error" => Rule::HERE,
}

impl Reason {
    /// Tells whether the job is to keep to its own toolchain from now on.
    pub fn is_of_variant(self) -> bool {
        matches!(
            self,
            Reason::VariantUnprepared
                | Reason::VariantUncertified
                | Reason::VariantUnlike
                | Reason::VariantUnfit
                | Reason::VariantSpoke
                | Reason::VariantDiffers
        )
    }

    /// Tells whether another worker would probably do better.
    pub fn is_of_worker(self) -> bool {
        matches!(self, Reason::WorkerFault | Reason::WorkerNoToolchain)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How often the toolchain is looked at anew.
    resolve_again: usize,
    /// How often another place is asked for, with the job as it is.
    place_again: usize,
    /// How often the job is made anew from the files as they are now.
    gather_again: usize,
    /// What is tried before the local compiler gets the command.
    before_local: BeforeLocal,
    /// What the failure is put down to: only the farm's failures are errors in strict mode.
    blame: Blame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BeforeLocal {
    Nothing,
    AskCompiler,
    Preprocess,
}

/// What a failure is put down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The command, its files, or our own caution: a local run is the right answer, also in strict mode.
    Command,
    /// The farm: in strict mode an error.
    Farm,
}

impl Rule {
    const HERE: Rule = Rule {
        resolve_again: 0,
        place_again: 0,
        gather_again: 0,
        before_local: BeforeLocal::Nothing,
        blame: Blame::Command,
    };

    const fn farm() -> Rule {
        Rule {
            blame: Blame::Farm,
            ..Rule::HERE
        }
    }

    const fn resolve_again(self, resolve_again: usize) -> Rule {
        Rule { resolve_again, ..self }
    }

    const fn place_again(self, place_again: usize) -> Rule {
        Rule { place_again, ..self }
    }

    const fn gather_again(self, gather_again: usize) -> Rule {
        Rule { gather_again, ..self }
    }

    const fn ask_compiler_first(self) -> Rule {
        Rule {
            before_local: BeforeLocal::AskCompiler,
            ..self
        }
    }

    const fn preprocess_first(self) -> Rule {
        Rule {
            before_local: BeforeLocal::Preprocess,
            ..self
        }
    }

    /// Returns what the failure is put down to.
    pub const fn blame(self) -> Blame {
        self.blame
    }
}

/// What a job does after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Has its toolchain found anew.
    ResolveAgain,
    /// Asks for another place for the same job.
    PlaceAgain,
    /// Is made anew.
    GatherAgain,
    /// Has the local compiler list the files that the unit includes.
    AskCompiler,
    /// Is preprocessed locally: mode B.
    Preprocess,
    /// Is left to the local compiler.
    Local(Reason),
    /// Ends with an error: strict mode.
    Fail(Reason),
}

/// Decides what a job that just failed for `reason` does next. `before` are its earlier failures, in order.
pub fn decide(reason: Reason, before: &[Reason], mode: Mode, wish: Wish) -> Step {
    let rule = reason.rule();
    let end = match (wish, rule.blame) {
        (Wish::NoFallback, Blame::Farm) => Step::Fail(reason),
        _ => Step::Local(reason),
    };
    if before.len() + 1 >= ATTEMPTS_MAX {
        return end;
    }
    let so_far = before.iter().filter(|earlier| **earlier == reason).count();
    if so_far < rule.resolve_again {
        return Step::ResolveAgain;
    }
    if so_far < rule.place_again {
        return Step::PlaceAgain;
    }
    if so_far < rule.gather_again {
        return Step::GatherAgain;
    }
    match (rule.before_local, mode) {
        (BeforeLocal::AskCompiler, Mode::A) if so_far == 0 => Step::AskCompiler,
        (BeforeLocal::AskCompiler | BeforeLocal::Preprocess, Mode::A) => Step::Preprocess,
        _ => end,
    }
}

/// Tells whether a failed compiler's words speak of the machine that it ran on rather than of the program.
///
/// Such a failure says nothing about the local compile, which therefore has the last word. The list holds what GCC's
/// driver, cc1, as and glibc say when memory, disk or processes run out, or when a part of the compiler dies.
pub fn is_suspect(stderr: &[u8]) -> bool {
    const SIGNS: [&str; 16] = [
        "signal terminated program",
        "internal compiler error",
        "out of memory",
        "memory exhausted",
        "Cannot allocate memory",
        "No space left on device",
        "Disk quota exceeded",
        "File too large",
        "File size limit exceeded",
        "Read-only file system",
        "Permission denied",
        "Device or resource busy",
        "Resource temporarily unavailable",
        "Input/output error",
        "error while loading shared libraries",
        "cannot execute",
    ];
    SIGNS
        .iter()
        .any(|sign| memchr::memmem::find(stderr, sign.as_bytes()).is_some())
}

/// Tells whether a failed compiler's words speak of a file that it did not find.
pub fn misses_a_file(stderr: &[u8]) -> bool {
    memchr::memmem::find(stderr, b"No such file or directory").is_some()
        || memchr::memmem::find(stderr, b"Permission denied").is_some()
}
