//! Starts the local compiler for the agent's own purposes: to preprocess, to list files, to tell about itself.
//!
//! Not for compiles that the wrapper runs. Each child leads a process group of its own, which is killed whole when the
//! caller loses interest, so that a cancelled job leaves no cc1 behind. How many run at once is bounded. What the
//! children say is for the caller to judge.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::job::Status;

/// Most bytes taken from a child's stdout or stderr. The longest lists of dependencies come to a megabyte, all macros
/// of a large unit to ten.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// What to run.
#[derive(Debug, Clone)]
pub struct CompilerRun {
    /// The executable.
    pub program: PathBuf,
    /// What it is called as.
    pub argv0: OsString,
    /// The words after that.
    pub words: Vec<OsString>,
    /// Working directory.
    pub cwd: PathBuf,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What it reads from stdin; nothing when empty.
    pub stdin: Vec<u8>,
}

/// What came of it.
#[derive(Debug)]
pub struct CompilerSaid {
    /// How it ended.
    pub status: Status,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CompilerRunError {
    /// It could not be started, or talked to.
    #[error("cannot run `{}`", .program.display())]
    Io {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said more than is taken.
    #[error("`{}` wrote more than 64 MiB", .0.display())]
    TooMuch(PathBuf),
    /// It did not end.
    #[error("`{}` did not end within {:?}", .0.display(), .1)]
    TooLong(PathBuf, Duration),
}

/// Runs compilers, a few at a time.
#[derive(Debug, Clone)]
pub struct CompilerRunner {
    places: Arc<Semaphore>,
}

impl CompilerRunner {
    /// Runs at most `at_once` at a time.
    pub fn new(at_once: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(at_once.max(1))),
        }
    }

    /// Runs a compiler to its end, for at most `longest`. Dropping the future kills it and all it started.
    pub async fn run(&self, run: CompilerRun, longest: Duration) -> Result<CompilerSaid, CompilerRunError> {
        let program = run.program.clone();
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        match tokio::time::timeout(longest, start_and_wait(run)).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(source)) if source.kind() == io::ErrorKind::FileTooLarge => Err(CompilerRunError::TooMuch(program)),
            Ok(Err(source)) => Err(CompilerRunError::Io { program, source }),
            Err(_) => Err(CompilerRunError::TooLong(program, longest)),
        }
    }
}

/// A child and its process group.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        // The leader's number stays taken for as long as the child has not been waited for.
        if let Some(leader) = self.leader.take() {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn start_and_wait(run: CompilerRun) -> io::Result<CompilerSaid> {
    let mut command = std::process::Command::new(&run.program);
    std::os::unix::process::CommandExt::arg0(&mut command, &run.argv0);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
        .args(&run.words)
        .current_dir(&run.cwd)
        .env_clear()
        .envs(run.env)
        .stdin(if run.stdin.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = Command::from(command).kill_on_drop(true).spawn()?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let mut group = Group { child, leader };
    let stdin = group.child.stdin.take();
    let (stdout, stderr) = (group.child.stdout.take(), group.child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A child that does not read on says why on stderr.
            let _ = stdin.write_all(&run.stdin).await;
        }
        Ok(())
    };
    let (stdout, stderr, ()) = tokio::try_join!(collect(stdout), collect(stderr), feed)?;
    let status = group.child.wait().await?;
    group.leader = None;
    Ok(CompilerSaid {
        status: status_of(status),
        stdout,
        stderr,
    })
}

async fn collect(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut text).await?;
    }
    if text.len() as u64 > OUTPUT_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

fn status_of(status: std::process::ExitStatus) -> Status {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        // Both are below 256 by POSIX.
        (Some(code), _) => Status::Exited(code as u8),
        (None, signal) => Status::Signaled(signal.unwrap_or(0) as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> CompilerRun {
        CompilerRun {
            program: "/bin/sh".into(),
            argv0: "sh".into(),
            words: vec!["-c".into(), script.into()],
            cwd: "/".into(),
            env: vec![("A".into(), "b".into())],
            stdin: Vec::new(),
        }
    }

    #[tokio::test]
    async fn child_gets_what_it_was_given_and_is_heard() {
        let runner = CompilerRunner::new(1);
        let mut run = shell("echo $A $0; cat; echo no >&2; exit 3");
        run.stdin = b"text".to_vec();
        let said = runner.run(run, LONG).await.unwrap();
        assert_eq!(said.status, Status::Exited(3));
        assert_eq!(said.stdout, b"b sh\ntext");
        assert_eq!(said.stderr, b"no\n");
    }

    #[tokio::test]
    async fn whole_group_ends_with_the_callers_interest() {
        let runner = CompilerRunner::new(1);
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        // A grandchild holds the write end; the read ends when the grandchild does.
        let script = format!("exec 3>{}; (sleep 1000) & echo started >&3; wait", fifo.display());
        let mut running = Box::pin(runner.run(shell(&script), LONG));
        let mut pipe = Box::pin(tokio::fs::File::open(&fifo));
        let mut reader = tokio::select! {
            _ = &mut running => panic!("ended by itself"),
            opened = &mut pipe => opened.unwrap(),
        };
        let mut text = [0; 8];
        tokio::select! {
            _ = &mut running => panic!("ended by itself"),
            read = reader.read_exact(&mut text) => { read.unwrap(); }
        }
        drop(running);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn what_cannot_be_run_or_does_not_end_is_named() {
        let runner = CompilerRunner::new(1);
        let mut run = shell("");
        run.program = "/nonexistent/gcc".into();
        let error = runner.run(run, LONG).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/gcc"), "{error}");
        let error = runner
            .run(shell("sleep 1000"), Duration::from_millis(20))
            .await
            .unwrap_err();
        assert!(matches!(error, CompilerRunError::TooLong(..)), "{error}");
    }
}
