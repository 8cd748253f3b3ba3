//! Lists of dependencies, which the compiler writes on a worker and the agent believes.
//!
//! Holds: what is accepted is written back byte for byte, and is accepted again without its headers.

use rdcc::compile::DependencyFile;

/// Reads and rewrites a list.
pub fn check(bytes: &[u8]) {
    let Ok(mut file) = DependencyFile::parse(bytes) else {
        return;
    };
    assert_eq!(file.to_bytes(), bytes);
    assert!(file.files().iter().all(|name| !name.as_os_str().is_empty()));
    let source = file.files().first().cloned();
    file.retain_headers(|_| false);
    assert_eq!(file.files().first(), source.as_ref());
    assert!(file.files().len() <= 1);
}
