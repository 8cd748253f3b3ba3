//! The registry on a real disk, with bundles of tiny made-up toolchains.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::digest::Digest;
use crate::toolchains::definition::{Certify, Language};
use crate::toolchains::host::Host;
use crate::toolchains::manifest::{Entry, Parts};

/// A toolchain of one file with this content; its manifest and bundle.
fn toolchain(content: &str) -> (Manifest, BundleRef, Vec<u8>) {
    toolchain_for(Host::current(), content)
}

fn toolchain_for(host: Host, content: &str) -> (Manifest, BundleRef, Vec<u8>) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("bin")).unwrap();
    let driver = root.path().join("bin/gcc");
    fs::write(&driver, content).unwrap();
    fs::set_permissions(&driver, fs::Permissions::from_mode(0o755)).unwrap();
    let file = Entry::File {
        mode: 0o755,
        size: content.len() as u64,
        digest: Digest::of(content.as_bytes()),
    };
    let manifest = Manifest::new(Parts {
        host,
        target: "arm-linux-gnueabi".into(),
        compilers: BTreeMap::from([(Language::C, PathBuf::from("/bin/gcc"))]),
        flags: Vec::new(),
        defaults: Vec::new(),
        library_path: Vec::new(),
        entries: vec![
            ("/bin".into(), Entry::Directory { mode: 0o755 }),
            ("/bin/gcc".into(), file),
        ],
    })
    .unwrap();
    let (bundle, bytes) = bundle::pack(&manifest, root.path(), Vec::new(), 1, &mut |_, _| {}).unwrap();
    (manifest, bundle, bytes)
}

fn head(name: &str, manifest: &Manifest, bundle: BundleRef, replace: Replace) -> PushHead {
    PushHead {
        name: Name::new(name).unwrap(),
        definition: format!("name = \"{name}\"\ntarget = \"arm-linux-gnueabi\"\n[compilers]\nc = \"gcc\"\n"),
        manifest: manifest.encode(),
        bundle,
        replace,
        golden: Golden::default(),
    }
}

fn push(registry: &Registry, name: &str, content: &str, replace: Replace) -> Result<Record, RegistryError> {
    let (manifest, bundle, bytes) = toolchain(content);
    match registry.begin_push(head(name, &manifest, bundle, replace), "test")? {
        Push::Known(record) => Ok(record),
        Push::Wanted(mut upload) => {
            for piece in bytes.chunks(7) {
                upload.write(piece)?;
            }
            registry.commit(upload)
        }
    }
}

fn files_below(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[test]
fn a_pushed_toolchain_is_served_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let record = push(&registry, "arm926", "one", Replace::Refuse).unwrap();
    let again = Registry::open(dir.path()).unwrap();
    assert_eq!(again.list(), std::slice::from_ref(&record));
    let mut content = Vec::new();
    let mut file = again.open_bundle(record.id, 0).unwrap();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(Digest::of(&content), record.bundle.digest);
    let mut rest = Vec::new();
    again.open_bundle(record.id, 5).unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest, content[5..]);
}

#[test]
fn pushing_and_removing_make_their_swept_directory_again() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let incoming = dir.path().join("incoming");
    fs::remove_dir(&incoming).unwrap();
    let record = push(&registry, "arm926", "one", Replace::Refuse).unwrap();
    fs::remove_dir(&incoming).unwrap();
    assert_eq!(registry.remove(&record.name).unwrap(), [record.id]);
    assert!(registry.list().is_empty());
}

#[test]
fn a_name_moves_to_another_identity_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let one = push(&registry, "arm926", "one", Replace::Refuse).unwrap();
    let refused = push(&registry, "arm926", "two", Replace::Refuse);
    assert!(matches!(refused, Err(RegistryError::NameTaken { taken_by, .. }) if taken_by == one.id));
    let two = push(&registry, "arm926", "two", Replace::Allow).unwrap();
    let current = |registry: &Registry| registry.by_name(&one.name).iter().map(|r| r.id).collect::<Vec<_>>();
    assert_eq!(current(&registry), [two.id]);
    assert!(
        registry.by_id(one.id).is_some(),
        "jobs may still ask for the former one"
    );
    let back = push(&registry, "arm926", "one", Replace::Allow).unwrap();
    assert_eq!(back.id, one.id);
    assert_eq!(current(&Registry::open(dir.path()).unwrap()), [one.id]);
}

#[test]
fn one_identity_may_have_two_names() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let one = push(&registry, "arm926", "one", Replace::Refuse).unwrap();
    let other = push(&registry, "soft", "one", Replace::Refuse).unwrap();
    assert_eq!(one.id, other.id);
    registry.remove(&one.name).unwrap();
    assert!(registry.open_bundle(one.id, 0).is_ok());
    registry.remove(&other.name).unwrap();
    assert!(registry.by_id(one.id).is_none());
    assert!(matches!(registry.remove(&one.name), Err(RegistryError::Unknown(_))));
}

#[test]
fn a_bundle_that_is_not_as_announced_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let (manifest, bundle, bytes) = toolchain("one");
    let (other, _, _) = toolchain("two");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let longer = [&bytes[..], b"x"].concat();
    let cases = [
        (&manifest, &bytes[..bytes.len() - 1]),
        (&manifest, &flipped[..]),
        (&manifest, &longer[..]),
        // Announced truly, but another toolchain's.
        (&other, &bytes[..]),
    ];
    for (manifest, content) in cases {
        let begun = registry
            .begin_push(head("arm926", manifest, bundle, Replace::Refuse), "test")
            .unwrap();
        let Push::Wanted(mut upload) = begun else {
            panic!("nothing can be known yet");
        };
        let ended = upload.write(content).and_then(|()| registry.commit(upload).map(drop));
        assert!(ended.is_err());
    }
    assert!(registry.list().is_empty());
    assert_eq!(files_below(&dir.path().join("incoming")), 0);
}

#[test]
fn a_flipped_bit_on_disk_is_never_served_and_mended_by_a_push() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let record = push(&registry, "arm926", "one", Replace::Refuse).unwrap();
    let path = registry.object(&record.key()).join("bundle");
    let mut content = fs::read(&path).unwrap();
    content[10] ^= 1;
    fs::write(&path, content).unwrap();
    assert!(matches!(
        registry.open_bundle(record.id, 0),
        Err(RegistryError::Damaged(_))
    ));
    assert!(matches!(
        Registry::open(dir.path()).unwrap().open_bundle(record.id, 0),
        Err(RegistryError::Damaged(_))
    ));
    push(&registry, "arm926", "one", Replace::Refuse).unwrap();
    assert!(registry.open_bundle(record.id, 0).is_ok());
}

#[test]
fn pushing_for_ever_keeps_a_bounded_number() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    for number in 0..KEPT_PER_NAME + 3 {
        push(&registry, "arm926", &number.to_string(), Replace::Allow).unwrap();
    }
    assert_eq!(registry.list().len(), KEPT_PER_NAME);
    assert_eq!(files_below(&dir.path().join("objects")), KEPT_PER_NAME);
}

#[test]
fn a_toolchain_file_of_another_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let (manifest, bundle, _) = toolchain("one");
    let mut wrong = head("arm926", &manifest, bundle, Replace::Refuse);
    wrong.name = Name::new("other").unwrap();
    assert!(matches!(
        registry.begin_push(wrong, "test"),
        Err(RegistryError::OtherName { .. })
    ));
}

/// Pushes a variant of `board` for a kind of host, with one golden object.
fn push_variant(registry: &Registry, host: &str, content: &str, object: &[u8]) -> Record {
    let (manifest, bundle, bytes) = toolchain_for(host.parse().unwrap(), content);
    let mut head = head("board", &manifest, bundle, Replace::Allow);
    head.definition
        .push_str("[[variant]]\nhost = \"armv7-linux\"\n[[variant]]\nhost = \"x86_64-linux\"\n");
    if !object.is_empty() {
        head.golden.add("a.c -O2".into(), object.to_vec()).unwrap();
    }
    match registry.begin_push(head, "test").unwrap() {
        Push::Known(record) => record,
        Push::Wanted(mut upload) => {
            upload.write(&bytes).unwrap();
            registry.commit(upload).unwrap()
        }
    }
}

#[test]
fn variants_of_a_name_are_compared_with_its_current_reference() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let said = |registry: &Registry, record: &Record| registry.certification(record).to_string();
    let pc = push_variant(&registry, "x86_64-linux", "cross", b"object");
    assert_eq!(
        said(&registry, &pc),
        "unproven: the reference variant has not been pushed"
    );
    let board = push_variant(&registry, "armv7-linux", "native", b"object");
    assert_eq!(said(&registry, &board), "reference");
    let certified = format!("certified identical: 1 objects as those of {}", board.id.0.short());
    assert_eq!(said(&registry, &pc), certified);
    assert_eq!(
        said(&Registry::open(dir.path()).unwrap(), &pc),
        certified,
        "after a restart"
    );
    // The same files pushed by somebody who compiles nothing stay proven.
    let pc = push_variant(&registry, "x86_64-linux", "cross", b"");
    assert_eq!(said(&registry, &pc), certified);
    // The board's compiler is upgraded: what was proven was proven of another reference.
    let upgraded = push_variant(&registry, "armv7-linux", "native 2", b"another object");
    let refused = said(&registry, &pc);
    assert!(
        refused.starts_with(&format!("NOT as {}", upgraded.id.0.short())),
        "{refused}"
    );
}

#[test]
fn pairs_are_what_is_certified_now_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let kind = |text: &str| text.parse::<Host>().unwrap();
    let pc = push_variant(&registry, "x86_64-linux", "cross", b"object");
    assert!(registry.pairs().is_empty(), "no reference");
    let board = push_variant(&registry, "armv7-linux", "native", b"object");
    let both = |board: ToolchainId, pc: ToolchainId| {
        let to = |host: &str, id| BTreeMap::from([(kind(host), (id, Certify::Identical))]);
        BTreeMap::from([(board, to("x86_64-linux", pc)), (pc, to("armv7-linux", board))])
    };
    assert_eq!(registry.pairs(), both(board.id, pc.id));
    assert_eq!(registry.golden(pc.id).unwrap().objects().len(), 1);
    assert!(registry.golden(ToolchainId(Digest::of(b"none"))).is_none());
    // The board's compiler is upgraded: neither its old nor its new identity is paired until its objects are the same.
    let upgraded = push_variant(&registry, "armv7-linux", "native 2", b"another object");
    assert!(registry.pairs().is_empty());
    push_variant(&registry, "x86_64-linux", "cross", b"another object");
    assert_eq!(registry.pairs(), both(upgraded.id, pc.id), "and not the former one");
    assert_eq!(Registry::open(dir.path()).unwrap().pairs(), both(upgraded.id, pc.id));
    // Toolchains of other names, and of a file without variants, are paired with nobody.
    push(&registry, "alone", "cross 2", Replace::Refuse).unwrap();
    assert_eq!(registry.pairs().len(), 2);
    registry.remove(&board.name).unwrap();
    assert!(registry.pairs().is_empty());
}
