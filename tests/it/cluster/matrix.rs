//! Every kind of command through the farm against the local compiler: status, words, and every file that is left.
//!
//! The commands are lines of `tests/fixtures/matrix/commands.txt`; a part of them runs each time, all of them, in four
//! ways and on a terminal too, when `RDCC_MATRIX` is `1`, and of these only the lines that contain its value when it is
//! something else. What the compiler itself writes differently from one run to the next (random names, times, addresses)
//! is compared but for those places.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::farm::{TestFarm, has_compiler};
use super::ways::on_a_terminal;

mod sources;

const COMMANDS: &str = include_str!("../../fixtures/matrix/commands.txt");

/// One line of the table.
struct Row {
    always: bool,
    expected: &'static str,
    text: &'static str,
    variables: Vec<(OsString, OsString)>,
    compiler: String,
    words: Vec<OsString>,
}

fn rows(src: &Path) -> Vec<Row> {
    let lines = COMMANDS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| row(line, src)).collect()
}

fn row(line: &'static str, src: &Path) -> Row {
    let (mark, rest) = line.split_at(2);
    let (expected, text) = rest.split_at(5);
    let mut words = text.split(' ').map(|word| unescaped(word, src)).peekable();
    let mut variables = Vec::new();
    while let Some(word) = words.next_if(|word| is_variable(word)) {
        let at = word.as_bytes().iter().position(|b| *b == b'=').expect("a variable");
        let (name, value) = word.as_bytes().split_at(at);
        variables.push((
            OsStr::from_bytes(name).to_owned(),
            OsStr::from_bytes(&value[1..]).to_owned(),
        ));
    }
    let driver = words.next().expect("a compiler");
    Row {
        always: mark.starts_with('*'),
        expected: expected.trim_end(),
        text,
        variables,
        compiler: format!("arm-linux-gnueabi-{}", driver.to_str().expect("text")),
        words: words.collect(),
    }
}

fn is_variable(word: &OsStr) -> bool {
    let name = word.as_bytes().split(|b| *b == b'=').next().unwrap_or_default();
    name.len() < word.len() && name.iter().all(|b| b.is_ascii_uppercase() || *b == b'_')
}

fn unescaped(word: &str, src: &Path) -> OsString {
    let word = word.replace("$PWD", src.to_str().expect("text"));
    let mut bytes = word.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next().expect("something behind the backslash") {
            b's' => b' ',
            b'n' => b'\n',
            b't' => b'\t',
            b'x' => {
                let digits = [bytes.next(), bytes.next()].map(|digit| digit.expect("a digit"));
                let digits = std::str::from_utf8(&digits).expect("text");
                u8::from_str_radix(digits, 16).expect("a number")
            }
            other => other,
        });
    }
    OsString::from_vec(out)
}

/// How rdcc gets to see a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Named,
    ToolchainFile,
    Link,
    BelowCcache,
}

/// Whether stderr is a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stderr {
    Pipe,
    Terminal,
}

/// What runs a command without rdcc, for a run of it in `way` to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// The compiler by its bare name, found on `PATH`.
    ByName,
    /// The compiler by its path, as rdcc names it where it was not told a name: with a name that leads to rdcc itself,
    /// gcc would look for its parts beside rdcc. `-v` prints it.
    ByPath,
    /// ccache, which does not make of every command what the compiler makes of it.
    Ccache,
}

impl Without {
    fn rdcc(way: Way) -> Self {
        match way {
            Way::Named => Self::ByName,
            Way::ToolchainFile | Way::Link => Self::ByPath,
            Way::BelowCcache => Self::Ccache,
        }
    }
}

fn command(farm: &TestFarm, row: &Row, way: Result<Way, Without>) -> Command {
    let mut command = match way {
        Err(without @ (Without::ByName | Without::ByPath)) => {
            let mut command = farm.client(&Path::new("/usr/bin").join(&row.compiler));
            if without == Without::ByName {
                command.arg0(&row.compiler);
            }
            command
        }
        Ok(Way::Named) => {
            let mut command = farm.rdcc();
            command.args(["--toolchain", "arm926", &row.compiler]);
            command
        }
        Ok(Way::ToolchainFile) => {
            let mut command = farm.rdcc();
            command.args(["--toolchain", "arm926"]);
            if row.compiler.ends_with("g++") {
                command.args(["--driver", "c++"]);
            }
            command
        }
        Ok(Way::Link) => {
            let mut command = farm.client(&farm.path("links").join(&row.compiler));
            command.env("PATH", format!("{}:/usr/bin:/bin", farm.path("links").display()));
            command
        }
        Ok(Way::BelowCcache) | Err(Without::Ccache) => {
            let mut command = farm.client(Path::new("/usr/bin/ccache"));
            command.arg(&row.compiler);
            command
                .env("RDCC_TOOLCHAIN", "arm926")
                .env("CCACHE_DIR", farm.path("ccache"))
                .env("CCACHE_RECACHE", "1");
            if way.is_ok() {
                command.env("CCACHE_PREFIX", env!("CARGO_BIN_EXE_rdcc"));
            }
            command
        }
    };
    command.args(&row.words).env("LANG", "C.UTF-8").env("PWD", farm.src());
    command.envs(row.variables.iter().cloned());
    command
}

/// Everything that can be told apart.
struct Left {
    status: Option<i32>,
    said: [Vec<u8>; 2],
    files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

fn run(farm: &TestFarm, row: &Row, way: Result<Way, Without>, stderr: Stderr) -> Left {
    sources::make(&farm.src());
    let mut command = command(farm, row, way);
    let (status, said) = match stderr {
        Stderr::Pipe => {
            let output = command.output().expect("runs");
            (output.status.code(), [output.stdout, output.stderr])
        }
        Stderr::Terminal => {
            command.stdout(std::process::Stdio::null());
            let (text, status) = on_a_terminal(command, 80);
            (status.code(), [Vec::new(), text])
        }
    };
    let mut left = Left {
        status,
        said,
        files: files(&farm.src()),
    };
    left.blank_measures(row);
    left
}

impl Left {
    /// Blanks what is measured or happens to be in each run anew, where the command asks for such: seconds, addresses.
    /// A few runs to compare with do not show all that these can be.
    fn blank_measures(&mut self, row: &Row) {
        let has = |start: &str| {
            row.words
                .iter()
                .any(|word| word.as_bytes().starts_with(start.as_bytes()))
        };
        let texts = self
            .said
            .iter_mut()
            .chain(self.files.values_mut().map(|file| &mut file.1));
        if has("-time") {
            texts.for_each(|text| blank_after(text, b"# ", |byte| byte.is_ascii_digit()));
        } else if has("-fdump-analyzer") {
            texts.for_each(|text| blank_after(text, b"0x", |byte| byte.is_ascii_hexdigit()));
        }
    }
}

/// Takes out each byte behind a line's first `mark` that `is_blanked`: another run may print more or fewer of them.
fn blank_after(text: &mut Vec<u8>, mark: &[u8], is_blanked: impl Fn(u8) -> bool) {
    let mut left = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let place = line.windows(mark.len()).position(|bytes| bytes == mark);
        let (kept, rest) = line.split_at(place.map_or(line.len(), |at| at + mark.len()));
        left.extend_from_slice(kept);
        left.extend(rest.iter().filter(|byte| !is_blanked(**byte)));
    }
    *text = left;
}

/// Everything below `root`: its kind and mode, and its content or target.
fn files(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("listed") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("there");
            let content = if metadata.is_symlink() {
                fs::read_link(&path).expect("read").into_os_string().into_vec()
            } else if metadata.is_file() {
                fs::read(&path).expect("read")
            } else {
                Vec::new()
            };
            if metadata.is_dir() {
                dirs.push(path.clone());
            }
            let name = path.strip_prefix(root).expect("below").to_owned();
            found.insert(name, (metadata.mode(), content));
        }
    }
    found
}

/// Says whether `ours` could be another of the texts that the compiler made of the same.
fn is_alike(theirs: &[&[u8]], ours: &[u8]) -> bool {
    let first = theirs[0];
    if theirs.iter().any(|text| text.len() != first.len()) {
        // Times and sizes of compressed texts: nothing can be said.
        return true;
    }
    if ours.len() != first.len() {
        return false;
    }
    // A random word may agree by chance in some of its letters.
    const AROUND: usize = 8;
    let varies: Vec<usize> = (0..first.len())
        .filter(|at| theirs.iter().any(|text| text[*at] != first[*at]))
        .collect();
    (0..first.len()).all(|at| ours[at] == first[at] || varies.iter().any(|other| at.abs_diff(*other) <= AROUND))
}

fn differences(theirs: &[Left], ours: &Left) -> Vec<String> {
    let mut found = Vec::new();
    if ours.status != theirs[0].status {
        found.push(format!("status {:?} against {:?}", ours.status, theirs[0].status));
    }
    for at in 0..2 {
        let texts: Vec<&[u8]> = theirs.iter().map(|left| left.said[at].as_slice()).collect();
        if !is_alike(&texts, &ours.said[at]) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push(format!("said\n{}against\n{}", text(&ours.said[at]), text(texts[0])));
        }
    }
    let names = theirs[0].files.keys().chain(ours.files.keys());
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        match (theirs[0].files.get(name), ours.files.get(name)) {
            (Some(_), None) => found.push(format!("{name:?} is missing")),
            (None, Some(_)) => found.push(format!("{name:?} is too much")),
            (Some(theirs), Some(ours)) if theirs.0 != ours.0 => {
                found.push(format!("{name:?} has mode {:o} against {:o}", ours.0, theirs.0));
            }
            (_, Some(ours)) => {
                let texts: Option<Vec<&[u8]>> = theirs
                    .iter()
                    .map(|left| left.files.get(name).map(|file| file.1.as_slice()))
                    .collect();
                if !texts.is_some_and(|texts| is_alike(&texts, &ours.1)) {
                    found.push(format!("{name:?} differs"));
                }
            }
            (None, None) => {}
        }
    }
    found
}

/// How many jobs ran on the farm in mode A, and how many here.
fn counts(farm: &TestFarm) -> (u64, u64) {
    let stats = farm.stats();
    let count = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    (count(&stats["remote_by_mode"]["A"]), count(&stats["local"]))
}

/// Returns what is wrong with one command in one way.
fn check(farm: &TestFarm, row: &Row, way: Way, stderr: Stderr) -> Vec<String> {
    let without = Err(Without::rdcc(way));
    let mut theirs = vec![run(farm, row, without, stderr)];
    let before = counts(farm);
    let ours = run(farm, row, Ok(way), stderr);
    let after = counts(farm);
    let mut found = differences(&theirs, &ours);
    if !found.is_empty() {
        // What differs between runs of the compiler itself does not count.
        for _ in 0..3 {
            theirs.push(run(farm, row, without, stderr));
        }
        found = differences(&theirs, &ours);
    }
    let where_it_ran = match (after.0 - before.0, after.1 - before.1) {
        (1, 0) => "A",
        (0, 1) => "here",
        _ => "any",
    };
    // ccache runs the compiler as often as it likes.
    let told = row.expected == "any" || way == Way::BelowCcache;
    if !told && where_it_ran != row.expected {
        found.push(format!("ran {where_it_ran} instead of {}", row.expected));
    }
    found
}

#[test]
fn every_kind_of_command_leaves_what_the_local_compiler_leaves() {
    if !has_compiler() {
        return;
    }
    let wanted = std::env::var("RDCC_MATRIX").ok();
    let all = wanted.is_some();
    let only = wanted.filter(|value| value != "1").unwrap_or_default();
    let farm = TestFarm::with_workers(&[("n1", 2)]);
    // Nothing is to run here for being quick.
    fs::create_dir_all(farm.path("home/.config/rdcc")).expect("created");
    fs::write(farm.path("home/.config/rdcc/config.toml"), "local_share = false\n").expect("written");
    let mut rows = rows(&farm.src());
    rows.retain(|row| (all || row.always) && row.text.contains(&only));
    let links = farm.path("links");
    fs::create_dir(&links).expect("created");
    for name in ["gcc", "g++"] {
        let link = links.join(format!("arm-linux-gnueabi-{name}"));
        symlink(env!("CARGO_BIN_EXE_rdcc"), link).expect("linked");
    }
    let mut failures = String::new();
    for (way, stderr) in ways(all) {
        for row in &rows {
            let found = check(&farm, row, way, stderr);
            if !found.is_empty() {
                failures.push_str(&format!("{way:?} {stderr:?}: {}\n  {}\n", row.text, found.join("\n  ")));
            }
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn ways(all: bool) -> Vec<(Way, Stderr)> {
    let mut ways = vec![(Way::Named, Stderr::Pipe)];
    if all {
        ways.extend([
            (Way::Named, Stderr::Terminal),
            (Way::ToolchainFile, Stderr::Pipe),
            (Way::Link, Stderr::Pipe),
        ]);
        if Path::new("/usr/bin/ccache").exists() {
            ways.push((Way::BelowCcache, Stderr::Pipe));
        } else {
            eprintln!("skipped: no ccache here");
        }
    }
    ways
}
