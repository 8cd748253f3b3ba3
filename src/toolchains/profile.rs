//! What a compiler makes of a set of flags before it has seen a source: macros, settings, and the programs that it starts.
//!
//! Golden objects show that two variants of a toolchain are the same compiler under the flags of the golden set; the same
//! *profile* shows that other flags mean the same to both, whatever their builders chose as defaults. What only says where
//! a compiler's own files are is left out of it. Pure: somebody else runs the questions.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use super::definition::Language;
use super::manifest::{Entry, MODE_EXECUTABLE, Manifest};
use crate::digest::{Digest, Hasher};
use crate::ids::ToolchainId;

/// Most words of a question. Kernel units have some sixty.
pub const WORDS_MAX: usize = 4096;

/// A set of flags to be asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Which driver is asked.
    pub driver: Language,
    /// What `-x` calls the language of the source.
    pub language: String,
    /// The flags.
    pub words: Vec<OsString>,
}

/// A job of one toolchain that runs on a variant of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The variant.
    pub toolchain: ToolchainId,
    /// The job's flags.
    pub question: Question,
    /// What its own compiler answered.
    pub profile: Digest,
}

/// What a compiler answered to one of [`Question::commands`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// How many commands a question is.
pub const COMMANDS: usize = 3;

/// How lines begin that say nothing about the compiler. The output file of a run that is none has a random name. Directories
/// of headers are the client's ([`PLACES`] has the same of commands). When a compiler
/// collects its own garbage has defaults from the memory of the machine that runs it (`ggc_min_expand_heuristic` and its
/// sister in gcc's `ggc-common.cc`): they decide how a compile goes and not what comes of it.
const NO_SETTINGS: [&[u8]; 4] = [
    b"  -o ",
    b"  -imultiarch ",
    b"  --param=ggc-min-expand=",
    b"  --param=ggc-min-heapsize=",
];

/// Options, each with a value behind it, that say where a compiler's own files are.
const PLACES: [&[u8]; 4] = [b"-imultiarch", b"-imultilib", b"-iprefix", b"-isysroot"];

impl Question {
    /// Returns the words of the commands that put the question, each to be run in an empty or any other directory. All
    /// have to succeed.
    pub fn commands(&self) -> [Vec<OsString>; COMMANDS] {
        let with = |words: &[&str]| {
            let mut all = self.words.clone();
            all.extend(words.iter().map(OsString::from));
            all
        };
        let language = self.language.as_str();
        let of_language = match self.driver {
            Language::C => "--help=c",
            Language::Cxx => "--help=c++",
        };
        [
            with(&["-nostdinc", "-dM", "-E", "-x", language, "/dev/null"]),
            with(&[
                "-Q",
                "--help=common",
                "--help=optimizers",
                "--help=params",
                "--help=target",
                of_language,
            ]),
            with(&[
                "-nostdinc",
                "-pipe",
                "-###",
                "-c",
                "-o",
                "unit.o",
                "-x",
                language,
                "/dev/null",
            ]),
        ]
    }

    /// Names the question, for whoever remembers answers.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(self.driver.as_str().as_bytes());
        for word in [OsStr::new(&self.language)]
            .into_iter()
            .chain(self.words.iter().map(OsString::as_os_str))
        {
            hasher.update(b"\0");
            hasher.update(word.as_encoded_bytes());
        }
        hasher.finish()
    }
}

/// Makes the profile out of the answers to [`Question::commands`].
pub fn profile(answers: &[Answer; COMMANDS]) -> Digest {
    let [macros, settings, programs] = answers;
    let mut hasher = Hasher::default();
    // The preprocessor lists macros in the order of its own table.
    let macros: BTreeSet<&[u8]> = lines(&macros.stdout)
        .filter(|line| line.starts_with(b"#define "))
        .collect();
    let settings = lines(&settings.stdout).filter(|line| is_setting(line));
    for line in macros.into_iter().chain(settings) {
        hasher.update(line);
        hasher.update(b"\n");
    }
    // A command stands behind a blank; everything else there is talk.
    for line in lines(&programs.stderr).filter(|line| line.starts_with(b" ")) {
        for word in without_places(line) {
            hasher.update(&word);
            hasher.update(b"\0");
        }
        hasher.update(b"\n");
    }
    hasher.finish()
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

/// Tells lines that name an option and its value.
fn is_setting(line: &[u8]) -> bool {
    line.starts_with(b"  -") && !NO_SETTINGS.iter().any(|beginning| line.starts_with(beginning))
}

/// Returns a command's words without what says where the compiler's files are; of the program only its plain name is left.
fn without_places(line: &[u8]) -> Vec<Vec<u8>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut words = quoted_words(line).into_iter();
    while let Some(word) = words.next() {
        if kept.is_empty() {
            kept.push(plain_name(&word));
        } else if PLACES.contains(&word.as_slice()) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept
}

/// `as` for `/usr/arm-linux-gnueabi/bin/as` and `arm-linux-gnueabi-as`.
fn plain_name(program: &[u8]) -> Vec<u8> {
    let after = |byte| memchr::memrchr(byte, program).map_or(0, |at| at + 1);
    program[after(b'/').max(after(b'-'))..].to_vec()
}

/// Takes apart what `-###` prints: words between blanks, some in quotation marks, with backslashes.
fn quoted_words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let (mut quoted, mut escaped) = (false, false);
    for byte in line {
        match byte {
            _ if escaped => {
                word.get_or_insert_default().push(*byte);
                escaped = false;
            }
            b'\\' => escaped = true,
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(*byte),
        }
    }
    words.extend(word);
    words
}

/// Variables of a job that say nothing about the compiler: where it looks for what, and how it speaks. Not among them is
/// `SOURCE_DATE_EPOCH`, by which wrappers choose flags.
const LEFT_OUT: [&str; 11] = [
    "COLUMNS",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "C_INCLUDE_PATH",
    "LANG",
    "LANGUAGE",
    "NO_COLOR",
    "OBJC_INCLUDE_PATH",
    "PATH",
    "PWD",
    "SUNPRO_DEPENDENCIES",
];

/// Returns the environment for the commands: what is left of a job's, such as variables that the toolchain's file lists;
/// English; and where programs are.
pub fn environment(job: &[(OsString, OsString)], path: &OsStr) -> Vec<(OsString, OsString)> {
    let taken = |name: &OsStr| {
        let by_prefix = ["LC_", "GCC_", "TERM"].iter();
        let mut by_prefix = by_prefix.filter(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
        by_prefix.next().is_none() && !LEFT_OUT.iter().any(|left_out| name == *left_out)
    };
    let mut env: Vec<_> = job.iter().filter(|(name, _)| taken(name)).cloned().collect();
    env.push(("LC_ALL".into(), "C".into()));
    env.push(("PATH".into(), path.to_owned()));
    env
}

/// Returns what `PATH` has to be for a toolchain to find its own programs: all directories that it has programs in, those of the
/// drivers first.
pub fn program_path(manifest: &Manifest) -> OsString {
    let drivers = manifest.compilers().values().filter_map(|path| path.parent());
    let programs = manifest.entries().iter().filter(|(_, entry)| match entry {
        Entry::File { mode, .. } => *mode == MODE_EXECUTABLE,
        Entry::Symlink { .. } | Entry::Directory { .. } => false,
    });
    let programs = programs.filter_map(|(path, _)| path.parent());
    let mut directories: Vec<&OsStr> = Vec::new();
    let mut seen = BTreeSet::new();
    for directory in drivers.chain(programs) {
        if seen.insert(directory) {
            directories.push(directory.as_os_str());
        }
    }
    directories.join(OsStr::new(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(macros: &str, settings: &str, programs: &str) -> [Answer; COMMANDS] {
        let out = |text: &str| Answer {
            stdout: text.into(),
            stderr: Vec::new(),
        };
        let programs = Answer {
            stdout: Vec::new(),
            stderr: programs.into(),
        };
        [out(macros), out(settings), programs]
    }

    const MACROS: &str = "#define __ARM_ARCH 5\n#define __A__ 1\n";
    const SETTINGS: &str = "The following options are target specific:\n  -mabi=  \taapcs-linux\n  -o <file> \t/tmp/ccX.s\n  -imultiarch <dir> \tx\n";
    const PROGRAMS: &str = "Using built-in specs.\n /usr/lib/gcc-cross/x/12/cc1 -quiet -imultiarch x /dev/null \
        \"-march=armv5te\" -o - |\n /usr/x/bin/as \"-march=armv5te\" -o unit.o\nCOMPILER_PATH=/x\n";

    #[test]
    fn where_a_compiler_stands_is_not_in_its_profile() {
        let board = "Target: y\n /usr/libexec/cc1 -quiet /dev/null -march=armv5te -o - |\n arm-linux-as -march=armv5te -o unit.o\n";
        let one = profile(&answers(MACROS, SETTINGS, PROGRAMS));
        let reordered = "#define __A__ 1\n#define __ARM_ARCH 5\n";
        let other_name = SETTINGS.replace("ccX", "ccY").replace("\tx", "\ty");
        assert_eq!(one, profile(&answers(reordered, &other_name, board)));
    }

    #[test]
    fn any_other_difference_is_in_the_profile() {
        let one = profile(&answers(MACROS, SETTINGS, PROGRAMS));
        for other in [
            answers("#define __ARM_ARCH 6\n#define __A__ 1\n", SETTINGS, PROGRAMS),
            answers("#define __A__ 1\n", SETTINGS, PROGRAMS),
            answers(MACROS, &SETTINGS.replace("aapcs-linux", "aapcs"), PROGRAMS),
            answers(MACROS, SETTINGS, &PROGRAMS.replace(" -quiet", " -quiet -mthumb")),
            answers(MACROS, SETTINGS, &PROGRAMS.replace("as \"-march=armv5te\"", "as")),
            answers(MACROS, SETTINGS, &PROGRAMS.replace("/dev/null", "-D \"A B\" /dev/null")),
        ] {
            assert_ne!(one, profile(&other), "{other:?}");
        }
    }

    #[test]
    fn how_much_memory_a_machine_has_is_not_in_its_compilers_profile() {
        let with = |expand: &str, size: &str| {
            let params =
                format!("  --param=ggc-min-expand=     \t\t{expand}\n  --param=ggc-min-heapsize=   \t\t{size}\n");
            profile(&answers(MACROS, &(SETTINGS.to_owned() + &params), PROGRAMS))
        };
        assert_eq!(with("98", "127489"), with("100", "131072"));
    }

    #[test]
    fn words_are_taken_apart_as_the_driver_quotes_them() {
        let words = quoted_words(br#" /x/cc1 "-DA=\"b c\"" "" d\ e"#);
        let expected: [&[u8]; 4] = [b"/x/cc1", b"-DA=\"b c\"", b"", b"d e"];
        assert_eq!(words, expected);
    }

    #[test]
    fn the_questions_environment_does_not_depend_on_the_place_of_the_job() {
        let job = |pwd: &str| -> Vec<(OsString, OsString)> {
            let pairs = [
                ("BOARD", "x"),
                ("LC_MESSAGES", "de_DE"),
                ("PATH", "/client"),
                ("PWD", pwd),
                ("SUNPRO_DEPENDENCIES", "/tmp/x"),
            ];
            pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
        };
        let one = environment(&job("/a"), OsStr::new("/bin"));
        assert_eq!(one, environment(&job("/b"), OsStr::new("/bin")));
        let names: Vec<&OsStr> = one.iter().map(|(name, _)| name.as_os_str()).collect();
        assert_eq!(names, ["BOARD", "LC_ALL", "PATH"]);
    }

    #[test]
    fn questions_with_other_words_have_other_names() {
        let question = |words: &[&str]| Question {
            driver: Language::C,
            language: "c".into(),
            words: words.iter().map(OsString::from).collect(),
        };
        assert_eq!(question(&["-O2"]).digest(), question(&["-O2"]).digest());
        assert_ne!(question(&["-O2"]).digest(), question(&["-O2", "-g"]).digest());
        assert_ne!(question(&["-O2", "-g"]).digest(), question(&["-O2-g"]).digest());
    }
}
