//! A command without a toolchain: what is said about it, and what a local run needs all the same.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{language_of, own_words};
use crate::agent::fallback::Reason;
use crate::exchange::{CompileRequest, Compiler};
use crate::ids::Name;
use crate::toolchains::capture::{Surroundings, find};
use crate::toolchains::definition::Definition;
use crate::toolchains::host::Host;

/// A command whose toolchain is not to be had.
#[derive(Debug, Clone)]
pub struct Unresolved {
    /// Why.
    pub reason: Reason,
    /// The same for people, one line.
    pub message: String,
    /// What to do about it, where that is clear.
    pub hint: Option<String>,
    /// The compiler for a local run, where there is one.
    pub program: Option<PathBuf>,
    /// Flags for a local run, to put in front of the user's own.
    pub flags: Vec<OsString>,
}

impl Unresolved {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            hint: None,
            program: None,
            flags: Vec::new(),
        }
    }
}

/// Adds what a local run needs, as far as it can be found without a capture.
pub(super) fn with_local_compiler(
    mut unresolved: Unresolved,
    definition: &Definition,
    host: Host,
    request: &CompileRequest,
    surroundings: &Surroundings,
) -> Unresolved {
    match &request.compiler {
        Compiler::At(path) => unresolved.program = Some(path.clone()),
        Compiler::OfToolchain(driver) => {
            let variant = definition.variant(host).ok();
            unresolved.program = variant.as_ref().and_then(|variant| {
                let command = variant.compilers.get(&language_of(*driver))?;
                find(command, &variant.path, surroundings).ok()
            });
            let defaults = variant.map(|variant| variant.defaults).unwrap_or_default();
            unresolved.flags = own_words(definition, &defaults, request);
        }
    }
    unresolved
}

pub(super) fn unknown(name: &Name, request: &CompileRequest) -> Unresolved {
    let mut unresolved = Unresolved::new(
        Reason::ToolchainUnknown,
        format!("no toolchain is called `{name}`, neither here nor at the coordinator"),
    );
    unresolved.hint = Some(format!("run `rdcc toolchain push {name}.toml` with its file"));
    if let Compiler::At(path) = &request.compiler {
        unresolved.program = Some(path.clone());
    }
    unresolved
}

pub(super) fn no_answer(name: &Name, request: &CompileRequest) -> Unresolved {
    let message = format!("no toolchain is called `{name}` here, and the coordinator cannot be asked");
    let mut unresolved = unknown(name, request);
    unresolved.reason = Reason::NoCoordinator;
    unresolved.message = message;
    unresolved.hint = Some("is rdcc-coordinator running? RDCC_COORDINATOR and config.toml name its address".to_owned());
    unresolved
}

pub(super) fn no_toolchain(request: &CompileRequest) -> Unresolved {
    match &request.compiler {
        Compiler::At(path) => {
            let message = format!("no toolchain file names the compiler `{}`", path.display());
            let mut unresolved = Unresolved::new(Reason::NoToolchain, message);
            unresolved.program = Some(path.clone());
            unresolved
        }
        Compiler::OfToolchain(_) => {
            let mut unresolved = Unresolved::new(Reason::NoToolchain, "no compiler and no toolchain is named");
            unresolved.hint = Some("say `rdcc --toolchain NAME …`, or set RDCC_TOOLCHAIN".to_owned());
            unresolved
        }
    }
}
