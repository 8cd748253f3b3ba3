//! The worker's configuration: a TOML file's text to [`Settings`], with the defaults and what each is for.
//!
//! Pure: `bin/` reads the file. The command line overrides. Unknown keys are refused, with the line and what is known.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use crate::ids::Name;
use crate::quantity::{Bytes, Span};

/// What a worker's file may say; everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// `http://HOST:PORT` of the coordinator.
    pub coordinator: Option<String>,
    /// ADDRESS:PORT to listen on for agents.
    pub listen: Option<String>,
    /// Whether machines of the networks in `allow` may have jobs run without certificates.
    pub insecure_lan: Option<bool>,
    /// Those networks, as `192.168.1.0/24`.
    pub allow: Option<Vec<IpNet>>,
    /// HOST:PORT that agents are told to use; the listening address when absent.
    pub address: Option<String>,
    /// The node's name.
    pub name: Option<String>,
    /// Jobs at one time.
    pub slots: Option<u32>,
    /// One slot against one reference core.
    pub power: Option<f64>,
    /// Where everything is kept.
    pub state_dir: Option<PathBuf>,
    /// How far jobs give way to other programs, 0 to 19.
    pub niceness: Option<u8>,
    /// Room for unpacked toolchains.
    pub toolchain_quota: Option<Bytes>,
    /// Room for headers and sources, by content.
    pub blob_quota: Option<Bytes>,
    /// Room for mirrors of client trees, beyond what they share with the two above.
    pub mirror_quota: Option<Bytes>,
    /// Ceilings for each job.
    pub limits: LimitsFile,
}

/// The `[limits]` table.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// Address space of each process.
    pub memory: Option<Bytes>,
    /// CPU time of each process.
    pub cpu: Option<Span>,
    /// From start to end.
    pub wall: Option<Span>,
    /// Processes of one job.
    pub processes: Option<u32>,
    /// All that a job writes.
    pub output: Option<Bytes>,
}

/// What the command line says; it wins over the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// `--coordinator`.
    pub coordinator: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--name`.
    pub name: Option<String>,
    /// `--slots`.
    pub slots: Option<u32>,
    /// `--power`.
    pub power: Option<f64>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--insecure-lan`.
    pub insecure_lan: bool,
    /// `--allow`, each time it is given.
    pub allow: Vec<IpNet>,
    /// The coordinator whose farm this machine has joined.
    pub joined: Option<String>,
    /// What it is called there.
    pub joined_name: Option<Name>,
}

/// A worker's settings, complete and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `http://HOST:PORT` of the coordinator.
    pub coordinator: String,
    /// ADDRESS:PORT to listen on.
    pub listen: String,
    /// Networks whose machines may have jobs run without certificates; `None`: nobody may.
    pub insecure_lan: Option<Vec<IpNet>>,
    /// What agents are told, when that is not [`Settings::listen`].
    pub address: Option<String>,
    /// The node's name.
    pub name: Name,
    /// Jobs at one time, 1 to 1024.
    pub slots: u32,
    /// One slot against one reference core; `None`: to be measured.
    pub power: Option<f64>,
    /// Where everything is kept.
    pub state_dir: PathBuf,
    /// 0 to 19.
    pub niceness: u8,
    /// Bytes for unpacked toolchains.
    pub toolchain_quota_bytes: u64,
    /// Bytes for blobs.
    pub blob_quota_bytes: u64,
    /// Bytes for mirrors.
    pub mirror_quota_bytes: u64,
    /// Ceilings for each job.
    pub limits: Ceilings,
}

/// Ceilings for each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceilings {
    /// Address space of each process, bytes.
    pub memory_bytes: u64,
    /// CPU time of each process.
    pub cpu: Duration,
    /// From start to end.
    pub wall: Duration,
    /// Processes of one job.
    pub processes: u32,
    /// All that a job writes, bytes.
    pub output_bytes: u64,
}

impl Default for Ceilings {
    /// Far above any compile that is not a mistake: the largest units known (generated parsers, template-heavy C++) need
    /// some 8 GiB and minutes.
    fn default() -> Self {
        Self {
            // 32-bit nodes have no more than 3 GiB of addresses; the kernel caps this there.
            memory_bytes: 16 << 30,
            cpu: Duration::from_secs(60 * 60),
            wall: Duration::from_secs(2 * 60 * 60),
            processes: 64,
            output_bytes: 1 << 30,
        }
    }
}

/// What this machine is, for the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its host name.
    pub host_name: String,
    /// Its processors.
    pub processors: u32,
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
    /// The node's name is no name.
    #[error("the node's name: {0}")]
    Name(#[from] crate::ids::NameError),
}

impl File {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        toml::from_str(text).map_err(|error| SettingsError::File(error.to_string().trim_end().to_owned()))
    }
}

impl Settings {
    /// Puts command line, file and defaults together.
    pub fn new(given: Given, file: File, machine: &Machine) -> Result<Self, SettingsError> {
        let slots = given.slots.or(file.slots).unwrap_or(machine.processors.max(1));
        let power = given.power.or(file.power);
        let niceness = file.niceness.unwrap_or(5);
        let range = |what, found: String, range| Err(SettingsError::Range { what, found, range });
        if !(1..=1024).contains(&slots) {
            return range("slots", slots.to_string(), "1 to 1024");
        }
        if let Some(power) = power.filter(|power| !(0.001..=1000.0).contains(power)) {
            return range(
                "power",
                power.to_string(),
                "0.001 to 1000, 1.0 being one reference core",
            );
        }
        if niceness > 19 {
            return range("niceness", niceness.to_string(), "0 to 19");
        }
        let joined_name = given.joined_name.map(|name| name.to_string());
        let name = given
            .name
            .or(file.name)
            .or(joined_name)
            .unwrap_or_else(|| machine.host_name.clone());
        let allow = Some(given.allow)
            .filter(|allow| !allow.is_empty())
            .or(file.allow)
            .unwrap_or_default();
        let insecure_lan = match (
            given.insecure_lan || file.insecure_lan.unwrap_or(false),
            allow.is_empty(),
        ) {
            (true, true) => return Err(SettingsError::Missing("--allow")),
            (false, false) => return Err(SettingsError::Missing("--insecure-lan")),
            (true, false) => Some(allow),
            (false, true) => None,
        };
        let fallback = Ceilings::default();
        let bytes = |value: Option<Bytes>, fallback: u64| value.map_or(fallback, |bytes| bytes.0);
        let span = |value: Option<Span>, fallback: Duration| value.map_or(fallback, |span| span.0);
        Ok(Self {
            insecure_lan,
            coordinator: coordinator(given.coordinator.or(file.coordinator).or(given.joined))?,
            listen: given.listen.or(file.listen).ok_or(SettingsError::Missing("--listen"))?,
            address: file.address,
            name: Name::new(&name)?,
            slots,
            power,
            state_dir: given
                .state_dir
                .or(file.state_dir)
                .ok_or(SettingsError::Missing("--state-dir"))?,
            niceness,
            toolchain_quota_bytes: bytes(file.toolchain_quota, 8 << 30),
            blob_quota_bytes: bytes(file.blob_quota, 4 << 30),
            mirror_quota_bytes: bytes(file.mirror_quota, 2 << 30),
            limits: Ceilings {
                memory_bytes: bytes(file.limits.memory, fallback.memory_bytes),
                cpu: span(file.limits.cpu, fallback.cpu),
                wall: span(file.limits.wall, fallback.wall),
                processes: file.limits.processes.unwrap_or(fallback.processes),
                output_bytes: bytes(file.limits.output, fallback.output_bytes),
            },
        })
    }
}

/// Takes the coordinator's address, which is tried for ever once it is taken.
fn coordinator(address: Option<String>) -> Result<String, SettingsError> {
    let address = address.ok_or(SettingsError::Missing("--coordinator"))?;
    let host = address
        .strip_prefix("http://")
        .or_else(|| address.strip_prefix("https://"))
        .unwrap_or_default();
    if host.is_empty() || host.starts_with([':', '/']) {
        return Err(SettingsError::Range {
            what: "coordinator",
            found: format!("`{address}`"),
            range: "of the form http://HOST:PORT or https://HOST:PORT",
        });
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            host_name: "baalue-01".into(),
            processors: 2,
        }
    }

    fn complete() -> Given {
        Given {
            coordinator: Some("http://127.0.0.1:7420".into()),
            listen: Some("127.0.0.1:7431".into()),
            state_dir: Some("/var/lib/rdcc".into()),
            ..Given::default()
        }
    }

    #[test]
    fn machine_gives_name_and_slots_when_nobody_does() {
        let settings = Settings::new(complete(), File::default(), &machine()).expect("complete");
        assert_eq!((settings.name.as_str(), settings.slots), ("baalue-01", 2));
        assert_eq!(settings.power, None);
    }

    #[test]
    fn command_line_wins_over_file() {
        let file = File::parse("slots = 4\npower = 0.5\n[limits]\nwall = '10 min'\n").expect("valid");
        let given = Given {
            slots: Some(3),
            ..complete()
        };
        let settings = Settings::new(given, file, &machine()).expect("complete");
        assert_eq!((settings.slots, settings.power), (3, Some(0.5)));
        assert_eq!(settings.limits.wall, Duration::from_secs(600));
    }

    #[test]
    fn the_sample_file_is_valid_with_every_line_of_it_switched_on() {
        let sample = include_str!("../../packaging/config/worker.toml");
        let switched_on: Vec<&str> = sample
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| rest.contains(" = "))
                    .unwrap_or(line)
            })
            .collect();
        for text in [sample.to_owned(), switched_on.join("\n")] {
            let file = File::parse(&text).expect("the sample parses");
            Settings::new(Given::default(), file, &machine()).expect("the sample is complete");
        }
    }

    #[test]
    fn unknown_keys_and_bare_numbers_are_refused_by_name_and_line() {
        for (text, named) in [
            ("slot = 4", "slot"),
            ("\n[limits]\nmemroy = '1 GiB'", "memroy"),
            ("blob_quota = 5", "GiB"),
            ("blob_quota = '5'", "GiB"),
        ] {
            let error = File::parse(text).expect_err(text).to_string();
            assert!(error.contains(named) && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_and_missing_ones_are_named() {
        let with = |given: Given| Settings::new(given, File::default(), &machine()).map_err(|error| error.to_string());
        let error = with(Given {
            slots: Some(0),
            ..complete()
        });
        assert!(error.is_err_and(|text| text.contains("`slots` is 0")));
        let error = with(Given {
            power: Some(-1.0),
            ..complete()
        });
        assert!(error.is_err_and(|text| text.contains("`power`")));
        assert!(with(Given::default()).is_err_and(|text| text.contains("--coordinator")));
        for address in ["ftp://host:1", "host:7420", "http://", "http://:7420"] {
            let given = Given {
                coordinator: Some(address.to_owned()),
                ..complete()
            };
            assert!(with(given).is_err_and(|text| text.contains(address)), "{address}");
        }
    }
}
