//! Lists compared, outputs sorted, machines told apart.

use super::*;

fn compare(list: &str, found: &[&str]) -> Result<(), Difference> {
    compare_lists(list.as_bytes(), found.iter().map(Path::new))
}

#[test]
fn equal_lists_are_equal_however_they_are_wrapped() {
    let rows: [(&str, &[&str]); 6] = [
        ("a.o: a.c b.h\n", &["a.c", "b.h"]),
        ("a.o: a.c \\\n b.h\n", &["a.c", "b.h"]),
        ("a.o: a.c b.h\nb.h:\n", &["a.c", "b.h"]),
        ("t:\n", &[]),
        ("a.o: a\\ b.c d$$x.h\n", &["a b.c", "d$x.h"]),
        ("b:o.o: a.c\n", &["a.c"]),
    ];
    for (list, found) in rows {
        assert_eq!(compare(list, found), Ok(()), "{list:?}");
    }
}

#[test]
fn any_difference_is_found_and_named() {
    let rows: [(&str, &[&str], &str); 6] = [
        (
            "a.o: a.c b.h\n",
            &["a.c"],
            "read by the compiler only: b.h; found by the scan only: ",
        ),
        ("a.o: a.c\n", &["a.c", "b.h"], "found by the scan only: b.h"),
        (
            "a.o: a.c b.h c.h\n",
            &["a.c", "c.h", "b.h"],
            "the compiler read the same files in another order",
        ),
        (
            "a.o: a.c b.hh\n",
            &["a.c", "b.h"],
            "read by the compiler only: b.hh; found by the scan only: b.h",
        ),
        ("a.o", &["a.c"], "the compiler's list of dependencies cannot be read"),
        ("", &[], "the compiler's list of dependencies cannot be read"),
    ];
    for (list, found, words) in rows {
        let difference = compare(list, found).expect_err(list);
        assert_eq!(difference.to_string(), words, "{list:?}");
    }
}

fn file(path: &str) -> Output {
    Output {
        path: path.into(),
        kind: OutputKind::File {
            mode: 0o644,
            content: Vec::new(),
        },
    }
}

fn removed(path: &str) -> Output {
    Output {
        path: path.into(),
        kind: OutputKind::Removed,
    }
}

fn plain() -> Expected {
    Expected {
        object: "/b/a.o".into(),
        dependency_file: Some("/b/.a.d".into()),
        side_file_dirs: Vec::new(),
        named: Vec::new(),
    }
}

fn sort(outputs: &[Output], expected: &Expected, success: bool) -> Result<usize, (Reason, PathBuf)> {
    sort_outputs(outputs.to_vec(), expected, success, |path| path == Path::new("/b/a.h")).map(|kept| kept.len())
}

#[test]
fn what_the_command_writes_is_kept_and_left_overs_are_dropped() {
    let outputs = [file("/b/a.o"), file("/b/.a.d"), file("/tmp/ccX.s")];
    assert_eq!(sort(&outputs, &plain(), true), Ok(2));
    assert_eq!(sort(&[removed("/b/a.o")], &plain(), false), Ok(1));
}

#[test]
fn what_the_command_does_not_write_is_refused() {
    let unexpected = |path: &str| Err((Reason::OutputUnexpected, PathBuf::from(path)));
    let both = [file("/b/a.o"), file("/b/.a.d")];
    let with = |output: Output| [both.to_vec(), vec![output]].concat();
    for path in ["/home/u/.bashrc", "/b/a.su", "/tmp/sub/x"] {
        assert_eq!(sort(&with(file(path)), &plain(), true), unexpected(path));
    }
    let with_side_files = Expected {
        side_file_dirs: vec!["/b".into()],
        named: vec!["/l/list".into()],
        ..plain()
    };
    assert_eq!(sort(&with(file("/b/a.su")), &with_side_files, true), Ok(3));
    assert_eq!(sort(&with(file("/l/list")), &with_side_files, true), Ok(3));
    for output in [file("/b/a.h"), removed("/b/a.h"), file("/b/sub/x")] {
        let path = output.path.clone();
        let path = path.to_str().expect("plain");
        assert_eq!(sort(&with(output), &with_side_files, true), unexpected(path));
    }
}

#[test]
fn success_without_the_object_or_the_list_is_none() {
    let missing = |path: &str| Err((Reason::OutputMissing, PathBuf::from(path)));
    assert_eq!(sort(&[file("/b/.a.d")], &plain(), true), missing("/b/a.o"));
    assert_eq!(
        sort(&[removed("/b/a.o"), file("/b/.a.d")], &plain(), true),
        missing("/b/a.o")
    );
    assert_eq!(sort(&[file("/b/a.o")], &plain(), true), missing("/b/.a.d"));
    assert_eq!(sort(&[], &plain(), false), Ok(0));
}

#[test]
fn object_for_another_machine_is_noticed() {
    let elf = |machine: u8, order: u8| {
        let mut header = b"\x7fELF\x01\x00".to_vec();
        header[5] = order;
        header.resize(18, 0);
        header.extend(if order == 2 { [0, machine] } else { [machine, 0] });
        header
    };
    let rows = [
        (elf(40, 1), "arm-linux-gnueabi", false),
        (elf(62, 1), "arm-linux-gnueabi", true),
        (elf(183, 1), "aarch64-linux-gnu", false),
        (elf(3, 1), "x86_64-linux-gnu", false),
        (elf(8, 2), "mips-linux-gnu", false),
        (elf(40, 1), "m68k-linux-gnu", false),
        (b"\t.text\n".to_vec(), "arm-linux-gnueabi", false),
        (Vec::new(), "arm-linux-gnueabi", false),
    ];
    for (object, target, foreign) in rows {
        assert_eq!(is_foreign(&object, target), foreign, "{target}");
    }
}
