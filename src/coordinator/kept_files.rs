//! The file in which a coordinator keeps what its farm taught it, for its next life.
//!
//! Losing it costs some jobs' learning and nothing else, so errors are logged and that is all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kept_speeds::{BYTES_MAX, KeptSpeeds};
use crate::runtime::tasks::Tasks;
use crate::store::sealed;

/// Kind and layout of the file.
const KIND: &str = "rdcc speeds 1";

/// The file. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct SpeedsFile {
    path: Arc<Path>,
    tasks: Tasks,
}

impl SpeedsFile {
    /// The file in a coordinator's state directory.
    pub fn new(state_dir: &Path, tasks: &Tasks) -> Self {
        Self {
            path: state_dir.join("speeds").into(),
            tasks: tasks.clone(),
        }
    }

    /// Reads it. Nothing is known when it is not there, or damaged, or of another version.
    pub async fn read(&self) -> KeptSpeeds {
        let path = self.path.clone();
        let kept = self.tasks.blocking(move || {
            let kept = sealed::read(&path, KIND, BYTES_MAX).and_then(|body| KeptSpeeds::unpack(&body));
            if kept.is_none() && path.exists() {
                tracing::warn!(path = %path.display(), "what was learned of nodes' speeds cannot be read; it is learned anew");
            }
            kept
        });
        kept.await.unwrap_or_default()
    }

    /// Writes it in place of what was there.
    pub async fn write(&self, kept: KeptSpeeds) {
        let path: PathBuf = self.path.to_path_buf();
        let wrote = self.tasks.blocking(move || {
            let wrote = sealed::write(&path, KIND, &kept.pack());
            wrote.map_err(|error| (path, error))
        });
        if let Err((path, error)) = wrote.await {
            tracing::warn!(path = %path.display(), %error, "what was learned of nodes' speeds is not kept");
        }
    }
}
