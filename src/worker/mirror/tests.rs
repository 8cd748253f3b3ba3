//! Mirrors on a real file system.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tempfile::TempDir;

use super::*;
use crate::job::InputKind;
use crate::toolchains::manifest::tests::sample;

const SECOND: i64 = 1_000_000_000;

struct World {
    directory: TempDir,
    store: DiskStore,
    mirrors: Mirrors,
    toolchain: Manifest,
}

impl World {
    fn new(quota_bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = DiskStore::open(&directory.path().join("blobs"), 1 << 30).expect("store");
        Self {
            mirrors: Mirrors::open(&directory.path().join("mirrors"), store.clone(), None, quota_bytes).expect("made"),
            toolchain: sample(),
            store,
            directory,
        }
    }

    fn put(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.store.put(digest, &mut &content[..]).expect("stored");
        digest
    }

    fn file(&self, path: impl AsRef<OsStr>, content: &[u8], mtime_s: i64) -> Input {
        let kind = InputKind::File {
            digest: self.put(content),
            size: content.len() as u64,
            mode: 0o640,
            mtime_ns: mtime_s * SECOND + 5,
        };
        let path = path.as_ref().into();
        Input { path, kind }
    }

    fn place(&self, tree: &Arc<Tree>, inputs: &[Input]) -> Result<Placed, MirrorError> {
        let entries: Arc<[EntryId]> = tree.define(inputs).expect("room").into();
        tree.place(self.toolchain.id(), &self.toolchain, &entries)
    }

    fn lease(&self, tree: &Arc<Tree>, inputs: &[Input]) -> Lease {
        match self.place(tree, inputs).expect("suits") {
            Placed::Ready(lease) => lease,
            Placed::Lacking(missing, _) => panic!("lacking {missing:?}"),
        }
    }

    fn tree(&self) -> Arc<Tree> {
        self.mirrors.tree(Digest::of(b"tree"))
    }

    fn directories(&self) -> usize {
        fs::read_dir(self.directory.path().join("mirrors"))
            .expect("readable")
            .count()
    }
}

fn read(lease: &Lease, path: &str) -> Vec<u8> {
    fs::read(lease.root().join(&path[1..])).expect("placed")
}

#[test]
fn files_stand_with_their_content_mode_and_time() {
    let world = World::new(1 << 30);
    let odd = OsStr::from_bytes(b"/src/a b\n\xff#\".h");
    let lease = world.lease(
        &world.tree(),
        &[
            world.file("/src/a.c", b"int a;", 77),
            world.file(odd, b"odd", 78),
            Input {
                path: "/src/empty".into(),
                kind: InputKind::Directory,
            },
            Input {
                path: "/src/l".into(),
                kind: InputKind::Symlink("a.c".into()),
            },
            Input {
                path: "/src/none".into(),
                kind: InputKind::Absent,
            },
        ],
    );
    assert_eq!(read(&lease, "/src/l"), b"int a;");
    let found = fs::metadata(lease.root().join("src/a.c")).expect("placed");
    assert_eq!(
        (found.mode() & 0o7777, found.mtime(), found.mtime_nsec()),
        (0o640, 77, 5)
    );
    assert_eq!(found.nlink(), 2, "shared with the store");
    assert!(
        lease
            .root()
            .join(Path::new(odd).strip_prefix("/").expect("absolute"))
            .exists()
    );
    assert!(lease.root().join("src/empty").is_dir());
    assert!(
        !lease.root().join("usr").exists(),
        "the toolchain stands in a directory of its own"
    );
}

#[test]
fn equal_files_with_other_times_or_modes_are_other_inodes() {
    let world = World::new(1 << 30);
    let twin = world.file("/src/b.h", b"same", 2);
    let lease = world.lease(&world.tree(), &[world.file("/src/a.h", b"same", 1), twin.clone()]);
    let other = world.lease(
        &world.mirrors.tree(Digest::of(b"other")),
        &[world.file("/x/c.h", b"same", 1)],
    );
    let stat = |lease: &Lease, path: &str| fs::metadata(lease.root().join(path)).expect("placed");
    let (a, b, c) = (stat(&lease, "src/a.h"), stat(&lease, "src/b.h"), stat(&other, "x/c.h"));
    assert_eq!((a.mtime(), b.mtime()), (1, 2));
    assert_ne!(a.ino(), b.ino());
    assert_eq!(a.ino(), c.ino());
    assert!(world.mirrors.own_bytes() > 0);
}

#[test]
fn missing_content_is_named_and_placed_when_it_has_come() {
    let world = World::new(1 << 30);
    let tree = world.tree();
    let mut late = world.file("/src/a.h", b"known", 1);
    let digest = Digest::of(b"late");
    late.kind = InputKind::File {
        digest,
        size: 4,
        mode: 0o644,
        mtime_ns: 0,
    };
    let inputs = [late, world.file("/src/b.h", b"known", 1)];
    match world.place(&tree, &inputs).expect("suits") {
        Placed::Lacking(missing, _) => assert_eq!(missing.iter().map(|m| m.digest).collect::<Vec<_>>(), [digest]),
        Placed::Ready(_) => panic!("`late` is not there"),
    }
    assert_eq!(world.directories(), 0, "nothing is made in vain");
    world.put(b"late");
    assert_eq!(read(&world.lease(&tree, &inputs), "/src/a.h"), b"late");
}

#[test]
fn running_jobs_keep_their_content_and_old_generations_go() {
    let world = World::new(1 << 30);
    let tree = world.tree();
    let first = world.lease(&tree, &[world.file("/src/a.h", b"old", 1)]);
    let second = world.lease(&tree, &[world.file("/src/a.h", b"new", 1)]);
    assert_eq!(read(&first, "/src/a.h"), b"old");
    assert_eq!(read(&second, "/src/a.h"), b"new");
    drop(first);
    assert!(world.mirrors.wants_sweep());
    world.mirrors.sweep();
    assert_eq!(world.directories(), 1);
    drop(second);
    let third = world.lease(&tree, &[world.file("/src/a.h", b"newer", 1)]);
    assert_eq!(read(&third, "/src/a.h"), b"newer");
    assert_eq!(world.directories(), 1, "replaced in place, as no job used it");
}

#[test]
fn damaged_blob_is_lacking_instead_of_placed() {
    let world = World::new(1 << 30);
    let tree = world.tree();
    let input = world.file("/src/a.h", b"content", 1);
    // The same blob, seen by a store that has not checked it in this life.
    let blobs = world.directory.path().join("blobs");
    let digest = Digest::of(b"content").to_string();
    let blob = blobs.join(&digest[..2]).join(format!("{}-7", &digest[2..]));
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).expect("ours");
    fs::write(&blob, b"cOntent").expect("ours");
    match world.place(&tree, std::slice::from_ref(&input)) {
        Err(MirrorError::Place(PlaceError::Lacking(_))) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        world.place(&tree, std::slice::from_ref(&input)),
        Ok(Placed::Lacking(..))
    ));
    world.put(b"content");
    assert_eq!(read(&world.lease(&tree, &[input]), "/src/a.h"), b"content");
}

#[test]
fn tree_that_is_not_as_its_model_says_is_left_and_never_followed() {
    let world = World::new(1 << 30);
    let tree = world.tree();
    let outside = world.directory.path().join("outside");
    fs::create_dir(&outside).expect("made");
    let lease = world.lease(&tree, &[world.file("/src/a.h", b"a", 1)]);
    fs::rename(lease.root().join("src"), lease.root().join("gone")).expect("ours");
    std::os::unix::fs::symlink(&outside, lease.root().join("src")).expect("ours");
    assert!(matches!(
        world.place(&tree, &[world.file("/src/b.h", b"b", 1)]),
        Err(MirrorError::Place(_))
    ));
    assert_eq!(fs::read_dir(&outside).expect("readable").count(), 0);
    let next = world.lease(&tree, &[world.file("/src/b.h", b"b", 1)]);
    assert_ne!(next.root(), lease.root());
}

#[test]
fn least_recently_used_mirror_goes_first_and_used_ones_stay() {
    let world = World::new(0);
    let trees: Vec<_> = (0..3_u8).map(|id| world.mirrors.tree(Digest::of(&[id]))).collect();
    let held = world.lease(&trees[0], &[world.file("/a", b"0", 1)]);
    for tree in &trees[1..] {
        drop(world.lease(tree, &[world.file("/d/a", b"1", 1)]));
    }
    assert_eq!(world.directories(), 3);
    world.mirrors.sweep();
    assert_eq!(world.directories(), 1);
    assert_eq!(read(&held, "/a"), b"0");
    let again = world.lease(&trees[1], &[world.file("/d/a", b"1", 1)]);
    assert_eq!(read(&again, "/d/a"), b"1");
}

#[test]
fn leftovers_of_an_earlier_life_are_removed() {
    let world = World::new(1 << 30);
    let tree = world.tree();
    let input = world.file("/src/a.h", b"a", 1);
    let before = world.lease(&tree, std::slice::from_ref(&input)).root().to_owned();
    let directory = world.directory.path().join("mirrors");
    let next = Mirrors::open(&directory, world.store.clone(), None, 1 << 30).expect("made");
    let tree = next.tree(Digest::of(b"tree"));
    let lease = world.lease(&tree, &[input]);
    next.sweep();
    assert!(!before.exists() && lease.root().join("src/a.h").exists());
}
