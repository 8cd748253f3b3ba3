//! Small files that a daemon keeps for its own next life: whole and undamaged, or not there.
//!
//! A sealed file has a first line that names its kind and layout, a body, and the digest of both. It appears by rename. What
//! is truncated, damaged, of another layout, or longer than its kind may be reads as nothing, and costs the reader its
//! memory only. Nothing is flushed to the disk: after a power cut the digest tells.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::digest::{Digest, Hasher};

/// Writes `body` to `path`, mode 0600, in place of what was there.
pub fn write(path: &Path, kind: &str, body: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let create = |path: &Path| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).open(path)
    };
    let mut file = tempfile::Builder::new().prefix(".sealed-").make_in(directory, create)?;
    let digest = digest(kind, body);
    for part in [kind.as_bytes(), b"\n", body, digest.as_bytes()] {
        file.write_all(part)?;
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Returns the body of `path`, of at most `bytes_max`, if it is whole and of this kind.
pub fn read(path: &Path, kind: &str, bytes_max: usize) -> Option<Vec<u8>> {
    let around = kind.len() + 1 + size_of::<Digest>();
    let mut text = Vec::new();
    let file = File::open(path).ok()?;
    file.take((bytes_max + around) as u64 + 1).read_to_end(&mut text).ok()?;
    let end = text.len().checked_sub(size_of::<Digest>())?;
    let seal = text.split_off(end);
    let rest = text.strip_prefix(kind.as_bytes())?.strip_prefix(b"\n")?;
    let whole = rest.len() <= bytes_max && digest(kind, rest).as_bytes().as_slice() == seal;
    whole.then(|| text.split_off(kind.len() + 1))
}

fn digest(kind: &str, body: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(kind.as_bytes());
    hasher.update(b"\n");
    hasher.update(body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_and_of_its_kind_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert_eq!(read(&path, "kind 1", 10), None);
        for body in [b"".as_slice(), b"body", b"0123456789"] {
            write(&path, "kind 1", body).unwrap();
            assert_eq!(read(&path, "kind 1", 10).as_deref(), Some(body));
        }
        assert_eq!(read(&path, "kind 1", 9), None);
        assert_eq!(read(&path, "kind 2", 10), None);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(read(&path, "kind 1", 10), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(&path, "kind 1", 10), None, "{at} bytes");
        }
    }
}
