//! The socket with a service that is played.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;

use super::*;
use crate::exchange::frame::Version;
use crate::exchange::place::Tree;
use crate::exchange::{Compiler, Connection, Driver, LocalRun, Wish};

/// Answers a compile in `/held` with a local run that holds something, one elsewhere only when the caller has gone.
struct Fake {
    events: tokio::sync::mpsc::UnboundedSender<&'static str>,
}

struct Held(tokio::sync::mpsc::UnboundedSender<&'static str>);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.send("released");
    }
}

impl Service for Fake {
    async fn compile(&self, request: CompileRequest, caller: Caller) -> Answer {
        if request.cwd == Path::new("/held") {
            return Answer {
                reply: Reply::RunLocally(LocalRun {
                    program: "/bin/true".into(),
                    flags: Vec::new(),
                    connection: Connection::Inherit,
                    niceness: 3,
                }),
                until_gone: Some(Box::new(Held(self.events.clone()))),
            };
        }
        let _ = self.events.send("started");
        caller.gone.cancelled().await;
        let _ = self.events.send("cancelled");
        Reply::Superseded.into()
    }

    async fn trace(&self) -> Option<BuildTrace> {
        None
    }

    async fn audits(&self, _: Zero) -> Result<AuditReport, Complaint> {
        Ok(AuditReport::default())
    }

    async fn stats(&self, _: Zero) -> Result<Statistics, Complaint> {
        Err(Complaint::new("no disk"))
    }

    async fn why(&self, _: PathBuf) -> Result<Vec<JobRecord>, Complaint> {
        Ok(Vec::new())
    }

    async fn report(&self) -> AgentReport {
        AgentReport::default()
    }
}

struct Running {
    place: Place,
    _dir: tempfile::TempDir,
    tasks: Tasks,
    closed: tokio::sync::oneshot::Receiver<Closed>,
    events: tokio::sync::mpsc::UnboundedReceiver<&'static str>,
}

fn place(dir: &tempfile::TempDir) -> Place {
    let tree = Tree {
        uid: 0,
        mount_namespace: 1,
        root_device: 2,
        root_inode: 3,
        coordinator: None,
    };
    Place::new(dir.path().to_owned(), &tree)
}

fn start(idle: Duration) -> Running {
    let dir = tempfile::tempdir().expect("a directory");
    let place = place(&dir);
    let listener = Listener::bind(&place).expect("listens");
    let tasks = Tasks::default();
    let (tell, closed) = tokio::sync::oneshot::channel();
    let (events_in, events) = tokio::sync::mpsc::unbounded_channel();
    let serving = tasks.clone();
    tasks.spawn(async move {
        let service = Arc::new(Fake { events: events_in });
        let _ = tell.send(listener.serve(service, &serving, idle).await.expect("serves"));
    });
    Running {
        place,
        _dir: dir,
        tasks,
        closed,
        events,
    }
}

fn compile_in(cwd: &str) -> Request {
    Request::Compile(CompileRequest {
        toolchain: None,
        compiler: Compiler::OfToolchain(Driver::C),
        argv: vec!["".into(), "-c".into()],
        cwd: cwd.into(),
        env: Vec::new(),
        umask: 0o22,
        terminal: None,
        wish: Wish::Anywhere,
        worker: None,
    })
}

fn send(place: &Place, bytes: &[u8]) -> StdStream {
    let mut stream = unix_socket::connect(&place.socket()).expect("connects");
    stream.write_all(bytes).expect("written");
    stream
}

async fn reply(mut stream: StdStream) -> (Reply, StdStream) {
    let read = move || {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).expect("a header");
        let header = Header::decode(&header).expect("ours");
        let mut body = vec![0; header.length as usize];
        stream.read_exact(&mut body).expect("a body");
        (codec::decode_reply(&body).expect("a reply"), stream)
    };
    Tasks::default().blocking(read).await
}

async fn ask(place: &Place, request: &Request) -> Reply {
    reply(send(place, &codec::encode_request(request).expect("short")))
        .await
        .0
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn questions_are_answered_and_errors_told() {
    let running = start(LONG);
    assert_eq!(
        ask(&running.place, &Request::Status).await,
        Reply::Status(AgentReport::default())
    );
    assert_eq!(
        ask(&running.place, &Request::Stats(Zero::Keep)).await,
        Reply::Failed(Complaint::new("no disk"))
    );
    assert_eq!(
        ask(&running.place, &Request::Why("/x".into())).await,
        Reply::Why(Vec::new())
    );
    running.tasks.shut_down(LONG).await;
}

#[tokio::test]
async fn caller_that_goes_away_cancels_its_compile() {
    let mut running = start(LONG);
    let stream = send(&running.place, &codec::encode_request(&compile_in("/")).expect("short"));
    assert_eq!(running.events.recv().await, Some("started"));
    drop(stream);
    assert_eq!(running.events.recv().await, Some("cancelled"));
    running.tasks.shut_down(LONG).await;
}

#[tokio::test]
async fn local_slot_is_held_until_the_connection_ends() {
    let mut running = start(LONG);
    let stream = send(
        &running.place,
        &codec::encode_request(&compile_in("/held")).expect("short"),
    );
    let (answer, stream) = reply(stream).await;
    assert!(matches!(answer, Reply::RunLocally(_)));
    assert!(running.events.try_recv().is_err());
    drop(stream);
    assert_eq!(running.events.recv().await, Some("released"));
    running.tasks.shut_down(LONG).await;
}

#[tokio::test]
async fn only_one_agent_listens_and_the_next_may_once_it_retires() {
    let running = start(LONG);
    assert!(matches!(Listener::bind(&running.place), Err(ListenError::Running(_))));
    assert_eq!(ask(&running.place, &Request::Retire).await, Reply::Retiring);
    assert_eq!(running.closed.await, Ok(Closed::Retired));
    Listener::bind(&running.place).expect("free now");
}

#[tokio::test]
async fn newer_caller_makes_the_agent_retire() {
    let running = start(LONG);
    let mut frame = codec::encode_request(&Request::Status).expect("short");
    let header = Header {
        format: 7,
        version: Version(999, 0, 0),
        length: (frame.len() - HEADER_BYTES) as u32,
    };
    frame[..HEADER_BYTES].copy_from_slice(&header.encode());
    assert_eq!(reply(send(&running.place, &frame)).await.0, Reply::Superseded);
    assert_eq!(running.closed.await, Ok(Closed::Retired));
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let running = start(LONG);
    let mut stream = send(&running.place, b"GET / HTTP/1.1\r\n\r\n");
    let read = move || {
        let mut rest = Vec::new();
        // A reset is as good as an end: bytes of ours were left unread.
        stream.read_to_end(&mut rest).map_or(0, |length| length)
    };
    assert_eq!(Tasks::default().blocking(read).await, 0);
    assert!(matches!(ask(&running.place, &Request::Status).await, Reply::Status(_)));
    running.tasks.shut_down(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn agent_that_nobody_calls_ends_and_one_that_is_held_does_not() {
    let mut running = start(Duration::from_secs(600));
    let stream = send(&running.place, &codec::encode_request(&compile_in("/")).expect("short"));
    assert_eq!(running.events.recv().await, Some("started"));
    tokio::time::sleep(Duration::from_secs(6000)).await;
    assert!(running.closed.try_recv().is_err(), "a caller is waiting");
    drop(stream);
    assert_eq!(running.events.recv().await, Some("cancelled"));
    assert_eq!(running.closed.await, Ok(Closed::Idle));
}
