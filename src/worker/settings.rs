//! The worker's configuration: a TOML file's text to [`Settings`], with the defaults and what each is for.
//!
//! Pure: `bin/` reads the file. The command line overrides. Unknown keys are refused, with the line and what is known.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::cores::{CoreGroup, CpuList};
use crate::ids::{CoreGroupId, Name};
use crate::quantity::{Bytes, Span};
use crate::trust::listening;

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
    /// Cores of different speed; `slots` and `power` are theirs then.
    pub cores: Option<Vec<CoresFile>>,
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

/// One `[[cores]]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoresFile {
    /// The processors, as `4-5`.
    pub cpus: CpuList,
    /// Jobs on them at one time; one for each processor when absent.
    pub slots: Option<u32>,
    /// One of these slots against one reference core.
    pub power: Option<f64>,
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
    /// Cores of different speed, 2 to 8 groups; empty: they are alike. `slots` is their sum, `power` is not set then.
    pub cores: Vec<CoreGroup>,
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
    /// The processors that it lets this program use.
    pub processors: CpuList,
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
        range: String,
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
        let (slots, power) = (given.slots.or(file.slots), given.power.or(file.power));
        let cores = file.cores.unwrap_or_default();
        let cores = match cores.is_empty() {
            true => Vec::new(),
            false => core_groups(cores, slots, power, &machine.processors)?,
        };
        let slots = match cores.is_empty() {
            true => slots.unwrap_or(u32::try_from(machine.processors.count()).unwrap_or(u32::MAX)),
            false => cores.iter().fold(0_u32, |sum, group| sum.saturating_add(group.slots)),
        };
        let niceness = file.niceness.unwrap_or(5);
        let range = |what, found: String, range: &str| {
            let range = range.to_owned();
            Err(SettingsError::Range { what, found, range })
        };
        if !(1..=1024).contains(&slots) {
            return range("slots", slots.to_string(), "1 to 1024");
        }
        if let Some(power) = power {
            check_power(power)?;
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
        let fallback = Ceilings::default();
        let bytes = |value: Option<Bytes>, fallback: u64| value.map_or(fallback, |bytes| bytes.0);
        let span = |value: Option<Span>, fallback: Duration| value.map_or(fallback, |span| span.0);
        Ok(Self {
            insecure_lan: listening::insecure_lan((given.insecure_lan, given.allow), (file.insecure_lan, file.allow))
                .map_err(SettingsError::Missing)?,
            coordinator: coordinator(given.coordinator.or(file.coordinator).or(given.joined))?,
            listen: given.listen.or(file.listen).ok_or(SettingsError::Missing("--listen"))?,
            address: file.address,
            name: Name::new(&name)?,
            slots,
            power,
            cores,
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

fn check_power(power: f64) -> Result<(), SettingsError> {
    match (0.001..=1000.0).contains(&power) {
        true => Ok(()),
        false => Err(SettingsError::Range {
            what: "power",
            found: power.to_string(),
            range: "0.001 to 1000, 1.0 being one reference core".to_owned(),
        }),
    }
}

/// Takes groups of cores, which stand in for what would be said of all cores together.
fn core_groups(
    groups: Vec<CoresFile>,
    slots: Option<u32>,
    power: Option<f64>,
    processors: &CpuList,
) -> Result<Vec<CoreGroup>, SettingsError> {
    let wrong = |what, found: String, range: String| SettingsError::Range { what, found, range };
    let said_by_groups = || "left out where `[[cores]]` says it".to_owned();
    if let Some(slots) = slots {
        return Err(wrong("slots", slots.to_string(), said_by_groups()));
    }
    if let Some(power) = power {
        return Err(wrong("power", power.to_string(), said_by_groups()));
    }
    if !(2..=CoreGroupId::GROUPS_MAX).contains(&groups.len()) {
        let range = format!("2 to {}; cores of one speed need none", CoreGroupId::GROUPS_MAX);
        return Err(wrong("the number of `[[cores]]`", groups.len().to_string(), range));
    }
    let mut taken = Vec::<CoreGroup>::new();
    for group in groups {
        let cpus = group.cpus;
        if !cpus.is_within(processors) {
            let range = format!("among the processors that this worker may use, {processors}");
            return Err(wrong("cpus", format!("`{cpus}`"), range));
        }
        if let Some(other) = taken.iter().find(|other| other.cpus.overlaps(&cpus)) {
            let range = format!("apart from those of another group, `{}`", other.cpus);
            return Err(wrong("cpus", format!("`{cpus}`"), range));
        }
        if let Some(power) = group.power {
            check_power(power)?;
        }
        let slots = group.slots.unwrap_or(cpus.count() as u32);
        if slots == 0 {
            return Err(wrong("slots", "0".to_owned(), "1 or more in each group".to_owned()));
        }
        let power = group.power;
        taken.push(CoreGroup { cpus, slots, power });
    }
    Ok(taken)
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
            range: "of the form http://HOST:PORT or https://HOST:PORT".to_owned(),
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
            processors: "0-1".parse().expect("a list"),
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
        let said_by_cores = |line: &&str| line.starts_with("slots = ") || line.starts_with("power = ");
        let alike = switched_on.iter().copied().filter(|line| !line.starts_with("cores = "));
        let of_cores = switched_on.iter().copied().filter(|line| !said_by_cores(line));
        let texts = [
            sample.to_owned(),
            alike.collect::<Vec<_>>().join("\n"),
            of_cores.collect::<Vec<_>>().join("\n"),
        ];
        let machine = Machine {
            processors: "0-5".parse().expect("a list"),
            ..machine()
        };
        for (text, groups) in texts.into_iter().zip([0, 0, 2]) {
            let file = File::parse(&text).expect("the sample parses");
            let settings = Settings::new(Given::default(), file, &machine).expect("the sample is complete");
            assert_eq!(settings.cores.len(), groups, "{text}");
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
    fn cores_of_different_speed_say_slots_and_power_themselves() {
        let machine = Machine {
            processors: "0-5".parse().expect("a list"),
            ..machine()
        };
        let with = |text: &str| {
            let file = File::parse(text).map_err(|error| error.to_string())?;
            Settings::new(complete(), file, &machine).map_err(|error| error.to_string())
        };
        let big = "[[cores]]\ncpus = '4-5'\npower = 2.0\n";
        let little = "[[cores]]\ncpus = '0-3'\nslots = 3\n";
        let settings = with(&format!("{little}{big}")).expect("complete");
        assert_eq!(settings.slots, 5);
        let told: Vec<_> = settings.cores.iter().map(|group| (group.slots, group.power)).collect();
        assert_eq!(told, [(3, None), (2, Some(2.0))]);
        for (text, named) in [
            (
                format!("slots = 4\n{big}{little}"),
                "`slots` is 4; it has to be left out",
            ),
            (
                format!("power = 4\n{big}{little}"),
                "`power` is 4; it has to be left out",
            ),
            (big.to_owned(), "2 to 8"),
            (format!("{big}[[cores]]\ncpus = '0-6'\n"), "may use, 0-5"),
            (format!("{big}[[cores]]\ncpus = '3-4'\n"), "another group, `4-5`"),
            (format!("{big}[[cores]]\ncpus = '0'\nslots = 0\n"), "1 or more"),
            (format!("{big}[[cores]]\ncpus = '0'\npower = 0\n"), "`power` is 0"),
            (format!("{big}[[cores]]\ncpus = 'many'\n"), "`many` is no list"),
        ] {
            let error = with(&text).expect_err(&text);
            assert!(error.contains(named), "{error}");
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
