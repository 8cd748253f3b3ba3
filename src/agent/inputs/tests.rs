//! Inputs of made-up closures over real files.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::collecting::FILE_MODE;
use super::*;
use crate::agent::worker_link::{Changed, Content, ContentSource};
use crate::includes::closure::{Absent, Listed, Origin};
use crate::includes::reduced::Facts;
use crate::includes::source_tree::disk::Bounds;
use crate::includes::source_tree::{Found, SourceTree};
use crate::job::Input;
use crate::toolchains::capture::tests::FakeSdk;

struct World {
    sdk: FakeSdk,
    dir: tempfile::TempDir,
    tree: Arc<DiskTree>,
    maker: InputMaker,
    toolchain: Loaded,
}

impl World {
    fn new() -> Self {
        let sdk = FakeSdk::new();
        let dir = tempfile::tempdir().unwrap();
        let tree = Arc::new(DiskTree::new(Bounds::default()));
        let toolchain = Loaded::new(
            1,
            Arc::new(sdk.definition("x-gcc", "")),
            sdk.capture("x-gcc", "").unwrap(),
        );
        let shipped = Shipped::open(&dir.path().join("shipped"), Digest::of(b"boot"), [1; 32]).unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        Self {
            maker: InputMaker::new(tree.clone(), shipped),
            sdk,
            dir,
            tree,
            toolchain,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("src").join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn closure(&self, files: &[PathBuf]) -> (Closure, Epoch) {
        let epoch = self.tree.begin();
        let mut links = Vec::new();
        let listed = files
            .iter()
            .map(|path| {
                let (directory, name) = split(path);
                let directory = self.tree.directory(directory, epoch).unwrap().unwrap();
                links.extend(self.tree.describe(&directory).route.links.iter().cloned());
                let Found::File(file) = self.tree.find(&directory, name.as_bytes(), epoch).unwrap() else {
                    panic!("{} is no file", path.display());
                };
                links.extend(file.route.links.iter().cloned());
                Listed {
                    spelling: path.as_os_str().as_bytes().into(),
                    file,
                    system: false,
                }
            })
            .collect();
        links.sort();
        links.dedup();
        let closure = Closure {
            listed,
            consulted: Vec::new(),
            assembled: Vec::new(),
            links,
            directories: vec![self.path("")],
            absent: Vec::new(),
            absent_directories: Vec::new(),
            facts: Facts::default(),
            symbols: self.tree.symbols(),
            origin: Origin::Listed,
        };
        (closure, epoch)
    }

    fn around(&self) -> Surroundings {
        Surroundings {
            cwd: self.path(""),
            program: self.sdk.path("bin/x-gcc"),
            files: Vec::new(),
            outputs: vec![self.path("a.o")],
            directories: Vec::new(),
        }
    }

    fn make(&self, files: &[PathBuf]) -> Result<Inputs, InputError> {
        let (closure, epoch) = self.closure(files);
        self.maker.of_closure(&closure, &self.around(), &self.toolchain, epoch)
    }
}

fn kind<'a>(inputs: &'a Inputs, path: &Path) -> Option<&'a InputKind> {
    let mut found = inputs.refs.iter().filter(|input| input.path == path);
    let first = found.next();
    assert!(found.next().is_none(), "{} stands there twice", path.display());
    first.map(|input| &input.kind)
}

fn file(content: &str) -> InputKind {
    InputKind::File {
        digest: Digest::of(content.as_bytes()),
        size: content.len() as u64,
        mode: FILE_MODE,
        mtime_ns: 0,
    }
}

#[test]
fn files_go_by_content_and_again_by_the_same_handle() {
    let world = World::new();
    let source = world.write("a.c", "int a;");
    let header = world.write("sub/a.h", "int h;");
    let files = [source.clone(), header.clone(), source.clone()];
    let first = world.make(&files).unwrap();
    assert_eq!(kind(&first, &source), Some(&file("int a;")));
    assert_eq!(kind(&first, &header), Some(&file("int h;")));
    assert_eq!(first.bytes, 12);
    let again = world.make(&files).unwrap();
    let same = |a: &InputRef, b: &InputRef| std::ptr::eq::<Input>(&**a, &**b);
    assert!(first.refs.iter().zip(again.refs.iter()).all(|(a, b)| same(a, b)));
    assert!(first.reads(&header) && !first.reads(&world.path("a.o")));
}

#[test]
fn what_the_toolchain_holds_is_left_out_and_must_agree() {
    let world = World::new();
    let source = world.write("a.c", "");
    let own = world.sdk.path("lib/gcc/x/12/include/stddef.h");
    let inputs = world.make(&[source.clone(), own.clone()]).unwrap();
    assert_eq!(kind(&inputs, &own), None);
    fs::write(&own, "changed").unwrap();
    let error = world.make(&[source, own]).unwrap_err();
    assert!(matches!(error, InputError::ToolchainChanged(_)), "{error}");
}

#[test]
fn links_on_the_way_are_inputs_and_files_stand_where_they_are() {
    let world = World::new();
    let real = world.write("real/a.h", "int h;");
    symlink("real", world.path("link")).unwrap();
    symlink("a.h", world.path("real/b.h")).unwrap();
    let inputs = world.make(&[world.path("link/b.h")]).unwrap();
    assert_eq!(kind(&inputs, &real), Some(&file("int h;")));
    let link = |target: &str| InputKind::Symlink(target.into());
    assert_eq!(kind(&inputs, &world.path("link")), Some(&link("real")));
    assert_eq!(kind(&inputs, &world.path("real/b.h")), Some(&link("a.h")));
}

#[test]
fn files_of_equal_content_keep_their_times() {
    let world = World::new();
    let files = [
        world.write("a.h", "#pragma once"),
        world.write("b.h", "#pragma once"),
        world.write("c.h", "x"),
    ];
    let inputs = world.make(&files).unwrap();
    let time = |path: &Path| match kind(&inputs, path) {
        Some(InputKind::File { mtime_ns, .. }) => *mtime_ns,
        other => panic!("{other:?}"),
    };
    assert!(time(&files[0]) > 0 && time(&files[1]) > 0);
    assert_eq!(time(&files[2]), 0);
}

#[test]
fn absence_is_told_only_where_a_worker_may_hold_something() {
    let world = World::new();
    let (source, gone) = (world.write("a.c", ""), world.write("gone.h", "old"));
    world.make(&[source.clone(), gone.clone()]).unwrap();
    fs::remove_file(&gone).unwrap();
    let (mut closure, epoch) = world.closure(&[source]);
    let directory = world.tree.directory(&world.path(""), epoch).unwrap().unwrap();
    closure.absent.push(Absent {
        directory: world.tree.describe(&directory),
        names: [b"gone.h".as_slice(), b"never.h"]
            .map(|name| closure.symbols.intern(name))
            .to_vec(),
        passed: Vec::new(),
        listing: None,
    });
    closure.absent_directories = vec![world.path("never"), world.path("gone.h")];
    let inputs = world
        .maker
        .of_closure(&closure, &world.around(), &world.toolchain, epoch)
        .unwrap();
    assert_eq!(kind(&inputs, &gone), Some(&InputKind::Absent));
    assert_eq!(kind(&inputs, &world.path("never.h")), None);
    assert_eq!(kind(&inputs, &world.path("never")), None);
}

#[test]
fn existing_object_has_a_stand_in_and_a_missing_directory_is_told() {
    let world = World::new();
    let source = world.write("a.c", "");
    let object = world.write("a.o", "an old object");
    let inputs = world.make(std::slice::from_ref(&source)).unwrap();
    assert_eq!(kind(&inputs, &object), Some(&file("\n")));
    assert_eq!(inputs.outputs, std::slice::from_ref(&object));
    let input = inputs.refs.iter().find(|input| input.path == object).unwrap();
    match inputs.content.open(input) {
        Ok(Content::Held(content)) => assert_eq!(*content, b"\n"),
        other => panic!("{other:?}"),
    }
    let (closure, epoch) = world.closure(&[source]);
    let mut around = world.around();
    around.outputs = vec![world.path("none/a.o")];
    let error = world
        .maker
        .of_closure(&closure, &around, &world.toolchain, epoch)
        .unwrap_err();
    assert!(matches!(error, InputError::MissingDirectory(_)), "{error}");
}

#[test]
fn program_behind_a_link_of_the_users_own_is_reached_through_it() {
    let world = World::new();
    let source = world.write("a.c", "");
    let mut around = world.around();
    around.program = world.path("cc");
    symlink(world.sdk.path("bin/x-gcc-12"), &around.program).unwrap();
    let (closure, epoch) = world.closure(&[source]);
    let inputs = world
        .maker
        .of_closure(&closure, &around, &world.toolchain, epoch)
        .unwrap();
    let target = world.sdk.path("bin/x-gcc-12").into_os_string();
    assert_eq!(kind(&inputs, &around.program), Some(&InputKind::Symlink(target)));
    assert_eq!(kind(&inputs, &world.sdk.path("bin/x-gcc-12")), None);
}

#[test]
fn preprocessed_text_stands_in_for_the_source() {
    let world = World::new();
    let source = world.write("a.c", "int a;");
    let epoch = world.tree.begin();
    let inputs = world
        .maker
        .of_text(&source, b"text".to_vec(), &world.around(), &world.toolchain, epoch)
        .unwrap();
    assert_eq!(kind(&inputs, &source), Some(&file("text")));
}

#[test]
fn file_that_changed_is_not_sent() {
    let world = World::new();
    let source = world.write("a.c", "int a;");
    let inputs = world.make(std::slice::from_ref(&source)).unwrap();
    let input = inputs.refs.iter().find(|input| input.path == source).unwrap();
    assert!(matches!(inputs.content.open(input), Ok(Content::File(_))));
    fs::write(&source, "int longer;").unwrap();
    assert!(matches!(inputs.content.open(input), Err(Changed)));
}

#[test]
fn sent_paths_are_remembered_by_the_next_agent_of_this_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shipped");
    let (boot, other_boot) = (Digest::of(b"1"), Digest::of(b"2"));
    let mut first = Shipped::open(&path, boot, [1; 32]).unwrap();
    first.add(Path::new("/a/b/c.h"));
    first.keep();
    let name = first.tree_name();
    let second = Shipped::open(&path, boot, [2; 32]).unwrap();
    assert_eq!(second.tree_name(), name);
    assert!(second.has(Path::new("/a/b")) && second.has(Path::new("/a//b/c.h")));
    assert!(second.below(Path::new("/a/b")).may_have(b"c.h"));
    assert!(!second.below(Path::new("/a/b")).may_have(b"d.h") && !second.below(Path::new("/x")).may_have(b"c.h"));
    assert_ne!(Shipped::open(&path, other_boot, [3; 32]).unwrap().tree_name(), name);
    assert!(
        !Shipped::open(&path, other_boot, [4; 32])
            .unwrap()
            .has(Path::new("/a/b"))
    );
    fs::write(&path, "garbage").unwrap();
    assert_eq!(
        Shipped::open(&path, boot, [5; 32]).unwrap().tree_name(),
        Digest::from([5; 32])
    );
}

#[test]
fn places_to_write_to_are_named_with_links_followed_and_nothing_climbing() {
    let world = World::new();
    world.write("out/real/x", "");
    world.write("lists/x", "");
    symlink("real", world.path("out/link")).unwrap();
    let (closure, epoch) = world.closure(&[]);
    let around = Surroundings {
        outputs: vec![world.path("sub/../out/link/a.o"), world.path("a.d")],
        directories: vec![world.path("out/../lists/"), world.path("missing")],
        ..world.around()
    };
    fs::create_dir(world.path("sub")).unwrap();
    let inputs = world
        .maker
        .of_closure(&closure, &around, &world.toolchain, epoch)
        .unwrap();
    assert_eq!(inputs.outputs, [world.path("out/real/a.o"), world.path("a.d")]);
    let cwd = world.path("").components().collect();
    assert_eq!(inputs.output_dirs, [cwd, world.path("lists"), world.path("out/real")]);
}

#[test]
fn worker_with_a_variant_gets_the_toolchains_own_headers_too() {
    let world = World::new();
    let source = world.write("a.c", "int a;");
    let own = world.sdk.path("lib/gcc/x/12/include/stddef.h");
    let files = [source, own.clone()];
    let (closure, epoch) = world.closure(&files);
    let usual = world.make(&files).unwrap();
    assert_eq!(kind(&usual, &own), None, "the worker has it");
    let mut around = world.around();
    // The client's program is none of the variant's, wherever it is.
    around.program = world.path("cc");
    let variant = world
        .maker
        .of_closure_for_variant(&closure, &around, &world.toolchain, epoch)
        .unwrap();
    let content = fs::read_to_string(&own).unwrap();
    assert_eq!(kind(&variant, &own), Some(&file(&content)));
    let again = world.make(&files).unwrap();
    assert_eq!(kind(&again, &own), None, "one does not spoil the other");
    // One that is not as it was captured is sent to nobody.
    fs::write(&own, "changed").unwrap();
    let (closure, epoch) = world.closure(&files);
    let changed = world
        .maker
        .of_closure_for_variant(&closure, &around, &world.toolchain, epoch);
    assert!(matches!(changed, Err(InputError::ToolchainChanged(_))), "{changed:?}");
}
