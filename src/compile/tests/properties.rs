//! What holds for any words at all.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::super::*;

/// Words that mean something, words that nearly do, and plain bytes.
fn word() -> impl Strategy<Value = OsString> {
    let known = proptest::sample::select(vec![
        "-c",
        "-S",
        "-E",
        "-o",
        "-x",
        "c",
        "c++",
        "none",
        "foo.c",
        "bar.cc",
        "a.S",
        "-MD",
        "-MMD",
        "-MF",
        "-Wp,-MD,x",
        "-Wp,-MD",
        "-Wp,",
        "-Wa,",
        "-Wa,-I",
        "-I",
        "-I-",
        "-include",
        "-g",
        "-O2",
        "-march=native",
        "-v",
        "-",
        "--",
        "@file",
        "-D",
        "-specs",
        "--sysroot",
        "/dev/null",
        "conftest.c",
        "x.o",
        "-Xpreprocessor",
        "-Xassembler",
        "-u",
        "-fplugin=x",
        "--coverage",
        "-frandom-seed=1",
        "-dumpbase",
        "",
    ])
    .prop_map(OsString::from);
    let text = "-{0,2}[a-zA-Z,=@/.]{0,6}".prop_map(OsString::from);
    let bytes = proptest::collection::vec(any::<u8>(), 0..8).prop_map(OsString::from_vec);
    prop_oneof![4 => known, 2 => text, 1 => bytes]
}

/// Words that mostly make a compile, with lists of dependencies asked for in every way.
fn compile_words() -> impl Strategy<Value = Vec<OsString>> {
    let option = proptest::sample::select(vec![
        "-MMD",
        "-MD",
        "-MP",
        "-MF x",
        "-MTx",
        "-MQ y",
        "-Wp,-MMD,x",
        "-Wp,-MD,y,-MP",
        "-Wp,-DX,-MMD",
        "-Wp,z",
        "-Xpreprocessor -MMD -Xpreprocessor x",
        "-Xpreprocessor",
        "-D",
        "-O2",
        "-I d",
        "-g",
        "-o x/y.o",
        "-include",
        "--write-user-dependencies",
        "-Wp,-MT,t",
        "-x c",
        "-DA -UB",
        "@file",
        "-save-temps",
        "-Wa,-a",
    ]);
    proptest::collection::vec(option, 0..7).prop_map(|options| {
        let text = format!("-c {} a.c", options.join(" "));
        text.split(' ').map(OsString::from).collect()
    })
}

proptest! {
    #[test]
    fn any_words_get_a_verdict_and_the_quick_one_agrees(
        argv in proptest::collection::vec(word(), 0..12),
        cxx in any::<bool>(),
        content in proptest::collection::vec(any::<u8>(), 0..24),
    ) {
        let driver = if cxx { Driver::Cxx } else { Driver::C };
        let verdict = parse(&argv, &[], driver, &mut |_| Ok(content.clone()));
        if let Some(quick) = quick_local(&argv, driver) {
            match verdict {
                Verdict::Local(local) => prop_assert_eq!(local.reason, quick),
                Verdict::Remote(_) => prop_assert!(false, "quick: {}, parse: remote", quick),
            }
        }
    }

    #[test]
    fn expanded_words_parse_the_same_again(
        argv in proptest::collection::vec(word(), 0..12),
    ) {
        let parse = |argv: &[OsString]| parse(argv, &[], Driver::C, &mut |_| Ok(b"-O2 -c".to_vec()));
        if let Verdict::Remote(command) = parse(&argv) {
            let again = parse(&command.argv);
            let without_files = CompileCommand { response_files: Vec::new(), ..*command };
            prop_assert_eq!(again, Verdict::Remote(Box::new(without_files)));
        }
    }

    #[test]
    fn rewritten_words_mean_what_they_meant(argv in compile_words()) {
        let parse = |argv: &[OsString]| parse(argv, &[], Driver::C, &mut |_| Ok(b"-MMD -w".to_vec()));
        if let Verdict::Remote(command) = parse(&argv) {
            if let Some(full) = with_full_dependencies(&command) {
                let mut expected = CompileCommand {
                    argv: full.clone(),
                    response_files: Vec::new(),
                    ..(*command).clone()
                };
                if let Some(list) = &mut expected.dependencies {
                    list.kind = DependencyKind::All;
                }
                prop_assert_eq!(parse(&full), Verdict::Remote(Box::new(expected)));
            }
            match parse(&remote_compile(&command)) {
                Verdict::Remote(there) => {
                    prop_assert_eq!(there.dependencies, None);
                    prop_assert_eq!(&there.output, &command.output);
                    prop_assert_eq!(there.preprocess.macros, command.preprocess.macros);
                }
                Verdict::Local(local) => prop_assert!(false, "{:?}", local),
            }
        }
    }
}
