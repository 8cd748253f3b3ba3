//! What comes back from a job, and what must not change.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rdcc::job::{Status, Terminal};
use rdcc::worker::sandbox::{Change, ChangeKind, Finished, Limit, SandboxError};

use super::world::{EVERY_WAY, OVERLAYS, World};
use crate::sandbox_test;

fn file(path: &str, mode: u32, size: u64) -> Change {
    Change {
        path: path.into(),
        kind: ChangeKind::File { mode, size },
    }
}

fn content(finished: &Finished, path: &str) -> String {
    let mut text = String::new();
    let mut file = finished.outputs.open(Path::new(path)).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Everything about a tree that a job might have changed.
fn snapshot(below: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![below.to_owned()];
    while let Some(path) = waiting.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        if about.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, (about.mode(), about.size(), about.mtime(), about.ctime()));
    }
    found
}

async fn outputs(world: &World, arguments: &[&str]) -> Vec<Change> {
    let finished = world.run(world.job(arguments)).await.unwrap();
    assert_eq!(
        finished.status,
        Status::Exited(0),
        "{}",
        String::from_utf8_lossy(&finished.stderr)
    );
    finished.outputs.changes().to_vec()
}

sandbox_test!(
    written_files_come_back_with_the_clients_umask_applied,
    EVERY_WAY,
    |world| async move {
        for (umask, mode) in [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)] {
            let mut job = world.job(&["write", "a.o", "3"]);
            job.umask = umask;
            let finished = world.run(job).await.unwrap();
            assert_eq!(finished.outputs.changes(), [file("/work/a.o", mode, 3)]);
            assert_eq!(content(&finished, "/work/a.o"), "xxx");
        }
        let mut job = world.job(&["umask"]);
        job.umask = 0o137;
        assert_eq!(world.run(job).await.unwrap().stdout, b"137\n");
    }
);

sandbox_test!(a_job_changes_only_its_own_layer, OVERLAYS, |world| async move {
    world.put("work/old.o", "old");
    world.put("include/sys/x.h", "x");
    let before = snapshot(&world.layer);
    assert_eq!(
        outputs(&world, &["write", "old.o", "5"]).await,
        [file("/work/old.o", 0o644, 5)]
    );
    assert_eq!(
        outputs(&world, &["write", "/include/sys/y", "1"]).await,
        [file("/include/sys/y", 0o644, 1)]
    );
    let removed = Change {
        path: "/work/old.o".into(),
        kind: ChangeKind::Removed,
    };
    assert_eq!(
        outputs(&world, &["remove", "old.o"]).await,
        std::slice::from_ref(&removed)
    );
    let renamed = outputs(&world, &["rename", "old.o", "new.o"]).await;
    assert_eq!(renamed, [file("/work/new.o", 0o644, 3), removed]);
    assert_eq!(snapshot(&world.layer), before);
    assert_eq!(
        world.probe(&["show", "/work/old.o"]).await,
        "old",
        "the next job sees nothing of the last"
    );
});

sandbox_test!(
    without_an_overlay_named_directories_are_writable_and_nothing_else,
    EVERY_WAY,
    |world| async move {
        world.put("out/there.h", "there");
        world.put("out/sub/deep.h", "deep");
        world.put("kept/x.h", "x");
        let before = snapshot(&world.layer);
        let mut job = world.job(&["write", "/out/sub/a.o", "2"]);
        job.writable_dirs = vec!["/out/sub".into()];
        let finished = world.run(job).await.unwrap();
        assert_eq!(finished.outputs.changes(), [file("/out/sub/a.o", 0o644, 2)]);
        let mut job = world.job(&["write", "/out/missing/a.o", "2"]);
        job.writable_dirs = vec!["/out/missing".into()];
        let finished = world.run(job).await.unwrap();
        assert!(String::from_utf8_lossy(&finished.stderr).contains("No such file"));
        for (path, text) in [("/out/there.h", "there"), ("/out/sub/deep.h", "deep")] {
            let mut job = world.job(&["show", path]);
            job.writable_dirs = vec!["/out/sub".into()];
            assert_eq!(world.run(job).await.unwrap().stdout, text.as_bytes());
        }
        if !OVERLAYS.contains(&world.mode) {
            let finished = world.run(world.job(&["write", "/kept/a.o", "2"])).await.unwrap();
            assert_eq!(finished.status, Status::Exited(1));
            assert!(String::from_utf8_lossy(&finished.stderr).contains("Read-only file system"));
            assert_eq!(finished.killed_by, Some(Limit::Writing));
            let finished = world.run(world.job(&["write", "/work/input.h", "2"])).await.unwrap();
            assert_eq!(finished.status, Status::Exited(1));
            assert_eq!(finished.killed_by, Some(Limit::Writing));
        }
        assert_eq!(snapshot(&world.layer), before);
    }
);

sandbox_test!(
    outputs_that_stand_already_can_be_replaced_removed_or_left,
    EVERY_WAY,
    |world| async move {
        world.put("out/old.o", "old");
        world.put("work/old.d", "list");
        let before = snapshot(&world.layer);
        let run = async |arguments: &[&str]| {
            let mut job = world.job(arguments);
            job.outputs = vec!["/out/old.o".into(), "/work/old.d".into(), "/out/none.o".into()];
            let finished = world.run(job).await.unwrap();
            assert_eq!((finished.status, finished.killed_by), (Status::Exited(0), None));
            finished.outputs.changes().to_vec()
        };
        let removed = Change {
            path: "/out/old.o".into(),
            kind: ChangeKind::Removed,
        };
        assert_eq!(run(&["exit", "0"]).await, []);
        assert_eq!(run(&["write", "/out/old.o", "5"]).await, [file("/out/old.o", 0o644, 5)]);
        assert_eq!(
            run(&["write", "../out/../out/none.o", "5"]).await,
            [file("/out/none.o", 0o644, 5)]
        );
        assert_eq!(run(&["write", "old.d", "4"]).await, [file("/work/old.d", 0o644, 4)]);
        assert_eq!(run(&["remove", "/out/old.o"]).await, std::slice::from_ref(&removed));
        assert_eq!(
            run(&["rename", "/out/old.o", "/work/old.d"]).await,
            [removed, file("/work/old.d", 0o644, 3)]
        );
        assert_eq!(snapshot(&world.layer), before);
    }
);

sandbox_test!(
    the_drivers_temporary_files_are_not_outputs,
    EVERY_WAY,
    |world| async move {
        assert_eq!(outputs(&world, &["write", "/tmp/ccAbCdEf.s", "9"]).await, []);
        assert_eq!(
            outputs(&world, &["write", "/tmp/a.o", "9"]).await,
            [file("/tmp/a.o", 0o644, 9)]
        );
    }
);

sandbox_test!(missing_directories_are_made, EVERY_WAY, |world| async move {
    let mut job = world.job(&["write", "../../b/a.o", "1"]);
    job.cwd = "/home/u/src/a/b/c".into();
    job.make_dirs = vec!["/home/u/inc".into(), "/work".into()];
    let finished = world.run(job).await.unwrap();
    assert_eq!(finished.outputs.changes(), [file("/home/u/src/a/b/a.o", 0o644, 1)]);
    let mut job = world.job(&["list", "/home/u"]);
    job.make_dirs = vec!["/home/u/inc".into()];
    assert_eq!(world.run(job).await.unwrap().stdout, b".\n..\ninc\n");
});

sandbox_test!(
    a_working_directory_that_is_a_file_is_an_error_of_ours,
    EVERY_WAY,
    |world| async move {
        let mut job = world.job(&["exit", "0"]);
        job.cwd = "/work/input.h/x".into();
        assert!(matches!(world.run(job).await, Err(SandboxError::Root { .. })));
        world.probe(&["exit", "0"]).await;
    }
);

sandbox_test!(status_and_words_come_back_as_they_were, EVERY_WAY, |world| async move {
    for (arguments, status) in [
        (["exit", "0"], Status::Exited(0)),
        (["exit", "4"], Status::Exited(4)),
        (["exit", "255"], Status::Exited(255)),
        (["abort", ""], Status::Signaled(6)),
        (["signal", "11"], Status::Signaled(11)),
        (["signal", "15"], Status::Signaled(15)),
        (["signal", "13"], Status::Signaled(13)),
    ] {
        let finished = world.run(world.job(&arguments)).await.unwrap();
        assert_eq!((finished.status, finished.killed_by), (status, None), "{arguments:?}");
    }
    let finished = world.run(world.job(&["say", "out\r\n", "err\n\n"])).await.unwrap();
    assert_eq!(
        (&finished.stdout[..], &finished.stderr[..]),
        (&b"out\r\n"[..], &b"err\n\n"[..])
    );
});

sandbox_test!(
    a_terminal_is_one_for_the_job_and_adds_nothing,
    EVERY_WAY,
    |world| async move {
        assert_eq!(world.probe(&["terminal"]).await, "0 0 0 0\n");
        let size = Terminal { columns: 97, rows: 31 };
        let mut job = world.job(&["terminal"]);
        job.terminal = Some(size);
        assert_eq!(world.run(job).await.unwrap().stdout, b"0 1 97 31\n");
        // More than a terminal holds at once.
        let mut job = world.job(&["every-byte", "300"]);
        job.terminal = Some(size);
        let finished = world.run(job).await.unwrap();
        assert_eq!(finished.status, Status::Exited(0));
        let expected: Vec<u8> = (0..300).flat_map(|_| 0..=255).collect();
        assert!(finished.stderr == expected, "{} bytes came back", finished.stderr.len());
    }
);

sandbox_test!(
    a_program_that_cannot_be_executed_is_not_a_status,
    EVERY_WAY,
    |world| async move {
        for (program, kind) in [
            ("/bin/absent", io::ErrorKind::NotFound),
            ("/work/input.h", io::ErrorKind::PermissionDenied),
            ("/work", io::ErrorKind::PermissionDenied),
        ] {
            let mut job = world.job(&["exit", "0"]);
            job.program = program.into();
            match world.run(job).await {
                Err(SandboxError::Program { program: named, source }) => {
                    assert_eq!((named.as_path(), source.kind()), (Path::new(program), kind));
                }
                other => panic!("{program}: {other:?}"),
            }
        }
        world.probe(&["exit", "0"]).await;
    }
);
