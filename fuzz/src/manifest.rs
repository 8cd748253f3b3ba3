//! Manifests of toolchains, which go from a client over the coordinator to every worker.
//!
//! Holds: a text that is taken is the only text of its manifest; every path in it resolves, or does not, in finite time, and
//! never to a link; entries are found under their own names only.

use rdcc::toolchains::manifest::{CONTENT_BYTES_MAX, Entry, Manifest};

/// Reads and writes a manifest, and looks for all that is in it.
pub fn check(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(bytes) else {
        return;
    };
    assert_eq!(manifest.encode(), bytes);
    assert!(manifest.content_bytes() <= CONTENT_BYTES_MAX);
    assert!(!manifest.compilers().is_empty());
    for path in manifest.compilers().values() {
        let found = manifest.resolve(path);
        assert!(matches!(found, Some((_, Entry::File { mode: 0o755, .. }))), "{path:?}");
    }
    for (path, entry) in manifest.entries() {
        assert!(path.is_absolute());
        assert_eq!(manifest.entry(path), Some(entry));
        if let Some((at, found)) = manifest.resolve(path) {
            assert!(!matches!(found, Entry::Symlink { .. }), "{path:?} ends at a link");
            // The end of the way is free of links, so it leads to itself.
            assert_eq!(manifest.resolve(&at), Some((at.clone(), found)), "{path:?} by {at:?}");
        }
        assert_eq!(manifest.covers(path), manifest.resolve(path).is_some());
    }
    for path in manifest.executables_key_files() {
        assert!(manifest.is_key_file(path));
    }
}
