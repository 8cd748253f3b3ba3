//! The coordinator's configuration: a TOML file's text to [`Settings`], with the defaults and what each is for.
//!
//! Pure: `bin/` reads the file. The command line overrides. Unknown keys are refused, with the line and what is known.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::rules::Rules;
use crate::quantity::Span;
use crate::trust::listening;

/// Where the coordinator listens when nobody says: this machine only, the port that workers and agents expect.
const LISTEN: &str = "127.0.0.1:7420";
/// How long transfers of bundles may go on after the order to stop.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How long certificates are good for: they are renewed after eight months.
const CERTIFICATE_VALID: Duration = Duration::from_secs(365 * 24 * 3600);
/// From what a test needs to ten years.
const CERTIFICATE_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(87_600 * 3600);
/// Lengths of time that make sense for a wait: shorter is a busy loop, longer is for ever.
const WAIT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// What a coordinator's file may say; everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// ADDRESS:PORT to listen on.
    pub listen: Option<String>,
    /// Where toolchains are kept.
    pub state_dir: Option<PathBuf>,
    /// How long transfers of bundles may go on after the order to stop.
    pub shutdown_grace: Option<Span>,
    /// Whether machines of the networks in `allow` may use the farm without certificates.
    pub insecure_lan: Option<bool>,
    /// Those networks, as `192.168.1.0/24`.
    pub allow: Option<Vec<IpNet>>,
    /// Whether it is announced on the local networks, for `rdcc find`.
    pub announce: Option<bool>,
    /// How long a member's certificate is good for; it is renewed by itself when a third of that is left.
    pub certificate_valid: Option<Span>,
    /// How places are given.
    pub scheduling: SchedulingFile,
}

/// The `[scheduling]` table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulingFile {
    /// A grant has to be in use this long after it was given.
    pub grant_valid: Option<Span>,
    /// How often workers report.
    pub report_every: Option<Span>,
    /// A worker that missed this many reports is lost.
    pub silent_reports: Option<u32>,
    /// How long a job waits for a toolchain that no worker has ready.
    pub prepare_wait: Option<Span>,
    /// How long a job waits at most while all workers are busy.
    pub queue_wait: Option<Span>,
    /// How long workers have to come back before jobs that only they could take are refused.
    pub settle: Option<Span>,
    /// First and longest pause of a worker after a fault.
    pub fault_pause_first: Option<Span>,
    /// The longest.
    pub fault_pause_most: Option<Span>,
    /// Workers that fetch one toolchain at one time.
    pub fetches_max: Option<u32>,
}

/// What the command line says; it wins over the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// `--listen`.
    pub listen: Option<String>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--insecure-lan`.
    pub insecure_lan: bool,
    /// `--allow`, each time it is given.
    pub allow: Vec<IpNet>,
    /// `--announce`.
    pub announce: bool,
}

/// A coordinator's settings, complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// ADDRESS:PORT to listen on.
    pub listen: String,
    /// Where toolchains are kept.
    pub state_dir: PathBuf,
    /// How long transfers of bundles may go on after the order to stop.
    pub shutdown_grace: Duration,
    /// Networks whose machines may use the farm without certificates; `None`: nobody may.
    pub insecure_lan: Option<Vec<IpNet>>,
    /// Whether it is announced on the local networks.
    pub announce: bool,
    /// How long certificates are good for.
    pub certificate_valid: Duration,
    /// The scheduler's numbers.
    pub rules: Rules,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not what it should be; the text names line and key.
    #[error("{0}")]
    File(String),
    /// Something that has no default is not given.
    #[error("`{0}` is not set")]
    Missing(&'static str),
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

fn wait(what: &'static str, given: Option<Span>, usual: Duration) -> Result<Duration, SettingsError> {
    let time = given.map_or(usual, |span| span.0);
    if WAIT_RANGE.contains(&time) {
        Ok(time)
    } else {
        let (found, range) = (format!("{time:?}"), "`100 ms` to `24 h`");
        Err(SettingsError::Range { what, found, range })
    }
}

fn count(what: &'static str, given: Option<u32>, usual: u32) -> Result<u32, SettingsError> {
    let count = given.unwrap_or(usual);
    if (1..=1000).contains(&count) {
        Ok(count)
    } else {
        let (found, range) = (count.to_string(), "1 to 1000");
        Err(SettingsError::Range { what, found, range })
    }
}

impl SchedulingFile {
    fn rules(&self) -> Result<Rules, SettingsError> {
        let usual = Rules::default();
        let fetches = u32::try_from(usual.fetches_max).unwrap_or(u32::MAX);
        let first = wait("fault_pause_first", self.fault_pause_first, usual.fault_pause_first)?;
        Ok(Rules {
            grant_valid: wait("grant_valid", self.grant_valid, usual.grant_valid)?,
            report_every: wait("report_every", self.report_every, usual.report_every)?,
            silent_reports: count("silent_reports", self.silent_reports, usual.silent_reports)?,
            prepare_wait: wait("prepare_wait", self.prepare_wait, usual.prepare_wait)?,
            queue_wait: wait("queue_wait", self.queue_wait, usual.queue_wait)?,
            settle: wait("settle", self.settle, usual.settle)?,
            fault_pause_first: first,
            fault_pause_most: wait("fault_pause_most", self.fault_pause_most, usual.fault_pause_most)?.max(first),
            fetches_max: count("fetches_max", self.fetches_max, fetches)? as usize,
            ..usual
        })
    }
}

impl Settings {
    /// Puts command line, file and defaults together.
    pub fn new(given: Given, file: File) -> Result<Self, SettingsError> {
        let state_dir = given.state_dir.or(file.state_dir);
        let certificate_valid = file.certificate_valid.map_or(CERTIFICATE_VALID, |span| span.0);
        if !CERTIFICATE_RANGE.contains(&certificate_valid) {
            let (found, range) = (format!("{certificate_valid:?}"), "`1 s` to `87600 h`");
            return Err(SettingsError::Range {
                what: "certificate_valid",
                found,
                range,
            });
        }
        Ok(Self {
            insecure_lan: listening::insecure_lan((given.insecure_lan, given.allow), (file.insecure_lan, file.allow))
                .map_err(SettingsError::Missing)?,
            announce: given.announce || file.announce.unwrap_or(false),
            certificate_valid,
            listen: given.listen.or(file.listen).unwrap_or_else(|| LISTEN.to_owned()),
            state_dir: state_dir.ok_or(SettingsError::Missing("--state-dir"))?,
            shutdown_grace: wait("shutdown_grace", file.shutdown_grace, SHUTDOWN_GRACE)?,
            rules: file.scheduling.rules()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, SettingsError> {
        let given = Given {
            state_dir: Some("/var/lib/rdcc".into()),
            ..Given::default()
        };
        Settings::new(given, File::parse(text)?)
    }

    #[test]
    fn everything_but_the_state_directory_has_a_default() {
        let settings = settings("").expect("complete");
        assert_eq!((settings.listen.as_str(), &settings.rules), (LISTEN, &Rules::default()));
        let error = Settings::new(Given::default(), File::default()).expect_err("no directory");
        assert!(error.to_string().contains("--state-dir"));
    }

    #[test]
    fn file_sets_times_as_text_and_command_line_wins() {
        let file = File::parse("listen = '127.0.0.1:1'\n[scheduling]\ngrant_valid = '3 s'\n").expect("valid");
        let given = Given {
            listen: Some("127.0.0.1:2".into()),
            state_dir: Some("/x".into()),
            ..Given::default()
        };
        let settings = Settings::new(given, file).expect("complete");
        assert_eq!(settings.listen, "127.0.0.1:2");
        assert_eq!(settings.rules.grant_valid, Duration::from_secs(3));
    }

    #[test]
    fn packaged_sample_is_valid_also_with_all_its_defaults_written_out() {
        let sample = include_str!("../../packaging/config/coordinator.toml");
        let written_out = sample.lines().map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") => setting,
            _ => line,
        });
        let written_out: Vec<&str> = written_out.collect();
        for text in [sample, &written_out.join("\n")] {
            let settings = Settings::new(Given::default(), File::parse(text).expect("valid")).expect("complete");
            assert_eq!((settings.listen.as_str(), &settings.rules), (LISTEN, &Rules::default()));
        }
    }

    #[test]
    fn unknown_keys_and_values_out_of_range_are_named() {
        for (text, named) in [
            ("listne = 'x'", "listne"),
            ("[scheduling]\ngrant_vaild = '1 s'", "line 2"),
            ("[scheduling]\ngrant_valid = 10", "90 s"),
            ("[scheduling]\nreport_every = '1 ms'", "`report_every`"),
            ("[scheduling]\nsilent_reports = 0", "`silent_reports`"),
        ] {
            let error = settings(text).expect_err(text).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
