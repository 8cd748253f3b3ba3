//! Response files, which a build writes and gcc reads.
//!
//! Holds: the bytes as a response file, which may name itself, end in a verdict; words in place of their file say the same; the
//! bytes as words of a command say the same in a response file, however they are quoted there.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rdcc::compile::{self, CompileCommand, Driver, Verdict};

use super::argv::words;

/// Reads the bytes as a file, and words from a file.
pub fn check(bytes: &[u8]) {
    if let Verdict::Remote(command) = parse(&compile_of(&["@file".into()]), bytes) {
        let plain = parse(&command.argv, bytes);
        assert_eq!(plain, without_files(*command));
    }
    let words = compile_of(&words(bytes));
    if words.iter().any(|word| word.as_bytes().starts_with(b"@")) {
        return;
    }
    for quoted in [single_quoted, escaped] {
        let Some(content) = words
            .iter()
            .map(|word| quoted(word.as_bytes()))
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        let content = content.join(&b" \t\r\n"[..]);
        let through = match parse(&["@file".into()], &content) {
            Verdict::Remote(command) => without_files(*command),
            local => local,
        };
        assert_eq!(through, parse(&words, b""), "{}", String::from_utf8_lossy(&content));
    }
}

fn without_files(command: CompileCommand) -> Verdict {
    Verdict::Remote(Box::new(CompileCommand {
        response_files: Vec::new(),
        ..command
    }))
}

/// A compile with these words.
fn compile_of(words: &[OsString]) -> Vec<OsString> {
    let mut argv: Vec<OsString> = vec!["-c".into(), "a.c".into()];
    argv.extend_from_slice(words);
    argv
}

fn parse(argv: &[OsString], content: &[u8]) -> Verdict {
    compile::parse(argv, &[], Driver::C, &mut |path| match path == Path::new("file") {
        true => Ok(content.to_vec()),
        false => Err(io::ErrorKind::NotFound.into()),
    })
}

/// Within single quotes; `None` where releases of gcc read them differently.
fn single_quoted(word: &[u8]) -> Option<Vec<u8>> {
    if word.contains(&b'\\') {
        return None;
    }
    let inner = word
        .split(|byte| *byte == b'\'')
        .collect::<Vec<_>>()
        .join(&b"'\\''"[..]);
    Some([b"'", &inner[..], b"'"].concat())
}

/// With a backslash before every byte; `None` where that is not possible.
fn escaped(word: &[u8]) -> Option<Vec<u8>> {
    let possible = !word.is_empty() && !word.contains(&b'\n');
    possible.then(|| word.iter().flat_map(|byte| [b'\\', *byte]).collect())
}
