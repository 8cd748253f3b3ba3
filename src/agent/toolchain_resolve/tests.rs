//! Toolchains found by name, by content and elsewhere, with a compiler made up for the purpose.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::exchange::Wish;
use crate::exchange::place::Tree;
use crate::toolchains::capture::tests::FakeSdk;

const FILE: &str = "name = \"x\"\ntarget = \"arm-linux-gnueabi\"\ncompilers.c = \"x-gcc\"\n";

/// Knows one definition at most, and counts how often it is asked.
struct Elsewhere {
    told: Told,
    asked: AtomicUsize,
}

impl DefinitionSource for Elsewhere {
    async fn definition(&self, _name: &Name) -> Told {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.told.clone()
    }
}

struct World {
    sdk: FakeSdk,
    dir: tempfile::TempDir,
    toolchains: Arc<Toolchains>,
    elsewhere: Elsewhere,
    tasks: Tasks,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree {
            uid: 0,
            mount_namespace: 0,
            root_device: 0,
            root_inode: 0,
            coordinator: None,
        };
        let files = dir.path().join("toolchains");
        fs::create_dir(&files).unwrap();
        let place = Place::new(dir.path().join("state"), &tree);
        Self {
            sdk: FakeSdk::new(),
            toolchains: Arc::new(Toolchains::new(
                vec![files],
                dir.path().join("records"),
                Host::current(),
                place,
            )),
            dir,
            elsewhere: Elsewhere {
                told: Told::Unknown,
                asked: AtomicUsize::new(0),
            },
            tasks: Tasks::default(),
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join("toolchains").join(name), text).unwrap();
    }

    fn request(&self, toolchain: Option<&str>, compiler: Compiler) -> Arc<CompileRequest> {
        let path = format!("{}:/usr/bin:/bin", self.sdk.path("bin").display());
        Arc::new(CompileRequest {
            toolchain: toolchain.map(|name| Name::new(name).unwrap()),
            compiler,
            argv: vec!["x-gcc".into(), "-c".into(), "a.c".into()],
            cwd: "/".into(),
            env: vec![("PATH".into(), path.into())],
            umask: 0o22,
            terminal: None,
            wish: Wish::Anywhere,
            worker: None,
        })
    }

    async fn resolve(&self, toolchain: Option<&str>, compiler: Compiler) -> Result<Resolved, Unresolved> {
        let request = self.request(toolchain, compiler);
        self.toolchains.resolve(&request, &self.elsewhere, &self.tasks).await
    }
}

const OWN: Compiler = Compiler::OfToolchain(Driver::C);

#[tokio::test]
async fn named_toolchain_gives_its_own_compiler_and_leaves_a_link() {
    let world = World::new();
    world.write("x.toml", FILE);
    let resolved = world.resolve(Some("x"), OWN).await.unwrap();
    assert_eq!(resolved.program, world.sdk.path("bin/x-gcc"));
    assert_eq!(resolved.language, Language::C);
    let link = world
        .toolchains
        .place
        .compiler_link(&Name::new("x").unwrap(), Driver::C);
    assert_eq!(fs::read_link(link).unwrap(), resolved.program);
    let again = world.resolve(Some("x"), OWN).await.unwrap();
    assert!(Arc::ptr_eq(&again.toolchain, &resolved.toolchain));
}

#[tokio::test]
async fn compiler_is_known_by_its_content_whatever_link_leads_to_it() {
    let world = World::new();
    world.write("x.toml", FILE);
    let link = world.dir.path().join("cc");
    symlink(world.sdk.path("bin/x-gcc-12"), &link).unwrap();
    for toolchain in [None, Some("x")] {
        let resolved = world.resolve(toolchain, Compiler::At(link.clone())).await.unwrap();
        assert_eq!(resolved.program, link);
        assert_eq!(resolved.toolchain.definition.name.as_str(), "x");
    }
}

#[tokio::test]
async fn another_compiler_is_refused_and_stays_usable_here() {
    let world = World::new();
    world.write("x.toml", FILE);
    let copy = world
        .sdk
        .executable("other/x-gcc", fs::read(world.sdk.path("bin/x-gcc")).unwrap());
    let refused = world.resolve(Some("x"), Compiler::At(copy.clone())).await.unwrap_err();
    assert_eq!(refused.reason, Reason::CompilerNotInToolchain);
    assert_eq!(refused.program, Some(copy.clone()));
    let unknown = world.resolve(None, Compiler::At(copy)).await.unwrap_err();
    assert_eq!(unknown.reason, Reason::NoToolchain);
}

#[tokio::test]
async fn compiler_that_has_to_be_told_to_be_the_toolchains_is_another_when_it_is_named() {
    let world = World::new();
    let host = Host::current();
    let file = format!(
        "name = \"x\"\ntarget = \"arm-linux-gnueabi\"\n\n[[variant]]\nhost = \"{host}\"\ncompilers.c = \"x-gcc\"\ndefaults = [\"-marm\"]\n"
    );
    world.write("x.toml", &file);
    let resolved = world.resolve(Some("x"), OWN).await.unwrap();
    assert_eq!(resolved.flags, ["-marm"]);
    let named = Compiler::At(world.sdk.path("bin/x-gcc"));
    let refused = world.resolve(Some("x"), named).await.unwrap_err();
    assert_eq!(refused.reason, Reason::CompilerNotInToolchain);
    assert!(refused.hint.unwrap().contains("leave the compiler out"));
}

#[tokio::test]
async fn changed_compiler_is_another_toolchain_at_once() {
    let world = World::new();
    world.write("x.toml", FILE);
    let before = world.resolve(Some("x"), OWN).await.unwrap();
    fs::write(world.sdk.path("lib/gcc/x/12/cc1"), "another program").unwrap();
    let after = world.resolve(Some("x"), OWN).await.unwrap();
    assert_ne!(before.toolchain.id, after.toolchain.id);
}

#[tokio::test]
async fn edited_toolchain_file_counts_at_once() {
    let world = World::new();
    world.write("x.toml", "name = \"x\"\n");
    let broken = world.resolve(Some("x"), OWN).await.unwrap_err();
    assert_eq!(broken.reason, Reason::ToolchainInvalid);
    assert!(
        broken.message.contains("x.toml") && broken.message.contains("target"),
        "{}",
        broken.message
    );
    world.write("x.toml", FILE);
    assert!(world.resolve(Some("x"), OWN).await.is_ok());
}

#[tokio::test]
async fn unknown_name_is_asked_for_elsewhere_and_kept() {
    let mut world = World::new();
    let unknown = world.resolve(Some("x"), OWN).await.unwrap_err();
    assert_eq!((unknown.reason, unknown.program), (Reason::ToolchainUnknown, None));
    world.elsewhere.told = Told::NoAnswer;
    let unasked = world.resolve(Some("x"), OWN).await.unwrap_err();
    assert_eq!(unasked.reason, Reason::NoCoordinator);
    assert!(unasked.message.contains("cannot be asked"), "{}", unasked.message);
    world.elsewhere.told = Told::Text(FILE.to_owned());
    assert!(world.resolve(Some("x"), OWN).await.is_ok());
    assert!(world.resolve(Some("x"), OWN).await.is_ok());
    assert_eq!(world.elsewhere.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn missing_compiler_is_explained_and_not_looked_for_again_at_once() {
    let world = World::new();
    world.write("x.toml", &FILE.replace("x-gcc", "y-gcc"));
    let missing = world.resolve(Some("x"), OWN).await.unwrap_err();
    assert_eq!(missing.reason, Reason::CaptureFailed);
    assert!(missing.message.contains("`y-gcc`"), "{}", missing.message);
    world.sdk.executable("bin/y-gcc", "#!/bin/sh\n");
    assert_eq!(
        world.resolve(Some("x"), OWN).await.unwrap_err().message,
        missing.message
    );
}

#[tokio::test]
async fn many_jobs_wait_for_one_capture() {
    let world = Arc::new(World::new());
    world.write("x.toml", FILE);
    let resolved = tokio::join!(
        world.resolve(Some("x"), OWN),
        world.resolve(Some("x"), OWN),
        world.resolve(Some("x"), OWN)
    );
    let (one, two, three) = (resolved.0.unwrap(), resolved.1.unwrap(), resolved.2.unwrap());
    assert!(Arc::ptr_eq(&one.toolchain, &two.toolchain) && Arc::ptr_eq(&two.toolchain, &three.toolchain));
}
