//! Follows a path component by component, to learn which links it meets and where it ends.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Link, Route, TreeError};
use super::{components, unreadable};

/// The kernel's own limit on links in one path.
const LINKS_MAX: usize = 40;

/// Resolves an absolute path that exists.
pub(super) fn resolve(path: &Path) -> Result<Route, TreeError> {
    let mut route = Route {
        path: PathBuf::from("/"),
        ..Route::default()
    };
    let mut pending: VecDeque<OsString> = VecDeque::new();
    push_front(&mut pending, path.as_os_str());
    while let Some(component) = pending.pop_front() {
        if component == ".." {
            if route.path.parent().is_some() {
                route.crossed.push(route.path.clone());
                route.path.pop();
            }
            continue;
        }
        route.path.push(&component);
        let metadata = fs::symlink_metadata(&route.path).map_err(|error| unreadable(route.path.clone(), error))?;
        if !metadata.is_symlink() {
            continue;
        }
        if route.links.len() >= LINKS_MAX {
            return Err(TreeError::Unresolvable {
                path: path.to_path_buf(),
            });
        }
        let target = fs::read_link(&route.path).map_err(|error| unreadable(route.path.clone(), error))?;
        route.links.push(Arc::new(Link {
            path: route.path.clone(),
            target: target.clone().into_os_string(),
        }));
        if target.is_absolute() {
            route.path = PathBuf::from("/");
        } else {
            route.path.pop();
        }
        push_front(&mut pending, target.as_os_str());
    }
    Ok(route)
}

fn push_front(pending: &mut VecDeque<OsString>, path: &OsStr) {
    let parts: Vec<&[u8]> = components(path.as_bytes()).collect();
    for part in parts.into_iter().rev() {
        pending.push_front(OsString::from_vec(part.to_vec()));
    }
}
