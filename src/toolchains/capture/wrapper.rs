//! What a compiler that is only a wrapper goes on to execute.
//!
//! Two kinds are followed: shell scripts that pass their arguments on, read here line by line and never run, and
//! Buildroot's compiled wrapper, which starts `NAME.br_real` beside itself. What else a wrapper does is found out from
//! the real compiler's own `-v` (see [`super::driver`]). Text in, names out: the disk is asked elsewhere.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::toolchains::definition::Command;

/// Small programs that wrapper scripts use to find their own directory or to shape arguments.
const SCRIPT_TOOLS: &[&str] = &[
    "awk", "basename", "cat", "cut", "dirname", "env", "expr", "grep", "readlink", "realpath", "sed", "tr", "uname",
];

/// Shells whose scripts this module can read.
const SHELLS: &[&str] = &["ash", "bash", "busybox", "dash", "ksh", "mksh", "sh"];

/// What a script needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    /// The programs of the `#!` line: the interpreter, and with `env` the shell too.
    pub(super) interpreters: Vec<Command>,
    /// The programs that it passes its arguments to.
    pub(super) targets: Vec<Command>,
    /// Small programs that it mentions, to be looked for on `PATH`.
    pub(super) tools: Vec<&'static str>,
}

/// Why a script cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is no shell script.
    Interpreter(String),
}

/// Reads a script. `None` when `content` does not start with `#!`.
///
/// `called` is the path it was called by, `real` the same without links.
pub(super) fn read_script(content: &[u8], called: &Path, real: &Path) -> Option<Result<Script, Unreadable>> {
    let text = content.strip_prefix(b"#!")?;
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let words: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let shell = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        SHELLS.contains(&name)
    };
    let interpreters = match words[..] {
        [path, ..] if shell(path) => vec![command(path)?],
        [env, name, ..] if env.ends_with("/env") && shell(name) => vec![command(env)?, command(name)?],
        _ => return Some(Err(Unreadable::Interpreter(words.join(" ")))),
    };
    let body: Vec<&str> = lines.filter(|line| !line.trim_start().starts_with('#')).collect();
    let mut targets = Vec::new();
    let mut variables = BTreeMap::new();
    for line in &body {
        let line = expanded(line, called, real, &variables);
        if let Some((name, value)) = assignment(&line) {
            variables.insert(name, value);
        } else if line.contains("$@") || line.contains("$*") {
            targets.extend(passed_to(&line));
        }
    }
    targets.sort();
    targets.dedup();
    let mentions = |tool: &&&str| {
        body.iter()
            .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-'))
            .any(|word| word == **tool)
    };
    Some(Ok(Script {
        interpreters,
        targets,
        tools: SCRIPT_TOOLS.iter().filter(mentions).copied().collect(),
    }))
}

/// Returns where Buildroot's wrapper would have its real compiler: `NAME.br_real` in the wrapper's own directory, NAME
/// being what the wrapper was called by.
pub(super) fn buildroot_target(called: &Path, real: &Path) -> Option<PathBuf> {
    let mut name = called.file_name()?.to_owned();
    name.push(".br_real");
    Some(real.parent()?.join(name))
}

/// Undoes the usual ways in which a script names its own directory, and variables set from them. Quotes are dropped:
/// a path with a space in it is beyond what this follows.
fn expanded(line: &str, called: &Path, real: &Path, variables: &BTreeMap<String, String>) -> String {
    let mut line = line
        .trim()
        .replace(['"', '\''], "")
        .replace("-- ", "")
        .replace("-e ", "");
    let text = |path: Option<&Path>| path.unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let (own, own_directory) = (text(Some(called)), text(called.parent()));
    let (plain, plain_directory) = (text(Some(real)), text(real.parent()));
    for zero in ["$0", "${0}", "${BASH_SOURCE[0]}", "$BASH_SOURCE"] {
        for resolve in ["readlink -f", "realpath"] {
            line = line.replace(&format!("$({resolve} {zero})"), &plain);
            line = line.replace(&format!("`{resolve} {zero}`"), &plain);
        }
        for (path, directory) in [(zero, &own_directory), (&*plain, &plain_directory)] {
            line = line.replace(&format!("$(dirname {path})"), directory);
            line = line.replace(&format!("`dirname {path}`"), directory);
        }
    }
    line = line.replace("${0%/*}", &own_directory);
    for name in ["$(basename $0)", "`basename $0`", "${0##*/}"] {
        line = line.replace(name, &text(called.file_name().map(Path::new)));
    }
    for (directory, result) in [(&own_directory, &own_directory), (&plain_directory, &plain_directory)] {
        for pwd in ["pwd", "pwd -P"] {
            for and in [" && ", "; ", " > /dev/null && ", " >/dev/null && "] {
                line = line.replace(&format!("$(cd {directory}{and}{pwd})"), result);
            }
        }
    }
    for (name, value) in variables {
        line = line.replace(&format!("${{{name}}}"), value);
        line = line.replace(&format!("${name}/"), &format!("{value}/"));
        if let Some(rest) = line.strip_suffix(&format!("${name}")) {
            line = format!("{rest}{value}");
        }
        line = line.replace(&format!("${name} "), &format!("{value} "));
    }
    line.replace("$0", &own)
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let whole = !value.contains(char::is_whitespace);
    (plain && whole).then(|| (name.to_owned(), value.trim_end_matches(';').to_owned()))
}

/// Finds the program in a command line that passes the script's arguments on.
fn passed_to(line: &str) -> Option<Command> {
    let mut words = line.split_whitespace().peekable();
    while let Some(word) = words.next() {
        match word {
            "exec" | "then" | "else" | "env" | "&&" | "||" | "{" | "command" => {}
            "-a" => drop(words.next()),
            _ if word.starts_with('-') => {}
            _ if assignment(word).is_some() => {}
            // Loops over the arguments, tests of them, and assignments from them.
            "for" | "while" | "until" | "if" | "case" | "[" | "set" | "echo" | "printf" | "shift" => return None,
            _ => return command(word),
        }
    }
    None
}

fn command(word: &str) -> Option<Command> {
    if word.contains(['$', '`', '(', '*', '=', ';']) || word.is_empty() {
        None
    } else if word.starts_with('/') {
        Some(Command::At(PathBuf::from(OsStr::from_bytes(word.as_bytes()))))
    } else {
        (!word.contains('/')).then(|| Command::Named(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(body: &str) -> Vec<String> {
        let script = format!("#!/bin/sh\n{body}\n");
        let called = Path::new("/opt/bin/arm-gcc");
        let real = Path::new("/opt/sdk/wrap/gcc-wrapper");
        let script = read_script(script.as_bytes(), called, real).unwrap().unwrap();
        script.targets.iter().map(Command::to_string).collect()
    }

    #[test]
    fn scripts_are_followed_to_what_gets_their_arguments() {
        let cases: &[(&str, &[&str])] = &[
            ("exec /opt/real/gcc \"$@\"", &["/opt/real/gcc"]),
            ("exec /opt/real/gcc -mcpu=x ${1+\"$@\"}", &["/opt/real/gcc"]),
            ("/opt/real/gcc \"$@\"; exit $?", &["/opt/real/gcc"]),
            ("exec gcc-12 $flags \"$@\"", &["gcc-12"]),
            ("exec \"$(dirname \"$0\")/gcc.real\" \"$@\"", &["/opt/bin/gcc.real"]),
            ("exec `dirname $0`/gcc.real $*", &["/opt/bin/gcc.real"]),
            ("exec ${0%/*}/gcc.real \"$@\"", &["/opt/bin/gcc.real"]),
            ("exec \"$0.real\" \"$@\"", &["/opt/bin/arm-gcc.real"]),
            (
                "exec \"$(dirname \"$(readlink -f \"$0\")\")/../bin/${0##*/}\" \"$@\"",
                &["/opt/sdk/wrap/../bin/arm-gcc"],
            ),
            (
                "here=$(cd \"$(dirname \"$0\")\" && pwd)\nexec \"$here\"/gcc.real \"$@\"",
                &["/opt/bin/gcc.real"],
            ),
            ("D=/opt/x\nexec ${D}/bin/gcc \"$@\"", &["/opt/x/bin/gcc"]),
            ("LC_ALL=C exec -a gcc /opt/real/gcc \"$@\"", &["/opt/real/gcc"]),
            (
                "if x; then\n  exec /a/gcc \"$@\"\nelse\n  exec /b/gcc \"$@\"\nfi",
                &["/a/gcc", "/b/gcc"],
            ),
            ("for a in \"$@\"; do :; done\nexec /a/gcc \"$@\"", &["/a/gcc"]),
            ("# exec /a/gcc \"$@\"", &[]),
            ("exec $COMPILER \"$@\"", &[]),
        ];
        for (body, expected) in cases {
            assert_eq!(targets(body), *expected, "{body}");
        }
    }

    #[test]
    fn interpreters_and_tools_are_named() {
        let path = Path::new("/x");
        let text = b"#!/usr/bin/env bash\nexec $(dirname $0)/y \"$@\"\n";
        let script = read_script(text, path, path).unwrap().unwrap();
        let interpreters: Vec<String> = script.interpreters.iter().map(Command::to_string).collect();
        assert_eq!(interpreters, ["/usr/bin/env", "bash"]);
        assert_eq!(script.tools, ["dirname"]);
        let python = read_script(b"#!/usr/bin/python3 -I\n", path, path).unwrap();
        assert_eq!(python, Err(Unreadable::Interpreter("/usr/bin/python3 -I".to_owned())));
        assert!(read_script(b"\x7fELF", path, path).is_none());
    }

    #[test]
    fn buildroot_wrapper_starts_its_neighbour() {
        let called = Path::new("/host/bin/arm-linux-gcc");
        let real = Path::new("/host/bin/toolchain-wrapper");
        let target = buildroot_target(called, real);
        assert_eq!(target, Some(PathBuf::from("/host/bin/arm-linux-gcc.br_real")));
    }
}
