//! Puts a job's files in place: all of them or none, and no file before it is whole.
//!
//! [`stage`] writes every file in its own directory, without a name or under a temporary one, and changes nothing that anybody
//! looks at; [`Staged::commit`] then names them, the object last, since make takes the object for the sign that all is done. Where
//! the local compiler would have done something that a rename cannot repeat (write through a symbolic link, into a
//! device, into one of several hard links), the answer is an error and the job runs locally: gcc's own behaviour and
//! gcc's own words. Invariant: after an error every path is as it was, and no temporary file stays.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use tempfile::{Builder, NamedTempFile, TempPath};

use crate::job::{Output, OutputKind};
use crate::store::nameless;

#[cfg(test)]
mod tests;

/// What temporary names start with: hidden, and recognisable if the agent is killed in between.
const TEMPORARY_PREFIX: &str = ".rdcc-";

/// Why files could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The directory is not there; gcc would say so in its own words.
    #[error("no directory for `{}`", .0.display())]
    MissingDirectory(PathBuf),
    /// What stands at the path is not simply replaced by the local compiler.
    #[error("`{}` is no plain file of our own", .0.display())]
    Special(PathBuf),
    /// We may not write there.
    #[error("`{}` is not writable", .path.display())]
    NotWritable {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else: a full disk, an I/O error.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One answer names a path twice.
    #[error("`{}` comes twice", .0.display())]
    Twice(PathBuf),
}

impl OutputError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => Self::MissingDirectory(path),
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Self::NotWritable { path, source },
            _ => Self::Write { path, source },
        }
    }
}

/// Files that are written but not yet visible under their names. Dropping it removes them.
#[derive(Debug)]
pub struct Staged {
    files: Vec<StagedFile>,
    removed: Vec<PathBuf>,
}

#[derive(Debug)]
struct StagedFile {
    written: Written,
    path: PathBuf,
    /// What stood there before.
    existing: Existing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    Nothing,
    /// A plain file, or a link that the assembler unlinks.
    Replaceable {
        mode: u32,
    },
}

/// Writes `outputs` under temporary names. `object` is what the job makes at last: the file named by `-o`.
pub fn stage(outputs: Vec<Output>, object: &Path) -> Result<Staged, OutputError> {
    let mut seen = BTreeSet::new();
    let mut staged = Staged {
        files: Vec::with_capacity(outputs.len()),
        removed: Vec::new(),
    };
    for output in outputs {
        if !seen.insert(output.path.clone()) {
            return Err(OutputError::Twice(output.path));
        }
        match output.kind {
            OutputKind::Removed => staged.removed.push(output.path),
            OutputKind::File { mode, content } => {
                let making = Making::of(&output.path, object);
                staged.files.push(stage_file(output.path, making, mode, &content)?);
            }
        }
    }
    // Stable: everything else keeps its order, the object goes last.
    staged.files.sort_by_key(|file| file.path == object);
    Ok(staged)
}

impl Staged {
    /// Makes all files visible, the object last, then removes what the job removed.
    pub fn commit(self) -> Result<(), OutputError> {
        let mut done: Vec<Undo> = Vec::new();
        let last = self.files.len().saturating_sub(1);
        for (index, file) in self.files.into_iter().enumerate() {
            // After the last rename nothing can fail any more, so there is nothing to keep for it.
            let step = if index == last {
                name(file.written, &file.path).map(|()| None)
            } else {
                replace(file).map(Some)
            };
            match step {
                Ok(undo) => done.extend(undo),
                Err(error) => {
                    done.into_iter().rev().for_each(Undo::restore);
                    return Err(error);
                }
            }
        }
        done.into_iter().for_each(Undo::forget);
        for path in self.removed {
            // gcc, too, removes what it can and says nothing about the rest.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// How the local compiler opens a file for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Making {
    /// As binutils do: what stands there is unlinked first, unless it is empty.
    Anew,
    /// As cc1 does: what stands there is truncated, and keeps its mode.
    InPlace,
}

impl Making {
    fn of(path: &Path, object: &Path) -> Self {
        let by_binutils = |path: &Path| path.extension().is_some_and(|end| end == "o" || end == "dwo");
        if by_binutils(path) || (path == object && path.extension().is_none_or(|end| end != "s")) {
            Self::Anew
        } else {
            Self::InPlace
        }
    }
}

fn stage_file(path: PathBuf, making: Making, mode: u32, content: &[u8]) -> Result<StagedFile, OutputError> {
    let existing = existing(&path, making)?;
    let mode = match (existing, making) {
        (Existing::Replaceable { mode }, Making::InPlace) => mode,
        _ => mode,
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let wrong = |source| OutputError::new(&path, source);
    let written = Written::create_in(directory).map_err(wrong)?;
    let mut file = written.file();
    file.write_all(content).map_err(wrong)?;
    let permissions = Permissions::from_mode(mode & 0o7777);
    file.set_permissions(permissions).map_err(wrong)?;
    Ok(StagedFile {
        written,
        path,
        existing,
    })
}

/// A file that nobody sees yet. It is gone when it is dropped.
#[derive(Debug)]
enum Written {
    /// It has no name, so that not even an agent that is killed leaves it behind.
    Nameless(File),
    /// It has a temporary one, where the file system makes no other files.
    Named(NamedTempFile),
}

impl Written {
    fn create_in(directory: &Path) -> io::Result<Self> {
        match nameless::create_in(directory)? {
            Some(file) => Ok(Self::Nameless(file)),
            None => Builder::new()
                .prefix(TEMPORARY_PREFIX)
                .make_in(directory, create_new)
                .map(Self::Named),
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Nameless(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives it its name, in place of what has that.
    fn name(self, path: &Path) -> io::Result<()> {
        let file = match self {
            Self::Nameless(file) => file,
            Self::Named(file) => return file.persist(path).map(drop).map_err(|error| error.error),
        };
        let link = |name: &Path| nameless::link(&file, CWD, name);
        match link(path) {
            // A link replaces nothing, and only what has a name can be renamed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let directory = path.parent().unwrap_or(Path::new("/"));
                let temporary = Builder::new().prefix(TEMPORARY_PREFIX).make_in(directory, link)?;
                temporary.into_temp_path().persist(path).map_err(|error| error.error)
            }
            linked => linked,
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Looks at what stands at `path`, and refuses what a rename would treat otherwise than the compiler does.
fn existing(path: &Path, making: Making) -> Result<Existing, OutputError> {
    let special = || Err(OutputError::Special(path.to_path_buf()));
    let here = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Existing::Nothing),
        Err(error) => return Err(OutputError::new(path, error)),
        Ok(here) => here,
    };
    if here.is_symlink() {
        let behind = fs::metadata(path).ok().filter(Metadata::is_file);
        return match (making, behind) {
            (Making::Anew, Some(behind)) if behind.len() > 0 => Ok(Existing::Replaceable { mode: 0 }),
            _ => special(),
        };
    }
    if !here.is_file() {
        return special();
    }
    let unlinked = making == Making::Anew && here.len() > 0;
    if !unlinked {
        // Truncated where it stands: other names of it change too, and its owner and mode stay.
        if here.nlink() > 1 || here.uid() != rustix::process::geteuid().as_raw() {
            return special();
        }
        rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(|error| OutputError::new(path, error.into()))?;
    }
    Ok(Existing::Replaceable {
        mode: here.mode() & 0o7777,
    })
}

/// What a rename did, so that it can be taken back.
#[derive(Debug)]
struct Undo {
    path: PathBuf,
    /// Another name of what stood there; `None` when nothing did.
    before: Option<TempPath>,
}

impl Undo {
    fn restore(self) {
        // Nothing more can be done about a second failure, and the first is reported.
        let _ = match self.before {
            Some(before) => before.persist(&self.path).map_err(|error| error.error),
            None => fs::remove_file(&self.path),
        };
    }

    fn forget(self) {
        drop(self.before);
    }
}

fn replace(file: StagedFile) -> Result<Undo, OutputError> {
    let before = match file.existing {
        Existing::Nothing => None,
        Existing::Replaceable { .. } => Some(second_name(&file.path)?),
    };
    let undo = Undo {
        path: file.path,
        before,
    };
    match name(file.written, &undo.path) {
        Ok(()) => Ok(undo),
        Err(error) => {
            // A second name by moving left nothing here; a hard link did, and is simply dropped.
            if fs::symlink_metadata(&undo.path).is_err() {
                undo.restore();
            }
            Err(error)
        }
    }
}

fn name(written: Written, path: &Path) -> Result<(), OutputError> {
    written.name(path).map_err(|error| OutputError::new(path, error))
}

/// Gives what stands at `path` a second name, by a hard link or, where the file system has none, by moving it.
fn second_name(path: &Path) -> Result<TempPath, OutputError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .make_in(directory, |name| {
            fs::hard_link(path, name).or_else(|_| fs::rename(path, name))
        })
        .map(NamedTempFile::into_temp_path)
        .map_err(|source| OutputError::new(path, source))
}
