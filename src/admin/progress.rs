//! How far a long command has come, on stderr: nothing in the first second, then a line that is written over.
//!
//! Where stderr is no terminal, a line for every tenth, so that a log shows that something goes on.

use std::io::Write;
use std::time::{Duration, Instant};

use super::Stream;
use super::table::bytes;

/// Time after which a person begins to wonder.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line is written over.
const STEP: Duration = Duration::from_millis(200);

/// One phase of a command.
pub(super) struct Progress {
    what: &'static str,
    to: Stream,
    quiet_until: Instant,
    tenths: u64,
    shown: bool,
}

impl Progress {
    /// Starts a phase called `what`, as in `packing`.
    pub(super) fn new(what: &'static str, to: Stream) -> Self {
        Self {
            what,
            to,
            quiet_until: Instant::now() + PATIENCE,
            tenths: 0,
            shown: false,
        }
    }

    /// Tells that `done` of `all` bytes are done.
    pub(super) fn at(&mut self, done: u64, all: u64) {
        if Instant::now() < self.quiet_until {
            return;
        }
        let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
        let line = format!("{} {percent:3} % of {}", self.what, bytes(all));
        // A person who has closed the terminal needs no progress.
        let _ = match self.to {
            Stream::Terminal => {
                self.quiet_until = Instant::now() + STEP;
                write!(std::io::stderr(), "\r\x1b[K{line}")
            }
            Stream::Other if percent / 10 > self.tenths => {
                self.tenths = percent / 10;
                writeln!(std::io::stderr(), "{line}")
            }
            Stream::Other => Ok(()),
        };
        self.shown = true;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.to == Stream::Terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
