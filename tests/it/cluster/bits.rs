//! The same bits, the same words, the same files: a compile through the farm against the compiler itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use super::farm::{COMPILER, TestFarm, assert_same_files, has_compiler, snapshot, words};

const C: &str = "#include <stdio.h>\n#include <string.h>\n#include \"sub/a.h\"\n\
    struct list { struct list *next; int value; };\n\
    static inline int sum(const struct list *l) { int s = 0; for (; l; l = l->next) s += l->value; return s; }\n\
    int main(int argc, char **argv)\n{\n\tstruct list l = { 0, argc };\n\tchar b[64];\n\
    \tmemset(b, A, sizeof b);\n\tprintf(\"%s %d %s\\n\", argv[0], sum(&l), __FILE__);\n\treturn b[3];\n}\n";
const CXX: &str = "#include <map>\n#include <string>\n#include \"sub/a.h\"\n\
    std::map<std::string, int> table;\nint get(const std::string &key) { return table[key] + A; }\n";
const ASM: &str = "#include \"sub/a.h\"\n\t.text\n\t.global f\nf:\tmov r0, #A\n\tbx lr\n\t.incbin \"blob\"\n";

fn sources(farm: &TestFarm) {
    farm.write("a.c", C);
    farm.write("b.cc", CXX);
    farm.write("s.S", ASM);
    farm.write("sub/a.h", "#ifndef A\n#define A 7\n#endif\n#include \"../other.h\"\n");
    farm.write("other.h", "#pragma once\n");
    farm.write("blob", "some bytes\n");
    farm.write("flags", "-O2 '-DNAME=\"x y\"'\n");
    for dir in ["out", "inc"] {
        fs::create_dir_all(farm.src().join(dir)).expect("created");
    }
}

/// Runs the words through the compiler itself and through the farm, and asserts that nothing can tell the two apart.
fn check(farm: &TestFarm, compiler: &str, text: &str) {
    let fresh = || {
        let src = farm.src();
        fs::remove_dir_all(&src).expect("removed");
        fs::create_dir(&src).expect("created");
        sources(farm);
    };
    fresh();
    let mut local = farm.client(&std::path::Path::new("/usr/bin").join(compiler));
    let local = local.arg0_of(compiler).args(words(text)).output().expect("runs");
    let expected = snapshot(&farm.src());
    fresh();
    let mut remote = farm.rdcc();
    let remote = remote
        .args(["--toolchain", "arm926", compiler])
        .args(words(text))
        .env("RDCC_STRICT", "1")
        .output()
        .expect("runs");
    let what = format!("{compiler} {text}");
    assert_same_words(&remote, &local, &what, farm);
    let found = snapshot(&farm.src());
    if text.contains("--coverage") {
        // The compiler puts the time of day into both files.
        let sizes = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<(PathBuf, usize)> {
            files
                .iter()
                .map(|(name, content)| (name.clone(), content.len()))
                .collect()
        };
        assert_eq!(sizes(&found), sizes(&expected), "{what}");
    } else {
        assert_same_files(&found, &expected, &what);
    }
}

fn assert_same_words(remote: &Output, local: &Output, what: &str, farm: &TestFarm) {
    let shown = |output: &Output| {
        (
            output.status,
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(shown(remote), shown(local), "{what}\n{}", farm.logs());
}

trait Arg0 {
    fn arg0_of(&mut self, name: &str) -> &mut Self;
}

impl Arg0 for std::process::Command {
    fn arg0_of(&mut self, name: &str) -> &mut Self {
        std::os::unix::process::CommandExt::arg0(self, name)
    }
}

const GXX: &str = "arm-linux-gnueabi-g++";

#[test]
fn objects_and_every_other_file_are_those_of_the_local_compiler() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 2)]);
    let rows = [
        (COMPILER, "-c a.c"),
        (COMPILER, "-c a.c -o out/a.o"),
        (COMPILER, "-O2 -g -c a.c -o a.o"),
        (COMPILER, "-g3 -O1 -c a.c -o out/a.o"),
        (COMPILER, "-Os -flto -frandom-seed=x -c a.c -o a.o"),
        (COMPILER, "-gsplit-dwarf -O2 -c a.c -o out/a.o"),
        (COMPILER, "--coverage -c a.c -o out/a.o"),
        (COMPILER, "-save-temps -c a.c -o a.o"),
        (COMPILER, "-save-temps=obj -c a.c -o out/a.o"),
        (COMPILER, "-MMD -c a.c -o out/a.o"),
        (COMPILER, "-MD -MP -MT x.o -MF out/x.d -c a.c -o out/a.o"),
        (COMPILER, "-Wp,-MMD,out/.a.d -MP -c a.c -o out/a.o"),
        (COMPILER, "-fdump-tree-all -O1 -c a.c -o out/a.o"),
        (COMPILER, "-fstack-usage -fcallgraph-info -c a.c -o out/a.o"),
        (COMPILER, "@flags -c a.c -o a.o"),
        (COMPILER, "@flags -MMD -c a.c -o a.o"),
        (COMPILER, "-pipe -Wa,-ahlns=out/a.lst -c a.c -o a.o"),
        (COMPILER, "-Iinc -Inone -isystem sub -c a.c -o a.o"),
        (COMPILER, "-include sub/a.h -D A=3 -c a.c"),
        (COMPILER, "-S a.c -o out/a.s"),
        (COMPILER, "-S -fverbose-asm a.c"),
        (COMPILER, "-c s.S"),
        (COMPILER, "-g -MD -c s.S -o out/s.o"),
        (COMPILER, "-Wall -Wextra -Wunused -O2 -c a.c -o a.o"),
        (COMPILER, "-frecord-gcc-switches -g -MMD -c a.c -o a.o"),
        (COMPILER, "-ffile-prefix-map=/=/x/ -g -c a.c -o a.o"),
        (GXX, "-c b.cc -o b.o"),
        (GXX, "-O2 -g -std=c++20 -c b.cc -o out/b.o"),
        (GXX, "-MMD -MP -c b.cc -o out/b.o"),
    ];
    for (compiler, text) in rows {
        check(&farm, compiler, text);
    }
    let stats = farm.stats();
    assert_eq!(stats["remote_by_mode"]["A"], rows.len(), "{stats:#}\n{}", farm.logs());
}

#[test]
fn compile_errors_are_those_of_the_local_compiler() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    let rows = [
        "-c a.c -DA=;",
        "-c a.c -Dmain=3",
        "-Wall -c a.c -DA=\"x\"",
        "-c none.c",
        "-c a.c -o none/a.o",
        "-c a.c -include none.h",
        "-MMD -c a.c -DA=) -o out/a.o",
        "-Werror -Wall -Wextra -O2 -c a.c -Dargc=unused",
        "-c s.S -Dmov=nonsense",
        "-fno-such-option -c a.c",
        "-fdiagnostics-color=always -c a.c -DA=;",
    ];
    for text in rows {
        check(&farm, COMPILER, text);
    }
}

#[test]
fn locale_of_the_client_is_kept() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    sources(&farm);
    for locale in ["C", "C.UTF-8", "en_US.UTF-8"] {
        let mut local = farm.client(std::path::Path::new("/usr/bin/arm-linux-gnueabi-gcc"));
        local
            .arg0_of(COMPILER)
            .args(["-c", "a.c", "-DA=;"])
            .env("LC_ALL", locale);
        let mut remote = farm.compile(&["-c", "a.c", "-DA=;"]);
        remote.env("LC_ALL", locale);
        let (local, remote) = (local.output().expect("runs"), remote.output().expect("runs"));
        assert_same_words(&remote, &local, locale, &farm);
    }
    assert_eq!(farm.stats()["remote"], 3, "{:#}", farm.stats());
}
