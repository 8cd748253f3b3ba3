//! Closures of small units, by scan and by the machine's own gcc.

use std::fs;

use super::*;
use crate::compile::{Driver, Verdict, parse};
use crate::includes::source_tree::disk::Bounds;

/// A directory with files, and what finds closures in it.
pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) tree: Arc<DiskTree>,
    pub(super) closures: Closures,
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Arc::new(DiskTree::new(Bounds::default()));
        let scratch = dir.path().join("scratch");
        fs::create_dir(&scratch).unwrap();
        Self {
            closures: Closures::new(
                tree.clone(),
                CompilerRunner::new(2),
                Tasks::default(),
                scratch,
                Arc::new(Remembered::new(tree.clone(), None)),
            ),
            tree,
            dir,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn unit(&self, words: &str) -> Unit {
        let argv: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let Verdict::Remote(command) = parse(&argv, &[], Driver::C, &mut |_| Err(std::io::ErrorKind::NotFound.into()))
        else {
            panic!("`{words}` is local");
        };
        Unit {
            command: Arc::new(*command),
            program: "/usr/bin/gcc".into(),
            argv0: "gcc".into(),
            flags: Vec::new(),
            cwd: fs::canonicalize(self.dir.path()).unwrap(),
            env: Arc::new(vec![("PATH".into(), "/usr/bin:/bin".into())]),
            toolchain: 1,
            toolchain_id: ToolchainId(crate::digest::Digest::of(b"gcc")),
        }
    }
}

fn names(closure: &Closure) -> Vec<(String, bool)> {
    closure
        .listed
        .iter()
        .map(|listed| (String::from_utf8_lossy(&listed.spelling).into_owned(), listed.system))
        .collect()
}

#[tokio::test]
async fn scan_and_the_compilers_own_list_agree() {
    let world = World::new();
    world.write(
        "a.c",
        "#include <stddef.h>\n#include \"sub/b.h\"\n#if __has_attribute(packed)\n#include <c.h>\n#endif\n",
    );
    world.write("sub/b.h", "#pragma once\n#include \"../d.h\"\n");
    world.write("inc/c.h", "");
    world.write("d.h", "");
    let unit = world.unit("-c -MMD -Iinc a.c -o a.o");
    let scanned = world.closures.scan(&unit).await.unwrap();
    let listed = world.closures.list(&unit).await.unwrap();
    assert_eq!(names(&scanned), names(&listed));
    assert!(names(&scanned).contains(&("sub/../d.h".to_owned(), false)));
    assert!(
        names(&scanned)
            .iter()
            .any(|(name, system)| name.ends_with("stddef.h") && *system)
    );
    assert!(!listed.facts.time);
    assert!(listed.directories.contains(&unit.cwd.join("inc")));
}

#[tokio::test]
async fn device_is_left_to_the_compiler_that_makes_the_object() {
    let world = World::new();
    world.write("a.c", "#include \"/dev/null\"\n");
    let special = world.closures.scan(&world.unit("-c a.c")).await.unwrap_err();
    assert!(matches!(special, NoFiles::SpecialFile(_)), "{special}");
}

#[tokio::test]
async fn missing_header_is_told_apart() {
    let world = World::new();
    world.write("a.c", "#include \"none.h\"\n");
    let unit = world.unit("-c a.c");
    let missing = world.closures.scan(&unit).await.unwrap_err();
    assert!(matches!(missing, NoFiles::MissingHeader(_)), "{missing}");
    let failed = world.closures.list(&unit).await.unwrap_err();
    assert!(failed.to_string().contains("none.h"), "{failed}");
}

#[tokio::test]
async fn source_that_is_not_preprocessed_stands_alone() {
    let world = World::new();
    world.write("a.s", ".text\n");
    world.write("b.s", ".incbin \"x\"\n");
    let alone = world.closures.scan(&world.unit("-c a.s")).await.unwrap();
    assert_eq!(names(&alone), [("a.s".to_owned(), false)]);
    let reads = world.closures.scan(&world.unit("-c b.s")).await.unwrap_err();
    assert!(matches!(reads, NoFiles::AssemblerReads(_)), "{reads}");
}

#[tokio::test]
async fn plain_text_tells_what_a_list_does_not() {
    let world = World::new();
    world.write("a.c", "char *t = __TIME__;\n");
    world.write("b.c", "asm(\".incbin \\\"x\\\"\");\n");
    assert!(world.closures.list(&world.unit("-c a.c")).await.unwrap().facts.time);
    let reads = world.closures.list(&world.unit("-c b.c")).await.unwrap_err();
    assert!(matches!(reads, NoFiles::AssemblerReads(_)), "{reads}");
}

#[tokio::test]
async fn compiler_that_cannot_be_asked_is_asked_again() {
    let world = World::new();
    world.write("a.c", "");
    let mut unit = world.unit("-c a.c");
    unit.program = "/nonexistent/gcc".into();
    let failed = world.closures.scan(&unit).await.unwrap_err();
    assert!(matches!(failed, NoFiles::Undecidable(_)), "{failed}");
    assert!(lock(&world.closures.known).is_empty());
}
