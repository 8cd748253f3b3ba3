//! Random trees of headers that use everything the scanner claims to follow.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Directories of a tree, relative to its root, where the compiler runs.
pub const DIRECTORIES: [&str; 8] = ["src", "src/sub", "inc1", "inc1/sub", "inc2", "sys1", "sys1/sub", "sys2"];

/// Header names in the order in which they may include each other: only later ones, so that every unit ends.
const NAMES: [&str; 12] = [
    "a.h",
    "b.h",
    "sub/c.h",
    "d.h",
    "e f.h",
    "g.h",
    "sub/h.h",
    "i#j.h",
    "k.h",
    "l$m.h",
    "n\u{e9}.h",
    "z.h",
];

const MACROS: [&str; 8] = ["A", "B", "C", "D", "E", "F0", "F1", "F2"];

/// Writes one tree below `root`: headers, and a source `src/main.c`.
pub fn tree(seed: u64, root: &Path) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory)).expect("a directory can be made");
    }
    for (index, name) in NAMES.iter().enumerate() {
        for directory in ["src", "src/sub", "inc1", "inc2", "sys1", "sys2"] {
            let path = root.join(directory).join(name);
            // Unguarded headers multiply; few statements keep a unit small.
            let present = random.random_ratio(1, 2) || directory == "sys2" || index + 1 == NAMES.len();
            if present && path.parent().is_some_and(Path::is_dir) {
                fs::write(&path, text(&mut random, index, 7)).expect("a header can be written");
            }
        }
    }
    fs::create_dir_all(root.join("sys2/sub")).expect("a directory can be made");
    for name in ["sub/c.h", "sub/h.h"] {
        let path = root.join("sys2").join(name);
        fs::write(path, "#define FROM_SYS2 1\n").expect("a header can be written");
    }
    let main = main_text(&mut random);
    fs::write(root.join("src/main.c"), main).expect("a source can be written");
}

fn main_text(random: &mut ChaCha8Rng) -> String {
    let mut out = String::new();
    for _ in 0..3 {
        out.push_str(&text_body(random, 0, 14, 0));
    }
    out
}

/// One header's text; it may include names behind `index`.
fn text(random: &mut ChaCha8Rng, index: usize, length: usize) -> String {
    let body = text_body(random, index + 1, length, 0);
    let guard = format!("GUARD_{index}_{}", random.random_range(0..1000));
    match random.random_range(0..8) {
        0 => format!("#pragma once\n{body}"),
        1 => format!("/* c */\n#ifndef {guard}\n#define {guard}\n{body}#endif // end\n"),
        2 => format!("#if !defined({guard})\n#define {guard}\n{body}#endif"),
        3 => format!("#if !defined {guard} \n#define {guard} 1\n{body}#endif\nint x;\n"),
        4 => format!("#ifndef {guard}\n#define {guard}\n{body}#else\n#define SECOND_{index} 1\n#endif\n"),
        5 => format!("#ifndef GUARD_SHARED\n#define GUARD_SHARED\n{body}#undef GUARD_SHARED\n#endif\n"),
        6 => format!("#pragma GCC system_header\n{body}"),
        _ => body,
    }
}

fn text_body(random: &mut ChaCha8Rng, first: usize, length: usize, depth: usize) -> String {
    let mut out = String::new();
    for _ in 0..random.random_range(0..length) {
        statement(random, &mut out, first, length, depth);
    }
    out
}

fn statement(random: &mut ChaCha8Rng, out: &mut String, first: usize, length: usize, depth: usize) {
    match random.random_range(0..24) {
        0..=4 => include(random, out, first),
        5..=8 => define(random, out),
        9 => {
            let _ = writeln!(out, "#undef {}", pick(random, &MACROS));
        }
        10..=14 if depth < 3 => conditional(random, out, first, length, depth),
        15 => {
            let name = pick(random, &MACROS);
            let action = pick(random, &["push_macro", "pop_macro"]);
            let _ = writeln!(out, "#pragma {action}(\"{name}\")");
        }
        16 => {
            let name = pick(random, &MACROS);
            let _ = writeln!(out, "_Pragma(\"push_macro(\\\"{name}\\\")\") int p;");
        }
        _ => noise(random, out),
    }
}

fn include(random: &mut ChaCha8Rng, out: &mut String, first: usize) {
    if first >= NAMES.len() {
        return;
    }
    let name = NAMES[random.random_range(first..NAMES.len())];
    let quoted = random.random_ratio(1, 2);
    let spelled = if quoted {
        format!("\"{name}\"")
    } else {
        format!("<{name}>")
    };
    let number = random.random_range(0..1_000_000);
    if random.random_ratio(19, 20) {
        let _ = writeln!(out, "#if __has_include({spelled})");
        plain_include(random, out, first, name, &spelled, number);
        out.push_str("#endif\n");
    } else {
        plain_include(random, out, first, name, &spelled, number);
    }
}

fn plain_include(random: &mut ChaCha8Rng, out: &mut String, first: usize, name: &str, spelled: &str, number: u32) {
    match random.random_range(0..12) {
        0 => {
            let _ = writeln!(
                out,
                "#if __has_include({spelled})\n#  include {spelled} // there\n#endif"
            );
        }
        1 => {
            let _ = writeln!(out, "#define NAME_{number} {spelled}\n#include NAME_{number}");
        }
        2 if !name.contains(['#', '$', ' ', '\u{e9}']) => {
            let _ = writeln!(
                out,
                "#define TEXT_{number}(x) #x\n#define WRAP_{number}(x) TEXT_{number}(x)\n#include WRAP_{number}({name})"
            );
        }
        3 => {
            let _ = writeln!(
                out,
                "#if __has_include_next({spelled})\n#include_next {spelled}\n#endif"
            );
        }
        4 if first > 0 => {
            // The file's own name, from the next directory on.
            let own = NAMES[first - 1];
            let _ = writeln!(out, "#if __has_include_next(<{own}>)\n#include_next <{own}>\n#endif");
        }
        5 => {
            let _ = writeln!(out, "/* x */ # /* y */ include /* z\n */ {spelled}");
        }
        6 => {
            let _ = writeln!(out, "#inc\\\nlude {spelled}");
        }
        7 => {
            let _ = writeln!(out, "#if __has_include(\"./{name}\")\n%:include \"./{name}\"\n#endif");
        }
        8 => {
            let _ = writeln!(
                out,
                "#if __has_include(\"../src/{name}\")\n#include \"../src/{name}\"\n#endif"
            );
        }
        9 => {
            let _ = writeln!(out, "#if __has_include({spelled})\n#import {spelled}\n#endif");
        }
        _ => {
            let _ = writeln!(out, "#if __has_include({spelled})\n#include {spelled}\n#endif");
        }
    }
}

fn define(random: &mut ChaCha8Rng, out: &mut String) {
    let value = random.random_range(0..4);
    let line = match random.random_range(0..8) {
        0 => format!(
            "#define {} {}",
            pick(random, &["A", "B", "C"]),
            pick(random, &["B", "C", "D", "A"])
        ),
        1 => format!("#define F0(x) ((x) + {value})"),
        2 => "#define F1(x, y) x ## y".to_owned(),
        3 => "#define F2(...) F2_(__VA_ARGS__, 2, 1, 0)\n#define F2_(a, b, c, ...) c".to_owned(),
        4 => format!("#define {}", pick(random, &MACROS[..5])),
        _ => format!("#define {} {value}", pick(random, &MACROS[..5])),
    };
    out.push_str(&line);
    out.push('\n');
}

fn conditional(random: &mut ChaCha8Rng, out: &mut String, first: usize, length: usize, depth: usize) {
    let _ = writeln!(out, "{}", opening(random, "if"));
    out.push_str(&text_body(random, first, length / 2, depth + 1));
    while random.random_ratio(1, 3) {
        let _ = writeln!(out, "{}", opening(random, "elif"));
        out.push_str(&text_body(random, first, length / 2, depth + 1));
    }
    if random.random_ratio(1, 2) {
        out.push_str("#else\n");
        out.push_str(&text_body(random, first, length / 2, depth + 1));
    }
    out.push_str("#endif\n");
}

fn opening(random: &mut ChaCha8Rng, word: &str) -> String {
    let name = pick(random, &MACROS[..5]);
    match random.random_range(0..6) {
        0 => format!("#{word}def {name}"),
        1 => format!("# {word}ndef {name} /* c */"),
        2 => format!("#{word} defined {name}"),
        3 => format!("#{word} !defined({name}) && {}", value(random, name)),
        _ => format!("#{word} {}", value(random, name)),
    }
}

/// A condition that no set of definitions makes an error.
fn value(random: &mut ChaCha8Rng, name: &str) -> String {
    match random.random_range(0..6) {
        0 => format!("{name} + 0 > 1"),
        1 => format!("defined({name}) || {name} - 1"),
        2 => format!("({name} + 0) & 1 ? 0 : 1"),
        3 => "defined F0 // comment".to_owned(),
        4 => "(1 ? 2 : \\\n 3) == 2".to_owned(),
        _ => format!("__LINE__ % 2 || {name} + 0"),
    }
}

fn noise(random: &mut ChaCha8Rng, out: &mut String) {
    out.push_str(pick(
        random,
        &[
            "int f(int x) { return 'x' + \"#include \\\"no.h\\\"\"[0]; }\n",
            "/* #include \"no.h\"\n#include <no.h>\n*/ int y;\n",
            "// comment \\\n#include \"no.h\"\n",
            "const char *r = R\"x(\n#include \"z.h\"\n)\" )x\";\n",
            "const char *s = \"a\\\n#include\";\n",
            "#define TEXT \"/* \" // */\n",
            "#\n",
            "#if 0\n#include \"no.h\"\n#ifdef no\n#else\n#error it's\n#endif\n#elif 0\n#endif\n",
            "int c = '\"'; // \"\n",
            "#pragma omp nothing\n",
            "int \\  \nz;\n",
            "  \t\n",
            "int d = 1'0;\r\n",
            "#ident \"x\"\n",
        ],
    ));
}

fn pick<'a, T: ?Sized>(random: &mut impl Rng, from: &[&'a T]) -> &'a T {
    from[random.random_range(0..from.len())]
}

/// A random expression of depth `depth` over numbers and operators that no value makes an error.
pub fn expression(random: &mut ChaCha8Rng, depth: usize) -> String {
    if depth == 0 || random.random_ratio(1, 6) {
        return pick(
            random,
            &[
                "0",
                "1",
                "2",
                "7",
                "63",
                "64",
                "-1",
                "0u",
                "1u",
                "0xffffffffffffffff",
                "0x7fffffffffffffff",
                "010",
                "0b11",
                "'a'",
                "'\\377'",
                "L'\\xff'",
                "'ab'",
                "undefined",
                "9223372036854775808",
                "123L",
                "5ULL",
                "M1",
                "M2",
                "F(3)",
                "F(M1)",
                "P(1, 2)",
                "P(M, 1)",
                "V()",
                "V(1)",
                "V(1, 2)",
                "S(2)(3)",
                "T(M1)",
            ],
        )
        .to_owned();
    }
    let mut inner = || expression(random, depth - 1);
    let (a, b, c) = (inner(), inner(), inner());
    match random.random_range(0..24) {
        0 => format!("({a}) / ((({b}) & 62) + 1)"),
        1 => format!("({a}) % ((({b}) & 62) + 1)"),
        2 => format!("(({a}) ? {b} : {c})"),
        3 => format!("!({a})"),
        4 => format!("-({a})"),
        5 => format!("~({a})"),
        6 => format!("({a}, {b})"),
        7 => format!("F({a})"),
        8 => format!("(0 && 1 / 0 || ({a}))"),
        9 => format!("({a}) << (({b}) & 71)"),
        10 => format!("({a}) >> (({b}) & 71)"),
        11 => format!("({a}) >> -(({b}) & 3)"),
        _ => {
            let operator = pick(
                random,
                &[
                    "+", "-", "*", "<", ">", "<=", ">=", "==", "!=", "&", "|", "^", "&&", "||",
                ],
            );
            format!("({a}) {operator} ({b})")
        }
    }
}

/// Definitions for [`expression`].
pub const EXPRESSION_MACROS: &str = "#define M1 11\n#define M2 M1 + 1\n#define F(x) ((x) * 3)\n#define P(a, b) a ## b\n\
    #define V(...) V_(0, ## __VA_ARGS__, 3, 2, 1)\n#define V_(a, b, c, d, ...) d\n#define S(x) x + S2\n\
    #define S2(x) x * 5\n#define T(x) T2(x)\n#define T2(x) x ## 0\n";

/// A random text to be made a header name by stringification.
pub fn stringified(random: &mut ChaCha8Rng) -> String {
    let mut out = String::new();
    for _ in 0..random.random_range(1..6) {
        out.push_str(pick(
            random,
            &[
                "a",
                " b",
                "M",
                " M ",
                "F(x)",
                "F( x )",
                " F(M y)",
                "G(a,b)",
                "G( a , b )",
                "H(a)",
                " H( M )",
                "/",
                " / ",
                ".h",
                "E",
                " E ",
                "E2",
                "\"s\"",
                "'c'",
                "O()",
                "O(a)",
                "O(a, b)",
                "I(a b)",
                " I(E)",
                "-",
                "1.5",
                "X(a)",
                "X(E a)",
                "Q(a)",
                "Q(E)",
                "Y(a, b)",
                "Y()",
            ],
        ));
    }
    out
}

/// Definitions for [`stringified`].
pub const STRINGIFIED_MACROS: &str = "#define TEXT(...) #__VA_ARGS__\n#define WRAP(...) TEXT(__VA_ARGS__)\n\
    #define M m1 m2\n#define E\n#define E2 E\n#define F(x) x/x\n#define G(a, b) a##b b ## a\n#define H(x) [ x]\n\
    #define I(x) F(x) E x\n#define O(x, ...) o __VA_OPT__(x __VA_ARGS__) p\n#define X(x) x F\n#define Q(x) q ## x q\n\
    #define Y(x, ...) #__VA_OPT__(x ## x)y __VA_OPT__(a) ## b\n";
