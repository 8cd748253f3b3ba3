//! Mirrors of client trees: what jobs have needed so far, standing at its client-side paths on this worker's disk.
//!
//! One mirror per (client tree, toolchain), in one or more generations; `mirror_plan` decides what changes, `place`
//! carries it out. A job's root is its generation's directory above the toolchain's. Nothing here outlives the process:
//! what an earlier life left is thrown away, since linking known blobs anew costs less than checking what stands.
//! Invariant: a generation's directory changes only behind its tree's lock, and never under a job that relies on it.

mod place;
mod space;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, btree_map};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};

use self::place::Placer;
pub use self::place::{Owner, PlaceError};
use crate::digest::Digest;
use crate::ids::ToolchainId;
use crate::job::{Input, InputKind};
use crate::store::disk::{DiskStore, Pins};
use crate::store::swept;
use crate::toolchains::manifest::{Entry, Manifest};
use crate::worker::mirror_plan::catalog::{Catalog, CatalogFull, EntryId, PathId};
use crate::worker::mirror_plan::{Base, BaseKind, Generation, Plan, Stop};

/// Where no input may stand: the sandbox has its own there.
const RESERVED: [&str; 3] = ["/proc", "/dev", "/sys"];
/// Inputs of a tree beyond which a new link starts it afresh, so that what a client no longer uses is forgotten.
const CATALOG_ENTRIES_KEPT: usize = 1_000_000;

/// All mirrors of a worker. Clones share them.
#[derive(Debug, Clone)]
pub struct Mirrors {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    store: DiskStore,
    owner: Option<Owner>,
    quota_bytes: u64,
    trees: Mutex<BTreeMap<Digest, Arc<Tree>>>,
    /// Directories that nobody uses any more.
    garbage: Mutex<Vec<PathBuf>>,
    next_directory: AtomicU64,
    uses: AtomicU64,
}

/// One client's file tree, as far as its jobs have named it.
#[derive(Debug)]
pub struct Tree {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    mirrors: BTreeMap<ToolchainId, Mirror>,
}

#[derive(Debug)]
struct Mirror {
    base: Arc<Base>,
    /// Oldest first; only the last one is kept without running jobs.
    generations: Vec<Live>,
    last_use: u64,
}

/// A generation on disk.
#[derive(Debug)]
struct Live {
    number: u64,
    model: Generation,
    directory: PathBuf,
    root: OwnedFd,
    running: usize,
    own_bytes: u64,
    /// Files placed since its space was last counted.
    uncounted: usize,
    /// It may not be as its model says; no further job gets it.
    broken: bool,
}

/// Why a job's inputs cannot be placed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The list of inputs cannot be what the client sees.
    #[error(transparent)]
    Inputs(#[from] Stop),
    /// The disk or the store failed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A directory could not be made.
    #[error("cannot make a mirror in `{}`", directory.display())]
    Directory {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An input whose content is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The input.
    pub entry: EntryId,
    /// Its content.
    pub digest: Digest,
    /// Length of the content, bytes.
    pub size: u64,
}

/// What became of an attempt to place a job's inputs.
#[derive(Debug)]
pub enum Placed {
    /// All of them stand, for as long as the lease lives.
    Ready(Lease),
    /// These are missing. What is there stays there for as long as the pins live.
    Lacking(Vec<Missing>, Pins),
}

/// A job's hold on its inputs. Dropping it may wait for another job's placing.
#[derive(Debug)]
pub struct Lease {
    tree: Arc<Tree>,
    toolchain: ToolchainId,
    number: u64,
    entries: Arc<[EntryId]>,
    root: PathBuf,
}

impl Mirrors {
    /// Starts with no mirrors below `directory`, throwing away what is there. Files are given to `owner`, if any.
    pub fn open(directory: &Path, store: DiskStore, owner: Option<Owner>, quota_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o711).create(directory)?;
        let leftovers = fs::read_dir(directory)?
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>();
        // Numbers go on from the highest one, so that a leftover is never in the way.
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        let next = leftovers.iter().filter_map(number).max().map_or(1, |last| last + 1);
        Ok(Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                store,
                owner,
                quota_bytes,
                trees: Mutex::default(),
                garbage: Mutex::new(leftovers),
                next_directory: AtomicU64::new(next),
                uses: AtomicU64::new(1),
            }),
        })
    }

    /// Returns the tree that a client calls `id`.
    pub fn tree(&self, id: Digest) -> Arc<Tree> {
        let mut trees = lock(&self.shared.trees);
        let known = trees
            .get(&id)
            .filter(|tree| lock(&tree.state).catalog.len() < CATALOG_ENTRIES_KEPT);
        if let Some(tree) = known {
            return tree.clone();
        }
        let tree = Arc::new(Tree {
            shared: self.shared.clone(),
            state: Mutex::default(),
        });
        trees.insert(id, tree.clone());
        tree
    }
}

impl Tree {
    /// Numbers inputs, whose paths must be absolute and free of `.` and `..`.
    pub fn define(&self, inputs: &[Input]) -> Result<Vec<EntryId>, CatalogFull> {
        let mut state = lock(&self.state);
        inputs.iter().map(|input| state.catalog.define(input)).collect()
    }

    /// Makes a job's inputs stand at their paths, above the toolchain with this manifest.
    pub fn place(
        self: &Arc<Self>,
        toolchain: ToolchainId,
        manifest: &Manifest,
        entries: &Arc<[EntryId]>,
    ) -> Result<Placed, MirrorError> {
        let mut guard = lock(&self.state);
        let State { catalog, mirrors } = &mut *guard;
        let mirror = match mirrors.entry(toolchain) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => new.insert(Mirror {
                base: Arc::new(base_of(catalog, manifest).map_err(Stop::from)?),
                generations: Vec::new(),
                last_use: 0,
            }),
        };
        mirror.last_use = self.shared.uses.fetch_add(1, Ordering::Relaxed);
        let (chosen, plan) = mirror.choose(catalog, entries)?;
        let missing = missing(catalog, &plan);
        if !missing.is_empty() {
            let digests: Vec<Digest> = missing.iter().map(|missing| missing.digest).collect();
            let pins = self.shared.store.pin(&digests);
            if !pins.missing().is_empty() {
                let lacking = missing
                    .into_iter()
                    .filter(|missing| pins.missing().contains(&missing.digest));
                return Ok(Placed::Lacking(lacking.collect(), pins));
            }
        }
        let index = match chosen {
            Chosen::Existing(index) => index,
            Chosen::New(model) => self.begin_generation(mirror, *model)?,
        };
        let live = &mut mirror.generations[index];
        if let Err(error) = live.apply(catalog, &plan, &self.shared) {
            live.broken = true;
            mirror.drop_idle(&self.shared);
            return Err(error.into());
        }
        live.model.begin(catalog, &plan, entries);
        live.running += 1;
        Ok(Placed::Ready(Lease {
            tree: self.clone(),
            toolchain,
            number: live.number,
            entries: entries.clone(),
            root: live.directory.join("root"),
        }))
    }

    fn begin_generation(&self, mirror: &mut Mirror, model: Generation) -> Result<usize, MirrorError> {
        let number = self.shared.next_directory.fetch_add(1, Ordering::Relaxed);
        let directory = self.shared.directory.join(number.to_string());
        let failed = |source| MirrorError::Directory {
            directory: directory.clone(),
            source,
        };
        let root = make_root(&directory, self.shared.owner).map_err(failed)?;
        mirror.generations.push(Live {
            number,
            model,
            directory,
            root,
            running: 0,
            own_bytes: 0,
            uncounted: 0,
            broken: false,
        });
        mirror.drop_idle(&self.shared);
        Ok(mirror.generations.len() - 1)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let state = lock(&self.state);
        let left = state.mirrors.values().flat_map(|mirror| &mirror.generations);
        lock(&self.shared.garbage).extend(left.map(|live| live.directory.clone()));
    }
}

enum Chosen {
    Existing(usize),
    New(Box<Generation>),
}

impl Mirror {
    /// Finds a generation that suits a job, the newest first, else a new one.
    fn choose(&mut self, catalog: &mut Catalog, entries: &[EntryId]) -> Result<(Chosen, Plan), Stop> {
        for (index, live) in self.generations.iter_mut().enumerate().rev() {
            // Whatever is wrong here may be so for what earlier jobs brought; only a new generation can tell.
            if !live.broken
                && let Ok(plan) = live.model.plan(catalog, entries)
            {
                return Ok((Chosen::Existing(index), plan));
            }
        }
        let mut model = Generation::new(self.base.clone());
        let plan = model.plan(catalog, entries)?;
        Ok((Chosen::New(Box::new(model)), plan))
    }

    /// Lets go of generations that no job runs in, but for the newest sound one.
    fn drop_idle(&mut self, shared: &Shared) {
        let newest = self.generations.last().map(|live| live.number);
        self.generations.retain(|live| {
            let kept = live.running > 0 || (Some(live.number) == newest && !live.broken);
            if !kept {
                lock(&shared.garbage).push(live.directory.clone());
            }
            kept
        });
    }
}

impl Live {
    fn apply(&mut self, catalog: &Catalog, plan: &Plan, shared: &Shared) -> Result<(), PlaceError> {
        let staging = self.directory.join("staging");
        let mut placer = Placer::new(&self.root, &staging, &shared.store, shared.owner);
        let applied = plan.changes.iter().try_for_each(|change| placer.apply(catalog, change));
        self.own_bytes += placer.own_bytes();
        self.uncounted += plan.changes.len();
        applied
    }
}

impl Lease {
    /// Returns the directory in which the inputs stand.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = lock(&self.tree.state);
        let Some(mirror) = state.mirrors.get_mut(&self.toolchain) else {
            return;
        };
        if let Some(live) = mirror.generations.iter_mut().find(|live| live.number == self.number) {
            live.model.end(&self.entries);
            live.running -= 1;
        }
        mirror.drop_idle(&self.tree.shared);
    }
}

/// Lists what a plan has to fetch or link, each content once.
fn missing(catalog: &Catalog, plan: &Plan) -> Vec<Missing> {
    let content = |entry: &EntryId| match catalog.kind(catalog.entry(*entry).1).map(Arc::as_ref) {
        Some(InputKind::File { digest, size, .. }) => Some(Missing {
            entry: *entry,
            digest: *digest,
            size: *size,
        }),
        _ => None,
    };
    plan.contents.iter().filter_map(content).collect()
}

fn base_of(catalog: &mut Catalog, manifest: &Manifest) -> Result<Base, CatalogFull> {
    let mut entries = vec![(PathId::ROOT, BaseKind::Directory)];
    for (path, entry) in manifest.entries() {
        let path = catalog.path(path)?;
        let kind = match entry {
            Entry::File { digest, .. } => BaseKind::File { digest: *digest },
            Entry::Symlink { target } => BaseKind::Symlink(target.clone()),
            Entry::Directory { .. } => BaseKind::Directory,
        };
        if path != PathId::ROOT {
            entries.push((path, kind));
        }
    }
    for path in RESERVED {
        entries.push((catalog.path(Path::new(path))?, BaseKind::Reserved));
    }
    Ok(Base { entries })
}

fn make_root(directory: &Path, owner: Option<Owner>) -> io::Result<OwnedFd> {
    let root = directory.join("root");
    let mirrors = directory.parent().unwrap_or(directory);
    swept::in_directory(mirrors, 0o711, || DirBuilder::new().mode(0o711).create(directory))?;
    DirBuilder::new().mode(0o700).create(directory.join("staging"))?;
    DirBuilder::new().mode(0o755).create(&root)?;
    if let Some(owner) = owner {
        std::os::unix::fs::chown(&root, Some(owner.uid), Some(owner.gid))?;
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
    Ok(rustix::fs::open(&root, flags, Mode::empty())?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while placing leaves a generation that its model may not match; the worker's panic hook ends the process.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
