//! Command lines of our own making, built from the user's with as little change as will do.
//!
//! Only options of the `-M` family are exchanged here; none of them reaches the object. All start from the expanded
//! words, so the result names no response file. Invariant: every other word stands where it stood.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::command::{CompileCommand, DependencyKind};
use super::dependencies::DependencyOptions;
use super::facts::Feature;
use super::options::{self, DependencyOption, Role, Shape};
use super::survey::Stage;
use super::words::{Word, Words};

/// Sum of the lengths of the words that we dare to put on a command line, bytes. Linux takes 2 MiB with the
/// environment in it.
const ARGV_BYTES_MAX: usize = 1 << 20;
/// Longest word that Linux takes, bytes.
const WORD_BYTES_MAX: usize = 128 * 1024 - 1;

/// Returns the words that make the compiler list all headers where the user asked for those of user directories only.
///
/// `-MMD` becomes `-MD`, wherever it stands; the file and its targets stay. `None` when the user did not ask for such
/// a list, or when the change would show in the output.
pub fn with_full_dependencies(command: &CompileCommand) -> Option<Vec<OsString>> {
    let asked = command.dependencies.as_ref()?;
    if asked.kind != DependencyKind::User || shows_command_line(command) {
        return None;
    }
    let argv = exchange(&command.argv, Exchange::UserForAll);
    fits(&argv).then_some(argv)
}

/// Returns the words without any of the `-M` family.
pub(super) fn without_dependencies(argv: &[OsString]) -> Vec<OsString> {
    exchange(argv, Exchange::Drop)
}

/// Returns whether the words fit on a command line.
pub(super) fn fits(argv: &[OsString]) -> bool {
    let length = |word: &OsString| word.as_bytes().len();
    argv.iter().map(length).sum::<usize>() <= ARGV_BYTES_MAX && argv.iter().all(|word| length(word) <= WORD_BYTES_MAX)
}

/// Up to gcc 10 both of these record the `-M` options as well.
fn shows_command_line(command: &CompileCommand) -> bool {
    let features = command.facts.features;
    features.has(Feature::RecordedSwitches)
        || (features.has(Feature::VerboseAsm) && (command.stage == Stage::Assembly || features.has(Feature::SaveTemps)))
}

/// What happens to the options of the `-M` family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exchange {
    UserForAll,
    Drop,
}

fn exchange(argv: &[OsString], exchange: Exchange) -> Vec<OsString> {
    let mut preprocessor = PreprocessorPieces::collect(argv, exchange);
    let mut kept = Vec::with_capacity(argv.len());
    for word in Words::new(argv) {
        match word {
            Word::Option { row, words, .. } => match row.role {
                Role::Dependency(option) => match exchange {
                    Exchange::Drop => {}
                    Exchange::UserForAll if option == DependencyOption::User => {
                        kept.push("-MD".into());
                    }
                    Exchange::UserForAll => kept.extend_from_slice(words),
                },
                Role::PreprocessorList | Role::PreprocessorWord => {
                    preprocessor.put_next(words, row.shape, &mut kept);
                }
                _ => kept.extend_from_slice(words),
            },
            Word::File(word) | Word::Unknown(word) | Word::MissingValue(word) => {
                kept.push(word.to_owned());
            }
        }
    }
    kept
}

/// The words for the preprocessor, taken apart: `-Wp,-MMD,x -Wp,-MP` are two options and three pieces.
#[derive(Debug)]
struct PreprocessorPieces {
    /// For each piece what becomes of it; `None` is dropped.
    pieces: std::vec::IntoIter<Option<OsString>>,
}

impl PreprocessorPieces {
    fn collect(argv: &[OsString], exchange: Exchange) -> Self {
        let mut pieces: Vec<OsString> = Vec::new();
        for word in Words::new(argv) {
            if let Word::Option {
                row,
                value: Some(value),
                ..
            } = word
            {
                match row.role {
                    Role::PreprocessorList => pieces.extend(split_list(value)),
                    Role::PreprocessorWord => pieces.push(value.to_owned()),
                    _ => {}
                }
            }
        }
        let mut becomes = Vec::with_capacity(pieces.len());
        let mut rest = pieces.as_slice();
        while let Some(first) = rest.first() {
            let kind = DependencyOptions::kind_of_preprocessor_word(first);
            let found = options::find(first);
            let length = match (kind, found) {
                (Some(_), _) => 2,
                (None, Some(found)) if found.takes_next() => 2,
                _ => 1,
            };
            let (taken, after) = rest.split_at(length.min(rest.len()));
            let is_dependency = found.is_some_and(|found| matches!(found.row.role, Role::Dependency(_)));
            for (index, piece) in taken.iter().enumerate() {
                becomes.push(match exchange {
                    Exchange::Drop if is_dependency => None,
                    Exchange::UserForAll if index == 0 && kind == Some(DependencyKind::User) => Some("-MD".into()),
                    _ => Some(piece.clone()),
                });
            }
            rest = after;
        }
        PreprocessorPieces {
            pieces: becomes.into_iter(),
        }
    }

    /// Puts what became of one `-Wp,` or `-Xpreprocessor` option behind `kept`.
    fn put_next(&mut self, words: &[OsString], shape: Shape, kept: &mut Vec<OsString>) {
        if shape == Shape::Separate {
            if let Some(Some(piece)) = self.pieces.next() {
                kept.extend([words[0].clone(), piece]);
            }
            return;
        }
        let count = words[0].as_bytes().iter().filter(|byte| **byte == b',').count();
        let pieces: Vec<OsString> = self.pieces.by_ref().take(count).flatten().collect();
        if pieces.is_empty() {
            return;
        }
        let mut word = b"-Wp".to_vec();
        for piece in pieces {
            word.push(b',');
            word.extend_from_slice(piece.as_bytes());
        }
        kept.push(OsString::from_vec(word));
    }
}

/// Splits the value of `-Wp,` or `-Wa,` at its commas.
pub(super) fn split_list(value: &OsStr) -> impl Iterator<Item = OsString> {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .map(|word| OsString::from_vec(word.to_vec()))
}
