//! What a wrapper finds around it: directory, user, file tree, and where the state is kept.
//!
//! Each question costs a system call or two, so each is asked only when its answer is needed.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::state_dir::{self, Choice, Homes};
use crate::exchange::place::{Place, Tree};

/// The environment, as it was at the start.
#[derive(Debug, Clone)]
pub struct Environment(pub Vec<(OsString, OsString)>);

impl Environment {
    /// Returns the value of the variable `name`.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let mut variables = self.0.iter();
        variables
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_os_str())
    }
}

/// Returns the working directory: `$PWD` when that is the same directory, as gcc prefers it too.
pub fn working_directory(env: &Environment) -> io::Result<PathBuf> {
    if let Some(logical) = env.get("PWD").map(Path::new).filter(|path| path.is_absolute())
        && let (Ok(logical_is), Ok(here)) = (std::fs::metadata(logical), std::fs::metadata("."))
        && identity(&logical_is) == identity(&here)
    {
        return Ok(logical.to_owned());
    }
    std::env::current_dir()
}

/// Device and inode.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Returns device and inode of the program that runs, where `/proc` tells.
pub(super) fn own_program() -> Option<(u64, u64)> {
    std::fs::metadata("/proc/self/exe")
        .ok()
        .map(|metadata| identity(&metadata))
}

/// Returns the user's state directory, which may not exist yet; `None` when there is none to be trusted.
pub fn state_dir(env: &Environment, cwd: &Path) -> Option<PathBuf> {
    let homes = Homes {
        state_dir: env.get("RDCC_STATE_DIR"),
        state_home: env.get("XDG_STATE_HOME"),
        home: env.get("HOME"),
    };
    let uid = rustix::process::geteuid().as_raw();
    match state_dir::choose(&homes, cwd) {
        Choice::Given(dir) => Some(dir),
        Choice::IfOwned { dir, base } => {
            let owner = std::fs::metadata(&dir).or_else(|_| std::fs::metadata(&base));
            match owner {
                Ok(owner) if owner.uid() == uid => Some(dir),
                _ => last_resort(uid),
            }
        }
        Choice::LastResort => last_resort(uid),
    }
}

fn last_resort(uid: u32) -> Option<PathBuf> {
    let dir = state_dir::last_resort(uid);
    // An error shows in what is found there.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(&dir);
    let found = std::fs::symlink_metadata(&dir).ok()?;
    (found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0).then_some(dir)
}

/// Returns the place of the agent that this process's compiles go to.
pub fn place(env: &Environment, state_dir: PathBuf) -> Place {
    let (root_device, root_inode) = std::fs::metadata("/").map_or((0, 0), |root| identity(&root));
    let tree = Tree {
        uid: rustix::process::geteuid().as_raw(),
        mount_namespace: std::fs::metadata("/proc/self/ns/mnt").map_or(0, |namespace| namespace.ino()),
        root_device,
        root_inode,
        coordinator: env
            .get("RDCC_COORDINATOR")
            .filter(|value| !value.is_empty())
            .map(|value| value.as_bytes().to_vec()),
    };
    Place::new(state_dir, &tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str, value: &Path) -> Environment {
        Environment(vec![(name.into(), value.into())])
    }

    #[test]
    fn logical_directory_is_taken_only_when_it_is_this_one() {
        let here = std::env::current_dir().expect("a directory");
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&here, &link).expect("linked");
        assert_eq!(working_directory(&environment("PWD", &link)).expect("known"), link);
        for wrong in [dir.path(), Path::new("."), Path::new("/absent")] {
            assert_eq!(working_directory(&environment("PWD", wrong)).expect("known"), here);
        }
    }

    #[test]
    fn home_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let cwd = Path::new("/");
        assert_eq!(
            state_dir(&environment("HOME", dir.path()), cwd),
            Some(dir.path().join(".local/state/rdcc"))
        );
        let uid = rustix::process::geteuid().as_raw();
        for foreign in ["/proc/1/nowhere", "/absent/home"] {
            let found = state_dir(&environment("HOME", Path::new(foreign)), cwd);
            assert!(found.is_none_or(|dir| dir == state_dir::last_resort(uid)));
        }
    }
}
