//! From a parsed command line to text and exit status.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::arguments::{AgentAction, Command};
use super::cluster::Cluster;
use super::coordinator_rpc::{Coordinator, Draining};
use super::nodes::Names;
use super::{
    Context, DONE, Ending, FAILED, Failure, UNREACHABLE, audit, check, find, masquerade, members, nodes, stats,
    toolchain, trace, why,
};
use crate::exchange::{AgentReport, Complaint, Reply, Request, Zero};
use crate::ids::{Name, ToolchainId};
use crate::runtime::discovery;

/// Carries out `command`.
pub async fn run(command: Command, context: &Context<'_>) -> Ending {
    match command {
        Command::Status { json } => status(json.into(), context).await,
        Command::Nodes { json } => list_nodes(json.into(), context).await.into(),
        Command::Jobs { json } => list_jobs(json.into(), context).await,
        Command::Stats { json, zero } => {
            let zero = if zero { Zero::Reset } else { Zero::Keep };
            count(json.into(), zero, context).into()
        }
        Command::Audit { json, forget } => {
            let zero = if forget { Zero::Reset } else { Zero::Keep };
            audits(json.into(), zero, context).into()
        }
        Command::Find { json, seconds } => find_farms(json.into(), Duration::from_secs(seconds)).into(),
        Command::Why { file, json } => explain(&file, json.into(), context).into(),
        Command::Trace { file } => write_trace(&file, context).into(),
        Command::Slots { toolchain } => slots(toolchain.as_ref(), context).await,
        Command::Toolchain(command) => toolchain::run(command, context).await.into(),
        Command::Drain { node, off } => {
            let draining = if off { Draining::Off } else { Draining::On };
            drain(&node, draining, context).await.into()
        }
        Command::Check { toolchain, json } => check::run(&toolchain, json.into(), context).await,
        Command::Masquerade(command) => masquerade::run(command, context).await.into(),
        Command::Join { host, token, name } => members::join(&host, &token, name, context).await.into(),
        Command::Token(command) => members::token(command, context).await.into(),
        Command::Node(command) => members::node(command, context).await.into(),
        Command::Agent { action, .. } => agent(action, context).into(),
        Command::Version => Ending {
            text: format!("rdcc {}\n", env!("CARGO_PKG_VERSION")),
            failure: None,
        },
    }
}

/// How a command says what it says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A table, for a person.
    Table,
    /// JSON, for a script.
    Json,
}

impl From<bool> for Form {
    fn from(json: bool) -> Self {
        if json { Form::Json } else { Form::Table }
    }
}

/// Says `value` as JSON for a script.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("reports are plain data with text keys");
    text.push('\n');
    text
}

/// The cluster, and the names of its toolchains as far as they are told.
async fn cluster(context: &Context<'_>) -> Result<(Cluster, Names), Failure> {
    let coordinator = Coordinator::connect(context).await?;
    let cluster = coordinator.cluster().await?;
    // Without names the identities are shown.
    let toolchains = coordinator.toolchains().await.unwrap_or_default();
    Ok((cluster, Names::new(&toolchains)))
}

fn agent_report(context: &Context<'_>) -> Result<Option<AgentReport>, Failure> {
    match context.agent.ask_running(&Request::Status) {
        Ok(Some(Reply::Status(report))) => Ok(Some(report)),
        Ok(None) => Ok(None),
        Ok(Some(other)) => Err(unexpected(other)),
        Err(complaint) => Err(agent_unreachable(complaint)),
    }
}

pub(super) fn agent_unreachable(complaint: Complaint) -> Failure {
    Failure {
        complaint,
        status: UNREACHABLE,
    }
}

fn unexpected(reply: Reply) -> Failure {
    Failure::failed(match reply {
        Reply::Failed(complaint) => complaint,
        _ => Complaint::new("the agent answered something else").hint("`rdcc agent stop`, then try again"),
    })
}

#[derive(Serialize)]
struct StatusJson<'a> {
    coordinator: &'a str,
    cluster: Option<&'a Cluster>,
    agent: Option<&'a AgentReport>,
}

/// What can be told is told, also when the other half cannot be asked.
async fn status(form: Form, context: &Context<'_>) -> Ending {
    let cluster = cluster(context).await;
    let agent = agent_report(context);
    let address = &context.settings.coordinator;
    let (known, report) = (
        cluster.as_ref().ok().map(|(cluster, _)| cluster),
        agent.as_ref().ok().and_then(Option::as_ref),
    );
    let text = match form {
        Form::Json => json(&StatusJson {
            coordinator: address,
            cluster: known,
            agent: report,
        }),
        Form::Table => nodes::status(known, address, report),
    };
    Ending {
        text,
        failure: cluster.err().or(agent.err()),
    }
}

async fn list_nodes(form: Form, context: &Context<'_>) -> Result<String, Failure> {
    let (cluster, names) = cluster(context).await?;
    Ok(match form {
        Form::Json => json(&cluster.nodes),
        Form::Table => nodes::nodes(&cluster, &names),
    })
}

#[derive(Serialize)]
struct JobsJson<'a> {
    cluster: &'a [super::cluster::Job],
    agent: &'a [crate::exchange::ReportedJob],
}

async fn list_jobs(form: Form, context: &Context<'_>) -> Ending {
    let cluster = cluster(context).await;
    let agent = agent_report(context);
    let report = agent.as_ref().ok().and_then(Option::as_ref);
    let known = cluster.as_ref().ok();
    let text = match form {
        Form::Json => json(&JobsJson {
            cluster: known.map_or(&[], |(cluster, _)| &cluster.jobs),
            agent: report.map_or(&[], |report| &report.jobs),
        }),
        Form::Table => {
            let nameless = Names::default();
            let names = known.map_or(&nameless, |(_, names)| names);
            nodes::jobs(known.map(|(cluster, _)| cluster), names, report)
        }
    };
    Ending {
        text,
        failure: cluster.err().or(agent.err()),
    }
}

fn count(form: Form, zero: Zero, context: &Context<'_>) -> Result<String, Failure> {
    match context.agent.ask(&Request::Stats(zero)).map_err(agent_unreachable)? {
        Reply::Stats(statistics) => Ok(match form {
            Form::Json => json(&statistics),
            Form::Table => stats::render(&statistics),
        }),
        other => Err(unexpected(other)),
    }
}

fn audits(form: Form, zero: Zero, context: &Context<'_>) -> Result<String, Failure> {
    match context.agent.ask(&Request::Audits(zero)).map_err(agent_unreachable)? {
        Reply::Audits(report) => Ok(match form {
            Form::Json => json(&report),
            Form::Table => audit::render(&report, context.now_unix_ms),
        }),
        other => Err(unexpected(other)),
    }
}

fn find_farms(form: Form, wait: Duration) -> Result<String, Failure> {
    let found = discovery::find(wait).map_err(|error| Failure::failed(Complaint::from_error(&error)))?;
    Ok(match form {
        Form::Json => json(&found.iter().map(find::FoundFarm::from).collect::<Vec<_>>()),
        Form::Table => find::render(&found),
    })
}

fn write_trace(file: &Path, context: &Context<'_>) -> Result<String, Failure> {
    let trace = match context.agent.ask_running(&Request::Trace).map_err(agent_unreachable)? {
        Some(Reply::Trace(Some(trace))) => trace,
        None | Some(Reply::Trace(None)) => {
            let complaint = Complaint::new("there is no build to write down")
                .because("the agent has seen none since it started; it forgets when it ends");
            return Err(Failure::failed(complaint.hint("build something, then try again")));
        }
        Some(other) => return Err(unexpected(other)),
    };
    let path = context.cwd.join(file);
    std::fs::write(&path, trace::render(&trace)).map_err(|error| {
        let complaint = Complaint::new(format!("cannot write `{}`", path.display()));
        Failure::failed(complaint.because(error.to_string()))
    })?;
    let count = trace.jobs.len();
    Ok(format!(
        "{count} jobs in `{}`: open it in ui.perfetto.dev or chrome://tracing\n",
        file.display()
    ))
}

fn explain(file: &Path, form: Form, context: &Context<'_>) -> Result<String, Failure> {
    let path = context.cwd.join(file);
    let request = Request::Why(without_dots(&path));
    match context.agent.ask(&request).map_err(agent_unreachable)? {
        Reply::Why(records) if records.is_empty() && form == Form::Table => Err(Failure {
            complaint: why::unknown(file),
            status: FAILED,
        }),
        Reply::Why(records) => Ok(match form {
            Form::Json => json(&records),
            Form::Table => why::render(&records, context.now_unix_ms),
        }),
        other => Err(unexpected(other)),
    }
}

/// Takes `.` and doubled slashes out; `..` stays, since it means something else behind a link.
fn without_dots(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Prints a number whatever happens: it stands in somebody's `make -j$(rdcc slots)`.
async fn slots(toolchain: Option<&Name>, context: &Context<'_>) -> Ending {
    let local = context.settings.local_slots;
    let (count, failure) = match usable_slots(toolchain, context).await {
        Ok(cluster) => (jobs_at_once(cluster, my_share(context), local), None),
        // A build without the farm is still a build: said, but no failure.
        Err(failure) if failure.status == UNREACHABLE => (
            local,
            Some(Failure {
                status: DONE,
                ..failure
            }),
        ),
        Err(failure) => (local, Some(failure)),
    };
    Ending {
        text: format!("{count}\n"),
        failure,
    }
}

/// What the agent was told of this machine's share of the farm, if it runs and was told.
fn my_share(context: &Context<'_>) -> Option<u32> {
    let farm = agent_report(context).ok()??.farm?;
    u32::try_from(farm.my_share).ok()
}

/// How many jobs keep all slots busy: one each, and one in four more, so that each slot finds the next job waiting and the
/// coordinator has some to choose from.
fn jobs_at_once(slots: u32, my_share: Option<u32>, local: u32) -> u32 {
    let slots = slots.min(my_share.filter(|share| *share != 0).unwrap_or(u32::MAX));
    slots.saturating_add(slots.div_ceil(4)).saturating_add(local)
}

async fn usable_slots(toolchain: Option<&Name>, context: &Context<'_>) -> Result<u32, Failure> {
    let coordinator = Coordinator::connect(context).await?;
    let cluster = coordinator.cluster().await?;
    let Some(name) = toolchain else {
        return Ok(cluster.usable_slots(None));
    };
    let known = coordinator.toolchains().await?;
    let wanted: Vec<ToolchainId> = known
        .iter()
        .filter(|toolchain| toolchain.current && toolchain.name == name.as_str())
        .map(|toolchain| toolchain.identity)
        .collect();
    if wanted.is_empty() {
        let complaint = Complaint::new(format!("the cluster has no toolchain `{name}`"));
        return Err(Failure::failed(
            complaint.hint("`rdcc toolchain list` shows those it has"),
        ));
    }
    Ok(cluster.usable_slots(Some(&wanted)))
}

async fn drain(node: &str, draining: Draining, context: &Context<'_>) -> Result<String, Failure> {
    let coordinator = Coordinator::connect(context).await?;
    coordinator.set_drain(node, draining).await?;
    Ok(match draining {
        Draining::On => format!("node `{node}` finishes its jobs and gets no more\n"),
        Draining::Off => format!("node `{node}` gets jobs again\n"),
    })
}

fn agent(action: Option<AgentAction>, context: &Context<'_>) -> Result<String, Failure> {
    match action {
        None => match context.agent.ask(&Request::Status).map_err(agent_unreachable)? {
            Reply::Status(report) => Ok(format!("the agent runs as process {}\n", report.pid)),
            other => Err(unexpected(other)),
        },
        Some(AgentAction::Stop) => match context.agent.ask_running(&Request::Retire).map_err(agent_unreachable)? {
            None => Ok("no agent is running\n".to_owned()),
            Some(Reply::Retiring) => Ok("the agent ends when its jobs are done\n".to_owned()),
            Some(other) => Err(unexpected(other)),
        },
    }
}
