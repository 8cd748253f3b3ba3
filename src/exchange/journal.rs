//! One line of the journal: what a wrapper ran without asking the agent.
//!
//! Tab-separated and escaped, written by one `write` to a file opened for appending, so that lines of parallel wrappers
//! stay whole. Invariant: a line has at most [`LINE_BYTES_MAX`] bytes, the newline included, and no newline inside.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::escape::{escape, unescape};
use super::record::{JobRecord, Ran};

/// Longest line, bytes: what every file system appends in one piece.
pub const LINE_BYTES_MAX: usize = 4096;
/// Size beyond which the journal is moved aside, bytes: some 40,000 lines, far more than gather between two looks of
/// an agent.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Writes the line for a command that ran here for `reason` and writes `output` (as the command names it).
pub fn line(unix_ms: u64, reason: &str, toolchain: &str, cwd: &OsStr, output: Option<&OsStr>) -> String {
    let mut line = format!("{unix_ms}\t{reason}\t{toolchain}\t");
    let place = line.len();
    if let Some(output) = output {
        line.push_str(&escape(cwd.as_bytes()));
        line.push('\t');
        line.push_str(&escape(output.as_bytes()));
    } else {
        line.push('\t');
    }
    if line.len() >= LINE_BYTES_MAX {
        // Counted still, if no longer found by its output.
        line.truncate(place);
        line.push('\t');
    }
    line.push('\n');
    line
}

/// Reads a line without its newline; `None` when it is damaged.
pub fn parse(line: &str) -> Option<JobRecord> {
    let mut fields = line.split('\t');
    let mut next = || fields.next();
    let (unix_ms, reason, toolchain) = (next()?.parse().ok()?, next()?, next()?);
    let (cwd, output) = (unescape(next()?)?, unescape(next()?)?);
    if fields.next().is_some() || reason.is_empty() {
        return None;
    }
    let mut record = JobRecord::new(Ran::Local {
        reason: reason.to_owned(),
    });
    record.ended_unix_ms = unix_ms;
    record.toolchain = toolchain.to_owned();
    if !output.is_empty() {
        record
            .outputs
            .push(PathBuf::from(OsString::from_vec(cwd)).join(OsString::from_vec(output)));
    }
    Some(record)
}

/// Finds the file that a command writes, as far as `-o` says so.
pub fn output_of(argv: &[OsString]) -> Option<&OsStr> {
    let mut words = argv.iter();
    while let Some(word) = words.next() {
        match word.as_bytes() {
            b"-o" => return words.next().map(OsString::as_os_str),
            [b'-', b'o', name @ ..] => return Some(OsStr::from_bytes(name)),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn line_comes_back_as_a_local_job() {
        let line = line(
            7,
            "link",
            "arm926",
            OsStr::new("/b d"),
            Some(OsStr::from_bytes(b"x\n\xff")),
        );
        assert!(line.ends_with('\n'));
        let record = parse(line.trim_end_matches('\n')).expect("as written");
        assert_eq!(record.ran, Ran::Local { reason: "link".into() });
        assert_eq!(record.outputs, [Path::new(OsStr::from_bytes(b"/b d/x\n\xff"))]);
        assert_eq!((record.ended_unix_ms, record.toolchain.as_str()), (7, "arm926"));
    }

    #[test]
    fn absolute_output_does_not_hang_below_the_directory() {
        let line = line(7, "link", "", OsStr::new("/b"), Some(OsStr::new("/o/x")));
        assert_eq!(parse(line.trim_end()).expect("as written").outputs, [Path::new("/o/x")]);
    }

    #[test]
    fn over_long_line_loses_its_output_only() {
        let long = "\n".repeat(2000);
        let line = line(7, "link", "", OsStr::new("/b"), Some(OsStr::new(&long)));
        assert!(line.len() <= LINE_BYTES_MAX);
        assert!(
            parse(line.trim_end_matches('\n'))
                .expect("as written")
                .outputs
                .is_empty()
        );
    }

    #[test]
    fn damaged_lines_are_no_jobs() {
        for line in [
            "",
            "x\tlink\t\t\t",
            "7\t\t\t\t",
            "7\tlink\t\t",
            "7\tlink\t\t\t\t",
            "7\tlink\t\t\\q\ta",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn output_is_what_follows_the_first_dash_o() {
        let find = |text: &str| {
            let argv: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            output_of(&argv).map(OsStr::to_owned)
        };
        assert_eq!(find("a.o -o prog"), Some("prog".into()));
        assert_eq!(find("-oprog a.o"), Some("prog".into()));
        assert_eq!(find("--version"), None);
        assert_eq!(find("a.o -o"), None);
    }
}
