//! The command line of the commands for people.
//!
//! The doc comments here are the help texts. The wrapper never comes here: it parses by hand, and fast.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use super::{Ending, Failure, USAGE};
use crate::exchange::Complaint;
use crate::ids::Name;
use crate::trust::identity::Role;

/// A compile farm for cross builds.
///
/// As a compiler: CC="rdcc --toolchain NAME", CC="rdcc --toolchain NAME COMPILER", or a link called like the compiler.
#[derive(Debug, Parser)]
#[command(name = "rdcc", version, disable_help_subcommand = false)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how cluster and agent are doing
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the nodes of the cluster
    Nodes {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the jobs that are running
    Jobs {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Count how many jobs ran where, and why
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Start again from nothing, after printing
        #[arg(long)]
        zero: bool,
    },
    /// Tell where a file was compiled, and why there
    Why {
        /// An object, or another file that a compiler wrote
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell what audits have found, and which files a wrong node made
    Audit {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Forget the findings, after printing: the files were compiled again
        #[arg(long)]
        forget: bool,
    },
    /// Write the last build as a trace for Perfetto or chrome://tracing
    Trace {
        /// The file to write
        file: PathBuf,
    },
    /// Print how many jobs to start at once: make -j$(rdcc slots)
    Slots {
        /// Count only nodes that have this toolchain or can get it
        #[arg(long)]
        toolchain: Option<Name>,
    },
    /// Manage the cluster's toolchains
    #[command(subcommand)]
    Toolchain(ToolchainCommand),
    /// Compile a small file on every node that may use a toolchain, and compare with this machine
    Check {
        /// The toolchain
        #[arg(long)]
        toolchain: Name,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make and remove directories of links called like compilers
    #[command(subcommand)]
    Masquerade(MasqueradeCommand),
    /// Let a node finish its jobs and give it no more
    Drain {
        /// The node
        node: String,
        /// Give it jobs again
        #[arg(long)]
        off: bool,
    },
    /// Look for coordinators that announce themselves on this machine's networks
    Find {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// How long to look, seconds
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
    /// Join a farm with certificates, as the token says: to submit jobs, or to administer it
    Join {
        /// HOST or HOST:PORT of its coordinator
        host: String,
        /// The join string that `rdcc token create` printed
        token: String,
        /// What this user is called in the farm [default: USER-HOST]
        #[arg(long)]
        name: Option<Name>,
    },
    /// Let other machines and users into the farm
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show and throw out members of the farm
    #[command(subcommand)]
    Node(NodeCommand),
    /// Start or stop this user's agent, which otherwise starts by itself
    Agent {
        /// Stay in the foreground and log to stderr
        #[arg(long, conflicts_with = "action")]
        foreground: bool,
        /// What to do instead of starting it
        action: Option<AgentAction>,
    },
    /// Print the version
    Version,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a join string for `rdcc join` or `rdcc-worker join`
    Create {
        /// worker, client or admin
        #[arg(long)]
        role: Role,
        /// How long it can be used
        #[arg(long, default_value = "15m", value_name = "TIME")]
        ttl: Ttl,
        /// How many machines may join with it
        #[arg(long, default_value_t = 1, value_name = "N")]
        uses: u32,
    },
}

/// What to do with members.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List all members of the farm
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Throw a member out: its certificate is no good any more, its sessions end
    Revoke {
        /// Its name
        name: Name,
    },
}

/// A time to live: `90s`, `15m`, `2h`, `7d`, with or without a blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(pub Duration);

impl std::str::FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit_s = match text[digits..].trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return Err("use a number with s, m, h or d, such as 15m".to_owned()),
        };
        let count: u64 = text[..digits]
            .parse()
            .map_err(|_| "use a number with s, m, h or d, such as 15m".to_owned())?;
        Ok(Self(Duration::from_secs(count.saturating_mul(unit_s))))
    }
}

/// What to do with the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AgentAction {
    /// Take no more jobs, finish those at hand, and end
    Stop,
}

/// What to do with toolchains.
#[derive(Debug, Subcommand)]
pub enum ToolchainCommand {
    /// Capture the compiler that a toolchain file describes, and give it to the cluster
    Push {
        /// The toolchain file
        file: PathBuf,
        /// Let the name stand for this compiler from now on, whatever it stood for
        #[arg(long)]
        replace: bool,
    },
    /// List what the cluster has
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one toolchain
    Show {
        /// Its name
        name: Name,
        /// List its files too
        #[arg(long)]
        files: bool,
    },
    /// Compare the compiler installed here with the cluster's
    Verify {
        /// The toolchain's name
        name: Name,
    },
    /// Take a toolchain off the cluster
    Rm {
        /// Its name
        name: Name,
    },
}

/// What to do with directories of links.
#[derive(Debug, Subcommand)]
pub enum MasqueradeCommand {
    /// Make links called like a toolchain's compilers, for a directory that stands first on PATH
    Install {
        /// The directory
        directory: PathBuf,
        /// The toolchain
        #[arg(long)]
        toolchain: Name,
    },
    /// Remove such links, and the directory if nothing else is in it
    Remove {
        /// The directory
        directory: PathBuf,
    },
}

/// Reads the words behind `rdcc`. Help and mistakes come back as what to print.
pub fn parse(words: Vec<OsString>) -> Result<Command, Ending> {
    let words = std::iter::once(OsString::from("rdcc")).chain(words);
    match Arguments::try_parse_from(words) {
        Ok(arguments) => Ok(arguments.command),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Err(Ending {
            text: error.render().to_string(),
            failure: None,
        }),
        Err(error) => Err(Ending {
            text: String::new(),
            failure: Some(Failure {
                complaint: complaint(&error),
                status: USAGE,
            }),
        }),
    }
}

/// Says clap's error in the form of ours: its first paragraph, and the usage as a hint.
fn complaint(error: &clap::Error) -> Complaint {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Complaint::new("a command is missing").hint("`rdcc help` lists the commands");
    }
    let text = error.render().to_string();
    let paragraph: Vec<&str> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let paragraph = paragraph.join(" ").replace('\'', "`");
    let complaint = Complaint::new(paragraph.strip_prefix("error: ").unwrap_or(&paragraph));
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: "));
    match usage {
        Some(usage) => complaint.hint(format!("usage: {usage}")),
        None => complaint.hint("`rdcc help` lists the commands"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse_text(text: &str) -> Result<Command, Ending> {
        parse(
            text.split(' ')
                .filter(|word| !word.is_empty())
                .map(OsString::from)
                .collect(),
        )
    }

    #[test]
    fn definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn command_line_of_the_contract_is_understood() {
        for text in [
            "status --json",
            "nodes",
            "jobs --json",
            "stats --json --zero",
            "why a/b.o",
            "audit --json --forget",
            "find --json --seconds 1",
            "slots",
            "slots --toolchain arm926",
            "toolchain push toolchains/arm926.toml --replace",
            "toolchain list",
            "toolchain show arm926",
            "toolchain verify arm926",
            "toolchain rm arm926",
            "drain n1 --off",
            "check --toolchain arm926 --json",
            "masquerade install d --toolchain arm926",
            "masquerade remove d",
            "join farm rdcc-00-11 --name pc",
            "token create --role worker --ttl 2h --uses 8",
            "token create --role client",
            "node list --json",
            "node revoke n1",
            "agent",
            "agent --foreground",
            "agent stop",
            "version",
        ] {
            assert!(parse_text(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn mistakes_say_what_is_wrong_and_what_is_right() {
        for (text, error, hint) in [
            ("toolchain push", "not provided: <FILE>", "rdcc toolchain push <FILE>"),
            ("status --jsn", "--jsn", "rdcc status"),
            ("toolchain show ../x", "../x", "help"),
            ("token create --role boss", "no role", "help"),
            ("token create --role worker --ttl 15", "such as 15m", "help"),
            ("", "command is missing", "rdcc help"),
        ] {
            let failure = parse_text(text).expect_err(text).failure.expect(text);
            assert_eq!(failure.status, USAGE, "{text}");
            assert!(failure.complaint.error.contains(error), "{text}: {}", failure.complaint);
            let shown = failure.complaint.hint.unwrap_or_default();
            assert!(shown.contains(hint), "{text}: {shown}");
        }
    }

    #[test]
    fn help_is_no_failure() {
        let ending = parse_text("help").expect_err("help");
        assert!(ending.failure.is_none() && ending.text.contains("toolchain"));
    }
}
