//! Lists of dependencies as files: read what gcc wrote, write what gcc would have written.
//!
//! gcc escapes blanks, `#` and `$` for make, wraps lines at 72 columns, and with `-MP` adds an empty rule per header;
//! gcc 9 and older put a blank line before each of those and never wrap before the first name. Invariant: a file is only
//! accepted if writing it again gives the same bytes, so nothing is ever lost in a rewrite. One ambiguity is gcc's own:
//! a name that ends with a backslash reads like an escaped blank.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::command::{DependencyTarget, Phony, Quoting};

/// Where gcc wraps: a name that would end behind this column goes to the next line.
const COLUMN_MAX: usize = 72;

/// A list of dependencies: one rule, and perhaps an empty rule for each header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyFile {
    /// The targets as they stand in the file, wrapped and escaped, with the colon.
    head: Vec<u8>,
    /// The source first, then the headers in the order of their first inclusion.
    files: Vec<PathBuf>,
    /// Whether the first name stands on a line of its own.
    wrapped_first: bool,
    rules: EmptyRules,
}

/// The empty rules of `-MP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EmptyRules {
    None,
    Plain,
    /// With a blank line before each, as gcc 9 and older do.
    Spaced,
}

/// Why some bytes are not a list of dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DependencyFileError {
    /// No colon ends the targets.
    #[error("no rule in the list of dependencies")]
    NoRule,
    /// gcc would have written these names otherwise.
    #[error("the list of dependencies is not as gcc writes it")]
    NotCanonical,
}

impl DependencyFile {
    /// Builds the file that gcc 10 and later write for `targets` (in the order in which gcc is told of them) and
    /// `files` (the source first).
    pub fn new(targets: &[DependencyTarget], files: Vec<PathBuf>, phony: Phony) -> Self {
        let mut head = Vec::new();
        let mut column = 0;
        for name in written_targets(targets) {
            column = put_name(&mut head, column, &name);
        }
        head.push(b':');
        let first = files.first().map_or(0, |file| escaped(file).len());
        DependencyFile {
            head,
            wrapped_first: column + 1 + first > COLUMN_MAX,
            files,
            rules: match phony {
                Phony::Yes => EmptyRules::Plain,
                Phony::No => EmptyRules::None,
            },
        }
    }

    /// Reads what gcc wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self, DependencyFileError> {
        let colon = end_of_targets(bytes).ok_or(DependencyFileError::NoRule)?;
        let (head, mut rest) = bytes.split_at(colon + 1);
        let wrapped_first = rest.starts_with(b" \\\n");
        let mut files = Vec::new();
        while let Some(after) = rest.strip_prefix(b" \\\n ").or_else(|| rest.strip_prefix(b" ")) {
            let (name, length) = unescaped_name(after);
            if name.is_empty() {
                return Err(DependencyFileError::NotCanonical);
            }
            files.push(PathBuf::from(name));
            rest = &after[length..];
        }
        let rules = match rest {
            b"" | b"\n" => EmptyRules::None,
            _ if rest.starts_with(b"\n\n") => EmptyRules::Spaced,
            _ => EmptyRules::Plain,
        };
        let file = DependencyFile {
            head: head.to_vec(),
            files,
            wrapped_first,
            rules,
        };
        if file.to_bytes() == bytes {
            Ok(file)
        } else {
            Err(DependencyFileError::NotCanonical)
        }
    }

    /// Returns the files that the target depends on, the source first, as the compiler named them.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Drops the headers for which `keep` says no. The source, which comes first, always stays.
    ///
    /// Dropping the headers of system directories turns the list of `-MD` into that of `-MMD`.
    pub fn retain_headers(&mut self, mut keep: impl FnMut(&Path) -> bool) {
        let mut first = true;
        self.files.retain(|file| std::mem::take(&mut first) || keep(file));
    }

    /// Returns the file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        let mut column = match memchr::memrchr(b'\n', &bytes) {
            Some(at) => bytes.len() - at - 1,
            None => bytes.len(),
        };
        let names: Vec<Vec<u8>> = self.files.iter().map(|file| escaped(file)).collect();
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                column = put_name(&mut bytes, column, name);
            } else {
                let blank: &[u8] = if self.wrapped_first { b" \\\n " } else { b" " };
                bytes.extend_from_slice(blank);
                bytes.extend_from_slice(name);
                column = if self.wrapped_first { 1 } else { column + 1 } + name.len();
            }
        }
        bytes.push(b'\n');
        if self.rules != EmptyRules::None {
            for name in names.iter().skip(1) {
                if self.rules == EmptyRules::Spaced {
                    bytes.push(b'\n');
                }
                bytes.extend_from_slice(name);
                bytes.extend_from_slice(b":\n");
            }
        }
        bytes
    }
}

/// Escapes targets and brings them into gcc's order: each raw one takes the place of the first quoted one, which goes
/// to the end.
fn written_targets(targets: &[DependencyTarget]) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut raw = 0;
    for target in targets {
        match target.quoting {
            Quoting::Quoted => names.push(escaped(Path::new(&target.text))),
            Quoting::Raw => {
                names.push(target.text.as_bytes().to_vec());
                let last = names.len() - 1;
                names.swap(raw, last);
                raw += 1;
            }
        }
    }
    names
}

/// Writes a name behind others, wrapping if it has to; returns the new column.
fn put_name(bytes: &mut Vec<u8>, mut column: usize, name: &[u8]) -> usize {
    if column > 0 {
        if column + name.len() > COLUMN_MAX {
            bytes.extend_from_slice(b" \\\n");
            column = 0;
        }
        bytes.push(b' ');
        column += 1;
    }
    bytes.extend_from_slice(name);
    column + name.len()
}

/// Escapes a name for make, the way gcc does.
fn escaped(name: &Path) -> Vec<u8> {
    let name = name.as_os_str().as_bytes();
    let mut text = Vec::with_capacity(name.len());
    let mut backslashes = 0;
    for &byte in name {
        match byte {
            b' ' | b'\t' => text.extend(std::iter::repeat_n(b'\\', backslashes + 1)),
            b'#' => text.push(b'\\'),
            b'$' => text.push(b'$'),
            _ => {}
        }
        text.push(byte);
        backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
    }
    text
}

/// Reads one name from the start of `text`; returns it with the length of what was read.
fn unescaped_name(text: &[u8]) -> (OsString, usize) {
    let mut name = Vec::new();
    let mut backslashes = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\n' => break,
            b' ' | b'\t' => {
                if backslashes.is_multiple_of(2) {
                    break;
                }
                name.truncate(name.len() - backslashes.div_ceil(2));
            }
            b'#' if backslashes > 0 => {
                name.pop();
            }
            b'$' if text.get(at + 1) == Some(&b'$') => at += 1,
            _ => {}
        }
        name.push(byte);
        backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
        at += 1;
    }
    (OsString::from_vec(name), at)
}

/// Finds the colon behind the targets: the first with a blank or a line end after it.
fn end_of_targets(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b':', bytes).find(|at| matches!(bytes.get(at + 1), Some(b' ' | b'\n')))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    fn quoted(text: &str) -> DependencyTarget {
        DependencyTarget {
            text: text.into(),
            quoting: Quoting::Quoted,
        }
    }

    fn raw(text: &str) -> DependencyTarget {
        DependencyTarget {
            text: text.into(),
            quoting: Quoting::Raw,
        }
    }

    fn check(targets: &[DependencyTarget], files: &[&str], phony: Phony, expected: &str) {
        let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        let file = DependencyFile::new(targets, files, phony);
        assert_eq!(String::from_utf8(file.to_bytes()).expect("text"), expected);
        let read = DependencyFile::parse(expected.as_bytes()).expect("a list");
        assert_eq!(read.files(), file.files());
    }

    #[test]
    fn names_are_escaped_for_make() {
        let files = [
            "m.c",
            "a b/x y.h",
            "h#1.h",
            "d$x.h",
            "c:o.h",
            r"bs\ sp.h",
            r"b\c.h",
            "t\tb.h",
            r"bs\#h.h",
        ];
        check(
            &[quoted("m o.o")],
            &files,
            Phony::No,
            "m\\ o.o: m.c a\\ b/x\\ y.h h\\#1.h d$$x.h c:o.h bs\\\\\\ sp.h b\\c.h t\\\tb.h \\\n bs\\\\#h.h\n",
        );
    }

    #[test]
    fn raw_targets_are_not_escaped_and_push_quoted_ones_back() {
        check(
            &[quoted("quo t$x#:y"), quoted("q2"), raw("raw t$x#"), raw("r2")],
            &["m.c"],
            Phony::No,
            "raw t$x# r2 quo\\ t$$x\\#:y q2: m.c\n",
        );
    }

    #[test]
    fn lines_are_wrapped_and_headers_get_rules() {
        let long = "x".repeat(70);
        check(
            &[quoted(&long)],
            &["m.c", "a.h", &long, "b.h"],
            Phony::Yes,
            &format!("{long}: \\\n m.c a.h \\\n {long} \\\n b.h\na.h:\n{long}:\nb.h:\n"),
        );
        check(&[quoted("a.o")], &["a.c"], Phony::Yes, "a.o: a.c\n");
    }

    #[test]
    fn older_style_survives_a_rewrite() {
        let long = "x".repeat(70);
        let text = format!("{long}: m.c \\\n a.h /usr/b.h\n\na.h:\n\n/usr/b.h:\n");
        let mut file = DependencyFile::parse(text.as_bytes()).expect("a list");
        file.retain_headers(|path| !path.starts_with("/usr"));
        let kept = format!("{long}: m.c \\\n a.h\n\na.h:\n");
        assert_eq!(String::from_utf8(file.to_bytes()).expect("text"), kept);
    }

    #[test]
    fn list_of_all_headers_becomes_that_of_user_headers() {
        let text = "d/a.o: a.c /usr/include/stdc-predef.h /usr/include/stdio.h b.h \\\n /usr/include/x/stdlib.h c.h\nb.h:\nc.h:\n";
        assert!(
            DependencyFile::parse(text.as_bytes()).is_err(),
            "a rule is missing for each system header"
        );
        let text = "d/a.o: a.c /usr/include/stdc-predef.h /usr/include/stdio.h b.h \\\n /usr/include/x/stdlib.h c.h\n";
        let mut file = DependencyFile::parse(text.as_bytes()).expect("a list");
        file.retain_headers(|path| !path.starts_with("/usr/include"));
        assert_eq!(file.to_bytes(), b"d/a.o: a.c b.h c.h\n");
        assert_eq!(file.files(), ["a.c", "b.h", "c.h"].map(PathBuf::from));
    }

    #[test]
    fn what_gcc_would_not_write_is_refused() {
        for text in [
            "",
            "a.o",
            "a.o:",
            "a.o b.o",
            "a.o:  a.c\n",
            "a.o: a.c\n\n",
            "a.o: a.c",
            "a.o: a.c\n b.h\n",
        ] {
            assert!(DependencyFile::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    /// Names out of the bytes that matter; not empty, no line ends, no backslash at the end.
    fn name() -> impl Strategy<Value = Vec<u8>> {
        let byte = proptest::sample::select(b" \t#$\\:ab/.\xff".to_vec());
        proptest::collection::vec(byte, 1..30).prop_map(|mut name| {
            name.push(b'h');
            name
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            target in name(),
            files in proptest::collection::vec(name(), 1..12),
            phony in any::<bool>(),
        ) {
            let target = DependencyTarget {
                text: OsStr::from_bytes(&target).to_owned(),
                quoting: Quoting::Quoted,
            };
            let files: Vec<PathBuf> = files.iter().map(|name| OsStr::from_bytes(name).into()).collect();
            let phony = if phony { Phony::Yes } else { Phony::No };
            let written = DependencyFile::new(&[target], files.clone(), phony);
            let read = DependencyFile::parse(&written.to_bytes()).expect("a list");
            prop_assert_eq!(read.files(), files);
            prop_assert_eq!(read.to_bytes(), written.to_bytes());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(file) = DependencyFile::parse(&bytes) {
                prop_assert_eq!(file.to_bytes(), bytes);
            }
        }
    }
}
