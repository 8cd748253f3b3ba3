//! Gets toolchains for jobs: from this machine, or as a bundle, once however many jobs wait.
//!
//! The first to ask does the work and the others wait for it; should the first one give up (its job was cancelled), the
//! next goes on from where it was. A failure is everybody's who waited for that attempt. What may stand on this node,
//! and how it is verified, is the store's business; where bundles come from is behind [`BundleSource`].

use std::collections::BTreeMap;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};

use super::executor::{self, Pending, ReadyToolchain};
use super::session::{self, Standing};
use crate::ids::ToolchainId;
use crate::job::{Refusal, RefusalKind};
use crate::runtime::backoff::Backoff;
use crate::runtime::tasks::Tasks;
use crate::toolchains::bundle::BundleRef;
use crate::toolchains::host::Host;
use crate::toolchains::installed::{InstallError, Origin, Partial, Pin, ToolchainStore};
use crate::toolchains::manifest::Manifest;

#[cfg(test)]
mod tests;

/// How long a comparison of stamps holds. A job costs a hundred `lstat` calls less, tampering is noticed a second later.
const CHECK_HOLDS: Duration = Duration::from_secs(1);
/// A transfer shorter than this is nobody's concern; a longer one is reported this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long the other side may be silent in the middle of a bundle. Above the keep-alive time of connections.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Failures in a row, without [`PROGRESS_BYTES`] in between, after which a fetch is given up: with the pauses below about
/// ten seconds of a source that is away, so that jobs go elsewhere.
const FAILURES_MAX: u32 = 6;
/// What counts as getting on.
const PROGRESS_BYTES: u64 = 256 << 10;
/// Pauses between attempts.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MOST: Duration = Duration::from_secs(5);

/// A bundle's bytes, in pieces.
pub type BundleStream = Pinned<Box<dyn Stream<Item = Result<Vec<u8>, SourceError>> + Send>>;

/// What a source knows about a toolchain.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its files.
    pub manifest: Arc<Manifest>,
    /// Where they are all in one.
    pub bundle: BundleRef,
}

/// Where toolchains come from: the coordinator.
pub trait BundleSource: Send + Sync + 'static {
    /// Describes a toolchain.
    fn describe(&self, id: ToolchainId) -> impl Future<Output = Result<Offer, SourceError>> + Send;
    /// Starts sending its bundle, from `offset` on.
    fn fetch(&self, id: ToolchainId, offset: u64) -> impl Future<Output = Result<BundleStream, SourceError>> + Send;
}

/// Why a source does not give what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It has no such toolchain. Asking again is of no use.
    #[error("the coordinator has no such toolchain; push it again")]
    Unknown,
    /// It has it, but what it has is damaged. Asking again is of no use.
    #[error("the coordinator's copy is damaged: {0}")]
    Damaged(String),
    /// It cannot be reached, or the connection broke. Asking again may help.
    #[error("the coordinator cannot be reached: {0}")]
    Unavailable(String),
}

/// Why there is no toolchain. Shared by all who waited.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnsureError {
    /// It is made for other machines.
    #[error("toolchain {toolchain} runs on `{needs}`, and this node is `{here}`")]
    OtherHost {
        /// The toolchain.
        toolchain: ToolchainId,
        /// What it runs on.
        needs: Host,
        /// What this is.
        here: Host,
    },
    /// The source does not give it.
    #[error("toolchain {toolchain}: {error}")]
    Source {
        /// The toolchain.
        toolchain: ToolchainId,
        /// The last of the errors.
        error: SourceError,
    },
    /// It does not come to stand here.
    #[error(transparent)]
    Install(Arc<InstallError>),
}

impl EnsureError {
    fn source(toolchain: ToolchainId, error: SourceError) -> Self {
        Self::Source { toolchain, error }
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Source { error, .. } => matches!(error, SourceError::Unavailable(_)),
            // The bytes that came were not the bundle; others may.
            Self::Install(error) => matches!(**error, InstallError::WrongBundle { .. }),
            Self::OtherHost { .. } => false,
        }
    }
}

impl From<InstallError> for EnsureError {
    fn from(error: InstallError) -> Self {
        Self::Install(Arc::new(error))
    }
}

impl From<EnsureError> for Refusal {
    fn from(error: EnsureError) -> Self {
        let kind = match &error {
            EnsureError::OtherHost { .. } => RefusalKind::Unsupported,
            EnsureError::Source { .. } => RefusalKind::NoToolchain,
            EnsureError::Install(error) => match **error {
                InstallError::InUse { .. } => RefusalKind::Busy,
                InstallError::Io { .. } => RefusalKind::Fault,
                _ => RefusalKind::NoToolchain,
            },
        };
        Refusal {
            kind,
            message: error.to_string(),
        }
    }
}

/// How far a fetch is that takes longer than a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
    /// The toolchain.
    pub toolchain: ToolchainId,
    /// Bytes of the bundle that are here.
    pub received_bytes: u64,
    /// Bytes of the whole bundle.
    pub total_bytes: u64,
}

/// Is told of fetches that take longer than a second, once a second.
pub type Report = Box<dyn Fn(FetchProgress) + Send + Sync>;

/// A node's toolchains, for its jobs and for its session with the coordinator.
pub struct WorkerToolchains<S> {
    store: ToolchainStore,
    source: S,
    tasks: Tasks,
    report: Report,
    queues: Mutex<BTreeMap<ToolchainId, Arc<Queue>>>,
}

/// Those who wait for one toolchain.
#[derive(Default)]
struct Queue {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How many attempts have failed, and how the last one did.
    failed: Mutex<(u64, Option<EnsureError>)>,
}

/// Being the one who does the work. Goes along with work on other threads, so that it ends after that does, even when
/// nobody waits for it any more.
type Turn = OwnedMutexGuard<()>;

/// What a look without a fetch finds.
enum Look {
    /// It stands here.
    Stands(Pin),
    /// It would have to be fetched, still in this turn.
    Fetchable(Offer, Turn),
}

impl<S: BundleSource> WorkerToolchains<S> {
    /// `tasks` owns the threads that block.
    pub fn new(store: ToolchainStore, source: S, tasks: Tasks, report: Report) -> Self {
        Self {
            store,
            source,
            tasks,
            report,
            queues: Mutex::default(),
        }
    }

    /// Returns the toolchain, pinned and verified, getting it first where needed.
    pub async fn ensure(&self, id: ToolchainId) -> Result<Pin, EnsureError> {
        if let Some(pin) = self.store.lookup_within(id, CHECK_HOLDS) {
            return Ok(pin);
        }
        let queue = self.join(id);
        let result = self.ensure_in_turn(id, &queue).await;
        self.leave(id, queue);
        result
    }

    fn join(&self, id: ToolchainId) -> Arc<Queue> {
        lock(&self.queues).entry(id).or_default().clone()
    }

    fn leave(&self, id: ToolchainId, queue: Arc<Queue>) {
        let mut queues = lock(&self.queues);
        // The map's and ours: nobody else waits.
        if Arc::strong_count(&queue) == 2 {
            queues.remove(&id);
        }
    }

    async fn ensure_in_turn(&self, id: ToolchainId, queue: &Queue) -> Result<Pin, EnsureError> {
        let failures_before = lock(&queue.failed).0;
        let turn = queue.turn.clone().lock_owned().await;
        {
            let failed = lock(&queue.failed);
            if let (count, Some(error)) = &*failed
                && *count > failures_before
            {
                return Err(error.clone());
            }
        }
        let result = match self.look_in_turn(id, turn).await {
            Ok(Look::Stands(pin)) => Ok(pin),
            Ok(Look::Fetchable(offer, turn)) => self.fetch(id, &offer, turn).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            let mut failed = lock(&queue.failed);
            *failed = (failed.0 + 1, Some(error.clone()));
        }
        result
    }

    /// Looks whether the toolchain stands here or is installed.
    async fn look_in_turn(&self, id: ToolchainId, turn: Turn) -> Result<Look, EnsureError> {
        let store = self.store.clone();
        let (found, turn) = self.tasks.blocking(move || (store.lookup(id), turn)).await;
        if let Some(pin) = found {
            return Ok(Look::Stands(pin));
        }
        let offer = self.describe(id).await?;
        let (store, manifest) = (self.store.clone(), offer.manifest.clone());
        let adopt = move || (store.adopt_installed(&manifest, &mut |_, _| {}), turn);
        match self.tasks.blocking(adopt).await {
            (Ok(pin), _) => Ok(Look::Stands(pin)),
            (Err(reason @ InstallError::NotInstalled { .. }), turn) => {
                tracing::debug!("{reason}");
                Ok(Look::Fetchable(offer, turn))
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn describe(&self, id: ToolchainId) -> Result<Offer, EnsureError> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MOST);
        let mut failures = 0;
        let offer = loop {
            match self.source.describe(id).await {
                Ok(offer) => break offer,
                Err(error) => {
                    let error = EnsureError::source(id, error);
                    failures += 1;
                    if failures == FAILURES_MAX || !error.may_pass() {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff.next_delay(rand::random())).await;
                }
            }
        };
        let (needs, here) = (offer.manifest.host(), Host::current());
        if needs != here {
            return Err(EnsureError::OtherHost {
                toolchain: id,
                needs,
                here,
            });
        }
        if offer.manifest.id() != id {
            let damaged = SourceError::Damaged("it described another toolchain".to_owned());
            return Err(EnsureError::source(id, damaged));
        }
        Ok(offer)
    }

    async fn fetch(&self, id: ToolchainId, offer: &Offer, mut turn: Turn) -> Result<Pin, EnsureError> {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MOST);
        let mut failures = 0;
        let started = Instant::now();
        let mut reported = started;
        loop {
            let (store, manifest, bundle) = (self.store.clone(), offer.manifest.clone(), offer.bundle);
            let begin = move || (store.begin_fetch(&manifest, bundle), turn);
            let (partial, next) = self.tasks.blocking(begin).await;
            let partial = partial?;
            let before = partial.offset();
            let (received, next) = self.receive(id, partial, &mut reported, next).await;
            turn = next;
            let error = match received {
                Ok(pin) => {
                    let seconds = started.elapsed().as_secs_f32();
                    tracing::info!(toolchain = %id, bytes = offer.bundle.size, seconds, "toolchain fetched");
                    return Ok(pin);
                }
                Err((error, offset)) => {
                    if offset.saturating_sub(before) >= PROGRESS_BYTES {
                        failures = 0;
                        backoff.reset();
                    }
                    error
                }
            };
            failures += 1;
            if failures == FAILURES_MAX || !error.may_pass() {
                return Err(error);
            }
            tracing::warn!(toolchain = %id, %error, "fetch interrupted; it will be resumed");
            tokio::time::sleep(backoff.next_delay(rand::random())).await;
        }
    }

    /// Receives what is missing of a bundle and unpacks it. With an error, tells how far it came.
    async fn receive(
        &self,
        id: ToolchainId,
        mut partial: Partial,
        reported: &mut Instant,
        mut turn: Turn,
    ) -> (Result<Pin, (EnsureError, u64)>, Turn) {
        let total_bytes = partial.bundle().size;
        if !partial.is_complete() {
            let mut stream = match self.source.fetch(id, partial.offset()).await {
                Ok(stream) => stream,
                Err(error) => {
                    let offset = partial.offset();
                    return (Err((EnsureError::source(id, error), offset)), turn);
                }
            };
            while !partial.is_complete() {
                let offset = partial.offset();
                let piece = match tokio::time::timeout(SILENCE_MAX, stream.next()).await {
                    Ok(Some(Ok(piece))) => piece,
                    Ok(Some(Err(error))) => return (Err((EnsureError::source(id, error), offset)), turn),
                    Ok(None) => return (Err((broken(id, "it ended too soon"), offset)), turn),
                    Err(_) => return (Err((broken(id, "nothing came for too long"), offset)), turn),
                };
                let write = move || {
                    let written = partial.write(&piece);
                    (written, partial, turn)
                };
                let (written, returned, next) = self.tasks.blocking(write).await;
                (partial, turn) = (returned, next);
                if let Err(error) = written {
                    return (Err((error.into(), offset)), turn);
                }
                if reported.elapsed() >= REPORT_EVERY {
                    *reported = Instant::now();
                    (self.report)(FetchProgress {
                        toolchain: id,
                        received_bytes: partial.offset(),
                        total_bytes,
                    });
                }
            }
        }
        let finish = move || (partial.finish(&mut |_, _| {}), turn);
        let (pin, turn) = self.tasks.blocking(finish).await;
        (pin.map_err(|error| (error.into(), total_bytes)), turn)
    }
}

fn broken(id: ToolchainId, how: &str) -> EnsureError {
    EnsureError::source(id, SourceError::Unavailable(how.to_owned()))
}

fn standing(pin: &Pin) -> Standing {
    match pin.origin() {
        Origin::Installed => Standing::Installed,
        Origin::Bundle => Standing::Bundle,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can leave half of it done.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<S: BundleSource> executor::Toolchains for WorkerToolchains<S> {
    fn ensure(&self, toolchain: ToolchainId) -> Pending<'_, Result<ReadyToolchain, Refusal>> {
        Box::pin(async move {
            let pin = WorkerToolchains::ensure(self, toolchain).await?;
            Ok(ReadyToolchain {
                root: pin.root().to_owned(),
                manifest: pin.manifest().clone(),
                pin: Box::new(pin),
            })
        })
    }
}

impl<S: BundleSource> session::Toolchains for WorkerToolchains<S> {
    fn ready(&self) -> Vec<ToolchainId> {
        self.store.ids()
    }

    async fn look(&self, id: ToolchainId) -> Standing {
        let queue = self.join(id);
        let turn = queue.turn.clone().lock_owned().await;
        let look = self.look_in_turn(id, turn).await;
        self.leave(id, queue);
        match look {
            Ok(Look::Stands(pin)) => standing(&pin),
            Ok(Look::Fetchable(..)) => Standing::Fetchable,
            Err(error) => Standing::Failed(error.to_string()),
        }
    }

    async fn fetch(&self, id: ToolchainId) -> Standing {
        match self.ensure(id).await {
            Ok(pin) => standing(&pin),
            Err(error) => Standing::Failed(error.to_string()),
        }
    }
}
