//! Messages come back as they were, and nothing that comes can hurt.

use proptest::prelude::*;

use super::*;
use crate::exchange::{AgentReport, AuditReport, BuildSummary, BuildTrace, Counters, JobRecord, Mode, Ran, Statistics};

fn os_string() -> impl Strategy<Value = OsString> {
    prop::collection::vec(1..=255u8, 0..20).prop_map(OsString::from_vec)
}

fn compile_request() -> impl Strategy<Value = Request> {
    let compiler = prop_oneof![
        Just(Compiler::OfToolchain(Driver::C)),
        Just(Compiler::OfToolchain(Driver::Cxx)),
        os_string().prop_map(|path| Compiler::At(path.into())),
    ];
    let wish = prop_oneof![Just(Wish::Anywhere), Just(Wish::NoFallback), Just(Wish::Here)];
    let terminal = prop::option::of((0..u16::MAX, 0..u16::MAX).prop_map(|(columns, rows)| Terminal { columns, rows }));
    let name = || prop::option::of("[a-z][a-z0-9.+-]{0,20}".prop_map(|text| Name::new(&text).expect("a name")));
    (
        name(),
        compiler,
        prop::collection::vec(os_string(), 0..6),
        os_string(),
        prop::collection::vec((os_string(), os_string()), 0..6),
        any::<u32>(),
        terminal,
        (wish, name()),
    )
        .prop_map(
            |(toolchain, compiler, argv, cwd, env, umask, terminal, (wish, worker))| {
                Request::Compile(CompileRequest {
                    toolchain,
                    compiler,
                    argv,
                    cwd: cwd.into(),
                    env,
                    umask,
                    terminal,
                    wish,
                    worker,
                })
            },
        )
}

fn body(frame: &[u8]) -> &[u8] {
    let header = Header::decode(frame[..HEADER_BYTES].try_into().expect("16 bytes")).expect("our own");
    assert_eq!(header.length as usize, frame.len() - HEADER_BYTES);
    &frame[HEADER_BYTES..]
}

proptest! {
    #[test]
    fn compile_requests_come_back(request in compile_request()) {
        let frame = encode_request(&request).expect("short");
        prop_assert_eq!(decode_request(body(&frame)), Ok(request));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode_request(&bytes);
        let _ = decode_reply(&bytes);
    }

    #[test]
    fn damaged_requests_never_panic(request in compile_request(), at: prop::sample::Index, byte: u8) {
        let frame = encode_request(&request).expect("short");
        let mut bytes = body(&frame).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_request(&bytes);
        bytes.truncate(at);
        prop_assert!(decode_request(&bytes).is_err());
    }
}

#[test]
fn plain_requests_come_back() {
    for request in [
        Request::Stats(Zero::Keep),
        Request::Stats(Zero::Reset),
        Request::Trace,
        Request::Audits(Zero::Keep),
        Request::Audits(Zero::Reset),
        Request::Why("/a/b.o".into()),
        Request::Status,
        Request::Retire,
    ] {
        let frame = encode_request(&request).expect("short");
        assert_eq!(decode_request(body(&frame)), Ok(request));
    }
}

#[test]
fn replies_come_back() {
    let record = JobRecord::new(Ran::Remote {
        mode: Mode::A,
        worker: "n1".into(),
    });
    for reply in [
        Reply::Finished(Finished {
            status: Status::Exited(1),
            stdout: b"out\0\xff".to_vec(),
            stderr: vec![b'x'; 70_000],
        }),
        Reply::Finished(Finished {
            status: Status::Signaled(11),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }),
        Reply::RunLocally(LocalRun {
            program: "/usr/bin/gcc".into(),
            flags: vec!["-mcpu=arm926ej-s".into()],
            connection: Connection::Inherit,
            niceness: 3,
        }),
        Reply::Failed(Complaint::new("no").because("so").hint("try")),
        Reply::Superseded,
        Reply::Stats(Statistics {
            counters: Counters::default(),
            build: Some(BuildSummary::default()),
        }),
        Reply::Trace(None),
        Reply::Trace(Some(BuildTrace::default())),
        Reply::Why(vec![record]),
        Reply::Status(AgentReport::default()),
        Reply::Retiring,
        Reply::Audits(AuditReport::default()),
    ] {
        let frame = encode_reply(&reply).expect("short");
        assert_eq!(decode_reply(body(&frame)), Ok(reply));
    }
}

#[test]
fn counts_beyond_the_message_are_refused_before_memory_is_taken() {
    let mut bytes = vec![2, 0, 0, 0, 0];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode_reply(&bytes), Err(Malformed::Short));
}

#[test]
fn whatever_follows_a_message_is_refused() {
    assert_eq!(decode_request(&[3, 0]), Err(Malformed::Trailing(1)));
}
