//! Archives: what a worker unpacks, from a coordinator or a client.
//!
//! The bytes are a tar archive, whose checksums are mended and which is compressed here, since a fuzzer finds neither; behind
//! a first byte of 0xff they are taken as they are. Holds: the reader ends, within its limits, with clean names only, and what it read
//! is read again from what the writer makes of it.

use std::io::Read;
use std::path::{Component, Path};

use rdcc::store::archive::{ArchiveReader, ArchiveWriter, Compression, Limits, Member, MemberKind};

const LIMITS: Limits = Limits {
    members_max: 64,
    content_bytes_max: 1 << 10,
};

/// Where a header has its checksum, and the word by which a header is known.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MAGIC: std::ops::Range<usize> = 257..262;

/// Reads, writes and reads an archive.
pub fn check(bytes: &[u8]) {
    let (members, ended) = match bytes {
        [0xff, packed @ ..] => read(packed),
        plain => read(&zstd::encode_all(&mended(plain)[..], 1).expect("memory takes everything")),
    };
    if !ended {
        return;
    }
    let again = write(&members);
    // What was written once is written the same for ever: identities of bundles rest on that.
    assert_eq!(write(&members), again);
    assert_eq!(read(&again), (members, true));
}

/// Gives every block that looks like a header the checksum that it should have.
fn mended(plain: &[u8]) -> Vec<u8> {
    let mut plain = plain.to_vec();
    for block in plain.chunks_exact_mut(512) {
        if block[MAGIC] == *b"ustar" {
            block[CHECKSUM].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    plain
}

/// Returns the members with their content, and whether the archive came to its end without an error.
fn read(packed: &[u8]) -> (Vec<(Member, Vec<u8>)>, bool) {
    let mut members = Vec::new();
    let Ok(mut reader) = ArchiveReader::new(packed, LIMITS) else {
        return (members, false);
    };
    let mut total = 0;
    loop {
        let member = match reader.next_member() {
            Ok(Some(member)) => member,
            Ok(None) => {
                // At the end it stays at the end.
                assert!(matches!(reader.next_member(), Ok(None)));
                return (members, true);
            }
            Err(_) => return (members, false),
        };
        assert!(is_clean(&member.path), "{member:?}");
        let mut content = Vec::new();
        let read = reader.read_to_end(&mut content);
        total += content.len() as u64;
        assert!(total <= LIMITS.content_bytes_max);
        match &member.kind {
            MemberKind::File { mode, size } => {
                assert_eq!(mode & !0o777, 0);
                if read.is_err() {
                    return (members, false);
                }
                assert_eq!(content.len() as u64, *size);
            }
            MemberKind::Directory { mode } => assert!(mode & !0o777 == 0 && content.is_empty()),
            MemberKind::Symlink { target } => assert!(!target.is_empty() && content.is_empty()),
        }
        members.push((member, content));
        assert!(members.len() as u64 <= LIMITS.members_max);
    }
}

fn is_clean(path: &Path) -> bool {
    let mut parts = path.components();
    let normal = parts.all(|part| matches!(part, Component::Normal(_)));
    // `components` forgives `a/./b` and `a//b`; a clean name has nothing to forgive.
    normal && !path.as_os_str().is_empty() && path.components().collect::<std::path::PathBuf>().as_os_str() == path
}

fn write(members: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let compression = Compression { level: 1, threads: 1 };
    let mut writer = ArchiveWriter::new(Vec::new(), compression).expect("a writer");
    for (member, content) in members {
        match &member.kind {
            MemberKind::File { mode, size } => writer.file(&member.path, *mode, *size, &mut &content[..]),
            MemberKind::Directory { mode } => writer.directory(&member.path, *mode),
            MemberKind::Symlink { target } => writer.symlink(&member.path, target),
        }
        .expect("what was read can be written");
    }
    writer.finish().expect("memory takes everything")
}
