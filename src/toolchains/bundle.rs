//! A toolchain as one file: a deterministic archive of exactly what its manifest lists.
//!
//! Packing checks every file against the manifest as it goes by, and so does unpacking, member by member and in order:
//! an archive that holds more, less or something else than the manifest is refused. Unpacking writes
//! below an open directory without following a link, and what it has written is the caller's to make visible.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, Hasher};
use crate::ids::ToolchainId;
use crate::store::archive::{
    ArchiveError, ArchiveReader, ArchiveWriter, Compression, Limits, Member, MemberKind, as_archive_error,
};
use crate::store::content::CHUNK_BYTES;
use crate::toolchains::manifest::{Entry, Manifest};

mod root;
#[cfg(test)]
pub(crate) mod tests;

pub(super) use root::Root;

/// zstd level of bundles. Measured on Debian's cross gcc, 95 MB on an EPYC core: level 3 takes 0.8 CPU-s for 38.5 MB, 9 takes
/// 3.4 CPU-s for 35.0 MB, 15 takes 33 CPU-s for 34.5 MB. A bundle is packed once and fetched by every node.
pub const LEVEL: i32 = 9;

/// Which bundle, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BundleRef {
    /// Digest of the compressed file.
    pub digest: Digest,
    /// Length of the compressed file, bytes.
    pub size: u64,
}

/// Why a bundle cannot be made, or is not the manifest's.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The archive itself is wrong or hostile.
    #[error("bundle of toolchain {toolchain}: {source}")]
    Archive {
        /// The toolchain it should hold.
        toolchain: ToolchainId,
        /// What is wrong.
        source: ArchiveError,
    },
    /// A member that the manifest does not have at this place.
    #[error("bundle of toolchain {toolchain}: `{}` {problem}", .path.display())]
    Mismatch {
        /// The toolchain it should hold.
        toolchain: ToolchainId,
        /// The path, absolute as in the manifest.
        path: PathBuf,
        /// What differs.
        problem: &'static str,
    },
    /// The file system has no space left.
    #[error("disk full while unpacking toolchain {toolchain} below `{}`", .directory.display())]
    DiskFull {
        /// The toolchain.
        toolchain: ToolchainId,
        /// The directory.
        directory: PathBuf,
    },
    /// Another failure of the disk.
    #[error("cannot {doing} `{}`", .path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BundleError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Packs the files of `manifest`, which stand below `root` (`/` when they are installed), into `out`.
///
/// The bytes depend on the manifest alone, not on `threads`. Blocks. `progress` is told bytes done and in all.
pub fn pack<W: Write>(
    manifest: &Manifest,
    root: &Path,
    out: W,
    threads: u32,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(BundleRef, W), BundleError> {
    let toolchain = manifest.id();
    let in_archive = |source| BundleError::Archive { toolchain, source };
    let differs = |path: &Path| BundleError::Mismatch {
        toolchain,
        path: path.to_owned(),
        problem: "is not what it was when the manifest was made",
    };
    let compression = Compression { level: LEVEL, threads };
    let mut archive = ArchiveWriter::new(
        HashedOut {
            inner: out,
            hasher: Hasher::default(),
        },
        compression,
    )
    .map_err(in_archive)?;
    let total = manifest.content_bytes();
    let mut done = 0;
    for (path, entry) in manifest.entries() {
        let name = relative(path);
        let source = root.join(name);
        match entry {
            Entry::Directory { mode } => archive.directory(name, *mode).map_err(in_archive)?,
            Entry::Symlink { target } => {
                let found = fs::read_link(&source).map_err(|error| BundleError::io("read", &source, error))?;
                if found.as_os_str() != target {
                    return Err(differs(path));
                }
                archive.symlink(name, target).map_err(in_archive)?;
            }
            Entry::File { mode, size, digest } => {
                let file = OpenOptions::new()
                    .read(true)
                    .custom_flags(libc::O_NOFOLLOW)
                    .open(&source)
                    .map_err(|error| BundleError::io("read", &source, error))?;
                let mut content = Hashed {
                    inner: file,
                    hasher: Hasher::default(),
                };
                let added = archive.file(name, *mode, *size, &mut content);
                // A file that became shorter fails to be added, one that changed shows in the digest.
                match added {
                    Err(ArchiveError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(differs(path));
                    }
                    other => other.map_err(in_archive)?,
                }
                if content.hasher.finish() != *digest {
                    return Err(differs(path));
                }
                done += size;
                progress(done, total);
            }
        }
    }
    let counted = archive.finish().map_err(in_archive)?;
    let bundle = BundleRef {
        size: counted.hasher.length(),
        digest: counted.hasher.finish(),
    };
    Ok((bundle, counted.inner))
}

/// Reads a whole bundle and checks that it holds what `manifest` lists, without writing anything.
pub fn check(source: impl Read, manifest: &Manifest) -> Result<(), BundleError> {
    expand(source, manifest, None, &mut |_, _| {})
}

/// Unpacks a bundle into `directory`, which has to be empty and to belong to the caller alone.
///
/// Files become 0444 or 0555. When this fails, `directory` holds anything or nothing and should be removed. Blocks.
/// `progress` is told bytes done and in all.
pub fn unpack(
    source: impl Read,
    manifest: &Manifest,
    directory: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), BundleError> {
    let root = Root::open(directory).map_err(|error| BundleError::io("open", directory, error))?;
    expand(source, manifest, Some(root), progress)
}

fn expand(
    source: impl Read,
    manifest: &Manifest,
    mut root: Option<Root>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), BundleError> {
    let toolchain = manifest.id();
    let in_archive = |source| BundleError::Archive { toolchain, source };
    let mismatch = |path: &Path, problem| BundleError::Mismatch {
        toolchain,
        path: path.to_owned(),
        problem,
    };
    let total = manifest.content_bytes();
    let limits = Limits {
        members_max: manifest.entries().len() as u64,
        content_bytes_max: total,
    };
    let mut archive = ArchiveReader::new(source, limits).map_err(in_archive)?;
    let mut done = 0;
    for (path, entry) in manifest.entries() {
        let Some(member) = archive.next_member().map_err(in_archive)? else {
            return Err(mismatch(path, "is missing"));
        };
        if let Some(problem) = difference(&member, path, entry) {
            return Err(mismatch(&Path::new("/").join(&member.path), problem));
        }
        let mut file = match &mut root {
            None => None,
            Some(root) => root
                .make(path, entry)
                .map_err(|error| root.failed(toolchain, path, error))?,
        };
        let Entry::File { digest, .. } = entry else {
            continue;
        };
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = archive
                .read(&mut buffer)
                .map_err(|error| in_archive(as_archive_error(error)))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            if let Some((file, root)) = file.as_mut().zip(root.as_ref()) {
                let written = file.write_all(&buffer[..count]);
                written.map_err(|error| root.failed(toolchain, path, error))?;
            }
            done += count as u64;
            progress(done, total);
        }
        if hasher.finish() != *digest {
            return Err(mismatch(path, "has other content"));
        }
    }
    match archive.next_member().map_err(in_archive)? {
        None => Ok(()),
        Some(member) => Err(mismatch(&Path::new("/").join(member.path), "is not in the manifest")),
    }
}

/// Says how an archive's member differs from the entry that the manifest has next, if it does.
fn difference(member: &Member, path: &Path, entry: &Entry) -> Option<&'static str> {
    if member.path != relative(path) {
        return Some("is not what the manifest has at this place");
    }
    let same = match (&member.kind, entry) {
        (MemberKind::File { mode, size }, Entry::File { mode: m, size: s, .. }) => (mode, size) == (m, s),
        (MemberKind::Symlink { target }, Entry::Symlink { target: t }) => target == t,
        (MemberKind::Directory { mode }, Entry::Directory { mode: m }) => mode == m,
        _ => false,
    };
    (!same).then_some("differs from the manifest in kind, mode, size or target")
}

/// Returns the path below a root.
pub(super) fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Hashes what is read.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Hashes what is written.
struct HashedOut<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Write for HashedOut<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
