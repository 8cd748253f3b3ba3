//! Finding the compiler that a command means, and never rdcc itself in its place.
//!
//! As `execvp` would look, except that whatever is this very program (by device and inode, so through any links) is passed
//! over: that is how `arm-linux-gnueabi-gcc -> rdcc` in front of the real one on `PATH` works.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::compiler_name::base_name;
use super::surroundings::{identity, own_program};

/// Where programs are looked for when `PATH` is not set, as glibc does.
const PATH_UNSET: &str = "/bin:/usr/bin";

/// A compiler that was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Its absolute path, links not followed.
    pub path: PathBuf,
    /// What it should see as its `argv[0]`: the word that was typed where that leads there, else the path, since gcc
    /// finds its parts relative to it.
    pub argv0: OsString,
}

/// Looks for the program that `word` names. `None`: there is none, or none but rdcc.
pub fn compiler(word: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Option<Found> {
    if !word.as_bytes().contains(&b'/') {
        return on_path(word, path, cwd);
    }
    let at = cwd.join(word);
    if is_ourselves(&at) {
        return on_path(base_name(word), path, cwd);
    }
    // Whether it can be executed shows when it is.
    Some(Found {
        path: at,
        argv0: word.to_owned(),
    })
}

/// Looks for the next program called like `own_name` that is not rdcc.
pub fn namesake(own_name: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Option<Found> {
    let found = on_path(base_name(own_name), path, cwd)?;
    Some(Found {
        argv0: found.path.clone().into_os_string(),
        ..found
    })
}

/// Tells whether a word is a program, and no file in the working directory that a compiler could mean.
pub fn is_program(word: &OsStr, path: Option<&OsStr>, cwd: &Path) -> bool {
    if word.as_bytes().contains(&b'/') {
        return is_executable(&cwd.join(word));
    }
    !word.is_empty() && std::fs::symlink_metadata(cwd.join(word)).is_err() && on_path(word, path, cwd).is_some()
}

fn on_path(name: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Option<Found> {
    if name.is_empty() {
        return None;
    }
    let mut argv0 = name.to_owned();
    for directory in std::env::split_paths(path.unwrap_or(OsStr::new(PATH_UNSET))) {
        let candidate = cwd.join(directory).join(name);
        if !is_executable(&candidate) {
            continue;
        }
        if is_ourselves(&candidate) {
            argv0.clear();
            continue;
        }
        if argv0.is_empty() {
            argv0 = candidate.clone().into_os_string();
        }
        return Some(Found { path: candidate, argv0 });
    }
    None
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok() && path.is_file()
}

fn is_ourselves(path: &Path) -> bool {
    let found = std::fs::metadata(path).ok().map(|metadata| identity(&metadata));
    found.is_some() && found == own_program()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Fixture {
        dir: tempfile::TempDir,
        path: OsString,
    }

    /// `first` holds links to this very program, `second` the programs they stand for.
    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().expect("a directory");
        for sub in ["first", "second", "cwd"] {
            std::fs::create_dir(dir.path().join(sub)).expect("created");
        }
        let ourselves = std::env::current_exe().expect("known");
        for name in ["gcc", "only"] {
            symlink(&ourselves, dir.path().join("first").join(name)).expect("linked");
        }
        for (name, mode) in [("second/gcc", 0o755), ("second/plain", 0o644), ("cwd/objects", 0o644)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        }
        std::fs::create_dir(dir.path().join("second/objects")).expect("created");
        let path = std::env::join_paths(["first", "second"].map(|sub| dir.path().join(sub))).expect("no colons");
        Fixture { dir, path }
    }

    #[test]
    fn our_own_links_are_passed_over() {
        let fixture = fixture();
        let (cwd, path) = (fixture.dir.path(), Some(fixture.path.as_os_str()));
        let real = fixture.dir.path().join("second/gcc");
        for word in ["gcc", "first/gcc"] {
            let found = compiler(OsStr::new(word), path, cwd).expect(word);
            assert_eq!((found.path, found.argv0), (real.clone(), real.clone().into()), "{word}");
        }
        assert_eq!(namesake(OsStr::new("/any/gcc"), path, cwd).expect("found").path, real);
        assert_eq!(compiler(OsStr::new("only"), path, cwd), None);
        assert_eq!(compiler(OsStr::new("plain"), path, cwd), None);
        assert_eq!(compiler(OsStr::new(""), path, cwd), None);
    }

    #[test]
    fn typed_word_stays_what_the_compiler_sees() {
        let fixture = fixture();
        let (cwd, path) = (fixture.dir.path(), fixture.dir.path().join("second"));
        let found = compiler(OsStr::new("gcc"), Some(path.as_os_str()), cwd).expect("found");
        assert_eq!(found.argv0, "gcc");
        let found = compiler(OsStr::new("./second/gcc"), None, cwd).expect("found");
        assert_eq!(
            (found.argv0, found.path),
            ("./second/gcc".into(), cwd.join("./second/gcc"))
        );
    }

    #[test]
    fn file_of_the_project_is_no_program() {
        let fixture = fixture();
        let (cwd, path) = (fixture.dir.path().join("cwd"), Some(fixture.path.as_os_str()));
        for (word, expected) in [
            ("gcc", true),
            ("objects", false),
            ("plain", false),
            ("../second/gcc", true),
        ] {
            assert_eq!(is_program(OsStr::new(word), path, &cwd), expected, "{word}");
        }
    }
}
