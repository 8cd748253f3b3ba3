//! One directory as spelled, with what is known of the names in it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Dir, FileType, IFlags, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::{DirectoryInfo, Epoch, Fingerprint, Found, ListingId, Route, SourceFile, TreeError};
use super::reliance::Reliance;
use super::watch::Quiet;
use super::{Shared, is_too_recent, now_ns, route, unreadable};
use crate::digest::Digest;

/// Largest directory that is listed; beyond, each name is asked for by itself.
const LISTED_MAX: usize = 50_000;

/// A directory as spelled.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When it was last looked at.
    checked: Option<Epoch>,
    /// Set from its second look on.
    quiet: Option<Quiet>,
    info: Option<Arc<DirectoryInfo>>,
    stamp: Stamp,
    listing: Listing,
    children: HashMap<Box<[u8]>, Arc<Node>>,
    files: HashMap<Box<[u8]>, Arc<Mutex<FileState>>>,
}

/// When a directory's names last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stamp {
    identity: (u64, u64),
    mtime_ns: i64,
    ctime_ns: i64,
}

/// The names in a directory, as hashes: a false match costs one look, nothing more.
#[derive(Debug, Default)]
enum Listing {
    /// Not read yet, or outdated.
    #[default]
    Unknown,
    /// Cannot be had, or not be relied on, as long as the directory stays as it is.
    Unusable,
    /// Sorted; good for this epoch only if too recent.
    Names {
        hashes: Box<[u64]>,
        settled: bool,
        id: ListingId,
    },
}

#[derive(Debug, Default)]
struct FileState {
    checked: Option<Epoch>,
    /// Set from its second look on.
    quiet: Option<Quiet>,
    /// What was found at that time.
    seen: Seen,
    id: Option<u32>,
}

#[derive(Debug, Default)]
enum Seen {
    #[default]
    Nothing,
    Directory,
    Special,
    File(Arc<SourceFile>),
}

/// The inode flag of directories that ignore case (`FS_CASEFOLD_FL`).
const CASE_FOLDED: IFlags = IFlags::from_bits_retain(0x4000_0000);

fn nanoseconds(seconds: i64, nanoseconds: u64) -> i64 {
    // Times beyond the year 2262 count as its end.
    let rest = i64::try_from(nanoseconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[allow(clippy::unnecessary_cast, reason = "the fields' types differ by target")]
pub(super) fn fingerprint(stat: &Stat) -> Fingerprint {
    Fingerprint {
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        ctime_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        mode: (stat.st_mode as u32) & 0o7777,
    }
}

/// Says whether a place is reached without links and detours.
fn is_plain(route: &Route) -> bool {
    route.links.is_empty() && route.crossed.is_empty()
}

impl FileState {
    /// Says whether the version that is known had settled when it was read, if it was read.
    fn is_settled(&self) -> bool {
        match &self.seen {
            Seen::File(known) => known
                .content
                .get()
                .is_none_or(|content| !is_too_recent(known.fingerprint.changed_ns(), content.read_ns)),
            Seen::Nothing | Seen::Directory | Seen::Special => true,
        }
    }
}

impl Node {
    pub(super) fn root(shared: &Arc<Shared>) -> Self {
        Self::new(PathBuf::from("/"), Arc::clone(shared))
    }

    fn new(path: PathBuf, shared: Arc<Shared>) -> Self {
        shared.new_id();
        Self {
            path,
            shared,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Describes the directory as it was when last looked at.
    pub(super) fn info(&self) -> Arc<DirectoryInfo> {
        self.lock().info.clone().unwrap_or_else(|| {
            // Only a directory that exists is handed out, so this says no more than its spelling.
            Arc::new(DirectoryInfo {
                route: Route {
                    path: self.path.clone(),
                    ..Route::default()
                },
                identity: (0, 0),
            })
        })
    }

    /// Says whether the directory exists.
    pub(super) fn exists(&self, epoch: Epoch) -> Result<bool, TreeError> {
        let mut state = self.lock();
        self.check(&mut state, epoch)?;
        Ok(state.info.is_some())
    }

    /// Looks at the directory once per epoch, unless it is quiet.
    fn check(&self, state: &mut State, epoch: Epoch) -> Result<(), TreeError> {
        if state.checked >= Some(epoch) {
            return Ok(());
        }
        let unsettled = matches!(state.listing, Listing::Names { settled: false, .. });
        if !unsettled && self.is_quiet(state.quiet.as_ref()) {
            state.checked = Some(epoch);
            return Ok(());
        }
        let quiet = self.watched(state);
        // The bell is silent again, and no longer speaks for what was found before: the look that follows may fail.
        state.quiet = None;
        self.shared.looks.fetch_add(1, Ordering::Relaxed);
        let found = match rustix::fs::stat(&self.path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Some(fingerprint(&stat)),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(unreadable(self.path.clone(), error)),
        };
        match found {
            None => {
                state.info = None;
                state.listing = Listing::Unknown;
            }
            Some(found) => {
                let stamp = Stamp {
                    identity: (found.device, found.inode),
                    mtime_ns: found.mtime_ns,
                    ctime_ns: found.ctime_ns,
                };
                // A directory that was moved, and is reached by a link in its old place, has changed by that.
                if state.info.is_none() || stamp != state.stamp {
                    let info = DirectoryInfo {
                        route: route::resolve(&self.path)?,
                        identity: stamp.identity,
                    };
                    if state.info.as_deref() != Some(&info) {
                        state.info = Some(Arc::new(info));
                        state.children.clear();
                        state.files.clear();
                    }
                }
                if stamp != state.stamp || unsettled {
                    state.listing = Listing::Unknown;
                }
                let same = stamp.identity == state.stamp.identity;
                state.quiet = quiet.filter(|_| same && self.is_here(state));
                state.stamp = stamp;
            }
        }
        state.checked = Some(epoch);
        Ok(())
    }

    fn is_quiet(&self, quiet: Option<&Quiet>) -> bool {
        quiet.is_some_and(|quiet| self.shared.watch.is_quiet(quiet))
    }

    /// Says whether the directory stood, when last looked at, at the path that it is called by.
    fn is_here(&self, state: &State) -> bool {
        let info = state.info.as_ref();
        info.is_some_and(|info| is_plain(&info.route) && info.route.path == self.path)
    }

    /// Watches the directory, which was here before, for the look that follows.
    fn watched(&self, state: &State) -> Option<Quiet> {
        let file_systems = &self.shared.file_systems;
        if !self.is_here(state) || file_systems.reliance(state.stamp.identity.0, &self.path) != Reliance::Events {
            return None;
        }
        self.shared.watch.directory(&self.path, state.quiet.as_ref())
    }

    /// Watches a file in it, which was here before, for the look that follows.
    fn watched_file(&self, parent: &DirectoryInfo, file: &FileState) -> Option<Quiet> {
        let Seen::File(known) = &file.seen else { return None };
        let here = is_plain(&parent.route) && is_plain(&known.route) && parent.route.path == self.path;
        let place = &known.route.path;
        if !here || self.shared.file_systems.reliance(known.fingerprint.device, place) != Reliance::Events {
            return None;
        }
        self.shared.watch.file(place, file.quiet.as_ref())
    }

    /// Says whether the directory may have `name`; false is certain.
    fn may_have(&self, state: &mut State, name: &[u8]) -> bool {
        if name == b".." {
            return true;
        }
        if matches!(state.listing, Listing::Unknown) {
            state.listing = self.list(state.stamp);
        }
        match &state.listing {
            Listing::Names { hashes, .. } => hashes.binary_search(&self.shared.names.hash_one(name)).is_ok(),
            Listing::Unknown | Listing::Unusable => true,
        }
    }

    fn list(&self, stamp: Stamp) -> Listing {
        if self.shared.file_systems.reliance(stamp.identity.0, &self.path) == Reliance::None {
            return Listing::Unusable;
        }
        let looked_ns = now_ns();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(opened) = rustix::fs::open(&self.path, flags, Mode::empty()) else {
            return Listing::Unusable;
        };
        // ext4, f2fs and tmpfs can be told to ignore case.
        if rustix::fs::ioctl_getflags(&opened).is_ok_and(|flags| flags.contains(CASE_FOLDED)) {
            return Listing::Unusable;
        }
        let same = |stat: Stat| {
            let found = fingerprint(&stat);
            (found.device, found.inode) == stamp.identity
                && (found.mtime_ns, found.ctime_ns) == (stamp.mtime_ns, stamp.ctime_ns)
        };
        let mut hashes = Vec::new();
        let Ok(entries) = Dir::read_from(&opened) else {
            return Listing::Unusable;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                return Listing::Unusable;
            };
            if hashes.len() >= LISTED_MAX {
                return Listing::Unusable;
            }
            hashes.push(self.shared.names.hash_one(entry.file_name().to_bytes()));
        }
        // A name that came or went meanwhile shows in the times, or they are too recent.
        let unchanged = rustix::fs::fstat(&opened).is_ok_and(same);
        hashes.sort_unstable();
        let changed_ns = stamp.mtime_ns.max(stamp.ctime_ns);
        Listing::Names {
            hashes: hashes.into(),
            settled: unchanged && !is_too_recent(changed_ns, looked_ns),
            id: self.shared.new_listing(),
        }
    }

    /// Names the listing that answers for absent names, if one does that can be relied on.
    pub(super) fn listing(&self, epoch: Epoch) -> Result<Option<ListingId>, TreeError> {
        let mut state = self.lock();
        self.check(&mut state, epoch)?;
        if state.info.is_none() {
            return Ok(None);
        }
        if matches!(state.listing, Listing::Unknown) {
            state.listing = self.list(state.stamp);
        }
        Ok(match &state.listing {
            Listing::Names { settled: true, id, .. } => Some(*id),
            _ => None,
        })
    }

    fn child_path(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    /// Returns the node of a directory in this one without looking whether either exists.
    pub(super) fn child_unchecked(&self, name: &[u8]) -> Arc<Self> {
        self.child_of(&mut self.lock(), name)
    }

    fn child_of(&self, state: &mut State, name: &[u8]) -> Arc<Self> {
        if let Some(child) = state.children.get(name) {
            return Arc::clone(child);
        }
        let child = Arc::new(Self::new(self.child_path(name), Arc::clone(&self.shared)));
        state.children.insert(name.into(), Arc::clone(&child));
        child
    }

    /// Returns the directory `name` in this one, which exists; `None` when there is none.
    pub(super) fn child(&self, name: &[u8], epoch: Epoch) -> Result<Option<Arc<Self>>, TreeError> {
        let child = {
            let mut state = self.lock();
            self.check(&mut state, epoch)?;
            if state.info.is_none() || !self.may_have(&mut state, name) {
                return Ok(None);
            }
            self.child_of(&mut state, name)
        };
        Ok(child.exists(epoch)?.then_some(child))
    }

    /// Collects the digests of versions that had settled when they were read, here and below.
    pub(super) fn settled_contents(&self, contents: &mut HashMap<Fingerprint, Digest>) {
        let (children, files): (Vec<_>, Vec<_>) = {
            let state = self.lock();
            (
                state.children.values().cloned().collect(),
                state.files.values().cloned().collect(),
            )
        };
        for file in files {
            let file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Seen::File(file) = &file.seen
                && let Some(content) = file.content.get()
                && !is_too_recent(file.fingerprint.changed_ns(), content.read_ns)
            {
                contents.insert(file.fingerprint, content.digest);
            }
        }
        for child in children {
            child.settled_contents(contents);
        }
    }

    /// Returns what `name` is in this directory, which exists.
    pub(super) fn find(&self, name: &[u8], epoch: Epoch) -> Result<Found, TreeError> {
        let (file, parent) = {
            let mut state = self.lock();
            self.check(&mut state, epoch)?;
            let Some(parent) = state.info.clone() else {
                return Ok(Found::Absent);
            };
            let file = match state.files.get(name) {
                // It is looked at in any case, if it has not been in this epoch.
                Some(file) => Arc::clone(file),
                None => {
                    if !self.may_have(&mut state, name) {
                        return Ok(Found::Absent);
                    }
                    let file = Arc::new(Mutex::default());
                    state.files.insert(name.into(), Arc::clone(&file));
                    file
                }
            };
            (file, parent)
        };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.checked < Some(epoch) {
            if !(file.is_settled() && self.is_quiet(file.quiet.as_ref())) {
                let quiet = self.watched_file(&parent, &file);
                file.quiet = None;
                self.shared.looks.fetch_add(1, Ordering::Relaxed);
                file.seen = self.look(name, &parent, &mut file)?;
                // The watch is on what stands in this place itself.
                file.quiet = quiet.filter(|_| matches!(&file.seen, Seen::File(file) if is_plain(&file.route)));
            }
            file.checked = Some(epoch);
        }
        Ok(match &file.seen {
            Seen::Nothing => Found::Absent,
            Seen::Directory => Found::Directory,
            Seen::Special => Found::Special,
            Seen::File(file) => Found::File(Arc::clone(file)),
        })
    }

    /// Looks at a file, and keeps the version that is known if it is still that one, reached in the same way.
    fn look(&self, name: &[u8], parent: &DirectoryInfo, file: &mut FileState) -> Result<Seen, TreeError> {
        let path = self.child_path(name);
        let itself = match rustix::fs::lstat(&path) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Seen::Nothing),
            Err(error) => return Err(unreadable(path, error)),
        };
        let is_link = FileType::from_raw_mode(itself.st_mode) == FileType::Symlink;
        let stat = match is_link {
            false => itself,
            true => match rustix::fs::stat(&path) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Seen::Nothing),
                Err(error) => return Err(unreadable(path, error)),
            },
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Ok(Seen::Directory),
            _ => return Ok(Seen::Special),
        }
        let found = fingerprint(&stat);
        let through = match is_link {
            false => None,
            true => Some(route::resolve(&parent.route.path.join(OsStr::from_bytes(name)))?),
        };
        if let Seen::File(known) = &file.seen
            && known.fingerprint == found
            && file.is_settled()
            && through
                .as_ref()
                .map_or(is_plain(&known.route), |through| *through == known.route)
        {
            return Ok(Seen::File(Arc::clone(known)));
        }
        let route = through.unwrap_or_else(|| Route {
            path: parent.route.path.join(OsStr::from_bytes(name)),
            ..Route::default()
        });
        let id = *file.id.get_or_insert_with(|| self.shared.new_id());
        Ok(Seen::File(Arc::new(SourceFile {
            id,
            route,
            fingerprint: found,
            content: self.shared.known_content(&found),
        })))
    }
}
