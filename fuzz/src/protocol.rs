//! Messages between agents and workers.
//!
//! The first byte says which message the rest is. Holds: it is refused, or it becomes a value that is within its bounds, and
//! that value comes back from the wire as it was.

use std::path::{Component, Path};

use prost::Message;
use rdcc::protocol::convert::{self, INPUTS_MAX, OUTPUT_PATHS_MAX, PATH_BYTES_MAX};
use rdcc::protocol::pieces;

/// Inputs that the link is said to have numbered.
const DEFINED: u32 = 901;

/// Takes a message off the wire, and again.
pub fn check(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 6 {
        0 => run(bytes),
        1 => done(bytes),
        2 => input(bytes),
        3 => blob_piece(bytes),
        4 => output_piece(bytes),
        _ => drop(convert::toolchain_from_wire(bytes).map(|id| assert_eq!(id.0.as_bytes(), bytes))),
    }
}

/// Decodes as the network would have: a message that prost refuses never gets here.
fn decoded<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

/// Encodes and decodes, so that what is checked has been bytes.
fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(&message.encode_to_vec()[..]).expect("our own message")
}

fn assert_path(path: &Path) {
    assert!(
        path.is_absolute() && path.as_os_str().len() <= PATH_BYTES_MAX,
        "{path:?}"
    );
    assert!(
        path.components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
    );
    assert!(!path.as_os_str().as_encoded_bytes().contains(&0));
}

fn run(bytes: &[u8]) {
    let Some(Ok(run)) = decoded(bytes).map(|message| convert::run_from_wire(message, DEFINED)) else {
        return;
    };
    let spec = &run.spec;
    let named = [&spec.program, &spec.cwd].into_iter().chain(&spec.dependency_file);
    named
        .chain(&spec.outputs)
        .chain(&spec.output_dirs)
        .for_each(|path| assert_path(path));
    assert!(!spec.argv.is_empty() && spec.umask <= 0o777);
    assert!(spec.outputs.len() + spec.output_dirs.len() <= OUTPUT_PATHS_MAX);
    assert!(run.inputs.len() <= INPUTS_MAX && run.inputs.iter().all(|number| *number < DEFINED));
    assert!(run.inputs.is_sorted_by(|a, b| a < b));
    let again = convert::run_from_wire(sent(&convert::run_to_wire(&run)), DEFINED);
    assert_eq!(again, Ok(run));
}

fn done(bytes: &[u8]) {
    if let Some(Ok((job, outcome))) = decoded(bytes).map(convert::done_from_wire) {
        let again = convert::done_from_wire(sent(&convert::done_to_wire(job, &outcome)));
        assert_eq!(again, Ok((job, outcome)));
    }
}

fn input(bytes: &[u8]) {
    if let Some(Ok(input)) = decoded(bytes).map(convert::input_from_wire) {
        assert_path(&input.path);
        assert_eq!(
            convert::input_from_wire(sent(&convert::input_to_wire(&input))),
            Ok(input)
        );
    }
}

fn blob_piece(bytes: &[u8]) {
    if let Some(Ok(piece)) = decoded(bytes).map(pieces::blob_piece_from_wire) {
        let again = pieces::blob_piece_from_wire(sent(&pieces::blob_piece_to_wire(piece.clone())));
        assert_eq!(again, Ok(piece));
    }
}

fn output_piece(bytes: &[u8]) {
    if let Some(Ok(piece)) = decoded(bytes).map(pieces::output_piece_from_wire) {
        assert_path(&piece.path);
        let again = pieces::output_piece_from_wire(sent(&pieces::output_piece_to_wire(piece.clone())));
        assert_eq!(again, Ok(piece));
    }
}
