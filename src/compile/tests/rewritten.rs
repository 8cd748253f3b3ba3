//! Command lines of our own making: what changes, what stays, and when there is none.

use std::ffi::OsString;
use std::path::Path;

use super::super::*;
use super::remote;

fn line(argv: &[OsString]) -> String {
    let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

#[test]
fn lists_of_user_headers_become_full_ones_in_place() {
    for (typed, expected) in [
        ("-c a.c -MMD -O2", "-c a.c -MD -O2"),
        ("-MMD -MP -MF x -c a.c -MT t", "-MD -MP -MF x -c a.c -MT t"),
        ("-c a.c --write-user-dependencies", "-c a.c -MD"),
        ("-c a.c -MD -MMD", "-c a.c -MD -MD"),
        ("-c a.c -Wp,-MMD,x.d -w", "-c a.c -Wp,-MD,x.d -w"),
        ("-c a.c -Wp,-DX,-MMD,x.d,-MP", "-c a.c -Wp,-DX,-MD,x.d,-MP"),
        (
            "-c a.c -Xpreprocessor -MMD -Xpreprocessor x",
            "-c a.c -Xpreprocessor -MD -Xpreprocessor x",
        ),
        ("-c a.c -Wp,-MMD -Wp,x.d", "-c a.c -Wp,-MD -Wp,x.d"),
        ("-c a.c -Wp,-MMD,-MMD", "-c a.c -Wp,-MD,-MMD"),
        (
            "-c a.c -MMD -o -MMD -D -MMD -Wp,-MT,-MMD",
            "-c a.c -MD -o -MMD -D -MMD -Wp,-MT,-MMD",
        ),
    ] {
        let argv = with_full_dependencies(&remote(&format!("gcc {typed}"))).expect(typed);
        assert_eq!(line(&argv), expected, "{typed}");
        let again = remote(&format!("gcc {expected}"));
        let kind = again.dependencies.expect("a list").kind;
        assert_eq!(kind, DependencyKind::All, "{typed}");
    }
}

#[test]
fn no_full_list_where_none_was_asked_for_or_it_would_show() {
    for typed in [
        "-c a.c",
        "-c a.c -MD",
        "-c a.s -MMD",
        "-c a.c -MMD -Wp,-MD,x",
        "-c a.c -MMD -frecord-gcc-switches",
        "-S a.c -MMD -fverbose-asm",
    ] {
        let argv = with_full_dependencies(&remote(&format!("gcc {typed}")));
        assert_eq!(argv, None, "{typed}");
    }
}

#[test]
fn long_lines_are_left_alone() {
    let many = format!("gcc -c a.c -MMD {}", "-DX=123456789 ".repeat(100_000));
    assert_eq!(with_full_dependencies(&remote(&many)), None);
    assert_eq!(exactness(&remote(&format!("{many} -O2"))), Err(NotExact::TooLong));
}

#[test]
fn preprocessing_here_and_compiling_there_share_all_but_a_few_words() {
    for (typed, here, there) in [
        (
            "gcc -c a.c -O2 -Ii -o x/a.o",
            "a.c -O2 -Ii -E -o t",
            "-c a.c -O2 -Ii -o x/a.o -fpreprocessed",
        ),
        (
            "gcc -S a.c -MMD -MP -MT z",
            "a.c -E -o t -Xpreprocessor -MMD -Xpreprocessor a.d -Xpreprocessor -MT -Xpreprocessor z -Xpreprocessor -MP",
            "-S a.c -fpreprocessed",
        ),
        (
            "gcc -c a.c -Wp,-DX,-MD,.a.d,-DY -o a.o",
            "a.c -Wp,-DX,-DY -E -o t -Xpreprocessor -MD -Xpreprocessor .a.d -Xpreprocessor -MQ -Xpreprocessor a.o",
            "-c a.c -Wp,-DX,-DY -o a.o -fpreprocessed",
        ),
        (
            "gcc -c -x c a.x -MD -oo/a.o",
            "-x c a.x -E -o t -Xpreprocessor -MD -Xpreprocessor o/a.d -Xpreprocessor -MQ -Xpreprocessor o/a.o",
            "-c -x c a.x -oo/a.o -fpreprocessed",
        ),
        (
            "gcc -c -x assembler-with-cpp a.asm -Wa,-mthumb",
            "-x assembler-with-cpp a.asm -Wa,-mthumb -E -o t",
            "-c -x assembler-with-cpp -x assembler a.asm -Wa,-mthumb",
        ),
        (
            "gcc -c a.c -Wp,-MD,x",
            "a.c -E -o t -Xpreprocessor -MD -Xpreprocessor x -Xpreprocessor -MQ -Xpreprocessor a.o",
            "-c a.c -fpreprocessed",
        ),
    ] {
        let command = remote(typed);
        assert_eq!(line(&local_preprocess(&command, Path::new("t"))), here, "{typed}");
        assert_eq!(line(&remote_compile(&command)), there, "{typed}");
    }
}

#[test]
fn commands_whose_output_could_differ_are_refused() {
    for (options, expected) in [
        ("-O2 -Wall -DX -MMD -pipe -fPIC -g0", Ok(())),
        ("-g -g0 -Os -pg -fopenmp -frandom-seed=x", Ok(())),
        ("", Err(NotExact::Unoptimized)),
        ("-O2 -O0", Err(NotExact::Unoptimized)),
        ("-O2 -g", Err(NotExact::Debug)),
        ("-O2 -g1", Err(NotExact::Debug)),
        ("-O2 -gsplit-dwarf", Err(NotExact::Debug)),
        ("-O2 -gtoggle", Err(NotExact::Debug)),
        ("-O2 -Wa,-g", Err(NotExact::Debug)),
        ("-O2 -flto", Err(NotExact::Lto)),
        ("-O2 -flto -fno-lto", Ok(())),
        ("-O2 --coverage", Err(NotExact::Coverage)),
        ("-O2 -fprofile-generate", Err(NotExact::Coverage)),
        ("-O2 -fsanitize=undefined", Err(NotExact::Sanitizer)),
        ("-O2 -save-temps", Err(NotExact::SideFiles)),
        ("-O2 -fstack-usage", Err(NotExact::SideFiles)),
        ("-O2 -fcallgraph-info", Err(NotExact::SideFiles)),
        ("-O2 -fdump-tree-all", Err(NotExact::SideFiles)),
        ("-O2 -Wa,-adhln=x", Err(NotExact::SideFiles)),
        ("-O2 -frecord-gcc-switches", Err(NotExact::RecordedCommandLine)),
        ("-O2 -S -fverbose-asm", Err(NotExact::RecordedCommandLine)),
        ("-O2 -fanalyzer", Err(NotExact::Plugin)),
        ("-O2 -fplugin=x", Err(NotExact::Plugin)),
        ("-O2 -fcompare-debug", Err(NotExact::Plugin)),
        ("-O2 -H", Err(NotExact::Preprocessing)),
        ("-O2 -C", Err(NotExact::Preprocessing)),
        ("-O2 -P", Err(NotExact::Preprocessing)),
        ("-O2 -fpreprocessed", Err(NotExact::Preprocessing)),
        ("-O2 -fdirectives-only", Err(NotExact::Preprocessing)),
        ("-O2 -traditional-cpp", Err(NotExact::Preprocessing)),
        ("-O2 -no-integrated-cpp", Err(NotExact::Preprocessing)),
        ("-O2 -finput-charset=utf-8", Err(NotExact::Charset)),
    ] {
        let command = remote(&format!("gcc -c a.c {options}"));
        assert_eq!(exactness(&command), expected, "{options}");
    }
    let nothing = Err(NotExact::NothingToPreprocess);
    for source in ["a.i", "a.ii", "a.s"] {
        assert_eq!(exactness(&remote(&format!("gcc -O2 -c {source}"))), nothing);
    }
    assert_eq!(exactness(&remote("gcc -c a.S")), Ok(()));
}

#[test]
fn texts_that_ask_for_their_own_place_or_change_options_are_refused() {
    for (text, expected) in [
        ("int x;\n#pragma pack(1)\nvoid optimized(int);\nint optimize;", Ok(())),
        ("int x = __builtin_LINE ();", Err(NotExact::PlaceAsValue)),
        ("f(__builtin_source_location());", Err(NotExact::PlaceAsValue)),
        ("asm(\".incbin \\\"x\\\"\");", Err(NotExact::AssemblerInput)),
        (" .include \"x\"", Err(NotExact::AssemblerInput)),
        ("#pragma GCC target(\"avx\")", Err(NotExact::OptionChange)),
        (
            "int a;\n#pragma  GCC   push_options\nint b;",
            Err(NotExact::OptionChange),
        ),
        ("#pragma GCC diagnostic push", Ok(())),
        ("__attribute__((optimize(\"O0\")))", Err(NotExact::OptionChange)),
        ("__attribute__((__optimize__ (\"O0\")))", Err(NotExact::OptionChange)),
        ("int my_optimize(int);", Ok(())),
        ("#pragma", Ok(())),
        ("optimize", Ok(())),
    ] {
        assert_eq!(text_exactness(text.as_bytes()), expected, "{text}");
    }
}
