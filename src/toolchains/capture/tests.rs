//! Capture, of compilers made up for the purpose and of the real ones installed here.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{self, Stdio};

use super::*;
use crate::toolchains::elf::tests::Sample;
use crate::toolchains::manifest::Entry;

/// Writes a program that a test is to run.
///
/// Another process writes it: were this one to hold it open for writing, a child that another test forks at that moment
/// would keep it open too, and starting it would fail as "text file busy".
pub(crate) fn write_program(path: &Path, content: &[u8]) {
    let mut written = process::Command::new("sh")
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = written.stdin.take().unwrap();
    input.write_all(content).unwrap();
    drop(input);
    assert!(written.wait().unwrap().success(), "{}", path.display());
}

/// A directory tree with a compiler that is a shell script and answers the questions that capture asks.
pub(crate) struct FakeSdk {
    dir: tempfile::TempDir,
}

impl FakeSdk {
    pub(crate) fn new() -> Self {
        let sdk = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let lib = sdk.path("lib/gcc/x/12");
        for directory in [lib.join("include/sub"), lib.join("plugin/include"), sdk.path("bin")] {
            fs::create_dir_all(directory).unwrap();
        }
        for name in ["cc1", "cc1plus", "as", "ld"] {
            sdk.executable(&format!("lib/gcc/x/12/{name}"), "program");
        }
        let files = [
            "include/stddef.h",
            "include/sub/x.h",
            "libgcc.a",
            "specs",
            "libgomp.spec",
            "crtbegin.o",
            "plugin/p.so",
            "plugin/include/gimple.h",
        ];
        for name in files {
            fs::write(lib.join(name), name).unwrap();
        }
        let answers = format!(
            "#!/bin/sh\n\
             find() {{ if test -e {lib}/$1; then echo {lib}/$1; else echo $1; fi; }}\n\
             case $1 in\n\
             -v) echo COLLECT_GCC=$0 >&2;;\n\
             -dumpmachine) echo armv5te-unknown-linux-gnueabi;;\n\
             -print-*-name=*) find ${{1#*=}};;\n\
             esac\n",
            lib = lib.display()
        );
        sdk.executable("bin/x-gcc-12", &answers);
        symlink("x-gcc-12", sdk.path("bin/x-gcc")).unwrap();
        sdk
    }

    /// Returns a path in the tree, free of links as manifests have it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    pub(crate) fn executable(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_program(&path, content.as_ref());
        path
    }

    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings {
            path: [self.path("bin"), "/usr/bin".into(), "/bin".into()].into(),
            own_program: Some(self.path("rdcc-under-test")),
            environment: Vec::new(),
        }
    }

    pub(crate) fn definition(&self, compiler: &str, more: &str) -> Definition {
        let text = format!("name = \"x\"\ntarget = \"arm-linux-gnueabi\"\ncompilers.c = \"{compiler}\"\n{more}");
        Definition::parse(&text).unwrap()
    }

    pub(crate) fn capture(&self, compiler: &str, more: &str) -> Result<Captured, CaptureError> {
        let definition = self.definition(compiler, more);
        capture(&definition, Host::current(), &self.surroundings(), &mut |_, _| {})
    }

    fn error(&self, compiler: &str, more: &str) -> String {
        self.capture(compiler, more).unwrap_err().to_string()
    }
}

#[test]
fn compiler_links_headers_and_specs_are_taken_and_link_time_files_left() {
    let sdk = FakeSdk::new();
    let captured = sdk.capture("x-gcc", "").unwrap();
    let manifest = &captured.manifest;
    let has = |name: &str| manifest.entry(&sdk.path(name)).is_some();
    assert_eq!(manifest.compilers()[&Language::C], sdk.path("bin/x-gcc"));
    assert!(matches!(manifest.entry(&sdk.path("bin/x-gcc")), Some(Entry::Symlink { target }) if target == "x-gcc-12"));
    for name in [
        "bin/x-gcc-12",
        "lib/gcc/x/12/cc1",
        "lib/gcc/x/12/ld",
        "lib/gcc/x/12/include/sub/x.h",
    ] {
        assert!(has(name), "{name}");
    }
    for name in ["specs", "libgomp.spec", "plugin/p.so"] {
        assert!(has(&format!("lib/gcc/x/12/{name}")), "{name}");
    }
    for name in ["libgcc.a", "crtbegin.o", "plugin/include"] {
        assert!(!has(&format!("lib/gcc/x/12/{name}")), "{name}");
    }
    assert!(
        captured
            .stamps
            .iter()
            .any(|(path, _)| *path == sdk.path("lib/gcc/x/12"))
    );
}

#[test]
fn identity_depends_on_content_only() {
    let sdk = FakeSdk::new();
    let before = sdk.capture("x-gcc", "").unwrap().manifest.id();
    let cc1 = sdk.path("lib/gcc/x/12/cc1");
    fs::write(&cc1, "program").unwrap();
    fs::set_permissions(&cc1, fs::Permissions::from_mode(0o775)).unwrap();
    assert_eq!(
        sdk.capture("x-gcc", "description = \"other\"\n").unwrap().manifest.id(),
        before
    );
    fs::write(&cc1, "programs").unwrap();
    assert_ne!(sdk.capture("x-gcc", "").unwrap().manifest.id(), before);
}

#[test]
fn launchers_on_the_path_are_passed_over() {
    let sdk = FakeSdk::new();
    let own = sdk.executable("rdcc-under-test", "");
    let ccache = sdk.executable("masks/ccache", "");
    symlink(&own, sdk.path("masks/x-gcc")).unwrap();
    symlink(&ccache, sdk.path("masks/y-gcc")).unwrap();
    let path = format!("path = [\"{}\"]\n", sdk.path("masks").display());
    let captured = sdk.capture("x-gcc", &path).unwrap();
    assert_eq!(captured.manifest.compilers()[&Language::C], sdk.path("bin/x-gcc"));
    let error = sdk.error("y-gcc", &path);
    assert!(
        error.contains("masks/y-gcc`, which only start another compiler"),
        "{error}"
    );
    assert!(
        error.contains("compiler `y-gcc` for c not found; looked at `"),
        "{error}"
    );
}

#[test]
fn script_wrapper_is_followed_to_its_compiler() {
    let sdk = FakeSdk::new();
    sdk.executable(
        "bin/wrapped",
        "#!/bin/sh\nexec \"$(dirname \"$0\")\"/x-gcc -pipe \"$@\"\n",
    );
    // The stand-in for gcc looks at its first argument only.
    sdk.executable("bin/plain", "#!/bin/sh\nexec \"$(dirname \"$0\")\"/x-gcc \"$@\"\n");
    let captured = sdk.capture("plain", "").unwrap();
    for name in ["bin/plain", "bin/x-gcc", "bin/x-gcc-12"] {
        assert!(captured.manifest.entry(&sdk.path(name)).is_some(), "{name}");
    }
    assert!(captured.manifest.covers(Path::new("/bin/sh")));
    assert!(captured.by_path.iter().any(|(name, _)| name == "dirname"));
    let error = sdk.error("wrapped", "");
    assert!(
        error.contains("bin/wrapped` is a wrapper") && error.contains("`include`"),
        "{error}"
    );
}

#[test]
fn script_whose_compiler_is_missing_is_named_with_what_to_do() {
    let sdk = FakeSdk::new();
    sdk.executable("bin/lost", "#!/bin/sh\nexec /nowhere/gcc \"$@\"\n");
    sdk.executable("bin/snake", "#!/usr/bin/python3\n");
    let error = sdk.error("lost", "");
    assert!(
        error.contains("bin/lost` is a wrapper, and what it executes, `/nowhere/gcc`"),
        "{error}"
    );
    assert!(error.contains("name the real compiler in `compilers`"), "{error}");
    let error = sdk.error("snake", "");
    assert!(error.contains("`/usr/bin/python3` cannot be followed"), "{error}");
}

#[test]
fn buildroot_wrapper_brings_its_neighbour() {
    let sdk = FakeSdk::new();
    sdk.executable("bin/toolchain-wrapper", "#!/bin/sh\nexec $0.br_real \"$@\"\n");
    symlink("toolchain-wrapper", sdk.path("bin/br-gcc")).unwrap();
    fs::rename(sdk.path("bin/x-gcc-12"), sdk.path("bin/br-gcc.br_real")).unwrap();
    let captured = sdk.capture("br-gcc", "").unwrap();
    for name in ["bin/br-gcc", "bin/toolchain-wrapper", "bin/br-gcc.br_real"] {
        assert!(captured.manifest.entry(&sdk.path(name)).is_some(), "{name}");
    }
}

#[test]
fn compiled_wrapper_is_followed_by_what_its_compiler_says() {
    let sdk = FakeSdk::new();
    let source = sdk.path("wrapper.c");
    let program = format!(
        "#include <unistd.h>\nint main(int c, char **v) {{ v[0] = \"{0}\"; return execv(v[0], v); }}\n",
        sdk.path("bin/x-gcc").display()
    );
    fs::write(&source, program).unwrap();
    let wrapper = sdk.path("wrap/y-gcc");
    fs::create_dir(wrapper.parent().unwrap()).unwrap();
    let compiled = std::process::Command::new("gcc")
        .arg(&source)
        .arg("-o")
        .arg(&wrapper)
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("skipped: no gcc here");
        return;
    }
    let captured = sdk.capture(wrapper.to_str().unwrap(), "").unwrap();
    for name in ["wrap/y-gcc", "bin/x-gcc", "bin/x-gcc-12", "lib/gcc/x/12/cc1"] {
        assert!(captured.manifest.entry(&sdk.path(name)).is_some(), "{name}");
    }
}

#[test]
fn missing_loader_and_library_name_the_file_that_needs_them() {
    let sdk = FakeSdk::new();
    let include = |path: &Path| format!("include = [\"{}\"]\n", path.display());
    let tool = sdk.executable("extra/tool", Sample::new(Some("/nowhere/ld.so"), &[]).bytes());
    let error = sdk.error("x-gcc", &include(&tool));
    assert!(
        error.contains("extra/tool` needs the loader `/nowhere/ld.so`, which is missing"),
        "{error}"
    );

    let loader = sdk.executable("extra/ld.so", b"loader\0/built/in/lib/\0");
    let tool = sdk.executable("extra/tool", Sample::new(loader.to_str(), &["libq.so.1"]).bytes());
    let error = sdk.error("x-gcc", &include(&tool));
    assert!(
        error.contains("extra/tool` needs the library `libq.so.1`, found in none of"),
        "{error}"
    );
    assert!(error.contains("`/built/in/lib`"), "{error}");
}

#[test]
fn libraries_are_followed_by_rpath_and_only_of_the_same_machine() {
    let sdk = FakeSdk::new();
    let loader = sdk.executable("extra/ld.so", b"loader\0/built/in/lib/\0");
    let mut tool = Sample::new(loader.to_str(), &["liba.so"]);
    tool.runpath = Some("$ORIGIN/wrong:$ORIGIN/lib".to_owned());
    let tool = sdk.executable("extra/tool", tool.bytes());
    let mut other = Sample::new(None, &[]);
    other.machine = 40;
    sdk.executable("extra/wrong/liba.so", other.bytes());
    let mut a = Sample::new(None, &["libb.so"]);
    a.rpath = Some("$ORIGIN/deeper".to_owned());
    sdk.executable("extra/lib/liba.so.1.2", a.bytes());
    symlink("liba.so.1.2", sdk.path("extra/lib/liba.so")).unwrap();
    sdk.executable("extra/lib/deeper/libb.so", Sample::new(None, &[]).bytes());
    let more = format!("include = [\"{}\"]\n", tool.display());
    let captured = sdk.capture("x-gcc", &more).unwrap();
    for name in ["ld.so", "lib/liba.so", "lib/liba.so.1.2", "lib/deeper/libb.so"] {
        assert!(
            captured.manifest.entry(&sdk.path(&format!("extra/{name}"))).is_some(),
            "{name}"
        );
    }
    assert!(!captured.manifest.covers(&sdk.path("extra/wrong/liba.so")));
}

#[test]
fn programs_of_the_target_in_an_included_system_root_need_no_loader() {
    let sdk = FakeSdk::new();
    let mut tool = Sample::new(Some("/lib/ld-linux.so.3"), &["libc.so.6"]);
    tool.machine = 40;
    tool.wide = false;
    let tool = sdk.executable("sysroot/bin/tool", tool.bytes());
    let more = format!("include = [\"{}\"]\n", sdk.path("sysroot").display());
    assert!(sdk.capture("x-gcc", &more).unwrap().manifest.covers(&tool));
}

#[test]
fn included_directory_comes_whole_and_keeps_dangling_links() {
    let sdk = FakeSdk::new();
    fs::create_dir_all(sdk.path("more/empty")).unwrap();
    symlink("gone", sdk.path("more/dangling")).unwrap();
    let more = format!("include = [\"{}\"]\n", sdk.path("more").display());
    let captured = sdk.capture("x-gcc", &more).unwrap();
    for name in ["more/empty", "more/dangling"] {
        assert!(captured.manifest.entry(&sdk.path(name)).is_some(), "{name}");
    }
    let fifo = sdk.path("more/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(
        sdk.error("x-gcc", &more)
            .contains("more/fifo` is a device, socket or pipe")
    );
}

#[test]
fn compilers_that_are_not_what_the_file_says_are_refused() {
    let sdk = FakeSdk::new();
    let error = sdk.error("absent-gcc", "");
    assert!(
        error.starts_with("compiler `absent-gcc` for c not found; looked at `"),
        "{error}"
    );
    sdk.executable("bin/fails", "#!/bin/sh\necho no such option >&2\nexit 1\n");
    assert!(sdk.error("fails", "").contains("-v` failed: no such option"));
    fs::remove_file(sdk.path("lib/gcc/x/12/cc1")).unwrap();
    assert!(
        sdk.error("x-gcc", "")
            .contains("has no `cc1`: is the compiler for c installed whole?")
    );
    let answers = fs::read_to_string(sdk.path("bin/x-gcc-12")).unwrap();
    sdk.executable("bin/x-gcc-12", answers.replace("gnueabi", "musl"));
    assert!(
        sdk.error("x-gcc", "")
            .contains("makes code for `armv5te-unknown-linux-musl`")
    );
}

/// The compilers of this machine, with what has to be among their files. Absent ones are passed over, aloud.
#[test]
fn real_compilers_are_captured_whole() {
    let surroundings = Surroundings {
        path: ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).into(),
        own_program: None,
        environment: Vec::new(),
    };
    for compiler in ["gcc", "arm-linux-gnueabi-gcc"] {
        let found = find(&Command::Named(compiler.to_owned()), &[], &surroundings);
        let Ok(path) = found else {
            println!("skipped: no {compiler} here");
            continue;
        };
        let driver = Driver {
            path: &path,
            flags: &[],
            surroundings: &surroundings,
        };
        let target = driver.target().unwrap();
        let text = format!("name = \"x\"\ntarget = \"{target}\"\ncompilers.c = \"{compiler}\"\n");
        let definition = Definition::parse(&text).unwrap();
        let (mut done, mut total) = (0, 0);
        let captured = capture(&definition, Host::current(), &surroundings, &mut |now, all| {
            (done, total) = (now, all)
        });
        let manifest = captured.unwrap().manifest;
        assert!(done > 0 && done == total && total == manifest.content_bytes());
        for program in ["cc1", "as", "collect2", "lto1", "lto-wrapper", "ld", "objcopy"] {
            let path = driver.program(program).unwrap().unwrap().path;
            assert!(manifest.covers(&path), "{program}");
        }
        let plugin = driver.file("liblto_plugin.so").unwrap().unwrap();
        let stddef = driver.file("include").unwrap().unwrap().join("stddef.h");
        assert!(manifest.covers(&plugin) && manifest.covers(&stddef));
        let archive = driver.file("libgcc.a").unwrap().unwrap();
        assert!(!manifest.covers(&archive));
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
        if std::env::var_os("RDCC_TEST_VERBOSE").is_some() {
            println!("{}", String::from_utf8_lossy(&manifest.encode()));
        }
    }
}
