//! One fetch for all who wait, resumed when broken, shared when failed; against a source made up for the purpose.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_stream::iter;

use super::*;
use crate::toolchains::bundle::tests::{Sample, assert_holds};

/// How the source treats one request for the bundle, in pieces of 64 bytes.
#[derive(Debug, Clone, Copy)]
enum Treatment {
    /// All of it.
    Send,
    /// All of it, a piece every 400 ms.
    SendSlowly,
    /// So many pieces, then an error.
    Break(usize),
    /// So many pieces, then nothing more, ever.
    Stall(usize),
    /// Other bytes than the bundle's.
    Lie,
    /// An error at once.
    Refuse,
}

struct Source {
    offer: Result<Offer, SourceError>,
    bytes: Vec<u8>,
    treatments: Mutex<VecDeque<Treatment>>,
    /// Offsets asked for.
    asked: Arc<Mutex<Vec<u64>>>,
    described: Arc<AtomicUsize>,
}

impl BundleSource for Source {
    async fn describe(&self, _: ToolchainId) -> Result<Offer, SourceError> {
        self.described.fetch_add(1, Ordering::Relaxed);
        self.offer.clone()
    }

    async fn fetch(&self, _: ToolchainId, offset: u64) -> Result<BundleStream, SourceError> {
        lock(&self.asked).push(offset);
        let treatment = lock(&self.treatments).pop_front().unwrap_or(Treatment::Refuse);
        let away = || SourceError::Unavailable("broken".to_owned());
        let pieces: Vec<Vec<u8>> = self.bytes[offset as usize..].chunks(64).map(<[u8]>::to_vec).collect();
        let all = iter(pieces.into_iter().map(Ok));
        Ok(match treatment {
            Treatment::Send => Box::pin(all),
            Treatment::SendSlowly => Box::pin(all.throttle(Duration::from_millis(400))),
            Treatment::Break(count) => Box::pin(all.take(count).chain(iter([Err(away())]))),
            Treatment::Stall(count) => Box::pin(all.take(count).chain(tokio_stream::pending())),
            Treatment::Lie => Box::pin(all.map(|piece: Result<Vec<u8>, SourceError>| Ok(vec![0; piece?.len()]))),
            Treatment::Refuse => return Err(away()),
        })
    }
}

struct Fixture {
    _dir: tempfile::TempDir,
    sample: Sample,
    toolchains: Arc<WorkerToolchains<Source>>,
    asked: Arc<Mutex<Vec<u64>>>,
    described: Arc<AtomicUsize>,
    reports: Arc<Mutex<Vec<FetchProgress>>>,
}

impl Fixture {
    fn new(treatments: &[Treatment]) -> Self {
        Self::with(treatments, Ok)
    }

    fn with(treatments: &[Treatment], offer: impl FnOnce(Offer) -> Result<Offer, SourceError>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sample = Sample::new(b"header");
        let (bundle, bytes) = sample.pack();
        assert!(bytes.len() > 4 * 64);
        let (asked, described, reports) = <(Arc<_>, Arc<_>, Arc<Mutex<Vec<_>>>)>::default();
        let source = Source {
            offer: offer(Offer {
                manifest: Arc::new(sample.manifest.clone()),
                bundle,
            }),
            bytes,
            treatments: Mutex::new(treatments.iter().copied().collect()),
            asked: Arc::clone(&asked),
            described: Arc::clone(&described),
        };
        let seen = reports.clone();
        let toolchains = WorkerToolchains::new(
            ToolchainStore::open(dir.path(), 1 << 20).unwrap(),
            source,
            Tasks::default(),
            Box::new(move |progress| lock(&seen).push(progress)),
        );
        Self {
            _dir: dir,
            sample,
            toolchains: Arc::new(toolchains),
            asked,
            described,
            reports,
        }
    }

    fn id(&self) -> ToolchainId {
        self.sample.manifest.id()
    }

    async fn ensure(&self) -> Result<Pin, EnsureError> {
        self.toolchains.ensure(self.id()).await
    }

    fn asked(&self) -> Vec<u64> {
        lock(&self.asked).clone()
    }
}

#[tokio::test(start_paused = true)]
async fn many_jobs_wait_for_one_fetch() {
    let fixture = Fixture::new(&[Treatment::Send]);
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (toolchains, id) = (fixture.toolchains.clone(), fixture.id());
        jobs.spawn(async move { toolchains.ensure(id).await });
    }
    for result in jobs.join_all().await {
        assert_holds(result.unwrap().root(), &fixture.sample.manifest);
    }
    assert_eq!(fixture.asked(), [0]);
    assert!(lock(&fixture.reports).is_empty(), "it took less than a second");
    assert!(lock(&fixture.toolchains.queues).is_empty());
    assert_eq!(session::Toolchains::ready(&*fixture.toolchains), [fixture.id()]);
}

#[tokio::test(start_paused = true)]
async fn broken_transfer_is_resumed_where_it_broke() {
    let fixture = Fixture::new(&[
        Treatment::Break(2),
        Treatment::Refuse,
        Treatment::Stall(1),
        Treatment::Send,
    ]);
    fixture.ensure().await.unwrap();
    assert_eq!(fixture.asked(), [0, 128, 128, 192]);
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_asked_for_again_from_the_start() {
    let fixture = Fixture::new(&[Treatment::Lie, Treatment::Send]);
    fixture.ensure().await.unwrap();
    assert_eq!(fixture.asked(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn failure_is_shared_by_those_who_waited_and_forgotten_after() {
    let fixture = Fixture::new(&[Treatment::Refuse; FAILURES_MAX as usize]);
    let mut jobs = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (toolchains, id) = (fixture.toolchains.clone(), fixture.id());
        jobs.spawn(async move { toolchains.ensure(id).await.unwrap_err().to_string() });
    }
    for error in jobs.join_all().await {
        assert!(error.contains("cannot be reached: broken"), "{error}");
    }
    assert_eq!(fixture.asked().len(), FAILURES_MAX as usize);
    lock(&fixture.toolchains.source.treatments).push_back(Treatment::Send);
    fixture.ensure().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn next_in_line_goes_on_when_the_first_gives_up() {
    let fixture = Fixture::new(&[Treatment::Stall(2), Treatment::Send]);
    let impatient = tokio::time::timeout(Duration::from_secs(5), fixture.ensure());
    let (first, second) = tokio::join!(impatient, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fixture.ensure().await
    });
    assert!(first.is_err());
    second.unwrap();
    assert_eq!(fixture.asked(), [0, 128]);
}

#[tokio::test(start_paused = true)]
async fn long_fetch_is_reported_once_a_second() {
    let fixture = Fixture::new(&[Treatment::SendSlowly]);
    fixture.ensure().await.unwrap();
    let reports = lock(&fixture.reports);
    let pieces = fixture.toolchains.source.bytes.len() / 64;
    assert!(
        !reports.is_empty() && reports.len() <= pieces / 2,
        "{} of {pieces}",
        reports.len()
    );
    assert!(reports.is_sorted_by_key(|report| report.received_bytes));
}

#[tokio::test(start_paused = true)]
async fn look_fetches_nothing() {
    use session::Toolchains;
    let fixture = Fixture::new(&[Treatment::Send]);
    assert_eq!(fixture.toolchains.look(fixture.id()).await, Standing::Fetchable);
    assert!(fixture.asked().is_empty());
    assert_eq!(
        Toolchains::fetch(&*fixture.toolchains, fixture.id()).await,
        Standing::Bundle
    );
    assert_eq!(fixture.toolchains.look(fixture.id()).await, Standing::Bundle);
    assert_eq!(fixture.described.load(Ordering::Relaxed), 2);
    assert!(lock(&fixture.toolchains.queues).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_said_at_once_and_in_kind() {
    let other: Host = if Host::current().to_string().starts_with("riscv64") {
        "i686-linux".parse().unwrap()
    } else {
        "riscv64-linux".parse().unwrap()
    };
    let text = String::from_utf8(Sample::new(b"header").manifest.encode()).unwrap();
    let elsewhere = text.replacen(&format!("host {}", Host::current()), &format!("host {other}"), 1);
    let elsewhere = Arc::new(Manifest::decode(elsewhere.as_bytes()).unwrap());
    let another = Arc::new(Sample::new(b"another").manifest);
    type Change = Box<dyn FnOnce(Offer) -> Result<Offer, SourceError>>;
    let cases: [(Change, RefusalKind, &str); 3] = [
        (
            Box::new(|_| Err(SourceError::Unknown)),
            RefusalKind::NoToolchain,
            "push it again",
        ),
        (
            Box::new(|offer| {
                Ok(Offer {
                    manifest: elsewhere,
                    ..offer
                })
            }),
            RefusalKind::Unsupported,
            "-linux`, and this node is",
        ),
        (
            Box::new(|offer| {
                Ok(Offer {
                    manifest: another,
                    ..offer
                })
            }),
            RefusalKind::NoToolchain,
            "described another",
        ),
    ];
    for (change, kind, expected) in cases {
        let fixture = Fixture::with(&[], change);
        let refusal = Refusal::from(fixture.ensure().await.unwrap_err());
        assert_eq!(refusal.kind, kind, "{}", refusal.message);
        assert!(refusal.message.contains(expected), "{}", refusal.message);
        assert_eq!(fixture.described.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn quota_too_small_is_no_reason_to_try_again() {
    let mut fixture = Fixture::new(&[Treatment::Send]);
    let toolchains = Arc::get_mut(&mut fixture.toolchains).unwrap();
    toolchains.store = ToolchainStore::open(fixture._dir.path(), 1000).unwrap();
    let refusal = Refusal::from(fixture.ensure().await.unwrap_err());
    assert_eq!(refusal.kind, RefusalKind::NoToolchain);
    assert!(
        refusal.message.contains("raise `toolchain_quota`"),
        "{}",
        refusal.message
    );
    assert!(fixture.asked().is_empty());
}
