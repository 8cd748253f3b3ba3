//! Why looking for a file ends the scan.

use crate::includes::closure::Reason;
use crate::includes::source_tree::TreeError;

/// Why a file cannot be looked for.
#[derive(Debug)]
pub enum FilesError {
    /// Ends the scan for this reason.
    Reason(Reason),
    /// The tree has no answer.
    Tree(TreeError),
}

impl From<TreeError> for FilesError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl From<Reason> for FilesError {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}
