//! Sends the content that a worker lacks, one blob after the other.
//!
//! Files are read and compressed off the event loop, in batches, so that a thousand headers cost some tens of thread
//! hops. A blob that was begun is always ended, also when its job is gone: another job may wait for it, and the worker
//! never has more than one open. Invariant: at most one batch and one channel of pieces are in memory per link.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::inputs::InputRef;
use super::{Content, ContentSource};
use crate::digest::Digest;
use crate::ids::JobId;
use crate::job::InputKind;
use crate::protocol::PIECE_BYTES_MAX;
use crate::protocol::convert::Compress;
use crate::protocol::pieces::{BlobPiece, Encoding};
use crate::runtime::tasks::Tasks;

/// Content read in one go before it is handed on, bytes.
const BATCH_BYTES: usize = 2 * PIECE_BYTES_MAX;
/// Level of compression: the fastest. It saves three quarters of C text at some 400 MB/s on a PC, 30 MB/s on an A20.
const ZSTD_LEVEL: i32 = 1;
/// Content below this size is sent as it is, bytes: it fits into one packet anyway.
const COMPRESS_FROM_BYTES: u64 = 1024;

/// One blob to be sent for a job.
pub(super) struct Feed {
    pub(super) job: JobId,
    pub(super) number: u32,
    pub(super) input: InputRef,
    pub(super) content: Arc<dyn ContentSource>,
    /// Set when the job has ended: what was not begun is then left out.
    pub(super) ended: CancellationToken,
}

/// An input whose content is not there any more.
pub(super) struct GoneInput {
    pub(super) job: JobId,
    pub(super) number: u32,
    pub(super) input: InputRef,
}

/// Sends blobs until the link ends.
pub(super) async fn run(
    tasks: Tasks,
    compress: Compress,
    mut feeds: mpsc::UnboundedReceiver<Vec<Feed>>,
    pieces: mpsc::Sender<BlobPiece>,
    gone: mpsc::Sender<GoneInput>,
) {
    let mut reader = Reader::new(compress);
    while let Some(first) = feeds.recv().await {
        reader.queue.extend(first);
        loop {
            while let Ok(more) = feeds.try_recv() {
                reader.queue.extend(more);
            }
            let (back, batch) = tasks
                .blocking(move || {
                    let batch = reader.batch();
                    (reader, batch)
                })
                .await;
            reader = back;
            if batch.is_empty() {
                break;
            }
            for item in batch {
                let sent = match item {
                    Item::Piece(piece) => pieces.send(piece).await.is_ok(),
                    Item::Gone(input) => gone.send(input).await.is_ok(),
                };
                if !sent {
                    return;
                }
            }
        }
    }
}

enum Item {
    Piece(BlobPiece),
    Gone(GoneInput),
}

struct Reader {
    queue: VecDeque<Feed>,
    open: Option<OpenBlob>,
    compress: Compress,
}

/// A blob too large for one piece, on its way.
struct OpenBlob {
    digest: Digest,
    size: u64,
    left: u64,
    source: Source,
    encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
}

enum Source {
    File(File),
    Held { content: Arc<Vec<u8>>, at: usize },
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::File(file) => file.read(buffer),
            Source::Held { content, at } => {
                let count = (&content[*at..]).read(buffer)?;
                *at += count;
                Ok(count)
            }
        }
    }
}

impl Reader {
    fn new(compress: Compress) -> Self {
        Self {
            queue: VecDeque::new(),
            open: None,
            compress,
        }
    }

    /// Returns the next items; empty when there is nothing left to send.
    fn batch(&mut self) -> Vec<Item> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES {
            let item = match self.open.take() {
                Some(open) => self.resume(open),
                None => match self.queue.pop_front() {
                    Some(feed) if feed.ended.is_cancelled() => continue,
                    Some(feed) => self.begin(feed),
                    None => break,
                },
            };
            if let Item::Piece(piece) = &item {
                bytes += piece.data.len();
            }
            items.push(item);
        }
        items
    }

    fn begin(&mut self, feed: Feed) -> Item {
        let InputKind::File { digest, size, .. } = feed.input.kind else {
            return gone(feed);
        };
        let (source, found) = match feed.content.open(&feed.input) {
            Ok(Content::Held(content)) => {
                let found = content.len() as u64;
                (Source::Held { content, at: 0 }, found)
            }
            Ok(Content::File(file)) => match file.metadata() {
                Ok(metadata) => (Source::File(file), metadata.len()),
                Err(_) => return gone(feed),
            },
            Err(_) => return gone(feed),
        };
        if found != size {
            return gone(feed);
        }
        if size > PIECE_BYTES_MAX as u64 {
            let encoder = match self.compress {
                Compress::Allowed => zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).ok(),
                Compress::Never => None,
            };
            let open = OpenBlob {
                digest,
                size,
                left: size,
                source,
                encoder,
            };
            return self.resume(open);
        }
        let mut source = source;
        let mut data = vec![0; size as usize];
        if source.read_exact(&mut data).is_err() {
            return gone(feed);
        }
        let packed = match self.compress {
            Compress::Allowed if size >= COMPRESS_FROM_BYTES => zstd::bulk::compress(&data, ZSTD_LEVEL).ok(),
            _ => None,
        };
        let packed = packed.filter(|packed| packed.len() < data.len() / 8 * 7);
        Item::Piece(BlobPiece {
            digest,
            size,
            encoding: encoding(packed.is_some()),
            data: packed.unwrap_or(data),
            last: true,
        })
    }

    /// Sends the next piece of a large blob. One that cannot be read to its end is ended short, which its digest
    /// then shows at the worker.
    fn resume(&mut self, mut open: OpenBlob) -> Item {
        let mut data = Vec::new();
        while data.is_empty() && open.left > 0 {
            let take = open.left.min(PIECE_BYTES_MAX as u64) as usize;
            let mut plain = vec![0; take];
            if open.source.read_exact(&mut plain).is_err() {
                open.left = 0;
                break;
            }
            open.left -= take as u64;
            match &mut open.encoder {
                None => data = plain,
                Some(encoder) => {
                    // Writing into memory cannot fail.
                    let _ = encoder.write_all(&plain).and_then(|()| encoder.flush());
                    data = std::mem::take(encoder.get_mut());
                }
            }
        }
        let encoding = encoding(open.encoder.is_some());
        let last = open.left == 0;
        if last && let Some(encoder) = open.encoder.take() {
            data.extend(encoder.finish().unwrap_or_default());
        }
        let piece = BlobPiece {
            digest: open.digest,
            size: open.size,
            encoding,
            data,
            last,
        };
        if !last {
            self.open = Some(open);
        }
        Item::Piece(piece)
    }
}

fn encoding(compressed: bool) -> Encoding {
    if compressed { Encoding::Zstd } else { Encoding::Plain }
}

fn gone(feed: Feed) -> Item {
    Item::Gone(GoneInput {
        job: feed.job,
        number: feed.number,
        input: feed.input,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::worker_link::Changed;
    use crate::agent::worker_link::inputs::InputTable;
    use crate::job::Input;

    struct Fixed(Vec<u8>);

    impl ContentSource for Fixed {
        fn open(&self, _: &Input) -> Result<Content, Changed> {
            Ok(Content::Held(Arc::new(self.0.clone())))
        }
    }

    fn feed(content: &[u8], size: u64) -> Feed {
        let kind = InputKind::File {
            digest: Digest::of(content),
            size,
            mode: 0o644,
            mtime_ns: 0,
        };
        Feed {
            job: JobId(1),
            number: 0,
            input: InputTable::default().intern(Input {
                path: "/a".into(),
                kind,
            }),
            content: Arc::new(Fixed(content.to_vec())),
            ended: CancellationToken::new(),
        }
    }

    fn send(compress: Compress, feeds: Vec<Feed>) -> Vec<Item> {
        let mut reader = Reader::new(compress);
        reader.queue.extend(feeds);
        let mut items = Vec::new();
        loop {
            match reader.batch() {
                batch if batch.is_empty() => return items,
                batch => items.extend(batch),
            }
        }
    }

    fn content(items: &[Item]) -> Vec<u8> {
        let (mut data, mut encoding) = (Vec::new(), Encoding::Plain);
        for item in items {
            let Item::Piece(piece) = item else { panic!("gone") };
            assert!(piece.data.len() <= PIECE_BYTES_MAX + 4096);
            data.extend_from_slice(&piece.data);
            encoding = piece.encoding;
        }
        match encoding {
            Encoding::Plain => data,
            Encoding::Zstd => zstd::stream::decode_all(data.as_slice()).expect("frame"),
        }
    }

    #[test]
    fn content_arrives_whole_at_any_size() {
        for size in [0, 1, 5000, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 3 * PIECE_BYTES_MAX] {
            let bytes: Vec<u8> = (0..size).map(|i| (i * i / 7) as u8).collect();
            for compress in [Compress::Never, Compress::Allowed] {
                let items = send(compress, vec![feed(&bytes, size as u64)]);
                assert_eq!(content(&items), bytes, "{size}");
                let lasts = items
                    .iter()
                    .filter(|item| matches!(item, Item::Piece(piece) if piece.last));
                assert_eq!(lasts.count(), 1, "{size}");
            }
        }
    }

    #[test]
    fn content_of_another_length_is_gone() {
        let items = send(Compress::Never, vec![feed(b"abc", 4)]);
        assert!(matches!(items.as_slice(), [Item::Gone(_)]));
    }

    #[test]
    fn blobs_of_an_ended_job_are_left_out() {
        let ended = feed(b"abc", 3);
        ended.ended.cancel();
        assert!(send(Compress::Never, vec![ended]).is_empty());
    }
}
