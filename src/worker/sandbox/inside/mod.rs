//! The launcher process: one thread, one job at a time, asked over the socket that is its standard input.
//!
//! It sets itself up as its first message says, tries the whole way of a job once, and then forks jobs until the worker
//! closes the socket or dies. It decides nothing: limits, time and what to stage come with each request.
//!
//! Invariants: when the launcher ends, for whatever reason, so does its job; the last answer to each job is `Reaped`,
//! after everything of that job is gone.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use super::channel::{Inbox, send_all};
use super::wire::{Cost, Event, Job, Program, Request, Setup};
use crate::job::Status;
use enter::Template;

mod binds;
mod calls;
mod check;
mod enter;
mod init;
mod root;

/// A step that failed.
#[derive(Debug)]
struct Failure {
    step: String,
    error: Errno,
}

impl Failure {
    fn event(self) -> Event {
        Event::Failed {
            step: self.step,
            errno: self.error.raw_os_error(),
        }
    }
}

/// Says what was being done when a call failed.
trait At<T> {
    fn at(self, step: impl Into<String>) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            step: step.into(),
            error,
        })
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
            .at(step)
    }
}

/// The worker is gone, or says what makes no sense.
struct Hangup;

/// What the worker says while a job runs.
enum Word {
    Nothing,
    Kill,
}

/// Lives as a launcher until the worker hangs up. `socket` is the end that the worker gave it.
pub(super) fn live(socket: BorrowedFd<'_>) -> ExitCode {
    let inbox = Inbox::default();
    match (Launcher { socket, inbox }).serve() {
        Err(Hangup) => ExitCode::SUCCESS,
        Ok(never) => match never {},
    }
}

struct Launcher<'a> {
    socket: BorrowedFd<'a>,
    inbox: Inbox,
}

impl Launcher<'_> {
    fn serve(&mut self) -> Result<Infallible, Hangup> {
        let Request::Setup(setup) = self.next_request()? else {
            return Err(Hangup);
        };
        let mut template = match set_up(&setup) {
            Ok(template) => template,
            Err(failure) => {
                self.answer(&failure.event())?;
                return Err(Hangup);
            }
        };
        self.answer(&Event::Ready)?;
        loop {
            match self.next_request()? {
                Request::Job(job) => {
                    let (Some(stdout), Some(stderr)) = (self.inbox.next_descriptor(), self.inbox.next_descriptor())
                    else {
                        return Err(Hangup);
                    };
                    self.run(&mut template, &job, [stdout, stderr])?;
                }
                // The job ended just as the worker gave it up.
                Request::Kill => {}
                Request::Setup(_) => return Err(Hangup),
            }
        }
    }

    fn answer(&self, event: &Event) -> Result<(), Hangup> {
        send_all(self.socket, &event.encode(), &[]).map_err(|_| Hangup)
    }

    /// Takes a request that has arrived already.
    fn waiting_request(&mut self) -> Result<Option<Request>, Hangup> {
        let Some(body) = self.inbox.next_body().map_err(|_| Hangup)? else {
            return Ok(None);
        };
        Request::decode(&body).map(Some).map_err(|_| Hangup)
    }

    fn receive(&mut self) -> Result<(), Hangup> {
        match self.inbox.receive(self.socket) {
            Ok(0) | Err(_) => Err(Hangup),
            Ok(_) => Ok(()),
        }
    }

    fn next_request(&mut self) -> Result<Request, Hangup> {
        loop {
            if let Some(request) = self.waiting_request()? {
                return Ok(request);
            }
            self.receive()?;
        }
    }

    /// Runs one job to its end.
    fn run(&mut self, template: &mut Template, job: &Job, output: [OwnedFd; 2]) -> Result<(), Hangup> {
        let cost = match fork_init(template, job, output, self.socket) {
            Ok(child) => self.watch(template, child)?,
            Err(failure) => {
                self.answer(&failure.event())?;
                Cost::default()
            }
        };
        self.answer(&Event::Reaped(cost))
    }

    /// Waits for the end of a job's first process, which takes all others along, and meanwhile for the worker's word.
    fn watch(&mut self, template: &Template, child: Pid) -> Result<Cost, Hangup> {
        loop {
            if let Some((_, _, cost)) = calls::wait(Some(child), libc::WNOHANG).map_err(|_| Hangup)? {
                return Ok(cost);
            }
            let word = self.next_word(template);
            if !matches!(word, Ok(Word::Nothing)) {
                rustix::process::kill_process(child, Signal::KILL).ok();
            }
            if word.is_err() {
                calls::wait(Some(child), 0).ok();
                return Err(Hangup);
            }
        }
    }

    /// Waits until a child has ended or the worker has said something.
    fn next_word(&mut self, template: &Template) -> Result<Word, Hangup> {
        match self.waiting_request()? {
            Some(Request::Kill) => return Ok(Word::Kill),
            Some(Request::Job(_) | Request::Setup(_)) => return Err(Hangup),
            None => {}
        }
        let mut watched = [
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&template.ended, PollFlags::IN),
        ];
        rustix::event::poll(&mut watched, None).map_err(|_| Hangup)?;
        let spoken = !watched[0].revents().is_empty();
        calls::clear_child_signal(&template.ended);
        if spoken {
            self.receive()?;
        }
        Ok(Word::Nothing)
    }
}

/// Sets up, and tries out the whole way of a job.
fn set_up(setup: &Setup) -> Result<Template, Failure> {
    let mut template = enter::enter(setup)?;
    enter::touch(check::LOWER_FILE).at("preparing the trial job")?;
    if let Some(user) = template.job_user {
        root::give(Path::new(check::LOWER_FILE), user).at("preparing the trial job")?;
    }
    let trial = Job {
        layers: Vec::new(),
        program: Program::SelfCheck,
        argv: Vec::new(),
        env: Vec::new(),
        cwd: "/tmp/trial".into(),
        umask: 0o22,
        memory_bytes: u64::MAX,
        cpu_seconds: 10,
        processes: 8,
        output_bytes: 1 << 20,
        cpus: Vec::new(),
        make_dirs: Vec::new(),
        writable_dirs: Vec::new(),
        outputs: Vec::new(),
    };
    let null = || template.null.try_clone().at("opening `/dev/null`");
    let output = [null()?, null()?];
    let (ours, theirs) = UnixStream::pair().at("making a socket pair")?;
    let child = fork_init(&mut template, &trial, output, theirs.as_fd())?;
    drop(theirs);
    let mut inbox = Inbox::default();
    while inbox.receive(&ours).at("reading the trial job's answer")? > 0 {}
    calls::wait(Some(child), 0).at("waiting for the trial job")?;
    rustix::fs::unlink(check::LOWER_FILE).at("clearing up after the trial job")?;
    while let Some(body) = inbox
        .next_body()
        .map_err(|_| Errno::BADMSG)
        .at("reading the trial job's answer")?
    {
        match Event::decode(&body) {
            Ok(Event::Exited(Status::Exited(0))) => return Ok(template),
            Ok(Event::Failed { step, errno }) => return Err(Errno::from_raw_os_error(errno)).at(step),
            _ => {}
        }
    }
    Err(Errno::CHILD).at("running the trial job")
}

/// Forks a job's first process.
fn fork_init(template: &mut Template, job: &Job, output: [OwnedFd; 2], socket: BorrowedFd<'_>) -> Result<Pid, Failure> {
    match calls::fork_into_new_spaces().at("forking into new name spaces")? {
        Some(child) => Ok(child),
        None => init::live(template, job, output, socket),
    }
}
