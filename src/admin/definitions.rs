//! The toolchain file that a name means to this user: as the agent looks for it.
//!
//! The directories of the configuration first, then what was pushed from here, then what the coordinator has.

use std::io;
use std::path::Path;

use super::coordinator_rpc::Coordinator;
use super::{Context, Failure};
use crate::exchange::{Complaint, place};
use crate::ids::Name;
use crate::toolchains::definition::Definition;

/// A toolchain file, and whether this machine has it.
pub(super) struct Found {
    pub(super) definition: Definition,
    pub(super) origin: Origin,
}

/// Where a toolchain file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// On this machine, so that the agent knows its compilers by their content.
    Here,
    /// At the coordinator only.
    Coordinator,
}

/// Finds the toolchain file `name`.
pub(super) async fn find(name: &Name, context: &Context<'_>) -> Result<Found, Failure> {
    let directories = context.settings.toolchain_dirs.iter();
    let files = directories.map(|directory| directory.join(format!("{name}.toml")));
    let pushed = context.state_dir.as_deref();
    let pushed = pushed.map(|state_dir| place::pushed_definition(state_dir, name));
    for file in files.chain(pushed) {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unusable(&file, &error)),
        };
        let definition = Definition::parse(&text).map_err(|error| unusable(&file, &error))?;
        // One that calls itself otherwise is passed over, as the agent does.
        if definition.name == *name {
            let origin = Origin::Here;
            return Ok(Found { definition, origin });
        }
    }
    at_coordinator(name, context).await
}

async fn at_coordinator(name: &Name, context: &Context<'_>) -> Result<Found, Failure> {
    let coordinator = Coordinator::connect(context).await?;
    let record = super::toolchain::record(&coordinator, name).await?;
    let text = String::from_utf8_lossy(&record.definition);
    let definition = Definition::parse(&text).map_err(|error| {
        let what = format!("the cluster's file of toolchain `{name}` is not understood");
        Failure::failed(Complaint::new(what).because(error.to_string()))
    })?;
    let origin = Origin::Coordinator;
    Ok(Found { definition, origin })
}

fn unusable(file: &Path, error: &dyn std::error::Error) -> Failure {
    let what = format!("cannot use the toolchain file `{}`", file.display());
    Failure::failed(Complaint::new(what).because(error.to_string()))
}
