//! The blob store: what goes in comes out, damage is found, the quota holds.

use proptest::prelude::*;

use super::index::BLOCK_BYTES;
use super::*;
use crate::store::small_disk::on_small_disk;

struct Fixture {
    dir: tempfile::TempDir,
    store: DiskStore,
}

impl Fixture {
    fn new(blocks: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(&dir.path().join("blobs"), blocks * BLOCK_BYTES).unwrap();
        Self { dir, store }
    }

    fn reopen(&mut self) {
        let shared = &self.store.shared;
        self.store = DiskStore::open(&shared.directory, shared.quota_bytes).unwrap();
    }

    fn put(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.store.put(digest, &mut &content[..]).unwrap();
        digest
    }

    fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        self.store
            .open_blob(digest)
            .unwrap()?
            .read_to_end(&mut content)
            .unwrap();
        Some(content)
    }

    fn file(&self, content: &[u8]) -> PathBuf {
        self.store.shared.path(&Digest::of(content), content.len() as u64)
    }

    fn incoming(&self) -> usize {
        fs::read_dir(self.store.shared.incoming()).unwrap().count()
    }
}

#[test]
fn blobs_come_out_as_they_went_in_also_after_a_restart() {
    let mut fixture = Fixture::new(100);
    let digests = [fixture.put(b""), fixture.put(b"header"), fixture.put(&[7; 300_000])];
    for _ in 0..2 {
        assert_eq!(fixture.get(digests[0]).unwrap(), b"");
        assert_eq!(fixture.get(digests[1]).unwrap(), b"header");
        assert_eq!(fixture.get(digests[2]).unwrap(), [7; 300_000]);
        assert_eq!(fixture.get(Digest::of(b"absent")), None);
        assert_eq!(fixture.store.charged_bytes(), (1 + 1 + 74) * BLOCK_BYTES);
        fixture.reopen();
    }
    let absent = Digest::of(b"absent");
    assert_eq!(fixture.store.contains_many(&[absent, digests[1]]), [false, true]);
}

#[test]
fn content_that_is_not_its_digest_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new(100);
    let digest = Digest::of(b"announced");
    let error = fixture.store.put(digest, &mut &b"sent"[..]).unwrap_err();
    assert!(matches!(error, StoreError::WrongDigest { expected, .. } if expected == digest));
    let mut writer = fixture.store.begin(digest).unwrap();
    writer.write(b"anno").unwrap();
    drop(writer);
    assert_eq!(fixture.incoming(), 0);
    assert_eq!(fixture.store.contains_many(&[digest]), [false]);
}

#[test]
fn flipped_bit_is_found_and_the_blob_dropped() {
    let mut fixture = Fixture::new(100);
    let content = b"some header";
    let digest = fixture.put(content);
    for restart in [false, true] {
        let path = fixture.file(content);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, b"some hexder").unwrap();
        // The clock of files ticks in milliseconds, and this test is faster.
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(later)
            .unwrap();
        if restart {
            fixture.reopen();
        }
        assert_eq!(fixture.store.contains_many(&[digest]), [true]);
        assert_eq!(fixture.get(digest), None);
        assert_eq!(fixture.store.contains_many(&[digest]), [false]);
        assert!(!path.exists());
        assert_eq!(fixture.store.dropped(), 1);
        fixture.put(content);
        assert_eq!(fixture.get(digest).unwrap(), content);
    }
}

#[test]
fn truncated_or_removed_blob_is_missing() {
    let fixture = Fixture::new(100);
    let (a, b) = (fixture.put(b"first"), fixture.put(b"second"));
    fs::set_permissions(fixture.file(b"first"), Permissions::from_mode(0o644)).unwrap();
    File::create(fixture.file(b"first")).unwrap();
    fs::remove_file(fixture.file(b"second")).unwrap();
    assert_eq!((fixture.get(a), fixture.get(b)), (None, None));
    assert_eq!(fixture.store.charged_bytes(), 0);
}

#[test]
fn leftovers_and_strangers_are_dealt_with_at_the_start() {
    let mut fixture = Fixture::new(100);
    let digest = fixture.put(b"content");
    fs::write(fixture.store.shared.incoming().join("half"), "x").unwrap();
    let shard = fixture.file(b"content").parent().unwrap().to_owned();
    for name in ["stranger", "x-y", &format!("{}-notanumber", "0".repeat(62))] {
        fs::write(shard.join(name), "x").unwrap();
    }
    fixture.reopen();
    assert_eq!(fixture.incoming(), 0);
    assert_eq!(fixture.store.charged_bytes(), BLOCK_BYTES);
    assert_eq!(fixture.get(digest).unwrap(), b"content");
}

#[test]
fn least_recently_used_goes_first_and_pinned_never() {
    let fixture = Fixture::new(3);
    let (a, b, c) = (fixture.put(b"a"), fixture.put(b"b"), fixture.put(b"c"));
    fixture.get(a).unwrap();
    let pins = fixture.store.pin(&[b, Digest::of(b"absent")]);
    assert_eq!(pins.missing(), [Digest::of(b"absent")]);
    let d = fixture.put(b"d");
    assert_eq!(fixture.store.contains_many(&[a, b, c, d]), [true, true, false, true]);
    let all = fixture.store.pin(&[a, d]);
    let error = fixture.store.put(Digest::of(b"e"), &mut &b"e"[..]).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop((pins, all));
    fixture.put(b"e");
    assert_eq!(fixture.store.charged_bytes(), 3 * BLOCK_BYTES);
}

#[test]
fn blob_beyond_the_quota_is_refused_before_it_fills_the_disk() {
    let fixture = Fixture::new(2);
    let kept = fixture.put(b"kept");
    let large = vec![1; 3 * BLOCK_BYTES as usize];
    let error = fixture.store.put(Digest::of(&large), &mut &large[..]).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    assert!(fixture.get(kept).is_some());
    assert_eq!(fixture.incoming(), 0);
}

#[test]
fn links_share_the_inode_and_do_not_cost_a_check() {
    let fixture = Fixture::new(100);
    let digest = fixture.put(b"content");
    let (one, two) = (fixture.dir.path().join("one"), fixture.dir.path().join("two"));
    assert!(fixture.store.link(digest, &one).unwrap());
    assert!(fixture.store.copy(digest, &two).unwrap());
    let stamp = |path: &Path| Stamp::of(path).unwrap();
    assert_eq!(stamp(&one).inode, stamp(&fixture.file(b"content")).inode);
    assert_ne!(stamp(&two).inode, stamp(&one).inode);
    for path in [&one, &two] {
        assert_eq!(
            (fs::read(path).unwrap(), stamp(path).mode & 0o777),
            (b"content".to_vec(), 0o444)
        );
    }
    let blob = fixture.store.shared.lock().blobs[&digest];
    assert_eq!(
        blob.checked,
        mark(&stamp(&fixture.file(b"content"))),
        "still counts as checked"
    );
    assert!(
        !fixture
            .store
            .link(Digest::of(b"absent"), &fixture.dir.path().join("three"))
            .unwrap()
    );
    let error = fixture.store.link(digest, &one).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}

#[test]
fn many_threads_may_put_and_get_the_same_blobs() {
    let fixture = Fixture::new(8);
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let store = &fixture.store;
            scope.spawn(move || {
                for round in 0..50_u8 {
                    let content = [(round + thread) % 12];
                    let digest = Digest::of(&content);
                    store.put(digest, &mut &content[..]).unwrap();
                    if let Some(mut file) = store.open_blob(digest).unwrap() {
                        let mut read = Vec::new();
                        file.read_to_end(&mut read).unwrap();
                        assert_eq!(read, content);
                    }
                }
            });
        }
    });
    assert!(fixture.store.charged_bytes() <= 8 * BLOCK_BYTES);
    assert_eq!(fixture.store.dropped(), 0);
}

#[test]
fn full_disk_is_said_and_leaves_nothing_behind() {
    on_small_disk(
        "store::disk::tests::full_disk_is_said_and_leaves_nothing_behind",
        64 << 10,
        |disk| {
            let store = DiskStore::open(&disk.join("blobs"), 1 << 30).unwrap();
            let large = vec![1; 100 << 10];
            let error = store.put(Digest::of(&large), &mut &large[..]).unwrap_err();
            assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
            assert_eq!(fs::read_dir(store.shared.incoming()).unwrap().count(), 0);
            let small = Digest::of(b"small");
            store.put(small, &mut &b"small"[..]).unwrap();
            assert!(store.open_blob(small).unwrap().is_some());
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    #[test]
    fn quota_holds_and_present_blobs_are_whole(steps in prop::collection::vec((0u8..10, 0usize..9000), 1..40)) {
        let fixture = Fixture::new(5);
        for (byte, length) in steps {
            let content = vec![byte; length];
            let digest = fixture.put(&content);
            prop_assert!(fixture.store.charged_bytes() <= 5 * BLOCK_BYTES);
            prop_assert_eq!(fixture.get(digest), Some(content));
        }
    }
}
