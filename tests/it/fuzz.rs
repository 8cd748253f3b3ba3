//! Bytes and words of any kind: what parses them ends with a value or a refusal, and never panics.
//!
//! Bounded here; `PROPTEST_CASES=100000 cargo test --test it fuzz` goes on for longer. The scanner has its own
//! (`includes::mutations`). What holds beyond that is said in `fuzz/src`, and tried with a fuzzer's help (`make fuzz`).

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use rdcc::compile::{self, Driver};
use rdcc::digest::Digest;
use rdcc::ids::{CoreGroupId, GrantId, JobId, ToolchainId};
use rdcc::job::{Input, InputKind, JobSpec, Limits as JobLimits, Outcome, Status, Terminal, Usage};
use rdcc::protocol::convert::{self, Compress, RunRequest};
use rdcc::protocol::{pieces, wire};
use rdcc::store::archive::{ArchiveReader, ArchiveWriter, Compression, Limits};
use rdcc::toolchains::definition::Language;
use rdcc::toolchains::profile::{Question, RunAs};

/// Words that options are made of.
const WORDS: [&str; 44] = [
    "-c",
    "-o",
    "x.o",
    "-o-",
    "a.c",
    "b.cc",
    "c.S",
    "d.i",
    "-",
    "--",
    "-x",
    "c",
    "c++",
    "-I",
    "-Idir",
    "-I-",
    "-D",
    "-DX=1",
    "-include",
    "-MD",
    "-MF",
    "d.d",
    "-MT",
    "-MMD",
    "-Wp,-MD,x.d",
    "-Wp,",
    "-Wp,,",
    "-Wa,",
    "-Wa,-I,x",
    "-Xpreprocessor",
    "-Xassembler",
    "-march=native",
    "-mcpu=",
    "-std=",
    "-g",
    "-gsplit-dwarf",
    "-flto",
    "-save-temps=",
    "--coverage",
    "-E",
    "@file",
    "@",
    "--param",
    "-fplugin=",
];

fn word() -> impl Strategy<Value = OsString> {
    prop_oneof![
        6 => prop::sample::select(WORDS.as_slice()).prop_map(OsString::from),
        1 => prop::collection::vec(any::<u8>(), 0..12).prop_map(OsString::from_vec),
        1 => (prop::sample::select(WORDS.as_slice()), prop::collection::vec(any::<u8>(), 0..6))
            .prop_map(|(word, tail)| OsString::from_vec([word.as_bytes(), &tail].concat())),
    ]
}

/// Content of a response file that is read again and again, and names itself.
fn response_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(WORDS.as_slice()).prop_map(|word| word.as_bytes().to_vec()),
        2 => prop::sample::select([" ", "\n", "\"", "'", "\\", "\\\"", "@file ", "\0"].as_slice())
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn run_request() -> RunRequest {
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
            output_dirs: vec!["/out".into()],
            limits: JobLimits {
                wall: Some(Duration::from_secs(3)),
                ..JobLimits::default()
            },
        },
        inputs: vec![0, 1, 5, 900],
        compress: Compress::Allowed,
        run_as: Some(RunAs {
            toolchain: ToolchainId(Digest::of(b"variant")),
            question: Question {
                driver: Language::C,
                language: "c".into(),
                words: vec!["-O2".into()],
            },
            profile: Digest::of(b"profile"),
        }),
        cores: CoreGroupId(1),
    }
}

/// Valid messages, encoded, one of each kind that `convert` takes.
fn messages() -> Vec<Vec<u8>> {
    let outcome = Outcome {
        status: Status::Exited(1),
        stdout: b"out".to_vec(),
        stderr: b"err".to_vec(),
        outputs: Vec::new(),
        dependencies: Some(b"a.o: a.c\n".to_vec()),
        usage: Usage::default(),
    };
    let input = Input {
        path: "/a b/c".into(),
        kind: InputKind::File {
            digest: Digest::of(b"x"),
            size: 1,
            mode: 0o644,
            mtime_ns: -5,
        },
    };
    vec![
        convert::run_to_wire(&run_request()).encode_to_vec(),
        convert::done_to_wire(JobId(7), &outcome).encode_to_vec(),
        convert::input_to_wire(&input).encode_to_vec(),
    ]
}

/// Decodes bytes as every message and converts what comes of it.
fn convert_all(bytes: &[u8]) {
    if let Ok(message) = wire::Run::decode(bytes) {
        let _ = convert::run_from_wire(message, 901);
    }
    if let Ok(message) = wire::JobDone::decode(bytes) {
        let _ = convert::done_from_wire(message);
    }
    if let Ok(message) = wire::InputEntry::decode(bytes) {
        let _ = convert::input_from_wire(message);
    }
    if let Ok(message) = wire::BlobPiece::decode(bytes) {
        let _ = pieces::blob_piece_from_wire(message);
    }
    if let Ok(message) = wire::OutputPiece::decode(bytes) {
        let _ = pieces::output_piece_from_wire(message);
    }
    let _ = convert::toolchain_from_wire(bytes);
}

fn archive(content: &[u8]) -> Vec<u8> {
    let compression = Compression { level: 3, threads: 1 };
    let mut writer = ArchiveWriter::new(Vec::new(), compression).expect("a writer");
    let file = |writer: &mut ArchiveWriter<Vec<u8>>, path: &str| {
        writer.file(Path::new(path), 0o644, content.len() as u64, &mut &content[..])
    };
    writer.directory(Path::new("d"), 0o755).expect("a directory");
    file(&mut writer, "d/f").expect("a file");
    file(
        &mut writer,
        &"long/".repeat(40).trim_end_matches('/').replace("long", "longer name"),
    )
    .expect("a file");
    writer.symlink(Path::new("l"), &"d/f".into()).expect("a link");
    writer.finish().expect("an archive")
}

fn read_all(bytes: &[u8]) {
    let limits = Limits {
        members_max: 100,
        content_bytes_max: 1 << 16,
    };
    let Ok(mut reader) = ArchiveReader::new(bytes, limits) else {
        return;
    };
    while let Ok(Some(_)) = reader.next_member() {
        if io::copy(&mut reader.by_ref().take(1 << 17), &mut io::sink()).is_err() {
            return;
        }
    }
}

/// Changes to bytes: a position (in thousandths of the length) and what is put there instead of a number of bytes.
fn spoil(mut bytes: Vec<u8>, changes: &[(u16, u8, Vec<u8>)]) -> Vec<u8> {
    for (position, dropped, put) in changes {
        let at = usize::from(*position) * bytes.len() / 1000;
        let end = (at + usize::from(*dropped)).min(bytes.len());
        bytes.splice(at..end, put.iter().copied());
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(u16, u8, Vec<u8>)>> {
    prop::collection::vec((0..1000u16, 0..4u8, prop::collection::vec(any::<u8>(), 0..4)), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_command_line_gets_a_verdict(argv in prop::collection::vec(word(), 0..12), text in response_text()) {
        for driver in [Driver::C, Driver::Cxx] {
            let mut read = |path: &Path| match path == Path::new("file") {
                true => Ok(text.clone()),
                false => Err(io::ErrorKind::NotFound.into()),
            };
            let _ = compile::parse(&argv, &[], driver, &mut read);
        }
    }

    #[test]
    fn any_message_is_converted_or_refused(random in prop::collection::vec(any::<u8>(), 0..200), changes in changes()) {
        convert_all(&random);
        for message in messages() {
            convert_all(&spoil(message, &changes));
        }
    }

    #[test]
    fn any_archive_is_read_or_refused(random in prop::collection::vec(any::<u8>(), 0..300), changes in changes()) {
        read_all(&random);
        let packed = archive(&random);
        read_all(&spoil(packed.clone(), &changes));
        // What is spoilt before it is compressed gets further.
        if let Ok(plain) = zstd::decode_all(&packed[..])
            && let Ok(repacked) = zstd::encode_all(&spoil(plain, &changes)[..], 1)
        {
            read_all(&repacked);
        }
    }
}
