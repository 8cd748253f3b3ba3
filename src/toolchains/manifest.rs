//! The exact list of files that makes a toolchain, and its identity.
//!
//! A manifest is a tree: every entry's parent is a directory entry of the same manifest, so no entry can be reached
//! through a symbolic link or stand outside the root. Equal files give equal manifests on any machine: owners and times
//! are left out and modes are reduced to "executable" or not. The name of the toolchain is not part of it.
//! Pure; capturing and checking files is done elsewhere. The text form is in [`text`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::digest::Digest;
use crate::ids::ToolchainId;
use crate::toolchains::definition::Language;
use crate::toolchains::host::Host;

pub mod text;

#[cfg(test)]
pub(crate) mod tests;

/// Ceiling on the entries of one manifest. Debian's cross gcc has 300, a whole Buildroot SDK with its sysroot 30,000.
pub const ENTRIES_MAX: usize = 200_000;
/// Ceiling on the content of one toolchain, bytes. Large SDKs come to 2 GB.
pub const CONTENT_BYTES_MAX: u64 = 16 << 30;
/// Ceiling on the length of a path, so that it still fits `PATH_MAX` (4096) below a store directory.
pub const PATH_BYTES_MAX: usize = 3000;
/// Ceiling on the length of a link's target: the kernel's own.
pub const LINK_BYTES_MAX: usize = 4095;
/// Ceiling on flags, on defaults, and on library directories.
pub const LIST_MAX: usize = 256;
/// How many links may be followed for one path: the kernel's own limit.
const LINKS_FOLLOWED_MAX: usize = 40;

/// Permission bits of an executable file or a directory in a manifest.
pub const MODE_EXECUTABLE: u32 = 0o755;
/// Permission bits of any other file in a manifest.
pub const MODE_PLAIN: u32 = 0o644;

/// What stands at one path of a toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// [`MODE_EXECUTABLE`] or [`MODE_PLAIN`].
        mode: u32,
        /// Length in bytes.
        size: u64,
        /// Digest of the content.
        digest: Digest,
    },
    /// A symbolic link with its target as written.
    Symlink {
        /// Relative, or absolute as on the machine it was captured on.
        target: OsString,
    },
    /// A directory.
    Directory {
        /// Always [`MODE_EXECUTABLE`]: what a directory's mode is differs from machine to machine and changes no object.
        mode: u32,
    },
}

/// A toolchain's files and how it is called, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    parts: Parts,
}

/// What a [`Manifest`] is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The kind of machine that its programs run on.
    pub host: Host,
    /// The machine its objects are for, as `-dumpmachine` prints it.
    pub target: String,
    /// The drivers: absolute paths within `entries`, perhaps of links.
    pub compilers: BTreeMap<Language, PathBuf>,
    /// Flags that belong to the identity, in order.
    pub flags: Vec<String>,
    /// Options that belong to the identity where a command does not settle the matter itself, in order.
    pub defaults: Vec<String>,
    /// Directories that the dynamic loader knows from `ld.so.cache` only. A root made from this manifest has no such
    /// cache, so whoever runs the programs has to name them in `LD_LIBRARY_PATH`. Usually empty.
    pub library_path: Vec<PathBuf>,
    /// Every file, link and directory. Sorted by the bytes of the path.
    pub entries: Vec<(PathBuf, Entry)>,
}

/// Why something is not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The text form is wrong.
    #[error("manifest, line {line}: {problem}")]
    Text {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The text would not be written like this: the same manifest must not have two identities.
    #[error("manifest: the text is not in canonical form")]
    NotCanonical,
    /// One of the ceilings of this module.
    #[error("manifest: more than {max} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The ceiling.
        max: u64,
    },
    /// A path that cannot stand in a manifest.
    #[error("manifest: `{}` {problem}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A field that cannot be.
    #[error("manifest: {0}")]
    Field(String),
}

impl Manifest {
    /// Checks `parts` and makes a manifest of them.
    pub fn new(parts: Parts) -> Result<Self, ManifestError> {
        let manifest = Self { parts };
        manifest.check_fields()?;
        manifest.check_entries()?;
        for (language, path) in &manifest.parts.compilers {
            if !matches!(
                manifest.resolve(path),
                Some((
                    _,
                    Entry::File {
                        mode: MODE_EXECUTABLE,
                        ..
                    }
                ))
            ) {
                return Err(ManifestError::Field(format!(
                    "the {language} compiler `{}` is not an executable file of this toolchain",
                    path.display()
                )));
            }
        }
        Ok(manifest)
    }

    /// Returns the identity: the digest of the canonical text.
    ///
    /// Costs one pass over the manifest; keep the result.
    pub fn id(&self) -> ToolchainId {
        ToolchainId(Digest::of(&self.encode()))
    }

    /// Returns the kind of machine that its programs run on.
    pub fn host(&self) -> Host {
        self.parts.host
    }

    /// Returns the machine its objects are for.
    pub fn target(&self) -> &str {
        &self.parts.target
    }

    /// Returns the drivers by language.
    pub fn compilers(&self) -> &BTreeMap<Language, PathBuf> {
        &self.parts.compilers
    }

    /// Returns the flags that belong to the identity.
    pub fn flags(&self) -> &[String] {
        &self.parts.flags
    }

    /// Returns the options that make the compiler this toolchain's where a command says nothing else, in order.
    pub fn defaults(&self) -> &[String] {
        &self.parts.defaults
    }

    /// Returns the directories that have to be named in `LD_LIBRARY_PATH` in a root made from this manifest.
    pub fn library_path(&self) -> &[PathBuf] {
        &self.parts.library_path
    }

    /// Returns every entry, sorted by the bytes of the path, parents before children.
    pub fn entries(&self) -> &[(PathBuf, Entry)] {
        &self.parts.entries
    }

    /// Returns the sum of the sizes of all files, bytes.
    pub fn content_bytes(&self) -> u64 {
        self.entries()
            .iter()
            .map(|(_, entry)| match entry {
                Entry::File { size, .. } => *size,
                _ => 0,
            })
            .sum()
    }

    /// Returns what stands at exactly `path`, links not followed.
    pub fn entry(&self, path: &Path) -> Option<&Entry> {
        let entries = self.entries();
        let key = path.as_os_str().as_bytes();
        entries
            .binary_search_by(|(other, _)| other.as_os_str().as_bytes().cmp(key))
            .ok()
            .map(|index| &entries[index].1)
    }

    /// Follows `path`, which may contain links and `..`, inside a root made from this manifest.
    ///
    /// Returns where it ends and what stands there: a file or a directory. `None` when the toolchain has nothing there.
    pub fn resolve(&self, path: &Path) -> Option<(PathBuf, &Entry)> {
        let mut todo: Vec<OsString> = components_reversed(path);
        let mut at = PathBuf::from("/");
        let mut found = &ROOT;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                at.pop();
                found = if at.parent().is_none() { &ROOT } else { self.entry(&at)? };
                continue;
            }
            if !matches!(found, Entry::Directory { .. }) {
                return None;
            }
            at.push(&name);
            match self.entry(&at)? {
                Entry::Symlink { target } => {
                    links += 1;
                    if links > LINKS_FOLLOWED_MAX {
                        return None;
                    }
                    let target = Path::new(target);
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    found = &ROOT;
                    todo.extend(components_reversed(target));
                }
                entry => found = entry,
            }
        }
        Some((at, found))
    }

    /// Tells whether the toolchain itself supplies what stands at `path`, links followed.
    pub fn covers(&self, path: &Path) -> bool {
        self.resolve(path).is_some()
    }

    /// Returns the files and links whose change would change what the compiler does: programs, libraries, specs.
    ///
    /// Some tens of paths, for a check by `stat` that is cheap enough to make before every job.
    pub fn executables_key_files(&self) -> impl Iterator<Item = &Path> {
        self.entries()
            .iter()
            .filter(|(path, entry)| is_key(path, entry))
            .map(|(path, _)| path.as_path())
    }

    /// Tells whether `path` is one of [`Manifest::executables_key_files`].
    pub fn is_key_file(&self, path: &Path) -> bool {
        self.entry(path).is_some_and(|entry| is_key(path, entry))
    }

    fn check_fields(&self) -> Result<(), ManifestError> {
        let parts = &self.parts;
        let target_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let target = &parts.target;
        if !(1..=128).contains(&target.len()) || !target.chars().all(target_char) {
            return Err(ManifestError::Field(format!("`{target}` is not a target")));
        }
        if parts.compilers.is_empty() {
            return Err(ManifestError::Field("no compiler".to_owned()));
        }
        let lengths = [parts.flags.len(), parts.defaults.len(), parts.library_path.len()];
        if lengths.iter().any(|length| *length > LIST_MAX) {
            return Err(too_much("flags, defaults or library directories", LIST_MAX));
        }
        let bad_flag = |flag: &&String| {
            !(2..=PATH_BYTES_MAX).contains(&flag.len()) || !flag.starts_with('-') || flag.contains(['\0', '\n'])
        };
        if let Some(flag) = parts.flags.iter().chain(&parts.defaults).find(bad_flag) {
            return Err(ManifestError::Field(format!("`{flag}` is not a flag")));
        }
        let paths = parts.compilers.values().chain(&parts.library_path);
        paths.into_iter().try_for_each(|path| check_path(path))
    }

    fn check_entries(&self) -> Result<(), ManifestError> {
        let entries = self.entries();
        if entries.len() > ENTRIES_MAX {
            return Err(too_much("entries", ENTRIES_MAX));
        }
        let mut total: u64 = 0;
        let mut before: &[u8] = b"";
        for (path, entry) in entries {
            check_path(path)?;
            let wrong = |problem| ManifestError::Path {
                path: path.clone(),
                problem,
            };
            let bytes = path.as_os_str().as_bytes();
            if bytes <= before {
                return Err(wrong("is out of order or there twice"));
            }
            before = bytes;
            let parent = path.parent().unwrap_or(Path::new("/"));
            let in_directory = parent.parent().is_none() || matches!(self.entry(parent), Some(Entry::Directory { .. }));
            if !in_directory {
                return Err(wrong("is not in a directory of this toolchain"));
            }
            match entry {
                Entry::File { mode, size, .. } => {
                    if !matches!(*mode, MODE_EXECUTABLE | MODE_PLAIN) {
                        return Err(wrong("has a mode other than 755 and 644"));
                    }
                    total = total.saturating_add(*size);
                }
                Entry::Directory { mode } if *mode != MODE_EXECUTABLE => {
                    return Err(wrong("has a mode other than 755"));
                }
                Entry::Symlink { target } if !is_link_target(target) => {
                    return Err(wrong("has an empty, too long or impossible link target"));
                }
                Entry::Directory { .. } | Entry::Symlink { .. } => {}
            }
        }
        if total > CONTENT_BYTES_MAX {
            return Err(ManifestError::TooMuch {
                what: "bytes",
                max: CONTENT_BYTES_MAX,
            });
        }
        Ok(())
    }
}

/// The root itself is a directory of every manifest, without an entry.
static ROOT: Entry = Entry::Directory { mode: MODE_EXECUTABLE };

fn too_much(what: &'static str, max: usize) -> ManifestError {
    ManifestError::TooMuch { what, max: max as u64 }
}

fn is_link_target(target: &OsStr) -> bool {
    (1..=LINK_BYTES_MAX).contains(&target.len()) && !target.as_bytes().contains(&0)
}

fn is_key(path: &Path, entry: &Entry) -> bool {
    match entry {
        Entry::File { mode, .. } => *mode == MODE_EXECUTABLE || is_library_or_specs(path),
        Entry::Symlink { .. } => true,
        Entry::Directory { .. } => false,
    }
}

fn is_library_or_specs(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    memchr::memmem::find(name, b".so").is_some() || name.ends_with(b"specs") || name.ends_with(b".spec")
}

/// Checks that `path` is absolute, in its shortest form and below the root.
fn check_path(path: &Path) -> Result<(), ManifestError> {
    let bytes = path.as_os_str().as_bytes();
    let wrong = |problem| {
        let shown: PathBuf = OsStr::from_bytes(&bytes[..bytes.len().min(200)]).into();
        Err(ManifestError::Path { path: shown, problem })
    };
    let Some(below) = bytes.strip_prefix(b"/") else {
        return wrong("is not absolute");
    };
    if bytes.len() > PATH_BYTES_MAX {
        return wrong("is too long");
    }
    for name in below.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." | b".." => return wrong("is not in its shortest form"),
            _ if name.len() > 255 => return wrong("has a name of over 255 bytes"),
            _ if name.contains(&0) => return wrong("contains a zero byte"),
            _ => {}
        }
    }
    Ok(())
}

fn components_reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}
