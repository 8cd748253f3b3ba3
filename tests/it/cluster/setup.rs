//! What a person does to get going: the check of every node, and a directory of links.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::farm::{COMPILER, TestFarm, has_compiler};

fn run(farm: &TestFarm, words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = farm.rdcc().args(words).output().expect("runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

fn results(farm: &TestFarm) -> Vec<(String, String)> {
    let findings = farm.json(&["check", "--toolchain", "arm926"]);
    let findings = findings.as_array().expect("a list");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    findings
        .iter()
        .map(|found| (text(&found["node"]), text(&found["result"])))
        .collect()
}

#[test]
fn check_asks_every_node_and_fails_when_one_does_not_answer() {
    if !has_compiler() {
        return;
    }
    let mut farm = TestFarm::with_workers(&[("n1", 1), ("n2", 2), ("n3", 1)]);
    let (status, said, complaint) = run(&farm, &["check", "--toolchain", "arm926"]);
    assert_eq!((status, complaint.as_str()), (Some(0), ""), "{said}{}", farm.logs());
    assert_eq!(said.matches("ok, the same objects").count(), 3, "{said}");
    let stats = farm.stats();
    for node in ["n1", "n2", "n3"] {
        // One for C, one for C++.
        assert_eq!(stats["remote_by_worker"][node], 2, "{stats:#}");
    }

    let (status, ..) = run(&farm, &["drain", "n3"]);
    assert_eq!(status, Some(0));
    farm.kill_worker("n2");
    let expected = [("n1", "same"), ("n2", "wrong"), ("n3", "not_asked")];
    let expected = expected.map(|(node, result)| (node.to_owned(), result.to_owned()));
    assert_eq!(results(&farm), expected);
    let (status, said, complaint) = run(&farm, &["check", "--toolchain", "arm926"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("WRONG: c: ") && said.contains("`n2`"), "{said}");
    assert!(complaint.contains("1 of 3 nodes"), "{complaint}");

    let (status, _, complaint) = run(&farm, &["check", "--toolchain", "unheard-of"]);
    assert_eq!(status, Some(1));
    assert!(complaint.contains("no toolchain `unheard-of`"), "{complaint}");
}

#[test]
fn masquerade_directory_is_made_used_and_removed() {
    if !has_compiler() {
        return;
    }
    let farm = TestFarm::with_workers(&[("n1", 1)]);
    let install = ["masquerade", "install", "links", "--toolchain", "arm926"];
    let links = farm.src().join("links");
    fs::create_dir(&links).expect("created");
    fs::write(links.join("gcc"), "mine").expect("written");
    let (status, _, complaint) = run(&farm, &install);
    assert_eq!(status, Some(1));
    assert!(complaint.contains("links/gcc` is something else"), "{complaint}");
    assert_eq!(fs::read_dir(&links).expect("read").count(), 1, "nothing was made");
    fs::rename(links.join("gcc"), links.join("notes")).expect("renamed");

    for round in 0..2 {
        let (status, said, complaint) = run(&farm, &install);
        assert_eq!((status, complaint.as_str()), (Some(0), ""), "{round}");
        assert!(
            said.contains(&format!("export PATH={}:$PATH", links.display())),
            "{said}"
        );
    }
    let rdcc = fs::canonicalize(env!("CARGO_BIN_EXE_rdcc")).expect("exists");
    assert_eq!(fs::canonicalize(links.join(COMPILER)).expect("linked"), rdcc);
    let leads_on = |name: &str| Path::new("/usr/bin").join(name).exists();
    for name in [
        "gcc",
        "cc",
        "g++",
        "c++",
        "arm-linux-gnueabi-g++",
        "arm-linux-gnueabi-cc",
    ] {
        assert_eq!(links.join(name).symlink_metadata().is_ok(), leads_on(name), "{name}");
    }

    farm.write("a.c", "int a(void) { return 1; }\n");
    let compile = |path: &str| {
        let mut shell = farm.client(Path::new("/bin/sh"));
        shell.args(["-c", &format!("{COMPILER} -c a.c && cat a.o")]);
        let output = shell.env("PATH", path).env("RDCC_STRICT", "1").output().expect("runs");
        assert!(output.status.success(), "{output:?}\n{}", farm.logs());
        output.stdout
    };
    let plain = "/usr/bin:/bin".to_owned();
    assert!(compile(&format!("{}:{plain}", links.display())) == compile(&plain));
    assert_eq!(farm.stats()["remote"], 1);

    let (status, said, _) = run(&farm, &["masquerade", "remove", "links"]);
    assert_eq!(status, Some(0), "{said}");
    let left: Vec<_> = fs::read_dir(&links).expect("still there").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].file_name(), "notes");
}
