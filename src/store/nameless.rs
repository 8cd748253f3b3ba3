//! Files without a name, and names for open files.
//!
//! A file that never had a name is gone with whoever has it open, however that ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::AtFlags;

/// Where open files have paths, by which they can be linked (open(2), `O_TMPFILE`).
const DESCRIPTORS: &str = "/proc/self/fd";

/// Makes a file without a name, mode 0600, on the file system of `directory`; `None` where that makes no such files, or where
/// they could not be named later: in a chroot without `/proc`.
pub fn create_in(directory: &Path) -> io::Result<Option<File>> {
    static CAN_BE_NAMED: OnceLock<bool> = OnceLock::new();
    if !CAN_BE_NAMED.get_or_init(|| Path::new(DESCRIPTORS).is_dir()) {
        return Ok(None);
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
    match options.open(directory) {
        Ok(file) => Ok(Some(file)),
        // What open(2) says of file systems, and of kernels, that cannot.
        Err(error) => match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Makes a hard link to an open file, the very file whatever its name leads to by now. It replaces nothing.
pub fn link(file: &File, directory: impl AsFd, name: &Path) -> io::Result<()> {
    let opened = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(
        rustix::fs::CWD,
        opened,
        directory,
        name,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}
