//! What a job wrote and removed: the writable layer of its root, read after the job has ended.
//!
//! Nothing changes there any more, since no process of the job is left and the mount is detached: what was seen to be a
//! directory still is one. Invariant: no more than the job's limit is ever offered, and no link is followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode as Bits, OFlags, Stat};
use rustix::io::Errno;

use super::SandboxError;

/// Where bind mounts are grafted, on the job's tmpfs.
pub(super) const TREE: &str = "tree";

/// The file, beside [`TREE`], that stands below every file mounted there.
pub(super) const MARKER: &str = "marker";

/// Returns the name, beside [`TREE`], of a second link to the copy of the job's output of this number, if it stood there
/// at first.
pub(super) fn stood(output: usize) -> String {
    format!("stood-{output}")
}

/// Directories within directories. Each is an open descriptor while it is read; a source tree has a dozen.
const DEPTH_MAX: usize = 100;

/// The writable layer of a job that has ended. Holds its memory until dropped.
#[derive(Debug)]
pub struct UpperDir {
    root: Option<OwnedFd>,
    changes: Vec<Change>,
}

/// One thing that a job did to its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path in the job's root.
    pub path: PathBuf,
    /// What stands there now.
    pub kind: ChangeKind,
}

/// What a job did at a path. Directories are not reported: what they hold is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It left a regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Length in bytes.
        size: u64,
    },
    /// It removed what the lower directories hold there. Where there is no overlayfs it can remove its outputs only.
    Removed,
    /// It left a symbolic link with this target.
    Symlink(OsString),
    /// It left something else: a socket, a pipe.
    Other,
}

/// How the writable layer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// An overlay's upper directory: holds what the job did and nothing else.
    Overlay,
    /// The tmpfs below bind mounts: holds what was mounted upon, too.
    Tree,
}

impl UpperDir {
    /// Reads what a job left. Returns nothing when its files are more than `output_bytes` long together, holes included.
    /// `outputs` are the command's.
    pub(super) fn read(
        root: OwnedFd,
        layer: Layer,
        outputs: &[PathBuf],
        output_bytes: u64,
    ) -> Result<Option<Self>, SandboxError> {
        let mut reading = Reading {
            outputs,
            stood: Vec::new(),
            changes: Vec::new(),
            marker: None,
            total_bytes: 0,
        };
        let read = reading.start(&root, layer).map_err(|source| SandboxError::Io {
            what: "reading a job's files",
            source: source.into(),
        });
        read?;
        if reading.total_bytes > output_bytes {
            return Ok(None);
        }
        reading.changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Some(Self {
            root: Some(root),
            changes: reading.changes,
        }))
    }

    /// A job that was killed left nothing worth keeping.
    pub(super) fn empty() -> Self {
        Self {
            root: None,
            changes: Vec::new(),
        }
    }

    /// Returns what the job changed, sorted by path, but for gcc's temporary files right in `/tmp`.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Opens a file that [`UpperDir::changes`] named.
    pub fn open(&self, path: &Path) -> Result<File, SandboxError> {
        let opened = match (&self.root, path.strip_prefix("/")) {
            (Some(root), Ok(path)) => {
                // Should the path name a pipe after all, opening does not wait for its other end.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::openat(root, path, flags, Bits::empty())
            }
            _ => Err(Errno::NOENT),
        };
        opened.map(File::from).map_err(|source| SandboxError::Io {
            what: "opening an output",
            source: source.into(),
        })
    }
}

struct Reading<'a> {
    outputs: &'a [PathBuf],
    /// The outputs that stood there at first, in a tree: path, and device and inode of what stood there.
    stood: Vec<(&'a Path, (u64, u64))>,
    changes: Vec<Change>,
    /// Device and inode of the file that stands below mounted ones, in a tree.
    marker: Option<(u64, u64)>,
    total_bytes: u64,
}

impl Reading<'_> {
    fn start(&mut self, root: &OwnedFd, layer: Layer) -> Result<(), Errno> {
        if layer == Layer::Tree {
            let marker = rustix::fs::statat(root, Path::new("..").join(MARKER), AtFlags::SYMLINK_NOFOLLOW)?;
            self.marker = Some(identity(&marker));
            self.stood(root)?;
        }
        self.directory(root, Path::new("/"), DEPTH_MAX)
    }

    /// Finds the outputs that stood in a tree at first, and those among them that no longer do.
    fn stood(&mut self, root: &OwnedFd) -> Result<(), Errno> {
        let find = |path: &Path| match rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(identity(&found))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        };
        for (number, path) in self.outputs.iter().enumerate() {
            let Some(copy) = find(&Path::new("..").join(stood(number)))? else {
                continue;
            };
            self.stood.push((path, copy));
            if find(path.strip_prefix("/").unwrap_or(path))?.is_none() {
                self.changes.push(Change {
                    path: path.clone(),
                    kind: ChangeKind::Removed,
                });
            }
        }
        Ok(())
    }

    fn directory(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> Result<(), Errno> {
        if depth == 0 {
            return Err(Errno::NAMETOOLONG);
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                self.entry(directory, path.join(OsStr::from_bytes(name.to_bytes())), &found, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, path: PathBuf, found: &Stat, depth: usize) -> Result<(), Errno> {
        let name = path.file_name().unwrap_or_default();
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(parent, name, flags, Bits::empty())?;
                return self.directory(&directory, &path, depth - 1);
            }
            FileType::RegularFile if self.marker == Some(identity(found)) => return Ok(()),
            FileType::RegularFile if self.is_untouched_output(&path, found) => return Ok(()),
            FileType::RegularFile if is_compiler_temporary(&path) => return Ok(()),
            FileType::RegularFile => {
                let size = u64::try_from(found.st_size).unwrap_or(u64::MAX);
                self.total_bytes = self.total_bytes.saturating_add(size);
                ChangeKind::File {
                    mode: Bits::from_raw_mode(found.st_mode).as_raw_mode() & 0o7777,
                    size,
                }
            }
            FileType::Symlink if self.marker.is_some() && found.st_mtime == 0 => return Ok(()),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent.as_fd(), name, Vec::new())?;
                ChangeKind::Symlink(OsString::from_vec(target.into_bytes()))
            }
            // Overlayfs writes a removal down as device 0:0, which no job can make itself.
            FileType::CharacterDevice if found.st_rdev == 0 => ChangeKind::Removed,
            _ => ChangeKind::Other,
        };
        self.changes.push(Change { path, kind });
        Ok(())
    }

    /// True for a copy of an output that the job left as it was.
    fn is_untouched_output(&self, path: &Path, found: &Stat) -> bool {
        found.st_mtime == 0 && self.stood.contains(&(path, identity(found)))
    }
}

fn identity(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

/// True for names that libiberty makes up for a driver's intermediate files: `cc`, six letters or digits, a suffix.
/// They stay behind only when the driver is killed.
fn is_compiler_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let unique = name.strip_prefix(b"cc").and_then(|rest| rest.split_at_checked(6));
    path.parent() == Some(Path::new("/tmp"))
        && unique.is_some_and(|(unique, suffix)| {
            unique.iter().all(u8::is_ascii_alphanumeric) && (suffix.is_empty() || suffix[0] == b'.')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn read(directory: &Path, output_bytes: u64) -> Result<Option<UpperDir>, SandboxError> {
        let root = OwnedFd::from(File::open(directory).unwrap());
        UpperDir::read(root, Layer::Overlay, &[], output_bytes)
    }

    #[test]
    fn files_links_and_other_things_are_told_apart_and_opened_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("home/u")).unwrap();
        fs::write(at("home/u/a.o"), b"object").unwrap();
        fs::set_permissions(at("home/u/a.o"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", at("home/l")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(at("s")).unwrap();

        let upper = read(directory.path(), 6).unwrap().unwrap();
        drop(socket);
        let expected = [
            ("/home/l", ChangeKind::Symlink("/etc/passwd".into())),
            ("/home/u/a.o", ChangeKind::File { mode: 0o640, size: 6 }),
            ("/s", ChangeKind::Other),
        ];
        let expected = expected.map(|(path, kind)| Change {
            path: path.into(),
            kind,
        });
        assert_eq!(upper.changes(), expected);
        let content = std::io::read_to_string(upper.open(Path::new("/home/u/a.o")).unwrap()).unwrap();
        assert_eq!(content, "object");
        assert!(upper.open(Path::new("/home/l")).is_err(), "a link is not followed");
    }

    #[test]
    fn lengths_beyond_the_limit_are_refused_even_when_they_are_holes() {
        let directory = tempfile::tempdir().unwrap();
        File::create(directory.path().join("sparse"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        assert!(read(directory.path(), 1 << 30).unwrap().is_none());
    }

    #[test]
    fn a_bottomless_tree_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", DEPTH_MAX + 1).collect();
        fs::create_dir_all(directory.path().join(deep)).unwrap();
        assert!(matches!(read(directory.path(), 1), Err(SandboxError::Io { .. })));
    }

    #[test]
    fn only_the_drivers_own_temporary_files_are_left_out() {
        for (path, expected) in [
            ("/tmp/ccAb09Zz.s", true),
            ("/tmp/ccAb09Zz", true),
            ("/tmp/ccAb09Zz.ltrans0.o", true),
            ("/tmp/ccAb09Zzz.s", false),
            ("/tmp/cc.s", false),
            ("/tmp/a.o", false),
            ("/tmp/build/ccAb09Zz.s", false),
            ("/ccAb09Zz.s", false),
        ] {
            assert_eq!(is_compiler_temporary(Path::new(path)), expected, "{path}");
        }
    }
}
