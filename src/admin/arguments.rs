//! The command line of the commands for people.
//!
//! The doc comments here are the help texts. The wrapper never comes here: it parses by hand, and fast.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use super::{Ending, Failure, USAGE};
use crate::exchange::Complaint;
use crate::ids::Name;

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
