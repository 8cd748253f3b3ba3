//! The submitting side's configuration: the texts of two TOML files and a few variables to [`Settings`].
//!
//! Read by the agent and by commands for people, never by the wrapper. Pure: `bin/` reads the files. The environment wins
//! over the user's file, that over the system's, key by key. Unknown keys are refused, with the line and what is known.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::quantity::Span;

/// Where a coordinator listens when nobody says otherwise.
pub const COORDINATOR_USUAL: &str = "http://127.0.0.1:7420";
/// How long an agent waits for the next compile: longer than the pauses of somebody at work, shorter than lunch.
const IDLE_EXIT_USUAL: Duration = Duration::from_secs(10 * 60);

/// What a file may say; everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// `http://HOST:PORT` of the coordinator.
    pub coordinator: Option<String>,
    /// Directories with toolchain files, besides the usual ones.
    pub toolchain_dirs: Option<Vec<PathBuf>>,
    /// Compiles that may run on this machine at one time.
    pub local_slots: Option<u32>,
    /// Whether this machine compiles a share of what workers could compile.
    pub local_share: Option<bool>,
    /// How long an agent without work stays.
    pub idle_exit: Option<Span>,
    /// Share of jobs that are compiled on a second node, too, and compared: 0.0 to 1.0.
    pub audit: Option<f64>,
    /// What is logged: a level, or directives such as `info,rdcc::agent=debug`.
    pub log: Option<String>,
}

/// What the environment says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// `RDCC_COORDINATOR`.
    pub coordinator: Option<String>,
    /// `RDCC_AUDIT`: a number.
    pub audit: Option<String>,
    /// `RDCC_LOG`.
    pub log: Option<String>,
    /// The directory of the user's file, whose `toolchains` directory is looked into too.
    pub user_dir: Option<PathBuf>,
    /// The coordinator whose farm this user has joined.
    pub joined: Option<String>,
    /// Processors of this machine.
    pub processors: u32,
}

/// The settings, complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `http://HOST:PORT` of the coordinator.
    pub coordinator: String,
    /// Where toolchain files are looked for, the first first.
    pub toolchain_dirs: Vec<PathBuf>,
    /// Compiles that may run on this machine at one time, 1 to 1024.
    pub local_slots: u32,
    /// Processors of this machine.
    pub cores: u32,
    /// Cores that may compile what workers could compile as well; 0: none.
    pub share_cores: u32,
    /// How long an agent without work stays.
    pub idle_exit: Duration,
    /// Share of jobs that are compiled on a second node, too, 0.0 to 1.0.
    pub audit: f64,
    /// What is logged; `None`: the usual.
    pub log: Option<String>,
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The file is not what it should be; the text names line and key.
    #[error("{0}")]
    File(String),
    /// A value out of range.
    #[error("`{what}` is {found}; it has to be {range}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// What was given.
        found: String,
        /// What is allowed.
        range: &'static str,
    },
}

impl File {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        toml::from_str(text).map_err(|error| SettingsError::File(error.to_string().trim_end().to_owned()))
    }
}

impl Settings {
    /// Puts environment, files and defaults together.
    pub fn new(given: Given, user: File, system: File) -> Result<Self, SettingsError> {
        let local_slots = user
            .local_slots
            .or(system.local_slots)
            .unwrap_or(given.processors.clamp(1, 1024));
        if !(1..=1024).contains(&local_slots) {
            return Err(SettingsError::Range {
                what: "local_slots",
                found: local_slots.to_string(),
                range: "1 to 1024",
            });
        }
        let audit = audit_share(given.audit, user.audit.or(system.audit))?;
        let share_cores = match user.local_share.or(system.local_share).unwrap_or(true) {
            true => local_slots,
            false => 0,
        };
        let coordinator = given.coordinator.filter(|text| !text.is_empty());
        let mut toolchain_dirs = user.toolchain_dirs.unwrap_or_default();
        toolchain_dirs.extend(given.user_dir.map(|dir| dir.join("toolchains")));
        toolchain_dirs.extend(system.toolchain_dirs.unwrap_or_default());
        toolchain_dirs.extend(
            [
                "/etc/rdcc/toolchains",
                "/usr/local/share/rdcc/toolchains",
                "/usr/share/rdcc/toolchains",
            ]
            .map(PathBuf::from),
        );
        if let Some(relative) = toolchain_dirs.iter().find(|dir| dir.is_relative()) {
            return Err(SettingsError::Range {
                what: "toolchain_dirs",
                found: format!("`{}`", relative.display()),
                range: "absolute paths",
            });
        }
        Ok(Self {
            coordinator: coordinator
                .or(user.coordinator)
                .or(system.coordinator)
                .or(given.joined)
                .unwrap_or_else(|| COORDINATOR_USUAL.to_owned()),
            toolchain_dirs,
            local_slots,
            share_cores,
            cores: given.processors.clamp(1, 1024),
            idle_exit: user
                .idle_exit
                .or(system.idle_exit)
                .map_or(IDLE_EXIT_USUAL, |span| span.0),
            audit,
            log: given.log.filter(|text| !text.is_empty()).or(user.log).or(system.log),
        })
    }
}

/// Reads the share of audited jobs; the environment's text wins over the files' number.
fn audit_share(given: Option<String>, filed: Option<f64>) -> Result<f64, SettingsError> {
    let refuse = |what, found: String| SettingsError::Range {
        what,
        found,
        range: "a share from 0.0 (no job) to 1.0 (every job)",
    };
    let (what, share) = match given.filter(|text| !text.is_empty()) {
        Some(text) => {
            let share: f64 = text.parse().map_err(|_| refuse("RDCC_AUDIT", format!("`{text}`")))?;
            ("RDCC_AUDIT", share)
        }
        None => ("audit", filed.unwrap_or(0.0)),
    };
    match (0.0..=1.0).contains(&share) {
        true => Ok(share),
        false => Err(refuse(what, share.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_audited_jobs_is_none_unless_asked_for_and_checked() {
        let audit = |given: Option<&str>, text: &str| {
            let given = Given {
                audit: given.map(str::to_owned),
                ..Given::default()
            };
            let settings = Settings::new(given, File::parse(text).expect("valid"), File::default());
            settings
                .map(|settings| settings.audit)
                .map_err(|error| error.to_string())
        };
        for (given, text, expected) in [
            (None, "", 0.0),
            (Some(""), "audit = 0.25", 0.25),
            (None, "audit = 1", 1.0),
            (Some("0.01"), "audit = 1.0", 0.01),
        ] {
            assert_eq!(audit(given, text), Ok(expected), "{given:?} {text}");
        }
        for (given, text, names) in [
            (None, "audit = 1.5", "`audit` is 1.5"),
            (None, "audit = -0.1", "`audit` is -0.1"),
            (None, "audit = nan", "`audit` is NaN"),
            (Some("5%"), "", "`RDCC_AUDIT` is `5%`"),
            (Some("2"), "", "`RDCC_AUDIT` is 2"),
        ] {
            let error = audit(given, text).expect_err(text);
            assert!(
                error.contains(names) && error.contains("0.0") && error.contains("1.0"),
                "{error}"
            );
        }
    }

    #[test]
    fn environment_wins_over_user_over_system() {
        let system = || File::parse("coordinator = 'http://sys:1'\nlocal_slots = 3\nlog = 'warn'").expect("valid");
        let user = || File::parse("coordinator = 'http://user:1'\nidle_exit = '90 s'").expect("valid");
        let given = |coordinator: &str| Given {
            coordinator: Some(coordinator.into()),
            processors: 2,
            user_dir: Some("/h/.config/rdcc".into()),
            ..Given::default()
        };
        let settings = Settings::new(given("http://env:1"), user(), system()).expect("complete");
        assert_eq!(settings.coordinator, "http://env:1");
        assert_eq!((settings.local_slots, settings.idle_exit), (3, Duration::from_secs(90)));
        assert_eq!(settings.log.as_deref(), Some("warn"));
        assert_eq!(settings.toolchain_dirs[0], PathBuf::from("/h/.config/rdcc/toolchains"));
        let settings = Settings::new(given(""), user(), system()).expect("complete");
        assert_eq!(settings.coordinator, "http://user:1");
    }

    #[test]
    fn sample_file_is_understood_with_every_key_in_it() {
        let sample = include_str!("../../packaging/config/rdcc.toml");
        let keys = sample
            .lines()
            .filter_map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")));
        let file = File::parse(&keys.collect::<Vec<_>>().join("\n")).expect("valid");
        let File {
            coordinator: Some(coordinator),
            toolchain_dirs: Some(_),
            local_slots: Some(_),
            local_share: Some(true),
            idle_exit: Some(Span(IDLE_EXIT_USUAL)),
            audit: Some(0.01),
            log: Some(_),
        } = file
        else {
            panic!("{file:?}");
        };
        assert_eq!(coordinator, COORDINATOR_USUAL);
        assert_eq!(File::parse(sample), Ok(File::default()));
    }

    #[test]
    fn nothing_needs_to_be_set() {
        let settings = Settings::new(Given::default(), File::default(), File::default()).expect("complete");
        assert_eq!(
            (settings.coordinator.as_str(), settings.local_slots),
            (COORDINATOR_USUAL, 1)
        );
    }

    #[test]
    fn all_local_slots_are_shared_and_none_when_that_is_switched_off() {
        for (text, expected) in [
            ("", 2),
            ("local_slots = 1", 1),
            ("local_slots = 9", 9),
            ("local_share = false", 0),
        ] {
            let given = Given {
                processors: 2,
                ..Given::default()
            };
            let file = File::parse(text).expect("valid");
            let settings = Settings::new(given, file, File::default()).expect("complete");
            assert_eq!(settings.share_cores, expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_refused_with_line_and_key() {
        for (text, expected) in [
            ("log = 'x'\ncoordinater = 'y'", ["line 2", "coordinater"]),
            ("local_slots = 'two'", ["line 1", "local_slots"]),
            ("idle_exit = 90", ["line 1", "idle_exit"]),
            ("log = ", ["line 1", "log"]),
        ] {
            let error = File::parse(text).expect_err(text).to_string();
            assert!(expected.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
        let zero = File::parse("local_slots = 0").expect("a number");
        let error = Settings::new(Given::default(), zero, File::default()).expect_err("no slots");
        assert!(error.to_string().contains("local_slots"));
        let relative = File::parse("toolchain_dirs = ['here']").expect("a list");
        assert!(Settings::new(Given::default(), relative, File::default()).is_err());
    }
}
