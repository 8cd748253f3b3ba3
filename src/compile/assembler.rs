//! What the words for the assembler (`-Wa,`, `-Xassembler`) make it read and write.
//!
//! Knows the options of GNU as that take a value or touch files; every other option passes as long as it cannot name a
//! file. A word without a dash that no option takes is a file the assembler reads before the compiler's output.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::facts::Feature;
use super::reason::LocalReason;

/// Options whose value, when not joined, is the next word, and that touch no file.
const TAKES_NEXT: [&[u8]; 8] = [
    b"--defsym",
    b"--hash-size",
    b"--debug-prefix-map",
    b"--listing-lhs-width",
    b"--listing-lhs-width2",
    b"--listing-rhs-width",
    b"--listing-cont-lines",
    b"-G",
];

/// The words for the assembler, in order.
#[derive(Debug, Default)]
pub(super) struct AssemblerWords(Vec<OsString>);

/// What the words ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AssemblerRequest {
    pub features: Vec<Feature>,
    pub include_dirs: Vec<OsString>,
    pub input_files: Vec<PathBuf>,
    pub debug: bool,
}

impl AssemblerWords {
    pub fn extend(&mut self, words: impl IntoIterator<Item = OsString>) {
        self.0.extend(words);
    }

    /// Goes through the words; an error names the word that keeps the command here.
    pub fn read(self) -> Result<AssemblerRequest, (LocalReason, OsString)> {
        let mut request = AssemblerRequest::default();
        let mut words = self.0.into_iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            if bytes.is_empty() {
                continue;
            }
            if bytes.starts_with(b"@") {
                return Err((LocalReason::AssemblerFile, word));
            }
            if !bytes.starts_with(b"-") {
                request.input_files.push(PathBuf::from(word));
            } else if bytes == b"-I" {
                let dir = words.next().ok_or((LocalReason::MissingValue, word))?;
                request.include_dirs.push(dir);
            } else if bytes == b"--MD" {
                words.next().ok_or((LocalReason::MissingValue, word))?;
                request.features.push(Feature::AssemblerFile);
            } else if TAKES_NEXT.contains(&bytes) {
                words.next().ok_or((LocalReason::MissingValue, word))?;
            } else {
                request.take_word(&word)?;
            }
        }
        Ok(request)
    }
}

impl AssemblerRequest {
    fn take_word(&mut self, word: &OsStr) -> Result<(), (LocalReason, OsString)> {
        let bytes = word.as_bytes();
        if bytes.starts_with(b"--MD=") {
            self.features.push(Feature::AssemblerFile);
        } else if let Some(dir) = bytes.strip_prefix(b"-I") {
            self.include_dirs.push(OsStr::from_bytes(dir).to_owned());
        } else if bytes.starts_with(b"-a") {
            self.features.push(Feature::AssemblerListing);
        } else if bytes.starts_with(b"-g") || bytes.starts_with(b"--g") {
            self.debug = true;
        } else if bytes.ends_with(b"=native") {
            return Err((LocalReason::NativeCpu, word.to_owned()));
        } else if !bytes.starts_with(b"--debug-prefix-map=")
            && !bytes.starts_with(b"--defsym=")
            && (bytes == b"-o" || bytes.contains(&b'/') || bytes.contains(&b'@'))
        {
            return Err((LocalReason::UnknownOption, word.to_owned()));
        }
        Ok(())
    }
}
