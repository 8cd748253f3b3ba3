//! `rdcc masquerade`: a directory of links called like a toolchain's compilers, to stand first on `PATH`.
//!
//! A link is made only where a program of its name stands behind it, since rdcc called by a name runs the next program of
//! that name. Nothing that is not a link of rdcc's is ever replaced or removed; when one name cannot be had, none is made.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::arguments::MasqueradeCommand;
use super::definitions::{self, Origin};
use super::masquerade_names::{is_link_name, names};
use super::table::{Side, Table};
use super::{Context, Failure};
use crate::exchange::Complaint;
use crate::ids::Name;
use crate::store::stamp::file_id;
use crate::toolchains::capture::{self, NotFound, Surroundings};
use crate::toolchains::definition::{Command, Language, Variant};
use crate::toolchains::host::Host;

pub(super) async fn run(command: MasqueradeCommand, context: &Context<'_>) -> Result<String, Failure> {
    match command {
        MasqueradeCommand::Install { directory, toolchain } => {
            install(&directory, &context.cwd.join(&directory), &toolchain, context).await
        }
        MasqueradeCommand::Remove { directory } => remove(&directory, &context.cwd.join(&directory), context),
    }
}

/// A link to be made.
struct Link {
    name: String,
    /// What stands behind it.
    compiler: PathBuf,
    belongs: Belongs,
}

/// Whether the compiler behind a link is the toolchain's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Belongs {
    Yes,
    No,
}

async fn install(shown: &Path, directory: &Path, name: &Name, context: &Context<'_>) -> Result<String, Failure> {
    let found = definitions::find(name, context).await?;
    let variant = found
        .definition
        .variant(Host::current())
        .map_err(|error| failed(&error))?;
    let compilers = compilers(&variant, name, &context.surroundings)?;
    let links = links(&variant, &found.definition.target, &compilers, &context.surroundings);
    if let Some(missing) = compilers.values().find(|compiler| !leads_to(&links, compiler)) {
        return Err(not_on_path(missing));
    }
    let program = own_program(context)?;
    let taken: Vec<String> = links
        .iter()
        .map(|link| directory.join(&link.name))
        .filter(|path| path.symlink_metadata().is_ok() && !is_ours(path, &program))
        .map(|path| format!("`{}` is something else", path.display()))
        .collect();
    if !taken.is_empty() {
        let mut complaint = Complaint::new(format!("links of rdcc's cannot be made in `{}`", shown.display()));
        complaint.causes = taken;
        return Err(Failure::failed(
            complaint.hint("give a directory of its own, or take them away"),
        ));
    }
    std::fs::create_dir_all(directory).map_err(|error| cannot("make", directory, &error))?;
    for link in &links {
        let path = directory.join(&link.name);
        put(&program, directory, &path).map_err(|error| cannot("make", &path, &error))?;
    }
    Ok(report(directory, name, found.origin, &links))
}

fn report(directory: &Path, name: &Name, origin: Origin, links: &[Link]) -> String {
    let mut table = Table::new(&[
        ("LINK", Side::Left),
        ("COMPILER", Side::Left),
        ("TOOLCHAIN", Side::Left),
    ]);
    for link in links {
        let toolchain = match link.belongs {
            Belongs::Yes => name.to_string(),
            Belongs::No => format!("not {name}: found by its content, or run here"),
        };
        table.row([link.name.clone(), link.compiler.display().to_string(), toolchain]);
    }
    let mut text = table.render();
    text.push_str(&format!(
        "put it in front: export PATH={}:$PATH\n",
        shell_word(&directory.to_string_lossy())
    ));
    if origin == Origin::Coordinator {
        text.push_str(&format!(
            "the toolchain file is not on this machine, so say which it is: export RDCC_TOOLCHAIN={name}\n"
        ));
    }
    text
}

/// Quotes what a shell would take apart.
fn shell_word(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+,:@%".contains(letter);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Finds the toolchain's own compilers.
fn compilers(
    variant: &Variant,
    name: &Name,
    surroundings: &Surroundings,
) -> Result<BTreeMap<Language, PathBuf>, Failure> {
    let find = |(language, command): (&Language, &Command)| {
        let found = capture::find(command, &variant.path, surroundings);
        found.map(|path| (*language, path)).map_err(|missed| {
            let complaint = Complaint::new(format!("compiler `{command}` of toolchain `{name}` is not here"))
                .because(looked_at(&missed))
                .hint("install it, or put its directory into `path` of the toolchain file");
            Failure::failed(complaint)
        })
    };
    variant.compilers.iter().map(find).collect()
}

fn looked_at(missed: &NotFound) -> String {
    let paths: Vec<String> = missed.looked.iter().map(|path| path.display().to_string()).collect();
    format!("looked at {}", paths.join(", "))
}

fn links(
    variant: &Variant,
    target: &str,
    compilers: &BTreeMap<Language, PathBuf>,
    surroundings: &Surroundings,
) -> Vec<Link> {
    let behind = |name: String| {
        capture::find(&Command::Named(name.clone()), &[], surroundings)
            .ok()
            .zip(Some(name))
    };
    let named = names(&variant.compilers, target).into_iter().filter_map(behind);
    named
        .map(|(compiler, name)| Link {
            belongs: match compilers.values().any(|own| same_file(own, &compiler)) {
                true => Belongs::Yes,
                false => Belongs::No,
            },
            name,
            compiler,
        })
        .collect()
}

fn leads_to(links: &[Link], compiler: &Path) -> bool {
    links.iter().any(|link| same_file(&link.compiler, compiler))
}

fn same_file(one: &Path, other: &Path) -> bool {
    file_id(one).is_some() && file_id(one) == file_id(other)
}

fn not_on_path(compiler: &Path) -> Failure {
    let directory = compiler.parent().unwrap_or(Path::new("/")).display();
    let complaint = Complaint::new(format!("a link for `{}` would lead nowhere", compiler.display()))
        .because(format!(
            "it runs the next program of its name on PATH, and `{directory}` is not there"
        ))
        .hint(format!("put it there first: export PATH=$PATH:{directory}"));
    Failure::failed(complaint)
}

fn own_program(context: &Context<'_>) -> Result<PathBuf, Failure> {
    let own = context.surroundings.own_program.clone();
    own.ok_or_else(|| {
        Failure::failed(Complaint::new(
            "the path of the rdcc program itself cannot be found out",
        ))
    })
}

/// Tells whether `path` is a link to rdcc: to this very program, or to one of that name that may have gone since.
fn is_ours(path: &Path, program: &Path) -> bool {
    let Ok(target) = std::fs::read_link(path) else {
        return false;
    };
    target.file_name() == program.file_name() || same_file(path, program)
}

/// Makes the link `path`, or makes one of ours lead to `program`, at one stroke.
fn put(program: &Path, directory: &Path, path: &Path) -> io::Result<()> {
    match std::fs::read_link(path) {
        Ok(target) if target == program => return Ok(()),
        Ok(_) => {}
        Err(_) => return std::os::unix::fs::symlink(program, path),
    }
    let work = tempfile::Builder::new().prefix(".rdcc-").tempdir_in(directory)?;
    let new = work.path().join("link");
    std::os::unix::fs::symlink(program, &new)?;
    std::fs::rename(&new, path)
}

fn remove(shown: &Path, directory: &Path, context: &Context<'_>) -> Result<String, Failure> {
    let program = own_program(context)?;
    let entries = std::fs::read_dir(directory).map_err(|error| cannot("read", directory, &error))?;
    let mut removed = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        if is_link_name(&entry.file_name().to_string_lossy()) && is_ours(&path, &program) {
            std::fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))?;
            removed += 1;
        }
    }
    // One that holds anything else stays, and that is no failure.
    let gone = removed > 0 && std::fs::remove_dir(directory).is_ok();
    Ok(match (removed, gone) {
        (0, _) => format!("no links of rdcc's are in `{}`\n", shown.display()),
        (count, true) => format!(
            "removed {count} links, and `{}`, which was empty then\n",
            shown.display()
        ),
        (count, false) => format!("removed {count} links from `{}`\n", shown.display()),
    })
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let complaint = Complaint::new(format!("cannot {what} `{}`", path.display()));
    Failure::failed(complaint.because(error.to_string()))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::failed(Complaint::from_error(error))
}
