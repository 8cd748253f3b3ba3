//! The scan for include closures, on small trees that anybody wrote.
//!
//! The first byte chooses a command, the rest is the text of five files with bytes of 0xff between them. Holds: every scan ends,
//! and in the same way when it is made again; a closure lists files that exist, and absences of what does not exist.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rdcc::compile::{self, Driver, Verdict};
use rdcc::digest::Digest;
use rdcc::includes::closure::{Closure, NoClosure};
use rdcc::includes::dialect::Dialect;
use rdcc::includes::oracle::{Query, QueryOracle};
use rdcc::includes::predefined::Facts;
use rdcc::includes::reduce::reduce;
use rdcc::includes::reduced::Reduced;
use rdcc::includes::request::ScanRequest;
use rdcc::includes::scan::scan;
use rdcc::includes::source_tree::{
    Content, Dead, DirectoryInfo, Epoch, Fingerprint, Found, Link, Route, SourceFile, SourceTree, TreeError,
};
use rdcc::includes::symbols::Symbols;

/// Where the files are. The last directory is the compiler's own.
const DIRECTORIES: [&str; 4] = ["/", "/w", "/w/d", "/s"];
/// The files: directory and name. The first is the source.
const FILES: [(usize, &str); 5] = [(1, "m.c"), (1, "a.h"), (2, "a.h"), (2, "b.h"), (3, "b.h")];
/// What is compiled how, and the definitions by which the compiler of that language is known.
const COMMANDS: [(&str, &str); 8] = [
    ("-c m.c", "#define __STDC_VERSION__ 201710L\n"),
    ("-c m.c -Id -DA", "#define __STDC_VERSION__ 202311L\n"),
    (
        "-c m.c -iquote d -include a.h",
        "#define __STRICT_ANSI__ 1\n#define __STDC_VERSION__ 199409L\n",
    ),
    (
        "-c m.c -Inone -isystem d -DF(x)=x##x",
        "#define __STDC_VERSION__ 199901L\n",
    ),
    (
        "-c -x c++ m.c -Id -DF(x,...)=x##__VA_OPT__(x)",
        "#define __cplusplus 202002L\n",
    ),
    (
        "-c -x c++ m.c -imacros b.h -Id",
        "#define __STRICT_ANSI__ 1\n#define __cplusplus 201103L\n",
    ),
    (
        "-c -x assembler-with-cpp m.c -Id -DA=0",
        "#define __STDC_VERSION__ 201710L\n",
    ),
    ("-c m.c -trigraphs -Id -UA", "#define __CHAR_UNSIGNED__ 1\n"),
];

/// Scans the first file, twice.
pub fn check(bytes: &[u8]) {
    let Some((choice, texts)) = bytes.split_first() else {
        return;
    };
    let tree = Tree::new(texts);
    let request = request(usize::from(*choice) % COMMANDS.len());
    let found = scan(&request, &tree, &Guesses);
    let again = scan(&request, &tree, &Guesses);
    match (found, again) {
        (Ok(closure), Ok(again)) => {
            assert_eq!(spellings(&closure), spellings(&again));
            tree.check(&closure);
        }
        (Err(reason), Err(again)) => assert_eq!(reason, again),
        (one, other) => panic!("{:?}, then {:?}", one.err(), other.err()),
    }
    // Without answers there are questions, or no need of them.
    if let Err(NoClosure::NeedsAnswers(queries)) = scan(&request, &tree, &rdcc::includes::oracle::Answers::default()) {
        assert!(!queries.is_empty());
    }
}

fn request(choice: usize) -> ScanRequest {
    let (words, definitions) = COMMANDS[choice];
    let argv: Vec<OsString> = words.split(' ').map(OsString::from).collect();
    let unread = &mut |_: &Path| Err(io::ErrorKind::NotFound.into());
    let Verdict::Remote(command) = compile::parse(&argv, &[], Driver::C, unread) else {
        panic!("{words} may go elsewhere");
    };
    // Every computed macro exists.
    let specials: String = (0..64).map(|number| format!("rdcc_special {number}\n")).collect();
    let stderr = b"#include <...> search starts here:\n /s\nEnd of search list.\n";
    let facts = Facts::parse(format!("{definitions}{specials}").as_bytes(), stderr).expect("a compiler's words");
    ScanRequest::of(&command, Path::new("/w"), Arc::new(facts)).expect("preprocessed languages")
}

fn spellings(closure: &Closure) -> Vec<(Vec<u8>, bool)> {
    let listed = closure.listed.iter();
    listed.map(|one| (one.spelling.to_vec(), one.system)).collect()
}

/// Answers every question, each always alike.
struct Guesses;

impl QueryOracle for Guesses {
    fn answer(&self, query: &Query) -> Option<i64> {
        Some(query.operand.len() as i64 % 2)
    }
}

/// Five files in memory.
struct Tree {
    files: Vec<(Arc<SourceFile>, Vec<u8>)>,
    symbols: Arc<Symbols>,
}

impl Tree {
    fn new(texts: &[u8]) -> Self {
        let mut texts = texts.split(|byte| *byte == 0xff);
        let file = |(number, (directory, name)): (usize, &(usize, &str))| {
            let text = texts.next().unwrap_or_default().to_vec();
            let route = Route {
                path: Path::new(DIRECTORIES[*directory]).join(name),
                ..Route::default()
            };
            let fingerprint = Fingerprint {
                inode: number as u64,
                size: text.len() as u64,
                ..Fingerprint::default()
            };
            let file = SourceFile {
                id: number as u32,
                route,
                fingerprint,
                content: OnceLock::new(),
            };
            (Arc::new(file), text)
        };
        Self {
            files: FILES.iter().enumerate().map(file).collect(),
            symbols: Arc::new(Symbols::new()),
        }
    }

    fn text(&self, file: &SourceFile) -> &[u8] {
        &self.files[file.id as usize].1
    }

    /// What a component leads to from a directory.
    fn step(directory: usize, name: &[u8]) -> Option<usize> {
        let below = match name {
            b"" | b"." => return Some(directory),
            b".." => Path::new(DIRECTORIES[directory])
                .parent()
                .unwrap_or(Path::new("/"))
                .to_path_buf(),
            name => Path::new(DIRECTORIES[directory]).join(std::str::from_utf8(name).ok()?),
        };
        DIRECTORIES.iter().position(|known| Path::new(known) == below)
    }

    fn check(&self, closure: &Closure) {
        assert!(closure.listed.iter().all(|one| !one.spelling.is_empty()));
        assert!(!closure.files().is_empty());
        for file in closure.files() {
            assert!(Arc::ptr_eq(file, &self.files[file.id as usize].0));
            assert!(file.content.get().is_some(), "{:?} was not looked at", file.route.path);
        }
        for path in closure.absent_paths() {
            let there = self.files.iter().any(|(file, _)| file.route.path == path);
            assert!(!there, "{path:?} is said to be absent");
        }
    }
}

impl SourceTree for Tree {
    type Directory = usize;

    fn symbols(&self) -> Arc<Symbols> {
        Arc::clone(&self.symbols)
    }

    fn begin(&self) -> Epoch {
        Epoch::default()
    }

    fn directory(&self, path: &Path, epoch: Epoch) -> Result<Option<usize>, TreeError> {
        Ok(self.below(&0, path.as_os_str().as_encoded_bytes(), epoch)?.ok())
    }

    fn below(&self, from: &usize, path: &[u8], _epoch: Epoch) -> Result<Result<usize, Dead<usize>>, TreeError> {
        let mut at = *from;
        for name in path.split(|byte| *byte == b'/') {
            match Self::step(at, name) {
                Some(next) => at = next,
                None => {
                    return Ok(Err(Dead {
                        directory: at,
                        component: name.to_vec(),
                    }));
                }
            }
        }
        Ok(Ok(at))
    }

    fn describe(&self, directory: &usize) -> Arc<DirectoryInfo> {
        Arc::new(DirectoryInfo {
            route: Route {
                path: PathBuf::from(DIRECTORIES[*directory]),
                ..Route::default()
            },
            identity: (0, *directory as u64),
        })
    }

    fn find(&self, directory: &usize, name: &[u8], _epoch: Epoch) -> Result<Found, TreeError> {
        let wanted = |(place, known): &(usize, &str)| place == directory && known.as_bytes() == name;
        Ok(match FILES.iter().position(wanted) {
            Some(number) => Found::File(Arc::clone(&self.files[number].0)),
            None if Self::step(*directory, name).is_some() => Found::Directory,
            None => Found::Absent,
        })
    }

    fn has_link(&self, _link: &Link) -> bool {
        false
    }

    fn digest(&self, file: &Arc<SourceFile>) -> Result<Digest, TreeError> {
        let digest = || Digest::of(self.text(file));
        let content = || Content {
            digest: digest(),
            read_ns: 0,
        };
        Ok(file.content.get_or_init(content).digest)
    }

    fn reduced(
        &self,
        file: &Arc<SourceFile>,
        dialect: Dialect,
        symbols: &Arc<Symbols>,
    ) -> Result<Arc<Reduced>, TreeError> {
        self.digest(file)?;
        Ok(Arc::new(reduce(self.text(file), dialect, symbols)))
    }
}
