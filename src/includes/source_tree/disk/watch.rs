//! Watches on files and directories, so that what nobody has touched is not looked at again.
//!
//! The kernel queues an event (inotify) before the call that made a change returns, so once the queue has been read, at the
//! beginning of an epoch, whatever is still *quiet* is as it was when it was last looked at. A file is watched by its
//! inode, under whichever name it is changed; the directories above it are watched for being moved or replaced, and the
//! mount table for anything that is mounted over them. Decides nothing about what a look finds. Invariants: a watch is set
//! before the look that it is to speak for; when in doubt nothing is quiet.
//!
//! Out of sight are only stores into a mapped file while the mapping lasts, as they are to everybody who does not wait for
//! its writer. A look is relied on for [`RELIED_MS`] at most all the same.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

#[cfg(test)]
mod tests;

/// A look is made anew after this time, whatever the watches say: a bound on what an error in them could do.
const RELIED_MS: u64 = 5_000;
/// Events taken at once. The kernel queues 16,384 by default; with more than this, everything counts as touched.
const EVENTS_MAX: usize = 65_536;
/// Room for events: some hundred with a name.
const EVENT_BYTES: usize = 16 << 10;

const OF_FILE: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::DONT_FOLLOW);
const OF_DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::ONLYDIR);

/// Changes of a directory's names.
const NAMES: ReadFlags = ReadFlags::CREATE
    .union(ReadFlags::DELETE)
    .union(ReadFlags::MOVED_FROM)
    .union(ReadFlags::MOVED_TO);
const GONE: ReadFlags = ReadFlags::IGNORED.union(ReadFlags::UNMOUNT);

/// Something that is watched since before it was looked at.
#[derive(Debug)]
pub(super) struct Quiet {
    /// The watch. It is the inode's: what replaces a file has another one.
    number: i32,
    bell: Arc<Bell>,
    generation: u64,
    looked_ms: u64,
}

/// What has been heard of one watched thing.
#[derive(Debug, Default)]
struct Bell(AtomicU8);

const SILENT: u8 = 0;
/// Something happened to it; the watch goes on.
const RUNG: u8 = 1;
/// The watch is no more.
const DEAD: u8 = 2;

impl Bell {
    fn ring(&self) {
        // A dead bell stays dead.
        self.0.fetch_max(RUNG, Ordering::SeqCst);
    }

    fn die(&self) {
        self.0.store(DEAD, Ordering::SeqCst);
    }

    /// Makes it silent for the look that follows; false when it never rings again.
    fn rearm(&self) -> bool {
        let silent = self
            .0
            .compare_exchange(RUNG, SILENT, Ordering::SeqCst, Ordering::SeqCst);
        silent != Err(DEAD)
    }
}

/// All watches.
#[derive(Debug)]
pub(super) struct Watch {
    most: usize,
    began: Instant,
    /// When the last epoch began, milliseconds since `began`.
    now_ms: AtomicU64,
    /// Counts what may have moved everything: nothing of an earlier one is quiet.
    generation: AtomicU64,
    ears: Mutex<Ears>,
}

#[derive(Debug, Default)]
enum Ears {
    #[default]
    NotYet,
    Open(Open),
    /// There is no inotify, or no mount table, here.
    Deaf,
}

#[derive(Debug)]
struct Open {
    events: OwnedFd,
    mounts: File,
    most: usize,
    watched: HashMap<i32, Watched>,
    /// Directories that are watched with all that are above them, in this generation.
    directories: HashMap<PathBuf, i32>,
}

#[derive(Debug)]
struct Watched {
    what: What,
    /// More than one for a file with several names.
    bells: Vec<Arc<Bell>>,
    /// Names in a directory that lead to watched directories.
    children: HashSet<Box<[u8]>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    File,
    Directory,
}

impl Watched {
    fn new(what: What) -> Self {
        Self {
            what,
            bells: Vec::new(),
            children: HashSet::new(),
        }
    }

    /// Adds a bell, in place of those that nobody listens to any more.
    fn add(&mut self) -> Arc<Bell> {
        self.bells.retain(|bell| Arc::strong_count(bell) > 1);
        let bell = Arc::<Bell>::default();
        self.bells.push(bell.clone());
        bell
    }

    /// Rings its bells if what happened, to a name in it or to itself, is of interest.
    fn tell(&self, what: ReadFlags, name: Option<&[u8]>) -> Heard {
        let is_child = match name {
            // Attributes of what is in a directory: files are watched themselves.
            Some(_) if !what.intersects(NAMES) => return Heard::Things,
            Some(name) => self.children.contains(name),
            None => false,
        };
        let gone = what.intersects(GONE);
        for bell in &self.bells {
            if gone { bell.die() } else { bell.ring() }
        }
        match (self.what, name) {
            (What::Directory, None) => Heard::Paths,
            _ if is_child => Heard::Paths,
            _ => Heard::Things,
        }
    }
}

impl Watch {
    /// Watches `most` files and directories at most, and half of what the system lets this user watch.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            began: Instant::now(),
            now_ms: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            ears: Mutex::default(),
        }
    }

    /// Hears of everything that happened until now: an epoch begins.
    pub(super) fn hear(&self) {
        let mut ears = self.ears();
        if let Ears::Open(open) = &mut *ears {
            match open.hear() {
                Ok(Heard::Things) => {}
                Ok(Heard::Paths) => {
                    self.generation.fetch_add(1, Ordering::SeqCst);
                    match open.is_full() {
                        true => *ears = Ears::NotYet,
                        false => open.directories.clear(),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "files are not watched any more");
                    self.generation.fetch_add(1, Ordering::SeqCst);
                    *ears = Ears::Deaf;
                }
            }
        }
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.now_ms.store(now, Ordering::SeqCst);
    }

    /// Forgets all watches.
    pub(super) fn forget(&self) {
        *self.ears() = Ears::NotYet;
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Says whether nothing has happened to it since it was looked at, as far as the last epoch's beginning.
    pub(super) fn is_quiet(&self, of: &Quiet) -> bool {
        of.generation == self.generation.load(Ordering::SeqCst)
            && of.bell.0.load(Ordering::SeqCst) == SILENT
            && self.now_ms.load(Ordering::SeqCst).saturating_sub(of.looked_ms) <= RELIED_MS
    }

    /// Watches a directory, which has to be looked at after that. Its path has no link in it, as far as one knows.
    pub(super) fn directory(&self, path: &Path, before: Option<&Quiet>) -> Option<Quiet> {
        self.watch(What::Directory, before, |open| open.directory(path))
    }

    /// Watches a file in a directory, likewise.
    pub(super) fn file(&self, path: &Path, before: Option<&Quiet>) -> Option<Quiet> {
        self.watch(What::File, before, |open| {
            open.directory(path.parent().ok_or(Errno::INVAL)?)?;
            open.add(path, OF_FILE)
        })
    }

    fn watch(
        &self,
        what: What,
        before: Option<&Quiet>,
        add: impl FnOnce(&mut Open) -> Result<i32, Errno>,
    ) -> Option<Quiet> {
        let looked_ms = self.now_ms.load(Ordering::SeqCst);
        let mut ears = self.ears();
        let generation = self.generation.load(Ordering::SeqCst);
        if matches!(*ears, Ears::NotYet) {
            *ears = Open::new(self.most).map_or(Ears::Deaf, Ears::Open);
        }
        let Ears::Open(open) = &mut *ears else { return None };
        if before.is_none() && open.is_full() {
            return None;
        }
        let number = add(open).ok()?;
        let same = |before: &&Quiet| before.generation == generation && before.number == number && before.bell.rearm();
        let bell = match before.filter(same) {
            Some(before) => before.bell.clone(),
            None => open.watched(number, what).add(),
        };
        Some(Quiet {
            number,
            bell,
            generation,
            looked_ms,
        })
    }

    fn ears(&self) -> MutexGuard<'_, Ears> {
        // Every entry is whole at any time.
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has been touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// Nothing, or things whose bells have been rung.
    Things,
    /// Paths lead elsewhere, or it is not known what has been touched.
    Paths,
}

impl Open {
    fn new(most: usize) -> Option<Self> {
        let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok()?;
        let limit: usize = limit.trim().parse().ok()?;
        Some(Self {
            events: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?,
            mounts: File::open("/proc/self/mountinfo").ok()?,
            most: most.min(limit / 2),
            watched: HashMap::new(),
            directories: HashMap::new(),
        })
    }

    fn is_full(&self) -> bool {
        self.watched.len() >= self.most
    }

    fn add(&self, path: &Path, flags: WatchFlags) -> Result<i32, Errno> {
        // Adding to what is watched of it already: what is a directory by now may have been a file's place just before.
        let number = inotify::add_watch(&self.events, path, flags | WatchFlags::MASK_ADD)?;
        if self.is_full() && !self.watched.contains_key(&number) {
            inotify::remove_watch(&self.events, number)?;
            return Err(Errno::NOSPC);
        }
        Ok(number)
    }

    fn watched(&mut self, number: i32, what: What) -> &mut Watched {
        let watched = self.watched.entry(number).or_insert_with(|| Watched::new(what));
        if what == What::Directory {
            // It may have stood, for a moment, where a file was to be watched.
            watched.what = what;
        }
        watched
    }

    /// Watches a directory and all above it, the highest first: so a change of any is heard that comes before the look.
    fn directory(&mut self, path: &Path) -> Result<i32, Errno> {
        if let Some(number) = self.directories.get(path) {
            return Ok(*number);
        }
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let parent = self.directory(parent)?;
            let children = &mut self.watched(parent, What::Directory).children;
            if !children.contains(name.as_bytes()) {
                children.insert(name.as_bytes().into());
            }
        }
        let number = self.add(path, OF_DIRECTORY)?;
        self.watched(number, What::Directory);
        self.directories.insert(path.to_owned(), number);
        Ok(number)
    }

    fn hear(&mut self) -> Result<Heard, Errno> {
        let mut sources = [
            PollFd::new(&self.events, PollFlags::IN),
            PollFd::new(&self.mounts, PollFlags::PRI),
        ];
        rustix::event::poll(&mut sources, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let [events, mounts] = sources.map(|source| source.revents());
        let mut heard = match mounts.is_empty() {
            true => Heard::Things,
            false => Heard::Paths,
        };
        if !events.is_empty() && self.take_events()? == Heard::Paths {
            heard = Heard::Paths;
        }
        Ok(heard)
    }

    fn take_events(&mut self) -> Result<Heard, Errno> {
        let mut heard = Heard::Things;
        let mut room = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut events = inotify::Reader::new(self.events.as_fd(), &mut room);
        for _ in 0..EVENTS_MAX {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(heard),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                heard = Heard::Paths;
                continue;
            }
            let Some(watched) = self.watched.get(&event.wd()) else {
                continue;
            };
            if watched.tell(what, event.file_name().map(CStr::to_bytes)) == Heard::Paths {
                heard = Heard::Paths;
            }
            if what.intersects(GONE) {
                self.watched.remove(&event.wd());
            }
        }
        Ok(Heard::Paths)
    }
}
