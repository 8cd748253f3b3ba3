//! Outputs on a real file system: replaced as gcc would, all or none, nothing left behind.

use std::os::unix::fs::symlink;

use super::*;

fn file(path: &Path, content: &str) -> Output {
    Output {
        path: path.to_path_buf(),
        kind: OutputKind::File {
            mode: 0o640,
            content: content.into(),
        },
    }
}

fn removed(path: &Path) -> Output {
    Output {
        path: path.to_path_buf(),
        kind: OutputKind::Removed,
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn files_appear_with_the_mode_of_the_job_and_removed_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("old.s"), "x").unwrap();
    let outputs = vec![
        file(&at("a.o"), "object"),
        file(&at("a.d"), "deps"),
        removed(&at("old.s")),
    ];
    stage(outputs, &at("a.o")).unwrap().commit().unwrap();
    assert_eq!(names(dir.path()), ["a.d", "a.o"]);
    assert_eq!(fs::read(at("a.o")).unwrap(), b"object");
    assert_eq!(mode(&at("a.o")), 0o640);
}

#[test]
fn nothing_is_visible_before_commit_and_nothing_stays_after_a_drop() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let staged = stage(vec![file(&at("a.o"), "object")], &at("a.o")).unwrap();
    assert!(!at("a.o").exists());
    if matches!(staged.files[0].written, Written::Nameless(_)) {
        assert!(names(dir.path()).is_empty());
    }
    drop(staged);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn files_get_their_names_with_and_without_a_temporary_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.o");
    let named = || Builder::new().make_in(dir.path(), create_new).map(Written::Named);
    let nameless = || Written::create_in(dir.path());
    for number in 0..4 {
        let written = if number % 3 == 0 { named() } else { nameless() }.unwrap();
        written.file().write_all(&[number]).unwrap();
        written.name(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [number]);
        assert_eq!(names(dir.path()), ["a.o"]);
    }
    let lost = nameless().unwrap();
    fs::remove_file(&path).unwrap();
    lost.name(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert!(nameless().unwrap().name(&dir.path().join("missing/a.o")).is_err());
    assert_eq!(names(dir.path()), ["a.o"]);
}

#[test]
fn object_is_renamed_last() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let staged = stage(
        vec![file(&at("a.o"), ""), file(&at("a.su"), ""), file(&at("a.d"), "")],
        &at("a.o"),
    )
    .unwrap();
    let order: Vec<&Path> = staged.files.iter().map(|file| file.path.as_path()).collect();
    assert_eq!(order, [at("a.su"), at("a.d"), at("a.o")]);
}

#[test]
fn failure_half_way_restores_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a.d"), "old deps").unwrap();
    let outputs = vec![
        file(&at("a.o"), "object"),
        file(&at("a.d"), "new deps"),
        file(&at("a.su"), "usage"),
    ];
    let staged = stage(outputs, &at("a.o")).unwrap();
    // What was free when the files were written is a directory when they are to appear.
    fs::create_dir(at("a.o")).unwrap();
    assert!(staged.commit().is_err());
    assert_eq!(names(dir.path()), ["a.d", "a.o"]);
    assert_eq!(fs::read(at("a.d")).unwrap(), b"old deps");
}

#[test]
fn missing_directory_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none/a.o");
    let error = stage(vec![file(&path, "")], &path).unwrap_err();
    assert!(matches!(error, OutputError::MissingDirectory(_)), "{error}");
}

#[test]
fn what_gcc_would_not_replace_is_left_to_gcc() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("dir.o")).unwrap();
    fs::write(at("full"), "x").unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::hard_link(at("full"), at("second.d")).unwrap();
    symlink("full", at("link.d")).unwrap();
    symlink("empty", at("link-to-empty.o")).unwrap();
    symlink("nothing", at("dangling.o")).unwrap();
    symlink("/dev/null", at("device.o")).unwrap();
    for name in [
        "dir.o",
        "second.d",
        "link.d",
        "link-to-empty.o",
        "dangling.o",
        "device.o",
    ] {
        let error = stage(vec![file(&at(name), "new")], &at("a.o")).unwrap_err();
        assert!(matches!(error, OutputError::Special(_)), "{name}: {error}");
    }
    assert_eq!(fs::read(at("full")).unwrap(), b"x");
}

#[test]
fn assembler_replaces_a_link_and_cc1_keeps_a_mode() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("full"), "x").unwrap();
    symlink("full", at("a.o")).unwrap();
    fs::write(at("a.d"), "old").unwrap();
    fs::set_permissions(at("a.d"), Permissions::from_mode(0o600)).unwrap();
    let outputs = vec![file(&at("a.o"), "object"), file(&at("a.d"), "deps")];
    stage(outputs, &at("a.o")).unwrap().commit().unwrap();
    assert!(fs::symlink_metadata(at("a.o")).unwrap().is_file());
    assert_eq!(fs::read(at("full")).unwrap(), b"x");
    assert_eq!((mode(&at("a.o")), mode(&at("a.d"))), (0o640, 0o600));
}

#[test]
fn a_path_twice_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.o");
    let error = stage(vec![file(&path, ""), removed(&path)], &path).unwrap_err();
    assert!(matches!(error, OutputError::Twice(_)), "{error}");
    assert!(names(dir.path()).is_empty());
}
