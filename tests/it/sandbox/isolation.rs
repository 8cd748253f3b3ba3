//! What a job can see and do.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;

use rdcc::job::Status;
use rdcc::worker::sandbox::{landlock_is_enough, landlock_version};

use super::world::{EVERY_WAY, USER_SPACES};
use crate::sandbox_test;

sandbox_test!(
    a_job_sees_its_layers_and_nothing_of_the_node,
    EVERY_WAY,
    |world| async move {
        assert_eq!(world.probe(&["list", "/"]).await, ".\n..\nbin\ndev\nproc\ntmp\nwork\n");
        assert_eq!(world.probe(&["show", "/work/input.h"]).await, "int x;\n");
        for hidden in [
            "/etc/passwd",
            "/base",
            "/sys",
            "/proc/sys/kernel/hostname",
            world.base.path().to_str().unwrap(),
        ] {
            let finished = world.run(world.job(&["show", hidden])).await.unwrap();
            assert_eq!(finished.status, Status::Exited(1), "{hidden}");
        }
        let devices = ".\n..\nfd\nfull\nnull\nrandom\nstderr\nstdin\nstdout\nurandom\nzero\n";
        assert_eq!(world.probe(&["list", "/dev"]).await, devices);
        assert_eq!(world.probe(&["list", "/tmp"]).await, ".\n..\n");
    }
);

sandbox_test!(a_job_has_no_network, EVERY_WAY, |world| async move {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    world.probe(&["connect", &port]).await;
});

sandbox_test!(
    a_job_meets_the_filter_before_the_kernel,
    EVERY_WAY,
    |world| async move {
        world.probe(&["filter"]).await;
    }
);

sandbox_test!(
    a_job_is_tied_to_its_root_and_free_below_it,
    EVERY_WAY,
    |world| async move {
        if landlock_version().is_ok_and(landlock_is_enough) {
            world.probe(&["tied"]).await;
        } else {
            println!("skipped: no Landlock here");
        }
    }
);

sandbox_test!(a_job_is_nobody_special, EVERY_WAY, |world| async move {
    world.probe(&["signals"]).await;
    let status = world.probe(&["show", "/proc/self/status"]).await;
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let uid = match rustix::process::geteuid().as_raw() {
        0 => 65534,
        own => own,
    };
    assert_eq!(world.probe(&["who"]).await, format!("{uid} 2 1 {host}\n"));
});

sandbox_test!(calls_that_need_privileges_fail, USER_SPACES, |world| async move {
    world.probe(&["privileges"]).await;
});

sandbox_test!(
    a_job_inherits_nothing_but_its_three_streams,
    EVERY_WAY,
    |world| async move {
        let listing = world.probe(&["list", "/proc/self/fd"]).await;
        // The fourth is the listing's own.
        assert_eq!(listing, ".\n..\n0\n1\n2\n3\n");
        assert_eq!(world.probe(&["show", "/dev/stdin"]).await, "");
        let processes = world.probe(&["list", "/proc"]).await;
        let processes: Vec<&str> = processes.lines().filter(|name| name.parse::<u32>().is_ok()).collect();
        assert_eq!(processes, ["1", "2"]);
    }
);

sandbox_test!(
    arguments_and_environment_arrive_byte_for_byte,
    EVERY_WAY,
    |world| async move {
        let odd = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let mut job = world.job(&["args", "", "a b"]);
        job.argv.push(odd(b"\xff\n'\"\\$x"));
        job.env = vec![("A".into(), odd(b"\xfe=")), ("PATH".into(), OsString::new())];
        let finished = world.run(job).await.unwrap();
        assert_eq!(finished.stdout, b"probe\0args\0\0a b\0\xff\n'\"\\$x\0A=\xfe=\0PATH=\0");
    }
);

sandbox_test!(
    the_layer_on_top_is_seen_and_directories_merge,
    EVERY_WAY,
    |world| async move {
        let below = world.base.path().join("below");
        std::fs::create_dir_all(below.join("work/deep")).unwrap();
        std::fs::write(below.join("work/input.h"), "hidden").unwrap();
        std::fs::write(below.join("work/other.h"), "seen").unwrap();
        std::fs::write(below.join("work/deep/x.h"), "deep").unwrap();
        std::os::unix::fs::symlink("other.h", below.join("work/link.h")).unwrap();
        let show = |path: &str| {
            let mut job = world.job(&["show", path]);
            job.lower.push(below.clone());
            job
        };
        for (path, content) in [
            ("input.h", "int x;\n"),
            ("other.h", "seen"),
            ("deep/x.h", "deep"),
            ("link.h", "seen"),
        ] {
            let finished = world.run(show(path)).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&finished.stdout), content, "{path}");
        }
    }
);
