//! Whatever changes: what is recalled is what a scan would find, or nothing is recalled.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::agent::closures::tests::World;
use crate::includes::source_tree::disk::Bounds;

/// A world with a unit that looks in several places for its headers, learnt.
async fn learnt() -> (World, Unit) {
    let world = World::new();
    world.write(
        "src/a.c",
        "#include \"own.h\"\n#include <h.h>\n#if __has_include(<o.h>)\n#include <o.h>\n#endif\n",
    );
    world.write("src/own.h", "#include \"../deep/../src/own2.h\"\n");
    world.write("src/own2.h", "");
    world.write("one/other.h", "");
    world.write("two/h.h", "#pragma once\n#include <t.h>\n");
    world.write("two/t.h", "int t;\n");
    fs::create_dir_all(world.path("deep")).unwrap();
    fs::create_dir_all(world.path("one/dir.h")).unwrap();
    symlink("two", world.path("link")).unwrap();
    let unit = world.unit("-c -Inone -Ione -Ilink src/a.c -o a.o");
    let closure = world.closures.scan(&unit).await.unwrap();
    world.closures.remembered().learn(&unit, &closure);
    (world, unit)
}

fn recall(world: &World, unit: &Unit) -> Option<Closure> {
    world.closures.remembered().recall(unit, world.tree.begin())
}

/// Everything that a closure says, in words.
fn said(closure: &Closure) -> String {
    let mut absent: Vec<PathBuf> = closure.absent_paths().collect();
    absent.sort();
    absent.dedup();
    let files =
        |files: &[Arc<SourceFile>]| -> Vec<PathBuf> { files.iter().map(|file| file.route.path.clone()).collect() };
    let listed = closure.listed.iter().map(|listed| {
        let spelling = String::from_utf8_lossy(&listed.spelling).into_owned();
        let digest = listed.file.content.get().unwrap().digest;
        (spelling, listed.file.route.path.clone(), listed.system, digest)
    });
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        listed.collect::<Vec<_>>(),
        files(&closure.consulted),
        files(&closure.assembled),
        closure.links,
        closure.directories,
        absent,
        closure.facts,
    )
}

#[tokio::test]
async fn what_is_recalled_is_what_a_scan_finds() {
    let (world, unit) = learnt().await;
    let recalled = recall(&world, &unit).unwrap();
    assert_eq!(recalled.origin, Origin::Remembered);
    assert_eq!(said(&recalled), said(&world.closures.scan(&unit).await.unwrap()));
    // Once more, now that the absent names are known to be absent.
    assert_eq!(said(&recall(&world, &unit).unwrap()), said(&recalled));
    let other = world.unit("-c -Inone -Ione -Ilink -DX src/a.c -o a.o");
    assert!(recall(&world, &other).is_none());
}

#[tokio::test]
async fn nothing_is_recalled_when_something_has_changed() {
    type Change = fn(&World);
    let changes: [(&str, Change); 14] = [
        ("a header appears earlier on the path", |world| {
            world.write("one/h.h", "")
        }),
        ("a header appears in a directory that was not there", |world| {
            world.write("none/h.h", "")
        }),
        ("a header that was asked for appears", |world| {
            world.write("two/o.h", "")
        }),
        ("a precompiled header appears", |world| world.write("src/own.h.gch", "")),
        ("a header vanishes", |world| {
            fs::remove_file(world.path("two/t.h")).unwrap()
        }),
        ("a header is edited", |world| world.write("two/t.h", "int u;\n")),
        ("a header is replaced by a link", |world| {
            fs::rename(world.path("two/t.h"), world.path("two/u.h")).unwrap();
            symlink("u.h", world.path("two/t.h")).unwrap();
        }),
        ("a header becomes a directory", |world| {
            fs::remove_file(world.path("two/t.h")).unwrap();
            fs::create_dir(world.path("two/t.h")).unwrap();
        }),
        ("a link leads elsewhere", |world| {
            fs::remove_file(world.path("link")).unwrap();
            symlink("one", world.path("link")).unwrap();
        }),
        ("a link leads there in other words", |world| {
            fs::remove_file(world.path("link")).unwrap();
            symlink("./two", world.path("link")).unwrap();
        }),
        ("a directory is replaced", |world| {
            fs::rename(world.path("two"), world.path("three")).unwrap();
            world.write("two/h.h", "#pragma once\n#include <t.h>\n");
            world.write("two/t.h", "");
        }),
        ("a directory is moved and linked to", |world| {
            fs::rename(world.path("two"), world.path("three")).unwrap();
            symlink("three", world.path("two")).unwrap();
        }),
        ("a directory that is only walked through vanishes", |world| {
            fs::remove_dir(world.path("deep")).unwrap();
        }),
        ("an empty directory of the path vanishes", |world| {
            fs::remove_dir_all(world.path("one")).unwrap();
        }),
    ];
    for (what, change) in changes {
        let (world, unit) = learnt().await;
        assert!(recall(&world, &unit).is_some(), "before {what}");
        change(&world);
        assert!(recall(&world, &unit).is_none(), "{what}");
    }
}

#[tokio::test]
async fn edits_of_equal_length_within_one_tick_are_seen() {
    let (world, unit) = learnt().await;
    for _ in 0..20 {
        world.write("two/t.h", "int u;\n");
        assert!(recall(&world, &unit).is_none());
        world.write("two/t.h", "int t;\n");
        assert!(recall(&world, &unit).is_some());
    }
}

#[tokio::test]
async fn checkout_to_and_fro_leaves_what_is_remembered() {
    let (world, unit) = learnt().await;
    let checkout = |name: &str, text: &str| {
        world.write("fresh", text);
        fs::rename(world.path("fresh"), world.path(name)).unwrap();
    };
    checkout("two/t.h", "int other;\n");
    assert!(recall(&world, &unit).is_none());
    checkout("two/t.h", "int t;\n");
    assert_eq!(
        said(&recall(&world, &unit).unwrap()),
        said(&world.closures.scan(&unit).await.unwrap())
    );
}

#[tokio::test]
async fn directory_that_was_passed_over_matters_when_it_becomes_a_file() {
    let world = World::new();
    world.write("a.c", "#include <dir.h>\n");
    world.write("two/dir.h", "");
    fs::create_dir_all(world.path("one/dir.h")).unwrap();
    let unit = world.unit("-c -Ione -Itwo a.c");
    let closure = world.closures.scan(&unit).await.unwrap();
    world.closures.remembered().learn(&unit, &closure);
    assert!(recall(&world, &unit).is_some());
    fs::remove_dir(world.path("one/dir.h")).unwrap();
    world.write("one/dir.h", "");
    assert!(recall(&world, &unit).is_none());
}

#[tokio::test]
async fn next_agent_remembers_what_this_one_kept() {
    let (world, unit) = learnt().await;
    let home = |boot: &[u8]| Home {
        directory: world.path("."),
        boot: Digest::of(boot),
    };
    let first = Remembered::new(world.tree.clone(), Some(home(b"1")));
    first.learn(&unit, &world.closures.scan(&unit).await.unwrap());
    first.keep().unwrap();
    let again = |boot: &[u8]| {
        let tree = Arc::new(DiskTree::new(Bounds::default()));
        Remembered::new(tree.clone(), Some(home(boot))).recall(&unit, tree.begin())
    };
    assert_eq!(said(&again(b"1").unwrap()), said(&recall(&world, &unit).unwrap()));
    assert!(again(b"2").is_none(), "another boot");
    let mut bytes = fs::read(world.path("closures")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(world.path("closures"), bytes).unwrap();
    assert!(again(b"1").is_none(), "a damaged file");
}

/// Small numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[tokio::test]
async fn random_changes_never_leave_a_stale_closure() {
    for seed in 0..8 {
        let (world, unit) = learnt().await;
        let mut dice = Dice(seed);
        let names = [
            "src/own.h",
            "src/own2.h",
            "one/h.h",
            "two/h.h",
            "two/t.h",
            "two/o.h",
            "one/t.h",
            "none/t.h",
        ];
        let texts = [
            "",
            "int a;\n",
            "int b;\n",
            "#include <t.h>\n",
            "#pragma once\n#include <o.h>\n",
        ];
        for step in 0..60 {
            let path = world.path(names[dice.below(8) as usize]);
            match dice.below(4) {
                0 => drop(fs::remove_file(&path)),
                1 => drop(fs::rename(world.path(names[dice.below(8) as usize]), &path)),
                _ => {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(&path, texts[dice.below(5) as usize]).unwrap();
                }
            }
            let recalled = recall(&world, &unit);
            let scanned = world.closures.scan(&unit).await;
            match (recalled, &scanned) {
                (None, _) => {}
                (Some(recalled), Ok(scanned)) => assert_eq!(said(&recalled), said(scanned), "seed {seed}, step {step}"),
                (Some(_), Err(error)) => panic!("seed {seed}, step {step}: recalled, and the scan says {error}"),
            }
            if let Ok(scanned) = scanned {
                world.closures.remembered().learn(&unit, &scanned);
            }
        }
    }
}
