//! Archives: the same bytes every time, a round trip for any names, and hostile ones refused.

use proptest::prelude::*;

use super::*;

const GENEROUS: Limits = Limits {
    members_max: 1000,
    content_bytes_max: 1 << 20,
};

fn compression(threads: u32) -> Compression {
    Compression { level: 3, threads }
}

/// Writes members with the given content, the same for all files.
pub(crate) fn packed(members: &[Member], content: &[u8], threads: u32) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new(), compression(threads)).unwrap();
    for Member { path, kind } in members {
        match kind {
            MemberKind::File { mode, size } => writer.file(path, *mode, *size, &mut &content[..]).unwrap(),
            MemberKind::Symlink { target } => writer.symlink(path, target).unwrap(),
            MemberKind::Directory { mode } => writer.directory(path, *mode).unwrap(),
        }
    }
    writer.finish().unwrap()
}

fn unpacked(archive: &[u8], limits: Limits) -> Result<Vec<(Member, Vec<u8>)>, ArchiveError> {
    let mut reader = ArchiveReader::new(archive, limits)?;
    let mut members = Vec::new();
    while let Some(member) = reader.next_member()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(reader::as_archive_error)?;
        members.push((member, content));
    }
    Ok(members)
}

fn member(path: &str, kind: MemberKind) -> Member {
    Member {
        path: path.into(),
        kind,
    }
}

/// Compresses hand-made blocks, with the end mark.
fn raw(blocks: &[u8]) -> Vec<u8> {
    let mut tar = blocks.to_vec();
    tar.extend([0; 2 * BLOCK_BYTES]);
    zstd::encode_all(&tar[..], 1).unwrap()
}

fn header(kind: EntryType, name: &[u8], target: &[u8], mode: u32, size: u64) -> Vec<u8> {
    let mut header = plain_header(kind, size);
    header.set_mode(mode);
    fill(&mut header.as_old_mut().name, name);
    fill(&mut header.as_old_mut().linkname, target);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let bare = key.len() + value.len() + 3;
        let length = (bare..)
            .find(|length| *length == bare + length.to_string().len())
            .unwrap();
        text += &format!("{length} {key}={value}\n");
    }
    let mut out = header(EntryType::XHeader, b"pax", b"", 0o644, text.len() as u64);
    out.extend(text.bytes());
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    out
}

#[test]
fn bytes_do_not_depend_on_threads_or_chunks() {
    // Several of zstd's jobs: they are 512 KiB and more at this level, depending on the window.
    let mut content = Vec::new();
    for number in 0..1_500_000_u32 {
        content.extend(
            number.wrapping_mul(2_654_435_761).to_le_bytes()[..3]
                .iter()
                .map(|byte| byte & 0x3f),
        );
    }
    let file = MemberKind::File {
        mode: 0o755,
        size: content.len() as u64,
    };
    let members = [member("a", file.clone()), member("b", file)];
    let one = packed(&members, &content, 1);
    assert_eq!(one, packed(&members, &content, 2));
    assert_eq!(one, packed(&members, &content, 5));

    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(977);
            self.0.read(&mut buffer[..length])
        }
    }
    let mut writer = ArchiveWriter::new(Vec::new(), compression(3)).unwrap();
    for path in ["a", "b"] {
        let size = content.len() as u64;
        writer.file(Path::new(path), 0o755, size, &mut Slow(&content)).unwrap();
    }
    assert_eq!(one, writer.finish().unwrap());
}

#[test]
fn short_content_is_an_error_of_the_writer() {
    let mut writer = ArchiveWriter::new(Vec::new(), compression(1)).unwrap();
    assert!(writer.file(Path::new("a"), 0o644, 5, &mut &b"four"[..]).is_err());
}

#[test]
fn archives_of_gnu_tar_are_read_in_both_formats() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}/{}", "d".repeat(120), "e".repeat(120), "f".repeat(200));
    let file = dir.path().join(&long);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "content").unwrap();
    std::os::unix::fs::symlink("t".repeat(180), dir.path().join("link")).unwrap();
    for format in ["gnu", "pax"] {
        let run = std::process::Command::new("tar")
            .arg("-C")
            .arg(dir.path())
            .args(["--format", format, "-c", &long, "link"])
            .output();
        let Ok(output) = run else {
            println!("skipped: no tar here");
            return;
        };
        assert!(output.status.success());
        let members = unpacked(&zstd::encode_all(&output.stdout[..], 1).unwrap(), GENEROUS).unwrap();
        assert_eq!(members[0].0.path, Path::new(&long), "{format}");
        assert_eq!(members[0].1, b"content");
        let target = OsString::from("t".repeat(180));
        assert_eq!(members[1].0, member("link", MemberKind::Symlink { target }));
    }
}

#[test]
fn hostile_members_are_refused_with_the_reason() {
    use EntryType as T;
    let mut sparse = pax(&[("GNU.sparse.major", "1")]);
    sparse.extend(header(T::Regular, b"x", b"", 0o644, 0));
    let mut pax_climbs = pax(&[("path", "a/../../x")]);
    pax_climbs.extend(header(T::Regular, b"x", b"", 0o644, 0));
    let mut pax_bomb = pax(&[("size", "99999999999")]);
    pax_bomb.extend(header(T::Regular, b"x", b"", 0o644, 0));
    let mut pax_wrong = header(T::XHeader, b"pax", b"", 0o644, 7);
    pax_wrong.extend(b"99 a=b\n");
    pax_wrong.resize(2 * BLOCK_BYTES, 0);
    let mut bad_checksum = header(T::Regular, b"x", b"", 0o644, 0);
    bad_checksum[0] = b'y';
    let mut bad_size = plain_header(T::Regular, 0);
    fill(&mut bad_size.as_old_mut().name, b"x");
    fill(&mut bad_size.as_old_mut().size, b"zz");
    bad_size.set_cksum();
    let mut long_bomb = header(T::GNULongName, b"././@LongLink", b"", 0o644, 1 << 33);
    long_bomb.extend([b'a'; BLOCK_BYTES]);
    let mut after_end = vec![0; 2 * BLOCK_BYTES];
    after_end.extend(header(T::Regular, b"x", b"", 0o644, 0));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (header(T::Regular, b"/etc/passwd", b"", 0o644, 0), "is absolute"),
        (header(T::Regular, b"../x", b"", 0o644, 0), "climbs out"),
        (header(T::Regular, b"a/../../x", b"", 0o644, 0), "climbs out"),
        (header(T::Regular, b"a//b", b"", 0o644, 0), "shortest form"),
        (header(T::Regular, b"./a", b"", 0o644, 0), "shortest form"),
        (header(T::Regular, b"", b"", 0o644, 0), "shortest form"),
        (header(T::Directory, b"..", b"", 0o755, 0), "climbs out"),
        (header(T::Link, b"x", b"/etc/passwd", 0o644, 0), "a hard link, `x`"),
        (header(T::Char, b"x", b"", 0o644, 0), "a device, `x`"),
        (header(T::Block, b"x", b"", 0o644, 0), "a device"),
        (header(T::Fifo, b"x", b"", 0o644, 0), "a pipe"),
        (header(T::Continuous, b"x", b"", 0o644, 0), "unknown kind"),
        (header(T::XGlobalHeader, b"x", b"", 0o644, 0), "unknown kind"),
        (header(T::new(b'S'), b"x", b"", 0o644, 0), "unknown kind"),
        (header(T::Regular, b"x", b"", 0o4755, 0), "setuid"),
        (header(T::Regular, b"x", b"", 0o2755, 0), "setuid"),
        (header(T::Directory, b"x", b"", 0o1777, 0), "sticky"),
        (header(T::Symlink, b"x", b"", 0o777, 0), "a link to nowhere"),
        (header(T::Directory, b"x", b"", 0o755, 512), "content of something"),
        (header(T::Regular, b"x", b"", 0o644, 2 << 20), "more than 1048576 bytes"),
        (sparse, "sparse"),
        (pax_climbs, "climbs out"),
        (pax_bomb, "more than 1048576 bytes"),
        (pax_wrong, "extended attributes"),
        (bad_checksum, "wrong checksum"),
        (bad_size.as_bytes().to_vec(), "size that is no number"),
        (long_bomb, "beyond all bounds"),
        (after_end, "after its end"),
        (vec![0; 200 << 10], "too much after its end"),
    ];
    for (blocks, expected) in cases {
        let error = unpacked(&raw(&blocks), GENEROUS).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn counts_are_bounded() {
    let members: Vec<Member> = (0..11)
        .map(|n| member(&n.to_string(), MemberKind::Directory { mode: 0o755 }))
        .collect();
    let archive = packed(&members, b"", 1);
    let limits = Limits {
        members_max: 10,
        content_bytes_max: 0,
    };
    let error = unpacked(&archive, limits).unwrap_err().to_string();
    assert!(error.contains("more than 10 members"), "{error}");
}

#[test]
fn bomb_is_stopped_at_the_first_member_too_large() {
    // 4 GiB of zeros in a few hundred kilobytes; nothing of it is unpacked.
    let limits = Limits {
        members_max: 10,
        content_bytes_max: 1 << 20,
    };
    let mut tar = header(EntryType::Regular, b"zeros", b"", 0o644, 4 << 30);
    tar.extend(vec![0; 8 << 20]);
    assert!(matches!(
        unpacked(&raw(&tar), limits),
        Err(ArchiveError::TooMuch { what: "bytes", .. })
    ));
}

#[test]
fn window_beyond_the_bound_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(WINDOW_LOG_MAX + 1).unwrap();
    encoder.write_all(&[0; 2 * BLOCK_BYTES]).unwrap();
    encoder.flush().unwrap();
    let archive = encoder.finish().unwrap();
    assert!(unpacked(&archive, GENEROUS).is_err());
}

#[test]
fn every_truncation_is_noticed_and_no_damage_panics() {
    let file = MemberKind::File { mode: 0o644, size: 7 };
    let target = OsString::from("t");
    let members = [member("a", file), member("b", MemberKind::Symlink { target })];
    let archive = packed(&members, b"content", 1);
    for length in 0..archive.len() {
        assert!(unpacked(&archive[..length], GENEROUS).is_err(), "{length}");
    }
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x10;
        let _ = unpacked(&damaged, GENEROUS);
    }
}

fn any_member() -> impl Strategy<Value = Member> {
    // Long ones, and bytes that are no text, but no separators and no zero.
    let name = || prop::collection::vec((1u8..=255).prop_filter("no slash", |byte| *byte != b'/'), 1..300);
    let kind = prop_oneof![
        (0u32..0o1000, 0u64..3000).prop_map(|(mode, size)| MemberKind::File { mode, size }),
        (0u32..0o1000).prop_map(|mode| MemberKind::Directory { mode }),
        name().prop_map(|target| MemberKind::Symlink {
            target: std::os::unix::ffi::OsStringExt::from_vec(target),
        }),
    ];
    (prop::collection::vec(name(), 1..4), kind).prop_filter_map("dots", |(names, kind)| {
        let dots = names.iter().any(|name| name == b"." || name == b"..");
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&names.join(&b'/')));
        (!dots).then_some(Member { path, kind })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_members_come_out_as_they_went_in(members in prop::collection::vec(any_member(), 0..8)) {
        let content = vec![b'x'; 3000];
        let archive = packed(&members, &content, 2);
        let read = unpacked(&archive, GENEROUS).unwrap();
        prop_assert_eq!(read.len(), members.len());
        for ((found, content), member) in read.into_iter().zip(members) {
            let size = match member.kind {
                MemberKind::File { size, .. } => size,
                _ => 0,
            };
            prop_assert_eq!(content.len() as u64, size);
            prop_assert_eq!(found, member);
        }
    }
}
