//! The protocol's fields and numbers stay what they were, so that members of a farm that are one version apart understand
//! each other. `proto/kept.txt` has every line that a version has ever spoken; `scripts/skew.sh` tries such farms for real.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What of the protocol two versions have to share, one line each: fields with number and type, values of enums, calls.
fn spoken() -> BTreeSet<String> {
    let files = fs::read_dir(top().join("proto/rdcc/v1")).expect("the protocol's directory");
    let mut compiler = protox::Compiler::new([top().join("proto")]).expect("a directory");
    compiler
        .open_files(files.map(|entry| entry.expect("an entry").path()))
        .expect("the protocol");
    let pool = compiler.descriptor_pool();
    let mut lines = BTreeSet::new();
    for field in pool
        .all_messages()
        .flat_map(|message| message.fields().collect::<Vec<_>>())
    {
        let (message, is) = (field.parent_message().full_name(), field.field_descriptor_proto());
        let mut line = format!("{message} {} {} {:?}", field.number(), field.name(), is.r#type());
        if let Some(of) = &is.type_name {
            write!(line, " {of}").expect("a string");
        }
        line.push_str(if field.is_list() || field.is_map() {
            " repeated"
        } else {
            ""
        });
        lines.insert(line);
    }
    for value in pool.all_enums().flat_map(|of| of.values().collect::<Vec<_>>()) {
        let of = value.parent_enum().full_name();
        lines.insert(format!("{of} {} {}", value.number(), value.name()));
    }
    for call in pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
    {
        let stream = |streams| if streams { "stream " } else { "" };
        lines.insert(format!(
            "{}/{} {}.{} -> {}.{}",
            call.parent_service().full_name(),
            call.name(),
            stream(call.is_client_streaming()),
            call.input().full_name(),
            stream(call.is_server_streaming()),
            call.output().full_name()
        ));
    }
    lines
}

#[test]
fn nothing_that_was_ever_spoken_has_changed() {
    let kept = fs::read_to_string(top().join("proto/kept.txt")).expect("proto/kept.txt");
    let kept: BTreeSet<String> = kept.lines().map(str::to_owned).collect();
    let spoken = spoken();
    let listed = |lines: Vec<&String>| lines.iter().fold(String::new(), |all, line| all + line + "\n");
    let gone = listed(kept.difference(&spoken).collect());
    assert!(
        gone.is_empty(),
        "members of the version before speak this still; add new fields beside it instead:\n{gone}"
    );
    let new = listed(spoken.difference(&kept).collect());
    assert!(
        new.is_empty(),
        "new in the protocol; add these lines to proto/kept.txt:\n{new}"
    );
}
