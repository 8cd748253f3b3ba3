//! The walls that one crate does not give by itself: who may import whom, what pure files may not name, how long a
//! file may be. ARCHITECTURE.md states these rules; this test keeps them true.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;

/// Decisions: no clock, files, environment, processes, sockets or async in these. A path stands for all below it.
const PURE: &[&str] = &[
    "src/ids.rs",
    "src/digest.rs",
    "src/job.rs",
    "src/compile",
    "src/exchange",
    "src/includes/lexer.rs",
    "src/includes/reduce.rs",
    "src/includes/macros.rs",
    "src/includes/expand.rs",
    "src/includes/expression.rs",
    "src/includes/search.rs",
    "src/includes/predefined.rs",
    "src/toolchains/certification.rs",
    "src/toolchains/definition.rs",
    "src/toolchains/manifest.rs",
    "src/toolchains/objects.rs",
    "src/toolchains/profile.rs",
    "src/store/eviction.rs",
    "src/protocol/convert.rs",
    "src/protocol/version.rs",
    "src/protocol/token.rs",
    "src/runtime/backoff.rs",
    "src/trust/identity.rs",
    "src/trust/join_string.rs",
    "src/admin/check_report.rs",
    "src/admin/masquerade_names.rs",
    "src/client/invocation.rs",
    "src/agent/builds.rs",
    "src/agent/flags_class.rs",
    "src/agent/flow.rs",
    "src/agent/forecast.rs",
    "src/agent/local_room.rs",
    "src/agent/local_share.rs",
    "src/agent/placing.rs",
    "src/agent/race.rs",
    "src/agent/fallback.rs",
    "src/agent/policy.rs",
    "src/agent/verify.rs",
    "src/coordinator/access.rs",
    "src/coordinator/agents.rs",
    "src/coordinator/ahead.rs",
    "src/coordinator/audit.rs",
    "src/coordinator/bound.rs",
    "src/coordinator/cores.rs",
    "src/coordinator/events.rs",
    "src/coordinator/fairness.rs",
    "src/coordinator/grants.rs",
    "src/coordinator/health.rs",
    "src/coordinator/refusals.rs",
    "src/coordinator/kept_speeds.rs",
    "src/coordinator/quarantine.rs",
    "src/coordinator/learning.rs",
    "src/coordinator/members.rs",
    "src/coordinator/moment.rs",
    "src/coordinator/outlook.rs",
    "src/coordinator/placement.rs",
    "src/coordinator/queue.rs",
    "src/coordinator/rules.rs",
    "src/coordinator/scheduler.rs",
    "src/coordinator/scopes.rs",
    "src/coordinator/serving.rs",
    "src/coordinator/settings.rs",
    "src/coordinator/speed.rs",
    "src/coordinator/supplies.rs",
    "src/coordinator/timers.rs",
    "src/coordinator/transfer.rs",
    "src/coordinator/variants.rs",
    "src/coordinator/view.rs",
    "src/coordinator/workers.rs",
    "src/worker/sandbox/filter.rs",
    "src/worker/slots.rs",
    "src/worker/mirror_plan.rs",
    "src/worker/settings.rs",
];

const IMPURE_WORDS: &[&str] = &[
    "tokio::",
    "tonic::",
    "std::fs",
    "std::env",
    "std::process",
    "std::net",
    "Instant::now",
    "SystemTime::now",
    "rustix::",
];

const ROLES: &[&str] = &["client", "agent", "coordinator", "worker", "admin"];

fn rust_files(below: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(below)
        .expect("a source directory can be read")
        .map(|entry| entry.expect("a directory entry can be read").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file: path relative to the crate, whole text, and the text before its tests.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for below in ["src", "tests", "benches", "fuzz/src"] {
        let below = root.join(below);
        if below.is_dir() {
            rust_files(&below, &mut files);
        }
    }
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).expect("below the root");
            let text = fs::read_to_string(&path).expect("source files are UTF-8");
            (name.to_string_lossy().into_owned(), text)
        })
        .collect()
}

/// The part of a file that is not its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.ends_with("/tests.rs") || name.contains("/tests/")
}

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("")))
}

fn report(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            broken.push(format!("{name}: does not open with `//!`"));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{name}: {lines} lines, more than {FILE_LINES_MAX}: split it"));
        }
    }
    report(broken);
}

#[test]
fn pure_files_name_nothing_of_the_world() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let pure = PURE
            .iter()
            .any(|path| name == *path || name.starts_with(&format!("{path}/")));
        if !pure || is_test_file(&name) {
            continue;
        }
        for (line, code) in code_lines(without_tests(&text)) {
            for word in IMPURE_WORDS {
                if code.contains(word) {
                    broken.push(format!("{name}:{line}: a decision names `{word}`"));
                }
            }
        }
    }
    report(broken);
}

#[test]
fn roles_do_not_import_each_other() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let Some(role) = ROLES.iter().find(|role| name.starts_with(&format!("src/{role}/"))) else {
            continue;
        };
        if is_test_file(&name) {
            continue;
        }
        for (line, code) in code_lines(without_tests(&text)) {
            for other in ROLES.iter().filter(|other| other != &role) {
                if code.contains(&format!("crate::{other}::")) {
                    broken.push(format!("{name}:{line}: `{role}` imports `{other}`"));
                }
            }
        }
    }
    report(broken);
}

#[test]
fn lower_layers_do_not_reach_up() {
    // (who, what it may not name): vocabulary and adapters never a role, decisions never an adapter.
    let roles: Vec<String> = ROLES.iter().map(|role| format!("crate::{role}::")).collect();
    let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
    let adapters = [
        "crate::store::",
        "crate::protocol::",
        "crate::runtime::",
        "crate::telemetry::",
    ];
    let mut broken = Vec::new();
    for (name, text) in sources() {
        let below = |folder: &str| name.starts_with(&format!("src/{folder}"));
        let mut forbidden: Vec<&str> = Vec::new();
        if [
            "store/",
            "protocol/",
            "runtime/",
            "telemetry/",
            "compile/",
            "includes/",
            "toolchains/",
            "exchange/",
            "trust/",
        ]
        .iter()
        .any(|folder| below(folder))
            || ["ids.rs", "digest.rs", "job.rs"].iter().any(|file| below(file))
        {
            forbidden.extend(&roles);
        }
        if ["compile/", "includes/", "ids.rs", "digest.rs", "job.rs"]
            .iter()
            .any(|part| below(part))
        {
            forbidden.extend(adapters);
        }
        if below("compile/") {
            forbidden.push("crate::includes::");
        }
        if is_test_file(&name) {
            continue;
        }
        for (line, code) in code_lines(without_tests(&text)) {
            for word in &forbidden {
                if code.contains(word) {
                    broken.push(format!("{name}:{line}: may not name `{word}`"));
                }
            }
        }
    }
    report(broken);
}

#[test]
fn wire_types_stop_at_the_handlers() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        // A handler's own directory holds what it is made of, such as its conversions.
        let handler = name.starts_with("src/protocol/")
            || name.contains("/service/")
            || ["service.rs", "session.rs", "link.rs", "rpc.rs"]
                .iter()
                .any(|end| name.ends_with(end));
        if handler || is_test_file(&name) || !name.starts_with("src/") {
            continue;
        }
        for (line, code) in code_lines(without_tests(&text)) {
            if code.contains("protocol::wire") {
                broken.push(format!("{name}:{line}: generated types outside the handlers"));
            }
        }
    }
    report(broken);
}

#[test]
fn only_one_file_spawns_tasks() {
    let mut broken = Vec::new();
    for (name, text) in sources() {
        if name == "src/runtime/tasks.rs" || is_test_file(&name) {
            continue;
        }
        for (line, code) in code_lines(without_tests(&text)) {
            if code.contains("tokio::spawn") || code.contains("task::spawn") {
                broken.push(format!("{name}:{line}: spawns by itself; use `runtime::tasks::Tasks`"));
            }
        }
    }
    report(broken);
}

#[test]
fn every_integration_test_file_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut broken = Vec::new();
    for suite in ["it", "sim"] {
        let main = fs::read_to_string(root.join(suite).join("main.rs")).expect("the suite has a main.rs");
        for entry in fs::read_dir(root.join(suite)).expect("the suite can be read") {
            let path = entry.expect("a directory entry can be read").path();
            let stem = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default();
            let module = path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
            if module && stem != "main" && !main.contains(&format!("mod {stem};")) {
                broken.push(format!("tests/{suite}/{stem} is not listed in main.rs"));
            }
        }
    }
    report(broken);
}
