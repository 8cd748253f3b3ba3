//! The files of one scan: where each inclusion leads, and under which spelling.
//!
//! Follows gcc's own bookkeeping, because its list shows it: a file is one entry per name and place where the search
//! started, so the same file may be listed twice; the directory of the current file counts as a system directory if the
//! first file that searched it was a system header. Invariant: every probe of the tree is recorded, found or not.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::closure::Reason;
use super::hashing::NumberMap;
use super::reduced::Form;
use super::search::SearchPath;
use super::source_tree::{DirectoryInfo, Epoch, Found, ListingId, SourceFile, SourceTree, TreeError};
use super::symbols::{Symbol, Symbols};

mod error;

pub use error::FilesError;

/// Position of a directory in [`Files`]: of the search path, or a current file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Start(u32);

/// Absolute names start nowhere.
const NOWHERE: Start = Start(u32::MAX);

/// A directory that is searched.
#[derive(Debug)]
struct Searched {
    name: Vec<u8>,
    system: bool,
    next: Option<Start>,
    /// Its place, unless it does not exist.
    place: Option<usize>,
}

/// A directory that has been looked into.
#[derive(Debug)]
pub struct Visited<D> {
    directory: D,
    /// What it is.
    pub info: Arc<DirectoryInfo>,
    /// Its listing before anything was looked for in it.
    pub listing: Option<ListingId>,
    /// Names that it was found to lack.
    pub lacks: Vec<Symbol>,
    /// Names that were passed over because they are directories.
    pub passed: Vec<Symbol>,
}

/// One file as the compiler keeps track of it.
#[derive(Debug)]
pub struct Entry {
    /// The path as the compiler opens it.
    pub path: Arc<[u8]>,
    /// The file; `None` when the search was in vain.
    pub file: Option<Arc<SourceFile>>,
    /// `#pragma once` or `#import` has been applied to it.
    pub once: bool,
    /// How often it has been entered.
    pub entered: u32,
    /// Position of its reduced form among the scan's sources.
    pub source: Option<usize>,
    /// The directory in which it was found.
    directory: Start,
    /// It is the header that is included unasked, or included by it.
    implicit: bool,
}

/// A file and the path under which the compiler opens it.
type Located = (Arc<[u8]>, Arc<SourceFile>);

/// How a header name splits.
#[derive(Debug, Clone, Copy)]
struct Parts {
    /// Number of its directory part among `Files::folders`.
    folder: u32,
    leaf: Symbol,
}

/// What asks for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A directive in the file of this entry, which is a system header or not.
    File {
        /// The entry.
        entry: usize,
        /// Whether it is a system header.
        system: bool,
    },
    /// `-include` or `-imacros`.
    CommandLine,
    /// The compiler itself.
    Compiler,
}

/// The files of one scan.
#[derive(Debug)]
pub struct Files<'a, T: SourceTree> {
    tree: &'a T,
    epoch: Epoch,
    symbols: Arc<Symbols>,
    cwd: T::Directory,
    searched: Vec<Searched>,
    quote_head: Option<Start>,
    bracket_head: Option<Start>,
    ignores_source_directory: bool,
    canonical_system_headers: bool,
    own_directories: HashMap<Vec<u8>, Start>,
    parts: NumberMap<Symbol, Parts>,
    folders: Vec<Vec<u8>>,
    folder_numbers: HashMap<Vec<u8>, u32>,
    /// Directories looked into.
    pub visited: Vec<Visited<T::Directory>>,
    place_of: NumberMap<(u32, u32), Option<usize>>,
    /// All entries, in the order of their creation; the source is the first.
    pub entries: Vec<Entry>,
    found: NumberMap<(u32, u32), usize>,
    /// Entries other than the source and implicit ones exist, so no precompiled header is considered any more.
    past_first: bool,
}

impl<'a, T: SourceTree> Files<'a, T> {
    /// Starts with a search path.
    pub fn new(
        tree: &'a T,
        epoch: Epoch,
        symbols: Arc<Symbols>,
        cwd: T::Directory,
        path: SearchPath<T::Directory>,
    ) -> Result<Self, TreeError> {
        let mut files = Self {
            tree,
            epoch,
            symbols,
            cwd,
            searched: Vec::with_capacity(path.directories.len() + 64),
            quote_head: None,
            bracket_head: None,
            ignores_source_directory: path.ignores_source_directory,
            canonical_system_headers: true,
            own_directories: HashMap::new(),
            parts: NumberMap::default(),
            folders: Vec::new(),
            folder_numbers: HashMap::new(),
            visited: Vec::new(),
            place_of: NumberMap::default(),
            entries: Vec::with_capacity(512),
            found: NumberMap::default(),
            past_first: false,
        };
        let total = path.directories.len();
        for (at, present) in path.directories.into_iter().enumerate() {
            let place = files.visit(present.directory)?;
            let next = (at + 1 < total).then_some(Start(at as u32 + 1));
            files.searched.push(Searched {
                name: present.name,
                system: present.system,
                next,
                place: Some(place),
            });
        }
        files.quote_head = (total > 0).then_some(Start(0));
        files.bracket_head = (path.bracket_start < total).then_some(Start(path.bracket_start as u32));
        Ok(files)
    }

    /// `-fno-canonical-system-headers`
    pub fn keep_system_spellings(&mut self) {
        self.canonical_system_headers = false;
    }

    fn visit(&mut self, directory: T::Directory) -> Result<usize, TreeError> {
        let listing = self.tree.listing(&directory, self.epoch)?;
        let info = self.tree.describe(&directory);
        self.visited.push(Visited {
            directory,
            info,
            listing,
            lacks: Vec::new(),
            passed: Vec::new(),
        });
        Ok(self.visited.len() - 1)
    }

    /// Returns the place that `folder` leads to from the directory at `base`; records where it ends if nowhere.
    fn place_below(&mut self, base: usize, folder: &[u8]) -> Result<Option<usize>, FilesError> {
        let from = self.visited[base].directory.clone();
        match self.tree.below(&from, folder, self.epoch)? {
            Ok(directory) => Ok(Some(self.visit(directory)?)),
            Err(dead) => {
                let place = self.visit(dead.directory)?;
                let name = self.symbols.intern(&dead.component);
                self.visited[place].lacks.push(name);
                // This absence is older than the listing.
                self.visited[place].listing = None;
                Ok(None)
            }
        }
    }

    /// Returns the place of a directory as spelled on the command line or in front of a file's name.
    fn place_at(&mut self, spelled: &[u8]) -> Result<Option<usize>, FilesError> {
        if spelled.first() == Some(&b'/') {
            let path = Path::new(OsStr::from_bytes(spelled));
            let directory = self.tree.directory(path, self.epoch)?;
            return Ok(directory.map(|directory| self.visit(directory)).transpose()?);
        }
        let cwd = self.visit(self.cwd.clone())?;
        if spelled.is_empty() {
            return Ok(Some(cwd));
        }
        self.place_below(cwd, spelled)
    }

    fn parts(&mut self, name: Symbol) -> Result<Parts, FilesError> {
        if let Some(parts) = self.parts.get(&name) {
            return Ok(*parts);
        }
        let spelling = self.symbols.spelling(name);
        if spelling.contains(&0) {
            return Err(Reason::ZeroByte.into());
        }
        let (folder, leaf) = match spelling.iter().rposition(|b| *b == b'/') {
            // The root keeps its slash.
            Some(0) => (&spelling[..1], &spelling[1..]),
            Some(slash) => (&spelling[..slash], &spelling[slash + 1..]),
            None => (&spelling[..0], spelling.as_slice()),
        };
        let folder = match self.folder_numbers.get(folder) {
            Some(number) => *number,
            None => {
                let number = self.folders.len() as u32;
                self.folders.push(folder.to_vec());
                self.folder_numbers.insert(folder.to_vec(), number);
                number
            }
        };
        let parts = Parts {
            folder,
            leaf: self.symbols.intern(leaf),
        };
        self.parts.insert(name, parts);
        Ok(parts)
    }

    /// Returns the place in which a name with this folder part is to be found below a searched directory.
    fn place(&mut self, start: Start, folder: u32) -> Result<Option<usize>, FilesError> {
        if let Some(place) = self.place_of.get(&(start.0, folder)) {
            return Ok(*place);
        }
        let text = self.folders[folder as usize].clone();
        let place = if start == NOWHERE {
            self.place_at(&text)?
        } else {
            match self.searched[start.0 as usize].place {
                Some(base) if text.is_empty() => Some(base),
                Some(base) => self.place_below(base, &text)?,
                None => None,
            }
        };
        self.place_of.insert((start.0, folder), place);
        Ok(place)
    }

    /// Looks for `name` in one directory.
    fn look(&mut self, start: Start, name: Symbol) -> Result<Option<Located>, FilesError> {
        let parts = self.parts(name)?;
        let Some(place) = self.place(start, parts.folder)? else {
            return Ok(None);
        };
        let leaf = self.symbols.spelling(parts.leaf);
        if matches!(leaf.as_slice(), b"" | b"." | b"..") {
            return Ok(None);
        }
        if !self.past_first {
            self.refuse_precompiled(place, &leaf)?;
        }
        let visited = &mut self.visited[place];
        match self.tree.find(&visited.directory, &leaf, self.epoch)? {
            Found::Absent => {
                visited.lacks.push(parts.leaf);
                Ok(None)
            }
            Found::Directory => {
                visited.passed.push(parts.leaf);
                Ok(None)
            }
            Found::Special => {
                let path = visited.info.route.path.join(OsStr::from_bytes(&leaf));
                Err(Reason::Special(path).into())
            }
            Found::File(file) => Ok(Some((self.spell(start, name, &file), file))),
        }
    }

    fn refuse_precompiled(&mut self, place: usize, leaf: &[u8]) -> Result<(), FilesError> {
        let name = [leaf, b".gch"].concat();
        let visited = &mut self.visited[place];
        match self.tree.find(&visited.directory, &name, self.epoch)? {
            Found::Absent => {
                visited.lacks.push(self.symbols.intern(&name));
                Ok(())
            }
            _ => {
                let path = visited.info.route.path.join(OsStr::from_bytes(&name));
                Err(Reason::Precompiled(path).into())
            }
        }
    }

    /// Returns the path that gcc opens: directory, slash, name; in system directories the real path if that is shorter.
    fn spell(&self, start: Start, name: Symbol, file: &SourceFile) -> Arc<[u8]> {
        let mut path = Vec::with_capacity(80);
        let mut system = false;
        if start != NOWHERE {
            let searched = &self.searched[start.0 as usize];
            system = searched.system;
            path.extend_from_slice(&searched.name);
            if path.last().is_some_and(|b| *b != b'/') {
                path.push(b'/');
            }
        }
        self.symbols.append(name, &mut path);
        let real = file.route.path.as_os_str().as_bytes();
        if system && self.canonical_system_headers && real.len() < path.len() {
            return real.into();
        }
        path.into()
    }

    /// Returns where the search for a name starts; `None` when there is nothing to search.
    pub fn start(&mut self, name: Symbol, form: Form, next: bool, asker: Asker) -> Result<Option<Start>, FilesError> {
        if self.symbols.with(name, |name| name.first() == Some(&b'/')) {
            return Ok(Some(NOWHERE));
        }
        let (entry, system) = match asker {
            Asker::Compiler => return Ok(self.bracket_head),
            Asker::CommandLine => return self.own_directory(b"./".to_vec(), false).map(Some),
            Asker::File { entry, system } => (entry, system),
        };
        let directory = self.entries[entry].directory;
        if next && directory != NOWHERE {
            return Ok(self.searched[directory.0 as usize].next);
        }
        if form == Form::Angle {
            return Ok(self.bracket_head);
        }
        if self.ignores_source_directory {
            return Ok(self.quote_head);
        }
        let path = &self.entries[entry].path;
        let length = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
        self.own_directory(path[..length].to_vec(), system).map(Some)
    }

    /// The directory of a file that includes another, with the rest of the search path behind it.
    fn own_directory(&mut self, name: Vec<u8>, system: bool) -> Result<Start, FilesError> {
        if let Some(start) = self.own_directories.get(&name) {
            return Ok(*start);
        }
        let trimmed = match name.strip_suffix(b"/") {
            Some(b"") => b"/",
            Some(rest) => rest,
            None => name.as_slice(),
        };
        let place = self.place_at(trimmed)?;
        let start = Start(self.searched.len() as u32);
        self.searched.push(Searched {
            name: name.clone(),
            system,
            next: self.quote_head,
            place,
        });
        self.own_directories.insert(name, start);
        Ok(start)
    }

    /// Finds the entry for `name` from `start` on; an entry without file when the search is in vain.
    pub fn find(&mut self, name: Symbol, start: Start, asker: Asker) -> Result<usize, FilesError> {
        if let Some(entry) = self.found.get(&(name.0, start.0)) {
            return Ok(*entry);
        }
        let mut at = start;
        let mut passed = Vec::new();
        let entry = loop {
            if let Some((path, file)) = self.look(at, name)? {
                break self.add(name, at, Some((path, file)), asker);
            }
            let next = if at == NOWHERE {
                None
            } else {
                self.searched[at.0 as usize].next
            };
            let Some(next) = next else {
                break self.add(name, NOWHERE, None, asker);
            };
            at = next;
            if Some(at) != self.bracket_head && Some(at) != self.quote_head {
                continue;
            }
            if let Some(entry) = self.found.get(&(name.0, at.0)) {
                break *entry;
            }
            passed.push(at);
        };
        self.found.insert((name.0, start.0), entry);
        for head in passed {
            self.found.insert((name.0, head.0), entry);
        }
        Ok(entry)
    }

    fn add(&mut self, name: Symbol, directory: Start, found: Option<Located>, asker: Asker) -> usize {
        let implicit = match asker {
            Asker::Compiler => true,
            Asker::CommandLine => false,
            Asker::File { entry, .. } => self.entries[entry].implicit,
        };
        // A preinclude that is not found leaves no trace.
        let traceless = asker == Asker::Compiler && found.is_none();
        self.past_first |= !implicit && !traceless;
        let (path, file) = match found {
            Some((path, file)) => (path, Some(file)),
            None => (self.symbols.spelling(name).into(), None),
        };
        self.entries.push(Entry {
            path,
            file,
            once: false,
            entered: 0,
            source: None,
            directory,
            implicit,
        });
        self.entries.len() - 1
    }

    /// Makes the entry of the source, the first of all.
    pub fn source(&mut self, name: Symbol) -> Result<usize, FilesError> {
        // The source itself does not count as the first inclusion.
        let found = self.look(NOWHERE, name)?;
        let entry = self.add(name, NOWHERE, found, Asker::CommandLine);
        self.found.insert((name.0, NOWHERE.0), entry);
        self.past_first = false;
        Ok(entry)
    }

    /// Says whether the entry was found in a system directory.
    pub fn is_in_system_directory(&self, entry: usize) -> bool {
        match self.entries[entry].directory {
            NOWHERE => false,
            directory => self.searched[directory.0 as usize].system,
        }
    }

    /// Finds what the assembler reads: in the working directory, then along its own path.
    pub fn assembler_input<'p>(
        &mut self,
        name: Symbol,
        path: impl Iterator<Item = &'p Path>,
    ) -> Result<Option<Arc<SourceFile>>, FilesError> {
        if let Some((_, file)) = self.look(NOWHERE, name)? {
            return Ok(Some(file));
        }
        let spelling = self.symbols.spelling(name);
        if spelling.first() == Some(&b'/') {
            return Ok(None);
        }
        for directory in path {
            let joined = [directory.as_os_str().as_bytes(), b"/", &spelling].concat();
            let joined = self.symbols.intern(&joined);
            if let Some((_, file)) = self.look(NOWHERE, joined)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Returns where all directories of the search path are.
    pub fn search_places(&self) -> impl Iterator<Item = &PathBuf> {
        let places = self.searched.iter().filter_map(|searched| searched.place);
        places.map(|place| &self.visited[place].info.route.path)
    }
}
