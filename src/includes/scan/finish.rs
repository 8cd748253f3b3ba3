//! Puts the result of a walk together.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::outside::Outside;
use super::{Scan, Stop};
use crate::includes::closure::{Absent, Closure, Origin};
use crate::includes::source_tree::SourceTree;

impl<T: SourceTree> Scan<'_, T> {
    pub(super) fn closure(self, absent_directories: Vec<PathBuf>) -> Result<Closure, Stop> {
        let Outside {
            files,
            consulted,
            facts,
            symbols,
            ..
        } = self.outside;
        let mut listed = self.listed;
        for item in &mut listed {
            item.spelling = depfile_spelling(&item.spelling);
        }
        let mut seen = Vec::new();
        for entry in consulted.into_keys() {
            let entry = &files.entries[entry];
            if entry.entered == 0
                && let Some(file) = &entry.file
            {
                self.tree.digest(file)?;
                seen.push(Arc::clone(file));
            }
        }
        for file in &self.assembled {
            self.tree.digest(file)?;
        }
        let mut links = BTreeSet::new();
        let mut directories: BTreeSet<&Path> = files.search_places().map(AsRef::as_ref).collect();
        let of_places = files.visited.iter().map(|visited| &visited.info.route);
        let read = listed.iter().map(|listed| &listed.file);
        let of_files = read.chain(&seen).chain(&self.assembled).map(|file| &file.route);
        for route in of_places.chain(of_files) {
            links.extend(route.links.iter().cloned());
            directories.extend(route.crossed.iter().map(PathBuf::as_path));
        }
        let directories = directories.into_iter().map(Path::to_path_buf).collect();
        Ok(Closure {
            listed,
            consulted: seen,
            assembled: self.assembled,
            links: links.into_iter().collect(),
            directories,
            absent: files
                .visited
                .into_iter()
                .filter(|visited| !visited.lacks.is_empty() || !visited.passed.is_empty())
                .map(|visited| Absent {
                    directory: visited.info,
                    names: visited.lacks,
                    passed: visited.passed,
                    listing: visited.listing,
                })
                .collect(),
            absent_directories,
            facts,
            symbols,
            origin: Origin::Scanned,
        })
    }
}

/// Drops leading `./` as the dependency list does.
fn depfile_spelling(path: &Arc<[u8]>) -> Arc<[u8]> {
    let mut rest: &[u8] = path;
    while let Some(tail) = rest.strip_prefix(b"./") {
        let slashes = tail.iter().take_while(|b| **b == b'/').count();
        rest = &tail[slashes..];
    }
    if rest.len() == path.len() {
        Arc::clone(path)
    } else {
        rest.into()
    }
}
