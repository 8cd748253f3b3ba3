//! Log set-up, once per process, by `bin/`.
//!
//! Servers log to stderr, where journald or runit pick it up; the agent to a file, since its stderr belongs to nobody.

use std::fs::File;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// Where log lines go.
#[derive(Debug)]
pub enum LogTarget {
    /// The process's stderr.
    Stderr,
    /// A file, opened for appending.
    File(File),
}

/// Starts logging. `filter` is the value of `RDCC_LOG`: a level, or directives such as `info,rdcc::worker=debug`.
/// A filter that does not parse counts as `info`. Calling it twice does nothing the second time.
pub fn start(target: LogTarget, filter: Option<&str>) {
    let filter = filter
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // An error only says that logging runs already.
    let _ = match target {
        LogTarget::Stderr => builder.with_writer(std::io::stderr).try_init(),
        LogTarget::File(file) => builder.with_writer(Mutex::new(file)).try_init(),
    };
}
