//! Turns a [`Command`] into what a launcher is asked, and refuses what no job can be. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::wire::{FRAME_BYTES_MAX, HEADER_BYTES, Job, Program, Request};
use super::{Command, JobLimits, SandboxError};
use crate::worker::cores::CpuList;

/// Bytes for the names of all layers together: they go into one page of mount options, with some others.
const LAYER_NAMES_BYTES_MAX: usize = 3500;

/// More than any trial takes, on a board that swaps.
const TRIAL_TIME: Duration = Duration::from_secs(10);

/// Returns the frame that asks for `command`, with its lower directories named relative to `base`.
pub(super) fn frame(command: &Command, base: &Path) -> Result<Vec<u8>, SandboxError> {
    let layers: Vec<PathBuf> = command
        .lower
        .iter()
        .map(|lower| layer(lower, base))
        .collect::<Result<_, _>>()?;
    let names_bytes: usize = layers
        .iter()
        .map(|layer| layer.as_os_str().len() + ":base/".len())
        .sum();
    if names_bytes > LAYER_NAMES_BYTES_MAX {
        return Err(SandboxError::BadCommand("its lower directories are too many"));
    }
    let paths = [&command.program, &command.cwd];
    let paths = paths
        .into_iter()
        .chain(&command.make_dirs)
        .chain(&command.writable_dirs)
        .chain(&command.outputs);
    if !paths.into_iter().all(|path| is_plain_absolute(path)) {
        return Err(SandboxError::BadCommand(
            "a path in it is not absolute and free of `.` and `..`",
        ));
    }
    if command.argv.is_empty() {
        return Err(SandboxError::BadCommand("its argument vector is empty"));
    }
    let paths = [&command.program, &command.cwd];
    let paths = paths
        .into_iter()
        .chain(&command.make_dirs)
        .chain(&command.writable_dirs)
        .chain(&command.outputs);
    let texts = paths.map(|path| path.as_os_str());
    let texts = texts.chain(command.argv.iter().map(AsRef::as_ref));
    let mut texts = texts.chain(
        command
            .env
            .iter()
            .flat_map(|(name, value)| [name.as_os_str(), value.as_os_str()]),
    );
    if texts.any(has_nul) {
        return Err(SandboxError::BadCommand("it has a NUL byte"));
    }
    let program = Program::Execute(command.program.clone());
    let frame = Request::Job(Box::new(job(command, layers, program))).encode();
    if frame.len() - HEADER_BYTES > FRAME_BYTES_MAX {
        return Err(SandboxError::BadCommand("it is longer than any kernel takes"));
    }
    Ok(frame)
}

/// Returns a job that does nothing, and the frame that asks for it.
pub(super) fn trial() -> (Vec<u8>, Command) {
    let command = Command {
        lower: Vec::new(),
        program: PathBuf::new(),
        argv: Vec::new(),
        env: Vec::new(),
        cwd: "/tmp".into(),
        umask: 0o022,
        terminal: None,
        limits: JobLimits {
            memory_bytes: u64::MAX,
            cpu: TRIAL_TIME,
            wall: TRIAL_TIME,
            processes: 8,
            output_bytes: 1 << 20,
            text_bytes: 0,
        },
        cpus: None,
        make_dirs: Vec::new(),
        writable_dirs: Vec::new(),
        outputs: Vec::new(),
    };
    let job = job(&command, Vec::new(), Program::Nothing);
    (Request::Job(Box::new(job)).encode(), command)
}

fn job(command: &Command, layers: Vec<PathBuf>, program: Program) -> Job {
    let limits = &command.limits;
    Job {
        layers,
        program,
        argv: command.argv.clone(),
        env: command.env.clone(),
        cwd: command.cwd.clone(),
        umask: command.umask,
        memory_bytes: limits.memory_bytes,
        // The kernel counts whole seconds, and takes 0 for a second.
        cpu_seconds: limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0),
        processes: limits.processes,
        output_bytes: limits.output_bytes,
        cpus: command.cpus.iter().flat_map(CpuList::numbers).collect(),
        make_dirs: command.make_dirs.clone(),
        writable_dirs: command.writable_dirs.clone(),
        outputs: command.outputs.clone(),
    }
}

/// Names a lower directory relative to the base. What separates mount options must not be in it.
fn layer(lower: &Path, base: &Path) -> Result<PathBuf, SandboxError> {
    let relative = lower.strip_prefix(base).ok().filter(|rest| {
        let mut components = rest.components().peekable();
        components.peek().is_some() && components.all(|component| matches!(component, Component::Normal(_)))
    });
    let relative = relative.ok_or_else(|| SandboxError::NotBelowBase(lower.to_owned()))?;
    if relative
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b"\\:,\0".contains(byte))
    {
        return Err(SandboxError::BadCommand(
            "a lower directory has `:`, `,` or `\\` in its name",
        ));
    }
    Ok(relative.to_owned())
}

fn is_plain_absolute(path: &Path) -> bool {
    let mut components = path.components();
    components.next() == Some(Component::RootDir)
        && components.all(|component| matches!(component, Component::Normal(_)))
}

fn has_nul(text: &OsStr) -> bool {
    text.as_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command {
            lower: vec!["/state/mirrors/1".into(), "/state/toolchains/2".into()],
            program: "/usr/bin/cc".into(),
            argv: vec!["cc".into(), "a:b,c".into()],
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/home/u:v".into(),
            umask: 0o22,
            terminal: None,
            limits: JobLimits {
                memory_bytes: 1,
                cpu: Duration::from_millis(1500),
                wall: Duration::from_secs(1),
                processes: 1,
                output_bytes: 1,
                text_bytes: 1,
            },
            cpus: None,
            make_dirs: Vec::new(),
            writable_dirs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn asked(command: &Command) -> Result<Job, SandboxError> {
        let frame = frame(command, Path::new("/state"))?;
        match Request::decode(&frame[HEADER_BYTES..]) {
            Ok(Request::Job(job)) => Ok(*job),
            other => panic!("not a job: {other:?}"),
        }
    }

    #[test]
    fn layers_are_named_relative_to_the_base_and_seconds_rounded_up() {
        let job = asked(&command()).unwrap();
        assert_eq!(job.layers, [PathBuf::from("mirrors/1"), "toolchains/2".into()]);
        assert_eq!(job.cpu_seconds, 2);
        assert_eq!(job.argv, command().argv);
    }

    #[test]
    fn what_no_job_can_be_is_refused() {
        let changes: [fn(&mut Command); 11] = [
            |command| command.lower = vec!["/elsewhere/x".into()],
            |command| command.lower = vec!["/state".into()],
            |command| command.lower = vec!["/state/../etc".into()],
            |command| command.lower = vec!["/state/a:b".into()],
            |command| command.lower = vec!["/state/a,upperdir=b".into()],
            |command| command.lower = vec![PathBuf::from("/state").join("x".repeat(200)); 20],
            |command| command.program = "cc".into(),
            |command| command.cwd = "/home/../etc".into(),
            |command| command.make_dirs = vec!["/a\0b".into()],
            |command| command.argv = Vec::new(),
            |command| command.argv.push("\0".into()),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut command = command();
            change(&mut command);
            assert!(asked(&command).is_err(), "change {index}");
        }
    }

    #[test]
    fn a_command_beyond_all_bounds_is_refused_before_it_is_sent() {
        let mut command = command();
        command.argv.push("x".repeat(FRAME_BYTES_MAX).into());
        assert!(matches!(asked(&command), Err(SandboxError::BadCommand(_))));
    }
}
