//! Toolchain files, good and bad: a table of each.

use super::*;

const GOOD: &str = r#"
name = "arm926"
target = "arm-linux-gnueabi"
environment = ["STAGING_DIR", "BR2_DEBUG_WRAPPER"]
path = ["/opt/cross/bin"]
compilers = { c = "arm-linux-gnueabi-gcc", "c++" = "/opt/cross/bin/arm-g++" }

[[variant]]
host = "x86_64-linux"

[[variant]]
host = "armv7-linux"
certify = "same-code"
path = []
compilers.c = "gcc"
"#;

#[test]
fn variant_takes_over_what_it_does_not_say() {
    let definition = Definition::parse(GOOD).unwrap();
    assert_eq!(definition.environment, ["BR2_DEBUG_WRAPPER", "STAGING_DIR"]);
    let pc = definition.variant("x86_64-linux".parse().unwrap()).unwrap();
    assert_eq!(pc.certify, Certify::Identical);
    assert_eq!(pc.path, [PathBuf::from("/opt/cross/bin")]);
    assert_eq!(
        pc.compilers[&Language::Cxx],
        Command::At(PathBuf::from("/opt/cross/bin/arm-g++"))
    );
    let board = definition.variant("armv7-linux".parse().unwrap()).unwrap();
    assert_eq!(board.certify, Certify::SameCode);
    assert!(board.path.is_empty());
    assert_eq!(board.compilers.len(), 1, "compilers are taken over whole");
}

#[test]
fn machine_without_a_variant_is_told_which_there_are() {
    let definition = Definition::parse(GOOD).unwrap();
    let error = definition.variant("riscv64-linux".parse().unwrap());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("`x86_64-linux`, `armv7-linux`"), "{message}");
}

#[test]
fn file_without_variants_fits_every_machine() {
    let text = "name = \"x\"\ntarget = \"t\"\ncompilers.c = \"gcc\"\n";
    let definition = Definition::parse(text).unwrap();
    for host in ["x86_64-linux", "armv7-linux"] {
        let host = host.parse().unwrap();
        assert_eq!(definition.variant(host).unwrap().host, host);
    }
}

#[test]
fn errors_name_line_key_and_what_is_allowed() {
    let head = "name = \"x\"\ntarget = \"t\"\n";
    let cases: &[(&str, &str)] = &[
        ("name = ", "line 1: not TOML"),
        ("target = \"t\"\n", "line 1: `name` is missing"),
        ("name = \"x\"\n", "line 1: `target` is missing"),
        ("name = 3\n", "line 1: `name` cannot be an integer: text in quotes"),
        ("name = \"a/b\"\ntarget = \"t\"\n", "line 1: `name` cannot be `a/b`"),
        ("name = \"x\"\ntarget = \"a b\"\n", "line 2: `target` cannot be `a b`"),
        ("HEAD", "line 1: `compilers` is missing"),
        ("HEADcompilers = \"gcc\"\n", "line 3: `compilers` cannot be a string"),
        ("HEADcompilers = {}\n", "line 3: `c` is missing"),
        (
            "HEAD[compilers]\nfortran = \"f\"\n",
            "line 4: unknown key `fortran`; allowed here: `c`, `c++`",
        ),
        (
            "HEADcompilers.c = \"ccache gcc\"\n",
            "line 3: `c` cannot be `ccache gcc`: a command name or an absolute path",
        ),
        ("HEADcompilers.c = \"bin/gcc\"\n", "line 3: `c` cannot be `bin/gcc`"),
        ("HEADcompilers.c = \"/a/../gcc\"\n", "line 3: `c` cannot be"),
        (
            "HEADcompiler.c = \"gcc\"\n",
            "line 3: unknown key `compiler`; allowed here: `name`,",
        ),
        (
            "HEADflags = [\"-O2\",\n \"x\"]\n",
            "line 4: `flags` cannot be `x`: one compiler option",
        ),
        ("HEADflags = \"-O2\"\n", "line 3: `flags` cannot be a string: a list"),
        (
            "HEADinclude = [\"rel\"]\n",
            "line 3: `include` cannot be `rel`: an absolute path",
        ),
        ("HEADenvironment = [\"A=B\"]\n", "line 3: `environment` cannot be `A=B`"),
        ("HEADvariant = 1\n", "line 3: `variant` cannot be an integer"),
        (
            "HEAD[[variant]]\ncertify = \"identical\"\n",
            "line 3: `host` is missing: one of",
        ),
        (
            "HEAD[[variant]]\nhost = \"amd64\"\n",
            "line 4: `host` cannot be `amd64`: one of `aarch64-linux`",
        ),
        (
            "HEAD[[variant]]\nhost = \"x86_64-linux\"\n",
            "line 3: `compilers` is missing",
        ),
        (
            "HEAD[[variant]]\nhost = \"x86_64-linux\"\ncompilers.c = \"g\"\ncertify = \"no\"\n",
            "line 6: `certify` cannot be `no`: `identical`",
        ),
        (
            "HEAD[[variant]]\nhost = \"x86_64-linux\"\ncompilers.c = \"g\"\ndefaults = [\"-O2\"]\n",
            "line 6: `defaults` cannot be `-O2`: one `-m…` option",
        ),
        (
            "HEAD[[variant]]\nhost = \"x86_64-linux\"\ncompilers.c = \"g\"\ntarget = \"a b\"\n",
            "line 6: `target` cannot be `a b`: what -dumpmachine prints",
        ),
        ("HEADdefaults = [\"-marm\"]\n", "line 3: unknown key `defaults`"),
        (
            "HEAD[[variant]]\nhost = \"x86_64-linux\"\nprefix = \"g\"\n",
            "line 5: unknown key `prefix`; allowed here: `host`",
        ),
        (
            "HEADcompilers.c = \"g\"\n[[variant]]\nhost = \"i686-linux\"\n[[variant]]\nhost = \"i686-linux\"\n",
            "line 7: `host` cannot be `i686-linux` a second time",
        ),
        (
            "HEADdescription = \"a\\nb\"\n",
            "line 3: `description` cannot be text of several lines",
        ),
        (
            "HEAD[[variant]]\nhost = \"am\\nd64\"\n",
            "line 4: `host` cannot be `am\\nd64`: one of",
        ),
        ("HEAD\"a\\nb\" = 1\n", "line 3: unknown key `a\\nb`; allowed"),
    ];
    for (text, expected) in cases {
        let text = text.replace("HEAD", head);
        let message = Definition::parse(&text).unwrap_err().to_string();
        assert!(
            message.starts_with(expected),
            "{text}\n  gave {message}\n  not  {expected}"
        );
    }
}

#[test]
fn a_variant_says_what_its_compiler_was_built_for() {
    let definition = Definition::parse(include_str!("../../../toolchains/arm926.toml")).unwrap();
    let variant = |host: &str| definition.variant(host.parse().unwrap()).unwrap();
    let (reference, board) = (variant("x86_64-linux"), variant("armv7-linux"));
    assert_eq!(
        (reference.target.as_str(), reference.defaults.len()),
        ("arm-linux-gnueabi", 0)
    );
    assert_eq!(board.target, "arm-linux-gnueabihf");
    assert_eq!(board.defaults.last().map(String::as_str), Some("-march=armv5te"));
}

#[test]
fn shipped_files_parse() {
    for (name, text) in [
        ("arm926", include_str!("../../../toolchains/arm926.toml")),
        ("a20-native", include_str!("../../../toolchains/a20-native.toml")),
    ] {
        let definition = Definition::parse(text).unwrap();
        assert_eq!(definition.name.as_str(), name);
        for host in ["x86_64-linux", "armv7-linux"] {
            assert!(definition.variant(host.parse().unwrap()).is_ok(), "{name} {host}");
        }
    }
}

#[test]
fn targets_are_compared_without_vendor_and_arm_generation() {
    let same = [
        ("arm-linux-gnueabihf", "armv7l-unknown-linux-gnueabihf"),
        ("arm-linux-gnueabihf", "armv7l-linux-gnueabihf"),
        ("arm-linux-gnueabi", "arm-arietta-linux-gnueabi"),
        ("x86_64-linux-gnu", "x86_64-pc-linux-gnu"),
        ("arm-none-eabi", "arm-none-eabi"),
    ];
    let different = [
        ("arm-linux-gnueabi", "arm-linux-gnueabihf"),
        ("arm-linux-gnueabi", "arm-linux-musleabi"),
        ("x86_64-linux-gnu", "aarch64-linux-gnu"),
        ("arm-none-eabi", "arm-linux-gnueabi"),
    ];
    for (a, b) in same {
        assert!(same_target(a, b), "{a} {b}");
    }
    for (a, b) in different {
        assert!(!same_target(a, b), "{a} {b}");
    }
}

#[test]
fn two_variants_have_to_be_as_equal_as_the_less_equal_of_them() {
    let text = "name = \"t\"\ntarget = \"x\"\ncompilers = { c = \"gcc\" }\n[[variant]]\nhost = \"armv7-linux\"\n\
        [[variant]]\nhost = \"x86_64-linux\"\ncertify = \"same-code\"\n[[variant]]\nhost = \"aarch64-linux\"\n";
    let definition = Definition::parse(text).unwrap();
    let check = |one: &str, other: &str, expected| {
        let asked = definition.asked_between(one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(asked, expected, "{one} {other}");
    };
    check("armv7-linux", "x86_64-linux", Certify::SameCode);
    check("x86_64-linux", "aarch64-linux", Certify::SameCode);
    check("armv7-linux", "aarch64-linux", Certify::Identical);
    check("x86_64-linux", "x86_64-linux", Certify::Identical);
    check("armv7-linux", "riscv64-linux", Certify::Identical);
}
