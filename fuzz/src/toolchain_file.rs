//! Toolchain files, which a person writes.
//!
//! Holds: an error is one line and names a line that exists; a definition has a compiler on every machine it names, and says the
//! same when it is written out and read again.

use std::path::Path;

use rdcc::toolchains::definition::{Certify, Command, Definition, Variant};
use rdcc::toolchains::host::Host;

/// Reads a file, writes and reads it again.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let definition = match Definition::parse(text) {
        Ok(definition) => definition,
        Err(error) => return one_line(text, &error.to_string()),
    };
    let variants = match definition.variants() {
        [] => vec![definition.variant(Host::current()).expect("for every machine")],
        variants => variants.to_vec(),
    };
    for variant in &variants {
        assert!(!variant.compilers.is_empty());
        assert_eq!(definition.variant(variant.host).as_ref(), Ok(variant));
        let paths = variant.path.iter().chain(&variant.include);
        assert!(paths.into_iter().all(|path| path.is_absolute()));
        for other in &variants {
            let asked = definition.asked_between(variant.host, other.host);
            assert_eq!(asked, definition.asked_between(other.host, variant.host));
        }
    }
    let written = written(&definition, &variants);
    let again = Definition::parse(&written).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(again.variants(), variants);
    assert_eq!(head(&again), head(&definition));
}

/// The number behind `line` is of a line of the text, and the message itself is one line.
fn one_line(text: &str, message: &str) {
    let number = message.strip_prefix("line ").and_then(|rest| rest.split_once(':'));
    let line: usize = number
        .and_then(|(number, _)| number.parse().ok())
        .expect("a line number");
    assert!((1..=text.split('\n').count()).contains(&line), "{message}");
    assert!(!message.contains('\n'), "{message}");
}

type Head<'a> = (&'a str, &'a str, &'a str, &'a [String], &'a [String]);

fn head(definition: &Definition) -> Head<'_> {
    (
        definition.name.as_str(),
        &definition.description,
        &definition.target,
        &definition.flags,
        &definition.environment,
    )
}

fn written(definition: &Definition, variants: &[Variant]) -> String {
    let (name, description, target, flags, environment) = head(definition);
    let list = |words: &[String]| words.iter().map(|word| string(word)).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "name = {}\ndescription = {}\ntarget = {}\nflags = [{}]\nenvironment = [{}]\n",
        string(name),
        string(description),
        string(target),
        list(flags),
        list(environment)
    );
    for variant in variants {
        let certify = match variant.certify {
            Certify::Identical => "identical",
            Certify::SameCode => "same-code",
        };
        text += &format!("[[variant]]\nhost = \"{}\"\ncertify = \"{certify}\"\n", variant.host);
        text += &format!(
            "target = {}\ndefaults = [{}]\n",
            string(&variant.target),
            list(&variant.defaults)
        );
        let paths = |paths: &[std::path::PathBuf]| list(&paths.iter().map(|path| utf8(path)).collect::<Vec<_>>());
        text += &format!(
            "path = [{}]\ninclude = [{}]\n[variant.compilers]\n",
            paths(&variant.path),
            paths(&variant.include)
        );
        for (language, command) in &variant.compilers {
            let command = match command {
                Command::Named(name) => name.clone(),
                Command::At(path) => utf8(path),
            };
            text += &format!("\"{language}\" = {}\n", string(&command));
        }
    }
    text
}

fn utf8(path: &Path) -> String {
    path.to_str().expect("TOML is UTF-8").to_owned()
}

/// A basic string of TOML.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out += &format!("\\U{:08X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}
