//! Captured toolchains kept on disk, so that nothing is read again while nothing has changed.
//!
//! A record is good while every file, link and listed directory has the stamp it was captured with; otherwise the
//! toolchain is captured anew. The check before a job looks at programs, libraries and links only. A record that cannot
//! be read is captured anew as well: losing one costs a second, trusting a wrong one would cost correct builds.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::store::stamp::Stamp;
use crate::toolchains::capture::{CaptureError, Captured, Surroundings, capture, find};
use crate::toolchains::definition::{Command, Definition, Variant};
use crate::toolchains::host::Host;
use crate::toolchains::manifest::text::{escaped, unescaped};
use crate::toolchains::manifest::{Entry, Manifest};

/// First line of a record. To be raised whenever capture chooses other files, so that old records are not taken.
const HEADER: &str = "rdcc-captured 1";

/// Why there is no captured toolchain.
#[derive(Debug, thiserror::Error)]
pub enum CapturedError {
    /// It could not be captured.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The record could not be written.
    #[error("cannot keep the record of a captured toolchain in `{}`", .directory.display())]
    Keep {
        /// The directory for records.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Returns the toolchain that `definition` names on this machine, from its record in `directory` when nothing has
/// changed, else captured now and recorded.
///
/// Blocks; with a good record for about a millisecond. `progress` is told of bytes done and in all if files are read.
pub fn load_or_capture(
    directory: &Path,
    definition: &Definition,
    host: Host,
    surroundings: &Surroundings,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Captured, CapturedError> {
    let variant = definition.variant(host).map_err(CaptureError::from)?;
    let key = key(definition, &variant, surroundings);
    let path = directory.join(format!("{}-{}.captured", definition.name, key.short()));
    if let Some(captured) = fs::read(&path).ok().and_then(|record| decode(&record))
        && still_found(&captured, &variant, surroundings)
        && captured.all_same()
    {
        return Ok(captured);
    }
    let captured = capture(definition, host, surroundings, progress)?;
    let keep = |source| CapturedError::Keep {
        directory: directory.to_owned(),
        source,
    };
    fs::create_dir_all(directory).map_err(keep)?;
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(keep)?;
    file.write_all(&encode(&captured)).map_err(keep)?;
    file.persist(&path).map_err(|error| keep(error.error))?;
    Ok(captured)
}

impl Captured {
    /// Tells whether nothing has changed, by the stamp of every file.
    pub fn all_same(&self) -> bool {
        self.stamps.iter().all(is_same)
    }

    /// Returns the stamps for the check before a job.
    pub fn key_stamps(&self) -> KeyStamps {
        // A listed directory counts too: a new file in it might be one that the compiler prefers.
        let is_key = |(path, _): &&(PathBuf, Stamp)| match self.manifest.entry(path) {
            Some(Entry::File { .. } | Entry::Symlink { .. }) => self.manifest.is_key_file(path),
            Some(Entry::Directory { .. }) | None => true,
        };
        KeyStamps(self.stamps.iter().filter(is_key).cloned().collect())
    }

    /// Tells whether a job with this `PATH` would start the programs that were captured, as far as the compiler
    /// leaves them to `PATH`.
    pub fn same_programs_by(&self, path: &OsStr) -> bool {
        let surroundings = Surroundings {
            path: path
                .as_bytes()
                .split(|byte| *byte == b':')
                .map(|dir| PathBuf::from(OsStr::from_bytes(dir)))
                .collect(),
            ..Surroundings::default()
        };
        self.by_path.iter().all(|(name, captured)| {
            let found = find(&Command::Named(name.clone()), &[], &surroundings);
            found.is_ok_and(|found| found == *captured)
        })
    }
}

/// Stamps of the files whose change would change what the compiler does.
#[derive(Debug, Clone)]
pub struct KeyStamps(Vec<(PathBuf, Stamp)>);

impl KeyStamps {
    /// Tells whether none of them has changed. Some fifty `lstat` calls, about 0.1 ms.
    pub fn still_same(&self) -> bool {
        self.0.iter().all(is_same)
    }
}

fn is_same((path, stamp): &(PathBuf, Stamp)) -> bool {
    Stamp::of(path).is_ok_and(|now| now == *stamp)
}

/// Tells whether the names in the toolchain file still lead to the captured compilers.
fn still_found(captured: &Captured, variant: &Variant, surroundings: &Surroundings) -> bool {
    variant.compilers.iter().all(|(language, command)| {
        let found = find(command, &variant.path, surroundings).ok();
        found.is_some() && found.as_ref() == captured.manifest.compilers().get(language)
    })
}

/// Everything besides the files themselves that capture depends on.
fn key(definition: &Definition, variant: &Variant, surroundings: &Surroundings) -> Digest {
    let mut hasher = Hasher::default();
    let mut add = |kind: &str, value: &[u8]| {
        hasher.update(format!("{kind} {}\0", value.len()).as_bytes());
        hasher.update(value);
    };
    add("host", variant.host.to_string().as_bytes());
    add("target", definition.target.as_bytes());
    add("variant target", variant.target.as_bytes());
    for option in &variant.defaults {
        add("default", option.as_bytes());
    }
    for flag in &definition.flags {
        add("flag", flag.as_bytes());
    }
    for (language, command) in &variant.compilers {
        add(language.as_str(), command.to_string().as_bytes());
    }
    for path in &variant.include {
        add("include", path.as_os_str().as_bytes());
    }
    for path in variant.path.iter().chain(&surroundings.path) {
        add("path", path.as_os_str().as_bytes());
    }
    for (name, value) in &surroundings.environment {
        if definition
            .environment
            .iter()
            .any(|wanted| wanted.as_bytes() == name.as_bytes())
        {
            add("name", name.as_bytes());
            add("value", value.as_bytes());
        }
    }
    hasher.finish()
}

fn encode(captured: &Captured) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, path) in &captured.by_path {
        body.extend(b"by-path ");
        body.extend(escaped(OsStr::new(name)));
        body.push(b' ');
        body.extend(escaped(path.as_os_str()));
        body.push(b'\n');
    }
    for (path, stamp) in &captured.stamps {
        body.extend(format!("stamp {stamp} ").into_bytes());
        body.extend(escaped(path.as_os_str()));
        body.push(b'\n');
    }
    body.push(b'\n');
    body.extend(captured.manifest.encode());
    let mut record = format!("{HEADER}\n{}\n", Digest::of(&body)).into_bytes();
    record.extend(body);
    record
}

fn decode(record: &[u8]) -> Option<Captured> {
    let rest = record.strip_prefix(HEADER.as_bytes())?.strip_prefix(b"\n")?;
    let (digest, body) = rest.split_at_checked(64)?;
    let body = body.strip_prefix(b"\n")?;
    if Digest::of(body).to_string().as_bytes() != digest {
        return None;
    }
    let (mut stamps, mut by_path) = (Vec::new(), Vec::new());
    let mut rest = body;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        match words[..] {
            [b"by-path", name, path] => {
                by_path.push((unescaped(name).ok()?.into_string().ok()?, unescaped(path).ok()?.into()));
            }
            [b"stamp", stamp, path] => {
                let stamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
                stamps.push((unescaped(path).ok()?.into(), stamp));
            }
            [b""] => break,
            _ => return None,
        }
    }
    Some(Captured {
        manifest: Manifest::decode(rest).ok()?,
        stamps,
        by_path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchains::capture::tests::FakeSdk;

    struct Recorded {
        sdk: FakeSdk,
        records: tempfile::TempDir,
    }

    impl Recorded {
        fn new() -> Self {
            Self {
                sdk: FakeSdk::new(),
                records: tempfile::tempdir().unwrap(),
            }
        }

        /// Loads or captures; tells whether any file was read for it.
        fn load(&self) -> (Captured, bool) {
            let mut read = false;
            let captured = load_or_capture(
                self.records.path(),
                &self.sdk.definition("x-gcc", ""),
                Host::current(),
                &self.sdk.surroundings(),
                &mut |_, _| read = true,
            );
            (captured.unwrap(), read)
        }
    }

    #[test]
    fn nothing_is_read_again_while_nothing_has_changed() {
        let recorded = Recorded::new();
        let (first, read) = recorded.load();
        assert!(read);
        let (second, read) = recorded.load();
        assert!(!read);
        assert_eq!(first, second);
        assert!(second.key_stamps().still_same());
    }

    #[test]
    fn changed_program_is_noticed_by_both_checks() {
        let recorded = Recorded::new();
        let (first, _) = recorded.load();
        fs::write(recorded.sdk.path("lib/gcc/x/12/cc1"), "another").unwrap();
        assert!(!first.key_stamps().still_same());
        let (second, read) = recorded.load();
        assert!(read);
        assert_ne!(first.manifest.id(), second.manifest.id());
    }

    #[test]
    fn new_file_and_changed_link_are_noticed() {
        let recorded = Recorded::new();
        let (first, _) = recorded.load();
        fs::write(recorded.sdk.path("lib/gcc/x/12/include/new.h"), "").unwrap();
        assert!(!first.all_same());
        assert!(!first.key_stamps().still_same());
        let (second, _) = recorded.load();
        fs::remove_file(recorded.sdk.path("bin/x-gcc")).unwrap();
        fs::rename(recorded.sdk.path("bin/x-gcc-12"), recorded.sdk.path("bin/x-gcc")).unwrap();
        assert!(!second.key_stamps().still_same());
    }

    #[test]
    fn changed_header_is_noticed_on_the_next_load() {
        let recorded = Recorded::new();
        let (first, _) = recorded.load();
        fs::write(recorded.sdk.path("lib/gcc/x/12/include/stddef.h"), "changed").unwrap();
        assert_ne!(recorded.load().0.manifest.id(), first.manifest.id());
    }

    #[test]
    fn damaged_record_is_captured_anew() {
        let recorded = Recorded::new();
        let (first, _) = recorded.load();
        let path = fs::read_dir(recorded.records.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "{at}");
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        let (second, read) = recorded.load();
        assert!(read);
        assert_eq!(first, second);
    }

    #[test]
    fn programs_left_to_the_path_are_compared() {
        let sdk = FakeSdk::new();
        fs::rename(sdk.path("lib/gcc/x/12/as"), sdk.path("bin/as")).unwrap();
        let captured = sdk.capture("x-gcc", "").unwrap();
        assert!(captured.by_path.contains(&("as".to_owned(), sdk.path("bin/as"))));
        let directories = sdk.surroundings().path;
        let usual: Vec<&OsStr> = directories.iter().map(|directory| directory.as_os_str()).collect();
        let usual = usual.join(OsStr::new(":"));
        assert!(captured.same_programs_by(&usual));
        sdk.executable("lib/as", "");
        let mut other = sdk.path("lib").into_os_string();
        other.push(":");
        other.push(&usual);
        assert!(!captured.same_programs_by(&other));
        assert!(!captured.same_programs_by(OsStr::new("")));
    }
}
