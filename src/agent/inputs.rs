//! From what a compile reads to what a worker is told to have: paths, content by digest, links, directories, absences.
//!
//! Paths go absolute and free of links, with every link that a spelling leads through as an input of its own; what the
//! toolchain holds itself is left out. Modes and times are made alike, since the compiler looks at neither: only where a
//! closure holds two files of equal content does `#pragma once` compare times, and those two keep theirs. A file that was
//! sent before costs one table look-up. Decides nothing about where a job runs.
//!
//! Invariants: no path twice; a path that was probed in vain, and that a worker may still hold from an earlier job, is
//! named as absent.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::toolchain_resolve::Loaded;
use super::worker_link::{InputRef, InputTable};
use crate::digest::Digest;
use crate::includes::closure::Closure;
use crate::includes::source_tree::disk::DiskTree;
use crate::includes::source_tree::{Epoch, Fingerprint, Link, TreeError};
use crate::job::InputKind;

mod collecting;
mod content;
mod shipped;
#[cfg(test)]
mod tests;

use collecting::{Job, There, split};
pub use content::JobContent;
pub use shipped::{Shipped, ShippedError};

/// Files whose handle is kept. Beyond, all are forgotten; the next jobs make them again.
const KNOWN_MAX: usize = 200_000;

/// Why no inputs can be made.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The toolchain on disk is not the one that was captured.
    #[error("`{}` is not as it was when the toolchain was captured", .0.display())]
    ToolchainChanged(PathBuf),
    /// A file cannot be read, or changes all the time.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The directory for an output is not there.
    #[error("no directory for `{}`", .0.display())]
    MissingDirectory(PathBuf),
    /// What stands at an output's path is no regular file.
    #[error("`{}` is no regular file", .0.display())]
    SpecialOutput(PathBuf),
    /// A file that the command needs is not there, or is no regular file.
    #[error("no file `{}`", .0.display())]
    MissingFile(PathBuf),
}

/// What a command reads and writes besides its closure. Paths are absolute, as spelled.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The working directory.
    pub cwd: PathBuf,
    /// The program to run.
    pub program: PathBuf,
    /// Regular files that it reads.
    pub files: Vec<PathBuf>,
    /// Files that it writes, the object first.
    pub outputs: Vec<PathBuf>,
    /// Further directories that it may write to; those that do not exist are passed over.
    pub directories: Vec<PathBuf>,
}

/// A job's inputs.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// All of them, each once.
    pub refs: Arc<[InputRef]>,
    /// Sum of the sizes of all files, bytes.
    pub bytes: u64,
    /// Where [`Surroundings::outputs`] really are, in their order: links followed.
    pub outputs: Vec<PathBuf>,
    /// The working directory, links followed.
    pub cwd: PathBuf,
    /// Every directory that the job may write to, links followed, each once.
    pub output_dirs: Vec<PathBuf>,
    /// Where content is read.
    pub content: Arc<JobContent>,
}

impl Inputs {
    /// Tells whether `path` is a file that the job reads.
    pub fn reads(&self, path: &Path) -> bool {
        let is_file = |input: &InputRef| matches!(input.kind, InputKind::File { .. });
        self.refs
            .iter()
            .any(|input| input.path == path && is_file(input) && !self.outputs.iter().any(|output| output == path))
    }
}

/// A file that was sent, or need not be.
#[derive(Debug)]
struct Known {
    fingerprint: Fingerprint,
    /// `None` when the toolchain holds it.
    input: Option<InputRef>,
}

#[derive(Debug, Default)]
struct Memory {
    /// By the file's number, the toolchain's, and what the worker has of it.
    files: HashMap<(u32, u64, There), Known>,
    directories: HashMap<PathBuf, InputRef>,
    links: HashMap<Link, InputRef>,
}

/// Makes inputs, and remembers which ones it made.
#[derive(Debug)]
pub struct InputMaker {
    tree: Arc<DiskTree>,
    table: InputTable,
    memory: Mutex<Memory>,
    shipped: Mutex<Shipped>,
}

impl InputMaker {
    /// Looks at files through `tree`, and adds what is sent to `shipped`.
    pub fn new(tree: Arc<DiskTree>, shipped: Shipped) -> Self {
        Self {
            tree,
            table: InputTable::default(),
            memory: Mutex::default(),
            shipped: Mutex::new(shipped),
        }
    }

    /// Returns what names this client's files to workers.
    pub fn tree_name(&self) -> Digest {
        lock(&self.shipped).tree_name()
    }

    /// Makes the inputs of a compile that preprocesses at the worker. Blocks on the disk.
    pub fn of_closure(
        &self,
        closure: &Closure,
        around: &Surroundings,
        toolchain: &Loaded,
        epoch: Epoch,
    ) -> Result<Inputs, InputError> {
        let job = Job::new(self, toolchain, epoch);
        job.with_closure(closure, around)
    }

    /// Makes the same inputs for a worker that has a variant of the toolchain: with the toolchain's own headers, and without
    /// the program. Blocks on the disk.
    pub fn of_closure_for_variant(
        &self,
        closure: &Closure,
        around: &Surroundings,
        toolchain: &Loaded,
        epoch: Epoch,
    ) -> Result<Inputs, InputError> {
        let mut job = Job::new(self, toolchain, epoch);
        job.there = There::Variant;
        job.with_closure(closure, around)
    }

    /// Makes the inputs of a compile of preprocessed text, which stands at the source's path. Blocks on the disk.
    pub fn of_text(
        &self,
        source: &Path,
        text: Vec<u8>,
        around: &Surroundings,
        toolchain: &Loaded,
        epoch: Epoch,
    ) -> Result<Inputs, InputError> {
        let mut job = Job::new(self, toolchain, epoch);
        let (directory, name) = split(source);
        let info = job
            .directory_of(directory)?
            .ok_or_else(|| InputError::MissingFile(source.to_owned()))?;
        job.add_way_to(&info)?;
        let digest = Digest::of(&text);
        let path = info.route.path.join(name);
        job.add_held(path, digest, text.len() as u64);
        job.finish(around, vec![(digest, Arc::new(text))])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every entry is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
