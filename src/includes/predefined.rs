//! What a compiler says of itself: predefined macros, default search path, the header that it includes unasked.
//!
//! The caller runs the compiler once per toolchain and macro-relevant flags, with [`PROBE_ARGUMENTS`] and
//! [`probe_source`] on its standard input; [`Facts::parse`] reads what it printed. Flags that name files of the user's
//! (`-D -U -I -include` and their like) stay out of the probe: the scan applies those itself.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, Mutex, PoisonError};

use super::dialect::{Dialect, Language, Strictness};
use super::literal::Characters;
use super::macros::Special;
use super::reduce::reduce;
use super::reduced::Reduced;
use super::symbols::Symbols;

/// Arguments of the probe, to go behind the flags and in front of `-x LANGUAGE -`.
pub const PROBE_ARGUMENTS: [&str; 3] = ["-E", "-dD", "-v"];

/// Starts the probe's answers on which computed macros exist.
const MARK: &str = "rdcc_special";

/// What a compiler says of itself under one set of flags.
#[derive(Debug)]
pub struct Facts {
    /// Its definitions, as source text.
    definitions: Vec<u8>,
    /// Default directories for `<name>`, as the compiler spells them. System directories all.
    pub search: Vec<OsString>,
    /// Directories that it would search, had they existed when it was asked.
    pub absent: Vec<OsString>,
    /// A header that it includes before all others if it finds it.
    pub preinclude: Option<Vec<u8>>,
    specials: Vec<Special>,
    standard: u64,
    strictness: Strictness,
    /// How the target represents characters.
    pub characters: Characters,
    reduced: Mutex<Option<Kept>>,
}

/// The definitions reduced for one dialect, in one table's spellings.
type Kept = (Arc<Symbols>, Dialect, Arc<Reduced>);

/// Output of a probe that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The standard output holds no definitions.
    #[error("the compiler printed no predefined macros")]
    NoDefinitions,
    /// The standard error lacks the search list.
    #[error("the compiler printed no search list")]
    NoSearchList,
}

/// Returns the text for the probe's standard input.
pub fn probe_source(symbols: &Symbols) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, special) in Special::ALL.iter().enumerate() {
        out.extend_from_slice(b"#ifdef ");
        symbols.append(special.symbol(), &mut out);
        out.extend_from_slice(format!("\n{MARK} {number}\n#endif\n").as_bytes());
    }
    out
}

impl Facts {
    /// Reads what the probe printed.
    pub fn parse(stdout: &[u8], stderr: &[u8]) -> Result<Self, ProbeError> {
        let listing = Listing::parse(stdout);
        if listing.definitions.is_empty() {
            return Err(ProbeError::NoDefinitions);
        }
        let (search, absent) = search_list(stderr).ok_or(ProbeError::NoSearchList)?;
        let number = |name: &str| {
            let value = listing.value(name)?;
            value.trim_end_matches(['L', 'U']).parse::<u64>().ok()
        };
        Ok(Self {
            standard: number("__cplusplus")
                .or_else(|| number("__STDC_VERSION__"))
                .unwrap_or(0),
            strictness: match listing.value("__STRICT_ANSI__") {
                Some(_) => Strictness::Standard,
                None => Strictness::Gnu,
            },
            characters: Characters {
                char_unsigned: listing.value("__CHAR_UNSIGNED__").is_some(),
                wide_unsigned: listing
                    .value("__WCHAR_MIN__")
                    .is_some_and(|least| least.starts_with('0')),
                wide_bits: number("__SIZEOF_WCHAR_T__").map_or(32, |bytes| 8 * bytes as u32),
            },
            definitions: listing.definitions,
            search,
            absent,
            preinclude: listing.preinclude,
            specials: listing.specials,
            reduced: Mutex::new(None),
        })
    }

    /// Returns the lexical rules for a language under these flags.
    pub fn dialect(&self, language: Language, strictness: Strictness) -> Dialect {
        Dialect::new(language, self.standard, strictness)
    }

    /// Returns whether the compiler said that it follows a standard strictly.
    pub fn strictness(&self) -> Strictness {
        self.strictness
    }

    /// Returns the computed macros that exist.
    pub fn specials(&self) -> &[Special] {
        &self.specials
    }

    /// Returns the definitions, reduced.
    pub fn reduced(&self, dialect: Dialect, symbols: &Arc<Symbols>) -> Arc<Reduced> {
        let mut kept = self.reduced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, in_dialect, reduced)) = &*kept
            && Arc::ptr_eq(of, symbols)
            && *in_dialect == dialect
        {
            return Arc::clone(reduced);
        }
        let reduced = Arc::new(reduce(&self.definitions, dialect, symbols));
        *kept = Some((Arc::clone(symbols), dialect, Arc::clone(&reduced)));
        reduced
    }
}

/// What the probe's standard output says.
#[derive(Debug, Default)]
struct Listing {
    definitions: Vec<u8>,
    preinclude: Option<Vec<u8>>,
    specials: Vec<Special>,
}

impl Listing {
    /// Keeps the definitions that are the compiler's own. Line markers tell which come from a header; without any
    /// (`-dM`) all are taken.
    fn parse(stdout: &[u8]) -> Self {
        let mut listing = Self::default();
        let mut own = true;
        for line in stdout.split(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let Some(file) = marked_file(line) {
                own = matches!(file, b"<built-in>" | b"<command-line>");
                let entered = line.ends_with(b" 1 3 4") || line.ends_with(b" 1 3");
                let header = !own && !file.starts_with(b"<") && entered;
                if header && listing.preinclude.is_none() {
                    let name = file.rsplit(|b| *b == b'/').next().unwrap_or(file);
                    listing.preinclude = Some(name.to_vec());
                }
            } else if own && (line.starts_with(b"#define ") || line.starts_with(b"#undef ")) {
                listing.definitions.extend_from_slice(line);
                listing.definitions.push(b'\n');
            } else if let Some(number) = special_number(line) {
                listing.specials.extend(Special::ALL.get(number));
            }
        }
        listing
    }

    fn value(&self, name: &str) -> Option<&str> {
        let prefix = format!("#define {name} ");
        let text = self.definitions.split(|b| *b == b'\n');
        text.filter_map(|line| std::str::from_utf8(line).ok())
            .find_map(|line| line.strip_prefix(prefix.as_str()))
    }
}

fn special_number(line: &[u8]) -> Option<usize> {
    let rest = std::str::from_utf8(line).ok()?.strip_prefix(MARK)?;
    rest.trim().parse().ok()
}

/// Returns the file that a line marker names.
fn marked_file(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"# ")?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let name = rest.get(digits..)?.strip_prefix(b" \"")?;
    let end = name.iter().rposition(|b| *b == b'"')?;
    (digits > 0).then_some(&name[..end])
}

/// Reads the search list and the directories that were passed over because they do not exist.
fn search_list(stderr: &[u8]) -> Option<(Vec<OsString>, Vec<OsString>)> {
    let mut found = None;
    let mut search = Vec::new();
    let mut absent = Vec::new();
    for line in stderr.split(|b| *b == b'\n') {
        if let Some(rest) = line.strip_prefix(b"ignoring nonexistent directory \"") {
            let name = rest.strip_suffix(b"\"").unwrap_or(rest);
            absent.push(OsString::from_vec(name.to_vec()));
        } else if line == b"#include <...> search starts here:" {
            found = Some(());
        } else if line == b"End of search list." {
            return found.map(|()| (search, absent));
        } else if found.is_some()
            && let Some(name) = line.strip_prefix(b" ")
        {
            search.push(OsString::from_vec(name.to_vec()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const STDOUT: &[u8] = b"# 0 \"<stdin>\"\n# 0 \"<built-in>\"\n#define __STDC_VERSION__ 201710L\n\
        # 0 \"<command-line>\"\n#define __CHAR_UNSIGNED__ 1\n# 1 \"/usr/include/stdc-predef.h\" 1 3 4\n\
        # 19 \"/usr/include/stdc-predef.h\" 3 4\n#define _STDC_PREDEF_H 1\n# 0 \"<command-line>\" 2\n\
        # 1 \"<stdin>\"\nrdcc_special 0\nrdcc_special 10\n";
    const STDERR: &[u8] = b"ignoring nonexistent directory \"/usr/local/x\"\n#include \"...\" search starts here:\n\
        #include <...> search starts here:\n /usr/lib/gcc/include\n /usr/include\nEnd of search list.\n";

    #[test]
    fn probe_output_is_read() {
        let facts = Facts::parse(STDOUT, STDERR).expect("valid");
        assert_eq!(
            facts.definitions,
            b"#define __STDC_VERSION__ 201710L\n#define __CHAR_UNSIGNED__ 1\n"
        );
        assert_eq!(facts.search, ["/usr/lib/gcc/include", "/usr/include"]);
        assert_eq!(facts.absent, ["/usr/local/x"]);
        assert_eq!(facts.preinclude.as_deref(), Some(b"stdc-predef.h".as_slice()));
        assert_eq!(facts.specials(), [Special::File, Special::HasInclude]);
        assert!(facts.characters.char_unsigned);
        assert!(facts.dialect(Language::C, Strictness::Gnu).has(Dialect::RAW_STRINGS));
    }

    #[test]
    fn output_without_lists_is_refused() {
        assert_eq!(Facts::parse(b"", STDERR).err(), Some(ProbeError::NoDefinitions));
        assert_eq!(Facts::parse(STDOUT, b"").err(), Some(ProbeError::NoSearchList));
    }
}
