//! The worker's toolchains: whole or not there, within the quota, and given up when tampered with.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::digest::Digest;
use crate::store::small_disk::on_small_disk;
use crate::toolchains::bundle::BundleRef;
use crate::toolchains::bundle::tests::{Sample, assert_holds};

struct Fixture {
    dir: tempfile::TempDir,
    store: ToolchainStore,
}

/// Room for one sample and its bundle, not for two samples.
const TIGHT: u64 = 40 << 10;

impl Fixture {
    fn new(quota_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ToolchainStore::open(dir.path(), quota_bytes).unwrap();
        Self { dir, store }
    }

    fn reopen(&mut self) {
        self.store = ToolchainStore::open(self.dir.path(), self.store.quota_bytes()).unwrap();
    }

    fn fetch(&self, sample: &Sample) -> Result<Pin, InstallError> {
        let (bundle, bytes) = sample.pack();
        self.fetch_bytes(sample, bundle, &bytes)
    }

    fn fetch_bytes(&self, sample: &Sample, bundle: BundleRef, bytes: &[u8]) -> Result<Pin, InstallError> {
        let mut partial = self.store.begin_fetch(&manifest(sample), bundle)?;
        let from = partial.offset() as usize;
        partial.write(&bytes[from..])?;
        partial.finish(&mut |_, _| {})
    }

    fn adopt(&self, sample: &Sample) -> Result<Pin, InstallError> {
        self.store
            .adopt_below(sample.dir.path(), &manifest(sample), &mut |_, _| {})
    }

    fn leftovers(&self) -> usize {
        let count = |name: &str| fs::read_dir(self.dir.path().join(name)).unwrap().count();
        count("unfinished") + count("partial")
    }
}

fn manifest(sample: &Sample) -> Arc<Manifest> {
    Arc::new(sample.manifest.clone())
}

fn header(pin: &Pin) -> PathBuf {
    pin.root().join("usr/lib/x.h")
}

fn make_writable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn fetched_toolchain_stands_whole_and_survives_a_restart() {
    let mut fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let id = sample.manifest.id();
    assert!(fixture.store.lookup(id).is_none());
    let pin = fixture.fetch(&sample).unwrap();
    assert_holds(pin.root(), &sample.manifest);
    assert_eq!(pin.root(), fixture.dir.path().join(id.to_string()).join("root"));
    assert_eq!((pin.id(), pin.origin(), pin.manifest().id()), (id, Origin::Bundle, id));
    assert_eq!(fixture.leftovers(), 0);
    drop(pin);
    fixture.reopen();
    assert_eq!(fixture.store.ids(), [id]);
    assert_holds(fixture.store.lookup(id).unwrap().root(), &sample.manifest);
    assert!(fixture.store.verify(id).unwrap());
}

#[test]
fn broken_transfer_is_resumed_where_it_ended_also_after_a_restart() {
    let mut fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let (bundle, bytes) = sample.pack();
    let half = bytes.len() / 2;
    for end in [half / 2, half] {
        let mut partial = fixture.store.begin_fetch(&manifest(&sample), bundle).unwrap();
        let from = partial.offset() as usize;
        partial.write(&bytes[from..end]).unwrap();
        assert!(!partial.is_complete());
        drop(partial);
        assert_eq!(fixture.store.used_bytes(), end as u64);
    }
    fixture.reopen();
    assert_eq!(fixture.store.used_bytes(), half as u64);
    let mut partial = fixture.store.begin_fetch(&manifest(&sample), bundle).unwrap();
    assert_eq!(partial.offset(), half as u64);
    partial.write(&bytes[half..]).unwrap();
    assert!(partial.is_complete());
    assert_holds(partial.finish(&mut |_, _| {}).unwrap().root(), &sample.manifest);
    assert_eq!(fixture.leftovers(), 0);
}

#[test]
fn wrong_bytes_are_thrown_away_and_nothing_becomes_visible() {
    let fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let (bundle, mut bytes) = sample.pack();
    let short = fixture
        .fetch_bytes(&sample, bundle, &bytes[1..])
        .unwrap_err()
        .to_string();
    assert!(short.contains("bytes are here"), "{short}");
    // What is missing may still come; but what is here began one byte late.
    let end = bytes.len() - 1;
    let wrong = fixture.fetch_bytes(&sample, bundle, &bytes).unwrap_err().to_string();
    assert!(wrong.contains("its digest is"), "{wrong}");
    bytes.push(0);
    let long = fixture.fetch_bytes(&sample, bundle, &bytes).unwrap_err().to_string();
    assert!(long.contains("more than the announced"), "{long}");
    assert_eq!(fixture.leftovers(), 0);
    assert_eq!((fixture.store.ids(), fixture.store.used_bytes()), (vec![], 0));
    bytes.pop();
    assert_eq!(end + 1, bytes.len());
    fixture.fetch_bytes(&sample, bundle, &bytes).unwrap();
}

#[test]
fn bundle_of_another_toolchain_is_refused() {
    let fixture = Fixture::new(1 << 20);
    let (sample, other) = (Sample::new(b"header"), Sample::new(b"HEADER"));
    let (bundle, bytes) = other.pack();
    let error = fixture.fetch_bytes(&sample, bundle, &bytes).unwrap_err().to_string();
    assert!(error.contains("`/usr/lib/x.h` has other content"), "{error}");
    assert_eq!((fixture.store.ids(), fixture.leftovers()), (vec![], 0));
}

#[test]
fn one_transfer_of_a_bundle_at_a_time() {
    let fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let bundle = sample.pack().0;
    let first = fixture.store.begin_fetch(&manifest(&sample), bundle).unwrap();
    let second = fixture.store.begin_fetch(&manifest(&sample), bundle);
    assert!(matches!(second, Err(InstallError::InProgress { .. })));
    drop(first);
    assert!(fixture.fetch(&sample).is_ok());
    assert!(fixture.fetch(&sample).is_ok(), "a second one changes nothing");
}

#[test]
fn least_recently_used_goes_and_what_is_pinned_stays() {
    let mut fixture = Fixture::new(TIGHT * 2);
    let samples = [b"one", b"two", b"333"].map(|header| Sample::new(header));
    let ids = [0, 1, 2].map(|index: usize| samples[index].manifest.id());
    let stands = |fixture: &Fixture| ids.map(|id| fixture.store.ids().contains(&id));
    fixture.fetch(&samples[0]).unwrap();
    fixture.fetch(&samples[1]).unwrap();
    fixture.store.lookup(ids[0]).unwrap();
    fixture.fetch(&samples[2]).unwrap();
    assert_eq!(stands(&fixture), [true, false, true]);

    let (first, third) = (fixture.store.lookup(ids[0]), fixture.store.lookup(ids[2]));
    let error = fixture.fetch(&samples[1]).unwrap_err();
    assert!(
        matches!(error, InstallError::InUse { .. }) && error.is_full(),
        "{error}"
    );
    drop(first);
    let kept = third.clone();
    drop(third);
    fixture.fetch(&samples[1]).unwrap();
    assert_eq!(stands(&fixture), [false, true, true]);
    drop(kept);

    // The order of use outlives a restart.
    fixture.reopen();
    fixture.fetch(&samples[0]).unwrap();
    assert_eq!(stands(&fixture), [true, true, false]);
}

#[test]
fn leftovers_of_transfers_give_way_too() {
    let fixture = Fixture::new(TIGHT);
    let (sample, other) = (Sample::new(b"one"), Sample::new(b"two"));
    let (bundle, bytes) = sample.pack();
    let mut partial = fixture.store.begin_fetch(&manifest(&sample), bundle).unwrap();
    partial.write(&bytes[..100]).unwrap();
    drop(partial);
    fixture.store.make_nearly_full(&other);
    fixture.adopt(&other).unwrap();
    assert_eq!(fixture.leftovers(), 0);
}

impl ToolchainStore {
    /// Lets everything but the space of `sample` be promised to somebody.
    fn make_nearly_full(&self, sample: &Sample) {
        let taken = self.quota_bytes() - held::disk_bytes(&sample.manifest) - 50;
        self.shared.lock().reserved_bytes += taken;
    }
}

#[test]
fn quota_too_small_is_an_error_of_its_own() {
    let fixture = Fixture::new(10 << 10);
    let sample = Sample::new(b"header");
    for error in [fixture.fetch(&sample).unwrap_err(), fixture.adopt(&sample).unwrap_err()] {
        assert!(matches!(error, InstallError::QuotaTooSmall { .. }), "{error}");
        assert!(error.to_string().contains("raise `toolchain_quota`"), "{error}");
    }
    assert_eq!(fixture.leftovers(), 0);
}

#[test]
fn tampering_is_noticed_and_the_toolchain_given_up() {
    type Tamper = fn(&Path);
    let cases: [(&str, Tamper); 5] = [
        ("content", |root| {
            make_writable(&root.join("usr/bin/gcc-12"));
            fs::write(root.join("usr/bin/gcc-12"), "DRIVER").unwrap();
        }),
        ("mode", |root| make_writable(&root.join("usr/bin/gcc-12"))),
        ("link", |root| {
            fs::remove_file(root.join("usr/bin/gcc")).unwrap();
            std::os::unix::fs::symlink("/bin/true", root.join("usr/bin/gcc")).unwrap();
        }),
        ("more", |root| fs::write(root.join("usr/lib/specs"), "").unwrap()),
        ("less", |root| fs::remove_file(root.join("usr/lib/x.h")).unwrap()),
    ];
    for (name, tamper) in cases {
        let fixture = Fixture::new(1 << 20);
        let sample = Sample::new(b"header");
        let pin = fixture.fetch(&sample).unwrap();
        tamper(pin.root());
        drop(pin);
        assert!(fixture.store.lookup(sample.manifest.id()).is_none(), "{name}");
        assert_eq!((fixture.store.ids(), fixture.store.used_bytes()), (vec![], 0), "{name}");
        assert_holds(fixture.fetch(&sample).unwrap().root(), &sample.manifest);
    }
}

#[test]
fn header_is_compared_at_the_first_look_and_on_demand() {
    let mut fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let id = sample.manifest.id();
    let pin = fixture.fetch(&sample).unwrap();
    make_writable(&header(&pin));
    fs::write(header(&pin), "HEADER").unwrap();
    drop(pin);
    assert!(fixture.store.lookup(id).is_some(), "not a key file");
    fixture.reopen();
    assert!(fixture.store.lookup(id).is_none());

    let pin = fixture.fetch(&sample).unwrap();
    make_writable(&header(&pin));
    fs::write(header(&pin), "HEADER").unwrap();
    drop(pin);
    let error = fixture.store.verify(id).unwrap_err().to_string();
    assert!(error.contains("x.h` has other content"), "{error}");
    assert!(!fixture.store.verify(id).unwrap(), "given up");
}

#[test]
fn other_stamps_with_equal_content_only_cost_a_reading() {
    let fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let pin = fixture.fetch(&sample).unwrap();
    let gcc = pin.root().join("usr/bin/gcc-12");
    let content = fs::read(&gcc).unwrap();
    fs::remove_file(&gcc).unwrap();
    fs::write(&gcc, content).unwrap();
    fs::set_permissions(&gcc, fs::Permissions::from_mode(0o555)).unwrap();
    drop(pin);
    assert!(fixture.store.lookup(sample.manifest.id()).is_some());
}

#[test]
fn installed_files_are_adopted_by_link_and_outlive_an_upgrade() {
    let fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let pin = fixture.adopt(&sample).unwrap();
    assert_holds(pin.root(), &sample.manifest);
    assert_eq!(pin.origin(), Origin::Installed);
    let installed = sample.dir.path().join("usr/lib/x.h");
    let inode = |path: &Path| path.metadata().unwrap().ino();
    if sample.dir.path().metadata().unwrap().dev() == fixture.dir.path().metadata().unwrap().dev() {
        assert_eq!(inode(&installed), inode(&header(&pin)), "no second copy");
    }
    // A package manager puts a new file in the old one's place.
    fs::write(sample.dir.path().join("new"), "upgraded").unwrap();
    fs::rename(sample.dir.path().join("new"), &installed).unwrap();
    drop(pin);
    let id = sample.manifest.id();
    assert!(fixture.store.verify(id).unwrap());
    let error = fixture
        .store
        .adopt_below(sample.dir.path(), &manifest(&sample), &mut |_, _| {});
    assert!(error.is_ok(), "it stands here already");
}

#[test]
fn installed_file_written_into_in_place_is_noticed() {
    let fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    drop(fixture.adopt(&sample).unwrap());
    fs::write(sample.dir.path().join("usr/bin/gcc-12"), "DRIVER").unwrap();
    let id = sample.manifest.id();
    if let Some(pin) = fixture.store.lookup(id) {
        // Cloned or copied here, not linked.
        assert_holds(pin.root(), &sample.manifest);
    }
}

#[test]
fn files_others_may_write_are_copied() {
    let fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let installed = sample.dir.path().join("usr/lib/x.h");
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o664)).unwrap();
    let pin = fixture.adopt(&sample).unwrap();
    assert_ne!(
        installed.metadata().unwrap().ino(),
        header(&pin).metadata().unwrap().ino()
    );
    assert_eq!(header(&pin).metadata().unwrap().permissions().mode() & 0o777, 0o444);
}

#[test]
fn machine_with_other_files_is_told_the_first_difference() {
    type Change = fn(&Path);
    let cases: [(Change, &str); 4] = [
        (
            |root| fs::write(root.join("usr/lib/x.h"), "HEADER").unwrap(),
            "x.h` has other content",
        ),
        (
            |root| fs::write(root.join("usr/lib/x.h"), "longer header").unwrap(),
            "x.h` has 13 bytes instead of 6",
        ),
        (
            |root| fs::remove_file(root.join("usr/bin/gcc")).unwrap(),
            "gcc` is missing",
        ),
        (|root| fs::create_dir(root.join("usr/bin/gcc-12.d")).unwrap(), ""),
    ];
    for (change, expected) in cases {
        let fixture = Fixture::new(1 << 20);
        let sample = Sample::new(b"header");
        change(sample.dir.path());
        match fixture.adopt(&sample) {
            Ok(_) => assert_eq!(expected, "", "more files than the manifest has do not matter here"),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
        assert_eq!(fixture.leftovers(), 0);
    }
}

#[test]
fn what_a_crash_leaves_is_cleaned_up() {
    let mut fixture = Fixture::new(1 << 20);
    let sample = Sample::new(b"header");
    let id = sample.manifest.id();
    fixture.fetch(&sample).unwrap();
    let path = |name: &str| fixture.dir.path().join(name);
    let other = Digest::of(b"other").to_string();
    fs::create_dir_all(path("unfinished/new-x/root/usr")).unwrap();
    fs::create_dir(path(&other)).unwrap();
    fs::write(path(&other).join("manifest"), "nonsense").unwrap();
    fs::write(path("stranger"), "").unwrap();
    fs::write(path("partial/stranger"), "").unwrap();
    fixture.reopen();
    assert_eq!(fixture.store.ids(), [id]);
    assert_eq!(fixture.leftovers(), 0);
    assert_eq!(fs::read_dir(fixture.dir.path()).unwrap().count(), 3);
    fs::write(
        fixture.dir.path().join(id.to_string()).join("record"),
        "rdcc-installed 1 bundle\n",
    )
    .unwrap();
    fixture.reopen();
    assert_eq!(fixture.store.ids(), []);
}

#[test]
fn full_disk_is_said_and_nothing_half_done_stays() {
    let name = "toolchains::installed::tests::full_disk_is_said_and_nothing_half_done_stays";
    on_small_disk(name, 256 << 10, |disk| {
        // Compresses to nothing, so that it is unpacking that fills the disk.
        let sample = Sample::new(&vec![7; 300 << 10]);
        let store = ToolchainStore::open(disk, 1 << 30).unwrap();
        let (bundle, bytes) = sample.pack();
        let mut partial = store.begin_fetch(&manifest(&sample), bundle).unwrap();
        partial.write(&bytes).unwrap();
        let error = partial.finish(&mut |_, _| {}).unwrap_err();
        assert!(error.is_full(), "{error}");
        assert!(
            error.to_string().starts_with("disk full while unpacking toolchain"),
            "{error}"
        );
        let error = store
            .adopt_below(sample.dir.path(), &manifest(&sample), &mut |_, _| {})
            .unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!((store.ids(), store.used_bytes()), (vec![], 0));
        assert_eq!(fs::read_dir(disk.join("unfinished")).unwrap().count(), 0);

        // A bundle that does not fit at all.
        let bundle = BundleRef {
            size: 400 << 10,
            ..bundle
        };
        let mut partial = store.begin_fetch(&manifest(&sample), bundle).unwrap();
        let error = partial.write(&vec![1; 400 << 10]).unwrap_err();
        assert!(error.is_full(), "{error}");
        drop(partial);
        assert_eq!(fs::read_dir(disk.join("partial")).unwrap().count(), 0);
        let small = Sample::new(b"small");
        let (bundle, bytes) = small.pack();
        let mut partial = store.begin_fetch(&manifest(&small), bundle).unwrap();
        partial.write(&bytes).unwrap();
        assert!(
            partial.finish(&mut |_, _| {}).is_ok(),
            "there is room for a small one again"
        );
    });
}
