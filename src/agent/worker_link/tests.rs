//! The link against a scripted worker: a real connection on loopback, replies written by each test.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::ids::{CoreGroupId, ToolchainId};
use crate::job::{InputKind, Limits, OutputKind, RefusalKind};
use crate::protocol::pieces::{Encoding, OutputContent, OutputPiece, output_piece_to_wire};
use crate::protocol::wire::link_reply::Reply;
use crate::protocol::wire::link_request::Request as Sent;
use crate::protocol::{version, wire};

/// One end of a link, as the scripted worker sees it.
struct Peer {
    requests: Streaming<wire::LinkRequest>,
    replies: mpsc::Sender<Result<wire::LinkReply, Status>>,
}

impl Peer {
    async fn next(&mut self) -> Option<Sent> {
        let request = self.requests.message().await.ok().flatten()?;
        request.request
    }

    async fn reply(&self, reply: Reply) {
        let reply = wire::LinkReply { reply: Some(reply) };
        self.replies.send(Ok(reply)).await.expect("the agent listens");
    }

    /// Reads up to the next `run`, and returns it with what was defined meanwhile.
    async fn run(&mut self) -> (wire::Run, Vec<wire::InputEntry>) {
        let mut defined = Vec::new();
        loop {
            match self.next().await.expect("a run comes") {
                Sent::Define(define) => defined.extend(define.entries),
                Sent::Run(run) => return (run, defined),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn done(&self, job: u64) {
        let done = wire::JobDone {
            job,
            exit_status: 1,
            stderr: b"error: \xff".to_vec(),
            ..Default::default()
        };
        self.reply(Reply::Done(done)).await;
    }
}

/// Hands each new link to the test.
struct Scripted {
    peers: mpsc::Sender<Peer>,
}

#[tonic::async_trait]
impl wire::worker_server::Worker for Scripted {
    type LinkStream = ReceiverStream<Result<wire::LinkReply, Status>>;

    async fn link(&self, request: Request<Streaming<wire::LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        let (replies, stream) = mpsc::channel(16);
        let mut peer = Peer {
            requests: request.into_inner(),
            replies,
        };
        let peers = self.peers.clone();
        Tasks::default().spawn(async move {
            assert!(matches!(peer.next().await, Some(Sent::Hello(_))));
            let protocol = version::NEWEST;
            peer.reply(Reply::Welcome(wire::LinkWelcome { protocol })).await;
            peers.send(peer).await.expect("the test takes its peers");
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Farm {
    link: Arc<WorkerLink>,
    peers: mpsc::Receiver<Peer>,
    table: InputTable,
    tasks: Tasks,
}

impl Farm {
    async fn start() -> Self {
        let tasks = Tasks::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let (sender, peers) = mpsc::channel(4);
        let service = wire::worker_server::WorkerServer::new(Scripted { peers: sender });
        let server = tonic::transport::Server::builder().add_service(service);
        let token = tasks.token();
        tasks.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let stopped = token.cancelled_owned();
            server
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .expect("serves");
        });
        let target = LinkTarget {
            address,
            worker: crate::ids::Name::new("n1").expect("a name"),
            trust: crate::trust::credentials::Trust::Plain,
            agent: AgentSessionId(1),
            tree: Digest::of(b"tree"),
        };
        Self {
            link: Arc::new(WorkerLink::new(target, &tasks)),
            peers,
            table: InputTable::default(),
            tasks,
        }
    }

    async fn peer(&mut self) -> Peer {
        self.peers.recv().await.expect("a link comes")
    }

    /// Starts a job with these files; the receiver gets its end.
    fn run(&self, files: &[(&str, &str)]) -> mpsc::Receiver<Result<Outcome, LinkError>> {
        let (sender, receiver) = mpsc::channel(1);
        let (link, run) = (self.link.clone(), self.job(files));
        self.tasks.spawn(async move {
            let _ = sender.send(link.run(run).await).await;
        });
        receiver
    }

    fn job(&self, files: &[(&str, &str)]) -> LinkRun {
        let inputs = files.iter().map(|(path, content)| {
            let kind = InputKind::File {
                digest: Digest::of(content.as_bytes()),
                size: content.len() as u64,
                mode: 0o644,
                mtime_ns: 0,
            };
            let path = path.into();
            self.table.intern(Input { path, kind })
        });
        let contents = files.iter().map(|(_, content)| content.as_bytes().to_vec()).collect();
        LinkRun {
            grant: GrantId(1),
            token: vec![1; 32],
            spec: spec(),
            inputs: inputs.collect(),
            content: Arc::new(Contents(Mutex::new(contents))),
            output_bytes_max: 1 << 20,
            run_as: None,
            cores: CoreGroupId::default(),
        }
    }
}

fn spec() -> JobSpec {
    JobSpec {
        toolchain: ToolchainId(Digest::of(b"toolchain")),
        program: "/usr/bin/gcc".into(),
        argv: vec!["gcc".into()],
        cwd: "/src".into(),
        env: Vec::new(),
        inputs: Vec::new(),
        umask: 0o22,
        terminal: None,
        dependency_file: None,
        outputs: Vec::new(),
        output_dirs: Vec::new(),
        limits: Limits::default(),
    }
}

/// Knows its files by content only; what is not among them has changed.
struct Contents(Mutex<Vec<Vec<u8>>>);

impl ContentSource for Contents {
    fn open(&self, input: &Input) -> Result<Content, Changed> {
        let InputKind::File { digest, .. } = &input.kind else {
            return Err(Changed);
        };
        let contents = self.0.lock().expect("no test panics in here");
        let found = contents.iter().find(|content| Digest::of(content) == *digest);
        Ok(Content::Held(Arc::new(found.ok_or(Changed)?.clone())))
    }
}

#[tokio::test]
async fn missing_content_is_sent_and_outputs_come_back() {
    let mut farm = Farm::start().await;
    let mut ended = farm.run(&[("/src/a.c", "int a;"), ("/src/a.h", "")]);
    let mut peer = farm.peer().await;
    let (run, defined) = peer.run().await;
    assert_eq!((run.inputs.as_slice(), defined.len()), ([0, 1].as_slice(), 2));
    let job = run.job;
    peer.reply(Reply::Need(wire::NeedInputs { job, inputs: vec![0] })).await;
    match peer.next().await {
        Some(Sent::Blob(piece)) => assert_eq!((piece.data.as_slice(), piece.last), (&b"int a;"[..], true)),
        other => panic!("{other:?}"),
    }
    let output = OutputPiece {
        job: JobId(job),
        path: "/src/a.o".into(),
        content: OutputContent::File {
            mode: 0o644,
            size: 3,
            encoding: Encoding::Plain,
            data: b"ELF".to_vec(),
        },
        last: true,
    };
    peer.reply(Reply::Output(output_piece_to_wire(output))).await;
    peer.done(job).await;
    let outcome = ended.recv().await.expect("an end").expect("an outcome");
    assert_eq!(outcome.stderr, b"error: \xff");
    let [output] = outcome.outputs.as_slice() else { panic!() };
    let content = b"ELF".to_vec();
    assert_eq!(output.kind, OutputKind::File { mode: 0o644, content });
    assert!(farm.link.traffic().sent() > 0 && farm.link.traffic().received() > 0);
}

#[tokio::test]
async fn second_job_defines_only_what_is_new() {
    let mut farm = Farm::start().await;
    let files = [("/src/a.c", "int a;"), ("/src/a.h", "")];
    let handles: Vec<_> = farm.job(&files).inputs.to_vec();
    let mut first = farm.run(&files);
    let mut peer = farm.peer().await;
    let (run, _) = peer.run().await;
    peer.done(run.job).await;
    first.recv().await.expect("an end").expect("an outcome");
    let _second = farm.run(&[("/src/b.c", "int b;"), ("/src/a.h", "")]);
    let (run, defined) = peer.run().await;
    assert_eq!(defined.len(), 1);
    assert_eq!(run.inputs, [1, 1], "numbers 1 and 2, as differences");
    drop(handles);
}

#[tokio::test]
async fn changed_input_ends_its_job_at_both_sides() {
    let mut farm = Farm::start().await;
    let mut run = farm.job(&[("/src/a.c", "int a;")]);
    run.content = Arc::new(Contents(Mutex::default()));
    let (link, (sender, mut ended)) = (farm.link.clone(), mpsc::channel(1));
    farm.tasks
        .spawn(async move { sender.send(link.run(run).await).await.expect("the test waits") });
    let mut peer = farm.peer().await;
    let (run, _) = peer.run().await;
    let job = run.job;
    peer.reply(Reply::Need(wire::NeedInputs { job, inputs: vec![0] })).await;
    assert!(matches!(peer.next().await, Some(Sent::Gone(gone)) if gone.job == job && gone.input == 0));
    let error = ended.recv().await.expect("an end").expect_err("no outcome");
    assert_eq!(error, LinkError::Changed("/src/a.c".into()));
}

#[tokio::test]
async fn dropped_run_is_cancelled_at_the_worker() {
    let mut farm = Farm::start().await;
    let job = farm.job(&[]);
    let mut running = Box::pin(farm.link.run(job));
    let mut peer = tokio::select! {
        _ = &mut running => panic!("ended by itself"),
        peer = farm.peers.recv() => peer.expect("a link comes"),
    };
    let run = tokio::select! {
        _ = &mut running => panic!("ended by itself"),
        (run, _) = peer.run() => run,
    };
    drop(running);
    assert!(matches!(peer.next().await, Some(Sent::Cancel(cancel)) if cancel.job == run.job));
}

#[tokio::test]
async fn lost_link_breaks_its_jobs_and_the_next_job_connects_again() {
    let mut farm = Farm::start().await;
    let mut first = farm.run(&[]);
    let mut peer = farm.peer().await;
    peer.run().await;
    drop(peer);
    let error = first.recv().await.expect("an end").expect_err("no outcome");
    assert!(matches!(error, LinkError::Broken { .. }), "{error}");
    let mut second = farm.run(&[]);
    let mut peer = farm.peer().await;
    let (run, _) = peer.run().await;
    let (kind, message) = (wire::RefusalKind::Busy.into(), "full".to_owned());
    peer.reply(Reply::Refused(wire::JobRefused {
        job: run.job,
        kind,
        message,
    }))
    .await;
    let refusal = Refusal {
        kind: RefusalKind::Busy,
        message: "full".to_owned(),
    };
    let error = second.recv().await.expect("an end").expect_err("no outcome");
    assert_eq!(error, LinkError::Refused(refusal));
}

#[tokio::test]
async fn worker_that_asks_for_what_the_job_does_not_have_is_cut_off() {
    let mut farm = Farm::start().await;
    let mut ended = farm.run(&[("/src/a.c", "int a;")]);
    let mut peer = farm.peer().await;
    let (run, _) = peer.run().await;
    peer.reply(Reply::Need(wire::NeedInputs {
        job: run.job,
        inputs: vec![5],
    }))
    .await;
    let error = ended.recv().await.expect("an end").expect_err("no outcome");
    assert!(matches!(error, LinkError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn worker_that_is_not_there_is_named() {
    let tasks = Tasks::default();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let farm = Farm::start().await;
    let target = LinkTarget {
        address: address.clone(),
        worker: crate::ids::Name::new("n1").expect("a name"),
        trust: crate::trust::credentials::Trust::Plain,
        ..farm.link.target().clone()
    };
    let link = WorkerLink::new(target, &tasks);
    let error = link.run(farm.job(&[])).await.expect_err("nobody listens");
    assert!(error.to_string().contains(&address), "{error}");
    let ended = tasks.shut_down(Duration::from_secs(60)).await;
    assert_eq!(ended, crate::runtime::tasks::Ended::Cleanly);
}
