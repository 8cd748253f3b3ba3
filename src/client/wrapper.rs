//! One compile, from argv to the exit status.
//!
//! Either the command is certainly not for the farm: a line in the journal, and the real compiler takes over. Or the agent
//! is asked, and its answer is passed on byte for byte, or the real compiler takes over after all. When the agent is
//! not to be had, the compiler runs here, unless the user forbade that. Prints nothing of its own but errors that end the
//! command. Invariant: once a reply is `Finished`, the compiler is not run again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::compiler_name::{Kind, kind_of};
use super::find;
use super::invocation::{Command, Named};
use super::link::{self, LinkError, WhenAbsent};
use super::local::become_compiler;
use super::surroundings::{self, Environment};
use crate::compile::{self, LocalReason};
use crate::exchange::place;
use crate::exchange::{
    CompileRequest, Compiler, Complaint, Connection, DEPTH, Driver, Finished, LocalRun, Reply, Request, Wish, journal,
};
use crate::job::{Status, Terminal};
use crate::runtime::clock::unix_ms;

/// What is counted when no agent could be asked.
const NO_AGENT: &str = "no_agent";

/// Runs `command` and returns the exit status; does not return when the compiler takes this process over.
pub fn run(command: Command, env: Environment) -> u8 {
    match attempt(command, env) {
        Ok(status) => status,
        Err((complaint, status)) => {
            eprint!("{complaint}");
            status
        }
    }
}

type Ending = Result<u8, (Complaint, u8)>;

fn attempt(command: Command, env: Environment) -> Ending {
    let Ok(cwd) = surroundings::working_directory(&env) else {
        // The directory is gone; the compiler will have its own words for that.
        let here = known_compiler(&command, &env, Path::new("."), None)?;
        let known = here.ok_or_else(|| (Complaint::new("the working directory is gone"), 1))?;
        return run_here(&known, &command.args);
    };
    let state_dir = surroundings::state_dir(&env, &cwd);
    let known = known_compiler(&command, &env, &cwd, state_dir.as_deref())?;
    let job = Job {
        known,
        state_dir,
        command,
        env,
        cwd,
    };
    if let Some(known) = &job.known {
        if job.command.wish == Wish::Here {
            return run_here(known, &job.command.args);
        }
        if let Some(reason) = job.certainly_local() {
            if reason == LocalReason::Link
                && let Some(ending) = job.ask_for_room()
            {
                return ending;
            }
            job.note(reason.name());
            return run_here(known, &job.command.args);
        }
    }
    job.ask_agent()
}

fn run_here(known: &Known, args: &[OsString]) -> Ending {
    Err(become_compiler(&known.path, &known.argv0, &[args]))
}

/// A compiler whose path is known here.
struct Known {
    path: PathBuf,
    argv0: OsString,
}

/// Finds the compiler as far as that is possible without the agent.
fn known_compiler(
    command: &Command,
    env: &Environment,
    cwd: &Path,
    state_dir: Option<&Path>,
) -> Result<Option<Known>, (Complaint, u8)> {
    let path = env.get("PATH");
    let (word, found) = match &command.compiler {
        Named::Explicitly(word) => (word, find::compiler(word, path, cwd)),
        Named::ByOwnName(word) => (word, find::namesake(word, path, cwd)),
        Named::ByToolchain(driver) => {
            let (Some(state_dir), Some(toolchain)) = (state_dir, &command.toolchain) else {
                return Ok(None);
            };
            let place = surroundings::place(env, state_dir.to_owned());
            let path = std::fs::read_link(place.compiler_link(toolchain, *driver)).ok();
            return Ok(path.map(|path| Known {
                argv0: path.clone().into(),
                path,
            }));
        }
    };
    match found {
        Some(found) => Ok(Some(Known {
            path: found.path,
            argv0: found.argv0,
        })),
        None => {
            let complaint = Complaint::new(format!("no compiler `{}` found", word.to_string_lossy()))
                .because("nothing of that name on PATH but rdcc, or nothing at all")
                .hint("give the compiler's full path, or put its directory on PATH");
            Err((complaint, 127))
        }
    }
}

struct Job {
    command: Command,
    known: Option<Known>,
    env: Environment,
    cwd: PathBuf,
    state_dir: Option<PathBuf>,
}

impl Job {
    /// Returns the reason why the command runs here, when its words alone tell.
    fn certainly_local(&self) -> Option<LocalReason> {
        let driver = match &self.command.compiler {
            Named::ByToolchain(Driver::C) => compile::Driver::C,
            Named::ByToolchain(Driver::Cxx) => compile::Driver::Cxx,
            Named::Explicitly(word) | Named::ByOwnName(word) => match kind_of(word) {
                Some(Kind::Cxx) => compile::Driver::Cxx,
                Some(Kind::Preprocessor) => return Some(LocalReason::PreprocessOnly),
                Some(Kind::Other) => return Some(LocalReason::UnsupportedLanguage),
                Some(Kind::C) | None => compile::Driver::C,
            },
        };
        compile::quick_local(&self.command.args, driver)
    }

    /// Lets an agent that runs say when a link may start, so that many of them do not fill the memory; `None` when none
    /// does. Tests of build systems are small, and come one after the other.
    fn ask_for_room(&self) -> Option<Ending> {
        let nested = self.env.get(DEPTH).is_some();
        if nested || self.command.args.iter().any(|word| compile::is_probe(word)) {
            return None;
        }
        let place = surroundings::place(&self.env, self.state_dir.clone()?);
        match link::ask(&place, &Request::Compile(self.request()), WhenAbsent::GiveUp) {
            Ok((Reply::RunLocally(run), stream)) => Some(self.run_as_told(&run, stream)),
            _ => None,
        }
    }

    fn ask_agent(&self) -> Ending {
        let Some(state_dir) = &self.state_dir else {
            return self.without_agent(&Complaint::new("there is no directory for rdcc's state"));
        };
        let place = surroundings::place(&self.env, state_dir.clone());
        match link::ask(&place, &Request::Compile(self.request()), WhenAbsent::Start) {
            Ok((Reply::Finished(finished), _)) => Ok(pass_on(&finished)),
            Ok((Reply::RunLocally(run), stream)) => self.run_as_told(&run, stream),
            Ok((Reply::Failed(complaint), _)) => Err((complaint, 1)),
            Ok(_) => self.without_agent(&Complaint::from_error(&LinkError::Vanished)),
            Err(error) => self.without_agent(&Complaint::from_error(&error)),
        }
    }

    fn request(&self) -> CompileRequest {
        let (compiler, argv0) = match (&self.command.compiler, &self.known) {
            (Named::ByToolchain(driver), _) => (Compiler::OfToolchain(*driver), OsString::new()),
            (_, Some(known)) => (Compiler::At(known.path.clone()), known.argv0.clone()),
            // A compiler that was named is known, or we would not be here.
            (_, None) => (Compiler::OfToolchain(Driver::C), OsString::new()),
        };
        let mut argv = Vec::with_capacity(self.command.args.len() + 1);
        argv.push(argv0);
        argv.extend_from_slice(&self.command.args);
        CompileRequest {
            toolchain: self.command.toolchain.clone(),
            compiler,
            argv,
            cwd: self.cwd.clone(),
            env: self.env.0.clone(),
            umask: umask(),
            terminal: terminal(),
            wish: self.command.wish,
            worker: None,
        }
    }

    fn run_as_told(&self, run: &LocalRun, stream: UnixStream) -> Ending {
        match run.connection {
            Connection::Close => drop(stream),
            Connection::Inherit => {
                // Left open on purpose, for as long as the compiler and its children live. Were it to fail, the agent
                // would take the slot for free too early.
                let _ = rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::empty());
                std::mem::forget(stream);
            }
        }
        if run.niceness != 0 {
            // Refused or not, it compiles.
            let _ = rustix::process::nice(run.niceness.into());
        }
        let argv0 = match (&self.command.compiler, &self.known) {
            (Named::ByToolchain(_), _) | (_, None) => run.program.as_os_str(),
            (_, Some(known)) => &known.argv0,
        };
        Err(become_compiler(&run.program, argv0, &[&run.flags, &self.command.args]))
    }

    /// Runs the compiler here for want of an agent, or refuses to.
    fn without_agent(&self, why: &Complaint) -> Ending {
        if self.command.wish == Wish::NoFallback {
            let complaint = because(Complaint::new("this compile cannot be distributed"), why)
                .hint("strict mode forbids to run it here; unset RDCC_STRICT to allow that");
            return Err((complaint, 1));
        }
        let Some(known) = &self.known else {
            let toolchain = self.command.toolchain.as_ref().map_or("", |name| name.as_str());
            let unknown = Complaint::new(format!("the compiler of toolchain `{toolchain}` is not known"));
            let hint = "name the compiler, as in `rdcc --toolchain NAME arm-linux-gnueabi-gcc`";
            return Err((because(unknown, why).hint(hint), 1));
        };
        self.note(NO_AGENT);
        run_here(known, &self.command.args)
    }

    /// Leaves a line in the journal. A journal that cannot be written is no reason to fail a build.
    fn note(&self, reason: &str) {
        let Some(state_dir) = &self.state_dir else { return };
        let line = journal::line(
            unix_ms(),
            reason,
            self.command.toolchain.as_ref().map_or("", |name| name.as_str()),
            self.cwd.as_os_str(),
            journal::output_of(&self.command.args),
        );
        let _ = append(&place::journal(state_dir), line.as_bytes());
    }
}

fn because(mut complaint: Complaint, why: &Complaint) -> Complaint {
    complaint.causes.push(why.error.clone());
    complaint.causes.extend(why.causes.iter().cloned());
    complaint
}

fn append(journal: &Path, line: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o600);
    let mut file = match options.open(journal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(dir) = journal.parent() {
                std::fs::create_dir_all(dir)?;
            }
            options.open(journal)?
        }
        opened => opened?,
    };
    file.write_all(line)?;
    if file.metadata()?.len() > journal::FILE_BYTES_MAX {
        // Nobody has read it for a long time. The one before is lost then.
        std::fs::rename(journal, journal.with_extension("old"))?;
    }
    Ok(())
}

/// Prints what the compiler printed, and returns its status or ends as it did.
fn pass_on(finished: &Finished) -> u8 {
    let printed = print(io::stdout().lock(), &finished.stdout);
    let warned = print(io::stderr().lock(), &finished.stderr);
    // Nobody listens: the compiler would have been killed by that. A full disk below its messages is nothing to it.
    let is_cut_off = warned.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    match finished.status {
        Status::Exited(0) if printed.is_err() || is_cut_off => 1,
        Status::Exited(status) => status,
        Status::Signaled(number) => {
            if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
                // Its core, if there was one, is not ours.
                let none = rustix::process::Rlimit {
                    current: Some(0),
                    maximum: Some(0),
                };
                let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
                // Twice: at the first SIGSEGV or SIGBUS, Rust's runtime only takes its own handler away.
                for _ in 0..2 {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
                }
            }
            // A signal that does not end us: as a shell would report it.
            128_u8.saturating_add(number)
        }
    }
}

fn print(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    to.write_all(bytes)?;
    to.flush()
}

fn umask() -> u32 {
    // It can only be read by setting it.
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    mask.bits()
}

fn terminal() -> Option<Terminal> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    Some(Terminal {
        columns: size.ws_col,
        rows: size.ws_row,
    })
}

/// Tells whether a word is a program here; see [`super::invocation::Lookup`].
#[derive(Debug)]
pub struct Here<'a>(pub &'a Environment);

impl super::invocation::Lookup for Here<'_> {
    fn is_program(&self, word: &OsStr) -> bool {
        // Where the directory is gone there are no files to confuse a program with.
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        find::is_program(word, self.0.get("PATH"), &cwd)
    }
}
