//! Where an agent keeps its things, and which agent is whose.
//!
//! An agent sees files as its callers do, so there is one per user, mount namespace and root directory, and one per
//! coordinator that `RDCC_COORDINATOR` names. All of them share the state directory: statistics are the user's. Only
//! names are made up here; nothing is looked at.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Driver;
use crate::ids::Name;

/// What callers of one agent have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Effective user id.
    pub uid: u32,
    /// Number of the mount namespace; 0 when `/proc` does not tell.
    pub mount_namespace: u64,
    /// Device of the root directory.
    pub root_device: u64,
    /// Inode of the root directory.
    pub root_inode: u64,
    /// `RDCC_COORDINATOR`, as bytes, where it is set.
    pub coordinator: Option<Vec<u8>>,
}

/// The files of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    state_dir: PathBuf,
    own_dir: PathBuf,
}

impl Place {
    /// Names the files of the agent for `tree` below `state_dir`.
    pub fn new(state_dir: PathBuf, tree: &Tree) -> Self {
        let mut name = format!(
            "{}-{:x}-{:x}-{:x}",
            tree.uid, tree.mount_namespace, tree.root_device, tree.root_inode
        );
        if let Some(coordinator) = &tree.coordinator {
            write!(name, "-{:x}", fnv1a(coordinator)).expect("writing to a string cannot fail");
        }
        let own_dir = state_dir.join("agents").join(name);
        Self { state_dir, own_dir }
    }

    /// What all agents of the user share.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// What belongs to this agent alone; mode 0700, since whoever reaches the socket runs commands as the user.
    pub fn own_dir(&self) -> &Path {
        &self.own_dir
    }

    /// Where it listens. The file may be a left-over of an agent that has ended.
    pub fn socket(&self) -> PathBuf {
        self.own_dir.join("socket")
    }

    /// Locked by the agent for as long as it takes requests.
    pub fn agent_lock(&self) -> PathBuf {
        self.own_dir.join("agent.lock")
    }

    /// Locked by whoever is starting the agent, so that one of many does.
    pub fn start_lock(&self) -> PathBuf {
        self.own_dir.join("start.lock")
    }

    /// What the agent logs.
    pub fn log(&self) -> PathBuf {
        self.own_dir.join("agent.log")
    }

    /// Link to a toolchain's compiler, kept by the agent for wrappers that have no need to ask it. Absent when the
    /// compiler is not known yet, or is not to be run without the toolchain's own flags.
    pub fn compiler_link(&self, toolchain: &Name, driver: Driver) -> PathBuf {
        let suffix = match driver {
            Driver::C => "c",
            Driver::Cxx => "c++",
        };
        self.own_dir.join("compilers").join(format!("{toolchain}-{suffix}"))
    }
}

/// Where agents look last for toolchain files: those that `rdcc toolchain push` has sent off from here.
pub fn pushed_definitions(state_dir: &Path) -> PathBuf {
    state_dir.join("toolchains")
}

/// Where the toolchain file `name` is kept once it has been pushed.
pub fn pushed_definition(state_dir: &Path, name: &Name) -> PathBuf {
    pushed_definitions(state_dir).join(format!("{name}.toml"))
}

/// Where wrappers note what they ran without asking an agent: for all agents of the user.
pub fn journal(state_dir: &Path) -> PathBuf {
    state_dir.join("journal")
}

/// Fowler, Noll and Vo's hash: short names for the few coordinators of one user, nothing more.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        Tree {
            uid: 1000,
            mount_namespace: 0xf000_0000,
            root_device: 0x801,
            root_inode: 2,
            coordinator: None,
        }
    }

    #[test]
    fn each_tree_and_coordinator_has_an_agent_of_its_own() {
        let base = tree();
        let others = [
            Tree { uid: 0, ..tree() },
            Tree {
                mount_namespace: 1,
                ..tree()
            },
            Tree {
                root_inode: 3,
                ..tree()
            },
            Tree {
                coordinator: Some(b"http://a:7420".to_vec()),
                ..tree()
            },
            Tree {
                coordinator: Some(b"http://b:7420".to_vec()),
                ..tree()
            },
        ];
        let mut sockets: Vec<PathBuf> = others
            .iter()
            .map(|tree| Place::new("/s".into(), tree).socket())
            .collect();
        sockets.push(Place::new("/s".into(), &base).socket());
        sockets.sort();
        sockets.dedup();
        assert_eq!(sockets.len(), 6);
    }

    #[test]
    fn names_are_where_documentation_says() {
        let place = Place::new("/home/u/.local/state/rdcc".into(), &tree());
        assert_eq!(
            place.socket(),
            Path::new("/home/u/.local/state/rdcc/agents/1000-f0000000-801-2/socket")
        );
        let name = Name::new("arm926").expect("a name");
        assert!(
            place
                .compiler_link(&name, Driver::Cxx)
                .ends_with("compilers/arm926-c++")
        );
        assert_eq!(
            journal(place.state_dir()),
            Path::new("/home/u/.local/state/rdcc/journal")
        );
    }
}
