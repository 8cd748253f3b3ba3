//! The real compiler as a witness: what it says of itself, what it answers, and which files it lists.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rdcc::compile::{self, CompileCommand, Driver, Verdict};
use rdcc::includes::closure::{Closure, NoClosure};
use rdcc::includes::oracle::{Answers, parse_answers, question_source};
use rdcc::includes::predefined::{Facts, PROBE_ARGUMENTS, probe_source};
use rdcc::includes::request::{ScanRequest, probe_words};
use rdcc::includes::scan::scan;
use rdcc::includes::source_tree::SourceTree;
use rdcc::includes::symbols::Symbols;

/// Variables that would change what a bare compiler says.
const CLEARED: [&str; 6] = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "DEPENDENCIES_OUTPUT",
    "SUNPRO_DEPENDENCIES",
    "VPATH",
];

type Key = (String, Vec<OsString>);

/// A compiler and what it said so far.
#[derive(Default)]
pub struct Compiler {
    program: PathBuf,
    facts: HashMap<Key, Arc<Facts>>,
    answers: HashMap<Key, Answers>,
}

impl Compiler {
    /// The compiler called `program`, or `None` when it cannot be run.
    pub fn find(program: &str) -> Option<Self> {
        let status = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| Self {
            program: PathBuf::from(program),
            ..Self::default()
        })
    }

    fn command(&self, cwd: &Path) -> Command {
        Self::prepared(Command::new(&self.program), cwd)
    }

    /// The compiler with a bound on its time and memory.
    fn limited(&self, cwd: &Path) -> Command {
        let mut command = Command::new("prlimit");
        command.args(["--cpu=20", "--as=2147483648"]).arg(&self.program);
        Self::prepared(command, cwd)
    }

    fn prepared(mut command: Command, cwd: &Path) -> Command {
        command.current_dir(cwd).env("LC_ALL", "C");
        for name in CLEARED {
            command.env_remove(name);
        }
        command
    }

    /// Runs the compiler with `input` on its standard input.
    fn ask(&self, cwd: &Path, arguments: &[&OsStr], input: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut child = self
            .command(cwd)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // The text fits a pipe; the compiler reads all of it before it prints.
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input)?;
        }
        let output = child.wait_with_output()?;
        Ok((output.stdout, output.stderr))
    }

    fn key(command: &CompileCommand) -> Key {
        (command.language.name().to_owned(), probe_words(&command.preprocess))
    }

    fn probe(&self, key: &Key, cwd: &Path, arguments: &[&str], input: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut words: Vec<&OsStr> = key.1.iter().map(OsString::as_os_str).collect();
        words.extend(arguments.iter().map(OsStr::new));
        words.extend(["-x", key.0.as_str(), "-"].map(OsStr::new));
        self.ask(cwd, &words, input)
    }

    /// Returns what the compiler says of itself for such commands.
    pub fn facts(&mut self, command: &CompileCommand, cwd: &Path) -> Arc<Facts> {
        let key = Self::key(command);
        if let Some(facts) = self.facts.get(&key) {
            return Arc::clone(facts);
        }
        let input = probe_source(&Symbols::new());
        let (stdout, stderr) = self
            .probe(&key, cwd, &PROBE_ARGUMENTS, &input)
            .expect("the compiler runs");
        let facts = Facts::parse(&stdout, &stderr).expect("the compiler describes itself");
        let facts = Arc::new(facts);
        self.facts.insert(key, Arc::clone(&facts));
        facts
    }

    /// Scans a command's unit, asking the compiler what has to be asked.
    pub fn scan<T: SourceTree>(
        &mut self,
        command: &CompileCommand,
        cwd: &Path,
        tree: &T,
    ) -> Result<Closure, NoClosure> {
        let facts = self.facts(command, cwd);
        let request = ScanRequest::of(command, cwd, facts).expect("a language with a preprocessor");
        let key = Self::key(command);
        loop {
            let answers = self.answers.entry(key.clone()).or_default();
            let queries = match scan(&request, tree, answers) {
                Err(NoClosure::NeedsAnswers(queries)) => queries,
                result => return result,
            };
            let input = question_source(&queries, &Symbols::new());
            let (stdout, _) = self.probe(&key, cwd, &["-E", "-P"], &input).expect("the compiler runs");
            let said = parse_answers(&queries, &stdout);
            let place = |query| NoClosure::NeedsAnswers(vec![query]);
            let answers = self.answers.entry(key.clone()).or_default();
            let before = answers.len();
            for (query, value) in said {
                answers.add(query, value);
            }
            if answers.len() == before {
                return Err(place(queries[0].clone()));
            }
        }
    }

    /// Returns the compiler's own list of a command, or what it complained of.
    pub fn list(&self, argv: &[OsString], env: &[(OsString, OsString)], cwd: &Path) -> Result<Vec<Vec<u8>>, String> {
        let mut words = without_outputs(argv);
        // Not `-M`: that does not expand the text, so a `_Pragma` has no effect there, unlike in a compile.
        words.extend(["-E", "-o", "/dev/null", "-MD", "-MF", "-", "-MT", "x"].map(OsString::from));
        // Texts that nobody would write may expand without end: such a unit counts as one that the compiler rejects.
        let output = self
            .limited(cwd)
            .args(words)
            .envs(env.iter().cloned())
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(parse_rule(&output.stdout))
    }
}

/// Parses a command line without its program; panics if it is not one compile.
pub fn parse(argv: &[OsString], env: &[(OsString, OsString)], driver: Driver) -> Box<CompileCommand> {
    let mut read = |path: &Path| std::fs::read(path);
    match compile::parse(argv, env, driver, &mut read) {
        Verdict::Remote(command) => command,
        Verdict::Local(local) => panic!("{argv:?} stays local: {local:?}"),
    }
}

/// Drops the words that say what is to be written where.
fn without_outputs(argv: &[OsString]) -> Vec<OsString> {
    let mut out = Vec::new();
    let mut words = argv.iter();
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"-c" | b"-MD" | b"-MMD" | b"-MP" => {}
            b"-o" | b"-MF" | b"-MT" | b"-MQ" => {
                words.next();
            }
            bytes if bytes.starts_with(b"-Wp,-M") => {}
            _ => out.push(word.clone()),
        }
    }
    out
}

/// Undoes make's quoting in the one rule of a dependency list, and returns the prerequisites.
pub fn parse_rule(rule: &[u8]) -> Vec<Vec<u8>> {
    let start = rule.windows(2).position(|pair| pair == b": ").map_or(0, |at| at + 2);
    let mut names = Vec::new();
    let mut name = Vec::new();
    let mut at = start;
    while at < rule.len() {
        let slashes = rule[at..].iter().take_while(|b| **b == b'\\').count();
        let next = rule.get(at + slashes).copied().unwrap_or(b'\n');
        match (slashes, next) {
            (0, b'$') if rule.get(at + 1) == Some(&b'$') => {
                name.push(b'$');
                at += 2;
                continue;
            }
            (0, b' ' | b'\n') => {}
            (0, byte) => {
                name.push(byte);
                at += 1;
                continue;
            }
            (_, b' ' | b'\t') => {
                name.extend(std::iter::repeat_n(b'\\', slashes / 2));
                name.push(next);
                at += slashes + 1;
                continue;
            }
            (_, b'#') => {
                name.extend(std::iter::repeat_n(b'\\', slashes - 1));
                name.push(b'#');
                at += slashes + 1;
                continue;
            }
            (_, b'\n') => {}
            (_, _) => {
                name.extend(std::iter::repeat_n(b'\\', slashes));
                at += slashes;
                continue;
            }
        }
        at += slashes + 1;
        if !name.is_empty() {
            names.push(std::mem::take(&mut name));
        }
    }
    if !name.is_empty() {
        names.push(name);
    }
    names
}

/// Returns a closure's list as the compiler would print it.
pub fn spellings(closure: &Closure) -> Vec<Vec<u8>> {
    closure.listed.iter().map(|listed| listed.spelling.to_vec()).collect()
}

/// Describes the first place at which two lists differ.
pub fn difference(ours: &[Vec<u8>], theirs: &[Vec<u8>]) -> Option<String> {
    let text = |list: &[Vec<u8>], at: usize| {
        let name = list.get(at).map_or(b"(end)".as_slice(), Vec::as_slice);
        String::from_utf8_lossy(name).into_owned()
    };
    let most = ours.len().max(theirs.len());
    let at = (0..most).find(|at| ours.get(*at) != theirs.get(*at))?;
    Some(format!(
        "entry {at} of {} and {}: ours `{}`, gcc's `{}`",
        ours.len(),
        theirs.len(),
        text(ours, at),
        text(theirs, at)
    ))
}
