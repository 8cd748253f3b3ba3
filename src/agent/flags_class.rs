//! Which commands cost alike: a number for the flags that decide how long a compile takes.
//!
//! Pure. Optimisation, debug information, code generation, language and standard count; macros, search paths, warnings
//! and names do not. A difference that is missed makes a prediction worse, no more.

use std::os::unix::ffi::OsStrExt;

use crate::compile::CompileCommand;
use crate::digest::Digest;

/// Returns the class of a command's flags.
pub fn flags_class(command: &CompileCommand) -> u64 {
    let mut text = vec![command.stage as u8];
    text.extend_from_slice(command.language.name().as_bytes());
    for word in &command.argv {
        let word = word.as_bytes();
        let counts = match word {
            [b'-', b'O' | b'g' | b'f' | b'm', ..] => !word.starts_with(b"-fdiagnostics") && !is_about_paths(word),
            _ => word.starts_with(b"-std=") || word == b"-S",
        };
        if counts {
            text.push(0);
            text.extend_from_slice(word);
        }
    }
    let digest = Digest::of(&text);
    u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
}

/// Options with a name of a file or directory in them, or a seed that differs from file to file.
fn is_about_paths(word: &[u8]) -> bool {
    memchr::memchr(b'/', word).is_some() || word.starts_with(b"-frandom-seed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Driver, Verdict, parse};
    use std::ffi::OsString;

    fn class(text: &str) -> u64 {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        match parse(
            &words,
            &[],
            Driver::C,
            &mut |_| Err(std::io::ErrorKind::NotFound.into()),
        ) {
            Verdict::Remote(command) => flags_class(&command),
            Verdict::Local(local) => panic!("{text}: {local:?}"),
        }
    }

    #[test]
    fn what_costs_alike_is_one_class() {
        let plain = class("-O2 -c a.c -o a.o");
        for alike in [
            "-O2 -c b.c -o b.o",
            "-O2 -DX=1 -Iinclude -Wall -c a.c",
            "-O2 -MMD -MF x.d -c a.c",
            "-O2 -ffile-prefix-map=/a/b=/c -c a.c",
            "-O2 -fdiagnostics-color=always -c a.c",
        ] {
            assert_eq!(class(alike), plain, "{alike}");
        }
        for other in [
            "-O3 -c a.c",
            "-O2 -g -c a.c",
            "-O2 -flto -c a.c",
            "-O2 -march=armv5te -c a.c",
            "-O2 -std=gnu11 -c a.c",
            "-O2 -S a.c",
            "-O2 -c a.S",
        ] {
            assert_ne!(class(other), plain, "{other}");
        }
    }
}
