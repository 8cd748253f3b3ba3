//! Why a walk ends before its unit does.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::includes::closure::{NoClosure, Place, Reason};
use crate::includes::files::FilesError;
use crate::includes::reduced::Form;
use crate::includes::source_tree::TreeError;
use crate::includes::symbols::{Symbol, Symbols};

/// What ends a walk early.
#[derive(Debug)]
pub(super) enum Stop {
    Reason(Reason),
    Missing(Symbol, Form, Arc<Symbols>),
    Tree(TreeError),
}

impl Stop {
    pub(super) fn at(self, place: Place) -> NoClosure {
        let reason = match self {
            Self::Reason(reason) => reason,
            Self::Missing(name, form, symbols) => {
                let name = symbols.with(name, |name| PathBuf::from(OsStr::from_bytes(name)));
                return NoClosure::MissingHeader { place, name, form };
            }
            Self::Tree(TreeError::TooLarge { path }) => Reason::Oversized(path),
            Self::Tree(error) => Reason::Unreadable(error.to_string()),
        };
        NoClosure::Undecidable { place, reason }
    }
}

impl From<FilesError> for Stop {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Reason(reason) => Self::Reason(reason),
            FilesError::Tree(error) => Self::Tree(error),
        }
    }
}

impl From<TreeError> for Stop {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}
