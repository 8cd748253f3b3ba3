//! What this call of the program is: a compile, the agent, or a command that a person typed.
//!
//! Reads the words and a few variables; what has to be looked up in the file system is asked through [`Lookup`]. The
//! command line is a contract (README). Invariant: a compile's words are passed on untouched, whatever they are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::compiler_name::{base_name, kind_of};
use crate::compile::file_name::last_dot;
use crate::exchange::{Complaint, Driver, Wish};
use crate::ids::Name;

#[cfg(test)]
mod tests;

/// The commands for people. Anything else that is no compiler is a mistake.
pub const COMMANDS: &[&str] = &[
    "agent",
    "audit",
    "check",
    "drain",
    "find",
    "help",
    "jobs",
    "join",
    "masquerade",
    "node",
    "nodes",
    "slots",
    "stats",
    "status",
    "token",
    "toolchain",
    "trace",
    "version",
    "why",
];

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Compile, somewhere.
    Wrapper(Command),
    /// One of [`COMMANDS`], or none at all, with its words.
    Admin(Vec<OsString>),
}

/// A compiler's command line, and what was said about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The toolchain, where it was named.
    pub toolchain: Option<Name>,
    /// The compiler.
    pub compiler: Named,
    /// The words behind the compiler's name.
    pub args: Vec<OsString>,
    /// Where the user lets it run.
    pub wish: Wish,
}

/// How the compiler was named.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// Not at all: the toolchain's own for this language.
    ByToolchain(Driver),
    /// By a path, or a name to be found on `PATH`.
    Explicitly(OsString),
    /// By the name under which rdcc was called: the next program of that name on `PATH`.
    ByOwnName(OsString),
}

/// The variables that steer rdcc.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    /// `RDCC_TOOLCHAIN`.
    pub toolchain: Option<OsString>,
    /// `RDCC_STRICT`.
    pub strict: Option<OsString>,
    /// `RDCC_DISABLE`.
    pub disable: Option<OsString>,
}

/// What has to be asked of the file system.
pub trait Lookup {
    /// Tells whether a word is a program: an executable file by its path, or a name found on `PATH` that is no file in
    /// the working directory.
    fn is_program(&self, word: &OsStr) -> bool;
}

/// Exit status of a command line that is wrong.
pub const USAGE_STATUS: u8 = 2;

/// Reads `argv`, its first word being the name we were called by.
pub fn read(mut argv: Vec<OsString>, variables: &Variables, lookup: &dyn Lookup) -> Result<Invocation, Complaint> {
    let own = if argv.is_empty() {
        OsString::new()
    } else {
        argv.remove(0)
    };
    let mut prelude = Prelude::default();
    let name = base_name(&own);
    let compiler = if name == "ccache" {
        match argv.first() {
            // In a compiler cache's place, as Buildroot's wrapper calls it.
            Some(word) if !word.as_bytes().starts_with(b"-") => Named::Explicitly(argv.remove(0)),
            // A question to ccache itself.
            _ => Named::ByOwnName(own),
        }
    } else if kind_of(name).is_some() {
        Named::ByOwnName(own)
    } else {
        argv = prelude.take(argv)?;
        let first = argv.first();
        if !prelude.seen && first.is_none_or(|word| is_command(word)) {
            return Ok(Invocation::Admin(argv));
        }
        if first.is_some_and(|word| is_compiler(word, lookup)) {
            Named::Explicitly(argv.remove(0))
        } else if prelude.toolchain.is_some() || named_by_variable(variables)?.is_some() && prelude.allows(first) {
            Named::ByToolchain(prelude.driver.unwrap_or(Driver::C))
        } else {
            return Err(unknown(first.map_or(OsStr::new(""), OsString::as_os_str)));
        }
    };
    Ok(Invocation::Wrapper(Command {
        toolchain: match prelude.toolchain {
            Some(name) => Some(name),
            None => named_by_variable(variables)?,
        },
        compiler,
        args: argv,
        wish: wish(prelude.strict, variables),
    }))
}

/// Options of ours in front of a compiler's command line.
#[derive(Default)]
struct Prelude {
    seen: bool,
    toolchain: Option<Name>,
    driver: Option<Driver>,
    strict: bool,
}

impl Prelude {
    /// Tells whether `first` may be a compiler's first word where the toolchain is named by a variable only: without
    /// any option of ours, a mistyped command has to be told as such.
    fn allows(&self, first: Option<&OsString>) -> bool {
        self.seen || first.is_some_and(|word| word.as_bytes().starts_with(b"-") || has_input_suffix(word))
    }

    /// Takes our options off the front of `argv` and returns the rest.
    fn take(&mut self, argv: Vec<OsString>) -> Result<Vec<OsString>, Complaint> {
        let mut words = argv.into_iter().peekable();
        while let Some(word) = words.peek() {
            let bytes = word.as_bytes();
            let (option, mut value) = match bytes.iter().position(|byte| *byte == b'=') {
                Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
                None => (bytes, None),
            };
            let (option, takes_value) = match option {
                b"--toolchain" => ("--toolchain", true),
                b"--driver" => ("--driver", true),
                b"--strict" if value.is_none() => ("--strict", false),
                _ => break,
            };
            words.next();
            self.seen = true;
            if takes_value && value.is_none() {
                value = Some(words.next().ok_or_else(|| lacks_value(option))?);
            }
            match (option, value) {
                ("--toolchain", Some(value)) => self.toolchain = Some(toolchain_name(&value, "--toolchain")?),
                ("--driver", Some(value)) => self.driver = Some(driver(&value)?),
                _ => self.strict = true,
            }
        }
        Ok(words.collect())
    }
}

fn is_command(word: &OsStr) -> bool {
    let commands = COMMANDS.iter().any(|command| word == *command);
    commands || ["-h", "--help", "-V", "--version"].iter().any(|option| word == *option)
}

/// Tells a compiler from a compiler's first argument.
fn is_compiler(word: &OsStr, lookup: &dyn Lookup) -> bool {
    if word.as_bytes().starts_with(b"-") || word.as_bytes().starts_with(b"@") || has_input_suffix(word) {
        return false;
    }
    kind_of(word).is_some() || lookup.is_program(word)
}

/// Tells words that are inputs of a compile or a link, also when such a file happens to be executable.
fn has_input_suffix(word: &OsStr) -> bool {
    const SUFFIXES: &[&[u8]] = &[
        b"c", b"cc", b"cp", b"cxx", b"cpp", b"CPP", b"c++", b"C", b"i", b"ii", b"s", b"S", b"sx", b"h", b"hh", b"hpp",
        b"o", b"a", b"so", b"lo", b"la", b"ld", b"lds", b"m", b"mm", b"f", b"F", b"f90", b"F90",
    ];
    let name = base_name(word).as_bytes();
    match last_dot(name) {
        Some(dot) => SUFFIXES.contains(&&name[dot + 1..]),
        None => false,
    }
}

fn toolchain_name(value: &OsStr, origin: &str) -> Result<Name, Complaint> {
    Name::new(&value.to_string_lossy()).map_err(|error| {
        Complaint::new(format!("`{origin}` names no toolchain"))
            .because(error.to_string())
            .hint("`rdcc toolchain list` shows the names there are")
    })
}

fn driver(value: &OsStr) -> Result<Driver, Complaint> {
    match value.as_bytes() {
        b"c" | b"cc" | b"gcc" => Ok(Driver::C),
        b"c++" | b"cxx" | b"g++" => Ok(Driver::Cxx),
        _ => {
            Err(Complaint::new(format!("`--driver` cannot be `{}`", value.to_string_lossy())).hint("give `c` or `c++`"))
        }
    }
}

fn lacks_value(option: &str) -> Complaint {
    Complaint::new(format!("`{option}` lacks its value"))
        .hint("as in `rdcc --toolchain arm926 [--driver c++] -c foo.c`")
}

fn named_by_variable(variables: &Variables) -> Result<Option<Name>, Complaint> {
    match &variables.toolchain {
        Some(value) if !value.is_empty() => toolchain_name(value, "RDCC_TOOLCHAIN").map(Some),
        _ => Ok(None),
    }
}

fn wish(strict: bool, variables: &Variables) -> Wish {
    if set(&variables.disable) {
        Wish::Here
    } else if strict || set(&variables.strict) {
        Wish::NoFallback
    } else {
        Wish::Anywhere
    }
}

/// A variable counts as set unless it is empty or `0`.
fn set(variable: &Option<OsString>) -> bool {
    variable.as_ref().is_some_and(|value| !value.is_empty() && value != "0")
}

fn unknown(word: &OsStr) -> Complaint {
    let text = word.to_string_lossy();
    let complaint = Complaint::new(format!("`{text}` is neither an rdcc command nor a compiler"));
    match nearest_command(&text) {
        Some(command) => complaint.hint(format!("did you mean `rdcc {command}`?")),
        None if has_input_suffix(word) || text.starts_with('-') => {
            complaint.hint("name a toolchain or a compiler, as in `rdcc --toolchain arm926 -c foo.c`")
        }
        None => complaint.hint(format!("the commands are {}", COMMANDS.join(", "))),
    }
}

/// Returns the command that is at most two slips of the finger away.
fn nearest_command(text: &str) -> Option<&'static str> {
    COMMANDS
        .iter()
        .map(|command| (distance(text, command), *command))
        .filter(|(slips, command)| *slips <= 2 && *slips < command.len())
        .min()
        .map(|(_, command)| command)
}

/// Counts the letters to insert, remove or replace to get from one word to the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    // A command is short; of anything longer the beginning tells enough.
    for (above, letter) in one.chars().take(32).enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, same) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *same);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
