//! What can be wrong with a push, or with what is kept.

use std::io;
use std::path::{Path, PathBuf};

use super::DEFINITION_BYTES_MAX;
use crate::ids::{Name, ToolchainId};
use crate::toolchains::bundle::BundleError;
use crate::toolchains::definition::DefinitionError;
use crate::toolchains::manifest::ManifestError;

/// Why the registry cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The name stands for something else.
    #[error("the name `{name}` is taken by toolchain {} (this one is {})", taken_by.0.short(), wanted.0.short())]
    NameTaken {
        /// The name.
        name: Name,
        /// What it stands for.
        taken_by: ToolchainId,
        /// What was pushed.
        wanted: ToolchainId,
    },
    /// No such toolchain.
    #[error("there is no toolchain `{0}` here")]
    Unknown(String),
    /// The toolchain file cannot be used.
    #[error("toolchain file: {0}")]
    Definition(#[from] DefinitionError),
    /// The toolchain file is of another name.
    #[error("the toolchain file says `{in_file}`, the push `{pushed}`")]
    OtherName {
        /// What the file says.
        in_file: Name,
        /// What was pushed.
        pushed: Name,
    },
    /// A file beyond its bound.
    #[error("the toolchain file has more than {DEFINITION_BYTES_MAX} bytes")]
    DefinitionTooLarge,
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The bundle is not what the push announced.
    #[error("the bundle that arrived is not the one announced: {0}")]
    NotAsAnnounced(&'static str),
    /// The push counted on a bundle that was here before, and is gone or damaged.
    #[error("the bundle of toolchain {0} is not here, or damaged: it has to be sent")]
    BundleWanted(ToolchainId),
    /// The bundle is not the manifest's.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A bundle on disk has changed since it was stored.
    #[error("the bundle of toolchain {0} is damaged on the coordinator's disk: push it again")]
    Damaged(ToolchainId),
    /// The disk has no room.
    #[error("the coordinator's disk is full: cannot {doing} `{}`", path.display())]
    DiskFull {
        /// A verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("the coordinator cannot {doing} `{}`", path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Names what was being done to which path when the system said no.
pub(super) fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RegistryError + 'a {
    move |source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RegistryError::DiskFull { doing, path },
            _ => RegistryError::Io { doing, path, source },
        }
    }
}
