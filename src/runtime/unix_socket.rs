//! Unix sockets at paths of any length.
//!
//! The kernel takes 107 bytes of path; a state directory deep in a build tree is longer. Such a socket is reached through
//! its directory's descriptor, which is a short path under `/proc`. Blocking calls, no runtime: the wrapper uses them.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// Longest path that fits `sockaddr_un`, bytes: 108 with the NUL.
const PATH_BYTES_MAX: usize = 107;

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    with_short_path(path, |short| UnixStream::connect(short))
}

/// Listens at `path`, where nothing stands yet.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    with_short_path(path, |short| UnixListener::bind(short))
}

fn with_short_path<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= PATH_BYTES_MAX {
        return act(path);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    // Not O_PATH: the descriptor is only passed through, and directories of ours are readable.
    let dir = rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    short.push(name);
    act(&short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn socket_in_a_deep_directory_is_reached() {
        let top = tempfile::tempdir().expect("a directory");
        let deep = top.path().join("x".repeat(200));
        std::fs::create_dir(&deep).expect("created");
        for path in [top.path().join("s"), deep.join("s")] {
            let listener = listen(&path).expect("listens");
            let mut client = connect(&path).expect("connects");
            let (mut server, _) = listener.accept().expect("accepts");
            client.write_all(b"x").expect("written");
            drop(client);
            let mut got = String::new();
            server.read_to_string(&mut got).expect("read");
            assert_eq!(got, "x");
        }
    }

    #[test]
    fn absent_socket_is_not_found() {
        let top = tempfile::tempdir().expect("a directory");
        let error = connect(&top.path().join("y".repeat(150)).join("s")).expect_err("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
