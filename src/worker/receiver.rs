//! Puts the content that a link brings into the blob store, one blob after the other.
//!
//! Pieces are taken in batches off the event loop: writing a thousand small headers then costs some tens of thread hops.
//! Every blob is checked against its digest by the store; a bad one is reported, and nothing of it stays. Invariant: at
//! most one blob per link is being written, and never more of it than was announced.

use std::io::{self, Write};

use tokio::sync::mpsc;

use crate::digest::Digest;
use crate::protocol::pieces::{BlobPiece, Encoding};
use crate::runtime::tasks::Tasks;
use crate::store::disk::{BlobWriter, DiskStore, StoreError};

/// Pieces taken in one go.
const BATCH: usize = 64;

/// What became of a blob.
#[derive(Debug)]
pub struct Arrival {
    /// The blob.
    pub digest: Digest,
    /// Whether it is in the store now.
    pub result: Result<(), ReceiveError>,
}

/// Why a blob is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// What came is not what was announced: the file has changed at the client.
    #[error("the content that came is not what was announced")]
    Changed,
    /// The store cannot take it.
    #[error(transparent)]
    Store(StoreError),
}

/// Stores what comes until the link ends.
pub async fn run(
    tasks: Tasks,
    store: DiskStore,
    mut pieces: mpsc::Receiver<BlobPiece>,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut writing = Writing { store, open: None };
    let mut batch = Vec::with_capacity(BATCH);
    while pieces.recv_many(&mut batch, BATCH).await > 0 {
        let taken = std::mem::take(&mut batch);
        let (back, arrived) = tasks
            .blocking(move || {
                let arrived: Vec<Arrival> = taken.into_iter().filter_map(|piece| writing.take(piece)).collect();
                (writing, arrived)
            })
            .await;
        writing = back;
        for arrival in arrived {
            if arrivals.send(arrival).await.is_err() {
                return;
            }
        }
    }
}

struct Writing {
    store: DiskStore,
    /// The blob that has begun, or why the rest of it is passed over.
    open: Option<(Digest, Result<Sink, ReceiveError>)>,
}

enum Sink {
    Plain(Box<Bounded>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Bounded>>),
}

/// Writes to the store, and no more than was announced.
struct Bounded {
    writer: BlobWriter,
    left: u64,
    failed: Option<StoreError>,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(data.len() as u64)
            .ok_or(io::ErrorKind::InvalidData)?;
        if let Err(error) = self.writer.write(data) {
            self.failed = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bounded {
    fn error(self) -> ReceiveError {
        self.failed.map_or(ReceiveError::Changed, ReceiveError::Store)
    }
}

impl Writing {
    fn take(&mut self, piece: BlobPiece) -> Option<Arrival> {
        let open = self.open.take().filter(|(digest, _)| *digest == piece.digest);
        let sink = match open {
            Some((_, sink)) => sink,
            None => Sink::open(&self.store, &piece),
        };
        let sink = sink.and_then(|sink| sink.write(&piece.data));
        if !piece.last {
            self.open = Some((piece.digest, sink));
            return None;
        }
        let result = sink.and_then(Sink::finish);
        let digest = piece.digest;
        Some(Arrival { digest, result })
    }
}

impl Sink {
    fn open(store: &DiskStore, piece: &BlobPiece) -> Result<Self, ReceiveError> {
        let bounded = Bounded {
            writer: store.begin(piece.digest).map_err(ReceiveError::Store)?,
            left: piece.size,
            failed: None,
        };
        match piece.encoding {
            Encoding::Plain => Ok(Self::Plain(Box::new(bounded))),
            Encoding::Zstd => match zstd::stream::write::Decoder::new(bounded) {
                Ok(decoder) => Ok(Self::Zstd(Box::new(decoder))),
                Err(_) => Err(ReceiveError::Changed),
            },
        }
    }

    fn write(self, data: &[u8]) -> Result<Self, ReceiveError> {
        match self {
            Self::Plain(mut bounded) => match bounded.write_all(data) {
                Ok(()) => Ok(Self::Plain(bounded)),
                Err(_) => Err(bounded.error()),
            },
            Self::Zstd(mut decoder) => match decoder.write_all(data) {
                Ok(()) => Ok(Self::Zstd(decoder)),
                Err(_) => Err(decoder.into_inner().error()),
            },
        }
    }

    fn finish(self) -> Result<(), ReceiveError> {
        let bounded = match self {
            Self::Plain(bounded) => *bounded,
            Self::Zstd(mut decoder) => {
                let flushed = decoder.flush();
                let bounded = decoder.into_inner();
                match flushed {
                    Ok(()) => bounded,
                    Err(_) => return Err(bounded.error()),
                }
            }
        };
        match bounded.writer.commit() {
            Ok(()) => Ok(()),
            Err(StoreError::WrongDigest { .. }) => Err(ReceiveError::Changed),
            Err(error) => Err(ReceiveError::Store(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(content: &[u8], data: &[u8], size: usize, encoding: Encoding, last: bool) -> BlobPiece {
        BlobPiece {
            digest: Digest::of(content),
            size: size as u64,
            encoding,
            data: data.to_vec(),
            last,
        }
    }

    fn store() -> (tempfile::TempDir, DiskStore) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = DiskStore::open(directory.path(), 1 << 20).expect("store");
        (directory, store)
    }

    fn receive(pieces: Vec<BlobPiece>) -> Vec<bool> {
        let (_directory, store) = store();
        let mut writing = Writing {
            store: store.clone(),
            open: None,
        };
        let arrivals = pieces.into_iter().filter_map(|piece| writing.take(piece));
        arrivals
            .map(|arrival| {
                let there = store.contains_many(&[arrival.digest]) == [true];
                assert_eq!(there, arrival.result.is_ok());
                there
            })
            .collect()
    }

    #[test]
    fn plain_and_compressed_content_is_stored() {
        let content = b"int a; int b; ".repeat(1000);
        let packed = zstd::bulk::compress(&content, 1).expect("compresses");
        let (head, tail) = packed.split_at(20);
        let size = content.len();
        assert_eq!(
            receive(vec![
                piece(&content, head, size, Encoding::Zstd, false),
                piece(&content, tail, size, Encoding::Zstd, true),
                piece(b"", b"", 0, Encoding::Plain, true),
                piece(b"xy", b"x", 2, Encoding::Plain, false),
                piece(b"xy", b"y", 2, Encoding::Plain, true),
            ]),
            [true, true, true]
        );
    }

    #[test]
    fn short_long_changed_and_malformed_content_is_reported_and_the_next_blob_is_taken() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).expect("compresses");
        assert_eq!(
            receive(vec![
                piece(b"xy", b"x", 2, Encoding::Plain, true),
                piece(b"xy", b"xyz", 2, Encoding::Plain, false),
                piece(b"xy", b"", 2, Encoding::Plain, true),
                piece(b"xy", b"xz", 2, Encoding::Plain, true),
                piece(b"xy", b"no frame", 2, Encoding::Zstd, true),
                piece(&vec![0; 1 << 20], &bomb, 10, Encoding::Zstd, true),
                piece(b"fine", b"fine", 4, Encoding::Plain, true),
            ]),
            [false, false, false, false, false, true]
        );
    }

    #[test]
    fn blob_beyond_the_quota_is_reported() {
        let content = vec![7; 2 << 20];
        assert_eq!(
            receive(vec![piece(&content, &content, content.len(), Encoding::Plain, true)]),
            [false]
        );
    }
}
