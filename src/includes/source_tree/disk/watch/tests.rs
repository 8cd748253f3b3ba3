//! Tests on a real directory: what is quiet is not looked at, and no change keeps it quiet.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustix::fs::FileType;

use super::super::node::fingerprint;
use super::super::{Bounds, DiskTree, Node};
use super::*;
use crate::digest::Digest;
use crate::includes::source_tree::{Fingerprint, Found, SourceTree};
use crate::store::small_disk::on_small_disk;

/// What stands at a place: the content of a file, or what else it is.
fn seen(tree: &DiskTree, path: &Path) -> String {
    let epoch = tree.begin();
    let (parent, name) = (path.parent().unwrap(), path.file_name().unwrap());
    let Some(directory): Option<Arc<Node>> = tree.directory(parent, epoch).unwrap() else {
        return "no directory".to_owned();
    };
    match tree.find(&directory, name.as_bytes(), epoch).unwrap() {
        Found::File(file) => tree.digest(&file).unwrap().to_string(),
        other => format!("{other:?}"),
    }
}

fn expected(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()
}

/// Looks until nothing is looked at any more: files have to be older than a few ticks of their clock for that.
fn settle(tree: &DiskTree, paths: &[&Path]) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let before = tree.looks();
        paths.iter().for_each(|path| drop(seen(tree, path)));
        if tree.looks() == before {
            return;
        }
    }
    panic!("{paths:?} do not come to rest");
}

/// A directory on a file system that tells of changes; `None` where the temporary directory is on none.
fn watchable() -> Option<tempfile::TempDir> {
    let root = tempfile::tempdir().unwrap();
    let (tree, path) = (DiskTree::new(Bounds::default()), root.path().join("probe.h"));
    fs::write(&path, "x").unwrap();
    for _ in 0..3 {
        seen(&tree, &path);
    }
    let ears = tree.shared.watch.ears();
    let open = matches!(&*ears, Ears::Open(open) if !open.watched.is_empty());
    if !open {
        println!("skipped: changes are not told of in {}", root.path().display());
    }
    open.then_some(root)
}

#[test]
fn quiet_file_is_not_looked_at_and_every_change_is_seen() {
    let Some(root) = watchable() else { return };
    let real = fs::canonicalize(root.path()).unwrap();
    let (above, elsewhere) = (real.join("a/b"), real.join("elsewhere"));
    let (path, other) = (above.join("x.h"), elsewhere.join("y.h"));
    let changes: [(&str, &dyn Fn()); 10] = [
        ("written in place", &|| fs::write(&path, "new").unwrap()),
        ("replaced", &|| {
            fs::write(above.join("t"), "new").unwrap();
            fs::rename(above.join("t"), &path).unwrap();
        }),
        ("written under another name", &|| fs::write(&other, "new").unwrap()),
        ("cut", &|| {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(0).unwrap();
            std::os::unix::fs::FileExt::write_at(&file, b"new", 0).unwrap();
        }),
        ("written, with its time set back", &|| {
            let times = FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
            fs::write(&path, "new").unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_times(times)
                .unwrap();
        }),
        ("exchanged with its directory", &|| {
            fs::rename(real.join("a"), real.join("old")).unwrap();
            fs::create_dir_all(&above).unwrap();
            fs::write(&path, "new").unwrap();
        }),
        ("behind another directory", &|| {
            fs::rename(&above, real.join("a/old")).unwrap();
            fs::create_dir(&above).unwrap();
            fs::write(&path, "new").unwrap();
        }),
        ("behind a link", &|| {
            fs::rename(&above, real.join("a/old")).unwrap();
            fs::write(elsewhere.join("x.h"), "new").unwrap();
            symlink(&elsewhere, &above).unwrap();
        }),
        ("a link itself", &|| {
            fs::write(elsewhere.join("x.h"), "new").unwrap();
            fs::remove_file(&path).unwrap();
            symlink(elsewhere.join("x.h"), &path).unwrap();
        }),
        ("removed with its directory and made again", &|| {
            fs::remove_dir_all(real.join("a")).unwrap();
            fs::create_dir_all(&above).unwrap();
            fs::write(&path, "new").unwrap();
        }),
    ];
    for (change, make) in changes {
        for directory in ["a", "old", "elsewhere"] {
            let _ = fs::remove_dir_all(real.join(directory));
        }
        fs::create_dir_all(&above).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(&path, "old").unwrap();
        fs::hard_link(&path, &other).unwrap();
        let tree = DiskTree::new(Bounds::default());
        settle(&tree, &[&path]);
        assert_eq!(seen(&tree, &path), expected("old"), "{change}");
        make();
        assert_eq!(seen(&tree, &path), expected("new"), "{change}");
    }
}

#[test]
fn modes_and_names_that_appear_are_seen_in_a_quiet_directory() {
    let Some(root) = watchable() else { return };
    let real = fs::canonicalize(root.path()).unwrap();
    let (path, late) = (real.join("x.h"), real.join("late.h"));
    fs::write(&path, "x").unwrap();
    let tree = DiskTree::new(Bounds::default());
    settle(&tree, &[&path, &late]);
    let mode = |tree: &DiskTree| {
        let epoch = tree.begin();
        let directory = tree.directory(&real, epoch).unwrap().unwrap();
        match tree.find(&directory, b"x.h", epoch).unwrap() {
            Found::File(file) => file.fingerprint.mode,
            other => panic!("{other:?}"),
        }
    };
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    assert_eq!(mode(&tree), 0o640);
    assert_eq!(seen(&tree, &late), "Absent");
    fs::write(&late, "late").unwrap();
    assert_eq!(seen(&tree, &late), expected("late"));
    fs::remove_file(&late).unwrap();
    assert_eq!(seen(&tree, &late), "Absent");
}

#[test]
fn what_is_mounted_over_a_quiet_directory_is_seen() {
    const NAME: &str = "includes::source_tree::disk::watch::tests::what_is_mounted_over_a_quiet_directory_is_seen";
    on_small_disk(NAME, 1 << 20, |disk| {
        let (directory, path) = (disk.join("d"), disk.join("d/x.h"));
        fs::create_dir(&directory).unwrap();
        fs::write(&path, "below").unwrap();
        let tree = DiskTree::new(Bounds::default());
        settle(&tree, &[&path]);
        assert_eq!(seen(&tree, &path), expected("below"));
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs"])
            .arg(&directory)
            .status();
        assert!(mounted.is_ok_and(|status| status.success()));
        assert_eq!(seen(&tree, &path), "Absent");
        fs::write(&path, "above").unwrap();
        settle(&tree, &[&path]);
        assert_eq!(seen(&tree, &path), expected("above"));
        assert!(
            Command::new("umount")
                .arg(&directory)
                .status()
                .is_ok_and(|status| status.success())
        );
        assert_eq!(seen(&tree, &path), expected("below"));
    });
}

#[test]
fn beyond_the_bound_files_are_looked_at() {
    let Some(root) = watchable() else { return };
    let real = fs::canonicalize(root.path()).unwrap();
    let paths: Vec<PathBuf> = (0..20).map(|number| real.join(format!("{number}.h"))).collect();
    paths.iter().for_each(|path| fs::write(path, "x").unwrap());
    let tree = DiskTree::new(Bounds {
        watches: real.components().count() + 5,
        ..Bounds::default()
    });
    let all = |tree: &DiskTree| {
        let before = tree.looks();
        paths.iter().for_each(|path| drop(seen(tree, path)));
        tree.looks() - before
    };
    let began = Instant::now();
    while all(&tree) > 15 {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "five files should come to rest"
        );
    }
    for path in &paths {
        fs::write(path, "new").unwrap();
        assert_eq!(seen(&tree, path), expected("new"));
    }
}

/// Which version of a file the tree says stands at a place.
fn version(tree: &DiskTree, path: &Path) -> Option<Fingerprint> {
    let epoch = tree.begin();
    let directory = tree.directory(path.parent().unwrap(), epoch).ok()??;
    match tree.find(&directory, path.file_name().unwrap().as_bytes(), epoch) {
        Ok(Found::File(file)) => Some(file.fingerprint),
        _ => None,
    }
}

/// Whatever is done to a small tree, in whatever order, the next epoch shows it. Nothing is read, so files are quiet at once.
#[test]
fn random_changes_are_seen() {
    let mut saved = 0;
    for seed in 0..40 {
        let root = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(root.path()).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let tree = DiskTree::new(Bounds {
            watches: if seed % 3 == 0 { 12 } else { 1000 },
            ..Bounds::default()
        });
        let directories = ["", "a", "a/b", "c"].map(|directory| real.join(directory));
        for directory in &directories {
            fs::create_dir_all(directory).unwrap();
        }
        let names = |directory: &PathBuf| ["x.h", "y.h", "b"].map(|name| directory.join(name));
        let places: Vec<PathBuf> = directories.iter().flat_map(names).collect();
        let mut asked = 0;
        for step in 0..60 {
            let mut any = || &places[random.next_u32() as usize % places.len()];
            let (one, other) = (any(), any());
            // Most fail at times, which changes nothing.
            let _ = match random.next_u32() % 8 {
                0 | 1 => fs::write(one, format!("{seed} {step}")),
                2 => fs::rename(one, other),
                3 => fs::hard_link(one, other),
                4 => fs::remove_file(one),
                5 => symlink(other, one),
                6 => fs::create_dir_all(one.parent().unwrap()),
                _ => fs::rename(one.parent().unwrap(), other),
            };
            // Now and then several rounds without a change, so that things come to rest.
            for _ in 0..random.next_u32() % 4 {
                for place in &places {
                    let stat = rustix::fs::stat(place).ok();
                    let stat = stat.filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
                    let truth = stat.map(|stat| fingerprint(&stat));
                    let found = version(&tree, place);
                    assert_eq!(found, truth, "{} after step {step}; seed {seed}", place.display());
                    asked += 2;
                }
            }
        }
        saved += asked - tree.looks();
    }
    assert!(saved > 0 || watchable().is_none(), "nothing was ever quiet");
}
