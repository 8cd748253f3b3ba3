//! The table of commands: what is typed, what comes of it, and why anybody cares.

mod details;
mod listed;
mod properties;
mod rewritten;

use std::ffi::OsString;
use std::fmt::Write;
use std::io;
use std::path::Path;

use super::*;

/// Parses `command`, whose first word is the driver, with `env` and `files` (response files) beside it.
fn verdict(command: &str, env: &[(&str, &str)], files: &[(&str, &str)]) -> Verdict {
    let (driver, argv) = words(command);
    let env: Vec<(OsString, OsString)> = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let verdict = parse(&argv, &env, driver, &mut |path| read_from(files, path));
    if let Some(reason) = quick_local(&argv, driver) {
        match &verdict {
            Verdict::Local(local) => assert_eq!(local.reason, reason, "quick: {command}"),
            Verdict::Remote(_) => panic!("quick says {reason}, parse says remote: {command}"),
        }
    }
    verdict
}

fn words(command: &str) -> (Driver, Vec<OsString>) {
    let mut words = command.split(' ').map(OsString::from);
    let driver = match words.next().expect("a driver").to_str() {
        Some("gcc") => Driver::C,
        Some("g++") => Driver::Cxx,
        other => panic!("no driver: {other:?}"),
    };
    (driver, words.filter(|word| !word.is_empty()).collect())
}

fn read_from(files: &[(&str, &str)], path: &Path) -> io::Result<Vec<u8>> {
    match files.iter().find(|(name, _)| Path::new(name) == path) {
        Some((_, content)) => Ok(content.as_bytes().to_vec()),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

fn remote(command: &str) -> CompileCommand {
    match verdict(command, &[], &[]) {
        Verdict::Remote(command) => *command,
        Verdict::Local(local) => panic!("local ({}): {command}", local.reason),
    }
}

/// One line that says all a table wants to know.
fn describe(verdict: &Verdict) -> String {
    let command = match verdict {
        Verdict::Local(local) => {
            let detail = local.detail.as_ref().map(|detail| detail.to_string_lossy());
            return match detail {
                Some(detail) => format!("local {} ({detail})", local.reason),
                None => format!("local {}", local.reason),
            };
        }
        Verdict::Remote(command) => command,
    };
    let mut text = format!(
        "{}{} {} -> {}",
        command.language.name(),
        if command.stage == Stage::Assembly { " -S" } else { "" },
        command.source.display(),
        command.output.display()
    );
    if let Some(list) = &command.dependencies {
        let kind = match list.kind {
            DependencyKind::All => "all",
            DependencyKind::User => "user",
        };
        write!(text, "; {kind} {}:", list.file.display()).expect("a string");
        for target in &list.targets {
            let mark = if target.quoting == Quoting::Raw { "raw " } else { "" };
            write!(text, " {mark}{}", target.text.display()).expect("a string");
        }
        if list.phony == Phony::Yes {
            text.push_str(" +phony");
        }
    }
    for file in &command.required_files {
        write!(text, "; reads {:?} {}", file.kind, file.path.display()).expect("a string");
    }
    if command.facts.features.writes_side_files() {
        text.push_str("; side files");
    }
    text
}

fn check(command: &str, expected: &str, claim: &str) {
    check_in(command, &[], &[], expected, claim);
}

fn check_in(command: &str, env: &[(&str, &str)], files: &[(&str, &str)], expected: &str, claim: &str) {
    assert_eq!(
        describe(&verdict(command, env, files)),
        expected,
        "\n  command: {command}\n  claim:   {claim}"
    );
}
