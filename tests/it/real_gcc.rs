//! What `rdcc::compile` says about gcc, held against gcc itself: lists of dependencies, and objects from preprocessed
//! text. A compiler that is not installed is skipped, and said so.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rdcc::compile::{
    CompileCommand, DependencyFile, Driver, Verdict, exactness, local_preprocess, parse, remote_compile,
    text_exactness, with_full_dependencies,
};

const COMPILERS: [(&str, Driver); 4] = [
    ("arm-linux-gnueabi-gcc", Driver::C),
    ("arm-linux-gnueabi-g++", Driver::Cxx),
    ("gcc", Driver::C),
    ("g++", Driver::Cxx),
];

/// A directory with sources, and a compiler to run in it.
struct Bench {
    dir: tempfile::TempDir,
    compiler: &'static str,
    driver: Driver,
}

impl Bench {
    /// One bench for each compiler of `driver` that is installed.
    fn all(driver: Driver) -> Vec<Bench> {
        let installed = |compiler: &&(&'static str, Driver)| {
            let found = Command::new(compiler.0).arg("--version").output().is_ok();
            if !found {
                eprintln!("skipped: `{}` is not installed", compiler.0);
            }
            found
        };
        COMPILERS
            .iter()
            .filter(|compiler| compiler.1 == driver)
            .filter(installed)
            .map(|(compiler, driver)| {
                let bench = Bench {
                    dir: tempfile::tempdir().expect("a directory"),
                    compiler,
                    driver: *driver,
                };
                bench.write_sources();
                bench
            })
            .collect()
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: impl AsRef<Path>, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn write_sources(&self) {
        fs::create_dir_all(self.path("o")).expect("a directory");
        self.write(
            "inc/mine.h",
            "#define SQUARE(x) ((x) * (x))\n#ifndef __ASSEMBLER__\nextern int mine(int);\n#endif\n",
        );
        self.write("sys/macros.h", "#define MACRO 1\nint dropped;\n");
        self.write("sys/theirs.h", "#include <stddef.h>\n");
        self.write("d/plain.c", PLAIN_C);
        self.write("d/plain.cc", PLAIN_CXX);
        self.write("d/code.S", "#include \"mine.h\"\n\t.text\n# a comment, and an # odd one\n\t.globl SYM\nSYM:\n\t.long SQUARE(3), __LINE__\n\t.asciz __FILE__\n");
        let odd = [
            "a b.h",
            "h#1.h",
            "d$x.h",
            r"bs\ sp.h",
            r"b\c.h",
            "q'q.h",
            "p%.h",
            "c:o.h",
            "ü.h",
        ];
        let mut text = String::new();
        for name in odd {
            self.write(Path::new("odd").join(name), "");
            text.push_str(&format!("#include \"odd/{name}\"\n"));
        }
        self.write("odd.c", &text);
        let mut text = String::from("#include <stdio.h>\n");
        for number in 0..120 {
            let name = format!("h{}{number}.h", "x".repeat(number % 67));
            self.write(Path::new("many").join(&name), "");
            text.push_str(&format!("#include \"many/{name}\"\n"));
        }
        self.write("many.c", &text);
    }

    fn run(&self, argv: &[OsString]) -> Output {
        Command::new(self.compiler)
            .args(argv)
            .current_dir(self.dir.path())
            .output()
            .expect("the compiler runs")
    }

    fn run_well(&self, argv: &[OsString]) {
        let output = self.run(argv);
        assert!(
            output.status.success(),
            "{} {argv:?}: {}",
            self.compiler,
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn parse(&self, argv: &[OsString]) -> CompileCommand {
        match parse(argv, &[], self.driver, &mut |path| fs::read(self.path(path))) {
            Verdict::Remote(command) => *command,
            Verdict::Local(local) => panic!("{argv:?}: {}", local.reason),
        }
    }

    fn take(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let path = self.path(path);
        let bytes = fs::read(&path).ok()?;
        fs::remove_file(path).expect("the file can be removed");
        Some(bytes)
    }
}

const PLAIN_C: &str = r#"
#include <assert.h>
#include <stdio.h>
#include "mine.h"
#include "theirs.h"
static int counter;
int mine(int x)
{
    static const char name[] = __FILE__;
    static int calls;
    assert(x > 0); calls++;
    switch (x) { case 1: counter++; break; default: counter += SQUARE(x); }
    printf("%s:%d %s %d\n", name, __LINE__, __func__, SQUARE(
        x + 1) + __COUNTER__);
    return counter + calls;
}
_Pragma("GCC visibility push(hidden)")
int hidden(void) { return __LINE__; }
_Pragma("GCC visibility pop")
__asm__(".section .note.x,\"a\"\n.long 1\n.previous");
"#;

const PLAIN_CXX: &str = r#"
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>
#include "mine.h"
namespace { struct Local { virtual ~Local() {} int x = SQUARE(3); }; }
template <class T> T twice(T x) { static T last; auto f = [&](T y) { return last = y + x; }; return f(x); }
std::map<const char *, std::vector<int>> table;
int mine(int x) try {
    auto local = std::make_unique<Local>();
    table[__FILE__].push_back(local->x + twice(x));
    if (x < 0) throw std::runtime_error(R"(raw "string"
over lines)");
    return [] { static int calls; return ++calls + __LINE__; }();
} catch (const std::exception &e) { return e.what()[0]; }
"#;

fn words(line: &str) -> Vec<OsString> {
    line.split(' ')
        .filter(|word| !word.is_empty())
        .map(OsString::from)
        .collect()
}

const DEPENDENCY_COMMANDS: [&str; 18] = [
    "-c d/plain.c -Iinc -isystem sys -MMD",
    "-c d/plain.c -Iinc -isystem sys -MMD -MP -o o/x.o",
    "-c d/plain.c -Iinc -isystem sys -MD -MMD -o o/x",
    "-S d/plain.c -Iinc -isystem sys -MMD -MF o/y.d",
    "-c d/plain.c -Iinc -isystem sys -MMD -MT t$x -MQ q$y -MTz -o o/x.o",
    "-c d/plain.c -Iinc -isystem sys -Wp,-MMD,o/.x.d -o o/x.o",
    "-c d/plain.c -Iinc -isystem sys -Wp,-DX,-MMD,o/.x.d,-MP -MMD -MT q -Wp,-MQ,w#w",
    "-c d/plain.c -Iinc -isystem sys -Xpreprocessor -MMD -Xpreprocessor x.d -MMD -MFy.d -o o/x.o",
    "-c d/plain.c -Iinc -isystem sys --write-user-dependencies",
    "-c d/code.S -Iinc -DSYM=s -MMD",
    "-c d/code.S -Iinc -DSYM=s -MMD -o o/code.o -MP",
    "-c odd.c -MMD -MP",
    "-c odd.c -MMD -o o/odd.name.o",
    "-c many.c -MMD -MP",
    "-c many.c -MMD -o o/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.o",
    "-c many.c -MMD -MQ xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx -MQ yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy -MT zzzzzzz",
    "-c -x c d/plain.c -x none -Iinc -isystem sys -MMD -o.o",
    "-c many.c -MMD -Wp,-MT,one -Wp,-MQ,two -o o/m.o",
];

#[test]
fn lists_of_user_headers_are_made_from_full_lists() {
    for bench in Bench::all(Driver::C) {
        for line in DEPENDENCY_COMMANDS {
            let argv = words(line);
            let command = bench.parse(&argv);
            let asked = command.dependencies.clone().expect("a list");
            bench.run_well(&argv);
            let user = bench
                .take(&asked.file)
                .unwrap_or_else(|| panic!("no {:?}: {line}", asked.file));

            let mut list = DependencyFile::parse(&user).unwrap_or_else(|e| panic!("{line}: {e}"));
            let written = DependencyFile::new(&asked.targets, list.files().to_vec(), asked.phony);
            assert_eq!(text(&written.to_bytes()), text(&user), "written anew: {line}");

            let user_files = list.files().to_vec();
            bench.run_well(&with_full_dependencies(&command).expect("can be had"));
            let full = bench.take(&asked.file).expect("a full list");
            list = DependencyFile::parse(&full).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(list.files().len() > user_files.len(), "{line}");
            list.retain_headers(|path| user_files.iter().any(|file| file == path));
            assert_eq!(text(&list.to_bytes()), text(&user), "made from the full list: {line}");
        }
    }
}

#[test]
fn full_lists_are_read_and_written_anew() {
    for bench in Bench::all(Driver::Cxx) {
        for options in ["", "-MP", "-MT x -MP"] {
            let argv = words(&format!("-c d/plain.cc -Iinc -MD {options} -o o/p.o"));
            let asked = bench.parse(&argv).dependencies.expect("a list");
            bench.run_well(&argv);
            let full = bench.take(&asked.file).expect("a list");
            let list = DependencyFile::parse(&full).expect("readable");
            assert!(list.files().len() > 50);
            let written = DependencyFile::new(&asked.targets, list.files().to_vec(), asked.phony);
            assert_eq!(text(&written.to_bytes()), text(&full), "{options}");
        }
    }
}

const OBJECT_OPTIONS: [&str; 9] = [
    "-O2",
    "-Os -ffunction-sections -g -g0 -Wall -Wextra",
    "-O3 -fPIC -fstack-protector-strong -pipe",
    "-Og -fvisibility=hidden -fno-strict-aliasing -pg",
    "-O1 -fomit-frame-pointer -fverbose-asm -MD",
    "-O2 -MMD -MP -MT one -MF o/list",
    "-O2 -Wp,-MMD,o/list -Wp,-D_FORTIFY_SOURCE=2",
    "-O2 -include inc/mine.h -imacros sys/macros.h -DX=1 -UY -fmacro-prefix-map=d/=x/",
    "-S -O2",
];

#[test]
fn objects_from_preprocessed_text_are_the_same() {
    for driver in [Driver::C, Driver::Cxx] {
        for bench in Bench::all(driver) {
            let sources: &[&str] = match driver {
                Driver::C => &["d/plain.c", "d/code.S"],
                Driver::Cxx => &["d/plain.cc"],
            };
            // A C++ compile is slow, and every third says as much as all of them.
            let step = if driver == Driver::Cxx { 3 } else { 1 };
            for source in sources {
                for options in OBJECT_OPTIONS.into_iter().step_by(step) {
                    if source.ends_with(".S") && options.contains("-S") {
                        continue;
                    }
                    let line = format!("-c {source} -Iinc -isystem sys -DSYM=sym {options} -o o/p.o");
                    check_preprocessed(&bench, &words(&line), &line);
                }
            }
        }
    }
}

fn check_preprocessed(bench: &Bench, argv: &[OsString], line: &str) {
    let command = bench.parse(argv);
    exactness(&command).unwrap_or_else(|reason| panic!("{line}: {reason}"));
    let list = command.dependencies.as_ref().map(|asked| asked.file.clone());
    let take_list = || list.as_ref().map(|file| bench.take(file).expect("a list"));
    bench.run_well(argv);
    let plain = bench.take(&command.output).expect("an object");
    let plain_list = take_list();

    bench.run_well(&local_preprocess(&command, Path::new("o/text")));
    assert_eq!(take_list(), plain_list, "list: {line}");
    let preprocessed = bench.take("o/text").expect("a text");
    text_exactness(&preprocessed).unwrap_or_else(|reason| panic!("{line}: {reason}"));

    let original = fs::read(bench.path(&command.source)).expect("the source");
    fs::write(bench.path(&command.source), preprocessed).expect("written");
    // Nothing but the text is there when it is compiled elsewhere.
    fs::rename(bench.path("inc"), bench.path("inc.away")).expect("renamed");
    bench.run_well(&remote_compile(&command));
    fs::rename(bench.path("inc.away"), bench.path("inc")).expect("renamed");
    fs::write(bench.path(&command.source), original).expect("written");
    let object = bench.take(&command.output).expect("an object");
    assert!(object == plain, "object differs: {line}");
}

fn text(bytes: &[u8]) -> String {
    OsStr::from_bytes(bytes).to_string_lossy().into_owned()
}
