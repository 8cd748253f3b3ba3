//! After the run: does the answer hold, and do the files it was made from still stand?
//!
//! Reads the disk through the tree's cache; the comparing is `verify`'s. Invariant: what is handed on for delivery is what
//! the local compiler would have left, as far as anybody can tell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::fallback::{self, Reason};
use super::preparation::{Prepared, Trouble};
use super::spec::{self, Listing};
use super::verify;
use crate::includes::closure::Closure;
use crate::includes::source_tree::Epoch;
use crate::includes::source_tree::disk::DiskTree;
use crate::includes::standing::changed;
use crate::job::{Outcome, Output, OutputKind};

/// Checks a worker's answer to `prepared`, and returns the files to put in place. Blocks on the disk.
pub fn check(prepared: &Prepared, outcome: &mut Outcome, tree: &DiskTree, epoch: Epoch, target: &str) -> Checked {
    let outputs = std::mem::take(&mut outcome.outputs);
    let success = outcome.status.success();
    let reads = |path: &Path| prepared.inputs.reads(path);
    let mut outputs = verify::sort_outputs(outputs, &prepared.expected, success, reads)
        .map_err(|(reason, path)| Trouble::new(reason, path.display()))?;
    if let Some(closure) = &prepared.closure {
        check_list(prepared, closure, outcome, &mut outputs)?;
        if let Some(path) = changed(closure, tree, epoch).map_err(|error| Trouble::new(Reason::FileChanged, error))? {
            return Err(Trouble::new(Reason::FileChanged, path.display()));
        }
    }
    let object = outputs.iter().find(|output| output.path == prepared.expected.object);
    if let Some(OutputKind::File { content, .. }) = object.map(|object| &object.kind)
        && verify::is_foreign(content, target)
    {
        return Err(Trouble::new(Reason::ObjectForeign, prepared.expected.object.display()));
    }
    if success {
        outputs.extend(prepared.extra.iter().cloned());
    }
    Ok(outputs)
}

/// The files to put in place, or what is wrong.
pub type Checked = Result<Vec<Output>, Trouble>;

/// Compares the compiler's list with the closure, and cuts it down where the user is to get less.
fn check_list(
    prepared: &Prepared,
    closure: &Closure,
    outcome: &Outcome,
    outputs: &mut [Output],
) -> Result<(), Trouble> {
    let listing = prepared.listing;
    let own = match listing {
        Listing::None => return Ok(()),
        Listing::Variable => None,
        Listing::OwnFile | Listing::FullerFile | Listing::UserFile => prepared.expected.dependency_file.as_deref(),
    };
    let own = own.and_then(|path| outputs.iter_mut().find(|output| output.path == path));
    let mut own = own.and_then(|output| match &mut output.kind {
        OutputKind::File { content, .. } => Some(content),
        OutputKind::Removed => None,
    });
    let list = match (listing, &own) {
        (Listing::Variable, _) => outcome.dependencies.as_deref(),
        (_, own) => own.as_deref().map(Vec::as_slice),
    };
    let Some(list) = list else {
        return match outcome.status.success() {
            true => Err(Trouble::new(Reason::DependencyMismatch, "the compiler gave no list")),
            // gcc gives up without a list when a header is missing. The scan found all there are, so it would be one
            // that did not reach the worker.
            false if fallback::misses_a_file(&outcome.stderr) => Err(Trouble::new(Reason::UnverifiedFailure, "")),
            false => Ok(()),
        };
    };
    let found = closure
        .listed
        .iter()
        .enumerate()
        .filter(|(index, listed)| listing.names(*index == 0, listed.system))
        .map(|(_, listed)| Path::new(OsStr::from_bytes(&listed.spelling)));
    verify::compare_lists(list, found).map_err(|difference| Trouble::new(Reason::DependencyMismatch, difference))?;
    if let (Listing::FullerFile, Some(own)) = (listing, &mut own) {
        let system = closure.listed.iter().map(|listed| listed.system);
        **own = spec::without_system_headers(own, system)
            .map_err(|error| Trouble::new(Reason::DependencyMismatch, error))?;
    }
    Ok(())
}
