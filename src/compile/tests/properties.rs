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
}
