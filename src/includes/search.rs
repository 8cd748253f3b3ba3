//! Builds the search path out of options, environment and the compiler's defaults, in gcc's order and with its removals.
//!
//! Four chains (quote, bracket, system, after) are joined; directories that do not exist fall out, and so do duplicates
//! by device and inode, where a `-I` directory that is a system directory too stays where the system has it. Invariant:
//! the result is what `gcc -v` prints for the same options.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::compile::{DirBase, PreprocessOptions, SearchDir};

use super::predefined::Facts;

/// A directory of the search path before anybody has looked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// As gcc spells it.
    pub name: Vec<u8>,
    /// Headers found here are system headers.
    pub system: bool,
}

/// The chains before removals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chains {
    /// `"name"` only.
    pub quote: Vec<Candidate>,
    /// `"name"` and `<name>`.
    pub bracket: Vec<Candidate>,
    /// System directories: `-isystem`, environment, defaults, `-idirafter`.
    pub system: Vec<Candidate>,
    /// `-I-` was given: the current file's directory is not searched.
    pub ignores_source_directory: bool,
}

/// Options that cannot be decided here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// `=DIR` without a sysroot on the command line; the compiler may have one built in.
    #[error("a directory below the compiler's own sysroot")]
    BuiltInSysroot,
    /// `-iwithprefix` without `-iprefix`; the compiler has a prefix built in.
    #[error("`-iwithprefix` without `-iprefix`")]
    BuiltInPrefix,
}

impl Chains {
    /// Collects the chains out of the options and the compiler's own directories.
    pub fn new(options: &PreprocessOptions, facts: &Facts) -> Result<Self, SearchError> {
        let sysroot = options.header_sysroot.as_ref().or(options.sysroot.as_ref());
        let sysroot = sysroot.map(|root| root.as_bytes());
        let given = |dirs: &[SearchDir], make: fn(Vec<u8>) -> Candidate| {
            let named = |dir: &SearchDir| match dir.base {
                DirBase::Given => below_sysroot(dir.path.as_bytes(), sysroot).map(make),
                DirBase::CompilerPrefix => Err(SearchError::BuiltInPrefix),
            };
            dirs.iter().map(named).collect::<Result<Vec<_>, _>>()
        };
        let listed = |dirs: &[PathBuf], make: fn(Vec<u8>) -> Candidate| {
            let bytes = |dir: &PathBuf| make(dir.as_os_str().as_bytes().to_vec());
            dirs.iter().map(bytes).collect::<Vec<_>>()
        };
        let own = facts.search.iter().map(|name| system(name.as_bytes().to_vec()));
        let environment = &options.environment;
        let mut chains = Self {
            quote: given(&options.quote_dirs, user)?,
            bracket: given(&options.bracket_dirs, user)?,
            system: given(&options.system_dirs, system)?,
            ignores_source_directory: options.quote_split,
        };
        chains.bracket.extend(listed(&environment.cpath, user));
        chains.system.extend(listed(&environment.language, system));
        chains.system.extend(own);
        chains.system.extend(given(&options.after_dirs, system)?);
        Ok(chains)
    }
}

fn user(name: Vec<u8>) -> Candidate {
    Candidate { name, system: false }
}

fn system(name: Vec<u8>) -> Candidate {
    Candidate { name, system: true }
}

/// Replaces a leading `=` or `$SYSROOT` by the sysroot.
fn below_sysroot(name: &[u8], sysroot: Option<&[u8]>) -> Result<Vec<u8>, SearchError> {
    let rest = name.strip_prefix(b"=").or_else(|| name.strip_prefix(b"$SYSROOT"));
    match (rest, sysroot) {
        (None, _) => Ok(name.to_vec()),
        (Some(rest), Some(sysroot)) => Ok([sysroot, rest].concat()),
        (Some(_), None) => Err(SearchError::BuiltInSysroot),
    }
}

/// A directory of the search path that exists.
#[derive(Debug, Clone)]
pub struct Present<D> {
    /// As gcc spells it.
    pub name: Vec<u8>,
    /// Headers found here are system headers.
    pub system: bool,
    /// The directory.
    pub directory: D,
    /// Device and inode.
    pub identity: (u64, u64),
}

/// The joined path: quote directories, then bracket, then system ones.
#[derive(Debug, Clone)]
pub struct SearchPath<D> {
    /// All directories in search order.
    pub directories: Vec<Present<D>>,
    /// Where `<name>` starts in `directories`.
    pub bracket_start: usize,
    /// The current file's directory is not searched for `"name"`.
    pub ignores_source_directory: bool,
    /// Absolute paths of candidates that do not exist.
    pub absent: Vec<PathBuf>,
}

/// Removes what does not exist, and duplicates, and joins the chains. `look` finds a candidate: its absolute path if it
/// is absent.
pub fn join<D: Clone, E>(
    chains: Chains,
    mut look: impl FnMut(&Candidate) -> Result<Result<(D, (u64, u64)), PathBuf>, E>,
) -> Result<SearchPath<D>, E> {
    let mut absent = Vec::new();
    let mut present = |chain: Vec<Candidate>| -> Result<Chain<D>, E> {
        let mut out = Vec::new();
        let mut ends_present = false;
        for candidate in chain {
            let seen = look(&candidate)?;
            ends_present = seen.is_ok();
            match seen {
                Ok((directory, identity)) => out.push(Present {
                    name: candidate.name,
                    system: candidate.system,
                    directory,
                    identity,
                }),
                Err(path) => absent.push(path),
            }
        }
        Ok((out, ends_present))
    };
    let system = without_repeats(present(chains.system)?, &[], None);
    let bracket = present(chains.bracket)?;
    let bracket = without_repeats(bracket, &system, system.first().map(|d| d.identity));
    let quote = present(chains.quote)?;
    let first_bracket = bracket.first().or(system.first()).map(|d| d.identity);
    let quote = without_repeats(quote, &system, first_bracket);
    let bracket_start = quote.len();
    let directories = quote.into_iter().chain(bracket).chain(system).collect();
    Ok(SearchPath {
        directories,
        bracket_start,
        ignores_source_directory: chains.ignores_source_directory,
        absent,
    })
}

/// The directories of a chain that exist, and whether its last candidate is among them.
type Chain<D> = (Vec<Present<D>>, bool);

/// Keeps the first of each directory in a chain, none that `system` has, and not a last one equal to what follows.
fn without_repeats<D>(
    (chain, ends_present): Chain<D>,
    system: &[Present<D>],
    follows: Option<(u64, u64)>,
) -> Vec<Present<D>> {
    let last = chain.len().saturating_sub(1);
    let mut out: Vec<Present<D>> = Vec::with_capacity(chain.len());
    for (at, directory) in chain.into_iter().enumerate() {
        let same = |other: &Present<D>| other.identity == directory.identity;
        let repeated = system.iter().any(same) || out.iter().any(same);
        let meets_next = ends_present && at == last && follows == Some(directory.identity);
        if !repeated && !meets_next {
            out.push(directory);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chains: Chains) -> (String, usize) {
        let look = |candidate: &Candidate| {
            let name = String::from_utf8_lossy(&candidate.name).into_owned();
            // `x1` and `x2` are two spellings of directory `x`; capital letters do not exist.
            let letter = name.as_bytes()[0];
            Ok::<_, ()>(if letter.is_ascii_uppercase() {
                Err(PathBuf::from(name))
            } else {
                Ok((name, (0, u64::from(letter))))
            })
        };
        let path = join(chains, look).expect("never fails");
        let names: Vec<String> = path.directories.into_iter().map(|d| d.directory).collect();
        (names.join(" "), path.bracket_start)
    }

    fn chains(quote: &str, bracket: &str, of_system: &str) -> Chains {
        let split = |text: &str, make: fn(Vec<u8>) -> Candidate| {
            text.split_whitespace()
                .map(|name| make(name.as_bytes().to_vec()))
                .collect()
        };
        Chains {
            quote: split(quote, user),
            bracket: split(bracket, user),
            system: split(of_system, system),
            ignores_source_directory: false,
        }
    }

    #[test]
    fn duplicates_and_absent_directories_fall_out_as_in_gcc() {
        let check = |quote, bracket, of_system, expected: &str, start| {
            let expected = (expected.to_owned(), start);
            assert_eq!(names(chains(quote, bracket, of_system)), expected);
        };
        check("", "a b", "c", "a b c", 0);
        check("", "a b a2 X", "c c2", "a b c", 0);
        check("", "a c2 b", "c", "a b c", 0);
        check("q", "a", "c", "q a c", 1);
        check("q a", "a2 b", "c", "q a2 b c", 1);
        check("a q", "a2 b", "c", "a q a2 b c", 2);
        check("q a X", "a2 b", "c", "q a a2 b c", 2);
        check("c2 q q2", "a", "c", "q a c", 1);
        check("", "", "c d c2 e", "c d e", 0);
    }

    #[test]
    fn sysroot_stands_for_an_equals_sign() {
        let check = |name: &str, root: Option<&str>, expected| {
            assert_eq!(below_sysroot(name.as_bytes(), root.map(str::as_bytes)), expected);
        };
        check("/x", None, Ok(b"/x".to_vec()));
        check("=/x", Some("/r"), Ok(b"/r/x".to_vec()));
        check("$SYSROOT/x", Some("/r"), Ok(b"/r/x".to_vec()));
        check("=/x", None, Err(SearchError::BuiltInSysroot));
    }
}
