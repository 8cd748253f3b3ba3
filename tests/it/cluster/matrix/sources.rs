//! The sources that the matrix compiles: one of every kind that has ever been a trap.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Files with plain names.
const PLAIN: &[(&str, &str)] = &[
    (
        "a.c",
        "#include <stdio.h>\n#include <string.h>\n#include \"sub/a.h\"\n\
         struct list { struct list *next; int value; };\n\
         static inline int sum(const struct list *l) { int s = 0; for (; l; l = l->next) s += l->value; return s; }\n\
         int main(int argc, char **argv)\n{\n\tstruct list l = { 0, argc };\n\tchar b[64];\n\
         \tmemset(b, A, sizeof b);\n\tprintf(\"%s %d %s\\n\", argv[0], sum(&l), __FILE__);\n\treturn b[3];\n}\n",
    ),
    ("a2.c", "int a2;\n"),
    (
        "w.c",
        "#include \"sub/a.h\"\nstatic int unused(int x) { return x; }\n\
         int f(int a) { int b; if (a = 3) return b; char *p = a; return undeclared_fn(A); }\n#warning \"mind this\"\n",
    ),
    ("e.c", "#include \"sub/a.h\"\nint f(void) {\n\treturn nope + A;\n"),
    (
        "b.cc",
        "#include <map>\n#include <string>\n#include \"sub/a.h\"\nstd::map<std::string, int> table;\n\
         int get(const std::string &key) { return table[key] + A; }\n",
    ),
    (
        "bw.cc",
        "#include <vector>\nint f() { std::vector<int> v; for (int i = 0; i < v.size(); i++); }\n",
    ),
    (
        "be.cc",
        "#include <map>\nint f() { std::map<int,int> m; return m.nothing(3, \"x\"); }\n",
    ),
    (
        "bdeep.cc",
        "template<int N> struct D { static const int v = D<N-1>::v; };\n\
         template<> struct D<0> { static const int v = 0; };\nint x = D<100>::v;\n",
    ),
    (
        "s.S",
        "#include \"sub/a.h\"\n\t.text\n\t.global f\nf:\tmov r0, #A\n\tbx lr\n\t.include \"mac.inc\"\n\t.incbin \"blob\"\n",
    ),
    ("mac.inc", "\t.macro zz\n\tnop\n\t.endm\n\tzz\n"),
    ("plain.s", "\t.text\nf:\tnop\n\t.incbin \"blob\"\n"),
    (
        "incl.S",
        "#ifdef Q\n.include \"nothere.inc\"\n#endif\n.include \"mac.inc\"\n .incbin \"blob\", 2, 3\n",
    ),
    ("incm.S", ".macro inc f\n.include \"\\f\"\n.endm\ninc mac.inc\n"),
    ("bigdata.S", "\t.data\n\t.rept 100000\n\t.word 1\n\t.endr\n"),
    ("asminc.c", "asm(\".include \\\"mac.inc\\\"\");\n"),
    ("asmincbin.c", "asm(\".incbin \\\"blob\\\"\");\nint x;\n"),
    ("extra.s", "\t.word 1\n"),
    ("sub/a.h", "#ifndef A\n#define A 7\n#endif\n#include \"../other.h\"\n"),
    ("sub2/a.h", "#define A 9\n"),
    ("other.h", "#pragma once\n"),
    ("blob", "some bytes\n"),
    ("flags", "-O2 '-DNAME=\"x y\"'\n"),
    ("nested", "@flags -g\n@sub/more\n"),
    ("sub/more", "-DMORE=1\n"),
    ("quoted", "\"-DQ=a b\" -DZ=\\\"s\\\" '-DX=it'\n"),
    ("bad", "-DX=\"unclosed\n"),
    ("asflags", "-adhls=out/x.lst\n"),
    ("my.specs", "*cpp_options:\n+ -DX\n"),
    ("miss.c", "int a;\n#include \"not/there.h\"\nint b;\n"),
    ("loop.c", "#include \"loop.h\"\n"),
    ("loop.h", "#include \"loop.h\"\n"),
    ("incdir.c", "#include \"sub\"\n"),
    ("unterminated.c", "#if 1\nint x;\n/* never"),
    ("err.c", "#error \"stop here\"\n"),
    ("pragmaerr.c", "#pragma GCC error \"x\"\n#pragma message \"hello\"\n"),
    ("warnhdr.c", "#include \"sub/w.h\"\n"),
    (
        "sub/w.h",
        "#warning \"from header\"\nint w(int a) { if (a = 1) return 2; }\n",
    ),
    ("line.c", "#line 100 \"made up.c\"\nint f(void) { return nope; }\n"),
    ("line2.c", "# 1 \"gen.y\" 1\nint f(void) { return 1; }\n"),
    ("implicit.c", "int f(void) { return g(); }\n"),
    ("time.c", "char *t = __DATE__ __TIME__;\n"),
    ("pch.h", "#include <stdio.h>\n#define FROMPCH 1\n"),
    ("usespch.c", "int x = FROMPCH;\n"),
    ("plain.c", "int plain(int x) { return x + 1; }\n"),
    ("i.i", "# 1 \"zz.c\"\nint x(void) { return 1; }\n"),
    ("ii.ii", "# 1 \"zz.cc\"\nint x() { return 1; }\n"),
    ("strange.zzz", "#include \"sub/a.h\"\nint z = A;\n"),
    ("trailing.c", "int x; \\"),
    ("embed.c", "#ifdef __has_embed\nint has;\n#endif\n"),
    (
        "hasinc.c",
        "#if __has_include(\"nothere.h\")\n#include \"nothere.h\"\n\
         #elif __has_include(<stdio.h>) && __has_include(\"sub/a.h\")\n#include \"sub/a.h\"\n#endif\nint x = A;\n",
    ),
    (
        "counter.c",
        "#define C2(a,b) a##b\n#define C1(a,b) C2(a,b)\nint C1(x,__COUNTER__), C1(x,__COUNTER__);\n\
         #include \"sub/a.h\"\nint C1(x,__COUNTER__);\n",
    ),
    (
        "base.c",
        "#include \"sub/a.h\"\nchar *b = __BASE_FILE__; int l = __INCLUDE_LEVEL__;\n",
    ),
    (
        "prag.c",
        "#pragma GCC optimize(\"O3\")\n#pragma GCC dependency \"sub/a.h\"\n#pragma GCC system_header\n\
         #include \"sub/a.h\"\nint x = A;\n",
    ),
    (
        "computed.c",
        "#define H(x) <x.h>\n#define L \"sub/a.h\"\n#include H(string)\n#include L\nint x = A;\n",
    ),
    ("null2.c", "#include \"/dev/null\"\nint x;\n"),
    ("twice.c", "#include <a.h>\nint x = A;\n"),
    ("next.c", "#include <n.h>\nint x = N2;\n"),
    ("sub/n.h", "#include_next <n.h>\n"),
    ("sub2/n.h", "#define N2 2\n"),
    ("outsrc.c", "int outsrc;\n"),
    ("ro.c", "int ro;\n"),
    ("odd.c", "#include <x y.h>\n#include <x#y.h>\nint v = X;\n"),
    ("crlf.c", "#include \"sub/a.h\"\r\nint x = A;\r\n"),
    ("bom.c", "\u{feff}#include \"sub/a.h\"\nint x = A;\n"),
    ("null.c", "int x;\0\n"),
    ("empty.c", ""),
    ("noeol.c", "int x;"),
    ("splice.c", "#inc\\\nlude \"sub/a.h\"\nint x = A;\n"),
    ("trig.c", "??=include \"sub/a.h\"\nint x = A;\n"),
    ("digraph.c", "%:include \"sub/a.h\"\nint x = A;\n"),
    (
        "comment.c",
        "/* x */ # /* y */ include /* z */ \"sub/a.h\" // q\nint x = A;\n",
    ),
    ("raw.cc", "const char *s = R\"(\n#include \"nothere.h\"\n)\";\n"),
    ("dots.c", "#include \"sub/../sub/./a.h\"\nint x = A;\n"),
    ("slash.c", "#include \"sub//a.h\"\nint x = A;\n"),
    (
        "selfinc.c",
        "#ifndef S\n#define S\n#include \"selfinc.c\"\nint x;\n#endif\n",
    ),
    ("incc.c", "#include \"a2.c\"\n"),
    // Two files that the compiler takes for one, since their times and contents agree.
    ("once.c", "#include \"o1.h\"\n#include \"o2.h\"\nint x = O;\n"),
    ("o1.h", "#pragma once\n#define O 1\n"),
    ("o2.h", "#pragma once\n#define O 1\n"),
    ("lic.c", "#include \"li/l.h\"\n"),
    (
        "stdc.c",
        "#include <stdint.h>\n#include <limits.h>\n#include <stdatomic.h>\n#include <arm_acle.h>\nint x = INT_MAX;\n",
    ),
    (
        "real/deep/in.c",
        "#include \"../up.h\"\n#include \"same.h\"\nint in = UP;\n",
    ),
    ("real/deep/same.h", "\n"),
    ("real/up.h", "#define UP 4\n"),
    ("target.o", "old"),
];

/// Sources whose names make and the compiler quote in different ways, with a header beside each.
const ODD_NAMES: &[&[u8]] = &[
    b"sp ace/x y",
    b"ha#sh/x#y",
    b"qu'ote/x\"y",
    b"do$llar/x$y",
    b"new\nline/x\ny",
    b"n\xffon/x\xfe",
    b"back\\slash/x\\y",
    b"co:lon/x:y",
    b"tab\tx/y",
    b"pct%dir/x%y",
    b"dash-/-x",
    b"\xc3\xa9/\xc3\xbc",
];

/// Outputs that exist before the compile: the name, and what is special about it.
enum Existing {
    Mode(u32),
    HardLink(&'static str),
    LinkTo(&'static str),
}

const EXISTING: &[(&str, Existing)] = &[
    ("ex.s", Existing::Mode(0o600)),
    ("ex.o", Existing::Mode(0o600)),
    ("ex.d", Existing::Mode(0o640)),
    ("exec.o", Existing::Mode(0o755)),
    ("rofile.o", Existing::Mode(0o444)),
    ("hard.s", Existing::HardLink("hard2.s")),
    ("hard.d", Existing::HardLink("hard2.d")),
    ("hard.o", Existing::HardLink("hard2.o")),
    ("t.s", Existing::Mode(0o644)),
    ("lnk.s", Existing::LinkTo("t.s")),
    ("linkout.o", Existing::LinkTo("target.o")),
    ("brokenlink.o", Existing::LinkTo("nowhere.o")),
    ("broken.d", Existing::LinkTo("nowhere.d")),
    ("link.c", Existing::LinkTo("a.c")),
    ("linkdir", Existing::LinkTo("real/deep")),
    ("outlink", Existing::LinkTo("out")),
    ("li/l.h", Existing::LinkTo("../sub/a.h")),
];

fn write(root: &Path, name: &[u8], content: &[u8]) -> PathBuf {
    let path = root.join(OsStr::from_bytes(name));
    fs::create_dir_all(path.parent().expect("below the root")).expect("created");
    fs::write(&path, content).expect("written");
    path
}

/// Makes everything anew below `root`, which may exist; all files get one time of change.
pub fn make(root: &Path) {
    if root.exists() {
        fs::remove_dir_all(root).expect("removed");
    }
    for dir in ["out", "inc", "existdir", "rodir", "prof", "li"] {
        fs::create_dir_all(root.join(dir)).expect("created");
    }
    let mut made = Vec::new();
    for (name, content) in PLAIN {
        made.push(write(root, name.as_bytes(), content.as_bytes()));
    }
    for name in ODD_NAMES {
        let base = name.rsplit(|b| *b == b'/').next().expect("a name");
        // Such a name cannot be written in an `#include`.
        let header: &[u8] = if base.contains(&b'"') || base.contains(&b'\n') {
            b"\n"
        } else {
            &[b"#include \"", base, b".h\"\n"].concat()
        };
        let text = [header, b"#include \"../other.h\"\nchar *f = __FILE__;\n"].concat();
        made.push(write(root, &[*name, b".c"].concat(), &text));
        made.push(write(root, &[*name, b".h"].concat(), b"#define X 3\n"));
    }
    let many: String = (0..60).map(|number| format!("#include \"m/{number}.h\"\n")).collect();
    made.push(write(root, b"many.c", many.as_bytes()));
    for number in 0..60 {
        let text = format!("#define M{number}\n");
        made.push(write(root, format!("m/{number}.h").as_bytes(), text.as_bytes()));
    }
    let absolute = format!("#include \"{}/sub/a.h\"\nint x = A;\n", root.display());
    made.push(write(root, b"abs.c", absolute.as_bytes()));
    made.push(write(root, b"latin.c", b"char *x = \"\xe9\";\n"));
    made.push(write(root, b"utf16.c", b"\xff\xfei\0n\0t\0 \0x\0;\0"));
    let long = format!("int x[{}1];\n", "1+".repeat(50_000));
    made.push(write(root, b"longline.c", long.as_bytes()));
    for (name, existing) in EXISTING {
        let path = root.join(name);
        match existing {
            Existing::LinkTo(target) => symlink(target, path).expect("linked"),
            Existing::Mode(mode) => {
                made.push(write(root, name.as_bytes(), b"old"));
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).expect("changed");
            }
            Existing::HardLink(other) => {
                made.push(write(root, name.as_bytes(), b"old"));
                fs::hard_link(path, root.join(other)).expect("linked");
            }
        }
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for path in made {
        let mode = fs::metadata(&path).expect("made").permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let file = fs::OpenOptions::new().write(true).open(&path).expect("opened");
        file.set_modified(time).expect("set");
        fs::set_permissions(&path, mode).expect("changed");
    }
}
