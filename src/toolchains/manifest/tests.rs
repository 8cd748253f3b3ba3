//! Manifests: the text has one form, hostile ones are refused, and paths resolve as the kernel would.

use proptest::prelude::*;

use super::*;

pub(crate) fn directory() -> Entry {
    Entry::Directory { mode: MODE_EXECUTABLE }
}

pub(crate) fn file(mode: u32, content: &[u8]) -> Entry {
    Entry::File {
        mode,
        size: content.len() as u64,
        digest: Digest::of(content),
    }
}

pub(crate) fn link(target: &str) -> Entry {
    Entry::Symlink { target: target.into() }
}

/// A small toolchain with a merged `/usr`, a chain of links and one header.
pub(crate) fn sample_parts() -> Parts {
    let entries = [
        ("/lib", link("usr/lib")),
        ("/usr", directory()),
        ("/usr/bin", directory()),
        ("/usr/bin/cc", link("x-gcc")),
        ("/usr/bin/x-gcc", link("x-gcc-12")),
        ("/usr/bin/x-gcc-12", file(MODE_EXECUTABLE, b"driver")),
        ("/usr/lib", directory()),
        ("/usr/lib/gcc", directory()),
        ("/usr/lib/gcc/a b\\c.h", file(MODE_PLAIN, b"header")),
        ("/usr/lib/libc.so.6", file(MODE_PLAIN, b"libc")),
    ];
    Parts {
        host: "x86_64-linux".parse().unwrap(),
        target: "arm-linux-gnueabi".to_owned(),
        compilers: BTreeMap::from([(Language::C, PathBuf::from("/usr/bin/x-gcc"))]),
        flags: vec!["--sysroot=/a b".to_owned()],
        defaults: vec!["-marm".to_owned(), "-march=armv5te".to_owned()],
        library_path: vec![PathBuf::from("/usr/local/lib")],
        entries: entries
            .into_iter()
            .map(|(path, entry)| (PathBuf::from(path), entry))
            .collect(),
    }
}

pub(crate) fn sample() -> Manifest {
    Manifest::new(sample_parts()).unwrap()
}

#[test]
fn text_has_the_documented_form_and_round_trips() {
    let manifest = sample();
    let text = manifest.encode();
    let shown = String::from_utf8(text.clone()).unwrap();
    assert!(shown.starts_with(
        "rdcc-toolchain 1\nhost x86_64-linux\ntarget arm-linux-gnueabi\ncompiler c /usr/bin/x-gcc\n\
         flag --sysroot=/a\\x20b\ndefault -marm\ndefault -march=armv5te\n\
         library-path /usr/local/lib\nlink /lib usr/lib\ndirectory 755 /usr\n"
    ));
    assert!(shown.contains("/usr/lib/gcc/a\\x20b\\x5cc.h\n"));
    assert_eq!(Manifest::decode(&text).unwrap(), manifest);
    assert_eq!(manifest.id().0, Digest::of(&text));
}

#[test]
fn paths_resolve_through_links_as_the_kernel_would() {
    let manifest = sample();
    let resolve = |path: &str| {
        manifest
            .resolve(Path::new(path))
            .map(|(path, _)| path.to_str().unwrap().to_owned())
    };
    let cases = [
        ("/usr/bin/cc", Some("/usr/bin/x-gcc-12")),
        ("/lib/libc.so.6", Some("/usr/lib/libc.so.6")),
        ("/lib/../bin/cc", Some("/usr/bin/x-gcc-12")),
        ("/usr/lib/gcc/../../bin", Some("/usr/bin")),
        ("/", Some("/")),
        ("/../usr", Some("/usr")),
        ("/usr/bin/x-gcc-12/x", None),
        ("/usr/absent/../bin", None),
        ("/lib/absent", None),
    ];
    for (path, expected) in cases {
        assert_eq!(resolve(path).as_deref(), expected, "{path}");
    }
    assert!(manifest.entry(Path::new("/lib/libc.so.6")).is_none());
    assert!(manifest.covers(Path::new("/lib/libc.so.6")));
}

#[test]
fn link_loop_resolves_to_nothing() {
    let mut parts = sample_parts();
    parts.entries.push(("/zz".into(), link("zz")));
    let manifest = Manifest::new(parts).unwrap();
    assert!(!manifest.covers(Path::new("/zz")));
}

#[test]
fn key_files_are_programs_libraries_and_links() {
    let manifest = sample();
    let keys: Vec<_> = manifest.executables_key_files().collect();
    let expected = [
        "/lib",
        "/usr/bin/cc",
        "/usr/bin/x-gcc",
        "/usr/bin/x-gcc-12",
        "/usr/lib/libc.so.6",
    ];
    assert_eq!(keys, expected.map(Path::new));
}

#[test]
fn impossible_entries_are_refused() {
    let long = format!("/{}", "x".repeat(256));
    let deep = "/x".repeat(PATH_BYTES_MAX);
    let cases: &[(&str, Entry, &str)] = &[
        ("usr/x", directory(), "is not absolute"),
        ("/usr/../x", directory(), "shortest form"),
        ("/usr/./x", directory(), "shortest form"),
        ("//usr", directory(), "shortest form"),
        ("/zz/", directory(), "shortest form"),
        ("/", directory(), "shortest form"),
        ("/usr", directory(), "there twice"),
        ("/lib/x", file(0o644, b""), "not in a directory"),
        ("/nowhere/x", file(0o644, b""), "not in a directory"),
        ("/zz", file(0o4755, b""), "mode other than"),
        ("/zz", Entry::Directory { mode: 0o2755 }, "mode other than"),
        ("/zz", link(""), "link target"),
        ("/zz", link("a\0b"), "link target"),
        ("/zz\0", directory(), "zero byte"),
        (&long, directory(), "over 255 bytes"),
        (&deep, directory(), "too long"),
    ];
    for (path, entry, expected) in cases {
        let mut parts = sample_parts();
        parts.entries.push((PathBuf::from(path), entry.clone()));
        parts
            .entries
            .sort_by(|(a, _), (b, _)| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        let error = Manifest::new(parts).unwrap_err().to_string();
        assert!(error.contains(expected), "{path}: {error}");
    }
}

#[test]
fn impossible_fields_and_totals_are_refused() {
    let refused = |change: fn(&mut Parts)| {
        let mut parts = sample_parts();
        change(&mut parts);
        Manifest::new(parts).unwrap_err().to_string()
    };
    assert!(refused(|p| p.target = "a b".into()).contains("target"));
    assert!(refused(|p| p.compilers.clear()).contains("no compiler"));
    assert!(refused(|p| p.flags = vec!["x".into()]).contains("flag"));
    assert!(refused(|p| p.flags = vec!["-x".into(); 257]).contains("256"));
    assert!(refused(|p| p.library_path = vec!["x".into()]).contains("absolute"));
    let header = |p: &mut Parts| p.compilers = [(Language::C, "/usr/lib".into())].into();
    assert!(refused(header).contains("not an executable file"));
    assert!(
        refused(|p| {
            for (_, entry) in &mut p.entries {
                if let Entry::File { size, .. } = entry {
                    *size = u64::MAX;
                }
            }
        })
        .contains("bytes")
    );
}

#[test]
fn text_in_any_other_form_is_refused() {
    let text = String::from_utf8(sample().encode()).unwrap();
    let cases: &[(&str, &str)] = &[
        ("rdcc-toolchain 1", "rdcc-toolchain 2"),
        ("host x86_64-linux", "host amd64"),
        ("host x86_64-linux\n", ""),
        ("target ", "goal "),
        ("compiler c ", "compiler d "),
        ("compiler c ", "compiler  c "),
        ("directory 755 /usr\n", "directory 0755 /usr\n"),
        ("directory 755 /usr\n", "directory 755 /us\\x72\n"),
        ("directory 755 /usr\n", "directory 755 /usr\\x\n"),
        ("directory 755 /usr\n", "directory 755 /usr\r\n"),
        ("directory 755 /usr\n", "device 755 /usr\n"),
        ("directory 755 /usr\n", "\ndirectory 755 /usr\n"),
        ("\\x5c", "\\x5C"),
        ("file 755 6 ", "file 755 +6 "),
        ("file 755 6 ", "file 755 99999999999999999999 "),
        ("file 755 6 ", "file 755 6 ff"),
    ];
    for (from, to) in cases {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert!(Manifest::decode(changed.as_bytes()).is_err(), "{from} → {to}");
    }
    assert!(Manifest::decode(text.trim_end().as_bytes()).is_err());
    assert!(Manifest::decode(b"").is_err());
}

proptest! {
    #[test]
    fn decoder_never_panics_and_only_takes_what_it_would_write(
        cut in 0usize..600, byte in any::<u8>(), insert in any::<bool>()
    ) {
        let mut text = sample().encode();
        let at = cut.min(text.len() - 1);
        if insert { text.insert(at, byte) } else { text[at] = byte }
        if let Ok(manifest) = Manifest::decode(&text) {
            prop_assert_eq!(manifest.encode(), text);
        }
    }
}
