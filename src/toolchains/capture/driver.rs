//! Finding a compiler driver and asking it what it consists of.
//!
//! The driver runs with an empty environment apart from `PATH`, `LC_ALL=C` and what the toolchain file wants forwarded,
//! so that `COMPILER_PATH` and its like in the caller's environment do not change the answer.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};

use super::{CaptureError, Surroundings};
use crate::store::stamp::file_id;
use crate::toolchains::definition::Command;

/// Programs that stand in for a compiler and start the next one on `PATH`. Capturing one of these would capture the
/// stand-in, so they are passed over, and so is rdcc itself.
const LAUNCHERS: &[&str] = &["buildcache", "ccache", "colorgcc", "distcc", "icecc", "rdcc", "sccache"];

/// Where a program was looked for and not found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotFound {
    /// The paths tried.
    pub looked: Vec<PathBuf>,
    /// Those of them that exist but are rdcc, ccache or the like.
    pub launchers: Vec<PathBuf>,
}

/// Finds the program that `command` means: first in `before`, then on `PATH`.
pub fn find(command: &Command, before: &[PathBuf], surroundings: &Surroundings) -> Result<PathBuf, NotFound> {
    let mut missed = NotFound::default();
    let candidates: Vec<PathBuf> = match command {
        Command::At(path) => vec![path.clone()],
        Command::Named(name) => before
            .iter()
            .chain(&surroundings.path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .collect(),
    };
    for candidate in candidates {
        let executable =
            fs::metadata(&candidate).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if executable && is_launcher(&candidate, surroundings) {
            missed.launchers.push(candidate.clone());
        } else if executable {
            return Ok(in_plain_directory(candidate));
        }
        // PATH may name a directory twice.
        if !missed.looked.contains(&candidate) {
            missed.looked.push(candidate);
        }
    }
    Err(missed)
}

/// Tells whether `path` leads to rdcc itself or to another launcher.
pub fn is_launcher(path: &Path, surroundings: &Surroundings) -> bool {
    let Ok(real) = fs::canonicalize(path) else {
        return false;
    };
    let name = real.file_name().unwrap_or_default();
    if LAUNCHERS.iter().any(|launcher| OsStr::new(launcher) == name) {
        return true;
    }
    let own = surroundings.own_program.as_deref().and_then(file_id);
    own.is_some() && own == file_id(&real)
}

/// Names the same program by its directory without links. `/bin/gcc` and `/usr/bin/gcc` on a machine with a merged
/// `/usr` are one compiler and have to have one identity; the last name stays, since gcc and wrappers look at it.
fn in_plain_directory(path: PathBuf) -> PathBuf {
    let directory = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    match directory.zip(path.file_name()) {
        Some((directory, name)) => directory.join(name),
        None => path,
    }
}

/// A compiler driver that can be asked.
pub(super) struct Driver<'a> {
    pub(super) path: &'a Path,
    pub(super) flags: &'a [String],
    pub(super) surroundings: &'a Surroundings,
}

impl Driver<'_> {
    /// Asks for `-dumpmachine`.
    pub(super) fn target(&self) -> Result<String, CaptureError> {
        let answer = self.ask("-dumpmachine")?;
        Ok(answer.to_string_lossy().into_owned())
    }

    /// Asks where the driver would find a program that it starts. `None` when it knows no such program.
    ///
    /// A bare name in the answer means that the driver leaves it to `PATH`; then so do we, and `by_path` is true.
    pub(super) fn program(&self, name: &str) -> Result<Option<Program>, CaptureError> {
        let answer = self.ask(&format!("-print-prog-name={name}"))?;
        if answer.as_bytes().contains(&b'/') {
            let path = PathBuf::from(answer);
            return Ok(path.is_file().then_some(Program { path, by_path: false }));
        }
        let found = find(&Command::Named(name.to_owned()), &[], self.surroundings);
        Ok(found.ok().map(|path| Program { path, by_path: true }))
    }

    /// Asks where the driver would find a file or directory of its own. `None` when it has none.
    pub(super) fn file(&self, name: &str) -> Result<Option<PathBuf>, CaptureError> {
        let answer = self.ask(&format!("-print-file-name={name}"))?;
        let path = PathBuf::from(answer);
        Ok((path.is_absolute() && path.exists()).then_some(path))
    }

    /// Returns `argv[0]` of the compiler that answers in the end, which differs from ours below a wrapper.
    /// `None` when the answer is not gcc's.
    pub(super) fn behind_wrappers(&self) -> Result<Option<OsString>, CaptureError> {
        let output = self.run("-v")?;
        let mut lines = output.stderr.split(|byte| *byte == b'\n');
        match lines.find_map(|line| line.strip_prefix(b"COLLECT_GCC=")) {
            // Whether it succeeds does not matter: a wrapper that adds options for the linker makes it try to link.
            Some(name) => Ok(Some(OsString::from_vec(name.to_vec()))),
            None if output.status.success() => Ok(None),
            None => Err(self.refused("-v", &output)),
        }
    }

    fn ask(&self, question: &str) -> Result<OsString, CaptureError> {
        let output = self.run(question)?;
        if !output.status.success() {
            return Err(self.refused(question, &output));
        }
        let mut said = output.stdout;
        let end = said.iter().position(|byte| *byte == b'\n').unwrap_or(said.len());
        said.truncate(end);
        Ok(OsString::from_vec(said))
    }

    fn run(&self, question: &str) -> Result<Output, CaptureError> {
        let path: Vec<&OsStr> = self.surroundings.path.iter().map(|path| path.as_os_str()).collect();
        Process::new(self.path)
            .args(self.flags)
            .arg(question)
            .env_clear()
            .envs(self.surroundings.environment.iter().map(|(name, value)| (name, value)))
            .env("PATH", path.join(OsStr::new(":")))
            .env("LC_ALL", "C")
            // Should a wrapper start what stands in for a compiler on `PATH`, that has to stay out of the way.
            .env("RDCC_DISABLE", "1")
            .env("CCACHE_DISABLE", "1")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| CaptureError::io("start", self.path, error))
    }

    fn refused(&self, question: &str, output: &Output) -> CaptureError {
        let said = String::from_utf8_lossy(&output.stderr);
        CaptureError::Refused {
            compiler: self.path.to_owned(),
            question: question.to_owned(),
            said: said.lines().next().unwrap_or_default().chars().take(300).collect(),
        }
    }
}

/// A program that the driver starts.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// The driver itself does not know where it is and lets `PATH` decide.
    pub(super) by_path: bool,
}
