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
    let files: Vec<_> = files.map(|entry| entry.expect("an entry").path()).collect();
    let set = protox::compile(files, [top().join("proto")]).expect("the protocol");
    let mut lines = BTreeSet::new();
    for file in set.file {
        let package = file.package().to_owned();
        let mut messages: Vec<_> = file
            .message_type
            .into_iter()
            .map(|message| (package.clone(), message))
            .collect();
        let mut enums: Vec<_> = file.enum_type.into_iter().map(|of| (package.clone(), of)).collect();
        while let Some((scope, message)) = messages.pop() {
            let name = format!("{scope}.{}", message.name());
            for field in &message.field {
                let mut line = format!("{name} {} {} {:?}", field.number(), field.name(), field.r#type());
                if let Some(of) = &field.type_name {
                    write!(line, " {of}").expect("a string");
                }
                let repeated = format!("{:?}", field.label()).contains("Repeated");
                line.push_str(if repeated { " repeated" } else { "" });
                lines.insert(line);
            }
            messages.extend(message.nested_type.into_iter().map(|nested| (name.clone(), nested)));
            enums.extend(message.enum_type.into_iter().map(|nested| (name.clone(), nested)));
        }
        for (scope, of) in enums {
            for value in &of.value {
                lines.insert(format!("{scope}.{} {} {}", of.name(), value.number(), value.name()));
            }
        }
        for service in &file.service {
            for call in &service.method {
                let stream = |streams| if streams { "stream " } else { "" };
                lines.insert(format!(
                    "{package}.{}/{} {}{} -> {}{}",
                    service.name(),
                    call.name(),
                    stream(call.client_streaming()),
                    call.input_type(),
                    stream(call.server_streaming()),
                    call.output_type()
                ));
            }
        }
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
