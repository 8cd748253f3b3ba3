//! Content on the wire: the pieces of a blob on its way to a worker, and of an output on its way back.
//!
//! Both sides of a link use these values; the generated messages stay below. Invariant: a piece that came off the wire
//! has a bounded length, a valid path or digest, and permission bits only.

use std::path::PathBuf;

use super::convert::{WireError, path_from_wire, path_to_wire};
use super::wire;
use crate::digest::Digest;
use crate::ids::JobId;

/// Most bytes of content that a received piece may have: what senders make, plus what a compressor may add.
const RECEIVED_PIECE_BYTES_MAX: usize = 1 << 20;

/// How content travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// All pieces together are one zstd frame.
    Zstd,
}

/// A piece of a blob. The pieces of one blob follow each other on a link, with no other blob's between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobPiece {
    /// Of the whole content, uncompressed.
    pub digest: Digest,
    /// Of the whole content, uncompressed, bytes.
    pub size: u64,
    /// How the content travels.
    pub encoding: Encoding,
    /// The next piece of it.
    pub data: Vec<u8>,
    /// Whether it is the last. A blob that cannot be read to its end is ended early; its digest then does not match.
    pub last: bool,
}

/// A piece of an output. The pieces of one output follow each other among those of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// The job that left it.
    pub job: JobId,
    /// Absolute client-side path.
    pub path: PathBuf,
    /// What it is a piece of.
    pub content: OutputContent,
    /// Whether it is the last.
    pub last: bool,
}

/// What a piece of an output says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputContent {
    /// The job removed what stood there.
    Removed,
    /// The job left a regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Of the whole content, uncompressed, bytes.
        size: u64,
        /// How the content travels.
        encoding: Encoding,
        /// The next piece of it.
        data: Vec<u8>,
    },
}

impl Encoding {
    fn from_flag(zstd: bool) -> Self {
        if zstd { Self::Zstd } else { Self::Plain }
    }
}

fn bounded(what: &'static str, data: Vec<u8>) -> Result<Vec<u8>, WireError> {
    let (found, bound) = (data.len(), RECEIVED_PIECE_BYTES_MAX);
    if found > bound {
        return Err(WireError::TooLarge { what, found, bound });
    }
    Ok(data)
}

/// Turns a piece of a blob into its wire form.
pub fn blob_piece_to_wire(piece: BlobPiece) -> wire::BlobPiece {
    wire::BlobPiece {
        digest: piece.digest.as_bytes().to_vec(),
        size: piece.size,
        zstd: piece.encoding == Encoding::Zstd,
        data: piece.data,
        last: piece.last,
    }
}

/// Takes a piece of a blob.
pub fn blob_piece_from_wire(piece: wire::BlobPiece) -> Result<BlobPiece, WireError> {
    Ok(BlobPiece {
        digest: Digest::from_slice(&piece.digest)?,
        size: piece.size,
        encoding: Encoding::from_flag(piece.zstd),
        data: bounded("piece of a blob", piece.data)?,
        last: piece.last,
    })
}

/// Turns a piece of an output into its wire form.
pub fn output_piece_to_wire(piece: OutputPiece) -> wire::OutputPiece {
    let base = wire::OutputPiece {
        job: piece.job.0,
        path: path_to_wire(&piece.path),
        last: piece.last,
        ..Default::default()
    };
    match piece.content {
        OutputContent::Removed => wire::OutputPiece { removed: true, ..base },
        OutputContent::File {
            mode,
            size,
            encoding,
            data,
        } => wire::OutputPiece {
            mode,
            size,
            zstd: encoding == Encoding::Zstd,
            data,
            ..base
        },
    }
}

/// Takes a piece of an output.
pub fn output_piece_from_wire(piece: wire::OutputPiece) -> Result<OutputPiece, WireError> {
    let content = match piece.removed {
        true => OutputContent::Removed,
        false => OutputContent::File {
            mode: piece.mode & 0o777,
            size: piece.size,
            encoding: Encoding::from_flag(piece.zstd),
            data: bounded("piece of an output", piece.data)?,
        },
    };
    Ok(OutputPiece {
        job: JobId(piece.job),
        path: path_from_wire("output path", piece.path)?,
        content,
        last: piece.last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_survive_the_wire() {
        let blob = BlobPiece {
            digest: Digest::of(b"x"),
            size: 1,
            encoding: Encoding::Zstd,
            data: vec![1],
            last: true,
        };
        assert_eq!(blob_piece_from_wire(blob_piece_to_wire(blob.clone())), Ok(blob));
        let file = OutputContent::File {
            mode: 0o755,
            size: 9,
            encoding: Encoding::Plain,
            data: vec![2],
        };
        for content in [OutputContent::Removed, file] {
            let output = OutputPiece {
                job: JobId(1),
                path: "/a.o".into(),
                content,
                last: false,
            };
            assert_eq!(output_piece_from_wire(output_piece_to_wire(output.clone())), Ok(output));
        }
    }

    #[test]
    fn oversized_pieces_are_refused() {
        let piece = wire::BlobPiece {
            digest: vec![0; 32],
            data: vec![0; RECEIVED_PIECE_BYTES_MAX + 1],
            ..Default::default()
        };
        assert!(matches!(blob_piece_from_wire(piece), Err(WireError::TooLarge { .. })));
    }
}
