//! What a worker is asked to run for a command, and how the compiler is made to list what it reads.
//!
//! The words stay as they were typed wherever possible; `docs/decisions/0003-dependency-lists.md` and `0004-mode-b.md` have
//! the two exceptions. Pure: the disk is somebody else's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::verify::Expected;
use crate::compile::{
    CompileCommand, DependencyFile, DependencyFileError, DependencyKind, RequiredFile, RequiredKind, remote_compile,
    with_full_dependencies,
};

/// Where the compiler lists what it reads when nobody else wants the list. In the job's own `/tmp`, and without a space,
/// which would end the name in `SUNPRO_DEPENDENCIES`.
pub const LIST_FILE: &str = "/tmp/.rdcc-dependencies";

/// How the compiler's own list of what it read is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// In the file that the user asked for with `-MD`.
    OwnFile,
    /// The user asked for `-MMD` and the compiler is told `-MD`: the file has more in it than it is to have.
    FullerFile,
    /// The user asked for `-MMD` and the words must not be touched: the file lacks the system's headers.
    UserFile,
    /// In [`LIST_FILE`], by way of the environment.
    Variable,
    /// Nowhere: nothing is preprocessed.
    None,
}

/// What a worker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The words behind the program's name.
    pub words: Vec<OsString>,
    /// Where the list will be.
    pub listing: Listing,
    /// Whether the words may name response files, which then have to be there.
    pub as_typed: bool,
}

/// Returns what is run in mode A. `typed` are the words as they were typed, with the toolchain's own flags in front.
pub fn words_of_mode_a(command: &CompileCommand, typed: &[OsString]) -> Words {
    let (listing, full) = match &command.dependencies {
        _ if !command.language.is_preprocessed_here() => (Listing::None, None),
        None => (Listing::Variable, None),
        Some(asked) if asked.kind == DependencyKind::All => (Listing::OwnFile, None),
        Some(_) => match with_full_dependencies(command) {
            Some(words) => (Listing::FullerFile, Some(words)),
            None => (Listing::UserFile, None),
        },
    };
    Words {
        as_typed: full.is_none(),
        words: full.unwrap_or_else(|| typed.to_vec()),
        listing,
    }
}

/// Returns what is run in mode B.
pub fn words_of_mode_b(command: &CompileCommand) -> Words {
    Words {
        words: remote_compile(command),
        listing: Listing::None,
        as_typed: false,
    }
}

impl Listing {
    /// Returns the value of `SUNPRO_DEPENDENCIES` at the worker. The target's name is nobody's business.
    pub fn variable(self) -> Option<OsString> {
        (self == Listing::Variable).then(|| format!("{LIST_FILE} list").into())
    }

    /// Returns where the worker finds a list that is for us alone.
    pub fn file(self) -> Option<PathBuf> {
        (self == Listing::Variable).then(|| PathBuf::from(LIST_FILE))
    }

    /// Tells whether the list names a file of the closure: the source stands in the user's lists, system headers in
    /// full ones.
    pub fn names(self, is_source: bool, is_system: bool) -> bool {
        match self {
            Listing::OwnFile | Listing::FullerFile => true,
            Listing::UserFile => !is_system,
            Listing::Variable => !is_source,
            Listing::None => false,
        }
    }
}

/// Cuts a full list down to what `-MMD` would have written. `system` tells, in the list's order, which files of the list
/// are system headers.
pub fn without_system_headers(
    list: &[u8],
    system: impl IntoIterator<Item = bool>,
) -> Result<Vec<u8>, DependencyFileError> {
    let mut file = DependencyFile::parse(list)?;
    // The source is not asked about.
    let mut system = system.into_iter().skip(1);
    file.retain_headers(|_| system.next() == Some(false));
    Ok(file.to_bytes())
}

/// A file that the command names besides its source, and what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Required {
    /// It has to be there if it is here.
    File(PathBuf),
    /// The compiler looks for its own parts there: only what belongs to the toolchain will do.
    Parts(PathBuf),
}

/// Returns the files that the command names besides its source, made absolute.
pub fn required_files(command: &CompileCommand, words: &Words, cwd: &Path) -> Vec<Required> {
    let of = |file: &RequiredFile| match file.kind {
        RequiredKind::ExecPrefix => Required::Parts(cwd.join(&file.path)),
        _ => Required::File(cwd.join(&file.path)),
    };
    let mut required: Vec<Required> = command.required_files.iter().map(of).collect();
    if words.as_typed {
        let response_files = command.response_files.iter();
        required.extend(response_files.map(|file| Required::File(cwd.join(file))));
    }
    required
}

/// Returns what the command writes, as spelled and made absolute: the output first, then the list of dependencies.
pub fn outputs(command: &CompileCommand, cwd: &Path) -> Vec<PathBuf> {
    let mut outputs = vec![cwd.join(&command.output)];
    outputs.extend(command.dependencies.iter().map(|list| cwd.join(&list.file)));
    outputs
}

/// Returns what may come back. `places` are the places of [`outputs`], `cwd` that of the working directory, links
/// followed.
pub fn expected(command: &CompileCommand, places: &[PathBuf], cwd: &Path) -> Expected {
    let mut expected = Expected {
        object: places.first().cloned().unwrap_or_default(),
        dependency_file: places.get(1).cloned(),
        side_file_dirs: Vec::new(),
        named: Vec::new(),
    };
    if command.facts.features.writes_side_files() {
        let directories = places.iter().filter_map(|place| place.parent().map(Path::to_owned));
        expected.side_file_dirs = directories.collect();
        expected.side_file_dirs.push(cwd.to_owned());
        expected.named = named_files(&command.argv, cwd);
    }
    expected
}

/// Returns every path that a word may mean as a file to write, also as the value of an option. Too many do no harm.
pub fn named_files(argv: &[OsString], cwd: &Path) -> Vec<PathBuf> {
    named_parts(argv).map(|part| plain(&cwd.join(part))).collect()
}

/// Returns the directory of every path that a word may mean as a file to write, as spelled, sorted, each once. A path
/// that ends in a slash, as `-dumpdir` has it, is a directory itself.
pub fn named_directories(argv: &[OsString], cwd: &Path) -> Vec<PathBuf> {
    let directory = |part: &OsStr| match memchr::memrchr(b'/', part.as_bytes()) {
        Some(end) => cwd.join(OsStr::from_bytes(&part.as_bytes()[..=end])),
        None => cwd.to_owned(),
    };
    let mut directories: Vec<PathBuf> = named_parts(argv).map(directory).collect();
    directories.sort();
    directories.dedup();
    directories
}

fn named_parts(argv: &[OsString]) -> impl Iterator<Item = &OsStr> {
    argv.iter()
        .flat_map(|word| word.as_bytes().split(|byte| matches!(byte, b'=' | b',')))
        .filter(|part| !part.is_empty() && !part.starts_with(b"-"))
        .map(OsStr::from_bytes)
}

/// Takes `.` and `..` out of an absolute path by its letters alone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::Normal(name) => plain.push(name),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Driver, Verdict, parse};

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn command(text: &str) -> CompileCommand {
        let mut read = |path: &Path| match path.to_str() {
            Some("flags") => Ok(b"-O2".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        match parse(&words(text), &[], Driver::C, &mut read) {
            Verdict::Remote(command) => *command,
            Verdict::Local(local) => panic!("`{text}` is local: {}", local.reason),
        }
    }

    #[test]
    fn words_stay_as_typed_but_for_the_fuller_list() {
        let rows = [
            ("-c a.c", Listing::Variable, "-c a.c"),
            ("-c @flags a.c", Listing::Variable, "-c @flags a.c"),
            ("-c -MD a.c", Listing::OwnFile, "-c -MD a.c"),
            ("-c -MMD a.c", Listing::FullerFile, "-c -MD a.c"),
            ("-c -Wp,-MMD,x.d a.S", Listing::FullerFile, "-c -Wp,-MD,x.d a.S"),
            (
                "-c -MMD -frecord-gcc-switches a.c",
                Listing::UserFile,
                "-c -MMD -frecord-gcc-switches a.c",
            ),
            ("-c a.s", Listing::None, "-c a.s"),
            ("-c -MD a.i", Listing::None, "-c -MD a.i"),
        ];
        for (text, listing, run) in rows {
            let of = words_of_mode_a(&command(text), &words(text));
            assert_eq!((of.listing, of.words), (listing, words(run)), "{text}");
        }
        assert_eq!(
            Listing::Variable.variable(),
            Some("/tmp/.rdcc-dependencies list".into())
        );
    }

    #[test]
    fn response_files_are_needed_where_the_words_name_them() {
        let cwd = Path::new("/w");
        let needed = |text: &str| {
            let command = command(text);
            required_files(&command, &words_of_mode_a(&command, &words(text)), cwd)
        };
        assert_eq!(needed("-c @flags a.c"), [Required::File("/w/flags".into())]);
        assert_eq!(needed("-c -MMD @flags a.c"), []);
        assert_eq!(
            needed("-c -B/p/ -fplugin=./x.so a.c"),
            [Required::Parts("/p/".into()), Required::File("/w/./x.so".into())]
        );
    }

    #[test]
    fn list_is_cut_down_to_user_headers() {
        let list = b"a.o: a.c /usr/b.h c.h\n";
        let cut = without_system_headers(list, [false, true, false]).expect("a list");
        assert_eq!(cut, b"a.o: a.c c.h\n");
        assert!(without_system_headers(b"nonsense", []).is_err());
    }

    #[test]
    fn side_files_are_expected_only_where_options_ask_for_them() {
        let places = [PathBuf::from("/o/a.o")];
        let plain = expected(&command("-c a.c -o /o/a.o"), &places, Path::new("/w"));
        assert!(plain.side_file_dirs.is_empty() && plain.named.is_empty());
        let side = expected(
            &command("-c a.c -o /o/a.o -fstack-usage -Wa,-ahl=../l/a.lst"),
            &places,
            Path::new("/w"),
        );
        assert_eq!(side.side_file_dirs, [PathBuf::from("/o"), "/w".into()]);
        assert!(side.named.contains(&"/l/a.lst".into()));
    }

    #[test]
    fn directories_stay_as_spelled_since_letters_do_not_tell_what_dot_dot_leaves() {
        let argv = words("-c a.c -dumpdir ../d/ -Wa,-ahl=../l/a.lst -aux-info /p -fdump-tree-all=t/x");
        let directories: Vec<String> = named_directories(&argv, Path::new("/w"))
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        assert_eq!(directories, ["/", "/w", "/w/../d/", "/w/../l/", "/w/t/"]);
    }
}
