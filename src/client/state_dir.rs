//! Where a user's rdcc keeps its state, by the environment alone.
//!
//! `sudo make` keeps the user's `HOME`: what root then wrote there would lock the user's own rdcc out. So a directory is
//! used only when it, or the home it goes into, belongs to the user who runs; else one below `/tmp`. Looking is done in
//! `surroundings.rs`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The variables that matter here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Homes<'a> {
    /// `RDCC_STATE_DIR`.
    pub state_dir: Option<&'a OsStr>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<&'a OsStr>,
    /// `HOME`.
    pub home: Option<&'a OsStr>,
}

/// A directory, and on what condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// As the user said.
    Given(PathBuf),
    /// If it, or `base` where it does not exist yet, belongs to the user.
    IfOwned {
        /// The directory.
        dir: PathBuf,
        /// What it is created in.
        base: PathBuf,
    },
    /// None but the one of last resort.
    LastResort,
}

/// Chooses; a relative `RDCC_STATE_DIR` is meant from `cwd`.
pub fn choose(homes: &Homes<'_>, cwd: &Path) -> Choice {
    let set = |variable: Option<&OsStr>| variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification has relative paths ignored.
    let absolute = |variable| set(variable).filter(|path| path.is_absolute());
    if let Some(dir) = set(homes.state_dir) {
        Choice::Given(cwd.join(dir))
    } else if let Some(base) = absolute(homes.state_home) {
        Choice::IfOwned {
            dir: base.join("rdcc"),
            base,
        }
    } else if let Some(base) = absolute(homes.home) {
        Choice::IfOwned {
            dir: base.join(".local/state/rdcc"),
            base,
        }
    } else {
        Choice::LastResort
    }
}

/// Returns the directory for a user without a home; it counts only when it is the user's, and closed to others.
pub fn last_resort(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/rdcc-{uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(state_dir: &str, state_home: &str, home: &str) -> Choice {
        let variable = |text: &'static str| Some(OsStr::new(text)).filter(|text| *text != "-");
        let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let homes = Homes {
            state_dir: variable(leak(state_dir)),
            state_home: variable(leak(state_home)),
            home: variable(leak(home)),
        };
        choose(&homes, Path::new("/cwd"))
    }

    #[test]
    fn first_variable_that_says_something_wins() {
        let owned = |dir: &str, base: &str| Choice::IfOwned {
            dir: dir.into(),
            base: base.into(),
        };
        assert_eq!(chosen("/s", "/x", "/h"), Choice::Given("/s".into()));
        assert_eq!(chosen("s", "/x", "/h"), Choice::Given("/cwd/s".into()));
        assert_eq!(chosen("", "/x", "/h"), owned("/x/rdcc", "/x"));
        assert_eq!(chosen("-", "relative", "/h"), owned("/h/.local/state/rdcc", "/h"));
        assert_eq!(chosen("-", "-", ""), Choice::LastResort);
        assert_eq!(chosen("-", "-", "-"), Choice::LastResort);
    }
}
