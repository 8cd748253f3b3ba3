//! Toolchain files on this machine: found by name or by compiler, read again only when they change.
//!
//! Directories are searched in order; a name in an earlier one hides the same name in a later one. Everything is checked
//! by `lstat` on each use, so an edited file counts from the next job on.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Unresolved, lock};
use crate::agent::fallback::Reason;
use crate::digest::Digest;
use crate::ids::Name;
use crate::store::stamp::Stamp;
use crate::toolchains::definition::Definition;

/// Files larger than this are no toolchain files.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Compilers whose toolchain, or lack of one, is remembered.
const COMPILERS_MAX: usize = 256;

/// How long a definition from elsewhere stands before it is asked for again: somebody may push another one.
const TAKEN_STANDS: Duration = Duration::from_secs(60);

/// A toolchain file that was read.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it says.
    pub parsed: Arc<Definition>,
    /// Digest of its text.
    pub text: Digest,
}

/// A file as it was, and what came of reading it.
type Reading = (Stamp, Result<Found, String>);
/// A file or directory as it was; without a stamp when it was not there.
type LookedAt = (PathBuf, Option<Stamp>);

/// The directories for toolchain files and what was read there.
#[derive(Debug)]
pub struct Definitions {
    directories: Vec<PathBuf>,
    read: Mutex<HashMap<PathBuf, Reading>>,
    /// Definitions that came from elsewhere.
    taken: Mutex<HashMap<Name, (Found, Instant)>>,
    by_compiler: Mutex<HashMap<(PathBuf, OsString), Remembered>>,
}

/// Which file names a compiler, and what was looked at to find out.
#[derive(Debug, Clone)]
struct Remembered {
    file: Option<PathBuf>,
    looked_at: Vec<LookedAt>,
}

impl Definitions {
    /// Searches `directories`, the first first.
    pub fn new(directories: Vec<PathBuf>) -> Self {
        Self {
            directories,
            read: Mutex::default(),
            taken: Mutex::default(),
            by_compiler: Mutex::default(),
        }
    }

    /// Returns the toolchain called `name`; `None` when there is no such file.
    pub(super) fn named(&self, name: &Name) -> Result<Option<Found>, Unresolved> {
        for directory in &self.directories {
            if let Some(found) = self.read(&directory.join(format!("{name}.toml")))? {
                if found.parsed.name != *name {
                    tracing::warn!(file = %name, says = %found.parsed.name, "a toolchain file has another name inside");
                    continue;
                }
                return Ok(Some(found));
            }
        }
        let taken = lock(&self.taken).get(name).cloned();
        Ok(taken.and_then(|(found, at)| (at.elapsed() < TAKEN_STANDS).then_some(found)))
    }

    /// Takes the text of a toolchain file that is not on this machine.
    pub(super) fn take(&self, name: &Name, text: String) -> Result<Found, Unresolved> {
        let found = parse(&text).map_err(|problem| invalid(name.as_str(), &problem))?;
        lock(&self.taken).insert(name.clone(), (found.clone(), Instant::now()));
        Ok(found)
    }

    /// Returns the toolchain that names the compiler at `real`, as far as `names_it` can tell.
    ///
    /// Of several, one without flags of its own comes first, then the name decides.
    pub(super) fn of_compiler(
        &self,
        real: &Path,
        search_path: &OsStr,
        names_it: impl Fn(&Definition) -> bool,
    ) -> Option<Found> {
        let key = (real.to_owned(), search_path.to_owned());
        let remembered = lock(&self.by_compiler).get(&key).cloned();
        if let Some(remembered) = remembered.filter(Remembered::holds) {
            return self.read(&remembered.file?).ok().flatten();
        }
        let (files, mut looked_at) = self.list();
        looked_at.push((real.to_owned(), Stamp::of(real).ok()));
        let mut best: Option<(PathBuf, Found)> = None;
        for file in files.into_values() {
            looked_at.push((file.clone(), Stamp::of(&file).ok()));
            let Ok(Some(found)) = self.read(&file) else { continue };
            let better = best
                .as_ref()
                .is_none_or(|(_, best)| found.parsed.flags.is_empty() && !best.parsed.flags.is_empty());
            if better && names_it(&found.parsed) {
                best = Some((file, found));
            }
        }
        let mut by_compiler = lock(&self.by_compiler);
        if by_compiler.len() >= COMPILERS_MAX {
            by_compiler.clear();
        }
        let file = best.as_ref().map(|(file, _)| file.clone());
        by_compiler.insert(key, Remembered { file, looked_at });
        best.map(|(_, found)| found)
    }

    /// Lists all toolchain files by name, and the directories looked into.
    fn list(&self) -> (BTreeMap<OsString, PathBuf>, Vec<LookedAt>) {
        let mut files = BTreeMap::new();
        let mut looked_at = Vec::new();
        for directory in &self.directories {
            looked_at.push((directory.clone(), Stamp::of(directory).ok()));
            let Ok(entries) = fs::read_dir(directory) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|end| end == "toml") {
                    let name = path.file_name().unwrap_or_default().to_owned();
                    files.entry(name).or_insert(path);
                }
            }
        }
        (files, looked_at)
    }

    fn read(&self, path: &Path) -> Result<Option<Found>, Unresolved> {
        // Through links: what counts is the file behind them.
        let stamp = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => Stamp::from(&metadata),
            Ok(_) => {
                return Err(invalid(
                    &path.display().to_string(),
                    "it is no plain file of up to 1 MiB",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(invalid(&path.display().to_string(), &error.to_string())),
        };
        let known = lock(&self.read).get(path).cloned();
        let result = match known {
            Some((known, result)) if known == stamp => result,
            _ => {
                let result = fs::read_to_string(path)
                    .map_err(|error| error.to_string())
                    .and_then(|text| parse(&text));
                lock(&self.read).insert(path.to_owned(), (stamp, result.clone()));
                result
            }
        };
        match result {
            Ok(found) => Ok(Some(found)),
            Err(problem) => Err(invalid(&path.display().to_string(), &problem)),
        }
    }
}

impl Remembered {
    fn holds(&self) -> bool {
        self.looked_at
            .iter()
            .all(|(path, stamp)| Stamp::of(path).ok() == *stamp)
    }
}

fn parse(text: &str) -> Result<Found, String> {
    Ok(Found {
        parsed: Arc::new(Definition::parse(text).map_err(|error| error.to_string())?),
        text: Digest::of(text.as_bytes()),
    })
}

fn invalid(what: &str, problem: &str) -> Unresolved {
    Unresolved::new(Reason::ToolchainInvalid, format!("toolchain file `{what}`: {problem}"))
}
