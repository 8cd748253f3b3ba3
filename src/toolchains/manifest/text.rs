//! The canonical text of a manifest, whose digest is the toolchain's identity.
//!
//! One line per fact, fields separated by single spaces, in one possible order. Bytes that are not printable ASCII, and
//! the space and the backslash, are written `\xHH`, so every path has exactly one spelling. The decoder is strict:
//! text that [`Manifest::encode`] would not have produced is refused, and every ceiling is checked before
//! memory is taken.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::{ENTRIES_MAX, Entry, LIST_MAX, Manifest, ManifestError, Parts};
use crate::digest::Digest;
use crate::toolchains::definition::Language;

/// First line of every manifest. A change in meaning, even of capture's choice of files, does not change it; a change
/// of this grammar does.
const HEADER: &str = "rdcc-toolchain 1";

/// Ceiling on the text, bytes: twice what the largest SDK seen needs (30,000 entries of 200 bytes).
pub const TEXT_BYTES_MAX: usize = 64 << 20;

impl Manifest {
    /// Returns the canonical text.
    pub fn encode(&self) -> Vec<u8> {
        let parts = &self.parts;
        let mut text = Vec::with_capacity(128 * (parts.entries.len() + 8));
        let mut line = |words: &[&[u8]]| {
            for (index, word) in words.iter().enumerate() {
                if index > 0 {
                    text.push(b' ');
                }
                text.extend_from_slice(word);
            }
            text.push(b'\n');
        };
        line(&[HEADER.as_bytes()]);
        line(&[b"host", parts.host.to_string().as_bytes()]);
        line(&[b"target", parts.target.as_bytes()]);
        for (language, path) in &parts.compilers {
            let path = escaped(path.as_os_str());
            line(&[b"compiler", language.as_str().as_bytes(), &path]);
        }
        for flag in &parts.flags {
            line(&[b"flag", &escaped(OsStr::new(flag))]);
        }
        for option in &parts.defaults {
            line(&[b"default", &escaped(OsStr::new(option))]);
        }
        for path in &parts.library_path {
            line(&[b"library-path", &escaped(path.as_os_str())]);
        }
        for (path, entry) in &parts.entries {
            let path = escaped(path.as_os_str());
            match entry {
                Entry::File { mode, size, digest } => line(&[
                    b"file",
                    format!("{mode:o}").as_bytes(),
                    size.to_string().as_bytes(),
                    digest.to_string().as_bytes(),
                    &path,
                ]),
                Entry::Symlink { target } => line(&[b"link", &path, &escaped(target)]),
                Entry::Directory { mode } => {
                    line(&[b"directory", format!("{mode:o}").as_bytes(), &path]);
                }
            }
        }
        text
    }

    /// Reads a canonical text.
    pub fn decode(text: &[u8]) -> Result<Self, ManifestError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ManifestError::TooMuch {
                what: "bytes of text",
                max: TEXT_BYTES_MAX as u64,
            });
        }
        let mut lines = text.split(|byte| *byte == b'\n').enumerate();
        let mut next = |key: &str| -> Result<Vec<u8>, ManifestError> {
            let (index, line) = lines.next().unwrap_or((0, b""));
            line.strip_prefix(key.as_bytes())
                .map(<[u8]>::to_vec)
                .ok_or_else(|| at(index, format!("expected `{}`", key.trim_end())))
        };
        next(HEADER)?;
        let host = String::from_utf8_lossy(&next("host ")?)
            .parse()
            .map_err(|error| at(1, format!("{error}")))?;
        let target = String::from_utf8_lossy(&next("target ")?).into_owned();
        let mut parts = Parts {
            host,
            target,
            compilers: BTreeMap::new(),
            flags: Vec::new(),
            defaults: Vec::new(),
            library_path: Vec::new(),
            entries: Vec::new(),
        };
        for (index, line) in lines {
            if !line.is_empty() {
                fact(&mut parts, line).map_err(|problem| at(index, problem))?;
            }
        }
        let manifest = Self::new(parts)?;
        if manifest.encode() == text {
            Ok(manifest)
        } else {
            Err(ManifestError::NotCanonical)
        }
    }
}

/// Adds what one line says to `parts`.
fn fact(parts: &mut Parts, line: &[u8]) -> Result<(), String> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let room = |used: usize, max: usize| match used < max {
        true => Ok(()),
        false => Err(format!("more than {max} of them")),
    };
    match words[..] {
        [b"compiler", language, path] => {
            let language = Language::ALL
                .into_iter()
                .find(|known| known.as_str().as_bytes() == language)
                .ok_or("unknown language")?;
            parts.compilers.insert(language, unescaped(path)?.into());
        }
        [b"flag", flag] => {
            room(parts.flags.len(), LIST_MAX)?;
            let flag = unescaped(flag)?.into_string();
            parts.flags.push(flag.map_err(|_| "a flag is not UTF-8")?);
        }
        [b"default", option] => {
            room(parts.defaults.len(), LIST_MAX)?;
            let option = unescaped(option)?.into_string();
            parts.defaults.push(option.map_err(|_| "a default is not UTF-8")?);
        }
        [b"library-path", path] => {
            room(parts.library_path.len(), LIST_MAX)?;
            parts.library_path.push(unescaped(path)?.into());
        }
        [b"file", mode, size, digest, path] => {
            room(parts.entries.len(), ENTRIES_MAX)?;
            let digest: Digest = String::from_utf8_lossy(digest)
                .parse()
                .map_err(|error| format!("{error}"))?;
            let entry = Entry::File {
                mode: number(mode, 8)? as u32,
                size: number(size, 10)?,
                digest,
            };
            parts.entries.push((unescaped(path)?.into(), entry));
        }
        [b"link", path, target] => {
            room(parts.entries.len(), ENTRIES_MAX)?;
            let target = unescaped(target)?;
            parts.entries.push((unescaped(path)?.into(), Entry::Symlink { target }));
        }
        [b"directory", mode, path] => {
            room(parts.entries.len(), ENTRIES_MAX)?;
            let mode = number(mode, 8)? as u32;
            let path: PathBuf = unescaped(path)?.into();
            parts.entries.push((path, Entry::Directory { mode }));
        }
        _ => return Err("not a line of a manifest".to_owned()),
    }
    Ok(())
}

fn at(index: usize, problem: String) -> ManifestError {
    ManifestError::Text {
        line: index + 1,
        problem,
    }
}

fn number(digits: &[u8], radix: u32) -> Result<u64, String> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| u64::from_str_radix(text, radix).ok())
        .ok_or_else(|| "not a number".to_owned())
}

/// Writes any bytes as one word of printable ASCII.
pub(crate) fn escaped(text: &OsStr) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text.as_bytes() {
        if byte.is_ascii_graphic() && *byte != b'\\' {
            out.push(*byte);
        } else {
            // Writing to a vector cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// Reads what [`escaped`] wrote.
pub(crate) fn unescaped(text: &[u8]) -> Result<OsString, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        if *byte != b'\\' {
            out.push(*byte);
            rest = after;
            continue;
        }
        let [b'x', high, low, after @ ..] = after else {
            return Err("a backslash that starts no `\\xHH`".to_owned());
        };
        let value = number(&[*high, *low], 16)?;
        out.push(value as u8);
        rest = after;
    }
    Ok(OsString::from_vec(out))
}
