//! Bundles: equal ones from equal files, exact round trips, and every deviation from the manifest refused.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::store::archive::tests::packed;
use crate::toolchains::definition::Language;
use crate::toolchains::host::Host;
use crate::toolchains::manifest::tests::{directory, file, link};
use crate::toolchains::manifest::{MODE_EXECUTABLE, MODE_PLAIN, Parts};

/// A toolchain on disk, below a directory instead of `/`.
pub(crate) struct Sample {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) manifest: Manifest,
}

impl Sample {
    /// With `header` as the content of a file, so that samples can differ.
    pub(crate) fn new(header: &[u8]) -> Self {
        let long = format!("/usr/{}/{}", "d".repeat(180), "f".repeat(200));
        let long_parent = Path::new(&long).parent().unwrap().to_owned();
        let entries: Vec<(PathBuf, Entry, &[u8])> = vec![
            ("/lib".into(), link("usr/lib"), b""),
            ("/usr".into(), directory(), b""),
            ("/usr/bin".into(), directory(), b""),
            ("/usr/bin/gcc".into(), link("gcc-12"), b""),
            ("/usr/bin/gcc-12".into(), file(MODE_EXECUTABLE, b"driver"), b"driver"),
            (long_parent, directory(), b""),
            (long.into(), file(MODE_PLAIN, b"driv"), b"driv"),
            ("/usr/lib".into(), directory(), b""),
            ("/usr/lib/absolute".into(), link("/etc/passwd"), b""),
            ("/usr/lib/empty".into(), file(MODE_PLAIN, b""), b""),
            ("/usr/lib/x.h".into(), file(MODE_PLAIN, header), header),
        ];
        Self::of(entries)
    }

    fn of(entries: Vec<(PathBuf, Entry, &[u8])>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, entry, content) in &entries {
            let path = dir.path().join(relative(path));
            match entry {
                Entry::Directory { .. } => fs::create_dir(&path).unwrap(),
                Entry::Symlink { target } => symlink(target, &path).unwrap(),
                Entry::File { mode, .. } => {
                    fs::write(&path, content).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                }
            }
        }
        let parts = Parts {
            host: Host::current(),
            target: "t".to_owned(),
            compilers: BTreeMap::from([(Language::C, PathBuf::from("/usr/bin/gcc"))]),
            flags: Vec::new(),
            defaults: Vec::new(),
            library_path: Vec::new(),
            entries: entries.into_iter().map(|(path, entry, _)| (path, entry)).collect(),
        };
        Self {
            dir,
            manifest: Manifest::new(parts).unwrap(),
        }
    }

    pub(crate) fn pack(&self) -> (BundleRef, Vec<u8>) {
        pack(&self.manifest, self.dir.path(), Vec::new(), 2, &mut |_, _| {}).unwrap()
    }

    fn members(&self) -> Vec<Member> {
        let member = |(path, entry): &(PathBuf, Entry)| Member {
            path: relative(path).to_owned(),
            kind: match entry {
                Entry::Directory { mode } => MemberKind::Directory { mode: *mode },
                Entry::Symlink { target } => MemberKind::Symlink { target: target.clone() },
                Entry::File { mode, size, .. } => MemberKind::File {
                    mode: *mode,
                    size: *size,
                },
            },
        };
        self.manifest.entries().iter().map(member).collect()
    }
}

/// Asserts that `root` holds exactly what `manifest` lists, read-only.
pub(crate) fn assert_holds(root: &Path, manifest: &Manifest) {
    let mut seen = 0;
    for (path, entry) in manifest.entries() {
        let path = root.join(relative(path));
        let metadata = path.symlink_metadata().unwrap();
        seen += 1;
        match entry {
            Entry::Directory { .. } => assert!(metadata.is_dir()),
            Entry::Symlink { target } => assert_eq!(fs::read_link(&path).unwrap().as_os_str(), target),
            Entry::File { mode, digest, .. } => {
                assert_eq!(Digest::of(&fs::read(&path).unwrap()), *digest);
                assert_eq!(metadata.permissions().mode() & 0o111 != 0, *mode == MODE_EXECUTABLE);
            }
        }
    }
    assert_eq!(count(root), seen, "something more in {}", root.display());
}

fn count(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            1 + if entry.file_type().unwrap().is_dir() {
                count(&entry.path())
            } else {
                0
            }
        })
        .sum()
}

#[test]
fn equal_files_give_one_bundle_whatever_their_times_and_threads() {
    let (one, two) = (Sample::new(b"header"), Sample::new(b"header"));
    let (bundle, bytes) = one.pack();
    assert_eq!(bundle.digest, Digest::of(&bytes));
    assert_eq!(bundle.size, bytes.len() as u64);
    assert_eq!(two.pack().0, bundle);
    let eight = pack(&one.manifest, one.dir.path(), Vec::new(), 8, &mut |_, _| {}).unwrap();
    assert_eq!(eight.0, bundle);
    assert_ne!(Sample::new(b"other").pack().0, bundle);
}

#[test]
fn bundle_unpacks_to_what_the_manifest_lists() {
    let sample = Sample::new(b"header");
    let (_, bytes) = sample.pack();
    check(&bytes[..], &sample.manifest).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut last = (0, 0);
    unpack(&bytes[..], &sample.manifest, out.path(), &mut |done, total| {
        last = (done, total)
    })
    .unwrap();
    assert_holds(out.path(), &sample.manifest);
    assert_eq!(last, (16, 16));
    let mode = |name: &str| out.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("usr/bin/gcc-12"), mode("usr/lib/x.h")), (0o555, 0o444));
    // What was unpacked packs to the same bundle.
    let again = pack(&sample.manifest, out.path(), Vec::new(), 1, &mut |_, _| {}).unwrap();
    assert_eq!(again.1, bytes);
}

#[test]
fn file_that_changed_since_the_manifest_is_not_packed() {
    let pack_after = |change: fn(&Path)| {
        let sample = Sample::new(b"header");
        change(sample.dir.path());
        let packed = pack(&sample.manifest, sample.dir.path(), Vec::new(), 1, &mut |_, _| {});
        packed.err().unwrap().to_string()
    };
    for change in [
        (|root| fs::write(root.join("usr/lib/x.h"), "Header").unwrap()) as fn(&Path),
        |root| fs::write(root.join("usr/lib/x.h"), "short").unwrap(),
        |root| {
            fs::remove_file(root.join("usr/bin/gcc")).unwrap();
            symlink("gcc-13", root.join("usr/bin/gcc")).unwrap();
        },
    ] {
        let error = pack_after(change);
        assert!(error.contains("not what it was when the manifest was made"), "{error}");
    }
    let error = pack_after(|root| fs::remove_file(root.join("usr/lib/x.h")).unwrap());
    assert!(error.contains("cannot read"), "{error}");
}

#[test]
fn every_deviation_from_the_manifest_is_refused() {
    let sample = Sample::new(b"");
    let good = sample.members();
    let content = b"driver";
    let kind = |members: &mut Vec<Member>, at: usize, kind: MemberKind| members[at].kind = kind;
    type Change<'a> = Box<dyn Fn(&mut Vec<Member>) + 'a>;
    let file = |mode, size| MemberKind::File { mode, size };
    let target = || "elsewhere".into();
    let cases: Vec<(Change<'_>, &str)> = vec![
        (Box::new(|m| drop(m.pop())), "is missing"),
        (Box::new(|m| drop(m.remove(3))), "is not what the manifest has"),
        (Box::new(|m| m.swap(3, 4)), "is not what the manifest has"),
        (Box::new(|m| m.insert(3, m[3].clone())), "is not what the manifest has"),
        (
            Box::new(|m| m[3].path = "usr/bin/g++".into()),
            "is not what the manifest has",
        ),
        (Box::new(|m| m[3].path = "/usr/bin/gcc".into()), "is absolute"),
        (Box::new(|m| m[3].path = "usr/../x".into()), "climbs out"),
        (Box::new(|m| kind(m, 4, file(0o644, 6))), "differs from the manifest"),
        (Box::new(|m| kind(m, 4, file(0o4755, 6))), "setuid"),
        (Box::new(|m| kind(m, 4, file(0o755, 5))), "differs from the manifest"),
        (
            Box::new(|m| kind(m, 3, MemberKind::Symlink { target: target() })),
            "differs from the manifest",
        ),
        (
            Box::new(|m| kind(m, 1, MemberKind::Symlink { target: target() })),
            "differs from the manifest",
        ),
        (
            Box::new(|m| kind(m, 3, MemberKind::Directory { mode: 0o755 })),
            "differs from the manifest",
        ),
        (
            Box::new(|m| {
                m.push(Member {
                    path: "zz".into(),
                    kind: file(0o644, 0),
                })
            }),
            "more than 11 members",
        ),
    ];
    for (change, expected) in cases {
        let mut members = good.clone();
        change(&mut members);
        let bytes = packed(&members, content, 1);
        let out = tempfile::tempdir().unwrap();
        for result in [
            check(&bytes[..], &sample.manifest),
            unpack(&bytes[..], &sample.manifest, out.path(), &mut |_, _| {}),
        ] {
            let error = describe(&result.unwrap_err());
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
    // The same members, with other content.
    check(&packed(&good, content, 1)[..], &sample.manifest).unwrap();
    let error = check(&packed(&good, b"DRIVER", 1)[..], &sample.manifest).unwrap_err();
    assert!(describe(&error).contains("has other content"), "{error}");
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}

#[test]
fn links_already_in_the_way_are_not_followed() {
    let sample = Sample::new(b"header");
    let (_, bytes) = sample.pack();
    let (out, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(outside.path(), out.path().join("usr")).unwrap();
    assert!(unpack(&bytes[..], &sample.manifest, out.path(), &mut |_, _| {}).is_err());
    assert_eq!(count(outside.path()), 0);
}

#[test]
fn no_damage_to_a_bundle_goes_unnoticed() {
    let sample = Sample::new(b"header");
    let (_, bytes) = sample.pack();
    for length in 0..bytes.len() {
        assert!(check(&bytes[..length], &sample.manifest).is_err(), "{length}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x04;
        // Some bits mean nothing (the unused ones of a frame header); then what comes out is still the manifest's.
        let _ = check(&damaged[..], &sample.manifest);
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(check(&longer[..], &sample.manifest).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_toolchain_survives_packing(
        names in prop::collection::btree_map("[a-z]{1,12}|[a-z]{150,250}", prop::collection::vec(any::<u8>(), 0..4000), 0..12)
    ) {
        let mut entries: Vec<(PathBuf, Entry, &[u8])> = vec![
            ("/usr".into(), directory(), b""),
            ("/usr/bin".into(), directory(), b""),
            ("/usr/bin/gcc".into(), file(MODE_EXECUTABLE, b"driver"), b"driver"),
        ];
        for (name, content) in &names {
            entries.push((format!("/z{name}").into(), file(MODE_PLAIN, content), content));
        }
        let sample = Sample::of(entries);
        let (bundle, bytes) = sample.pack();
        prop_assert_eq!(bundle.digest, Digest::of(&bytes));
        let out = tempfile::tempdir().unwrap();
        unpack(&bytes[..], &sample.manifest, out.path(), &mut |_, _| {}).unwrap();
        assert_holds(out.path(), &sample.manifest);
    }
}
