//! The names under which builds call a toolchain's compilers.
//!
//! Pure: which of them exist is for others to see. Invariant: each name is one that [`is_link_name`] knows again.

use std::collections::{BTreeMap, BTreeSet};

use crate::toolchains::definition::{Command, Language};

/// The drivers' names by language, the toolchain file's own besides.
const DRIVERS: [(Language, [&str; 2]); 2] = [(Language::C, ["gcc", "cc"]), (Language::Cxx, ["g++", "c++"])];

/// Returns the names to link: the compilers' own, and the usual ones, plain and behind the target's name.
pub(super) fn names(compilers: &BTreeMap<Language, Command>, target: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (language, drivers) in DRIVERS {
        let Some(command) = compilers.get(&language) else {
            continue;
        };
        let own = own_name(command);
        for driver in drivers {
            names.insert(driver.to_owned());
            names.insert(format!("{target}-{driver}"));
            names.insert(format!("{}{driver}", cross_prefix(&own)));
        }
        if is_link_name(&own) {
            names.insert(own);
        }
    }
    names
}

/// Tells whether a link of this name may be one that `install` made.
pub(super) fn is_link_name(name: &str) -> bool {
    let plain = without_version(name);
    let driver = plain.rsplit('-').next().unwrap_or(plain);
    DRIVERS.iter().any(|(_, drivers)| drivers.contains(&driver))
}

fn own_name(command: &Command) -> String {
    match command {
        Command::Named(name) => name.clone(),
        Command::At(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// Returns what stands before the driver's name, as `arm-linux-gnueabi-`.
fn cross_prefix(name: &str) -> &str {
    let plain = without_version(name);
    match plain.rfind('-') {
        Some(dash) => &plain[..=dash],
        None => "",
    }
}

/// Takes a version off the end, as in `gcc-12`.
fn without_version(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((driver, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => driver,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(c: Option<&str>, cxx: Option<&str>, target: &str) -> Vec<String> {
        let languages = [(Language::C, c), (Language::Cxx, cxx)];
        let compilers = languages.into_iter().filter_map(|(language, name)| {
            let name = name?;
            Some((
                language,
                match name.starts_with('/') {
                    true => Command::At(name.into()),
                    false => Command::Named(name.to_owned()),
                },
            ))
        });
        names(&compilers.collect(), target).into_iter().collect()
    }

    #[test]
    fn names_are_those_that_builds_use() {
        let arm = named(Some("arm-linux-gnueabi-gcc-12"), None, "arm-linux-gnueabi");
        let expected = [
            "arm-linux-gnueabi-cc",
            "arm-linux-gnueabi-gcc",
            "arm-linux-gnueabi-gcc-12",
            "cc",
            "gcc",
        ];
        assert_eq!(arm, expected);
        let board = named(
            Some("/opt/x/arm-none-gcc"),
            Some("/opt/x/arm-none-g++"),
            "arm-linux-gnueabi",
        );
        for name in ["arm-none-gcc", "arm-none-c++", "arm-linux-gnueabi-g++", "c++", "cc"] {
            assert!(board.iter().any(|known| known == name), "{name}: {board:?}");
        }
        assert_eq!(named(None, Some("g++"), "t"), ["c++", "g++", "t-c++", "t-g++"]);
    }

    #[test]
    fn links_of_other_kinds_are_not_ours_to_remove() {
        for name in ["gcc", "c++", "arm-linux-gnueabi-gcc-12.2", "x-cc"] {
            assert!(is_link_name(name), "{name}");
        }
        for name in ["ccache", "rdcc", "gcc-ar", "cpp", "xgcc", ""] {
            assert!(!is_link_name(name), "{name}");
        }
    }
}
