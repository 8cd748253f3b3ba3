//! Closures of earlier compiles, used again while everything they rest on still stands: looks at files, no scan.
//!
//! A closure is learnt once the compiler that used it has confirmed it. It is found again by what the scan would be made
//! from: toolchain, command, directory, environment. Every file has to have the content that it had, every name that was
//! looked for in vain has to be absent still, links and directories have to be as they were; else the unit is scanned. Kept
//! in memory and, beyond the agent's life but not the machine's boot, in two files: closures, and the digests of files by
//! their versions. Files are written every minute and at the end; a crash costs some scans. Invariant: a closure that is recalled is the one that a scan
//! of the same files would find.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use super::book::{Book, NameRow, Record};
use super::{Unit, contents};
use crate::digest::{Digest, Hasher};
use crate::ids::ToolchainId;
use crate::includes::closure::{Absent, Closure, Listed, Origin};
use crate::includes::source_tree::disk::{DiskTree, Node};
use crate::includes::source_tree::{Epoch, Found, Link, ListingId, SourceFile, SourceTree, TreeError};
use crate::includes::standing::{self, Directories};
use crate::includes::symbols::{Symbol, Symbols};
use crate::runtime::tasks::Tasks;
use crate::store::sealed;

#[cfg(test)]
mod tests;

/// Memory for the book, bytes; the kernel's `net/` takes one megabyte. Beyond, the less used half is forgotten.
const BOOK_BYTES_MAX: usize = 24 << 20;
/// First line of the file of closures. The number changes with the layout, and with whatever a scan finds otherwise.
const CLOSURES: &str = "rdcc-closures 1";
/// First line of the file of digests.
const CONTENTS: &str = "rdcc-contents 1";
/// Digests that are kept: as many as the tree remembers files.
const CONTENTS_MAX: usize = 100_000;
/// Most bytes of one packed digest.
const CONTENT_BYTES_MAX: usize = 96;
/// How often files are written while there is something to write.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Home {
    /// A directory of the agent's own.
    pub directory: PathBuf,
    /// Names the machine's present boot. After a crash of the machine, a file's times may say less than they seem to.
    pub boot: Digest,
}

/// Remembered closures.
#[derive(Debug)]
pub struct Remembered {
    tree: Arc<DiskTree>,
    /// Where they are kept; `None` when they are not.
    home: Option<Home>,
    /// Set once the tree has been told the digests from the file.
    told: Once,
    /// How many files the tree had read when digests were last written.
    written_at: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Read when first needed.
    book: Option<Book>,
    /// What was learnt since it was last written.
    unwritten: usize,
    names: Names,
    /// The book's directories, for drafts to share.
    directories: Arc<[Arc<Path>]>,
}

/// What is known of the book's names besides their spelling, by position; of this process only.
#[derive(Debug, Default)]
struct Names {
    /// The table that `symbols` are of.
    table: Option<Arc<Symbols>>,
    symbols: Vec<Option<Symbol>>,
    /// The listing with which the name was last found absent.
    absent_in: Vec<Option<ListingId>>,
}

/// A record with its positions resolved, so that the book need not be held while files are looked at.
struct Draft {
    directories: Arc<[Arc<Path>]>,
    listed: Vec<(DraftFile, Arc<[u8]>, bool)>,
    consulted: Vec<DraftFile>,
    assembled: Vec<DraftFile>,
    links: Vec<Arc<Link>>,
    must_exist: Vec<Arc<Path>>,
    must_not_exist: Vec<Arc<Path>>,
    absent: Vec<DraftName>,
    passed: Vec<DraftName>,
    times: Vec<(DraftFile, i64)>,
}

struct DraftFile {
    directory: u32,
    name: Arc<[u8]>,
    digest: Digest,
}

#[derive(Clone, Copy)]
struct DraftName {
    directory: u32,
    position: u32,
    symbol: Symbol,
    absent_in: Option<ListingId>,
}

impl Remembered {
    /// Looks at files through `tree`; keeps what it knows in `home`, or nowhere. Reads nothing before it is needed.
    pub fn new(tree: Arc<DiskTree>, home: Option<Home>) -> Self {
        Self {
            tree,
            home,
            told: Once::new(),
            written_at: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Writes down a closure that the compiler has confirmed.
    pub fn learn(&self, unit: &Unit, closure: &Closure) {
        if closure.origin != Origin::Scanned {
            return;
        }
        let mut state = self.state();
        let book = state.book(self.home.as_ref());
        if book.learn(key(unit), closure).is_none() {
            return;
        }
        if book.bytes() > BOOK_BYTES_MAX {
            book.shrink(BOOK_BYTES_MAX / 2);
            state.names = Names::default();
            state.directories = Arc::default();
        }
        state.unwritten += 1;
    }

    /// Returns the unit's closure if it still holds. Blocks on the disk.
    pub fn recall(&self, unit: &Unit, epoch: Epoch) -> Option<Closure> {
        self.told.call_once(|| self.tell_tree());
        let key = key(unit);
        let symbols = self.tree.symbols();
        let (record, draft) = {
            let mut guard = self.state();
            let state = &mut *guard;
            let record = state.book(self.home.as_ref()).recall(&key)?;
            let draft = state.draft(&record, &symbols)?;
            (record, draft)
        };
        // What cannot be looked at is for the scan to stumble over.
        let (closure, absences) = draft.stands(&self.tree, epoch, &record, symbols).ok()??;
        let mut state = self.state();
        for (position, listing) in absences {
            // The book may have been shrunk meanwhile.
            if let Some(known) = state.names.absent_in.get_mut(position as usize) {
                *known = Some(listing);
            }
        }
        Some(closure)
    }

    /// Writes to disk what was learnt since the last time. Blocks on the disk.
    pub fn keep(&self) -> io::Result<()> {
        let Some(home) = &self.home else { return Ok(()) };
        let read = self.tree.files_read();
        if self.written_at.swap(read, Ordering::Relaxed) != read {
            let contents = contents::pack(&self.tree.settled_contents(CONTENTS_MAX));
            home.write("contents", CONTENTS, &contents)?;
        }
        let packed = {
            let mut state = self.state();
            if std::mem::take(&mut state.unwritten) == 0 {
                return Ok(());
            }
            state.book(Some(home)).pack()
        };
        home.write("closures", CLOSURES, &packed)
    }

    fn tell_tree(&self) {
        let packed = self.home.as_ref();
        let packed = packed.and_then(|home| home.read("contents", CONTENTS, CONTENTS_MAX * CONTENT_BYTES_MAX));
        if let Some(contents) = packed.and_then(|packed| contents::unpack(&packed)) {
            self.tree.know_contents(contents);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Rows are added before what names them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Home {
    fn write(&self, name: &str, kind: &str, body: &[u8]) -> io::Result<()> {
        let body = [self.boot.as_bytes().as_slice(), body].concat();
        sealed::write(&self.directory.join(name), kind, &body)
    }

    fn read(&self, name: &str, kind: &str, bytes_max: usize) -> Option<Vec<u8>> {
        let boot = self.boot.as_bytes();
        let mut body = sealed::read(&self.directory.join(name), kind, boot.len() + bytes_max)?;
        body.starts_with(boot).then(|| body.split_off(boot.len()))
    }
}

/// Writes what was learnt every minute while there is something to write, until `tasks` end.
pub async fn keep_regularly(remembered: Arc<Remembered>, tasks: Tasks) {
    loop {
        tokio::select! {
            () = tasks.cancelled() => return,
            () = tokio::time::sleep(KEEP_EVERY) => {}
        }
        let keeping = remembered.clone();
        if let Err(error) = tasks.blocking(move || keeping.keep()).await {
            tracing::warn!(%error, "what is known of files is not saved");
        }
    }
}

impl State {
    fn book(&mut self, home: Option<&Home>) -> &mut Book {
        self.book.get_or_insert_with(|| {
            let packed = home.and_then(|home| home.read("closures", CLOSURES, BOOK_BYTES_MAX));
            packed.and_then(|packed| Book::unpack(&packed)).unwrap_or_default()
        })
    }

    fn draft(&mut self, record: &Record, symbols: &Arc<Symbols>) -> Option<Draft> {
        let book = self.book.as_ref()?;
        let file = |at: u32| {
            let row = &book.files[at as usize];
            DraftFile {
                directory: row.directory,
                name: row.name.clone(),
                digest: row.digest,
            }
        };
        let files = |positions: &[u32]| positions.iter().map(|at| file(*at)).collect();
        let listed = record.listed.iter().map(|at| {
            let row = &book.listed[*at as usize];
            (file(row.file), row.spelling.clone(), row.system)
        });
        let directories = |positions: &[u32]| {
            let paths = positions.iter().map(|at| book.directories[*at as usize].clone());
            paths.collect()
        };
        if self.directories.len() != book.directories.len() {
            self.directories = book.directories.iter().cloned().collect();
        }
        let names = &mut self.names;
        names.resize(book.names.len(), symbols);
        let mut name = |at: &u32| names.draft(*at, &book.names[*at as usize], symbols);
        Some(Draft {
            absent: record.absent.iter().map(&mut name).collect(),
            passed: record.passed.iter().map(&mut name).collect(),
            directories: self.directories.clone(),
            listed: listed.collect(),
            consulted: files(&record.consulted),
            assembled: files(&record.assembled),
            links: record.links.iter().map(|at| book.links[*at as usize].clone()).collect(),
            must_exist: directories(&record.directories),
            must_not_exist: directories(&record.absent_directories),
            times: record.times.iter().map(|(at, time)| (file(*at), *time)).collect(),
        })
    }
}

impl Names {
    /// Readies the lists for as many names, in this table's symbols.
    fn resize(&mut self, names: usize, symbols: &Arc<Symbols>) {
        let same = self.table.as_ref().is_some_and(|table| Arc::ptr_eq(table, symbols));
        if !same {
            self.symbols.clear();
            self.table = Some(symbols.clone());
        }
        self.symbols.resize(names, None);
        self.absent_in.resize(names, None);
    }

    fn draft(&mut self, position: u32, row: &NameRow, symbols: &Symbols) -> DraftName {
        let at = position as usize;
        DraftName {
            directory: row.directory,
            position,
            symbol: *self.symbols[at].get_or_insert_with(|| symbols.intern(&row.name)),
            absent_in: self.absent_in[at],
        }
    }
}

/// A closure that holds, and the listings in which its absent names are known to be absent.
type Standing = (Closure, Vec<(u32, ListingId)>);

impl Draft {
    /// Looks whether everything stands, and makes the closure.
    fn stands(
        &self,
        tree: &DiskTree,
        epoch: Epoch,
        record: &Record,
        symbols: Arc<Symbols>,
    ) -> Result<Option<Standing>, TreeError> {
        let mut places = Places {
            draft: self,
            tree,
            epoch,
            known: vec![None; self.directories.len()],
        };
        let mut listed = Vec::with_capacity(self.listed.len());
        for (file, spelling, system) in &self.listed {
            let Some(file) = places.file(file)? else {
                return Ok(None);
            };
            listed.push(Listed {
                spelling: spelling.clone(),
                file,
                system: *system,
            });
        }
        let (Some(consulted), Some(assembled)) = (places.files(&self.consulted)?, places.files(&self.assembled)?)
        else {
            return Ok(None);
        };
        for (file, time) in &self.times {
            if places.file(file)?.is_none_or(|file| file.fingerprint.mtime_ns != *time) {
                return Ok(None);
            }
        }
        let Some((absent, absences)) = places.absences(&symbols)? else {
            return Ok(None);
        };
        let paths = |paths: &[Arc<Path>]| paths.iter().map(|path| path.to_path_buf()).collect();
        let closure = Closure {
            listed,
            consulted,
            assembled,
            links: self.links.clone(),
            directories: paths(&self.must_exist),
            absent,
            absent_directories: paths(&self.must_not_exist),
            facts: record.facts,
            symbols,
            origin: Origin::Remembered,
        };
        let around = standing::changed_around(&closure, &mut Directories::new(tree, epoch))?;
        Ok(around.is_none().then_some((closure, absences)))
    }
}

/// The directories of a draft as they are now.
struct Places<'a> {
    draft: &'a Draft,
    tree: &'a DiskTree,
    epoch: Epoch,
    /// By position; the inner one is `None` for what is no directory, or not at that path itself.
    known: Vec<Option<Option<Arc<Node>>>>,
}

impl Places<'_> {
    fn directory(&mut self, at: u32) -> Result<Option<Arc<Node>>, TreeError> {
        if let Some(known) = &self.known[at as usize] {
            return Ok(known.clone());
        }
        let path = &self.draft.directories[at as usize];
        let found = self.tree.directory(path, self.epoch)?;
        let real = found.filter(|directory| *self.tree.describe(directory).route.path == **path);
        self.known[at as usize] = Some(real.clone());
        Ok(real)
    }

    /// Returns the file if it has its content, and stands at its path itself.
    fn file(&mut self, file: &DraftFile) -> Result<Option<Arc<SourceFile>>, TreeError> {
        let Some(directory) = self.directory(file.directory)? else {
            return Ok(None);
        };
        let Found::File(found) = self.tree.find(&directory, &file.name, self.epoch)? else {
            return Ok(None);
        };
        let stands = found.route.links.is_empty() && self.tree.digest(&found)? == file.digest;
        Ok(stands.then_some(found))
    }

    fn files(&mut self, files: &[DraftFile]) -> Result<Option<Vec<Arc<SourceFile>>>, TreeError> {
        files.iter().map(|file| self.file(file)).collect()
    }

    /// Returns what must not be there, by directory, if it is not.
    #[expect(clippy::type_complexity, reason = "two lists that only belong together here")]
    fn absences(&mut self, symbols: &Symbols) -> Result<Option<(Vec<Absent>, Vec<(u32, ListingId)>)>, TreeError> {
        let (mut groups, mut verified) = (Vec::<Absent>::new(), Vec::new());
        let mut of = None;
        let absent = self.draft.absent.iter().map(|name| (name, false));
        let passed = self.draft.passed.iter().map(|name| (name, true));
        for (name, is_directory) in absent.chain(passed) {
            let Some(directory) = self.directory(name.directory)? else {
                return Ok(None);
            };
            if of != Some((name.directory, is_directory)) {
                of = Some((name.directory, is_directory));
                groups.push(Absent {
                    directory: self.tree.describe(&directory),
                    names: Vec::new(),
                    passed: Vec::new(),
                    listing: self.tree.listing(&directory, self.epoch)?,
                });
            }
            let Some(group) = groups.last_mut() else { continue };
            match is_directory {
                true => group.passed.push(name.symbol),
                false => group.names.push(name.symbol),
            }
            if !is_directory && group.listing.is_some() && group.listing == name.absent_in {
                continue;
            }
            let spelling = symbols.spelling(name.symbol);
            match self.tree.find(&directory, &spelling, self.epoch)? {
                Found::Absent if !is_directory => {
                    verified.extend(group.listing.map(|listing| (name.position, listing)));
                }
                Found::Directory if is_directory => {}
                _ => return Ok(None),
            }
        }
        Ok(Some((groups, verified)))
    }
}

/// Everything that a scan of the unit would be made from, besides the files.
fn key(unit: &Unit) -> Digest {
    let mut hasher = Hasher::default();
    let mut add = |part: &[u8]| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    };
    let ToolchainId(toolchain) = unit.toolchain_id;
    add(toolchain.as_bytes());
    add(unit.program.as_os_str().as_bytes());
    add(unit.argv0.as_bytes());
    add(unit.cwd.as_os_str().as_bytes());
    // Which driver a program is follows from the toolchain; which language a word means, from both.
    add(format!("{:?} {:?}", unit.command.driver, unit.command.language).as_bytes());
    for words in [&unit.flags, &unit.command.argv] {
        add(&(words.len() as u64).to_le_bytes());
        for word in words {
            add(word.as_bytes());
        }
    }
    let environment = &unit.command.preprocess.environment;
    for paths in [&environment.cpath, &environment.language] {
        add(&(paths.len() as u64).to_le_bytes());
        for path in paths {
            add(path.as_os_str().as_bytes());
        }
    }
    hasher.finish()
}
