//! The wrapper as make runs it: the real binary, a compiler that is a shell script, and an agent that is played.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use rdcc::client::surroundings::{self, Environment};
use rdcc::exchange::frame::{HEADER_BYTES, Header};
use rdcc::exchange::place::{self, Place};
use rdcc::exchange::{
    CompileRequest, Compiler, Complaint, Connection, Driver, Finished, LocalRun, Reply, Request, Wish, codec,
};
use rdcc::job::Status;
use rdcc::runtime::unix_socket;

use crate::support::{hear_interrupts, write_program};

mod agent;

/// A directory with a compiler in `bin`, rdcc's state, and nothing else.
struct Stage {
    dir: tempfile::TempDir,
}

/// Prints its words, one per line, says something on stderr, and fails.
const COMPILER: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\"\necho words >&2\nexit 3\n";

impl Stage {
    fn new() -> Self {
        let stage = Self {
            dir: tempfile::tempdir().expect("a directory"),
        };
        std::fs::create_dir(stage.path("bin")).expect("created");
        stage.program("bin/gcc", COMPILER);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        write_program(&self.path(name), script);
    }

    fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    fn place(&self) -> Place {
        surroundings::place(&Environment(Vec::new()), self.state_dir())
    }

    fn listen(&self) -> UnixListener {
        std::fs::create_dir_all(self.place().own_dir()).expect("created");
        unix_socket::listen(&self.place().socket()).expect("listens")
    }

    /// `program words…` in the stage's directory, with nothing of our environment.
    fn command_of(&self, program: &Path, words: &str) -> Command {
        let mut command = Command::new(program);
        command
            .args(words.split(' ').filter(|word| !word.is_empty()))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("RDCC_STATE_DIR", self.state_dir())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn command(&self, words: &str) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_rdcc")), words)
    }

    fn journal(&self) -> String {
        std::fs::read_to_string(place::journal(&self.state_dir())).unwrap_or_default()
    }
}

fn run(mut command: Command) -> Output {
    command.output().expect("runs")
}

/// Asserts that it was the fake compiler that ran, with `words`, and that nobody else said anything.
fn assert_compiled_here(output: &Output, words: &str) {
    let expected: String = words.split(' ').map(|word| format!("{word}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "words\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(3));
}

fn receive(stream: &mut UnixStream) -> Request {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).expect("a header");
    let header = Header::decode(&header).expect("ours");
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body).expect("a body");
    codec::decode_request(&body).expect("a request")
}

fn compile_of(request: Request) -> CompileRequest {
    match request {
        Request::Compile(compile) => compile,
        other => panic!("{other:?}"),
    }
}

fn send(stream: &mut UnixStream, reply: &Reply) {
    stream
        .write_all(&codec::encode_reply(reply).expect("short"))
        .expect("sent");
}

/// Runs `command` against an agent that answers with `reply`, and returns what it was asked.
fn run_with_reply(stage: &Stage, command: Command, reply: Reply) -> (Output, CompileRequest) {
    let listener = stage.listen();
    let agent = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a caller");
        let request = compile_of(receive(&mut stream));
        send(&mut stream, &reply);
        request
    });
    let output = run(command);
    (output, agent.join().expect("the agent is content"))
}

fn finished(status: Status) -> Reply {
    Reply::Finished(Finished {
        status,
        stdout: b"to \xff stdout".to_vec(),
        stderr: b"to stderr\n".repeat(20_000),
    })
}

#[test]
fn command_that_is_no_compile_goes_straight_to_the_compiler() {
    let stage = Stage::new();
    assert_compiled_here(&run(stage.command("gcc main.o -o prog")), "main.o -o prog");
    assert_compiled_here(&run(stage.command("--toolchain arm926 gcc -E x.c")), "-E x.c");
    let journal = stage.journal();
    let lines: Vec<&str> = journal.lines().collect();
    assert_eq!(lines.len(), 2, "{journal}");
    assert!(
        lines[0].contains("\tlink\t\t") && lines[0].ends_with("\tprog"),
        "{journal}"
    );
    assert!(lines[1].contains("\tpreprocess_only\tarm926\t"), "{journal}");
    assert!(!stage.place().own_dir().exists(), "no agent was started");
}

#[test]
fn answer_of_the_agent_is_passed_on_byte_for_byte() {
    let stage = Stage::new();
    let (output, request) = run_with_reply(&stage, stage.command("gcc -c x.c"), finished(Status::Exited(4)));
    assert_eq!(output.stdout, b"to \xff stdout");
    assert_eq!(output.stderr, b"to stderr\n".repeat(20_000));
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(request.compiler, Compiler::At(stage.path("bin/gcc")));
    assert_eq!(request.argv, ["gcc", "-c", "x.c"]);
    assert_eq!(
        (request.toolchain, request.terminal, request.wish),
        (None, None, Wish::Anywhere)
    );
    assert_eq!(stage.journal(), "");
}

#[test]
fn signal_that_ended_the_compiler_ends_the_wrapper() {
    let stage = Stage::new();
    let (output, _) = run_with_reply(&stage, stage.command("gcc -c x.c"), finished(Status::Signaled(11)));
    assert_eq!(output.status.signal(), Some(11));
}

#[test]
fn request_holds_what_the_compiler_would_see() {
    let stage = Stage::new();
    std::fs::create_dir(stage.path("real")).expect("created");
    symlink("real", stage.path("logical")).expect("linked");
    let mut command = stage.command("--toolchain arm926 --driver c++ -c x.cc");
    command
        .current_dir(stage.path("logical"))
        .env("PWD", stage.path("logical"))
        .env("CPATH", "/inc")
        .env("RDCC_STRICT", "1");
    let (_, request) = run_with_reply(&stage, command, finished(Status::Exited(0)));
    assert_eq!(request.cwd, stage.path("logical"));
    assert_eq!(request.variable("CPATH"), Some(OsStr::new("/inc")));
    assert_eq!(request.toolchain.expect("named").as_str(), "arm926");
    assert_eq!(request.compiler, Compiler::OfToolchain(Driver::Cxx));
    assert_eq!(request.argv, ["", "-c", "x.cc"]);
    assert_eq!(request.wish, Wish::NoFallback);
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    assert_eq!(request.umask, mask.bits());
}

#[test]
fn local_run_becomes_the_compiler_with_the_flags_of_its_toolchain() {
    let stage = Stage::new();
    stage.program("bin/driver", "#!/bin/sh\necho \"$0\" \"$@\"\n");
    let run = Reply::RunLocally(LocalRun {
        program: stage.path("bin/driver"),
        flags: vec!["-mcpu=arm926ej-s".into()],
        connection: Connection::Close,
        niceness: 0,
    });
    let (output, _) = run_with_reply(&stage, stage.command("--toolchain arm926 -c x.c"), run);
    let expected = format!("{} -mcpu=arm926ej-s -c x.c\n", stage.path("bin/driver").display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert!(output.status.success());
}

#[test]
fn agent_hears_when_the_local_compiler_ends() {
    let stage = Stage::new();
    // Runs until its input ends, and leaves that to a child.
    stage.program("bin/gcc", "#!/bin/sh\ncat\n");
    let listener = stage.listen();
    let mut child = stage.command("gcc -c x.c").stdin(Stdio::piped()).spawn().expect("runs");
    let (mut stream, _) = listener.accept().expect("a caller");
    receive(&mut stream);
    send(
        &mut stream,
        &Reply::RunLocally(LocalRun {
            program: stage.path("bin/gcc"),
            flags: Vec::new(),
            connection: Connection::Inherit,
            niceness: 0,
        }),
    );
    stream.set_nonblocking(true).expect("set");
    let early = stream.read(&mut [0]).expect_err("the compiler runs");
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("set");
    drop(child.stdin.take());
    assert_eq!(stream.read(&mut [0]).expect("its end"), 0);
    assert!(child.wait().expect("ended").success());
}

#[test]
fn interrupted_wrapper_is_noticed_by_the_agent() {
    hear_interrupts();
    let stage = Stage::new();
    let listener = stage.listen();
    let mut child = stage.command("gcc -c x.c").spawn().expect("runs");
    let (mut stream, _) = listener.accept().expect("a caller");
    receive(&mut stream);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    assert_eq!(stream.read(&mut [0]).expect("its end"), 0);
    assert_eq!(child.wait().expect("ended").signal(), Some(2));
}

#[test]
fn agent_that_ends_without_a_word_is_asked_again() {
    let stage = Stage::new();
    let listener = stage.listen();
    let agent = thread::spawn(move || {
        let (mut first, _) = listener.accept().expect("a caller");
        receive(&mut first);
        drop(first);
        let (mut second, _) = listener.accept().expect("the caller again");
        receive(&mut second);
        send(&mut second, &finished(Status::Exited(0)));
    });
    let output = run(stage.command("gcc -c x.c"));
    agent.join().expect("the agent is content");
    assert!(output.status.success());
    assert_eq!(output.stdout, b"to \xff stdout");
}

#[test]
fn without_an_agent_the_compiler_runs_here_and_silently() {
    let stage = Stage::new();
    // Not a directory: no agent can keep its socket there.
    std::fs::create_dir(stage.state_dir()).expect("created");
    std::fs::write(stage.path("state/agents"), "").expect("written");
    assert_compiled_here(&run(stage.command("gcc -c x.c")), "-c x.c");
    assert!(stage.journal().contains("\tno_agent\t"));

    let mut strict = stage.command("gcc -c x.c");
    strict.env("RDCC_STRICT", "1");
    let output = run(strict);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        words.starts_with("rdcc: error: this compile cannot be distributed\n  cause: "),
        "{words}"
    );
    assert!(words.contains("RDCC_STRICT"), "{words}");

    let output = run(stage.command("--toolchain arm926 -c x.c"));
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("compiler of toolchain `arm926`"), "{words}");
}

#[test]
fn complaint_of_the_agent_is_shown() {
    let stage = Stage::new();
    let complaint = Complaint::new("toolchain `arm926` is not known").hint("push it");
    let (output, _) = run_with_reply(
        &stage,
        stage.command("--toolchain arm926 -c x.c"),
        Reply::Failed(complaint.clone()),
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), complaint.to_string());
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn disabled_rdcc_is_not_there() {
    let stage = Stage::new();
    let mut command = stage.command("--toolchain arm926 gcc -c x.c");
    command.env("RDCC_DISABLE", "1");
    assert_compiled_here(&run(command), "-c x.c");
    assert!(!stage.state_dir().exists());
}

#[test]
fn link_that_the_agent_keeps_saves_a_question() {
    let stage = Stage::new();
    let name = rdcc::ids::Name::new("arm926").expect("a name");
    let link = stage.place().compiler_link(&name, Driver::C);
    std::fs::create_dir_all(link.parent().expect("a directory")).expect("created");
    symlink(stage.path("bin/gcc"), &link).expect("linked");
    assert_compiled_here(
        &run(stage.command("--toolchain arm926 main.o -o prog")),
        "main.o -o prog",
    );
    assert!(stage.journal().contains("\tlink\tarm926\t"));
}

#[test]
fn links_to_rdcc_stand_for_the_next_compiler_of_that_name() {
    let stage = Stage::new();
    let rdcc = Path::new(env!("CARGO_BIN_EXE_rdcc"));
    std::fs::create_dir(stage.path("first")).expect("created");
    for name in ["gcc", "ccache", "g++"] {
        symlink(rdcc, stage.path("first").join(name)).expect("linked");
    }
    let path = format!("{}:{}:/bin", stage.path("first").display(), stage.path("bin").display());
    for (program, words) in [
        ("first/gcc", "main.o"),
        ("first/ccache", "gcc main.o"),
        ("first/ccache", "first/gcc main.o"),
    ] {
        let mut command = stage.command_of(&stage.path(program), words);
        command.env("PATH", &path);
        assert_compiled_here(&run(command), "main.o");
    }
    let mut command = stage.command_of(&stage.path("first/g++"), "main.o");
    command.env("PATH", stage.path("first"));
    let output = run(command);
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no compiler"));
}

#[test]
fn compiler_that_calls_rdcc_again_is_stopped() {
    let stage = Stage::new();
    stage.program(
        "bin/gcc",
        &format!("#!/bin/sh\nexec {} gcc \"$@\"\n", env!("CARGO_BIN_EXE_rdcc")),
    );
    let output = run(stage.command("gcc main.o"));
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("leads back to rdcc"), "{words}");
}

#[test]
fn mistakes_of_a_person_have_an_exit_status_of_their_own() {
    let stage = Stage::new();
    let output = run(stage.command("statsu"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `rdcc stats`?"));
    let output = run(stage.command("absent-linux-gcc -c x.c"));
    assert_eq!(output.status.code(), Some(127));
}
