//! `rdcc check`: does every node compile what a toolchain compiles here?
//!
//! A small unit of each language is compiled here, and then by each node alone, through the agent and at the same path, so
//! that everything an ordinary job needs is used: toolchain, sandbox, headers, the way back. Only compares and tells; the
//! words are `check_report`'s.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::check_report::{Finding, NodeFinding, compared, render};
use super::cluster::{Cluster, Node, Toolchain};
use super::commands::Form;
use super::coordinator_rpc::Coordinator;
use super::{Context, Ending, Failure, definitions};
use crate::exchange::{CompileRequest, Compiler, Complaint, Driver, Finished, LocalRun, Reply, Request, Wish};
use crate::ids::{Name, ToolchainId};
use crate::job::Status;
use crate::toolchains::definition::{Certify, Definition, Language};
use crate::toolchains::host::Host;

/// The unit, as C and as C++: a header of its own, one of the compiler's, code, data, and debug information that knows the
/// directory.
const UNIT: &str = "#include <stddef.h>\n#include \"unit.h\"\n\nstatic const int table[] = { 2, 3, 5, 7, 11 };\n\n\
    int unit(int seed)\n{\n\tint sum = seed;\n\tfor (size_t i = 0; i < sizeof table / sizeof *table; i++)\n\t\t\
    sum = sum * STEP + table[i];\n\treturn sum;\n}\n";
const HEADER: &str = "#define STEP 31\nint unit(int seed);\n";
const OBJECT: &str = "unit.o";

pub(super) async fn run(name: &Name, form: Form, context: &Context<'_>) -> Ending {
    match look(name, context).await {
        Ok(findings) => {
            let text = match form {
                Form::Json => super::commands::json(&findings),
                Form::Table => render(&findings),
            };
            let failure = verdict(name, &findings);
            Ending { text, failure }
        }
        Err(failure) => Err(failure).into(),
    }
}

async fn look(name: &Name, context: &Context<'_>) -> Result<Vec<NodeFinding>, Failure> {
    let (cluster, known) = cluster(context).await?;
    let known = known
        .into_iter()
        .filter(|known| known.current && known.name == name.as_str());
    let kinds: Vec<Toolchain> = known.collect();
    if kinds.is_empty() {
        let complaint = Complaint::new(format!("the cluster has no toolchain `{name}`"));
        let hint = format!("`rdcc toolchain list` shows those it has; `rdcc toolchain push {name}.toml` adds it");
        return Err(Failure::failed(complaint.hint(hint)));
    }
    if cluster.nodes.is_empty() {
        let complaint = Complaint::new("no node is connected to the coordinator");
        return Err(Failure::failed(complaint.hint("start `rdcc-worker` on one")));
    }
    let definition = definitions::find(name, context).await?.definition;
    let variant = definition.variant(Host::current()).map_err(|error| failed(&error))?;
    let bench = Bench::new(name, context).map_err(|error| failed(&error))?;
    let mut units = Vec::new();
    for language in variant.compilers.keys() {
        units.push((*language, bench.compile_here(*language)?));
    }
    let mut findings: Vec<NodeFinding> = cluster
        .nodes
        .iter()
        .map(|node| bench.look_at(node, &kinds, &units, allowed(&definition, node)))
        .collect();
    // What a node has of the toolchain shows only now: some have just fetched it. The connection is a new one, since
    // nobody has answered the coordinator's keep-alives meanwhile.
    let (cluster, _) = self::cluster(context).await?;
    let identities: Vec<ToolchainId> = kinds.iter().map(|kind| kind.identity).collect();
    for finding in &mut findings {
        finding.toolchain = held(&cluster, &finding.node, &identities);
    }
    Ok(findings)
}

/// How equal a node's objects have to be to those made here: a variant for another kind of host may be allowed less.
fn allowed(definition: &Definition, node: &Node) -> Certify {
    let of_node = node.host_kind.parse::<Host>();
    of_node.map_or(Certify::Identical, |host| {
        definition.asked_between(Host::current(), host)
    })
}

async fn cluster(context: &Context<'_>) -> Result<(Cluster, Vec<Toolchain>), Failure> {
    let coordinator = Coordinator::connect(context).await?;
    Ok((coordinator.cluster().await?, coordinator.toolchains().await?))
}

/// What the node has of any of these toolchains; empty when that is nothing.
fn held(cluster: &Cluster, node: &str, identities: &[ToolchainId]) -> &'static str {
    let node = cluster.nodes.iter().find(|known| known.name == node);
    let mut of_node = node.into_iter().flat_map(|node| &node.toolchains);
    let found = of_node.find(|known| identities.contains(&known.toolchain));
    found.map_or("", |known| known.state)
}

fn verdict(name: &Name, findings: &[NodeFinding]) -> Option<Failure> {
    let count = |wanted: fn(&Finding) -> bool| findings.iter().filter(|found| wanted(&found.finding)).count();
    let wrong = count(|finding| matches!(finding, Finding::Wrong(_)));
    let good = count(|finding| matches!(finding, Finding::Same | Finding::SameCode));
    let complaint = match (wrong, good) {
        (0, 1..) => return None,
        (0, 0) => Complaint::new(format!("no node has compiled anything with `{name}`")),
        (wrong, _) => {
            let all = findings.len();
            Complaint::new(format!(
                "{wrong} of {all} nodes do not compile with `{name}` as this machine does"
            ))
        }
    };
    let hint = "`rdcc nodes` tells more of each node, and so does `rdcc-worker doctor` on it";
    Some(Failure::failed(complaint.hint(hint)))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::failed(Complaint::from_error(error))
}

/// A directory with the units in it; gone when dropped.
struct Bench<'a> {
    directory: tempfile::TempDir,
    toolchain: &'a Name,
    context: &'a Context<'a>,
}

impl<'a> Bench<'a> {
    fn new(toolchain: &'a Name, context: &'a Context<'a>) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("rdcc-check-").tempdir()?;
        for (name, text) in [("unit.c", UNIT), ("unit.cc", UNIT), ("unit.h", HEADER)] {
            fs::write(directory.path().join(name), text)?;
        }
        Ok(Self {
            directory,
            toolchain,
            context,
        })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn request(&self, language: Language, wish: Wish, worker: Option<Name>) -> Request {
        let (driver, source) = match language {
            Language::C => (Driver::C, "unit.c"),
            Language::Cxx => (Driver::Cxx, "unit.cc"),
        };
        let words = ["", "-O2", "-g", "-Wall", "-c", source, "-o", OBJECT];
        Request::Compile(CompileRequest {
            toolchain: Some(self.toolchain.clone()),
            compiler: Compiler::OfToolchain(driver),
            argv: words.map(Into::into).to_vec(),
            cwd: self.path().to_owned(),
            env: self.context.surroundings.environment.clone(),
            umask: 0o022,
            terminal: None,
            wish,
            worker,
        })
    }

    /// Compiles a unit with this machine's own compiler and returns the object.
    fn compile_here(&self, language: Language) -> Result<Vec<u8>, Failure> {
        let request = self.request(language, Wish::Here, None);
        let reply = self
            .context
            .agent
            .ask(&request)
            .map_err(super::commands::agent_unreachable)?;
        let (Reply::RunLocally(run), Request::Compile(request)) = (reply, request) else {
            let what = format!("the compiler for {language} of `{}` cannot be run here", self.toolchain);
            let complaint = Complaint::new(what).hint(format!("`rdcc toolchain verify {}` tells more", self.toolchain));
            return Err(Failure::failed(complaint));
        };
        self.run(&run, &request).map_err(|why| {
            let what = format!("`{}` does not compile here", run.program.display());
            Failure::failed(Complaint::new(what).because(why))
        })
    }

    fn run(&self, run: &LocalRun, request: &CompileRequest) -> Result<Vec<u8>, String> {
        let mut command = Command::new(&run.program);
        command
            .args(&run.flags)
            .args(&request.argv[1..])
            .current_dir(self.path());
        command.arg0(&run.program).env("PWD", self.path()).stdin(Stdio::null());
        let output = command.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(first_line(&output.stderr));
        }
        self.take_object().map_err(|error| error.to_string())
    }

    fn take_object(&self) -> io::Result<Vec<u8>> {
        let path = self.path().join(OBJECT);
        let object = fs::read(&path)?;
        fs::remove_file(&path)?;
        Ok(object)
    }

    fn look_at(
        &self,
        node: &Node,
        kinds: &[Toolchain],
        units: &[(Language, Vec<u8>)],
        allowed: Certify,
    ) -> NodeFinding {
        let began = Instant::now();
        let finding = match self.excused(node, kinds) {
            Some(why) => Finding::NotAsked(why),
            None => self.compile_at(node, units, allowed),
        };
        let took = match finding {
            Finding::NotAsked(_) => Duration::ZERO,
            Finding::Same | Finding::SameCode | Finding::Wrong(_) => began.elapsed(),
        };
        NodeFinding {
            node: node.name.clone(),
            finding,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            toolchain: "",
        }
    }

    /// Why a node need not be asked.
    fn excused(&self, node: &Node, kinds: &[Toolchain]) -> Option<String> {
        if node.state == "draining" {
            return Some("it is drained".to_owned());
        }
        if node.state == "quarantined" {
            return Some("it is in quarantine".to_owned());
        }
        let runs_there = kinds.iter().any(|kind| kind.host_kind == node.host_kind);
        (!runs_there).then(|| format!("no variant of `{}` for {} is pushed", self.toolchain, node.host_kind))
    }

    fn compile_at(&self, node: &Node, units: &[(Language, Vec<u8>)], allowed: Certify) -> Finding {
        let Ok(worker) = Name::new(&node.name) else {
            return Finding::Wrong("its name cannot be asked for".to_owned());
        };
        let mut found = Finding::Same;
        for (language, here) in units {
            let request = self.request(*language, Wish::NoFallback, Some(worker.clone()));
            let there = match self.context.agent.ask(&request) {
                Ok(Reply::Finished(finished)) => self.object_of(&finished),
                Ok(Reply::Failed(complaint)) => Err(in_a_line(&complaint)),
                Ok(_) => Err("the agent would compile it here".to_owned()),
                Err(complaint) => Err(in_a_line(&complaint)),
            };
            match compared(*language, here, there, allowed) {
                Finding::Same => {}
                Finding::SameCode => found = Finding::SameCode,
                other => return other,
            }
        }
        found
    }

    fn object_of(&self, finished: &Finished) -> Result<Vec<u8>, String> {
        match finished.status {
            Status::Exited(0) => self
                .take_object()
                .map_err(|error| format!("no object came back: {error}")),
            Status::Exited(_) | Status::Signaled(_) => Err(first_line(&finished.stderr)),
        }
    }
}

/// The farthest cause says most.
fn in_a_line(complaint: &Complaint) -> String {
    complaint.causes.last().unwrap_or(&complaint.error).clone()
}

fn first_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().find(|line| !line.trim().is_empty());
    line.unwrap_or("the compiler failed and said nothing").to_owned()
}
