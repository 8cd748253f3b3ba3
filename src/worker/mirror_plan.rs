//! Decides what has to change in a mirror before a job may run in it, or that it cannot run in this one.
//!
//! A [`Generation`] is the model of one directory tree on the worker's disk: what stands at each path below a fixed
//! base, the toolchain. Jobs that run hold what they were given. Symbolic links are followed in the model only, so
//! nothing on disk can lead out of the tree. Pure: the caller carries out the changes.
//!
//! Invariants: while a job runs, each of its inputs resolves to exactly what the job listed; a directory, and a link
//! that some path leads through, never become anything else within one generation.

pub mod catalog;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use self::catalog::{Catalog, CatalogFull, Cell, EntryId, PathId};
use crate::digest::Digest;
use crate::job::InputKind;

/// Links followed for one path: the kernel's own limit.
const LINKS_MAX: u32 = 40;
/// Steps of path resolution for one job. The largest closures need some 100,000; a hostile list could ask for 10¹⁰.
const STEPS_MAX: u32 = 20_000_000;
/// Bit that tells the base's own cells from those of the catalog.
const BASE: u32 = 1 << 31;
/// Resolution of an input that the base satisfies for good.
const BY_BASE: u32 = u32::MAX;
/// Resolution of an input that has not been looked at.
const UNRESOLVED: u32 = u32::MAX - 1;

/// What the toolchain has at a path; never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseKind {
    /// A directory, in which inputs may stand.
    Directory,
    /// A regular file.
    File {
        /// Digest of its content.
        digest: Digest,
    },
    /// A link with its target as written.
    Symlink(OsString),
    /// A path at and below which nothing may be placed, such as `/proc`.
    Reserved,
}

/// What all generations of a mirror start from.
#[derive(Debug, Clone, Default)]
pub struct Base {
    /// Each path once, parents before children.
    pub entries: Vec<(PathId, BaseKind)>,
}

/// A step to be carried out on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Where; its parent is a directory by then, reached without links.
    pub path: PathId,
    /// What stands there before.
    pub from: Cell,
    /// What has to stand there. Never a directory's removal.
    pub to: Cell,
}

/// What a job needs, worked out but not yet done.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order to be carried out.
    pub changes: Vec<Change>,
    /// The inputs whose content the changes place.
    pub contents: Vec<EntryId>,
    resolved: Vec<(EntryId, u32)>,
    walked: Vec<PathId>,
}

/// Why a job cannot run in a generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// It needs something else at a path than what stands there for a running job, or a change that is never made
    /// within a generation. A new one will do.
    #[error("another generation is needed")]
    Stale,
    /// The list contradicts itself.
    #[error("`{}` is listed in two ways that exclude each other", .0.display())]
    Contradiction(PathBuf),
    /// The list contradicts the toolchain.
    #[error("`{}` differs from the toolchain's own", .0.display())]
    Toolchain(PathBuf),
    /// A path that no job may bring.
    #[error("`{}` lies where jobs may place nothing", .0.display())]
    Reserved(PathBuf),
    /// A loop of links.
    #[error("`{}` leads through too many symbolic links", .0.display())]
    Links(PathBuf),
    /// Far more steps than any real job takes.
    #[error("the inputs lead through too many directories")]
    Steps,
    /// The catalog has no room left.
    #[error(transparent)]
    Full(#[from] CatalogFull),
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    /// A [`Cell`], or [`BASE`] and an index into the base.
    stands: u32,
    /// How many entries of running jobs resolve to this.
    held: u32,
    /// The plan that last changed it.
    changed_by: u32,
    /// The plan that last led through it.
    walked_by: u32,
    /// Whether a resolution that still counts leads through it.
    walked: bool,
}

/// The model of one tree on disk.
#[derive(Debug)]
pub struct Generation {
    base: Arc<Base>,
    /// By path.
    nodes: Vec<Node>,
    /// By entry: the path it resolved to, or [`BY_BASE`], or [`UNRESOLVED`].
    resolved: Vec<u32>,
    plans: u32,
    committed: bool,
}

impl Generation {
    /// Starts with the base alone.
    pub fn new(base: Arc<Base>) -> Self {
        let mut nodes = Vec::new();
        for (index, (path, _)) in base.entries.iter().enumerate() {
            if nodes.len() <= path.index() {
                nodes.resize(path.index() + 1, Node::default());
            }
            nodes[path.index()].stands = BASE | index as u32;
        }
        let mut generation = Self {
            base,
            nodes,
            resolved: Vec::new(),
            plans: 0,
            committed: false,
        };
        let root = generation.node(PathId::ROOT);
        if root.stands == Cell::NOTHING.0 {
            root.stands = Cell::DIRECTORY.0;
        }
        generation
    }

    /// Works out what has to change so that a job with these inputs can run. Changes nothing yet.
    pub fn plan(&mut self, catalog: &mut Catalog, entries: &[EntryId]) -> Result<Plan, Stop> {
        self.resolved.resize(catalog.len(), UNRESOLVED);
        self.nodes
            .resize(catalog.paths().max(self.nodes.len()), Node::default());
        let missing: Vec<EntryId> = entries
            .iter()
            .copied()
            .filter(|entry| !self.stands(catalog, *entry))
            .collect();
        self.plans = self.plans.wrapping_add(1);
        let first_time = !self.committed;
        let mut planner = Planner {
            generation: self,
            catalog,
            changes: Vec::new(),
            contents: Vec::new(),
            resolved: Vec::new(),
            walked: Vec::new(),
            steps: 0,
        };
        let settled = planner.settle_all(missing).and_then(|()| planner.check(entries));
        planner.undo();
        let Planner {
            changes,
            contents,
            resolved,
            walked,
            ..
        } = planner;
        match settled {
            // Nothing stood in the way but the job itself.
            Err((Stop::Stale, path)) if first_time => Err(Stop::Contradiction(catalog.full_path(path))),
            Err((stop, _)) => Err(stop),
            Ok(()) => Ok(Plan {
                changes,
                contents,
                resolved,
                walked,
            }),
        }
    }

    /// Takes the changes of a plan as done, and the job with these inputs as running. The plan must be the latest one,
    /// with nothing committed since.
    pub fn begin(&mut self, catalog: &Catalog, plan: &Plan, entries: &[EntryId]) {
        self.committed = true;
        self.nodes
            .resize(catalog.paths().max(self.nodes.len()), Node::default());
        for change in &plan.changes {
            self.nodes[change.path.index()].stands = change.to.0;
        }
        for (entry, resolved) in &plan.resolved {
            self.resolved[entry.index()] = *resolved;
        }
        for path in &plan.walked {
            self.nodes[path.index()].walked = true;
        }
        self.hold(entries, |held| held + 1);
    }

    /// Takes the job with these inputs as ended.
    pub fn end(&mut self, entries: &[EntryId]) {
        self.hold(entries, |held| held.saturating_sub(1));
    }

    fn hold(&mut self, entries: &[EntryId], count: impl Fn(u32) -> u32) {
        for entry in entries {
            // What the base satisfies cannot change and needs no holding.
            if let Some(node) = self.nodes.get_mut(self.resolved[entry.index()] as usize) {
                node.held = count(node.held);
            }
        }
    }

    fn stands(&self, catalog: &Catalog, entry: EntryId) -> bool {
        match self.resolved[entry.index()] {
            BY_BASE => true,
            UNRESOLVED => false,
            path => self.nodes[path as usize].stands == catalog.entry(entry).1.0,
        }
    }

    fn node(&mut self, path: PathId) -> &mut Node {
        if self.nodes.len() <= path.index() {
            self.nodes.resize(path.index() + 1, Node::default());
        }
        &mut self.nodes[path.index()]
    }

    fn base_of(&self, path: PathId) -> Option<&BaseKind> {
        let stands = self.nodes.get(path.index())?.stands;
        (stands & BASE != 0).then(|| &self.base.entries[(stands & !BASE) as usize].1)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Final {
    /// A link at the end of the path is what is meant.
    Itself,
    /// What it leads to is meant.
    Target,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parents {
    Make,
    Leave,
}

/// A stop and the path at which it came up.
type Stopped = (Stop, PathId);

/// A plan in the making, applied to the model until it is undone.
struct Planner<'a> {
    generation: &'a mut Generation,
    catalog: &'a mut Catalog,
    changes: Vec<Change>,
    contents: Vec<EntryId>,
    resolved: Vec<(EntryId, u32)>,
    walked: Vec<PathId>,
    steps: u32,
}

impl Planner<'_> {
    fn settle_all(&mut self, mut missing: Vec<EntryId>) -> Result<(), Stopped> {
        let links = |catalog: &Catalog, entry: &EntryId| {
            let kind = catalog.kind(catalog.entry(*entry).1);
            matches!(kind.map(Arc::as_ref), Some(InputKind::Symlink(_)))
        };
        // Links first, the outermost first of all: they decide where the other paths lead.
        missing.sort_by_cached_key(|entry| match links(self.catalog, entry) {
            true => (0, self.catalog.components(self.catalog.entry(*entry).0).len()),
            false => (1, 0),
        });
        missing.into_iter().try_for_each(|entry| self.settle(entry))
    }

    fn settle(&mut self, entry: EntryId) -> Result<(), Stopped> {
        let (path, want) = self.catalog.entry(entry);
        let kind = self.catalog.kind(want).cloned();
        let (last, parents) = match want {
            Cell::NOTHING => (Final::Itself, Parents::Leave),
            Cell::DIRECTORY => (Final::Target, Parents::Make),
            _ => (Final::Itself, Parents::Make),
        };
        let mut node = self.resolve(path, last, parents)?;
        if let (Some(BaseKind::Symlink(_)), Some(InputKind::File { .. })) =
            (self.generation.base_of(node), kind.as_deref())
        {
            node = self.resolve(path, Final::Target, parents)?;
        }
        if let Some(base) = self.generation.base_of(node) {
            let equal = match (base, kind.as_deref()) {
                (BaseKind::Directory, None) => want == Cell::DIRECTORY,
                (BaseKind::File { digest: ours }, Some(InputKind::File { digest, .. })) => ours == digest,
                (BaseKind::Symlink(ours), Some(InputKind::Symlink(target))) => ours == target,
                (BaseKind::Reserved, _) => return Err(self.stop(Stop::Reserved, node)),
                _ => false,
            };
            if !equal {
                return Err(self.stop(Stop::Toolchain, node));
            }
            self.resolved.push((entry, BY_BASE));
            return Ok(());
        }
        let before = self.changes.len();
        self.change(node, want)?;
        if self.changes.len() > before && matches!(kind.as_deref(), Some(InputKind::File { .. })) {
            self.contents.push(entry);
        }
        self.resolved.push((entry, node.0));
        Ok(())
    }

    /// Follows a path to where it stands in the tree.
    fn resolve(&mut self, path: PathId, last: Final, parents: Parents) -> Result<PathId, Stopped> {
        let components = self.catalog.components(path);
        let lexical = components.iter().all(|part| {
            let ends_itself = *part == path && last == Final::Itself;
            ends_itself || self.target(*part).is_none()
        });
        if lexical {
            self.count(components.len(), path)?;
            let (_, outer) = components.split_last().unwrap_or((&PathId::ROOT, &[]));
            outer.iter().try_for_each(|part| self.enter(*part, parents))?;
            return Ok(path);
        }
        let mut names: Vec<OsString> = components
            .iter()
            .rev()
            .map(|part| self.catalog.name(*part).to_owned())
            .collect();
        let mut at = PathId::ROOT;
        let mut links = 0;
        while let Some(name) = names.pop() {
            self.count(1, path)?;
            match name.as_bytes() {
                b"" | b"." => continue,
                b".." => {
                    at = self.catalog.parent(at);
                    continue;
                }
                _ => {}
            }
            let node = self
                .catalog
                .child(at, name.as_bytes())
                .map_err(|full| (full.into(), path))?;
            self.generation.node(node);
            let is_last = names.is_empty();
            match self.target(node) {
                Some(target) if !is_last || last == Final::Target => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(self.stop(Stop::Links, path));
                    }
                    self.walk(node);
                    if target.as_bytes().first() == Some(&b'/') {
                        at = PathId::ROOT;
                    }
                    let parts = target.as_bytes().rsplit(|byte| *byte == b'/');
                    names.extend(parts.map(|part| OsStr::from_bytes(part).to_owned()));
                    continue;
                }
                _ => {}
            }
            if !is_last {
                self.enter(node, parents)?;
            }
            at = node;
        }
        Ok(at)
    }

    /// Passes through `node` on the way to something below it.
    fn enter(&mut self, node: PathId, parents: Parents) -> Result<(), Stopped> {
        self.walk(node);
        match self.generation.base_of(node) {
            Some(BaseKind::Reserved) => Err(self.stop(Stop::Reserved, node)),
            Some(BaseKind::File { .. }) if parents == Parents::Make => Err(self.stop(Stop::Toolchain, node)),
            Some(_) => Ok(()),
            None if parents == Parents::Make => self.change(node, Cell::DIRECTORY),
            None => Ok(()),
        }
    }

    fn change(&mut self, path: PathId, to: Cell) -> Result<(), Stopped> {
        let plan = self.generation.plans;
        let node = *self.generation.node(path);
        let from = Cell(node.stands);
        if from == to {
            return Ok(());
        }
        if node.changed_by == plan {
            return Err(self.stop(Stop::Contradiction, path));
        }
        let link = self.is_link(from) || self.is_link(to);
        let walked = node.walked || node.walked_by == plan;
        if from == Cell::DIRECTORY || (link && walked) || node.held > 0 {
            return Err((Stop::Stale, path));
        }
        self.changes.push(Change { path, from, to });
        let node = self.generation.node(path);
        node.stands = to.0;
        node.changed_by = plan;
        Ok(())
    }

    fn walk(&mut self, path: PathId) {
        let plan = self.generation.plans;
        let node = self.generation.node(path);
        if node.walked_by != plan {
            node.walked_by = plan;
            self.walked.push(path);
        }
    }

    fn count(&mut self, steps: usize, path: PathId) -> Result<(), Stopped> {
        self.steps += steps as u32;
        if self.steps > STEPS_MAX {
            return Err((Stop::Steps, path));
        }
        Ok(())
    }

    /// Checks that every input stands, now that all changes are known: two inputs may have wanted the same place.
    fn check(&mut self, entries: &[EntryId]) -> Result<(), Stopped> {
        if self.changes.is_empty() {
            return Ok(());
        }
        for (entry, resolved) in &self.resolved {
            self.generation.resolved[entry.index()] = *resolved;
        }
        match entries
            .iter()
            .find(|entry| !self.generation.stands(self.catalog, **entry))
        {
            None => Ok(()),
            Some(entry) => Err(self.stop(Stop::Contradiction, self.catalog.entry(*entry).0)),
        }
    }

    fn undo(&mut self) {
        for change in &self.changes {
            self.generation.nodes[change.path.index()].stands = change.from.0;
        }
        for (entry, _) in &self.resolved {
            self.generation.resolved[entry.index()] = UNRESOLVED;
        }
    }

    fn target(&self, node: PathId) -> Option<OsString> {
        if let Some(base) = self.generation.base_of(node) {
            return match base {
                BaseKind::Symlink(target) => Some(target.clone()),
                _ => None,
            };
        }
        let stands = self.generation.nodes.get(node.index())?.stands;
        match self.catalog.kind(Cell(stands)).map(Arc::as_ref) {
            Some(InputKind::Symlink(target)) => Some(target.clone()),
            _ => None,
        }
    }

    fn is_link(&self, cell: Cell) -> bool {
        matches!(self.catalog.kind(cell).map(Arc::as_ref), Some(InputKind::Symlink(_)))
    }

    fn stop(&self, stop: impl FnOnce(PathBuf) -> Stop, path: PathId) -> Stopped {
        (stop(self.catalog.full_path(path)), path)
    }
}
