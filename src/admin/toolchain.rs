//! `rdcc toolchain …`: giving the cluster a compiler, and looking at what it has.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use super::arguments::ToolchainCommand;
use super::cluster::Toolchain;
use super::coordinator_rpc::{Coordinator, PushHead, Pushed, Record, Replace};
use super::progress::Progress;
use super::table::{Side, Table, bytes, span};
use super::{Context, FAILED, Failure, USAGE, difference, kept_definition};
use crate::exchange::Complaint;
use crate::exchange::escape::escape;
use crate::ids::Name;
use crate::toolchains::bundle::{self, BundleRef};
use crate::toolchains::capture::{self, Captured};
use crate::toolchains::definition::Definition;
use crate::toolchains::golden::{self, Golden};
use crate::toolchains::host::Host;
use crate::toolchains::manifest::{Entry, Manifest};

/// Differences that `verify` lists; the first tell what the matter is.
const DIFFERENCES_SHOWN: usize = 10;

pub(super) async fn run(command: ToolchainCommand, context: &Context<'_>) -> Result<String, Failure> {
    match command {
        ToolchainCommand::Push { file, replace } => {
            let replace = if replace { Replace::Allowed } else { Replace::Refused };
            push(&context.cwd.join(file), replace, context).await
        }
        ToolchainCommand::List { json } => {
            let toolchains = coordinator(context).await?.toolchains().await?;
            Ok(if json {
                super::commands::json(&toolchains)
            } else {
                list(&toolchains, context.now_unix_ms)
            })
        }
        ToolchainCommand::Show { name, files } => {
            let coordinator = coordinator(context).await?;
            let record = record(&coordinator, &name).await?;
            let known = coordinator.toolchains().await?;
            show(&record, &known, if files { Files::Listed } else { Files::Counted })
        }
        ToolchainCommand::Verify { name } => verify(&name, context).await,
        ToolchainCommand::Rm { name } => {
            let removed = coordinator(context).await?.remove(&name).await?;
            if let Some(state_dir) = &context.state_dir {
                kept_definition::forget(state_dir, &name).map_err(|error| failed(&error))?;
            }
            Ok(format!("removed toolchain `{name}`: {removed} of its identities\n"))
        }
    }
}

async fn coordinator(context: &Context<'_>) -> Result<Coordinator, Failure> {
    Coordinator::connect(context).await
}

async fn push(file: &Path, replace: Replace, context: &Context<'_>) -> Result<String, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| usage_error(file, &error.to_string()))?;
    let definition = Definition::parse(&text).map_err(|error| usage_error(file, &error.to_string()))?;
    // Before the long work: an unreachable coordinator should show at once. Reading and packing take minutes on a board,
    // during which nobody here answers the coordinator's keep-alives; hence a new connection after each of them.
    coordinator(context).await?;
    let manifest = capture(&definition, context)?.manifest;
    let id = manifest.id();
    let known = coordinator(context).await?.toolchains().await?;
    let (golden, without_golden) = golden(&definition, &manifest, context);
    let head = |bundle| PushHead {
        name: definition.name.clone(),
        definition: text.clone().into_bytes(),
        manifest: manifest.encode(),
        bundle,
        replace,
        golden: golden.clone(),
    };
    let mut pushed = Pushed::BundleWanted;
    if let Some(known) = known.iter().find(|toolchain| toolchain.identity == id) {
        // The same files make the same bundle, so there is nothing to pack, unless the coordinator's copy has suffered.
        let bundle = BundleRef {
            digest: known.bundle_digest.parse().map_err(|error| failed(&error))?,
            size: known.bundle_bytes,
        };
        let coordinator = coordinator(context).await?;
        pushed = coordinator.push(head(bundle), tokio::io::empty(), &mut |_| {}).await?;
    }
    if pushed == Pushed::BundleWanted {
        let (bundle, packed) = pack(&manifest, context)?;
        let coordinator = coordinator(context).await?;
        let mut progress = Progress::new("sending", context.stderr);
        let packed = tokio::fs::File::from_std(packed);
        pushed = coordinator
            .push(head(bundle), packed, &mut |sent| progress.at(sent, bundle.size))
            .await?;
    }
    if let Some(state_dir) = &context.state_dir {
        kept_definition::keep(state_dir, &definition.name, &text)
            .map_err(|error| not_kept(&definition.name, &error))?;
    }
    let what = match pushed {
        Pushed::KnownBefore => "known already:",
        Pushed::Stored | Pushed::BundleWanted => "pushed",
    };
    let mut text = format!(
        "{what} toolchain `{}`\n  identity  {id}\n  target    {}, runs on {}\n  files     {}, {}\n",
        definition.name,
        manifest.target(),
        manifest.host(),
        manifest.entries().len(),
        bytes(manifest.content_bytes())
    );
    let record = coordinator(context).await?.record(id).await?;
    if definition.variants().len() > 1 {
        let _ = writeln!(text, "  objects   {}", record.summary.certification);
    }
    if let Some(why) = without_golden {
        let _ = writeln!(text, "  (not compared: {why})");
    }
    Ok(text)
}

/// Compiles the golden set, for a toolchain that has variants to be compared with. A compiler that does not take it is
/// no reason not to push; the second value says so.
fn golden(definition: &Definition, manifest: &Manifest, context: &Context<'_>) -> (Golden, Option<String>) {
    if definition.variants().len() < 2 {
        return (Golden::default(), None);
    }
    match golden::compile::compile(manifest, &context.surroundings) {
        Ok(golden) => (golden, None),
        Err(error) => (Golden::default(), Some(error.to_string())),
    }
}

/// Blocks: nothing else goes on in this process.
fn capture(definition: &Definition, context: &Context<'_>) -> Result<Captured, Failure> {
    let mut progress = Progress::new("reading", context.stderr);
    let captured = capture::capture(definition, Host::current(), &context.surroundings, &mut |done, all| {
        progress.at(done, all)
    });
    captured.map_err(|error| {
        let mut complaint = Complaint::new(format!("cannot capture toolchain `{}`", definition.name));
        let inner = Complaint::from_error(&error);
        complaint.causes.push(inner.error);
        complaint.causes.extend(inner.causes);
        if matches!(error, capture::CaptureError::CompilerNotFound { .. }) {
            complaint = complaint.hint("install the compiler, or say in the toolchain file where it is: `path`, or a whole path in `compilers`");
        }
        Failure::failed(complaint)
    })
}

/// Packs into a file that has no name, rewound. Blocks.
fn pack(manifest: &Manifest, context: &Context<'_>) -> Result<(BundleRef, File), Failure> {
    let file = tempfile::tempfile().map_err(|error| failed(&error))?;
    let threads = std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
    let mut progress = Progress::new("packing", context.stderr);
    let (bundle, mut file) = bundle::pack(manifest, Path::new("/"), file, threads, &mut |done, all| {
        progress.at(done, all);
    })
    .map_err(|error| failed(&error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
    Ok((bundle, file))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::failed(Complaint::from_error(error))
}

fn not_kept(name: &Name, error: &dyn std::error::Error) -> Failure {
    let mut complaint = Complaint::new(format!("toolchain `{name}` is pushed, but its file is not kept here"));
    let inner = Complaint::from_error(error);
    complaint.causes.push(inner.error);
    complaint.causes.extend(inner.causes);
    Failure::failed(complaint.hint(format!(
        "put the file into `~/.config/rdcc/toolchains` as `{name}.toml`"
    )))
}

fn usage_error(file: &Path, why: &str) -> Failure {
    let complaint = Complaint::new(format!("cannot use the toolchain file `{}`", file.display())).because(why);
    Failure {
        complaint,
        status: USAGE,
    }
}

/// Fetches what `name` stands for on machines like this one, or else on any.
pub(super) async fn record(coordinator: &Coordinator, name: &Name) -> Result<Record, Failure> {
    let known = coordinator.toolchains().await?;
    let host = Host::current().to_string();
    let named = || {
        known
            .iter()
            .filter(|toolchain| toolchain.current && toolchain.name == name.as_str())
    };
    match named()
        .find(|toolchain| toolchain.host_kind == host)
        .or_else(|| named().next())
    {
        Some(toolchain) => coordinator.record(toolchain.identity).await,
        None => {
            let complaint = Complaint::new(format!("the cluster has no toolchain `{name}`"));
            let hint = format!("`rdcc toolchain list` shows those it has; `rdcc toolchain push {name}.toml` adds it");
            Err(Failure::failed(complaint.hint(hint)))
        }
    }
}

fn list(toolchains: &[Toolchain], now_unix_ms: u64) -> String {
    use Side::{Left, Right};
    let mut table = Table::new(&[
        ("TOOLCHAIN", Left),
        ("IDENTITY", Left),
        ("RUNS ON", Left),
        ("TARGET", Left),
        ("FILES", Right),
        ("UNPACKED", Right),
        ("BUNDLE", Right),
        ("PUSHED", Right),
        ("", Left),
    ]);
    for toolchain in toolchains {
        table.row([
            toolchain.name.clone(),
            toolchain.identity.0.short(),
            toolchain.host_kind.clone(),
            toolchain.target.clone(),
            toolchain.files.to_string(),
            bytes(toolchain.unpacked_bytes),
            bytes(toolchain.bundle_bytes),
            format!("{} ago", span(now_unix_ms.saturating_sub(toolchain.pushed_unix_ms))),
            match (toolchain.current, toolchain.certification.split(':').next()) {
                (false, _) => "replaced".to_owned(),
                (true, None | Some("" | "the only kind")) => "current".to_owned(),
                (true, Some(certification)) => format!("current, {certification}"),
            },
        ]);
    }
    table.render()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    Listed,
    Counted,
}

fn decode(record: &Record) -> Result<Manifest, Failure> {
    Manifest::decode(&record.manifest).map_err(|error| {
        let what = format!("the cluster's record of `{}` is damaged", record.summary.name);
        Failure::failed(Complaint::new(what).because(error.to_string()))
    })
}

fn show(record: &Record, known: &[Toolchain], files: Files) -> Result<String, Failure> {
    let (summary, manifest) = (&record.summary, decode(record)?);
    let mut text = format!(
        "toolchain  {}\nidentity   {}\nruns on    {}\ntarget     {}\nfiles      {}, {}\nbundle     {}, {}\n",
        summary.name,
        summary.identity,
        manifest.host(),
        manifest.target(),
        summary.files,
        bytes(summary.unpacked_bytes),
        bytes(summary.bundle_bytes),
        summary.bundle_digest,
    );
    for (language, path) in manifest.compilers() {
        let _ = writeln!(text, "{:<9}  {}", language.as_str(), path.display());
    }
    let group = known
        .iter()
        .filter(|other| other.current && other.name == summary.name && !other.certification.is_empty());
    for variant in group {
        let (identity, host) = (variant.identity.0.short(), &variant.host_kind);
        let _ = writeln!(text, "variant    {host}  {identity}  {}", variant.certification);
    }
    if !manifest.flags().is_empty() {
        let _ = writeln!(text, "flags      {}", manifest.flags().join(" "));
    }
    if !manifest.defaults().is_empty() {
        let _ = writeln!(text, "defaults   {}", manifest.defaults().join(" "));
    }
    if files == Files::Listed {
        text.push('\n');
        for (path, entry) in manifest.entries() {
            let path = escape(path.as_os_str().as_encoded_bytes());
            let _ = match entry {
                Entry::File { mode, size, digest } => {
                    writeln!(text, "{mode:o}  {size:>10}  {}  {path}", digest.short())
                }
                Entry::Directory { .. } => writeln!(text, "{path}/"),
                Entry::Symlink { target } => {
                    writeln!(text, "{path} -> {}", escape(target.as_encoded_bytes()))
                }
            };
        }
    }
    Ok(text)
}

async fn verify(name: &Name, context: &Context<'_>) -> Result<String, Failure> {
    let coordinator = coordinator(context).await?;
    let record = record(&coordinator, name).await?;
    let text = String::from_utf8_lossy(&record.definition);
    let definition = Definition::parse(&text).map_err(|error| {
        let what = format!("the cluster's file of toolchain `{name}` is not understood");
        Failure::failed(Complaint::new(what).because(error.to_string()))
    })?;
    let here = capture(&definition, context)?.manifest;
    let cluster = decode(&record)?;
    if here == cluster {
        check_bundle(&coordinator, &record, context).await?;
        return Ok(format!(
            "`{name}` is the same here and in the cluster: {}\nits bundle at the coordinator is sound\n",
            record.summary.identity
        ));
    }
    let differences = difference::of_files(&here, &cluster);
    let mut complaint = Complaint::new(format!("`{name}` here is not what the cluster has under that name"));
    complaint.causes.push(format!(
        "here {}, there {}",
        here.id().0.short(),
        record.summary.identity.0.short()
    ));
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        complaint
            .causes
            .push(format!("`{}` {}", difference.path.display(), difference.what));
    }
    if differences.len() > DIFFERENCES_SHOWN {
        complaint
            .causes
            .push(format!("and {} more", differences.len() - DIFFERENCES_SHOWN));
    }
    if differences.is_empty() {
        complaint
            .causes
            .push("the files are the same; host, target, compilers or flags differ".to_owned());
    }
    Err(Failure {
        complaint: complaint.hint("push it under another name, or with `--replace`, or install the cluster's compiler"),
        status: FAILED,
    })
}

/// Reads the coordinator's bundle from end to end: a flipped bit on its disk shows here before a worker trips over it.
async fn check_bundle(coordinator: &Coordinator, record: &Record, context: &Context<'_>) -> Result<(), Failure> {
    let summary = &record.summary;
    let mut progress = Progress::new("checking the bundle", context.stderr);
    let found = coordinator
        .bundle_digest(summary.identity, &mut |done| progress.at(done, summary.bundle_bytes))
        .await?;
    if found.to_string() == summary.bundle_digest {
        return Ok(());
    }
    let what = format!(
        "the coordinator's bundle of `{}` is not the one that was pushed",
        summary.name
    );
    let complaint = Complaint::new(what).because(format!("its digest is {found}, not {}", summary.bundle_digest));
    Err(Failure::failed(
        complaint.hint("push the toolchain again: that replaces the bundle"),
    ))
}
