//! In what two captures of a toolchain differ.
//!
//! Pure. Entries are compared in the order of their paths, so the first difference is the same on every machine.

use std::path::PathBuf;

use crate::toolchains::manifest::{Entry, Manifest};

/// One thing that is not the same here and in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where.
    pub(super) path: PathBuf,
    /// What, as a phrase behind the path.
    pub(super) what: &'static str,
}

/// Returns every difference of files.
pub(super) fn of_files(here: &Manifest, cluster: &Manifest) -> Vec<Difference> {
    let (mut here, mut cluster) = (here.entries().iter().peekable(), cluster.entries().iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (here.peek(), cluster.peek()) {
            (None, None) => return found,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            // As manifests are sorted: by bytes, not by components.
            (Some((one, _)), Some((other, _))) => one.as_os_str().cmp(other.as_os_str()),
        };
        let (path, what) = match order {
            std::cmp::Ordering::Less => (here.next(), Some("is only here")),
            std::cmp::Ordering::Greater => (cluster.next(), Some("is only in the cluster")),
            std::cmp::Ordering::Equal => {
                let (one, other) = (here.next(), cluster.next());
                let what = one.zip(other).and_then(|((_, one), (_, other))| between(one, other));
                (one, what)
            }
        };
        if let (Some((path, _)), Some(what)) = (path, what) {
            found.push(Difference {
                path: path.clone(),
                what,
            });
        }
    }
}

fn between(here: &Entry, cluster: &Entry) -> Option<&'static str> {
    match (here, cluster) {
        _ if here == cluster => None,
        (Entry::File { digest: one, .. }, Entry::File { digest: other, .. }) if one == other => {
            Some("has another mode")
        }
        (Entry::File { .. }, Entry::File { .. }) => Some("has other content"),
        (Entry::Symlink { .. }, Entry::Symlink { .. }) => Some("is a link to something else"),
        _ => Some("is of another kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::toolchains::definition::Language;
    use crate::toolchains::host::Host;
    use crate::toolchains::manifest::{MODE_EXECUTABLE, MODE_PLAIN, Parts};
    use std::collections::BTreeMap;

    fn manifest(more: &[(&str, Entry)]) -> Manifest {
        let mut entries = vec![
            (PathBuf::from("/b"), Entry::Directory { mode: MODE_EXECUTABLE }),
            (PathBuf::from("/b/gcc"), file("gcc", MODE_EXECUTABLE)),
        ];
        entries.extend(more.iter().map(|(path, entry)| (PathBuf::from(path), entry.clone())));
        entries.sort_by(|(one, _), (other, _)| one.as_os_str().cmp(other.as_os_str()));
        Manifest::new(Parts {
            host: Host::current(),
            target: "arm-linux-gnueabi".into(),
            compilers: BTreeMap::from([(Language::C, PathBuf::from("/b/gcc"))]),
            flags: Vec::new(),
            defaults: Vec::new(),
            library_path: Vec::new(),
            entries,
        })
        .expect("a manifest")
    }

    fn file(content: &str, mode: u32) -> Entry {
        Entry::File {
            mode,
            size: content.len() as u64,
            digest: Digest::of(content.as_bytes()),
        }
    }

    #[test]
    fn every_difference_is_named_and_nothing_else() {
        let link = |target: &str| Entry::Symlink { target: target.into() };
        let here = manifest(&[
            ("/b/as", file("1", MODE_PLAIN)),
            ("/b/cc1", file("1", MODE_PLAIN)),
            ("/b/l", link("x")),
            ("/b/same", file("1", MODE_PLAIN)),
            ("/b/z", file("1", MODE_PLAIN)),
        ]);
        let cluster = manifest(&[
            ("/b/cc1", file("2", MODE_PLAIN)),
            ("/b/l", link("y")),
            ("/b/only", file("1", MODE_PLAIN)),
            ("/b/same", file("1", MODE_PLAIN)),
            ("/b/z", file("1", MODE_EXECUTABLE)),
        ]);
        let found: Vec<String> = of_files(&here, &cluster)
            .iter()
            .map(|difference| format!("{} {}", difference.path.display(), difference.what))
            .collect();
        assert_eq!(
            found,
            [
                "/b/as is only here",
                "/b/cc1 has other content",
                "/b/l is a link to something else",
                "/b/only is only in the cluster",
                "/b/z has another mode",
            ]
        );
        assert_eq!(of_files(&here, &here), []);
    }
}
