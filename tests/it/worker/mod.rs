//! A worker's machinery with the real sandbox and a real cross compiler, driven through an agent's link.
//!
//! Skipped with a word where Debian's `arm-linux-gnueabi-gcc` is not installed.

mod farm;
mod variants;

use std::fs;

use rdcc::agent::worker_link::LinkError;
use rdcc::job::{OutputKind, RefusalKind, Status};
use rdcc::worker::sandbox::Mode;

use self::farm::Farm;

const SOURCE: &str = r#"
#include <stddef.h>
#include "once.h"
#include "sub/once.h"
#include "linked/deep.h"
int main(void) { return ONCE + SUB_ONCE + DEEP + (int)sizeof(size_t); }
const char *where = __FILE__ " " __TIMESTAMP__;
"#;

fn write_tree(farm: &Farm) {
    farm.write("a.c", SOURCE);
    // Equal content at two paths: told apart by `#pragma once` only when times differ.
    let once = "#pragma once\n#ifdef ONCE\n#define SUB_ONCE 2\n#else\n#define ONCE 1\n#endif\n";
    farm.write("once.h", once);
    farm.write("sub/once.h", once);
    farm.set_time("sub/once.h", 1_000_000_000);
    farm.write("real/deep.h", "#define DEEP 3\n");
    std::os::unix::fs::symlink("real", farm.path("linked")).expect("a link");
}

#[tokio::test]
async fn object_dependencies_and_diagnostics_equal_the_local_ones() {
    let Some(farm) = Farm::start(2).await else { return };
    write_tree(&farm);
    let flags = [
        "-O2",
        "-g",
        "-Wall",
        "-Wextra",
        "-MD",
        "-MF",
        "a.d",
        "-fdiagnostics-color=always",
        "-save-temps",
    ];
    let local = farm.compile_locally("a.c", "a.o", &flags);
    let job = farm.job("a.c", "a.o", &flags);
    let outcome = farm.link.run(job).await.expect("runs");
    assert_eq!(
        outcome.status,
        Status::Exited(0),
        "{}",
        String::from_utf8_lossy(&outcome.stderr)
    );
    assert_eq!(outcome.stderr, local.stderr);
    let mut names = Vec::new();
    for output in &outcome.outputs {
        let OutputKind::File { content, .. } = &output.kind else {
            panic!("{output:?}")
        };
        let name = output.path.file_name().expect("a file").to_owned();
        assert!(
            *content == fs::read(&output.path).expect("the local one"),
            "{} differs",
            name.display()
        );
        names.push(name);
    }
    assert_eq!(names, ["a.d", "a.i", "a.o", "a.s"]);
}

#[tokio::test]
async fn compiler_errors_are_outcomes_and_a_stale_object_is_removed() {
    let Some(farm) = Farm::start(1).await else { return };
    farm.write("bad.c", "int f(void) { return nothing; }\n");
    let job = farm.job("bad.c", "bad.o", &[]);
    let outcome = farm.link.run(job).await.expect("runs");
    let local = farm.compile_locally("bad.c", "bad.o", &[]);
    assert_eq!((outcome.status, outcome.stderr), (Status::Exited(1), local.stderr));
    assert!(outcome.outputs.is_empty());
    // With a pipe to the assembler, gcc removes what stood there; without, it never got that far.
    let mut job = farm.job("bad.c", "bad.o", &["-pipe"]);
    farm.write("bad.o", "");
    farm.add_input(&mut job, "bad.o");
    let outcome = farm.link.run(job).await.expect("runs");
    assert!(matches!(outcome.outputs.as_slice(), [removed] if removed.kind == OutputKind::Removed));
}

#[tokio::test]
async fn without_an_overlay_outputs_go_wherever_the_command_says() {
    for mode in [Mode::UserBinds, Mode::RootBinds] {
        if mode == Mode::RootBinds && !rustix::process::geteuid().is_root() {
            continue;
        }
        let Some(farm) = Farm::start_with(1, &[mode]).await else {
            return;
        };
        farm.write("a.c", "int a;\n");
        farm.write("sub/x", "");
        farm.write("lists/x", "");
        farm.write("out/a.o", "stale");
        let (object, list) = ("sub/../out/a.o", "sub/../lists/a.d");
        let flags = ["-MD", "-MF", list];
        let mut job = farm.job("a.c", object, &flags);
        for name in ["sub", "lists", "out/a.o"] {
            farm.add_input(&mut job, name);
        }
        let unaware = farm.job_with(job.spec.argv.clone(), job.inputs.to_vec());
        let refused = farm.link.run(unaware).await;
        assert!(
            matches!(&refused, Err(LinkError::Refused(refusal)) if refusal.kind == RefusalKind::ReadOnly),
            "{mode}: {refused:?}"
        );
        job.spec.outputs = vec![farm.path("out/a.o"), farm.path("lists/a.d")];
        job.spec.output_dirs = vec![farm.path("lists"), farm.path("out")];
        let outcome = farm.link.run(job).await.expect("runs");
        let local = farm.compile_locally("a.c", object, &flags);
        assert_eq!((outcome.status, &outcome.stderr), (Status::Exited(0), &local.stderr));
        let came: Vec<_> = outcome.outputs.iter().map(|output| output.path.clone()).collect();
        assert_eq!(came, [farm.path("lists/a.d"), farm.path("out/a.o")], "{mode}");
        for output in &outcome.outputs {
            let expected = fs::read(&output.path).expect("the local one");
            assert!(matches!(&output.kind, OutputKind::File { content, .. } if *content == expected));
        }
    }
}

#[tokio::test]
async fn many_jobs_share_what_they_read_and_none_sees_another_ones_edit() {
    let Some(farm) = Farm::start(2).await else { return };
    for round in 0..3 {
        farm.write("shared.h", &format!("#define ROUND {round}\n"));
        let mut running = Vec::new();
        for unit in 0..4 {
            let name = format!("u{unit}.c");
            farm.write(&name, &format!("#include \"shared.h\"\nint unit{unit} = ROUND;\n"));
            let local = farm.compile_locally(&name, "local.o", &["-O1"]);
            assert!(local.status.success());
            let expected = fs::read(farm.path("local.o")).expect("compiled");
            let job = farm.job(&name, "u.o", &["-O1"]);
            running.push(farm.start_job(job, expected));
        }
        for ended in running {
            let (outcome, expected) = ended.await.expect("answered");
            let outcome = outcome.unwrap_or_else(|error: LinkError| panic!("{error}"));
            assert!(matches!(&outcome.outputs[0].kind, OutputKind::File { content, .. } if *content == expected));
        }
    }
}
