//! Puts one job's inputs together, path by path, with the way to each.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::JobContent;
use super::{InputError, InputMaker, Inputs, KNOWN_MAX, Known, Surroundings, lock};
use crate::agent::toolchain_resolve::Loaded;
use crate::agent::worker_link::InputRef;
use crate::digest::Digest;
use crate::includes::closure::Closure;
use crate::includes::source_tree::disk::DiskTree;
use crate::includes::source_tree::{DirectoryInfo, Epoch, Found, Link, SourceFile, SourceTree, TreeError};
use crate::job::{Input, InputKind};
use crate::toolchains::manifest::Entry;

/// Permission bits of every file at the worker: the client could read it, so the job has to be able to.
pub(super) const FILE_MODE: u32 = 0o644;
/// One job's inputs, as they are put together.
pub(super) struct Job<'a> {
    maker: &'a InputMaker,
    toolchain: &'a Loaded,
    epoch: Epoch,
    pub(super) there: There,
    refs: Vec<InputRef>,
    bytes: u64,
}

/// What the worker has of the toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum There {
    /// All of it.
    Toolchain,
    /// A variant, with other files.
    Variant,
}

impl<'a> Job<'a> {
    pub(super) fn new(maker: &'a InputMaker, toolchain: &'a Loaded, epoch: Epoch) -> Self {
        Self {
            maker,
            toolchain,
            epoch,
            there: There::Toolchain,
            refs: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn with_closure(mut self, closure: &Closure, around: &Surroundings) -> Result<Inputs, InputError> {
        let files = closure.files();
        let twins = twins(&files, &self.maker.tree)?;
        for file in files {
            match twins.contains(&file.id) {
                true => self.add_with_time(file)?,
                false => self.add_file(file)?,
            }
        }
        for directory in &closure.directories {
            self.add_directory(directory);
        }
        for link in &closure.links {
            self.add_link(link)?;
        }
        self.add_absences(closure);
        self.finish(around, Vec::new())
    }

    fn add_file(&mut self, file: &Arc<SourceFile>) -> Result<(), InputError> {
        self.bytes += file.fingerprint.size;
        let key = (file.id, self.toolchain.number, self.there);
        if let Some(known) = lock(&self.maker.memory).files.get(&key)
            && known.fingerprint == file.fingerprint
        {
            self.refs.extend(known.input.clone());
            return Ok(());
        }
        let digest = self.maker.tree.digest(file)?;
        let input = match self.is_covered(&file.route.path, digest)? {
            true => None,
            false => Some(self.intern_file(file, digest, 0)),
        };
        self.refs.extend(input.clone());
        let mut memory = lock(&self.maker.memory);
        if memory.files.len() >= KNOWN_MAX {
            memory.files.clear();
        }
        let fingerprint = file.fingerprint;
        memory.files.insert(key, Known { fingerprint, input });
        Ok(())
    }

    fn add_with_time(&mut self, file: &Arc<SourceFile>) -> Result<(), InputError> {
        self.bytes += file.fingerprint.size;
        let digest = self.maker.tree.digest(file)?;
        if !self.is_covered(&file.route.path, digest)? {
            self.refs
                .push(self.intern_file(file, digest, file.fingerprint.mtime_ns));
        }
        Ok(())
    }

    fn is_covered(&self, path: &Path, digest: Digest) -> Result<bool, InputError> {
        match self.toolchain.captured.manifest.entry(path) {
            None => Ok(false),
            Some(Entry::File { digest: own, .. }) if *own == digest => Ok(self.there == There::Toolchain),
            Some(_) => Err(InputError::ToolchainChanged(path.to_owned())),
        }
    }

    fn intern_file(&self, file: &SourceFile, digest: Digest, mtime_ns: i64) -> InputRef {
        self.intern(
            file.route.path.clone(),
            InputKind::File {
                digest,
                size: file.fingerprint.size,
                mode: FILE_MODE,
                mtime_ns,
            },
        )
    }

    fn intern(&self, path: PathBuf, kind: InputKind) -> InputRef {
        if !matches!(kind, InputKind::Absent) {
            lock(&self.maker.shipped).add(&path);
        }
        self.maker.table.intern(Input { path, kind })
    }

    /// Adds content that is in memory.
    pub(super) fn add_held(&mut self, path: PathBuf, digest: Digest, size: u64) {
        self.bytes += size;
        let kind = InputKind::File {
            digest,
            size,
            mode: FILE_MODE,
            mtime_ns: 0,
        };
        let input = self.intern(path, kind);
        self.refs.push(input);
    }

    fn add_directory(&mut self, path: &Path) {
        if path.parent().is_none() {
            return;
        }
        let mut memory = lock(&self.maker.memory);
        let known = memory.directories.get(path).cloned();
        let input = known.unwrap_or_else(|| {
            let input = self.intern(path.to_owned(), InputKind::Directory);
            if memory.directories.len() >= KNOWN_MAX {
                memory.directories.clear();
            }
            memory.directories.insert(path.to_owned(), input.clone());
            input
        });
        self.refs.push(input);
    }

    fn add_link(&mut self, link: &Link) -> Result<(), InputError> {
        match self.toolchain.captured.manifest.entry(&link.path) {
            Some(Entry::Symlink { target }) if *target == link.target => match self.there {
                There::Toolchain => return Ok(()),
                There::Variant => {}
            },
            Some(_) => return Err(InputError::ToolchainChanged(link.path.clone())),
            None => {}
        }
        let mut memory = lock(&self.maker.memory);
        let known = memory.links.get(link).cloned();
        let input = known.unwrap_or_else(|| {
            let input = self.intern(link.path.clone(), InputKind::Symlink(link.target.clone()));
            if memory.links.len() >= KNOWN_MAX {
                memory.links.clear();
            }
            memory.links.insert(link.clone(), input.clone());
            input
        });
        self.refs.push(input);
        Ok(())
    }

    /// Adds what it takes to get to a directory as it is spelled, and the directory.
    pub(super) fn add_way_to(&mut self, info: &DirectoryInfo) -> Result<(), InputError> {
        for link in &info.route.links {
            self.add_link(link)?;
        }
        for crossed in &info.route.crossed {
            self.add_directory(crossed);
        }
        self.add_directory(&info.route.path);
        Ok(())
    }

    fn add_absences(&mut self, closure: &Closure) {
        let shipped = lock(&self.maker.shipped);
        let mut absent: Vec<PathBuf> = Vec::new();
        for entry in &closure.absent {
            let directory = &entry.directory.route.path;
            let below = shipped.below(directory);
            for name in &entry.names {
                closure.symbols.with(*name, |name| {
                    if below.may_have(name) {
                        absent.push(directory.join(OsStr::from_bytes(name)));
                    }
                });
            }
        }
        absent.extend(
            closure
                .absent_directories
                .iter()
                .filter(|path| shipped.has(path))
                .cloned(),
        );
        drop(shipped);
        // A name can be probed in a directory under two spellings; the same handle twice is dropped in the end.
        self.refs.extend(absent.into_iter().map(|path| {
            self.maker.table.intern(Input {
                path,
                kind: InputKind::Absent,
            })
        }));
    }

    pub(super) fn directory_of(&self, path: &Path) -> Result<Option<Arc<DirectoryInfo>>, InputError> {
        let tree = &self.maker.tree;
        let directory = tree.directory(path, self.epoch)?;
        Ok(directory.map(|directory| tree.describe(&directory)))
    }

    fn find(&self, path: &Path) -> Result<Option<(Arc<DirectoryInfo>, Found)>, InputError> {
        let (directory, name) = split(path);
        let tree = &self.maker.tree;
        let Some(directory) = tree.directory(directory, self.epoch)? else {
            return Ok(None);
        };
        let found = tree.find(&directory, name.as_bytes(), self.epoch)?;
        Ok(Some((tree.describe(&directory), found)))
    }

    /// Adds a file with everything that its spelling leads through.
    fn add_named_file(&mut self, path: &Path) -> Result<(), InputError> {
        match self.find(path)? {
            Some((info, Found::File(file))) => {
                self.add_way_to(&info)?;
                for link in &file.route.links {
                    self.add_link(link)?;
                }
                for crossed in &file.route.crossed {
                    self.add_directory(crossed);
                }
                self.add_file(&file)
            }
            _ => Err(InputError::MissingFile(path.to_owned())),
        }
    }

    /// Prepares an output's place, with something in it when something is there now: what gcc removes on failure has to
    /// be there to be removed. Returns the place.
    fn add_output(&mut self, path: &Path, held: &mut Vec<(Digest, Arc<Vec<u8>>)>) -> Result<PathBuf, InputError> {
        let (info, found) = self
            .find(path)?
            .ok_or_else(|| InputError::MissingDirectory(path.to_owned()))?;
        self.add_way_to(&info)?;
        let place = info.route.path.join(split(path).1);
        match found {
            Found::Absent => {}
            Found::File(file) => {
                // Binutils treat an empty file in another way than one with something in it.
                let stand_in = vec![b'\n'; usize::from(file.fingerprint.size > 0)];
                let digest = Digest::of(&stand_in);
                self.add_held(place.clone(), digest, stand_in.len() as u64);
                held.push((digest, Arc::new(stand_in)));
            }
            Found::Directory | Found::Special => return Err(InputError::SpecialOutput(path.to_owned())),
        }
        Ok(place)
    }

    pub(super) fn finish(
        mut self,
        around: &Surroundings,
        mut held: Vec<(Digest, Arc<Vec<u8>>)>,
    ) -> Result<Inputs, InputError> {
        let cwd = self
            .directory_of(&around.cwd)?
            .ok_or_else(|| InputError::MissingFile(around.cwd.clone()))?;
        self.add_way_to(&cwd)?;
        let has_program = || self.toolchain.captured.manifest.resolve(&around.program).is_some();
        if self.there == There::Toolchain && !has_program() {
            self.add_named_file(&around.program)?;
        }
        for file in &around.files {
            self.add_named_file(file)?;
        }
        let mut outputs = Vec::with_capacity(around.outputs.len());
        for output in &around.outputs {
            outputs.push(self.add_output(output, &mut held)?);
        }
        let mut output_dirs = vec![cwd.route.path.clone()];
        output_dirs.extend(outputs.iter().filter_map(|place| place.parent().map(Path::to_owned)));
        for directory in &around.directories {
            if let Some(info) = self.directory_of(directory)? {
                self.add_way_to(&info)?;
                output_dirs.push(info.route.path.clone());
            }
        }
        output_dirs.sort();
        output_dirs.dedup();
        // Equal inputs are one handle, so that its address tells them apart.
        self.refs
            .sort_unstable_by_key(|input| std::ptr::from_ref::<Input>(input).addr());
        self.refs
            .dedup_by_key(|input| std::ptr::from_ref::<Input>(input).addr());
        lock(&self.maker.shipped).keep();
        Ok(Inputs {
            refs: self.refs.into(),
            bytes: self.bytes,
            outputs,
            cwd: cwd.route.path.clone(),
            output_dirs,
            content: Arc::new(JobContent::new(held)),
        })
    }
}

/// Finds the files that have the same content as another file of the closure, and are not the same file.
fn twins(files: &[&Arc<SourceFile>], tree: &DiskTree) -> Result<BTreeSet<u32>, TreeError> {
    let mut by_digest: Vec<(Digest, &Arc<SourceFile>)> = Vec::with_capacity(files.len());
    for file in files {
        if file.fingerprint.size > 0 {
            by_digest.push((tree.digest(file)?, file));
        }
    }
    by_digest.sort_unstable_by_key(|(digest, _)| *digest);
    let mut twins = BTreeSet::new();
    for pair in by_digest.windows(2) {
        let [(one, first), (other, second)] = pair else {
            continue;
        };
        if one == other && first.route.path != second.route.path {
            twins.extend([first.id, second.id]);
        }
    }
    Ok(twins)
}

/// Splits an absolute path into directory and name, as spelled: `..` stays.
pub(super) fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    match memchr::memrchr(b'/', bytes) {
        Some(0) => (Path::new("/"), OsStr::from_bytes(&bytes[1..])),
        Some(at) => (
            Path::new(OsStr::from_bytes(&bytes[..at])),
            OsStr::from_bytes(&bytes[at + 1..]),
        ),
        None => (Path::new("/"), path.as_os_str()),
    }
}
