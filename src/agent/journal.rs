//! Reading the wrappers' journal, every line once.
//!
//! The journal is moved aside (by wrappers or by us) while wrappers still append to it, so a file is known by its inode,
//! and the old one is looked at again until it is replaced. Only whole lines are taken. Nothing is deleted here.
//! Invariant: between [`Cursor`]s that are kept, a line is returned once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::exchange::JobRecord;
use crate::exchange::journal::{FILE_BYTES_MAX, parse};

/// Size beyond which the journal is moved aside once it has been read, bytes.
const READ_BYTES_MAX: u64 = 256 << 10;

/// How far each file has been read: offsets by inode.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(BTreeMap<u64, u64>);

/// Reads what `journal` and its predecessor got since `cursor`, and moves `cursor` on.
pub fn read_new(journal: &Path, cursor: &mut Cursor) -> io::Result<Vec<JobRecord>> {
    let old = aside(journal);
    let mut records = Vec::new();
    let mut seen = BTreeMap::new();
    for path in [&*old, journal] {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let from = cursor.0.get(&metadata.ino()).copied().unwrap_or(0);
        // Shorter than what was read: another file with a used inode number.
        let from = if from <= metadata.len() { from } else { 0 };
        let read = read_lines(file, from, &mut records)?;
        seen.insert(metadata.ino(), from + read);
        if path == journal && from + read > READ_BYTES_MAX {
            std::fs::rename(journal, &old)?;
        }
    }
    cursor.0 = seen;
    Ok(records)
}

/// Where the journal goes when it is long.
fn aside(journal: &Path) -> std::path::PathBuf {
    journal.with_extension("old")
}

/// Returns how many bytes the whole lines had.
fn read_lines(mut file: File, from: u64, records: &mut Vec<JobRecord>) -> io::Result<u64> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    // Wrappers keep the file below twice the bound even when nobody reads it.
    file.take(2 * FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
    let lines = bytes[..whole].split(|byte| *byte == b'\n');
    records.extend(
        lines
            .filter_map(|line| std::str::from_utf8(line).ok())
            .filter_map(parse),
    );
    Ok(whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::journal::line;
    use std::ffi::OsStr;
    use std::io::Write;

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn link(output: &str) -> String {
        line(1, "link", "", OsStr::new("/b"), Some(OsStr::new(output)))
    }

    fn outputs(journal: &Path, cursor: &mut Cursor) -> Vec<String> {
        let records = read_new(journal, cursor).expect("read");
        records
            .iter()
            .map(|record| record.outputs[0].display().to_string())
            .collect()
    }

    #[test]
    fn every_whole_line_is_returned_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, mut cursor) = (dir.path().join("journal"), Cursor::default());
        assert!(outputs(&journal, &mut cursor).is_empty());
        append(&journal, &link("1"));
        append(&journal, "damaged\n");
        let second = link("2");
        let (head, tail) = second.split_at(5);
        append(&journal, head);
        assert_eq!(outputs(&journal, &mut cursor), ["/b/1"]);
        append(&journal, tail);
        assert_eq!(outputs(&journal, &mut cursor), ["/b/2"]);
        assert!(outputs(&journal, &mut cursor).is_empty());
    }

    #[test]
    fn line_that_came_late_to_a_journal_moved_aside_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, mut cursor) = (dir.path().join("journal"), Cursor::default());
        append(&journal, &link("1").repeat(READ_BYTES_MAX as usize / 10));
        assert!(outputs(&journal, &mut cursor).len() > 1000);
        assert!(!journal.exists());
        append(&journal, &link("new"));
        append(&aside(&journal), &link("late"));
        assert_eq!(outputs(&journal, &mut cursor), ["/b/late", "/b/new"]);
        let kept = serde_json::to_string(&cursor).expect("plain data");
        let mut cursor = serde_json::from_str(&kept).expect("as written");
        assert!(outputs(&journal, &mut cursor).is_empty());
    }
}
