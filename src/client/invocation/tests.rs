//! Tables of command lines.

use super::*;

/// Programs that exist besides what looks like a compiler.
struct Programs(&'static [&'static str]);

impl Lookup for Programs {
    fn is_program(&self, word: &OsStr) -> bool {
        self.0.iter().any(|program| word == *program)
    }
}

fn read_with(words: &str, variables: &Variables) -> Result<Invocation, Complaint> {
    let argv = words.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
    read(
        argv.collect(),
        variables,
        &Programs(&["tcc", "/opt/x/mycc", "/b/start.o"]),
    )
}

/// Says a compile as `toolchain | compiler | args`.
fn compile(words: &str) -> String {
    compile_with(words, &Variables::default())
}

fn compile_with(words: &str, variables: &Variables) -> String {
    match read_with(words, variables) {
        Ok(Invocation::Wrapper(command)) => {
            let toolchain = command.toolchain.map_or(String::new(), |name| name.to_string());
            let compiler = match command.compiler {
                Named::ByToolchain(driver) => format!("{driver:?}"),
                Named::Explicitly(name) => name.to_string_lossy().into_owned(),
                Named::ByOwnName(name) => format!("next {}", name.to_string_lossy()),
            };
            let args: Vec<_> = command.args.iter().map(|word| word.to_string_lossy()).collect();
            format!("{toolchain} | {compiler} | {}", args.join(" "))
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn compiler_comes_from_the_toolchain_when_none_is_named() {
    for (words, expected) in [
        ("rdcc --toolchain arm926 -c foo.c", "arm926 | C | -c foo.c"),
        (
            "rdcc --toolchain arm926 --driver c++ -c foo.cc",
            "arm926 | Cxx | -c foo.cc",
        ),
        ("rdcc --toolchain=arm926 --driver=g++ x.o", "arm926 | Cxx | x.o"),
        ("/usr/bin/rdcc --toolchain arm926 foo.c -c", "arm926 | C | foo.c -c"),
        (
            "rdcc --toolchain arm926 /b/start.o -o prog",
            "arm926 | C | /b/start.o -o prog",
        ),
        ("rdcc --toolchain arm926 @args", "arm926 | C | @args"),
        (
            "rdcc --toolchain arm926 objects -o prog",
            "arm926 | C | objects -o prog",
        ),
        ("rdcc --toolchain arm926 status", "arm926 | C | status"),
        ("rdcc --toolchain arm926 --version", "arm926 | C | --version"),
        ("rdcc --toolchain arm926", "arm926 | C | "),
    ] {
        assert_eq!(compile(words), expected, "{words}");
    }
}

#[test]
fn compiler_is_the_first_word_that_can_be_one() {
    for (words, expected) in [
        (
            "rdcc --toolchain arm926 arm-linux-gnueabi-gcc -c x.c",
            "arm926 | arm-linux-gnueabi-gcc | -c x.c",
        ),
        (
            "rdcc --toolchain arm926 /opt/x/mycc -c x.c",
            "arm926 | /opt/x/mycc | -c x.c",
        ),
        ("rdcc gcc -c x.c", " | gcc | -c x.c"),
        ("rdcc tcc -c x.c", " | tcc | -c x.c"),
        ("rdcc g++-12 --toolchain x", " | g++-12 | --toolchain x"),
        ("rdcc --strict gcc", " | gcc | "),
    ] {
        assert_eq!(compile(words), expected, "{words}");
    }
}

#[test]
fn called_by_another_name_it_stands_for_the_next_of_that_name() {
    for (words, expected) in [
        ("arm-linux-gnueabi-gcc -c x.c", " | next arm-linux-gnueabi-gcc | -c x.c"),
        ("/usr/lib/rdcc/g++ status", " | next /usr/lib/rdcc/g++ | status"),
        (
            "/host/bin/ccache /host/bin/arm-gcc.br_real -c x.c",
            " | /host/bin/arm-gcc.br_real | -c x.c",
        ),
        ("ccache --version", " | next ccache | --version"),
        ("ccache", " | next ccache | "),
        ("gcc --toolchain", " | next gcc | --toolchain"),
    ] {
        assert_eq!(compile(words), expected, "{words}");
    }
}

#[test]
fn words_for_people_are_commands() {
    for words in [
        "rdcc",
        "rdcc status --json",
        "rdcc help",
        "rdcc --help",
        "rdcc -V",
        "/x/rdcc toolchain list",
    ] {
        let argv: Vec<OsString> = words.split(' ').skip(1).map(OsString::from).collect();
        assert_eq!(
            read_with(words, &Variables::default()),
            Ok(Invocation::Admin(argv)),
            "{words}"
        );
    }
}

#[test]
fn mistakes_are_named_with_a_way_out() {
    for (words, error, hint) in [
        ("rdcc statsu", "`statsu`", "did you mean `rdcc stats`?"),
        ("rdcc toolchains list", "`toolchains`", "`rdcc toolchain`"),
        ("rdcc frobnicate", "`frobnicate`", "the commands are agent"),
        ("rdcc foo.c", "`foo.c`", "--toolchain"),
        ("rdcc -c foo.c", "`-c`", "--toolchain"),
        ("rdcc --toolchain", "`--toolchain` lacks", "arm926"),
        ("rdcc --toolchain ../x gcc", "`--toolchain` names no", "toolchain list"),
        ("rdcc --toolchain arm926 --driver ada x", "`ada`", "`c++`"),
    ] {
        let complaint = read_with(words, &Variables::default()).expect_err(words);
        assert!(complaint.error.contains(error), "{words}: {complaint}");
        assert!(
            complaint.hint.clone().unwrap_or_default().contains(hint),
            "{words}: {complaint}"
        );
    }
}

#[test]
fn variables_name_the_toolchain_and_say_where() {
    let variables = Variables {
        toolchain: Some("a20".into()),
        ..Variables::default()
    };
    assert_eq!(compile_with("gcc -c x.c", &variables), "a20 | next gcc | -c x.c");
    assert_eq!(compile_with("rdcc --toolchain b gcc", &variables), "b | gcc | ");
    assert_eq!(compile_with("rdcc --driver c++ x.cc", &variables), "a20 | Cxx | x.cc");
    assert_eq!(compile_with("rdcc -c x.c", &variables), "a20 | C | -c x.c");
    assert!(read_with("rdcc statsu", &variables).is_err());
    for (strict, disable, words, expected) in [
        ("", "", "gcc", Wish::Anywhere),
        ("1", "", "gcc", Wish::NoFallback),
        ("0", "0", "gcc", Wish::Anywhere),
        ("", "", "rdcc --strict gcc", Wish::NoFallback),
        ("1", "1", "gcc", Wish::Here),
    ] {
        let variables = Variables {
            toolchain: Some("".into()),
            strict: Some(strict.into()),
            disable: Some(disable.into()),
        };
        match read_with(words, &variables) {
            Ok(Invocation::Wrapper(command)) => {
                assert_eq!(
                    (command.wish, command.toolchain),
                    (expected, None),
                    "{strict} {disable} {words}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
