//! The toolchain file, `toolchains/NAME.toml`: what a person says about a toolchain.
//!
//! Parses, checks and explains; touches no disk. Every error names the line and the key and says what would be
//! allowed, and an unknown key is an error, since a misspelt one would otherwise change nothing in silence.
//! Invariant: a [`Definition`] has a compiler for C or C++ on every kind of machine it names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::ids::Name;
use crate::toolchains::host::Host;

mod parse;

#[cfg(test)]
mod tests;

/// A language that a toolchain has a compiler driver for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// `c`: the driver called `gcc`.
    C,
    /// `c++`: the driver called `g++`.
    Cxx,
}

impl Language {
    /// Every language, in the order of the manifest.
    pub const ALL: [Language; 2] = [Language::C, Language::Cxx];

    /// Returns the spelling used in toolchain files and manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Cxx => "c++",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a toolchain file names a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// A name without a slash, to be looked for in [`Variant::path`] and then on `PATH`.
    Named(String),
    /// An absolute path.
    At(PathBuf),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Named(name) => f.write_str(name),
            Command::At(path) => path.display().fmt(f),
        }
    }
}

/// How close a variant's objects have to come to the reference variant's before it may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Certify {
    /// `identical`: every byte.
    #[default]
    Identical,
    /// `same-code`: everything but the compiler's name in `.comment`.
    SameCode,
}

impl Certify {
    /// Returns the spelling used in toolchain files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Certify::Identical => "identical",
            Certify::SameCode => "same-code",
        }
    }
}

/// A toolchain file, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What users call it.
    pub name: Name,
    /// One line for `rdcc toolchain list`; may be empty.
    pub description: String,
    /// The machine that the objects are for, as the compiler's `-dumpmachine` prints it.
    pub target: String,
    /// Flags without which this is another toolchain, put before the user's own when rdcc takes the compiler from this
    /// file. Rarely needed: what a project chooses (`-mcpu`, `-O2`) belongs to the project.
    pub flags: Vec<String>,
    /// Names of environment variables that the compiler, or a wrapper around it, reads and that must travel with
    /// every job. Sorted.
    pub environment: Vec<String>,
    /// One for each kind of machine, the reference first. Empty when the file has no `[[variant]]`.
    variants: Vec<Variant>,
    /// What holds for a machine when the file has no `[[variant]]` at all.
    fallback: Body,
}

/// The part of a toolchain file that one kind of machine needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The kind of machine.
    pub host: Host,
    /// How equal its objects have to be to the reference variant's.
    pub certify: Certify,
    /// The drivers.
    pub compilers: BTreeMap<Language, Command>,
    /// Directories in which the drivers are looked for before `PATH`. Absolute.
    pub path: Vec<PathBuf>,
    /// Files and directories that belong to the toolchain although the compiler does not tell of them. Absolute.
    pub include: Vec<PathBuf>,
    /// What its compiler's `-dumpmachine` prints; [`Definition::target`] but for a compiler that is built for another.
    pub target: String,
    /// Options that make its compiler the toolchain's, where a command says nothing else ([`super::defaults`]).
    pub defaults: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Body {
    compilers: BTreeMap<Language, Command>,
    path: Vec<PathBuf>,
    include: Vec<PathBuf>,
}

/// What is wrong in a toolchain file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// The text is not TOML.
    #[error("line {line}: not TOML: {message}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A key that means nothing here.
    #[error("line {line}: unknown key `{key}`; allowed here: {allowed}")]
    UnknownKey {
        /// Counted from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The keys that do mean something.
        allowed: String,
    },
    /// A key that has to be there.
    #[error("line {line}: `{key}` is missing: {expected}")]
    Missing {
        /// Where the table starts that lacks it, counted from 1.
        line: usize,
        /// The missing key.
        key: String,
        /// What it would say.
        expected: String,
    },
    /// A value of the wrong kind, or one that cannot be.
    #[error("line {line}: `{key}` cannot be {found}: {expected}")]
    Value {
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// What was written, in words or in backticks.
        found: String,
        /// What is allowed.
        expected: String,
    },
}

/// The file says nothing about this kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "toolchain `{name}` has no variant for `{host}` machines, only for {known}; add a `[[variant]]` with `host = \"{host}\"`"
)]
pub struct NoVariant {
    /// The toolchain.
    pub name: Name,
    /// The kind of machine asked for.
    pub host: Host,
    /// The kinds it has, for the message.
    pub known: String,
}

impl Definition {
    /// Reads the text of a toolchain file.
    pub fn parse(text: &str) -> Result<Self, DefinitionError> {
        parse::definition(text)
    }

    /// Returns the variant for `host`.
    ///
    /// A file without any `[[variant]]` describes every machine alike.
    pub fn variant(&self, host: Host) -> Result<Variant, NoVariant> {
        if self.variants.is_empty() {
            return Ok(Variant {
                host,
                certify: Certify::Identical,
                compilers: self.fallback.compilers.clone(),
                path: self.fallback.path.clone(),
                include: self.fallback.include.clone(),
                target: self.target.clone(),
                defaults: Vec::new(),
            });
        }
        let found = self.variants.iter().find(|variant| variant.host == host);
        found.cloned().ok_or_else(|| NoVariant {
            name: self.name.clone(),
            host,
            known: self
                .variants
                .iter()
                .map(|variant| format!("`{}`", variant.host))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Returns how equal the objects of two variants have to be, each of which is measured by the reference.
    pub fn asked_between(&self, one: Host, other: Host) -> Certify {
        let asked = |host| self.variant(host).map_or(Certify::Identical, |variant| variant.certify);
        match one == other {
            true => Certify::Identical,
            false => asked(one).max(asked(other)),
        }
    }

    /// Returns the variants that the file names, the reference first.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }
}

/// Tells whether two target names mean the same machine.
///
/// gcc's names differ in what does not matter here: the vendor (`arm-linux-gnueabihf`, `arm-unknown-linux-gnueabihf`),
/// and for 32-bit ARM the sub-architecture (Void's `armv7l-linux-gnueabihf`).
pub fn same_target(a: &str, b: &str) -> bool {
    reduced_target(a) == reduced_target(b)
}

fn reduced_target(target: &str) -> (String, String) {
    let mut parts: Vec<&str> = target.split('-').collect();
    let arch = match parts.remove(0) {
        arm if arm.starts_with("armv") => "arm",
        "i386" | "i486" | "i586" => "i686",
        other => other,
    };
    // With four words the second is the vendor; `arm-none-eabi` has three and no vendor to drop.
    if parts.len() >= 3 {
        parts.remove(0);
    }
    (arch.to_owned(), parts.join("-"))
}
