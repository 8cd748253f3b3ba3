//! Conversion between wire messages and domain values: the wall behind which the wire may be trusted.
//!
//! `*_to_wire` cannot fail; `*_from_wire` checks every length, count and path and names what is wrong. Invariant: a
//! domain value that came through here has absolute, normalised, bounded paths.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::wire;
use crate::digest::{Digest, DigestError};
use crate::ids::{CoreGroupId, GrantId, JobId, ToolchainId};
use crate::job::{Input, InputKind, JobSpec, Limits, Outcome, Refusal, RefusalKind, Status, Terminal, Usage};
use crate::toolchains::definition::Language;
use crate::toolchains::profile::{self, Question, RunAs};

/// Longest path, bytes (`PATH_MAX` of Linux).
pub const PATH_BYTES_MAX: usize = 4096;
/// Most words in an argv. Linux itself allows far fewer bytes than this many words need.
pub const ARGV_WORDS_MAX: usize = 1 << 17;
/// Most inputs of one job: several times the largest closure known (a Chromium unit has some 5,000).
pub const INPUTS_MAX: usize = 200_000;
/// Most variables in a job's environment.
pub const VARIABLES_MAX: usize = 4096;
/// Most bytes in argv and environment together (`MAX_ARG_STRLEN` × 16; Linux's usual total is 2 MiB).
pub const ARGUMENT_BYTES_MAX: usize = 4 << 20;
/// Most paths that a job may name as places to write to, files and directories together.
pub const OUTPUT_PATHS_MAX: usize = 4096;

/// A message that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A part that has to be there is not.
    #[error("message without `{0}`")]
    Missing(&'static str),
    /// A list, string or number beyond its bound.
    #[error("`{what}` has {found}, the bound is {bound}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// What was found.
        found: usize,
        /// What is allowed.
        bound: usize,
    },
    /// A path that is relative, climbs, or holds a NUL.
    #[error("`{what}` is `{path}`, not an absolute path without `.`, `..` and NUL")]
    Path {
        /// Which part.
        what: &'static str,
        /// The path, made printable.
        path: String,
    },
    /// A digest of the wrong length.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Any other value out of range.
    #[error("`{0}` is out of range")]
    Range(&'static str),
}

/// A job on its way to a worker: everything but the inputs themselves, which go by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// The agent's number for the job.
    pub job: JobId,
    /// The place it was given.
    pub grant: GrantId,
    /// Proof of the grant.
    pub token: Vec<u8>,
    /// The job, with [`JobSpec::inputs`] left empty.
    pub spec: JobSpec,
    /// Numbers of its inputs on this link, ascending.
    pub inputs: Vec<u32>,
    /// Whether outputs may come back compressed.
    pub compress: Compress,
    /// Set when the job runs on a variant of its toolchain.
    pub run_as: Option<RunAs>,
    /// The cores of the worker that the grant is for.
    pub cores: CoreGroupId,
}

/// Whether content may travel compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compress {
    /// As zstd where that is shorter.
    Allowed,
    /// As it is: the link is faster than the compressor.
    Never,
}

/// Turns a path into its bytes.
pub fn path_to_wire(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Takes an absolute path without `.`, `..`, doubled slashes, trailing slash or NUL.
pub fn path_from_wire(what: &'static str, bytes: Vec<u8>) -> Result<PathBuf, WireError> {
    bound(what, bytes.len(), PATH_BYTES_MAX)?;
    let normal = bytes.first() == Some(&b'/')
        && !bytes.contains(&0)
        && (bytes.len() == 1
            || bytes[1..]
                .split(|byte| *byte == b'/')
                .all(|part| !matches!(part, b"" | b"." | b"..")));
    if normal {
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    } else {
        Err(WireError::Path {
            what,
            path: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }
}

fn bound(what: &'static str, found: usize, bound: usize) -> Result<(), WireError> {
    if found > bound {
        return Err(WireError::TooLarge { what, found, bound });
    }
    Ok(())
}

/// Takes a toolchain identity.
pub fn toolchain_from_wire(bytes: &[u8]) -> Result<ToolchainId, WireError> {
    Ok(ToolchainId(Digest::from_slice(bytes)?))
}

/// Turns an input into its wire form.
pub fn input_to_wire(input: &Input) -> wire::InputEntry {
    use wire::input_entry::Kind;
    let kind = match &input.kind {
        InputKind::File {
            digest,
            size,
            mode,
            mtime_ns,
        } => Kind::File(wire::FileEntry {
            digest: digest.as_bytes().to_vec(),
            size: *size,
            mode: *mode,
            mtime_ns: *mtime_ns,
        }),
        InputKind::Symlink(target) => Kind::Symlink(target.as_bytes().to_vec()),
        InputKind::Directory => Kind::Directory(wire::DirectoryEntry {}),
        InputKind::Absent => Kind::Absent(wire::AbsentEntry {}),
    };
    wire::InputEntry {
        path: path_to_wire(&input.path),
        kind: Some(kind),
    }
}

/// Takes an input.
pub fn input_from_wire(entry: wire::InputEntry) -> Result<Input, WireError> {
    use wire::input_entry::Kind;
    let kind = match entry.kind.ok_or(WireError::Missing("input kind"))? {
        Kind::File(file) => InputKind::File {
            digest: Digest::from_slice(&file.digest)?,
            size: file.size,
            mode: file.mode & 0o777,
            mtime_ns: file.mtime_ns,
        },
        Kind::Symlink(target) => {
            bound("symlink target", target.len(), PATH_BYTES_MAX)?;
            if target.is_empty() || target.contains(&0) {
                return Err(WireError::Range("symlink target"));
            }
            InputKind::Symlink(OsString::from_vec(target))
        }
        Kind::Directory(_) => InputKind::Directory,
        Kind::Absent(_) => InputKind::Absent,
    };
    Ok(Input {
        path: path_from_wire("input path", entry.path)?,
        kind,
    })
}

/// Writes ascending numbers as differences, which are mostly one byte each on the wire.
pub fn numbers_to_wire(numbers: &[u32]) -> Vec<u32> {
    let mut before = 0;
    numbers
        .iter()
        .map(|number| {
            let step = number - before;
            before = *number;
            step
        })
        .collect()
}

/// Takes ascending numbers, each below `limit` and none twice.
pub fn numbers_from_wire(steps: &[u32], limit: u32) -> Result<Vec<u32>, WireError> {
    bound("input numbers", steps.len(), INPUTS_MAX)?;
    let mut before: Option<u32> = None;
    steps
        .iter()
        .map(|step| {
            let number = before.unwrap_or(0).checked_add(*step);
            let number = number.filter(|number| *number < limit && Some(*number) != before);
            before = number;
            number.ok_or(WireError::Range("input number"))
        })
        .collect()
}

/// Turns a job into its wire form.
pub fn run_to_wire(run: &RunRequest) -> wire::Run {
    let spec = &run.spec;
    let limit_ms = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_millis() as u64);
    wire::Run {
        job: run.job.0,
        grant: run.grant.0,
        token: run.token.clone(),
        toolchain: spec.toolchain.0.as_bytes().to_vec(),
        program: path_to_wire(&spec.program),
        argv: spec.argv.iter().map(|word| word.as_bytes().to_vec()).collect(),
        cwd: path_to_wire(&spec.cwd),
        env: spec
            .env
            .iter()
            .map(|(name, value)| wire::Variable {
                name: name.as_bytes().to_vec(),
                value: value.as_bytes().to_vec(),
            })
            .collect(),
        inputs: numbers_to_wire(&run.inputs),
        umask: spec.umask,
        terminal: spec.terminal.map(|terminal| wire::TerminalSize {
            columns: terminal.columns.into(),
            rows: terminal.rows.into(),
        }),
        dependency_file: spec.dependency_file.as_deref().map(path_to_wire).unwrap_or_default(),
        outputs: spec.outputs.iter().map(|path| path_to_wire(path)).collect(),
        output_dirs: spec.output_dirs.iter().map(|path| path_to_wire(path)).collect(),
        limits: Some(wire::JobLimits {
            memory_bytes: spec.limits.memory_bytes.unwrap_or(0),
            cpu_ms: limit_ms(spec.limits.cpu),
            wall_ms: limit_ms(spec.limits.wall),
            processes: spec.limits.processes.unwrap_or(0),
            output_bytes: spec.limits.output_bytes.unwrap_or(0),
        }),
        compress: run.compress == Compress::Allowed,
        as_variant: run.run_as.as_ref().map(run_as_to_wire),
        cores: run.cores.0.into(),
    }
}

fn run_as_to_wire(run_as: &RunAs) -> wire::AsVariant {
    let question = &run_as.question;
    wire::AsVariant {
        toolchain: run_as.toolchain.0.as_bytes().to_vec(),
        driver: question.driver.as_str().to_owned(),
        language: question.language.clone(),
        words: question.words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        profile: run_as.profile.as_bytes().to_vec(),
    }
}

fn run_as_from_wire(as_variant: wire::AsVariant) -> Result<RunAs, WireError> {
    bound("flags", as_variant.words.len(), profile::WORDS_MAX)?;
    bound("flags", as_variant.words.iter().map(Vec::len).sum(), ARGUMENT_BYTES_MAX)?;
    let drivers = Language::ALL.into_iter();
    let driver = drivers.into_iter().find(|driver| driver.as_str() == as_variant.driver);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+');
    let language = as_variant.language;
    if language.is_empty() || language.len() > 32 || !language.bytes().all(plain) {
        return Err(WireError::Range("language"));
    }
    if as_variant.words.iter().any(|word| word.contains(&0)) {
        return Err(WireError::Range("flags"));
    }
    Ok(RunAs {
        toolchain: toolchain_from_wire(&as_variant.toolchain)?,
        question: Question {
            driver: driver.ok_or(WireError::Range("driver"))?,
            language,
            words: as_variant.words.into_iter().map(OsString::from_vec).collect(),
        },
        profile: Digest::from_slice(&as_variant.profile)?,
    })
}

/// Takes a job. `defined` is how many inputs the link has numbered so far.
pub fn run_from_wire(run: wire::Run, defined: u32) -> Result<RunRequest, WireError> {
    bound("argv", run.argv.len(), ARGV_WORDS_MAX)?;
    bound("environment", run.env.len(), VARIABLES_MAX)?;
    let argument_bytes = run.argv.iter().map(Vec::len).sum::<usize>()
        + run.env.iter().map(|v| v.name.len() + v.value.len()).sum::<usize>();
    bound("argv and environment", argument_bytes, ARGUMENT_BYTES_MAX)?;
    let without_nul = run.argv.iter().all(|word| !word.contains(&0))
        && run.env.iter().all(|variable| {
            let name = &variable.name;
            !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !variable.value.contains(&0)
        });
    if !without_nul || run.argv.is_empty() {
        return Err(WireError::Range("argv or environment"));
    }
    let terminal = run.terminal.map(|size| Terminal {
        columns: size.columns.try_into().unwrap_or(u16::MAX),
        rows: size.rows.try_into().unwrap_or(u16::MAX),
    });
    let dependency_file = match run.dependency_file {
        path if path.is_empty() => None,
        path => Some(path_from_wire("dependency file", path)?),
    };
    bound("outputs", run.outputs.len() + run.output_dirs.len(), OUTPUT_PATHS_MAX)?;
    Ok(RunRequest {
        job: JobId(run.job),
        grant: GrantId(run.grant),
        token: run.token,
        spec: JobSpec {
            toolchain: toolchain_from_wire(&run.toolchain)?,
            program: path_from_wire("program", run.program)?,
            argv: run.argv.into_iter().map(OsString::from_vec).collect(),
            cwd: path_from_wire("working directory", run.cwd)?,
            env: run
                .env
                .into_iter()
                .map(|v| (OsString::from_vec(v.name), OsString::from_vec(v.value)))
                .collect(),
            inputs: Vec::new(),
            umask: run.umask & 0o777,
            terminal,
            dependency_file,
            outputs: outputs_from_wire(run.outputs)?,
            output_dirs: outputs_from_wire(run.output_dirs)?,
            limits: limits_from_wire(run.limits.unwrap_or_default()),
        },
        inputs: numbers_from_wire(&run.inputs, defined)?,
        run_as: run.as_variant.map(run_as_from_wire).transpose()?,
        cores: core_group_from_wire(run.cores),
        compress: if run.compress {
            Compress::Allowed
        } else {
            Compress::Never
        },
    })
}

/// Takes the number of a group of cores. One that there cannot be is as good as any that the worker does not have.
pub fn core_group_from_wire(number: u32) -> CoreGroupId {
    CoreGroupId(u8::try_from(number).unwrap_or(u8::MAX))
}

fn outputs_from_wire(paths: Vec<Vec<u8>>) -> Result<Vec<PathBuf>, WireError> {
    paths.into_iter().map(|path| path_from_wire("output", path)).collect()
}

fn limits_from_wire(limits: wire::JobLimits) -> Limits {
    let some = |number: u64| (number != 0).then_some(number);
    Limits {
        memory_bytes: some(limits.memory_bytes),
        cpu: some(limits.cpu_ms).map(Duration::from_millis),
        wall: some(limits.wall_ms).map(Duration::from_millis),
        processes: (limits.processes != 0).then_some(limits.processes),
        output_bytes: some(limits.output_bytes),
    }
}

/// Turns the compiler's answer into its wire form, without the outputs, which travel in pieces before it.
pub fn done_to_wire(job: JobId, outcome: &Outcome) -> wire::JobDone {
    let (exit_status, signal) = match outcome.status {
        Status::Exited(status) => (status, 0),
        Status::Signaled(signal) => (0, signal),
    };
    let micros = |time: Duration| time.as_micros() as u64;
    wire::JobDone {
        job: job.0,
        exit_status: exit_status.into(),
        signal: signal.into(),
        stdout: outcome.stdout.clone(),
        stderr: outcome.stderr.clone(),
        has_dependencies: outcome.dependencies.is_some(),
        dependencies: outcome.dependencies.clone().unwrap_or_default(),
        user_us: micros(outcome.usage.user),
        system_us: micros(outcome.usage.system),
        wall_us: micros(outcome.usage.wall),
        memory_peak_bytes: outcome.usage.memory_peak_bytes,
        major_faults: outcome.usage.major_faults,
    }
}

/// Takes the compiler's answer; [`Outcome::outputs`] is left empty.
pub fn done_from_wire(done: wire::JobDone) -> Result<(JobId, Outcome), WireError> {
    let small = |what, number: u32| u8::try_from(number).map_err(|_| WireError::Range(what));
    let status = match done.signal {
        0 => Status::Exited(small("exit status", done.exit_status)?),
        signal => Status::Signaled(small("signal", signal)?),
    };
    let outcome = Outcome {
        status,
        stdout: done.stdout,
        stderr: done.stderr,
        outputs: Vec::new(),
        dependencies: done.has_dependencies.then_some(done.dependencies),
        usage: Usage {
            user: Duration::from_micros(done.user_us),
            system: Duration::from_micros(done.system_us),
            wall: Duration::from_micros(done.wall_us),
            memory_peak_bytes: done.memory_peak_bytes,
            major_faults: done.major_faults,
        },
    };
    Ok((JobId(done.job), outcome))
}

/// Turns a class of refusal into its wire form.
pub fn refusal_kind_to_wire(kind: RefusalKind) -> i32 {
    let kind = match kind {
        RefusalKind::Unsupported => wire::RefusalKind::Unsupported,
        RefusalKind::NoToolchain => wire::RefusalKind::NoToolchain,
        RefusalKind::Busy => wire::RefusalKind::Busy,
        RefusalKind::Fault => wire::RefusalKind::Fault,
        RefusalKind::Limit => wire::RefusalKind::Limit,
        RefusalKind::Changed => wire::RefusalKind::Changed,
        RefusalKind::ReadOnly => wire::RefusalKind::ReadOnly,
        RefusalKind::Uncertified => wire::RefusalKind::Uncertified,
        RefusalKind::Unlike => wire::RefusalKind::Unlike,
    };
    kind.into()
}

/// Takes a refusal. A class that this build does not know counts as [`RefusalKind::Unsupported`]: it must not make a
/// healthy worker look broken.
pub fn refusal_from_wire(kind: i32, message: String) -> Refusal {
    let kind = match wire::RefusalKind::try_from(kind) {
        Ok(wire::RefusalKind::NoToolchain) => RefusalKind::NoToolchain,
        Ok(wire::RefusalKind::Busy) => RefusalKind::Busy,
        Ok(wire::RefusalKind::Fault) => RefusalKind::Fault,
        Ok(wire::RefusalKind::Limit) => RefusalKind::Limit,
        Ok(wire::RefusalKind::Changed) => RefusalKind::Changed,
        Ok(wire::RefusalKind::ReadOnly) => RefusalKind::ReadOnly,
        Ok(wire::RefusalKind::Uncertified) => RefusalKind::Uncertified,
        Ok(wire::RefusalKind::Unlike) => RefusalKind::Unlike,
        Ok(wire::RefusalKind::Unsupported | wire::RefusalKind::Unspecified) | Err(_) => RefusalKind::Unsupported,
    };
    Refusal { kind, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunRequest {
        RunRequest {
            job: JobId(3),
            grant: GrantId(4),
            token: vec![1; 32],
            spec: JobSpec {
                toolchain: ToolchainId(Digest::of(b"toolchain")),
                program: "/usr/bin/gcc".into(),
                argv: vec!["gcc".into(), OsString::from_vec(vec![0xff, b'x'])],
                cwd: "/src".into(),
                env: vec![("LANG".into(), "C".into())],
                inputs: Vec::new(),
                umask: 0o22,
                terminal: Some(Terminal { columns: 80, rows: 24 }),
                dependency_file: Some("/src/a.d".into()),
                outputs: vec!["/out/a.o".into()],
                output_dirs: vec!["/out".into(), "/src".into()],
                limits: Limits {
                    wall: Some(Duration::from_secs(3)),
                    ..Limits::default()
                },
            },
            inputs: vec![0, 1, 5, 900],
            compress: Compress::Allowed,
            run_as: None,
            cores: CoreGroupId(1),
        }
    }

    #[test]
    fn run_survives_the_wire() {
        assert_eq!(run_from_wire(run_to_wire(&run()), 901), Ok(run()));
    }

    #[test]
    fn run_on_a_variant_survives_the_wire_and_is_checked() {
        let mut run = run();
        run.run_as = Some(RunAs {
            toolchain: ToolchainId(Digest::of(b"variant")),
            question: Question {
                driver: Language::Cxx,
                language: "c++".into(),
                words: vec!["-O2".into(), OsString::from_vec(vec![b'-', 0xff])],
            },
            profile: Digest::of(b"profile"),
        });
        let sent = run_to_wire(&run);
        assert_eq!(run_from_wire(sent.clone(), 901), Ok(run));
        for spoil in [
            (|variant| variant.driver = "ada".into()) as fn(&mut wire::AsVariant),
            |variant| variant.language = "c /etc/passwd".into(),
            |variant| variant.language.clear(),
            |variant| variant.words = vec![vec![0]],
            |variant| variant.words = vec![Vec::new(); profile::WORDS_MAX + 1],
            |variant| variant.profile.truncate(31),
            |variant| variant.toolchain.clear(),
        ] {
            let mut spoilt = sent.clone();
            spoil(spoilt.as_variant.as_mut().expect("there"));
            assert!(run_from_wire(spoilt, 901).is_err());
        }
    }

    #[test]
    fn input_numbers_beyond_the_defined_or_repeated_are_refused() {
        assert!(run_from_wire(run_to_wire(&run()), 900).is_err());
        assert!(numbers_from_wire(&[1, 0], 10).is_err());
        assert!(numbers_from_wire(&[1, u32::MAX], 10).is_err());
        assert_eq!(numbers_from_wire(&[0, 1], 10), Ok(vec![0, 1]));
    }

    #[test]
    fn paths_that_climb_or_are_relative_are_refused() {
        for path in ["", "a", "/a/../b", "/a/./b", "/a//b", "/a/", "/a\0"] {
            assert!(path_from_wire("path", path.into()).is_err(), "{path:?}");
        }
        for path in ["/", "/a", "/a/b c", "/a/..b"] {
            assert!(path_from_wire("path", path.into()).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn inputs_of_every_kind_survive_the_wire() {
        let kinds = [
            InputKind::File {
                digest: Digest::of(b"x"),
                size: 1,
                mode: 0o644,
                mtime_ns: -5,
            },
            InputKind::Symlink("../x".into()),
            InputKind::Directory,
            InputKind::Absent,
        ];
        for kind in kinds {
            let input = Input {
                path: "/a b/c".into(),
                kind,
            };
            assert_eq!(input_from_wire(input_to_wire(&input)), Ok(input));
        }
    }

    #[test]
    fn kinds_of_refusal_survive_the_wire() {
        use RefusalKind::*;
        let unfit = [Uncertified, Unlike];
        for kind in [Unsupported, NoToolchain, Busy, Fault, Limit, Changed, ReadOnly]
            .into_iter()
            .chain(unfit)
        {
            assert_eq!(refusal_from_wire(refusal_kind_to_wire(kind), String::new()).kind, kind);
        }
    }

    #[test]
    fn unknown_refusals_do_not_blame_the_worker() {
        assert_eq!(refusal_from_wire(99, String::new()).kind, RefusalKind::Unsupported);
    }
}
