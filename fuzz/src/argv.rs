//! Command lines, which make and its like give us.
//!
//! The bytes are words with zeros between them; an `@file` cannot be read. Holds: there is a verdict; the wrapper's quick
//! one never differs from it; the words of a command that may go elsewhere say the same again; the command lines
//! that are made of them mean what they are made for.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

use rdcc::compile::{self, CompileCommand, DependencyKind, Driver, VariantNames, Verdict};

/// Judges a command line for both drivers.
pub fn check(bytes: &[u8]) {
    let argv: Vec<OsString> = words(bytes);
    for driver in [Driver::C, Driver::Cxx] {
        let quick = compile::quick_local(&argv, driver);
        match parse(&argv, driver) {
            Verdict::Local(local) => assert!(quick.is_none_or(|quick| quick == local.reason)),
            Verdict::Remote(command) => {
                assert_eq!(quick, None);
                remote(&command, driver);
            }
        }
    }
}

/// Words with zeros between them.
pub(crate) fn words(bytes: &[u8]) -> Vec<OsString> {
    let words = bytes.split(|byte| *byte == 0);
    words.map(|word| OsString::from_vec(word.to_vec())).collect()
}

fn parse(argv: &[OsString], driver: Driver) -> Verdict {
    compile::parse(argv, &[], driver, &mut |_| Err(io::ErrorKind::NotFound.into()))
}

fn remote(command: &CompileCommand, driver: Driver) {
    assert_eq!(
        parse(&command.argv, driver),
        Verdict::Remote(Box::new(command.clone())),
        "its own words"
    );
    let _ = compile::variant_exactness(command, VariantNames::Same);
    let _ = compile::profile_words(command);
    if let Some(full) = compile::with_full_dependencies(command) {
        let mut expected = command.clone();
        expected.argv.clone_from(&full);
        if let Some(list) = &mut expected.dependencies {
            list.kind = DependencyKind::All;
        }
        assert_eq!(parse(&full, driver), Verdict::Remote(Box::new(expected)), "{full:?}");
    }
    if compile::exactness(command).is_ok() {
        let there = compile::remote_compile(command);
        match parse(&there, driver) {
            Verdict::Remote(there) => {
                assert_eq!(there.dependencies, None);
                assert_eq!((&there.source, &there.output), (&command.source, &command.output));
                assert_eq!(there.stage, command.stage);
            }
            Verdict::Local(local) => panic!("{there:?}: {local:?}"),
        }
    }
}
