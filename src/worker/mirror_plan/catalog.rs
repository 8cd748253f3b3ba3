//! The paths and kinds that a client tree's jobs have named, each once, as small dense numbers.
//!
//! Everything that happens per job works on these numbers; bytes of a path are looked at once, when a link defines an
//! entry. Nothing is ever forgotten here: a catalog that has grown too large is dropped as a whole with its mirrors.
//! Invariant: equal (path, kind) have equal [`EntryId`]s, and numbers are handed out without gaps.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::job::{Input, InputKind};

/// Most paths of one catalog. With all tables, some 150 bytes each.
pub const PATHS_MAX: usize = 4_000_000;

/// A path of the client tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub(super) u32);

impl PathId {
    /// `/`.
    pub const ROOT: Self = Self(0);

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One (path, kind) that a job may list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub(super) u32);

impl EntryId {
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What stands, or should stand, at a path: nothing, a directory, or a file or link by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(pub(super) u32);

impl Cell {
    /// Nothing stands there.
    pub const NOTHING: Self = Self(0);
    /// A directory.
    pub const DIRECTORY: Self = Self(1);
    const FIRST_KIND: u32 = 2;
}

/// The catalog has no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client tree has more than {PATHS_MAX} paths")]
pub struct CatalogFull;

#[derive(Debug)]
struct Node {
    parent: PathId,
    name: u32,
}

/// The numbers of one client tree.
#[derive(Debug)]
pub struct Catalog {
    names: Vec<Arc<[u8]>>,
    name_ids: HashMap<Arc<[u8]>, u32>,
    nodes: Vec<Node>,
    children: HashMap<(PathId, u32), PathId>,
    /// Files and links; index + [`Cell::FIRST_KIND`] is their cell.
    kinds: Vec<Arc<InputKind>>,
    kind_ids: HashMap<Arc<InputKind>, Cell>,
    entries: Vec<(PathId, Cell)>,
    entry_ids: HashMap<(PathId, Cell), EntryId>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            name_ids: HashMap::new(),
            nodes: vec![Node {
                parent: PathId::ROOT,
                name: u32::MAX,
            }],
            children: HashMap::new(),
            kinds: Vec::new(),
            kind_ids: HashMap::new(),
            entries: Vec::new(),
            entry_ids: HashMap::new(),
        }
    }
}

impl Catalog {
    /// Returns the number of an input, which must have an absolute path without `.` and `..`.
    pub fn define(&mut self, input: &Input) -> Result<EntryId, CatalogFull> {
        let path = self.path(&input.path)?;
        let cell = match &input.kind {
            InputKind::Absent => Cell::NOTHING,
            InputKind::Directory => Cell::DIRECTORY,
            kind => self.cell(kind),
        };
        let next = EntryId(self.entries.len() as u32);
        let id = *self.entry_ids.entry((path, cell)).or_insert(next);
        if id == next {
            self.entries.push((path, cell));
        }
        Ok(id)
    }

    /// Returns how many inputs have a number.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no input has a number.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of an absolute path without `.` and `..`.
    pub fn path(&mut self, path: &Path) -> Result<PathId, CatalogFull> {
        let mut at = PathId::ROOT;
        for name in path.as_os_str().as_bytes().split(|byte| *byte == b'/') {
            if !name.is_empty() {
                at = self.child(at, name)?;
            }
        }
        Ok(at)
    }

    /// Returns the number of the path `name` below `parent`.
    pub fn child(&mut self, parent: PathId, name: &[u8]) -> Result<PathId, CatalogFull> {
        let name = match self.name_ids.get(name) {
            Some(id) => *id,
            None => {
                let id = self.names.len() as u32;
                let name: Arc<[u8]> = name.into();
                self.names.push(name.clone());
                self.name_ids.insert(name, id);
                id
            }
        };
        if let Some(child) = self.children.get(&(parent, name)) {
            return Ok(*child);
        }
        if self.nodes.len() >= PATHS_MAX {
            return Err(CatalogFull);
        }
        let child = PathId(self.nodes.len() as u32);
        self.nodes.push(Node { parent, name });
        self.children.insert((parent, name), child);
        Ok(child)
    }

    /// Returns how many paths have a number.
    pub fn paths(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the directory that `path` is in; `/` is in itself.
    pub fn parent(&self, path: PathId) -> PathId {
        self.nodes[path.index()].parent
    }

    /// Returns the last component of `path`; empty for `/`.
    pub fn name(&self, path: PathId) -> &OsStr {
        match self.names.get(self.nodes[path.index()].name as usize) {
            Some(name) => OsStr::from_bytes(name),
            None => OsStr::new(""),
        }
    }

    /// Returns the components of `path`, outermost first.
    pub fn components(&self, path: PathId) -> Vec<PathId> {
        let mut components = Vec::new();
        let mut at = path;
        while at != PathId::ROOT {
            components.push(at);
            at = self.parent(at);
        }
        components.reverse();
        components
    }

    /// Writes out `path`.
    pub fn full_path(&self, path: PathId) -> PathBuf {
        let mut full = PathBuf::from("/");
        full.extend(self.components(path).into_iter().map(|part| self.name(part)));
        full
    }

    /// Returns path and wanted cell of an input.
    pub fn entry(&self, entry: EntryId) -> (PathId, Cell) {
        self.entries[entry.index()]
    }

    /// Returns the file or link that `cell` stands for; nothing for the two cells that have no number of their own.
    pub fn kind(&self, cell: Cell) -> Option<&Arc<InputKind>> {
        let index = cell.0.checked_sub(Cell::FIRST_KIND)?;
        self.kinds.get(index as usize)
    }

    fn cell(&mut self, kind: &InputKind) -> Cell {
        if let Some(cell) = self.kind_ids.get(kind) {
            return *cell;
        }
        let cell = Cell(self.kinds.len() as u32 + Cell::FIRST_KIND);
        let kind = Arc::new(kind.clone());
        self.kinds.push(kind.clone());
        self.kind_ids.insert(kind, cell);
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(path: &str, kind: InputKind) -> Input {
        Input {
            path: path.into(),
            kind,
        }
    }

    #[test]
    fn equal_inputs_share_a_number_and_paths_are_written_out_again() {
        let mut catalog = Catalog::default();
        let link = InputKind::Symlink("x".into());
        let first = catalog.define(&input("/a/b", link.clone())).expect("room");
        let again = catalog.define(&input("/a/b", link)).expect("room");
        let other = catalog.define(&input("/a/b", InputKind::Absent)).expect("room");
        assert_eq!(first, again);
        assert_ne!(first, other);
        let (path, cell) = catalog.entry(first);
        assert_eq!(catalog.full_path(path), PathBuf::from("/a/b"));
        assert_eq!(
            catalog.kind(cell).map(|kind| (**kind).clone()),
            Some(InputKind::Symlink("x".into()))
        );
        assert_eq!(catalog.entry(other), (path, Cell::NOTHING));
        assert_eq!(catalog.full_path(PathId::ROOT), PathBuf::from("/"));
    }
}
