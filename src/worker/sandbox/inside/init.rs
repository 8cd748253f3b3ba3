//! A job's first process: builds the root, starts the program, waits for it. Its end is the end of everything in the
//! job's process name space, so it ends as soon as the program has.
//!
//! Invariant: the program starts with no capability, no descriptor but 0, 1 and 2, no signal blocked or ignored, and
//! under all its limits.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode as Bits, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets, CpuSet};

use super::super::channel::send_all;
use super::super::filter::{self, Instruction};
use super::super::landlock;
use super::super::wire::{Event, Job, Program};
use super::calls::{self, Signals, Strings};
use super::enter::{ProcessCount, Template, become_user};
use super::{At, Failure, check, root};

/// Bound on processes where the kernel counts the whole node: far above what the node's slots need together, far below
/// what a fork bomb wants.
const NODE_PROCESSES_MAX: u64 = 4096;

/// Processes that the kernel counts with a job's own: the launcher and this one.
const OUR_PROCESSES: u64 = 2;

/// Between the signal that a driver reports and the one that cannot be ignored.
const CPU_GRACE_SECONDS: u64 = 5;

/// The usual stack, which gcc's driver raises for itself.
const STACK_BYTES: u64 = 8 << 20;

/// Open files: the usual bound, so that a job meets what it would meet at home.
const FILES_MAX: u64 = 1024;

/// In case of need the kernel takes a job before anything else of the node.
const OOM_SCORE: &[u8] = b"500";

/// Why a program did not start.
enum Trouble {
    Step(Failure),
    Execute(Errno),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Step(failure)
    }
}

/// Lives as the first process of a job, in its new name spaces, and ends with it.
pub(super) fn live(template: &mut Template, job: &Job, output: [OwnedFd; 2], socket: BorrowedFd<'_>) -> ! {
    // A panic must not unwind into the launcher's code, of which this process is a copy.
    let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(template, job, output, socket)));
    let trouble = match lived {
        Ok(Ok(())) => None,
        Ok(Err(Trouble::Step(failure))) => Some(failure.event()),
        Ok(Err(Trouble::Execute(error))) => Some(Event::NotExecuted {
            errno: error.raw_os_error(),
        }),
        Err(_) => Some(
            Failure {
                step: "a fault of rdcc's own".to_owned(),
                error: Errno::FAULT,
            }
            .event(),
        ),
    };
    if let Some(event) = trouble {
        send_all(socket, &event.encode(), &[]).ok();
    }
    exit(0)
}

#[expect(unsafe_code, reason = "the safe exit runs handlers that belong to the launcher")]
fn exit(status: i32) -> ! {
    // SAFETY: ends this process and touches nothing.
    unsafe { libc::_exit(status) }
}

fn run(template: &mut Template, job: &Job, output: [OwnedFd; 2], socket: BorrowedFd<'_>) -> Result<(), Trouble> {
    follow_launcher(template)?;
    // Through the launcher's /proc, while it is in sight and lets us: before we hide ourselves from the job.
    let score = rustix::fs::open(
        "/proc/self/oom_score_adj",
        OFlags::WRONLY | OFlags::CLOEXEC,
        Bits::empty(),
    );
    score.and_then(|file| rustix::io::write(&file, OOM_SCORE)).ok();
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at("hiding from the job")?;
    let written = root::build(template, job)?;
    let program = spawn(template, job, &output)?;
    drop(output);
    send_all(socket, &Event::Started.encode(), &[written.as_fd()]).at("answering the worker")?;
    drop(written);
    loop {
        match calls::wait(None, 0).at("waiting for the program")? {
            Some((ended, status, _)) if ended == program => {
                return Ok(send_all(socket, &Event::Exited(status).encode(), &[]).at("answering the worker")?);
            }
            // An orphan of the job.
            _ => {}
        }
    }
}

/// Arranges to die with the launcher, and makes sure that it has not died before that.
fn follow_launcher(template: &mut Template) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at("following the launcher")?;
    template.lifeline.held = None;
    let mut watched = [PollFd::new(&template.lifeline.watched, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut watched, Some(&now)).at("following the launcher")? {
        0 => Ok(()),
        _ => exit(1),
    }
}

/// Starts the program and returns when it is executing.
fn spawn(template: &Template, job: &Job, output: &[OwnedFd; 2]) -> Result<Pid, Trouble> {
    let text = |text: OsString| {
        CString::new(text.into_vec())
            .map_err(|_| Errno::INVAL)
            .at("taking the command")
    };
    let argv = job.argv.iter().cloned().map(text).collect::<Result<_, _>>()?;
    let variable = |(name, value): &(OsString, OsString)| {
        let mut variable = name.clone();
        variable.push("=");
        variable.push(value);
        text(variable)
    };
    let env = job.env.iter().map(variable).collect::<Result<_, _>>()?;
    let path = |path: &PathBuf| text(path.clone().into_os_string());
    let (argv, env, cwd) = (Strings::new(argv), Strings::new(env), path(&job.cwd)?);
    let program = match &job.program {
        Program::Execute(program) => Some(path(program)?),
        Program::SelfCheck | Program::Nothing => None,
    };
    let filter = filter::program();
    let mut trouble = None;
    let mut begin = || {
        let begun = become_job(template, job, output, &cwd, &filter).map_err(Trouble::from);
        let ended = begun.and_then(|()| match &program {
            Some(program) => Err(Trouble::Execute(calls::execute(program, &argv, &env))),
            None if job.program == Program::SelfCheck => check::look_around(template.mode).map_err(Trouble::from),
            None => Ok(()),
        });
        trouble = ended.err();
        i32::from(trouble.is_some())
    };
    let child = calls::spawn_sharing_memory(&mut begin).at("forking the program")?;
    match trouble {
        Some(trouble) => Err(trouble),
        None => Ok(child),
    }
}

/// Turns a child of the first process into what the program is to find itself as.
fn become_job(
    template: &Template,
    job: &Job,
    output: &[OwnedFd; 2],
    cwd: &CString,
    filter: &[Instruction],
) -> Result<(), Failure> {
    rustix::process::setsid().at("starting a session")?;
    calls::put(&template.null, 0).at("setting up standard input")?;
    calls::put(&output[0], 1).at("setting up standard output")?;
    calls::put(&output[1], 2).at("setting up standard error")?;
    set_limits(template.process_count, job)?;
    keep_on(&job.cpus);
    if let Some(user) = template.job_user {
        become_user(user).at("becoming the job's user")?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).at("giving up capabilities")?;
    rustix::process::umask(Bits::from_raw_mode(job.umask & 0o777));
    rustix::process::chdir(cwd.as_c_str()).at("entering the working directory")?;
    calls::set_signals(Signals::Open);
    landlock::confine(template.landlock, c"/").at("tying to the root")?;
    calls::filter_calls(filter).at("filtering system calls")
}

/// Keeps the calling process on some processors. When these were switched off meanwhile, it runs on what there is.
fn keep_on(cpus: &[u16]) {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(usize::from(*cpu)));
    if !cpus.is_empty() {
        rustix::thread::sched_setaffinity(None, &set).ok();
    }
}

fn set_limits(count: ProcessCount, job: &Job) -> Result<(), Failure> {
    let processes = match count {
        ProcessCount::OwnSpace => u64::from(job.processes) + OUR_PROCESSES,
        ProcessCount::WholeNode => NODE_PROCESSES_MAX,
    };
    let limits = [
        (Resource::As, job.memory_bytes, job.memory_bytes),
        (
            Resource::Cpu,
            job.cpu_seconds,
            job.cpu_seconds.saturating_add(CPU_GRACE_SECONDS),
        ),
        (Resource::Nproc, processes, processes),
        (Resource::Fsize, job.output_bytes, job.output_bytes),
        (Resource::Nofile, FILES_MAX, FILES_MAX),
        (Resource::Stack, STACK_BYTES, u64::MAX),
        (Resource::Core, 0, 0),
        (Resource::Memlock, 0, 0),
        (Resource::Msgqueue, 0, 0),
    ];
    for (resource, current, maximum) in limits {
        // Above what this process was given itself there is nothing to give.
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit {
            current: bound(current.min(most)),
            maximum: bound(maximum.min(most)),
        };
        rustix::process::setrlimit(resource, limit).at(format!("limiting {resource:?}"))?;
    }
    Ok(())
}

/// The kernel's word for no bound is the largest number.
fn bound(number: u64) -> Option<u64> {
    (number != u64::MAX).then_some(number)
}
