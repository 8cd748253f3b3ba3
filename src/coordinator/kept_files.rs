//! The files in which a coordinator keeps for its next life what its farm taught it.
//!
//! Losing how fast nodes are costs some jobs' learning and nothing else; losing who is in quarantine is worse, but no
//! reason not to start. So errors are logged, and that is all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kept_speeds::{self, KeptSpeeds};
use super::quarantine::{self, Quarantine};
use crate::runtime::tasks::Tasks;
use crate::store::sealed;

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Kind {
    file: &'static str,
    /// Its kind and layout, as it says at its beginning.
    seal: &'static str,
    bytes_max: usize,
    /// What is in it, for people.
    what: &'static str,
}

const SPEEDS: Kind = Kind {
    file: "speeds",
    seal: "rdcc speeds 2",
    bytes_max: kept_speeds::BYTES_MAX,
    what: "how fast nodes are",
};
const QUARANTINE: Kind = Kind {
    file: "quarantine",
    seal: "rdcc quarantine 1",
    bytes_max: quarantine::BYTES_MAX,
    what: "which nodes are in quarantine",
};

/// The files. Clones are of the same ones.
#[derive(Debug, Clone)]
pub struct KeptFiles {
    state_dir: Arc<Path>,
    tasks: Tasks,
}

impl KeptFiles {
    /// Those in a coordinator's state directory.
    pub fn new(state_dir: &Path, tasks: &Tasks) -> Self {
        Self {
            state_dir: state_dir.into(),
            tasks: tasks.clone(),
        }
    }

    /// Reads what was learned of speeds. Nothing is known when it is not there, or damaged, or of another version.
    pub async fn speeds(&self) -> KeptSpeeds {
        self.read(SPEEDS, KeptSpeeds::unpack).await
    }

    /// Writes it in place of what was there.
    pub async fn keep_speeds(&self, speeds: KeptSpeeds) {
        self.write(SPEEDS, move || speeds.pack()).await;
    }

    /// Reads who is in quarantine, likewise.
    pub async fn quarantine(&self) -> Quarantine {
        self.read(QUARANTINE, Quarantine::unpack).await
    }

    /// Writes it in place of what was there.
    pub async fn keep_quarantine(&self, quarantine: Quarantine) {
        self.write(QUARANTINE, move || quarantine.pack()).await;
    }

    async fn read<T: Default + Send + 'static>(&self, kind: Kind, unpack: fn(&[u8]) -> Option<T>) -> T {
        let path = self.path(kind);
        let kept = self.tasks.blocking(move || {
            let kept = sealed::read(&path, kind.seal, kind.bytes_max).and_then(|body| unpack(&body));
            if kept.is_none() && path.exists() {
                tracing::warn!(path = %path.display(), what = kind.what, "a file of an earlier life cannot be read");
            }
            kept
        });
        kept.await.unwrap_or_default()
    }

    async fn write(&self, kind: Kind, pack: impl FnOnce() -> Vec<u8> + Send + 'static) {
        let path = self.path(kind);
        let wrote = self.tasks.blocking(move || {
            let wrote = sealed::write(&path, kind.seal, &pack());
            wrote.map_err(|error| (path, error))
        });
        if let Err((path, error)) = wrote.await {
            tracing::warn!(path = %path.display(), %error, what = kind.what, "not kept for the next life");
        }
    }

    fn path(&self, kind: Kind) -> PathBuf {
        self.state_dir.join(kind.file)
    }
}
