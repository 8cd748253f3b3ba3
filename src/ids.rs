//! The names that parts of rdcc give to things, each a type of its own so that none is taken for another.

use std::fmt;

use crate::digest::Digest;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id! {
    /// One compile job, unique within the agent that numbered it.
    JobId
}
number_id! {
    /// One permission to run one job in one slot of one worker, unique within one life of the coordinator.
    GrantId
}
number_id! {
    /// An agent's request for a place, unique within the agent's session.
    RequestId
}
number_id! {
    /// One connected agent, unique within one life of the coordinator.
    AgentSessionId
}
number_id! {
    /// One connected worker, unique within one life of the coordinator. A worker that reconnects gets a new one.
    WorkerSessionId
}

/// Which group of a worker's cores, counted from the fastest. A worker whose cores are alike has one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CoreGroupId(pub u8);

impl CoreGroupId {
    /// Most groups of one worker: phones have three.
    pub const GROUPS_MAX: usize = 8;
}

/// A toolchain's identity: the digest of its manifest (DESIGN: same files, same identity, on any machine).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolchainId(pub Digest);

impl fmt::Display for ToolchainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that a person chose for a node or a toolchain.
///
/// 1 to 64 characters out of `A-Z a-z 0-9 . _ + -`, not starting with a dot or a dash: such a name can stand in a path,
/// a command line and a table without quoting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// Text that cannot be a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to 64 of A-Z a-z 0-9 . _ + -, not starting with . or -")]
pub struct NameError(String);

impl Name {
    /// Takes `text` when it is a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
        let fits = (1..=64).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with(['.', '-']);
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(text.chars().take(80).collect()))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_paths_and_tables_are_taken() {
        for text in ["arm926", "a20-native", "node.1", "g++", &"x".repeat(64)] {
            assert!(Name::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn names_that_need_quoting_or_climb_are_refused() {
        for text in ["", ".", "..", "-x", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(Name::new(text).is_err(), "{text}");
        }
    }
}
