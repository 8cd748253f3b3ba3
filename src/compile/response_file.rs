//! Expands `@file` words as gcc's driver does before it looks at any option.
//!
//! Words are separated by white space; quotes and backslashes protect; files may name files; a file that cannot be read
//! leaves its word as it was. Contents are handed in, nothing is opened here. Invariant: where the rules of gcc's
//! releases differ (a backslash inside quotes was reread in gcc 15) there is no answer rather than a guess.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How many response files one command may name. gcc itself gives up at 2,000; nobody writes a hundred.
const FILES_MAX: usize = 200;
/// Sum of the sizes of a command's response files, bytes. The largest seen in practice are linker lines of some 2 MB.
const BYTES_MAX: usize = 16 << 20;

/// A command line with its response files in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The words; none is an `@file` that could be read.
    pub argv: Vec<OsString>,
    /// The files that were read, in order, as the words named them (relative to the working directory). A file named
    /// twice stands here once.
    pub files: Vec<PathBuf>,
}

/// Why a command line with response files has no expansion that is sure to be gcc's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseFileError {
    /// More than 200 response files.
    #[error("more than {FILES_MAX} response files")]
    TooManyFiles,
    /// More than 16 MiB of response files.
    #[error("response files of more than {BYTES_MAX} bytes")]
    TooLarge,
    /// gcc refuses a directory.
    #[error("response file `{0}` is a directory")]
    Directory(PathBuf),
    /// The content means different things to different releases of gcc, or nothing to any.
    #[error("response file `{0}` has a NUL byte, or a backslash that releases of gcc read differently")]
    Ambiguous(PathBuf),
}

/// Replaces every `@file` in `argv` by the words in that file.
///
/// `read` returns a file's content; relative names are relative to the compiler's working directory.
pub fn expand(
    argv: &[OsString],
    read: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Result<Expanded, ResponseFileError> {
    let mut expanded = Expanded {
        argv: Vec::with_capacity(argv.len()),
        files: Vec::new(),
    };
    let mut bytes = 0;
    let mut reads = 0;
    // Words still to be looked at, last first, so that a file's own words come next.
    let mut pending: Vec<OsString> = argv.iter().rev().cloned().collect();
    while let Some(word) = pending.pop() {
        let Some(name) = word.as_bytes().strip_prefix(b"@") else {
            expanded.argv.push(word);
            continue;
        };
        reads += 1;
        if reads > FILES_MAX {
            return Err(ResponseFileError::TooManyFiles);
        }
        let path = PathBuf::from(OsStr::from_bytes(name));
        let content = match read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                return Err(ResponseFileError::Directory(path));
            }
            Err(_) => {
                expanded.argv.push(word);
                continue;
            }
        };
        bytes += content.len();
        if bytes > BYTES_MAX {
            return Err(ResponseFileError::TooLarge);
        }
        let words = split(&content).ok_or_else(|| ResponseFileError::Ambiguous(path.clone()))?;
        pending.extend(words.into_iter().rev());
        if !expanded.files.contains(&path) {
            expanded.files.push(path);
        }
    }
    Ok(expanded)
}

/// Splits the content of a response file into words. `None` where gcc's releases would not agree.
pub fn split(content: &[u8]) -> Option<Vec<OsString>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Quote {
        None,
        Single,
        Double,
    }
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = Quote::None;
    let mut bytes = content.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (0, _) | (b'\\', Quote::Single) => return None,
            (b'\\', Quote::None) => {
                let word = word.get_or_insert_default();
                match bytes.next() {
                    // Releases differ on a line end behind a backslash.
                    Some(0 | b'\n') => return None,
                    Some(next) => word.push(next),
                    None => {}
                }
            }
            (b'\\', Quote::Double) => match bytes.next() {
                Some(next @ (b'$' | b'`' | b'"' | b'\\')) => {
                    word.get_or_insert_default().push(next);
                }
                _ => return None,
            },
            (b'\'', Quote::None) => {
                word.get_or_insert_default();
                quote = Quote::Single;
            }
            (b'"', Quote::None) => {
                word.get_or_insert_default();
                quote = Quote::Double;
            }
            (b'\'', Quote::Single) | (b'"', Quote::Double) => quote = Quote::None,
            (b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r', Quote::None) => {
                words.extend(word.take().map(OsString::from_vec));
            }
            (byte, _) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(OsString::from_vec));
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &str, expected: &[&str]) {
        let words = split(content.as_bytes()).expect("unambiguous");
        assert_eq!(words, expected, "{content:?}");
    }

    #[test]
    fn words_are_split_at_white_space_and_joined_by_quotes() {
        check("", &[]);
        check(" \t\r\n\x0b\x0c", &[]);
        check("-c foo.c\n-O2\n", &["-c", "foo.c", "-O2"]);
        check("'a b' \"c d\"", &["a b", "c d"]);
        check("a'b c'd", &["ab cd"]);
        check("'' \"\"", &["", ""]);
        check("'say \"x\"' \"it's\"", &["say \"x\"", "it's"]);
        check(r"a\ b \'c\' \\", &["a b", "'c'", r"\"]);
        check(r#""\"q\" \\ \$""#, &[r#""q" \ $"#]);
        check("'open", &["open"]);
        check("end\\", &["end"]);
        check("# not a comment", &["#", "not", "a", "comment"]);
    }

    #[test]
    fn what_releases_of_gcc_read_differently_has_no_answer() {
        for content in [r"'a\b'", r#""a\b""#, "a\\\nb", "\"a\\\nb\"", "a\0b"] {
            assert_eq!(split(content.as_bytes()), None, "{content:?}");
        }
    }

    fn expand_in(files: &[(&str, &str)], argv: &[&str]) -> Result<Expanded, ResponseFileError> {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        expand(
            &argv,
            &mut |path: &Path| match files.iter().find(|(name, _)| Path::new(name) == path) {
                Some((_, "DIR")) => Err(io::ErrorKind::IsADirectory.into()),
                Some((_, content)) => Ok(content.as_bytes().to_vec()),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        )
    }

    #[test]
    fn files_are_expanded_in_place_and_in_each_other() {
        let files = [("a", "-c @b x.c"), ("b", "-O2 -g"), ("d/e", "-Wall")];
        let expanded = expand_in(&files, &["@a", "-w", "@d/e", "@b"]).expect("expands");
        assert_eq!(expanded.argv, ["-c", "-O2", "-g", "x.c", "-w", "-Wall", "-O2", "-g"]);
        assert_eq!(expanded.files, [Path::new("a"), Path::new("b"), Path::new("d/e")]);
    }

    #[test]
    fn unreadable_file_stays_a_word() {
        let expanded = expand_in(&[], &["@none", "@", "x"]).expect("expands");
        assert_eq!(expanded.argv, ["@none", "@", "x"]);
        assert!(expanded.files.is_empty());
    }

    #[test]
    fn endless_and_huge_expansions_are_refused() {
        let endless = expand_in(&[("a", "x @a")], &["@a"]);
        assert_eq!(endless, Err(ResponseFileError::TooManyFiles));
        let huge = "x".repeat(BYTES_MAX + 1);
        assert_eq!(
            expand_in(&[("a", huge.as_str())], &["@a"]),
            Err(ResponseFileError::TooLarge)
        );
        assert_eq!(
            expand_in(&[("a", "DIR")], &["@a"]),
            Err(ResponseFileError::Directory("a".into()))
        );
    }
}
