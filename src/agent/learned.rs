//! What is known of compiles, kept across builds: the [`Forecast`] on disk.
//!
//! Read once at the start, written as a whole (another name, then rename) every so often while something is learned and
//! at the end. Agents of one user share the file, and the last to write wins: what another learned meanwhile is learned
//! again. A file that is damaged or of another version is begun anew.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::forecast::{Features, Forecast, Observation, Prediction};
use crate::runtime::tasks::Tasks;

/// How often what is learned goes to disk: a megabyte or two, and a lost minute costs nothing but worse guesses.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// A forecast and its file.
#[derive(Debug)]
pub struct Learned {
    forecast: Mutex<Forecast>,
    changed: AtomicBool,
    path: PathBuf,
}

impl Learned {
    /// Reads what was kept in `state_dir`. Blocks on the disk.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("forecast");
        let forecast = match std::fs::read(&path) {
            Ok(bytes) => Forecast::decode(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "what was learned of compiles starts again");
                Forecast::default()
            }),
            // Missing at the first start; whatever else is wrong with it will be said when it is written.
            Err(_) => Forecast::default(),
        };
        Self {
            forecast: Mutex::new(forecast),
            changed: AtomicBool::new(false),
            path,
        }
    }

    /// Predicts a compile.
    pub fn predict(&self, features: Features<'_>) -> Prediction {
        self.lock().predict(features)
    }

    /// Learns from a compile that a worker ran.
    pub fn observe(&self, features: Features<'_>, seen: Observation) {
        self.lock().observe(features, seen);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Learns from a compile that ran here.
    pub fn observe_here(&self, features: Features<'_>, wall: Duration) {
        self.lock().observe_here(features, wall);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Returns the power of a core of this machine.
    pub fn power_here(&self) -> f64 {
        self.lock().power_here()
    }

    /// Writes what was learned since the last time. Blocks on the disk.
    pub fn save(&self) -> io::Result<()> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let bytes = self.lock().encode();
        let fresh = self.path.with_extension(format!("new-{}", std::process::id()));
        let write = || {
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&bytes)?;
            std::fs::rename(&fresh, &self.path)
        };
        write().inspect_err(|_| {
            let _ = std::fs::remove_file(&fresh);
            self.changed.store(true, Ordering::Relaxed);
        })
    }

    fn lock(&self) -> MutexGuard<'_, Forecast> {
        // Sums and means; a panic between two of them makes a guess worse, no more.
        self.forecast.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Saves `learned` now and then until `tasks` end, and once more then.
pub async fn save_regularly(learned: Arc<Learned>, tasks: Tasks) {
    loop {
        let ended = tokio::select! {
            () = tasks.cancelled() => true,
            () = tokio::time::sleep(SAVE_EVERY) => false,
        };
        let saving = Arc::clone(&learned);
        if let Err(error) = tasks.blocking(move || saving.save()).await {
            tracing::warn!(%error, path = %learned.path.display(), "what was learned of compiles is not saved");
        }
        if ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::ids::ToolchainId;

    #[test]
    fn what_was_learned_is_there_at_the_next_start_and_damage_starts_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let features = Features {
            toolchain: ToolchainId(Digest::of(b"x")),
            source: Path::new("/a.c"),
            flags_class: 1,
            closure_bytes: 1000,
        };
        let learned = Learned::open(dir.path());
        let seen = Observation {
            work: Duration::from_secs(3),
            memory_bytes: 7,
        };
        learned.observe(features, seen);
        learned.save().unwrap();
        let work = Learned::open(dir.path()).predict(features).work;
        assert!(work > Duration::from_millis(2900), "{work:?}");
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        std::fs::write(dir.path().join("forecast"), b"nonsense").unwrap();
        assert!(Learned::open(dir.path()).predict(features).work < Duration::from_secs(1));
    }
}
