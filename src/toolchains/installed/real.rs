//! The compilers of this machine, captured and made to stand in a root, have to make the same objects there.
//!
//! Needs `unshare` and the right to use user name spaces; passes with a word about it where that is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::ToolchainStore;
use crate::toolchains::bundle::pack;
use crate::toolchains::capture::{Surroundings, capture, find};
use crate::toolchains::definition::{self, Definition};
use crate::toolchains::host::Host;
use crate::toolchains::manifest::Manifest;

const SOURCE: &str = "int printf(const char *, ...);\n\
    static int twice(int x) { return 2 * x; }\n\
    int main(int argc, char **argv) { return printf(\"%d\\n\", twice(argc)); }\n";
const WARNING: &str = "int f(void) { int unused = 1; return 0; }\n";

/// Command lines that between them start every program that compiling needs, in the order of the sources.
const CASES: &[(&str, &str, &[&str])] = &[
    ("a.i", SOURCE, &["-O2", "-g"]),
    ("b.ii", SOURCE, &["-O1", "-x", "c++-cpp-output"]),
    ("c.i", SOURCE, &["-g", "-gsplit-dwarf"]),
    ("d.i", SOURCE, &["-flto", "-Os", "-frandom-seed=x"]),
    ("e.i", WARNING, &["-Wall", "-fdiagnostics-color=always"]),
    ("f.S", ".globl f\nf:\n#if 1\n.byte 1\n#endif\n", &[]),
    (
        "g.c",
        "#include <stddef.h>\n#include <stdarg.h>\nsize_t n;\n",
        &["-pipe"],
    ),
];

fn captured(compiler: &str) -> Option<(PathBuf, Manifest)> {
    let surroundings = Surroundings {
        path: ["/usr/bin", "/bin"].map(PathBuf::from).into(),
        own_program: None,
        environment: Vec::new(),
    };
    let command = definition::Command::Named(compiler.to_owned());
    let Ok(path) = find(&command, &[], &surroundings) else {
        println!("skipped: no {compiler} here");
        return None;
    };
    let target = Command::new(&path).arg("-dumpmachine").output().unwrap().stdout;
    let target = String::from_utf8(target).unwrap();
    let text = format!(
        "name = \"x\"\ntarget = \"{}\"\ncompilers.c = \"{compiler}\"\n",
        target.trim()
    );
    let definition = Definition::parse(&text).unwrap();
    let captured = capture(&definition, Host::current(), &surroundings, &mut |_, _| {}).unwrap();
    Some((path, captured.manifest))
}

/// Compiles every case in `/tmp` of `root`, and here, and compares what is left behind.
fn compare_objects(compiler: &Path, root: &Path) {
    let here = tempfile::tempdir_in("/tmp").unwrap();
    let there = root.join(here.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&there).unwrap();
    for (name, source, flags) in CASES {
        for directory in [here.path(), &there] {
            fs::write(directory.join(name), source).unwrap();
        }
        let object = here.path().join(format!("{name}.o"));
        let input = here.path().join(name);
        let run = |command: &mut Command| {
            command
                .args(*flags)
                .arg("-c")
                .arg(&input)
                .arg("-o")
                .arg(&object)
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("LC_ALL", "C.UTF-8")
                .current_dir("/")
                .output()
                .unwrap()
        };
        let local = run(&mut Command::new(compiler));
        let inside = run(Command::new("/usr/bin/unshare")
            .args(["-Ur", "/usr/sbin/chroot"])
            .arg(root)
            .arg(compiler));
        let said = String::from_utf8_lossy(&inside.stderr).into_owned();
        assert!(inside.status.success(), "{name}: {said}");
        assert_eq!(inside.stderr, local.stderr, "{name}");
    }
    for entry in fs::read_dir(here.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |directory: &Path| fs::read(directory.join(&name)).unwrap();
        assert_eq!(read(here.path()), read(&there), "{}", name.display());
    }
    let count = |directory: &Path| fs::read_dir(directory).unwrap().count();
    assert_eq!(count(here.path()), count(&there));
}

fn namespaces_work() -> bool {
    let probe = Command::new("/usr/bin/unshare")
        .args(["-Ur", "/usr/sbin/chroot", "/", "/bin/true"])
        .status();
    let work = probe.is_ok_and(|status| status.success());
    if !work {
        println!("skipped: no user name spaces here");
    }
    work
}

/// A copy of a root into which the test may write, since the store's own belongs to the store. It also gets the locale,
/// which is no part of a toolchain: agents send it with jobs that need it.
fn playground(root: &Path, copy: &Path) {
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("cp").arg("-a").arg(root).arg(copy));
    fs::create_dir(copy.join("tmp")).unwrap();
    if Path::new("/usr/lib/locale/C.utf8").exists() {
        fs::create_dir(copy.join("usr/lib/locale")).unwrap();
        run(Command::new("cp")
            .args(["-a", "/usr/lib/locale/C.utf8"])
            .arg(copy.join("usr/lib/locale")));
    }
}

#[test]
fn bundled_cross_compiler_makes_the_same_objects_in_its_root() {
    let Some((compiler, manifest)) = captured("arm-linux-gnueabi-gcc").filter(|_| namespaces_work()) else {
        return;
    };
    let manifest = Arc::new(manifest);
    let (bundle, bytes) = pack(&manifest, Path::new("/"), Vec::new(), 2, &mut |_, _| {}).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = ToolchainStore::open(&dir.path().join("store"), 1 << 30).unwrap();
    let mut partial = store.begin_fetch(&manifest, bundle).unwrap();
    partial.write(&bytes).unwrap();
    let pin = partial.finish(&mut |_, _| {}).unwrap();
    let copy = dir.path().join("copy");
    playground(pin.root(), &copy);
    compare_objects(&compiler, &copy);
    assert!(store.verify(manifest.id()).unwrap());
}

#[test]
fn installed_native_compiler_makes_the_same_objects_in_its_root() {
    let Some((compiler, manifest)) = captured("gcc").filter(|_| namespaces_work()) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = ToolchainStore::open(&dir.path().join("store"), 1 << 30).unwrap();
    let pin = store.adopt_installed(&Arc::new(manifest), &mut |_, _| {}).unwrap();
    let copy = dir.path().join("copy");
    playground(pin.root(), &copy);
    compare_objects(&compiler, &copy);
}
