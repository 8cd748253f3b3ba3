//! What a parsed command holds for those who scan includes and set policy.

use super::super::*;
use super::{remote, verdict};

fn paths(dirs: &[SearchDir]) -> Vec<String> {
    dirs.iter()
        .map(|dir| match dir.base {
            DirBase::Given => dir.path.display().to_string(),
            DirBase::CompilerPrefix => format!("<prefix>{}", dir.path.display()),
        })
        .collect()
}

#[test]
fn search_chains_are_in_the_order_of_gcc() {
    let options = remote(
        "gcc -c a.c -isystem s1 -I b1 -iquote q1 -idirafter d1 -Ib2 -iprefix P/ -iwithprefix w1 \
         -iwithprefixbefore w2 -I b3 -iquoteq2 --include-directory=b4 -Wp,-Ib5 --include-directory-after d2",
    )
    .preprocess;
    assert_eq!(paths(&options.quote_dirs), ["q1", "q2"]);
    assert_eq!(paths(&options.bracket_dirs), ["b1", "b2", "b3", "b4", "P/w2", "b5"]);
    assert_eq!(paths(&options.system_dirs), ["s1", "P/w1"]);
    assert_eq!(paths(&options.after_dirs), ["d1", "d2"]);
    assert!(!options.quote_split);
}

#[test]
fn barrier_moves_what_stood_before_it_to_the_quote_chain() {
    for command in [
        "gcc -c a.c -iquote q -I b1 -I- -I b2",
        "gcc -c a.c -I b1 --include-barrier -iquote q -I b2",
    ] {
        let options = remote(command).preprocess;
        assert_eq!(paths(&options.quote_dirs), ["b1", "q"], "{command}");
        assert_eq!(paths(&options.bracket_dirs), ["b2"], "{command}");
        assert!(options.quote_split, "{command}");
    }
}

#[test]
fn prefix_of_the_compiler_stays_open() {
    let options = remote("gcc -c a.c -iwithprefix include").preprocess;
    assert_eq!(paths(&options.system_dirs), ["<prefix>include"]);
}

#[test]
fn macros_keep_their_order_and_come_through_all_doors() {
    let options = remote("gcc -c a.c -Wp,-UX,-DY -DX=1 -U Z -D X=2 --define-macro=W -A cpu=arm").preprocess;
    let macros: Vec<_> = options
        .macros
        .iter()
        .map(|option| (option.action, option.text.to_str().expect("text")))
        .collect();
    assert_eq!(
        macros,
        [
            (MacroAction::Define, "X=1"),
            (MacroAction::Undefine, "Z"),
            (MacroAction::Define, "X=2"),
            (MacroAction::Define, "W"),
            (MacroAction::Assert, "cpu=arm"),
            (MacroAction::Undefine, "X"),
            (MacroAction::Define, "Y"),
        ]
    );
}

#[test]
fn forced_macro_files_come_before_forced_headers() {
    let options = remote("gcc -c a.c -include h1 -imacros m1 --include=h2 -imacrosm2 -Wp,-imacros,m3").preprocess;
    let forced = [
        ForcedInclude::Macros("m1".into()),
        ForcedInclude::Macros("m2".into()),
        ForcedInclude::Macros("m3".into()),
        ForcedInclude::Header("h1".into()),
        ForcedInclude::Header("h2".into()),
    ];
    assert_eq!(options.forced, forced);
}

#[test]
fn flags_of_the_preprocessor() {
    let options = remote(
        "gcc -c a.c -nostdinc -nostdinc++ -undef -trigraphs -std=c99 -ansi --std gnu11 --sysroot=/s \
         -isysroot /h -fdirectives-only -fno-dollars-in-identifiers -traditional-cpp",
    )
    .preprocess;
    assert!(options.nostdinc && options.nostdinc_cxx);
    assert_eq!(options.sysroot, Some("/s".into()));
    assert_eq!(options.header_sysroot, Some("/h".into()));
    let lexical = options.lexical;
    assert!(lexical.undef && lexical.trigraphs && lexical.directives_only && lexical.traditional);
    assert!(!lexical.preprocessed);
    assert_eq!(lexical.standard, Some("gnu11".into()));
    assert_eq!(lexical.dollars_in_identifiers, Some(false));
}

#[test]
fn words_that_shape_predefined_macros_are_a_key() {
    let key = |command| remote(command).preprocess.predefined_words;
    let with_everything = key(
        "gcc -c d/a.c -o x.o -O2 -DX -Ifoo -Wall -g -march=armv5te --param a=b -MD -MF x \
         -fdebug-prefix-map=/a/b=. -std=c99 -fno-pic -frandom-seed=foo -isystem y --sysroot /s -include z",
    );
    let bare = key("gcc -O2 -march=armv5te --param a=b -std=c99 -fno-pic --sysroot /s -c b.c");
    assert_eq!(with_everything, bare);
    assert_eq!(
        bare,
        [
            "-O2",
            "-march=armv5te",
            "--param",
            "a=b",
            "-std=c99",
            "-fno-pic",
            "--sysroot",
            "/s"
        ]
    );
}

#[test]
fn environment_directories_depend_on_the_language() {
    let env = [("CPATH", ":a:"), ("C_INCLUDE_PATH", "c"), ("CPLUS_INCLUDE_PATH", "x:y")];
    let dirs = |command| match verdict(command, &env, &[]) {
        Verdict::Remote(command) => command.preprocess.environment,
        Verdict::Local(local) => panic!("{local:?}"),
    };
    let c = dirs("gcc -c a.S");
    assert_eq!(c.cpath, [".", "a", "."].map(std::path::PathBuf::from));
    assert_eq!(c.language, [std::path::PathBuf::from("c")]);
    let cxx = dirs("gcc -c a.cc");
    assert_eq!(cxx.language, ["x", "y"].map(std::path::PathBuf::from));
}

#[test]
fn debug_levels_follow_the_last_word() {
    for (options, level) in [
        ("", DebugLevel::None),
        ("-g", DebugLevel::Normal),
        ("-g0", DebugLevel::None),
        ("-g -g0", DebugLevel::None),
        ("-g1", DebugLevel::Minimal),
        ("-g3", DebugLevel::Macros),
        ("-g3 -g", DebugLevel::Macros),
        ("-g1 -g", DebugLevel::Normal),
        ("-ggdb3", DebugLevel::Macros),
        ("-ggdb", DebugLevel::Normal),
        ("-gdwarf-4", DebugLevel::Normal),
        ("-gdwarf", DebugLevel::Normal),
        ("-g -gno-column-info", DebugLevel::Normal),
        ("-gz=zlib", DebugLevel::None),
        ("-gvariable-location-views=incompat5", DebugLevel::None),
        ("-gsplit-dwarf", DebugLevel::Normal),
        ("--debug", DebugLevel::Normal),
        ("--debug=3", DebugLevel::Macros),
        ("-Wa,-g", DebugLevel::Normal),
        ("-Wa,--gdwarf-5", DebugLevel::Normal),
    ] {
        let facts = remote(&format!("gcc -c a.c {options}")).facts;
        assert_eq!(facts.debug, level, "{options}");
    }
}

#[test]
fn features_are_switched_on_and_off() {
    let has = |options: &str, feature| remote(&format!("gcc -c a.c {options}")).facts.features.has(feature);
    assert!(has("-flto", Feature::Lto));
    assert!(has("-flto=auto", Feature::Lto));
    assert!(!has("-flto -fno-lto", Feature::Lto));
    assert!(has("-fsanitize=address,undefined", Feature::Sanitizer));
    assert!(has("-gsplit-dwarf", Feature::SplitDwarf));
    assert!(!has("-gsplit-dwarf -gno-split-dwarf", Feature::SplitDwarf));
    assert!(has("-frecord-gcc-switches", Feature::RecordedSwitches));
    assert!(has("-pipe", Feature::Pipe));
    assert!(has("-fplugin=x", Feature::Plugin));
    assert!(has("-fprofile-arcs", Feature::ProfileGenerate));
}

#[test]
fn response_files_are_listed_and_expanded() {
    let files = [("a", "-c x.c @d/b"), ("d/b", "-O2")];
    let Verdict::Remote(command) = verdict("gcc @a -w", &[], &files) else {
        panic!("local");
    };
    assert_eq!(command.argv, ["-c", "x.c", "-O2", "-w"]);
    assert_eq!(command.response_files, ["a", "d/b"].map(std::path::PathBuf::from));
}

#[test]
fn assembler_directories_are_listed() {
    let command = remote("gcc -c a.S -Wa,-I,x,-Iy -I z");
    assert_eq!(command.assembler_dirs, ["x", "y"].map(std::path::PathBuf::from));
}

#[test]
fn names_of_reasons_are_stable_words() {
    let mut names: Vec<_> = LocalReason::ALL.iter().map(|reason| reason.name()).collect();
    for name in &names {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), LocalReason::ALL.len());
}

#[test]
fn variables_of_a_job_are_known_by_name() {
    for name in ["LC_ALL", "LC_MESSAGES", "LANG", "SOURCE_DATE_EPOCH", "PWD", "CPATH"] {
        assert!(is_relevant_variable(name.as_ref()), "{name}");
    }
    for name in ["PATH", "HOME", "LD_PRELOAD", "MAKEFLAGS", "LCX"] {
        assert!(!is_relevant_variable(name.as_ref()), "{name}");
    }
}
