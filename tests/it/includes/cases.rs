//! Hand-written units, each about one rule of the preprocessor, under many standards: the closure equals the compiler's.
//!
//! `cases.txt` holds them. The first compiler takes each under one standard, the next under its default one;
//! `RDCC_SCAN_CASES=all` takes all standards with every compiler.
//! A unit that the compiler rejects says nothing. What is marked `undecided` there must be refused with a reason where the
//! compiler takes it, everything else must be decided.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rdcc::compile::Driver;
use rdcc::includes::closure::NoClosure;
use rdcc::includes::source_tree::disk::{Bounds, DiskTree};

use super::{compilers, words};
use crate::support::gcc::{Compiler, difference, parse, spellings};

const CASES: &str = include_str!("cases.txt");

/// Standards besides the default, by language.
const C: [&str; 9] = [
    "c89",
    "gnu89",
    "iso9899:199409",
    "c99",
    "gnu99",
    "c11",
    "gnu11",
    "c2x",
    "gnu2x",
];
const CXX: [&str; 10] = [
    "c++98", "gnu++98", "c++11", "gnu++11", "c++14", "c++17", "c++20", "gnu++20", "c++23", "gnu++23",
];

/// One unit.
struct Case {
    /// Its number in the file, for messages.
    number: usize,
    languages: String,
    flags: Vec<OsString>,
    undecided: bool,
    source: String,
}

/// Reads the file of cases.
fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut asked = 0;
    for line in CASES.lines() {
        if let Some(head) = line.strip_prefix("== ") {
            let (languages, flags) = head.split_once(' ').unwrap_or((head, ""));
            let flags = words(flags);
            cases.push(Case {
                number: cases.len() + 1,
                languages: languages.to_owned(),
                undecided: flags.iter().any(|flag| flag == "undecided"),
                flags: flags.into_iter().filter(|flag| flag != "undecided").collect(),
                source: String::new(),
            });
            asked = 0;
        } else if let Some(case) = cases.last_mut() {
            match line.strip_prefix("? ") {
                Some(condition) => {
                    asked += 1;
                    let _ = writeln!(
                        case.source,
                        "#if {condition}\n#include \"t{asked}.h\"\n#else\n#include \"f{asked}.h\"\n#endif"
                    );
                }
                None => {
                    case.source.push_str(line);
                    case.source.push('\n');
                }
            }
        }
    }
    cases
}

/// The sources of all cases.
pub fn case_sources() -> Vec<Vec<u8>> {
    cases().into_iter().map(|case| case.source.into_bytes()).collect()
}

/// Writes the headers that the cases include.
pub fn write_tree(root: &Path) {
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory can be made");
        fs::write(path, text).expect("a header can be written");
    };
    for number in 1..40 {
        write(&format!("t{number}.h"), "");
        write(&format!("f{number}.h"), "");
    }
    for number in 1..9 {
        write(&format!("{number}.h"), "");
    }
    for (name, text) in HEADERS {
        write(name, text);
    }
    fs::create_dir_all(root.join("dir.h")).expect("a directory can be made");
    symlink("once.h", root.join("oncelink.h")).expect("a link can be made");
    for (name, like) in [("oncecopy.h", "once.h"), ("same2.h", "same1.h")] {
        let time = fs::metadata(root.join(like)).and_then(|data| data.modified());
        let file = fs::File::options().write(true).open(root.join(name));
        let set = file.and_then(|file| file.set_modified(time?));
        set.expect("a time can be set");
    }
}

const HEADERS: [(&str, &str); 47] = [
    ("sub/s.h", "#include \"z.h\"\n"),
    ("sub/z.h", ""),
    ("inc/z.h", ""),
    ("inc/x.h", ""),
    ("inc/y.h", "#define Y 1\n"),
    ("inc/my file.h", ""),
    ("my file.h", ""),
    (
        "inc/n.h",
        "#if __has_include_next(<n.h>)\n#include_next <n.h>\n#endif\n",
    ),
    (
        "inc2/n.h",
        "#if __has_include_next(\"n.h\")\n#include_next \"n.h\"\n#endif\n",
    ),
    (
        "inc3/n.h",
        "#if __has_include_next(\"n.h\")\n#include_next \"n.h\"\n#endif\n",
    ),
    ("inc4/n.h", "#include_next <z4.h>\n"),
    ("inc4/z4.h", ""),
    ("inc2/z4.h", ""),
    ("q/q.h", ""),
    ("once.h", "#pragma once\n#include \"sub/s.h\"\n"),
    ("oncecopy.h", "#pragma once\n#include \"sub/s.h\"\n"),
    ("same1.h", "/* same */\n"),
    ("same2.h", "/* same */\n"),
    (
        "guard.h",
        "// c\n#ifndef GUARD_H\n#define GUARD_H\n#include \"1.h\"\n#endif /* c */\n",
    ),
    (
        "guard2.h",
        "#if !defined GUARD2_H\n#define GUARD2_H\n#include \"2.h\"\n#else\n#include \"3.h\"\n#endif\n",
    ),
    (
        "self.h",
        "#if __INCLUDE_LEVEL__ < 5\n#include \"self.h\"\n#else\n#include \"5.h\"\n#endif\n",
    ),
    (
        "level.h",
        "#if __INCLUDE_LEVEL__ == 1\n#include \"6.h\"\n#else\n#include \"7.h\"\n#endif\n",
    ),
    ("line.h", "#if __LINE__ == 1\n#include \"8.h\"\n#endif\n"),
    ("ponce.h", "_Pragma(\"once\")\n#include \"cnt.h\"\n"),
    ("ponce2.h", "#define ONCE _Pragma(\"once\")\nONCE\n#include \"cnt.h\"\n"),
    (
        "syshdr.h",
        "#pragma GCC system_header\n#include \"1.h\"\n#warning hidden\n",
    ),
    ("mac.h", "#define MAC 5\n#include \"sub/s.h\"\nint text;\n"),
    (
        "macprag.h",
        "#define MAC 5\n_Pragma(\"push_macro(\\\"MAC\\\")\") int p;\n_Pragma(\"GCC poison KIT\")\n#include \"macnest.h\"\n#undef MAC\n",
    ),
    (
        "macnest.h",
        "_Pragma(\"once\")\n#ifdef NEST\n#define TWICE\n#endif\n#define NEST\n#define FIG 1\n#pragma push_macro(\"FIG\")\n",
    ),
    ("deep.h", "#include \"deep2.h\"\n"),
    ("deep2.h", "#include \"deep3.h\"\n"),
    ("deep3.h", ""),
    (
        "crlf.h",
        "#define CR 1\r\n#if CR == 1\r\n#include \"1.h\"\r\n#else\r\n#include \"no.h\"\r\n#endif\r\n/*\\\r\n*/\r\n",
    ),
    ("bom.h", "\u{feff}#include \"2.h\"\n"),
    ("noeol.h", "#include \"3.h\""),
    ("nul.h", "#define\0NUL 1\0\n#if NUL\n#include \"4.h\"\n#endif\n"),
    ("cr.h", "int a;\r#include \"no.h\"\nint b;\n"),
    ("splice.h", "#include \"5.h\"\\"),
    ("empty.h", ""),
    ("badcond.h", "#if 1\n#include \"1.h\"\n"),
    (
        "cnt.h",
        "#ifndef CNT1\n#define CNT1\n#include \"1.h\"\n#elif !defined CNT2\n#define CNT2\n#include \"2.h\"\n\
         #else\n#include \"3.h\"\n#endif\n",
    ),
    ("data.bin", "data"),
    ("sub/data.bin", "data"),
    ("asm.inc", ".incbin \"data.bin\"\n"),
    ("root/usr/include/r.h", ""),
    ("root/usr/include/stdio.h", ""),
    ("no", ""),
];

/// What one unit came to.
pub enum Compared {
    Equal,
    Rejected,
    Undecided(String),
    Wrong(String),
}

/// Compares the closure of a command with the compiler's list.
pub fn compare(compiler: &mut Compiler, root: &Path, argv: &[OsString]) -> Compared {
    let command = parse(argv, &[], Driver::C);
    let tree = DiskTree::new(Bounds::default());
    let ours = compiler.scan(&command, root, &tree);
    let Ok(theirs) = compiler.list(argv, &[], root) else {
        return Compared::Rejected;
    };
    match ours {
        Ok(closure) => match difference(&spellings(&closure), &theirs) {
            Some(difference) => Compared::Wrong(difference),
            None => Compared::Equal,
        },
        Err(NoClosure::MissingHeader { place, name, .. }) => {
            Compared::Wrong(format!("{place}: no `{}`, but the compiler finds it", name.display()))
        }
        Err(error) => Compared::Undecided(error.to_string()),
    }
}

/// The standards to run a case under; `None` is the default one.
fn standards(case: &Case, language: char, choice: Choice) -> Vec<Option<&'static str>> {
    let others: &[&'static str] = match language {
        'c' => &C,
        '+' => &CXX,
        _ => &[],
    };
    let fixed = case
        .flags
        .iter()
        .any(|flag| flag.to_string_lossy().starts_with("-std="));
    let other = others.get(case.number % others.len().max(1)).copied();
    match choice {
        Choice::Default => vec![None],
        Choice::Other => vec![other.filter(|_| !fixed)],
        Choice::All if fixed => vec![None],
        Choice::All => [None].into_iter().chain(others.iter().copied().map(Some)).collect(),
    }
}

/// Which standards to compare under.
#[derive(Clone, Copy)]
enum Choice {
    Default,
    /// One besides the default; which one goes by the case.
    Other,
    All,
}

#[test]
fn each_rule_has_the_compilers_list_under_every_standard() {
    let all = std::env::var_os("RDCC_SCAN_CASES").is_some();
    let directory = tempfile::tempdir().expect("a directory for the tree");
    let root = directory.path();
    write_tree(root);
    let cases = cases();
    for (at, (program, mut compiler)) in compilers().into_iter().enumerate() {
        let choice = match (all, at) {
            (true, _) => Choice::All,
            (false, 0) => Choice::Other,
            (false, _) => Choice::Default,
        };
        let (mut equal, mut rejected, mut undecided, mut wrong) = (0, 0, 0, Vec::new());
        for case in &cases {
            fs::write(root.join("main.c"), &case.source).expect("a source can be written");
            for language in case.languages.chars() {
                for standard in standards(case, language, choice) {
                    let mut argv = words(match language {
                        'c' => "-c -x c",
                        '+' => "-c -x c++",
                        _ => "-c -x assembler-with-cpp",
                    });
                    argv.extend(standard.map(|name| format!("-std={name}").into()));
                    argv.extend(case.flags.iter().cloned());
                    argv.extend(words("-Iinc -Iinc2 main.c"));
                    let compared = compare(&mut compiler, root, &argv);
                    let problem = match compared {
                        Compared::Equal if case.undecided => "decided, but marked as undecided".to_owned(),
                        Compared::Undecided(reason) if !case.undecided => format!("undecided: {reason}"),
                        Compared::Wrong(difference) => difference,
                        Compared::Equal => {
                            equal += 1;
                            continue;
                        }
                        Compared::Undecided(_) => {
                            undecided += 1;
                            continue;
                        }
                        Compared::Rejected => {
                            rejected += 1;
                            continue;
                        }
                    };
                    wrong.push(format!("case {} {argv:?}: {problem}\n{}", case.number, case.source));
                }
            }
        }
        println!("{program}: {equal} equal, {undecided} undecided as said, {rejected} rejected by the compiler");
        assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n"));
    }
}
