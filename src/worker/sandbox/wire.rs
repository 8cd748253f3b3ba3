//! What the worker and a launcher say to each other, as bytes. Both are the same program, so the form may change freely.
//!
//! A frame is a little-endian `u32` length and a body: a tag, then fields in order. Pure. Invariant: any bytes decode to
//! a message or to [`Garbled`], never to a panic or to an allocation larger than the frame.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{JobUser, Mode};
use crate::job::Status;

/// Largest body taken. The kernel refuses argument vectors of more than some megabytes anyway.
pub(super) const FRAME_BYTES_MAX: usize = 16 << 20;

/// Bytes before a body.
pub(super) const HEADER_BYTES: usize = 4;

/// From the worker to a launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// The first frame: where and how to live.
    Setup(Setup),
    /// Run this. Carries the descriptors for standard output and standard error.
    Job(Box<Job>),
    /// End the job that is running, if one is.
    Kill,
}

/// How a launcher is to set itself up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setup {
    /// The one mode to try.
    pub(super) mode: Mode,
    /// Where all lower directories lie.
    pub(super) base: PathBuf,
    /// Who jobs run as, when the launcher is root.
    pub(super) job_user: JobUser,
    /// Niceness of jobs.
    pub(super) niceness: u8,
}

/// What a job executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// A program in the job's root.
    Execute(PathBuf),
    /// The launcher's own look around from inside: status 0 when the root holds what it promises.
    SelfCheck,
    /// Nothing: ends with status 0 at once.
    Nothing,
}

/// One job, checked and with its paths as the launcher sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// Lower directories relative to the base, topmost first.
    pub(super) layers: Vec<PathBuf>,
    pub(super) program: Program,
    pub(super) argv: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) cwd: PathBuf,
    pub(super) umask: u32,
    pub(super) memory_bytes: u64,
    pub(super) cpu_seconds: u64,
    pub(super) processes: u32,
    pub(super) output_bytes: u64,
    /// Processors that it is kept on; none: any.
    pub(super) cpus: Vec<u16>,
    pub(super) make_dirs: Vec<PathBuf>,
    pub(super) writable_dirs: Vec<PathBuf>,
    pub(super) outputs: Vec<PathBuf>,
}

/// From a launcher, or a job's first process, to the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Set up, and a trial job has passed.
    Ready,
    /// A step failed: the set-up's, or the job's before its program began.
    Failed {
        /// What was being done.
        step: String,
        /// What the kernel said.
        errno: i32,
    },
    /// The program cannot be executed.
    NotExecuted {
        /// What the kernel said.
        errno: i32,
    },
    /// The program is executing. Carries the descriptor of the writable layer.
    Started,
    /// The program itself has ended; others of the job may linger for a moment.
    Exited(Status),
    /// Nothing of the job is left.
    Reaped(Cost),
}

/// What all processes of a job used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cost {
    pub(super) user: Duration,
    pub(super) system: Duration,
    pub(super) memory_peak_bytes: u64,
    pub(super) major_faults: u64,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a garbled message between worker and launcher")]
pub(super) struct Garbled;

impl Request {
    /// Encodes the message as a frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut frame = Frame::new();
        match self {
            Request::Setup(setup) => frame.tag(0).setup(setup),
            Request::Job(job) => frame.tag(1).job(job),
            Request::Kill => frame.tag(2),
        };
        frame.finish()
    }

    /// Decodes a frame's body.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Garbled> {
        let mut body = Body(body);
        let request = match body.byte()? {
            0 => Request::Setup(body.setup()?),
            1 => Request::Job(Box::new(body.job()?)),
            2 => Request::Kill,
            _ => return Err(Garbled),
        };
        body.end().map(|()| request)
    }
}

impl Event {
    /// Encodes the message as a frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut frame = Frame::new();
        match self {
            Event::Ready => frame.tag(0),
            Event::Failed { step, errno } => frame
                .tag(1)
                .bytes(step.as_bytes())
                .number(u64::from(errno.unsigned_abs())),
            Event::NotExecuted { errno } => frame.tag(2).number(u64::from(errno.unsigned_abs())),
            Event::Started => frame.tag(3),
            Event::Exited(Status::Exited(code)) => frame.tag(4).number(u64::from(*code)),
            Event::Exited(Status::Signaled(signal)) => frame.tag(5).number(u64::from(*signal)),
            Event::Reaped(cost) => frame
                .tag(6)
                .duration(cost.user)
                .duration(cost.system)
                .number(cost.memory_peak_bytes)
                .number(cost.major_faults),
        };
        frame.finish()
    }

    /// Decodes a frame's body.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Garbled> {
        let mut body = Body(body);
        let event = match body.byte()? {
            0 => Event::Ready,
            1 => Event::Failed {
                step: String::from_utf8_lossy(body.bytes()?).into_owned(),
                errno: body.small()?,
            },
            2 => Event::NotExecuted { errno: body.small()? },
            3 => Event::Started,
            4 => Event::Exited(Status::Exited(body.small()?)),
            5 => Event::Exited(Status::Signaled(body.small()?)),
            6 => Event::Reaped(Cost {
                user: body.duration()?,
                system: body.duration()?,
                memory_peak_bytes: body.number()?,
                major_faults: body.number()?,
            }),
            _ => return Err(Garbled),
        };
        body.end().map(|()| event)
    }
}

/// Takes the length that stands before a body.
pub(super) fn body_bytes(header: [u8; HEADER_BYTES]) -> Result<usize, Garbled> {
    let length = usize::try_from(u32::from_le_bytes(header)).map_err(|_| Garbled)?;
    if length > FRAME_BYTES_MAX {
        Err(Garbled)
    } else {
        Ok(length)
    }
}

struct Frame(Vec<u8>);

impl Frame {
    fn new() -> Self {
        Frame(vec![0; HEADER_BYTES])
    }

    /// Puts the length where it belongs. A body beyond the bound keeps its true length as far as it can be written, and
    /// the receiver refuses it.
    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        self.0[..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        self.0
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.0.push(tag);
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn duration(&mut self, duration: Duration) -> &mut Self {
        self.number(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    fn count(&mut self, count: usize) -> &mut Self {
        self.0
            .extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len()).0.extend_from_slice(bytes);
        self
    }

    fn path(&mut self, path: &Path) -> &mut Self {
        self.bytes(path.as_os_str().as_bytes())
    }

    fn paths(&mut self, paths: &[PathBuf]) -> &mut Self {
        self.count(paths.len());
        paths.iter().fold(self, |frame, path| frame.path(path))
    }

    fn cpus(&mut self, cpus: &[u16]) -> &mut Self {
        self.count(cpus.len());
        cpus.iter().fold(self, |frame, cpu| frame.number(u64::from(*cpu)))
    }

    fn setup(&mut self, setup: &Setup) -> &mut Self {
        self.tag(mode_tag(setup.mode))
            .tag(setup.niceness)
            .path(&setup.base)
            .number(u64::from(setup.job_user.uid))
            .number(u64::from(setup.job_user.gid))
    }

    fn job(&mut self, job: &Job) -> &mut Self {
        self.paths(&job.layers);
        match &job.program {
            Program::Execute(path) => self.tag(0).path(path),
            Program::SelfCheck => self.tag(1),
            Program::Nothing => self.tag(2),
        };
        self.count(job.argv.len());
        for argument in &job.argv {
            self.bytes(argument.as_bytes());
        }
        self.count(job.env.len());
        for (name, value) in &job.env {
            self.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        self.path(&job.cwd)
            .number(u64::from(job.umask))
            .number(job.memory_bytes)
            .number(job.cpu_seconds)
            .number(u64::from(job.processes))
            .number(job.output_bytes)
            .cpus(&job.cpus)
            .paths(&job.make_dirs)
            .paths(&job.writable_dirs)
            .paths(&job.outputs)
    }
}

/// What is left of a body that is being read.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Garbled> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Garbled)?;
        self.0 = rest;
        Ok(taken)
    }

    fn end(&self) -> Result<(), Garbled> {
        if self.0.is_empty() { Ok(()) } else { Err(Garbled) }
    }

    fn byte(&mut self) -> Result<u8, Garbled> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, Garbled> {
        let bytes = self.take(8)?.try_into().map_err(|_| Garbled)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Garbled> {
        T::try_from(self.number()?).map_err(|_| Garbled)
    }

    fn duration(&mut self) -> Result<Duration, Garbled> {
        self.number().map(Duration::from_nanos)
    }

    fn count(&mut self) -> Result<usize, Garbled> {
        let bytes = self.take(4)?.try_into().map_err(|_| Garbled)?;
        usize::try_from(u32::from_le_bytes(bytes)).map_err(|_| Garbled)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let count = self.count()?;
        self.take(count)
    }

    fn text(&mut self) -> Result<OsString, Garbled> {
        Ok(OsString::from_vec(self.bytes()?.to_vec()))
    }

    fn path(&mut self) -> Result<PathBuf, Garbled> {
        self.text().map(PathBuf::from)
    }

    /// Reads a list. Its vector grows as items are found, so a false count costs nothing.
    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, Garbled>) -> Result<Vec<T>, Garbled> {
        let count = self.count()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn setup(&mut self) -> Result<Setup, Garbled> {
        Ok(Setup {
            mode: tagged_mode(self.byte()?)?,
            niceness: self.byte()?,
            base: self.path()?,
            job_user: JobUser {
                uid: self.small()?,
                gid: self.small()?,
            },
        })
    }

    fn job(&mut self) -> Result<Job, Garbled> {
        Ok(Job {
            layers: self.list(Self::path)?,
            program: match self.byte()? {
                0 => Program::Execute(self.path()?),
                1 => Program::SelfCheck,
                2 => Program::Nothing,
                _ => return Err(Garbled),
            },
            argv: self.list(Self::text)?,
            env: self.list(|body| Ok((body.text()?, body.text()?)))?,
            cwd: self.path()?,
            umask: self.small()?,
            memory_bytes: self.number()?,
            cpu_seconds: self.number()?,
            processes: self.small()?,
            output_bytes: self.number()?,
            cpus: self.list(|body| u16::try_from(body.number()?).map_err(|_| Garbled))?,
            make_dirs: self.list(Self::path)?,
            writable_dirs: self.list(Self::path)?,
            outputs: self.list(Self::path)?,
        })
    }
}

fn mode_tag(mode: Mode) -> u8 {
    match mode {
        Mode::UserOverlay => 0,
        Mode::RootOverlay => 1,
        Mode::UserBinds => 2,
        Mode::RootBinds => 3,
    }
}

fn tagged_mode(tag: u8) -> Result<Mode, Garbled> {
    match tag {
        0 => Ok(Mode::UserOverlay),
        1 => Ok(Mode::RootOverlay),
        2 => Ok(Mode::UserBinds),
        3 => Ok(Mode::RootBinds),
        _ => Err(Garbled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job() -> Job {
        Job {
            layers: vec!["mirrors/1".into(), "toolchains/2".into()],
            program: Program::Execute("/usr/bin/cc".into()),
            argv: vec!["cc".into(), OsString::from_vec(vec![0xff, b'x']), OsString::new()],
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/home/u".into(),
            umask: 0o22,
            memory_bytes: u64::MAX,
            cpu_seconds: 7,
            processes: 64,
            output_bytes: 1,
            cpus: vec![0, 1023],
            make_dirs: vec!["/a".into()],
            writable_dirs: Vec::new(),
            outputs: vec!["/b/a.o".into()],
        }
    }

    fn requests() -> Vec<Request> {
        vec![
            Request::Setup(Setup {
                mode: Mode::RootBinds,
                base: "/var/lib/x".into(),
                job_user: JobUser::default(),
                niceness: 5,
            }),
            Request::Job(Box::new(job())),
            Request::Kill,
        ]
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Ready,
            Event::Failed {
                step: "mounting `/proc`".to_owned(),
                errno: 13,
            },
            Event::NotExecuted { errno: 2 },
            Event::Started,
            Event::Exited(Status::Exited(4)),
            Event::Exited(Status::Signaled(11)),
            Event::Reaped(Cost {
                user: Duration::from_millis(1),
                system: Duration::from_nanos(3),
                memory_peak_bytes: 1 << 40,
                major_faults: 0,
            }),
        ]
    }

    #[test]
    fn messages_come_back_as_they_went() {
        for request in requests() {
            let frame = request.encode();
            assert_eq!(body_bytes(frame[..4].try_into().unwrap()), Ok(frame.len() - 4));
            assert_eq!(Request::decode(&frame[4..]), Ok(request));
        }
        for event in events() {
            assert_eq!(Event::decode(&event.encode()[4..]), Ok(event));
        }
    }

    #[test]
    fn cut_or_lengthened_messages_are_garbled() {
        for request in requests() {
            let frame = request.encode();
            for end in 4..frame.len() {
                assert_eq!(Request::decode(&frame[4..end]), Err(Garbled));
            }
            assert_eq!(Request::decode(&[&frame[4..], b"x"].concat()), Err(Garbled));
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_garbled() {
        assert_eq!(body_bytes(u32::MAX.to_le_bytes()), Err(Garbled));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::decode(&bytes);
            let _ = Event::decode(&bytes);
        }
    }
}
