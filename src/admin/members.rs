//! `rdcc join`, `rdcc token` and `rdcc node`: into a farm, and out of it.

use super::arguments::{NodeCommand, TokenCommand};
use super::commands::json;
use super::coordinator_rpc::Coordinator;
use super::table::{Side, Table, span};
use super::{Context, Failure, members_rpc};
use crate::exchange::{Complaint, Request};
use crate::ids::Name;
use crate::trust::credentials::{self, Credentials};
use crate::trust::enrolment_rpc;
use crate::trust::identity::Role;
use crate::trust::join_string::JoinString;

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::failed(Complaint::from_error(error))
}

/// Joins a farm as this user.
pub(super) async fn join(
    host: &str,
    token: &str,
    name: Option<Name>,
    context: &Context<'_>,
) -> Result<String, Failure> {
    let string: JoinString = token.parse().map_err(|error| failed(&error))?;
    let state_dir = context.state_dir.as_ref().ok_or_else(|| {
        Failure::failed(
            Complaint::new("there is no directory for rdcc's state").hint("set RDCC_STATE_DIR to a directory of yours"),
        )
    })?;
    let directory = credentials::directory(state_dir);
    if let Some(present) = Credentials::load(&directory).map_err(|error| failed(&error))? {
        let what = format!(
            "this user is {} of the farm at `{}` already",
            present.identity, present.coordinator
        );
        let hint = format!("to join another one, remove `{}` first", directory.display());
        return Err(Failure::failed(Complaint::new(what).hint(hint)));
    }
    let name = match name {
        Some(name) => name,
        None => usual_name(context)?,
    };
    let joined = enrolment_rpc::join(host, &string, &name)
        .await
        .map_err(|error| failed(&error))?;
    if joined.identity.role == Role::Worker {
        let what = "this token is for a worker, and is used up now";
        let hint = "make another one, and give it to `rdcc-worker join` on the node";
        return Err(Failure::failed(Complaint::new(what).hint(hint)));
    }
    joined.save(&directory).map_err(|error| failed(&error))?;
    // An agent that runs speaks to whom it spoke to before; the next one begins with the farm.
    let _ = context.agent.ask_running(&Request::Retire);
    Ok(format!(
        "joined the farm at `{}` as {}\n",
        joined.coordinator, joined.identity
    ))
}

/// USER-HOST, out of the characters that names have.
fn usual_name(context: &Context<'_>) -> Result<Name, Failure> {
    let user = context
        .surroundings
        .environment
        .iter()
        .find(|(variable, _)| variable == "USER" || variable == "LOGNAME");
    let user = user.map_or_else(
        || rustix::process::geteuid().as_raw().to_string(),
        |(_, user)| user.to_string_lossy().into_owned(),
    );
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let text: String = format!("{user}-{host}").chars().filter(fits).take(64).collect();
    Name::new(&text).map_err(|error| Failure::failed(Complaint::from_error(&error).hint("give one with `--name`")))
}

/// Makes a way in.
pub(super) async fn token(command: TokenCommand, context: &Context<'_>) -> Result<String, Failure> {
    let TokenCommand::Create { role, ttl, uses } = command;
    let coordinator = Coordinator::connect(context).await?;
    let string = members_rpc::create_token(&coordinator, role, ttl.0.as_secs(), uses).await?;
    Ok(format!("{string}\n"))
}

/// Lists members, or throws one out.
pub(super) async fn node(command: NodeCommand, context: &Context<'_>) -> Result<String, Failure> {
    let coordinator = Coordinator::connect(context).await?;
    match command {
        NodeCommand::List { json: true } => Ok(json(&members_rpc::list(&coordinator).await?)),
        NodeCommand::List { json: false } => {
            let members = members_rpc::list(&coordinator).await?;
            let mut table = Table::new(&[
                ("MEMBER", Side::Left),
                ("ROLE", Side::Left),
                ("JOINED", Side::Right),
                ("CERTIFICATE ENDS", Side::Right),
                ("ADMITTED BY", Side::Left),
            ]);
            let now = context.now_unix_ms / 1000;
            for member in members {
                table.row([
                    member.name,
                    member.role,
                    format!("{} ago", span(1000 * now.saturating_sub(member.joined_unix_s))),
                    match member.expires_unix_s.checked_sub(now) {
                        Some(left) => format!("in {}", span(1000 * left)),
                        None => "it has ended".to_owned(),
                    },
                    member.admitted_by,
                ]);
            }
            Ok(table.render())
        }
        NodeCommand::Revoke { name } => {
            let count = members_rpc::revoke(&coordinator, &name).await?;
            let members = if count == 1 { "member" } else { "members" };
            Ok(format!("`{name}` is out: {count} {members}; its sessions have ended\n"))
        }
    }
}
