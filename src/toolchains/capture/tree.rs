//! The set of paths that a toolchain consists of, while it is being gathered.
//!
//! A path is added by walking it from the root as the kernel would: every directory and every symbolic link met on the
//! way becomes an entry too, so that the same walk succeeds in a root that holds nothing else. Content is
//! read once, at the end. Invariant: every entry's parent is a directory entry.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Seek as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use super::CaptureError;
use crate::store::content::digest_of;
use crate::store::stamp::Stamp;
use crate::toolchains::manifest::{Entry, MODE_EXECUTABLE, MODE_PLAIN};

/// The kernel's own limit on links followed for one path.
const LINKS_FOLLOWED_MAX: usize = 40;

#[derive(Debug, Clone)]
enum Found {
    File(Stamp),
    Symlink(Stamp, OsString),
    Directory,
}

/// Paths found so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    found: BTreeMap<PathBuf, Found>,
    /// Directories in which a new file would have been found too.
    watched: BTreeMap<PathBuf, Stamp>,
}

/// What [`Tree::finish`] makes of a tree.
pub(super) struct Gathered {
    pub(super) entries: Vec<(PathBuf, Entry)>,
    pub(super) stamps: Vec<(PathBuf, Stamp)>,
}

impl Tree {
    /// Adds what stands at `path`, and whatever it takes to get there. Returns the path without links.
    ///
    /// A directory is added by itself, without what it holds.
    pub(super) fn add(&mut self, path: &Path) -> Result<PathBuf, CaptureError> {
        let io = |at: &Path, error| CaptureError::io("look at", at, error);
        let mut todo: Vec<OsString> = names_reversed(path);
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(&name);
            let found = match self.found.get(&at) {
                Some(found) => found.clone(),
                None => {
                    let found = look(&at)?;
                    self.found.insert(at.clone(), found.clone());
                    found
                }
            };
            match found {
                Found::Symlink(_, target) => {
                    links += 1;
                    if links > LINKS_FOLLOWED_MAX {
                        return Err(io(path, io::Error::from_raw_os_error(libc::ELOOP)));
                    }
                    at.pop();
                    let target = Path::new(&target);
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    todo.extend(names_reversed(target));
                }
                Found::File(_) if !todo.is_empty() => {
                    return Err(io(&at, io::ErrorKind::NotADirectory.into()));
                }
                Found::File(_) | Found::Directory => {}
            }
        }
        Ok(at)
    }

    /// Adds a directory and everything below it. Links are followed; one whose target is missing is kept as it is,
    /// since system roots are full of them and nothing that works depends on them.
    pub(super) fn add_all(&mut self, directory: &Path) -> Result<(), CaptureError> {
        let directory = self.add(directory)?;
        if !matches!(self.found.get(&directory), Some(Found::Directory)) {
            return Ok(());
        }
        for path in self.list(&directory)? {
            match look(&path)? {
                Found::Directory => self.add_all(&path)?,
                Found::File(_) => drop(self.add(&path)?),
                link @ Found::Symlink(..) => {
                    if path.metadata().is_ok() {
                        self.add(&path)?;
                    } else {
                        self.found.insert(path, link);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists a directory, sorted, and remembers it as one whose listing matters.
    pub(super) fn list(&mut self, directory: &Path) -> Result<Vec<PathBuf>, CaptureError> {
        let io = |error| CaptureError::io("list", directory, error);
        self.watched
            .insert(directory.to_owned(), Stamp::of(directory).map_err(io)?);
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory).map_err(io)? {
            paths.push(entry.map_err(io)?.path());
        }
        paths.sort();
        Ok(paths)
    }

    /// Tells whether `path`, without links, has been added.
    pub(super) fn contains(&self, path: &Path) -> bool {
        self.found.contains_key(path)
    }

    /// Returns the regular files added so far.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.found
            .iter()
            .filter(|(_, found)| matches!(found, Found::File(_)))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Reads every file. `progress` is told bytes done and bytes in all.
    pub(super) fn finish(self, progress: &mut dyn FnMut(u64, u64)) -> Result<Gathered, CaptureError> {
        let total = self.found.values().map(size).sum();
        let mut done = 0;
        let mut entries = Vec::with_capacity(self.found.len());
        let mut stamps: Vec<(PathBuf, Stamp)> = self.watched.into_iter().collect();
        for (path, found) in self.found {
            let entry = match found {
                Found::Directory => Entry::Directory { mode: MODE_EXECUTABLE },
                Found::Symlink(stamp, target) => {
                    stamps.push((path.clone(), stamp));
                    Entry::Symlink { target }
                }
                Found::File(stamp) => {
                    let entry = read(&path, stamp, &mut |bytes| {
                        done += bytes;
                        progress(done, total);
                    })?;
                    stamps.push((path.clone(), stamp));
                    entry
                }
            };
            entries.push((path, entry));
        }
        entries.sort_by(|(a, _), (b, _)| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        Ok(Gathered { entries, stamps })
    }
}

fn look(path: &Path) -> Result<Found, CaptureError> {
    let io = |error| CaptureError::io("look at", path, error);
    let metadata = path.symlink_metadata().map_err(io)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        Ok(Found::Directory)
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(io)?;
        Ok(Found::Symlink(Stamp::from(&metadata), target.into_os_string()))
    } else if kind.is_file() {
        Ok(Found::File(Stamp::from(&metadata)))
    } else {
        Err(CaptureError::Special { path: path.to_owned() })
    }
}

fn size(found: &Found) -> u64 {
    match found {
        Found::File(stamp) => stamp.size,
        Found::Symlink(..) | Found::Directory => 0,
    }
}

/// Reads one file that had `stamp` when it was found; it must still have it afterwards.
fn read(path: &Path, stamp: Stamp, progress: &mut dyn FnMut(u64)) -> Result<Entry, CaptureError> {
    let io = |error| CaptureError::io("read", path, error);
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(io)?;
    let (mut digest, mut length) = digest_of(&mut file, progress).map_err(io)?;
    let mut after = Stamp::from(&File::metadata(&file).map_err(io)?);
    // A worker on this machine that takes the toolchain over makes hard links, which moves `ctime` and nothing else.
    // Only another reading tells that from an edit whose `mtime` was set back.
    let linked_meanwhile = after != stamp
        && after
            == (Stamp {
                ctime_ns: after.ctime_ns,
                ..stamp
            });
    if linked_meanwhile {
        file.rewind().map_err(io)?;
        let again = digest_of(&mut file, &mut |_| {}).map_err(io)?;
        if again == (digest, length) {
            after = stamp;
        }
        (digest, length) = again;
    }
    if after != stamp || length != stamp.size {
        return Err(CaptureError::Changed { path: path.to_owned() });
    }
    Ok(Entry::File {
        mode: match stamp.mode & 0o111 {
            0 => MODE_PLAIN,
            _ => MODE_EXECUTABLE,
        },
        size: stamp.size,
        digest,
    })
}

fn names_reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}
