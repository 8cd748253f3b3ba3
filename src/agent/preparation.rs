//! Makes a job: what a worker is asked to run, with which files, and what will be checked when it has run.
//!
//! Reads the disk through the tree's cache only. What could not be made is told by a [`Trouble`]; what follows from it
//! is decided in `fallback`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::closures::{NoFiles, Unit};
use super::fallback::Reason;
use super::flow::Gathered;
use super::inputs::{InputError, InputMaker, Inputs, Surroundings};
use super::locale_probe::utf8_files;
use super::policy::{self, Locale};
use super::spec::{self, Listing, Required, Words};
use super::toolchain_resolve::Loaded;
use super::verify::Expected;
use crate::compile::variant_words;
use crate::exchange::CompileRequest;
use crate::includes::closure::Closure;
use crate::includes::predefined::Facts;
use crate::includes::source_tree::{Epoch, TreeError};
use crate::job::{JobSpec, Limits, Output, OutputKind};
use crate::protocol::convert::OUTPUT_PATHS_MAX;
use crate::toolchains::profile::RunAs;

/// Most directories that options other than `-o` may name. Leaves room for the others in what a worker takes.
const OUTPUT_DIRS_MAX: usize = OUTPUT_PATHS_MAX / 2;

/// Something that did not work, for `fallback` and for `rdcc why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Why.
    pub reason: Reason,
    /// The same for people; may be empty.
    pub note: String,
}

impl Trouble {
    /// Makes one with a note.
    pub fn new(reason: Reason, note: impl ToString) -> Self {
        Self {
            reason,
            note: note.to_string(),
        }
    }
}

/// A job, ready to be sent.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What is run; its inputs are in `inputs`.
    pub spec: JobSpec,
    /// What it reads.
    pub inputs: Inputs,
    /// How the compiler lists what it reads.
    pub listing: Listing,
    /// The files that it should read; `None` in mode B.
    pub closure: Option<Arc<Closure>>,
    /// What may come back.
    pub expected: Expected,
    /// Files that are made already and appear with what comes back.
    pub extra: Vec<Output>,
    /// What decisions depend on.
    pub gathered: Gathered,
    /// Set when it runs on a variant of its toolchain.
    pub run_as: Option<RunAs>,
}

/// What a job is made from, whatever the mode.
#[derive(Debug, Clone)]
pub struct Order {
    /// The request.
    pub request: Arc<CompileRequest>,
    /// The command, and the compiler as it would be run here.
    pub unit: Unit,
    /// The toolchain.
    pub toolchain: Arc<Loaded>,
    /// How the client's locale is dealt with.
    pub locale: Locale,
}

impl Order {
    /// Makes a job whose unit is preprocessed at the worker. Blocks on the disk.
    pub fn with_closure(&self, maker: &InputMaker, epoch: Epoch, closure: Arc<Closure>) -> Result<Prepared, Trouble> {
        let mut typed = self.unit.flags.clone();
        typed.extend(self.request.argv.iter().skip(1).cloned());
        let words = spec::words_of_mode_a(&self.unit.command, &typed);
        let around = self.surroundings(&words)?;
        let inputs = maker.of_closure(&closure, &around, &self.toolchain, epoch)?;
        let gathered = Gathered {
            names_time: closure.facts.time,
            assembler_reads: false,
            foreign_locale: self.locale == Locale::Foreign,
        };
        Ok(self.prepared(words, inputs, Some(closure), gathered))
    }

    /// Makes a job of mode A anew for a worker that has a variant of the toolchain. `facts` are what the local compiler says of
    /// itself. Blocks on the disk.
    pub fn for_variant(
        &self,
        maker: &InputMaker,
        epoch: Epoch,
        closure: Arc<Closure>,
        facts: &Facts,
        run_as: RunAs,
    ) -> Result<Prepared, Trouble> {
        let mut typed = self.unit.flags.clone();
        typed.extend(self.request.argv.iter().skip(1).cloned());
        let mut words = spec::words_of_mode_a(&self.unit.command, &typed);
        let preinclude = facts.preinclude.as_deref().map(OsStr::from_bytes);
        words.words.splice(0..0, variant_words(&facts.search, preinclude));
        let around = self.surroundings(&words)?;
        let inputs = maker.of_closure_for_variant(&closure, &around, &self.toolchain, epoch)?;
        let gathered = Gathered {
            names_time: closure.facts.time,
            assembler_reads: false,
            foreign_locale: self.locale == Locale::Foreign,
        };
        let mut prepared = self.prepared(words, inputs, Some(closure), gathered);
        prepared.run_as = Some(run_as);
        Ok(prepared)
    }

    /// Makes a job of preprocessed text. `list` is the list of dependencies that the user asked for, as it was written
    /// here. Blocks on the disk.
    pub fn with_text(
        &self,
        maker: &InputMaker,
        epoch: Epoch,
        text: Vec<u8>,
        list: Option<Vec<u8>>,
    ) -> Result<Prepared, Trouble> {
        let words = spec::words_of_mode_b(&self.unit.command);
        let around = self.surroundings(&words)?;
        let source = self.unit.cwd.join(&self.unit.command.source);
        let inputs = maker.of_text(&source, text, &around, &self.toolchain, epoch)?;
        let gathered = Gathered {
            foreign_locale: self.locale == Locale::Foreign,
            ..Gathered::default()
        };
        let mut prepared = self.prepared(words, inputs, None, gathered);
        // The worker writes no list; ours comes with its files.
        if let (Some(path), Some(content)) = (prepared.expected.dependency_file.take(), list) {
            let mode = 0o666 & !self.request.umask;
            prepared.extra.push(Output {
                path,
                kind: OutputKind::File { mode, content },
            });
        }
        Ok(prepared)
    }

    fn prepared(&self, words: Words, inputs: Inputs, closure: Option<Arc<Closure>>, gathered: Gathered) -> Prepared {
        let listed = &self.toolchain.definition.environment;
        let variable = words.listing.variable();
        let mut argv = vec![self.unit.argv0.clone()];
        argv.extend(words.words);
        Prepared {
            spec: JobSpec {
                toolchain: self.toolchain.id,
                program: self.unit.program.clone(),
                argv,
                cwd: self.unit.cwd.clone(),
                env: policy::job_environment(&self.request.env, listed, self.locale, variable.as_deref()),
                inputs: Vec::new(),
                umask: self.request.umask,
                terminal: self.request.terminal,
                dependency_file: words.listing.file(),
                outputs: inputs.outputs.clone(),
                output_dirs: inputs.output_dirs.clone(),
                limits: Limits::default(),
            },
            expected: spec::expected(&self.unit.command, &inputs.outputs, &inputs.cwd),
            listing: words.listing,
            inputs,
            closure,
            extra: Vec::new(),
            gathered,
            run_as: None,
        }
    }

    fn surroundings(&self, words: &Words) -> Result<Surroundings, Trouble> {
        let (command, cwd) = (&self.unit.command, &self.unit.cwd);
        let mut files = Vec::new();
        for required in spec::required_files(command, words, cwd) {
            match required {
                // What is missing, or a directory, gets gcc's own words at the worker too.
                Required::File(path) if path.is_file() && !self.is_of_toolchain(&path) => files.push(path),
                Required::Parts(path) if path.exists() && !self.is_of_toolchain(&path) => {
                    return Err(Trouble::new(Reason::ForeignParts, path.display()));
                }
                Required::File(_) | Required::Parts(_) => {}
            }
        }
        if self.locale == Locale::Utf8 {
            files.extend(utf8_files());
        }
        Ok(Surroundings {
            cwd: cwd.clone(),
            program: self.unit.program.clone(),
            files,
            outputs: spec::outputs(command, cwd),
            directories: self.written_directories(),
        })
    }

    /// Directories that options other than `-o` may name files in.
    fn written_directories(&self) -> Vec<PathBuf> {
        let (command, cwd) = (&self.unit.command, &self.unit.cwd);
        if !command.facts.features.writes_side_files() {
            return Vec::new();
        }
        let mut directories = spec::named_directories(&command.argv, cwd);
        directories.retain(|directory| directory.is_dir());
        // Beyond that a worker without overlayfs may refuse, which is no harm.
        directories.truncate(OUTPUT_DIRS_MAX);
        directories
    }

    fn is_of_toolchain(&self, path: &Path) -> bool {
        self.toolchain.captured.manifest.covers(path)
    }
}

impl From<InputError> for Trouble {
    fn from(error: InputError) -> Self {
        let reason = match &error {
            InputError::ToolchainChanged(_) => Reason::ToolchainChanged,
            InputError::Tree(error) => reason_of_tree(error),
            InputError::MissingDirectory(_) => Reason::OutputDirectoryMissing,
            InputError::SpecialOutput(_) => Reason::OutputSpecial,
            InputError::MissingFile(_) => Reason::FileChanged,
        };
        Self::new(reason, error)
    }
}

impl From<NoFiles> for Trouble {
    fn from(error: NoFiles) -> Self {
        let reason = match &error {
            NoFiles::MissingHeader(_) => Reason::MissingHeader,
            NoFiles::SpecialFile(_) => Reason::SpecialInclude,
            NoFiles::Undecidable(_) => Reason::ScanUndecidable,
            NoFiles::AssemblerReads(_) => Reason::AssemblerInclude,
            NoFiles::Compiler(_) => Reason::CompilerListFailed,
            NoFiles::Tree(error) => reason_of_tree(error),
        };
        Self::new(reason, error)
    }
}

fn reason_of_tree(error: &TreeError) -> Reason {
    match error {
        TreeError::Changing { .. } => Reason::FileChanged,
        TreeError::Unreadable { .. } | TreeError::TooLarge { .. } | TreeError::Unresolvable { .. } => {
            Reason::InputUnreadable
        }
    }
}

/// Returns what the compiler is called as: the wrapper leaves it empty where the path alone says it.
pub fn argv0(request: &CompileRequest, program: &Path) -> OsString {
    match request.argv.first() {
        Some(name) if !name.is_empty() => name.clone(),
        _ => program.as_os_str().to_owned(),
    }
}
