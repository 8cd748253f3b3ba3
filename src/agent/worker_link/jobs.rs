//! What one connection to a worker knows: which inputs it has numbered, and what has come back of each job.
//!
//! Pure but for the decompression. Nothing a worker sends is trusted: numbers outside a job's inputs, pieces beyond
//! the bound and outputs out of order are named errors. Invariant: assembled content never exceeds the job's bound.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::inputs::InputRef;
use crate::job::{Output, OutputKind};
use crate::protocol::LINK_ENTRIES_MAX;
use crate::protocol::convert::WireError;
use crate::protocol::pieces::{Encoding, OutputContent, OutputPiece};

/// Most files that one job may leave: `-save-temps -fdump-tree-all` leaves some 300.
const OUTPUTS_MAX: usize = 10_000;

/// A worker's reply that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the worker asked for input {0}, which the job does not have")]
    ForeignInput(u32),
    #[error("the worker asked {0} times for inputs of one job")]
    TooManyNeeds(u32),
    #[error("outputs of more than {0} bytes")]
    TooLarge(u64),
    #[error("more than {OUTPUTS_MAX} outputs")]
    TooMany,
    #[error("output `{0}` is incomplete or out of order")]
    Torn(PathBuf),
    #[error("output `{0}` came twice")]
    Twice(PathBuf),
}

/// The numbers that this connection has given to inputs.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    /// By the input's slot: serial and number.
    by_slot: Vec<Option<(u32, u32)>>,
    next: u32,
}

/// No number is left on this connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A job's inputs by their numbers on this connection: (number, index among the job's inputs), ascending.
pub(super) type Numbered = Vec<(u32, u32)>;

impl Numbering {
    /// Numbers a job's inputs. `define` hears of each that has no number yet, in the order of the new numbers, which
    /// start at the returned one.
    pub(super) fn number<'a>(
        &mut self,
        inputs: &'a [InputRef],
        mut define: impl FnMut(&'a InputRef),
    ) -> Result<(u32, Numbered), Full> {
        if inputs.len() > (LINK_ENTRIES_MAX - self.next) as usize {
            return Err(Full);
        }
        let first = self.next;
        let mut numbered = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            let slot = input.slot() as usize;
            if self.by_slot.len() <= slot {
                self.by_slot.resize(slot + 1, None);
            }
            let number = match self.by_slot[slot] {
                Some((serial, number)) if serial == input.serial() => number,
                _ => {
                    let number = self.next;
                    self.next += 1;
                    self.by_slot[slot] = Some((input.serial(), number));
                    define(input);
                    number
                }
            };
            numbered.push((number, index as u32));
        }
        numbered.sort_unstable();
        // The same input twice in one job says nothing new.
        numbered.dedup_by_key(|(number, _)| *number);
        Ok((first, numbered))
    }

    /// Returns how many numbers have been given.
    pub(super) fn defined(&self) -> u32 {
        self.next
    }
}

/// Finds the index among the job's inputs that `number` stands for.
pub(super) fn index_of(numbered: &Numbered, number: u32) -> Result<usize, ReplyError> {
    numbered
        .binary_search_by_key(&number, |(number, _)| *number)
        .map(|at| numbered[at].1 as usize)
        .map_err(|_| ReplyError::ForeignInput(number))
}

/// The outputs of one job while their pieces arrive.
#[derive(Debug)]
pub(super) struct Assembly {
    whole: Vec<(PathBuf, OutputContent)>,
    open: Option<(PathBuf, OutputContent)>,
    bytes: u64,
    bytes_max: u64,
}

impl Assembly {
    /// Starts with nothing; all outputs together may have `bytes_max` bytes, uncompressed.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            whole: Vec::new(),
            open: None,
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes the next piece.
    pub(super) fn piece(&mut self, piece: OutputPiece) -> Result<(), ReplyError> {
        let arrived = match self.open.take() {
            Some((path, content)) => {
                if path != piece.path {
                    return Err(ReplyError::Torn(path));
                }
                (
                    path,
                    joined(content, piece.content).ok_or(ReplyError::Torn(piece.path))?,
                )
            }
            None => {
                self.count(&piece.content)?;
                (piece.path, piece.content)
            }
        };
        // What compresses badly after its first piece grows by a few bytes per piece at most.
        if let OutputContent::File { size, data, .. } = &arrived.1
            && data.len() as u64 > size + size / 1024
        {
            return Err(ReplyError::Torn(arrived.0));
        }
        match piece.last {
            true => self.whole.push(arrived),
            false => self.open = Some(arrived),
        }
        Ok(())
    }

    fn count(&mut self, content: &OutputContent) -> Result<(), ReplyError> {
        if self.whole.len() >= OUTPUTS_MAX {
            return Err(ReplyError::TooMany);
        }
        if let OutputContent::File { size, .. } = content {
            self.bytes = self.bytes.saturating_add(*size);
        }
        if self.bytes > self.bytes_max {
            return Err(ReplyError::TooLarge(self.bytes_max));
        }
        Ok(())
    }

    /// Returns how many bytes the outputs have, uncompressed.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the assembly: decompresses, checks, sorts.
    pub(super) fn finish(self) -> Result<Vec<Output>, ReplyError> {
        if let Some((path, _)) = self.open {
            return Err(ReplyError::Torn(path));
        }
        let mut seen = BTreeSet::new();
        let mut outputs = Vec::with_capacity(self.whole.len());
        for (path, content) in self.whole {
            if !seen.insert(path.clone()) {
                return Err(ReplyError::Twice(path));
            }
            let kind = unpacked(content).ok_or_else(|| ReplyError::Torn(path.clone()))?;
            outputs.push(Output { path, kind });
        }
        outputs.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(outputs)
    }
}

/// Adds a piece to what has arrived of the same file; nothing when they do not belong together.
fn joined(arrived: OutputContent, piece: OutputContent) -> Option<OutputContent> {
    match (arrived, piece) {
        (
            OutputContent::File {
                mode,
                size,
                encoding,
                mut data,
            },
            OutputContent::File {
                encoding: same,
                data: more,
                ..
            },
        ) if encoding == same => {
            data.extend_from_slice(&more);
            Some(OutputContent::File {
                mode,
                size,
                encoding,
                data,
            })
        }
        _ => None,
    }
}

fn unpacked(content: OutputContent) -> Option<OutputKind> {
    match content {
        OutputContent::Removed => Some(OutputKind::Removed),
        OutputContent::File {
            mode,
            size,
            encoding,
            data,
        } => {
            let content = match encoding {
                Encoding::Plain => data,
                Encoding::Zstd => zstd::bulk::decompress(&data, usize::try_from(size).ok()?).ok()?,
            };
            (content.len() as u64 == size).then_some(OutputKind::File { mode, content })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::worker_link::inputs::InputTable;
    use crate::ids::JobId;
    use crate::job::{Input, InputKind};

    fn inputs(table: &InputTable, names: &[&str]) -> Vec<InputRef> {
        let input = |name: &&str| Input {
            path: format!("/{name}").into(),
            kind: InputKind::Absent,
        };
        names.iter().map(|name| table.intern(input(name))).collect()
    }

    #[test]
    fn only_inputs_without_a_number_are_defined() {
        let table = InputTable::default();
        let mut numbering = Numbering::default();
        let mut defined = Vec::new();
        let first = inputs(&table, &["b", "a"]);
        numbering
            .number(&first, |input| defined.push(input.path.clone()))
            .expect("room");
        let second = inputs(&table, &["c", "a", "b", "a"]);
        let (start, numbered) = numbering
            .number(&second, |input| defined.push(input.path.clone()))
            .expect("room");
        assert_eq!(defined, [PathBuf::from("/b"), "/a".into(), "/c".into()]);
        assert_eq!((start, numbering.defined()), (2, 3));
        assert_eq!(
            numbered.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(index_of(&numbered, 0), Ok(2));
        assert_eq!(index_of(&numbered, 7), Err(ReplyError::ForeignInput(7)));
    }

    #[test]
    fn reused_slot_gets_a_new_number() {
        let table = InputTable::default();
        let mut numbering = Numbering::default();
        let first = inputs(&table, &["a"]);
        numbering.number(&first, |_| ()).expect("room");
        drop(first);
        let second = inputs(&table, &["b"]);
        let (_, numbered) = numbering.number(&second, |_| ()).expect("room");
        assert_eq!(numbered, [(1, 0)]);
    }

    #[test]
    fn numbers_run_out_in_an_error() {
        let table = InputTable::default();
        let mut numbering = Numbering {
            next: LINK_ENTRIES_MAX - 1,
            ..Numbering::default()
        };
        let two = inputs(&table, &["a", "b"]);
        assert_eq!(numbering.number(&two, |_| ()), Err(Full));
    }

    fn piece(path: &str, data: &[u8], size: u64, last: bool) -> OutputPiece {
        encoded(path, data, size, last, Encoding::Plain)
    }

    fn encoded(path: &str, data: &[u8], size: u64, last: bool, encoding: Encoding) -> OutputPiece {
        let content = OutputContent::File {
            mode: 0o644,
            size,
            encoding,
            data: data.to_vec(),
        };
        OutputPiece {
            job: JobId(1),
            path: path.into(),
            content,
            last,
        }
    }

    fn assemble(pieces: Vec<OutputPiece>, bytes_max: u64) -> Result<Vec<Output>, ReplyError> {
        let mut assembly = Assembly::new(bytes_max);
        pieces.into_iter().try_for_each(|piece| assembly.piece(piece))?;
        assembly.finish()
    }

    #[test]
    fn pieces_become_sorted_outputs() {
        let packed = zstd::bulk::compress(&[b'x'; 90], 1).expect("compresses");
        let pieces = vec![
            piece("/b", b"he", 5, false),
            piece("/b", b"llo", 5, true),
            encoded("/a", &packed, 90, true, Encoding::Zstd),
        ];
        let outputs = assemble(pieces, 100).expect("whole");
        let contents: Vec<_> = outputs
            .iter()
            .map(|output| match &output.kind {
                OutputKind::File { content, .. } => content.as_slice(),
                OutputKind::Removed => b"",
            })
            .collect();
        assert_eq!(contents, [&[b'x'; 90][..], b"hello"]);
        assert_eq!(outputs[0].path, PathBuf::from("/a"));
    }

    #[test]
    fn torn_oversized_and_repeated_outputs_are_refused() {
        let torn = |path: &str| Err(ReplyError::Torn(path.into()));
        let take = |pieces| assemble(pieces, 10);
        assert_eq!(take(vec![piece("/a", b"x", 2, false)]), torn("/a"));
        assert_eq!(take(vec![piece("/a", b"x", 2, true)]), torn("/a"));
        assert_eq!(take(vec![piece("/a", b"xyz", 2, true)]), torn("/a"));
        assert_eq!(
            take(vec![piece("/a", b"x", 2, false), piece("/b", b"x", 1, true)]),
            torn("/a")
        );
        assert_eq!(take(vec![piece("/a", b"x", 11, false)]), Err(ReplyError::TooLarge(10)));
        let twice = vec![piece("/a", b"x", 1, true), piece("/a", b"x", 1, true)];
        assert_eq!(take(twice), Err(ReplyError::Twice("/a".into())));
        let bomb = zstd::bulk::compress(&[0; 4096], 1).expect("compresses");
        let bytes = bomb.len() as u64;
        assert_eq!(
            assemble(vec![encoded("/a", &bomb, bytes, true, Encoding::Zstd)], 100),
            torn("/a")
        );
    }
}
