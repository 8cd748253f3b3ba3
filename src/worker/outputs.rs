//! What a finished job hands back: which of its changes count, and their content in pieces.
//!
//! Only regular files and removals travel. Anything else, and whatever a job wrote among the toolchain's own files, makes
//! the job one for the client itself. Invariant: at most one batch of pieces is in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::sandbox::{Change, ChangeKind};
use crate::ids::JobId;
use crate::job::{Refusal, RefusalKind};
use crate::protocol::PIECE_BYTES_MAX;
use crate::protocol::convert::Compress;
use crate::protocol::pieces::{Encoding, OutputContent, OutputPiece};
use crate::toolchains::manifest::{Entry, Manifest};

/// Content read in one go, bytes.
const BATCH_BYTES: usize = 4 * PIECE_BYTES_MAX;
/// Most files that one job may leave: `-save-temps -fdump-tree-all` leaves some 300.
const OUTPUTS_MAX: usize = 10_000;
/// Most bytes of a list of dependencies, which travels in one message. The longest known have 500 KB.
pub const DEPENDENCIES_BYTES_MAX: u64 = 4 << 20;
/// Level of compression: the fastest.
const ZSTD_LEVEL: i32 = 1;
/// Content below this size travels as it is, bytes: it fits into a packet or two anyway.
const COMPRESS_FROM_BYTES: u64 = 2048;

/// The files that a job left, until this is dropped.
pub trait Left: Send {
    /// Returns what the job changed, sorted by path.
    fn changes(&self) -> &[Change];
    /// Opens a file that it left.
    fn open(&self, path: &Path) -> io::Result<File>;
}

/// What is to be handed back.
#[derive(Debug, PartialEq, Eq)]
pub struct Selected {
    /// Files and removals, sorted by path.
    pub outputs: Vec<Change>,
    /// Whether the job wrote its list of dependencies.
    pub dependencies: bool,
}

/// Chooses what is handed back of a job's changes, or says why the job has to run at the client.
pub fn select(
    changes: &[Change],
    dependency_file: Option<&Path>,
    toolchain: &Manifest,
    bytes_max: u64,
) -> Result<Selected, Refusal> {
    let mut selected = Selected {
        outputs: Vec::new(),
        dependencies: false,
    };
    let mut bytes = 0_u64;
    for change in changes {
        let path = change.path.display();
        let size = match &change.kind {
            ChangeKind::File { size, .. } => *size,
            ChangeKind::Removed => 0,
            ChangeKind::Symlink(_) | ChangeKind::Other => {
                return Err(unsupported(format!("it left `{path}`, which is not a regular file")));
            }
        };
        if Some(change.path.as_path()) == dependency_file && change.kind != ChangeKind::Removed {
            if size > DEPENDENCIES_BYTES_MAX {
                let message = format!("its list of dependencies `{path}` has {size} bytes");
                return Err(refusal(RefusalKind::Limit, message));
            }
            selected.dependencies = true;
            continue;
        }
        if holds_files(toolchain, change.path.parent().unwrap_or(Path::new("/"))) {
            return Err(unsupported(format!(
                "it wrote `{path}` among the toolchain's own files"
            )));
        }
        bytes = bytes.saturating_add(size);
        selected.outputs.push(change.clone());
    }
    if bytes > bytes_max || selected.outputs.len() > OUTPUTS_MAX {
        let count = selected.outputs.len();
        let message = format!("it left {count} files of {bytes} bytes, more than it may");
        return Err(refusal(RefusalKind::Limit, message));
    }
    Ok(selected)
}

/// Whether a toolchain has files or links right in `directory`.
fn holds_files(toolchain: &Manifest, directory: &Path) -> bool {
    let entries = toolchain.entries();
    let mut prefix = directory.as_os_str().as_bytes().to_vec();
    if prefix.last() != Some(&b'/') {
        prefix.push(b'/');
    }
    let first_from = |from: &[u8]| entries.partition_point(|(path, _)| path.as_os_str().as_bytes() < from);
    let mut at = first_from(&prefix);
    while let Some((path, entry)) = entries.get(at) {
        let Some(rest) = path.as_os_str().as_bytes().strip_prefix(prefix.as_slice()) else {
            return false;
        };
        match rest.iter().position(|byte| *byte == b'/') {
            // Somewhere below a directory in here: on to what follows it. `0` is the byte after `/`.
            Some(end) => at = first_from(&[&prefix, &rest[..end], b"0"].concat()),
            None if !matches!(entry, Entry::Directory { .. }) => return true,
            None => at += 1,
        }
    }
    false
}

fn unsupported(message: String) -> Refusal {
    refusal(RefusalKind::Unsupported, message)
}

fn refusal(kind: RefusalKind, message: String) -> Refusal {
    Refusal { kind, message }
}

/// Reads what is handed back, piece by piece.
pub struct OutputReader {
    job: JobId,
    compress: Compress,
    left: Box<dyn Left>,
    queue: VecDeque<Change>,
    open: Option<OpenOutput>,
}

struct OpenOutput {
    path: PathBuf,
    mode: u32,
    size: u64,
    left: u64,
    file: File,
    encoder: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
}

impl OutputReader {
    /// Starts reading these outputs of `job` out of what it left.
    pub fn new(job: JobId, left: Box<dyn Left>, outputs: Vec<Change>, compress: Compress) -> Self {
        Self {
            job,
            compress,
            left,
            queue: outputs.into(),
            open: None,
        }
    }

    /// True when all outputs have been read.
    pub fn is_done(&self) -> bool {
        self.open.is_none() && self.queue.is_empty()
    }

    /// Gives back what the job left.
    pub fn into_left(self) -> Box<dyn Left> {
        self.left
    }

    /// Reads a whole file of at most [`DEPENDENCIES_BYTES_MAX`]. Blocks on the disk.
    pub fn dependencies(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let file = self.left.open(path)?;
        file.take(DEPENDENCIES_BYTES_MAX).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Returns the next pieces; none when all have been read. Blocks on the disk.
    pub fn batch(&mut self) -> io::Result<Vec<OutputPiece>> {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES {
            let piece = match (self.open.take(), self.queue.pop_front()) {
                (Some(open), next) => {
                    next.into_iter().for_each(|next| self.queue.push_front(next));
                    self.resume(open)?
                }
                (None, Some(change)) => self.begin(change)?,
                (None, None) => break,
            };
            if let OutputContent::File { data, .. } = &piece.content {
                bytes += data.len();
            }
            pieces.push(piece);
        }
        Ok(pieces)
    }

    fn begin(&mut self, change: Change) -> io::Result<OutputPiece> {
        let ChangeKind::File { mode, size } = change.kind else {
            return Ok(OutputPiece {
                job: self.job,
                path: change.path,
                content: OutputContent::Removed,
                last: true,
            });
        };
        let file = self.left.open(&change.path)?;
        self.resume(OpenOutput {
            path: change.path,
            mode,
            size,
            left: size,
            file,
            encoder: None,
        })
    }

    fn resume(&mut self, mut open: OpenOutput) -> io::Result<OutputPiece> {
        let first = open.left == open.size;
        let take = open.left.min(PIECE_BYTES_MAX as u64) as usize;
        let mut data = vec![0; take];
        open.file.read_exact(&mut data)?;
        open.left -= take as u64;
        let last = open.left == 0;
        let mut encoding = match open.encoder {
            Some(_) => Encoding::Zstd,
            None => Encoding::Plain,
        };
        if first && self.compress == Compress::Allowed && open.size >= COMPRESS_FROM_BYTES {
            // The first piece is the trial: what does not pay there does not pay.
            let packed = zstd::bulk::compress(&data, ZSTD_LEVEL)?;
            if packed.len() < data.len() / 8 * 7 {
                encoding = Encoding::Zstd;
                match last {
                    true => data = packed,
                    false => open.encoder = Some(zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?),
                }
            }
        }
        if let Some(mut encoder) = open.encoder.take() {
            encoder.write_all(&data)?;
            if last {
                data = encoder.finish()?;
            } else {
                encoder.flush()?;
                data = std::mem::take(encoder.get_mut());
                open.encoder = Some(encoder);
            }
        }
        let piece = OutputPiece {
            job: self.job,
            path: open.path.clone(),
            content: OutputContent::File {
                mode: open.mode,
                size: open.size,
                encoding,
                data,
            },
            last,
        };
        if !last {
            self.open = Some(open);
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::toolchains::manifest::tests::sample;

    fn file(path: &str, size: u64) -> Change {
        let kind = ChangeKind::File { mode: 0o644, size };
        let path = path.into();
        Change { path, kind }
    }

    #[test]
    fn toolchain_directories_are_those_with_files_right_in_them() {
        let toolchain = sample();
        let holds = |path: &str| holds_files(&toolchain, Path::new(path));
        for path in ["/usr/bin", "/usr/lib", "/usr/lib/gcc", "/"] {
            assert!(holds(path), "{path}");
        }
        for path in ["/usr", "/src", "/usr/bin/x", "/usr/li"] {
            assert!(!holds(path), "{path}");
        }
    }

    #[test]
    fn files_and_removals_are_selected_and_dependencies_kept_apart() {
        let changes = [
            file("/src/a.d", 10),
            file("/src/a.o", 10),
            Change {
                path: "/src/b.o".into(),
                kind: ChangeKind::Removed,
            },
        ];
        let selected = select(&changes, Some(Path::new("/src/a.d")), &sample(), 20).expect("fits");
        assert_eq!(
            (selected.outputs.as_slice(), selected.dependencies),
            (&changes[1..], true)
        );
    }

    #[test]
    fn what_cannot_travel_is_refused_by_name() {
        let refused = |change: Change, kind: RefusalKind| {
            let refusal = select(&[change], None, &sample(), 9).expect_err("refused");
            assert_eq!(refusal.kind, kind);
            refusal.message
        };
        let fifo = Change {
            path: "/src/p".into(),
            kind: ChangeKind::Other,
        };
        assert!(refused(fifo, RefusalKind::Unsupported).contains("`/src/p`"));
        assert!(refused(file("/usr/bin/as", 1), RefusalKind::Unsupported).contains("toolchain"));
        assert!(refused(file("/src/a.o", 10), RefusalKind::Limit).contains("10 bytes"));
    }

    struct Directory(PathBuf);

    impl Left for Directory {
        fn changes(&self) -> &[Change] {
            &[]
        }

        fn open(&self, path: &Path) -> io::Result<File> {
            File::open(self.0.join(path.file_name().expect("a name")))
        }
    }

    #[test]
    fn content_survives_its_pieces_at_any_size() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let big = 2 * PIECE_BYTES_MAX + 1;
        for (size, step) in [(0, 1), (1, 1), (big, 1), (big, 0), (PIECE_BYTES_MAX, 0), (3000, 0)] {
            // Digests make noise, which does not compress.
            let noise = (0_u64..).flat_map(|number| *Digest::of(&number.to_le_bytes()).as_bytes());
            let content: Vec<u8> = noise.map(|byte| byte * step).take(size).collect();
            std::fs::write(directory.path().join("a.o"), &content).expect("written");
            for compress in [Compress::Allowed, Compress::Never] {
                let left = Box::new(Directory(directory.path().to_owned()));
                let mut reader = OutputReader::new(JobId(1), left, vec![file("/src/a.o", size as u64)], compress);
                let (mut data, mut zstd, mut lasts) = (Vec::new(), false, 0);
                loop {
                    let batch = reader.batch().expect("readable");
                    if batch.is_empty() {
                        break;
                    }
                    for piece in batch {
                        let OutputContent::File {
                            data: more, encoding, ..
                        } = piece.content
                        else {
                            panic!()
                        };
                        data.extend(more);
                        zstd = encoding == Encoding::Zstd;
                        lasts += usize::from(piece.last);
                    }
                }
                assert_eq!(zstd, compress == Compress::Allowed && step == 0, "{size}");
                let plain = if zstd {
                    zstd::stream::decode_all(&data[..]).expect("frame")
                } else {
                    data
                };
                assert!(plain == content && lasts == 1, "{size}");
            }
        }
    }
}
