//! Tests on a real directory: what changes is seen, what does not change is not read again.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use super::*;

fn find(tree: &DiskTree, root: &Path, name: &str) -> Found {
    let epoch = tree.begin();
    let directory = tree.directory(root, epoch).expect("readable").expect("there");
    tree.find(&directory, name.as_bytes(), epoch).expect("readable")
}

fn file(tree: &DiskTree, root: &Path, name: &str) -> Arc<SourceFile> {
    match find(tree, root, name) {
        Found::File(file) => file,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_file_that_appears_changes_or_goes_is_seen_at_once() {
    let root = tempfile::tempdir().expect("a directory");
    let tree = DiskTree::new(Bounds::default());
    let path = root.path().join("a.h");
    for round in 0..20 {
        assert!(matches!(find(&tree, root.path(), "a.h"), Found::Absent), "{round}");
        // Same length each time, and within one tick of the file system's clock.
        for text in ["one", "two"] {
            fs::write(&path, text).expect("writable");
            let found = file(&tree, root.path(), "a.h");
            assert_eq!(
                tree.digest(&found).expect("readable"),
                Digest::of(text.as_bytes()),
                "{round}"
            );
        }
        fs::remove_file(&path).expect("removable");
    }
}

#[test]
fn a_settled_file_keeps_its_version_and_number() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("a.h");
    fs::write(&path, "x").expect("writable");
    let tree = DiskTree::new(Bounds::default());
    let first = file(&tree, root.path(), "a.h");
    tree.digest(&first).expect("readable");
    let settled = !is_too_recent(first.fingerprint.ctime_ns, first.content.get().expect("read").read_ns);
    assert!(!settled, "a file written just now is not to be trusted");
    // An old file: `/proc/self/exe` leads to this very program.
    let program = std::env::current_exe().expect("a path");
    let (directory, name) = (
        program.parent().expect("a directory"),
        program.file_name().expect("a name"),
    );
    let name = name.to_str().expect("plain");
    let before = file(&tree, directory, name);
    tree.digest(&before).expect("readable");
    let after = file(&tree, directory, name);
    assert_eq!(before.id, after.id);
}

#[test]
fn links_and_directories_walked_through_are_reported() {
    let root = tempfile::tempdir().expect("a directory");
    let real = fs::canonicalize(root.path()).expect("resolvable");
    fs::create_dir_all(real.join("x/y")).expect("writable");
    fs::create_dir(real.join("z")).expect("writable");
    fs::write(real.join("z/a.h"), "").expect("writable");
    std::os::unix::fs::symlink("../z", real.join("x/link")).expect("writable");
    std::os::unix::fs::symlink("a.h", real.join("z/b.h")).expect("writable");
    let tree = DiskTree::new(Bounds::default());
    let epoch = tree.begin();
    let from = tree.directory(&real, epoch).expect("readable").expect("there");
    let found = tree.below(&from, b"x/y/..//./link", epoch).expect("readable");
    let directory = found.expect("there");
    let info = tree.describe(&directory);
    assert_eq!(info.route.path, real.join("z"));
    assert_eq!(info.route.crossed, [real.join("x/y"), real.join("x")]);
    assert_eq!(info.route.links.len(), 1);
    assert_eq!(info.route.links[0].path, real.join("x/link"));
    let Found::File(file) = tree.find(&directory, b"b.h", epoch).expect("readable") else {
        panic!("not found");
    };
    assert_eq!(file.route.path, real.join("z/a.h"));
    assert_eq!(file.route.links[0].path, real.join("z/b.h"));
    let dead = tree
        .below(&from, b"x/none/..", epoch)
        .expect("readable")
        .expect_err("absent");
    assert_eq!(dead.component, b"none");
}

#[test]
fn special_files_and_directories_are_told_apart() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("d.h")).expect("writable");
    let tree = DiskTree::new(Bounds::default());
    assert!(matches!(find(&tree, root.path(), "d.h"), Found::Directory));
    assert!(matches!(find(&tree, Path::new("/dev"), "null"), Found::Special));
    assert!(matches!(find(&tree, root.path(), "none"), Found::Absent));
}

#[test]
fn a_hard_link_made_elsewhere_leaves_a_version_readable_and_an_edit_does_not() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("a.h");
    fs::write(&path, "one").expect("writable");
    let tree = DiskTree::new(Bounds::default());
    let found = file(&tree, root.path(), "a.h");
    let before = fs::metadata(&path).expect("there");
    // Until the file system's clock has moved on.
    loop {
        let link = root.path().join("b.h");
        fs::hard_link(&path, &link).expect("linkable");
        fs::remove_file(&link).expect("removable");
        let now = fs::metadata(&path).expect("there");
        if std::os::unix::fs::MetadataExt::ctime_nsec(&now) != std::os::unix::fs::MetadataExt::ctime_nsec(&before) {
            break;
        }
    }
    let linked = file(&tree, root.path(), "a.h");
    assert_ne!(linked.fingerprint, found.fingerprint);
    assert!(linked.fingerprint.differs_in_ctime_at_most(&found.fingerprint));
    assert_eq!(tree.digest(&found).expect("readable"), Digest::of(b"one"));

    // An edit that sets the time back is told by the content.
    fs::write(&path, "two").expect("writable");
    let times = fs::FileTimes::new().set_modified(before.modified().expect("known"));
    File::options()
        .write(true)
        .open(&path)
        .expect("writable")
        .set_times(times)
        .expect("settable");
    let edited = file(&tree, root.path(), "a.h");
    assert!(edited.fingerprint.differs_in_ctime_at_most(&found.fingerprint));
    assert_ne!(
        tree.digest(&edited).expect("readable"),
        tree.digest(&found).expect("known")
    );
}

#[test]
fn version_that_is_known_is_not_read_and_another_one_is() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("a.h");
    fs::write(&path, "x").expect("writable");
    let version = file(&DiskTree::new(Bounds::default()), root.path(), "a.h").fingerprint;
    let tree = DiskTree::new(Bounds::default());
    let told = Digest::of(b"told");
    tree.know_contents(vec![(version, told)]);
    assert_eq!(tree.digest(&file(&tree, root.path(), "a.h")).expect("known"), told);
    assert_eq!(tree.files_read(), 0);
    assert_eq!(tree.settled_contents(10), [(version, told)]);
    fs::write(&path, "yy").expect("writable");
    let read = tree.digest(&file(&tree, root.path(), "a.h")).expect("readable");
    assert_eq!((read, tree.files_read()), (Digest::of(b"yy"), 1));
}
