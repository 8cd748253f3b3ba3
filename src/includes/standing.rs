//! Does a closure still hold: is everything that it rests on as it was when it was found?
//!
//! Files by their fingerprints, which change with whatever changes them, and by content where a hard link may have done it; what was looked for in vain, by directory where
//! a reliable listing answers for all names at once, else name by name; links by their targets; directories by their
//! being there, under the path that they had. Decides nothing about what follows.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::closure::Closure;
use super::source_tree::{Epoch, Found, SourceFile, SourceTree, TreeError};

/// Returns the first path that is not as it was when the closure was found.
pub fn changed<T: SourceTree>(closure: &Closure, tree: &T, epoch: Epoch) -> Result<Option<PathBuf>, TreeError> {
    let mut directories = Directories::new(tree, epoch);
    for file in closure.files() {
        let path = &file.route.path;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let Some(directory) = directories.get(parent)? else {
            return Ok(Some(path.clone()));
        };
        match tree.find(directory, name.as_bytes(), epoch)? {
            Found::File(now) if now.route.path == *path && is_same(file, &now, tree)? => {}
            _ => return Ok(Some(path.clone())),
        }
    }
    changed_around(closure, &mut directories)
}

/// Tells whether a file still is what the job was made from. A hard link made elsewhere (a package manager, a worker
/// that takes the toolchain over) moves the change time and nothing else: then the content has the last word.
fn is_same<T: SourceTree>(then: &Arc<SourceFile>, now: &Arc<SourceFile>, tree: &T) -> Result<bool, TreeError> {
    if now.fingerprint == then.fingerprint {
        return Ok(true);
    }
    Ok(now.fingerprint.differs_in_ctime_at_most(&then.fingerprint) && tree.digest(now)? == tree.digest(then)?)
}

/// Returns the first path besides the files that is not as it was: links, directories, absences.
pub fn changed_around<T: SourceTree>(
    closure: &Closure,
    directories: &mut Directories<'_, T>,
) -> Result<Option<PathBuf>, TreeError> {
    let (tree, epoch) = (directories.tree, directories.epoch);
    if let Some(link) = closure.links.iter().find(|link| !tree.has_link(link)) {
        return Ok(Some(link.path.clone()));
    }
    for path in &closure.directories {
        if directories.get(path)?.is_none() {
            return Ok(Some(path.clone()));
        }
    }
    for path in &closure.absent_directories {
        if tree.directory(path, epoch)?.is_some() {
            return Ok(Some(path.clone()));
        }
    }
    for absent in &closure.absent {
        let path = &absent.directory.route.path;
        let Some(directory) = directories.get(path)? else {
            return Ok(Some(path.clone()));
        };
        if absent.listing.is_some() && tree.listing(directory, epoch)? == absent.listing {
            continue;
        }
        let absent_names = absent.names.iter().map(|name| (name, false));
        let passed = absent.passed.iter().map(|name| (name, true));
        for (name, is_directory) in absent_names.chain(passed) {
            let name = closure.symbols.spelling(*name);
            let still = match tree.find(directory, &name, epoch)? {
                Found::Absent => !is_directory,
                Found::Directory => is_directory,
                Found::File(_) | Found::Special => false,
            };
            if !still {
                return Ok(Some(path.join(OsStr::from_bytes(&name))));
            }
        }
    }
    Ok(None)
}

/// Directories by their real paths, each looked up once.
#[derive(Debug)]
pub struct Directories<'a, T: SourceTree> {
    tree: &'a T,
    epoch: Epoch,
    known: HashMap<PathBuf, Option<T::Directory>>,
}

impl<'a, T: SourceTree> Directories<'a, T> {
    /// Starts with none.
    pub fn new(tree: &'a T, epoch: Epoch) -> Self {
        Self {
            tree,
            epoch,
            known: HashMap::new(),
        }
    }

    /// Returns the directory that stands at this path itself, not behind a link.
    pub fn get(&mut self, path: &Path) -> Result<Option<&T::Directory>, TreeError> {
        if !self.known.contains_key(path) {
            let found = self.tree.directory(path, self.epoch)?;
            let real = found.filter(|directory| self.tree.describe(directory).route.path == *path);
            self.known.insert(path.to_owned(), real);
        }
        Ok(self.known.get(path).and_then(Option::as_ref))
    }
}
