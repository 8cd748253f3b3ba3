//! What a scan sets up before it reads the first file: lexical rules, search path, and the command line's macros.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Stop;
use crate::compile::{MacroAction, MacroOption};
use crate::includes::closure::Reason;
use crate::includes::dialect::{Dialect, Strictness};
use crate::includes::reduced::Form;
use crate::includes::request::ScanRequest;
use crate::includes::search::{Candidate, Chains, SearchPath, join};
use crate::includes::source_tree::{Epoch, Found, SourceTree};

/// gcc's own limit, unless the command sets another. Its list of open files is what the limit protects; so is ours.
pub(super) fn depth_max(request: &ScanRequest) -> Result<usize, Stop> {
    let lexical = &request.options.lexical;
    if lexical.traditional || lexical.preprocessed || lexical.directives_only {
        return Err(Reason::Mode.into());
    }
    if lexical.dollars_in_identifiers == Some(false) || request.switches.other_characters {
        return Err(Reason::Mode.into());
    }
    match &lexical.include_depth_max {
        None => Ok(200),
        Some(text) => {
            let depth = text.to_str().and_then(|text| text.parse().ok());
            depth.filter(|depth| *depth <= 10_000).ok_or(Reason::Depth.into())
        }
    }
}

pub(super) fn dialect(request: &ScanRequest) -> Dialect {
    let lexical = &request.options.lexical;
    // With `-undef` the compiler does not say `__STRICT_ANSI__`.
    let named = lexical.standard.as_ref().filter(|_| lexical.undef);
    let strict = named.is_some_and(|name| !name.as_bytes().starts_with(b"gnu"));
    let strictness = if strict {
        Strictness::Standard
    } else {
        request.facts.strictness()
    };
    let mut dialect = request.facts.dialect(request.language, strictness);
    if lexical.trigraphs {
        dialect = dialect.with(Dialect::TRIGRAPHS);
    }
    if !request.switches.operator_names {
        dialect = dialect.with(Dialect::NO_OPERATOR_NAMES);
    }
    dialect
}

/// Writes `-D` and `-U` as directives.
pub(super) fn command_line_text(options: &[MacroOption]) -> Result<Vec<u8>, Stop> {
    let mut text = Vec::new();
    for option in options {
        let definition = option.text.as_bytes();
        match option.action {
            MacroAction::Define => {
                let equals = definition.iter().position(|b| *b == b'=');
                let (name, value) = match equals {
                    Some(at) => (&definition[..at], &definition[at + 1..]),
                    None => (definition, b"1".as_slice()),
                };
                text.extend_from_slice(b"#define ");
                text.extend_from_slice(name);
                text.push(b' ');
                text.extend_from_slice(value);
            }
            MacroAction::Undefine => {
                text.extend_from_slice(b"#undef ");
                text.extend_from_slice(definition);
            }
            // Nothing here evaluates assertions.
            MacroAction::Assert => {}
        }
        text.push(b'\n');
    }
    // A newline within an option would end its directive early; gcc cuts it off with a warning or an error.
    let directives = text.iter().filter(|b| **b == b'\n').count();
    if directives == options.len() {
        Ok(text)
    } else {
        Err(Reason::CommandLine.into())
    }
}

pub(super) fn search_path<T: SourceTree>(
    request: &ScanRequest,
    tree: &T,
    cwd: &T::Directory,
    epoch: Epoch,
) -> Result<SearchPath<T::Directory>, Stop> {
    let defaults: Vec<PathBuf> = request.facts.absent.iter().map(|name| request.cwd.join(name)).collect();
    for path in &defaults {
        if tree.directory(path, epoch)?.is_some() {
            return Err(Reason::NewDefault(path.clone()).into());
        }
    }
    let chains = Chains::new(&request.options, &request.facts).map_err(Reason::from)?;
    let mut path = join(chains, |candidate: &Candidate| {
        let name = Path::new(OsStr::from_bytes(&candidate.name));
        let found = if name.is_absolute() {
            tree.directory(name, epoch)?
        } else {
            tree.below(cwd, &candidate.name, epoch)?.ok()
        };
        Ok::<_, Stop>(match found {
            Some(directory) => {
                let identity = tree.describe(&directory).identity;
                Ok((directory, identity))
            }
            None if ends_at_file(tree, cwd, &candidate.name, epoch)? => {
                let symbols = tree.symbols();
                return Err(Stop::Missing(symbols.intern(&candidate.name), Form::Quote, symbols));
            }
            None => Err(request.cwd.join(name)),
        })
    })?;
    path.absent.extend(defaults);
    Ok(path)
}

/// Tells a path that leads to, or through, something that is no directory from one that leads nowhere: the compiler
/// complains about the first whether or not it is told to.
fn ends_at_file<T: SourceTree>(tree: &T, cwd: &T::Directory, name: &[u8], epoch: Epoch) -> Result<bool, Stop> {
    let from = match name.first() {
        Some(b'/') => tree.directory(Path::new("/"), epoch)?,
        _ => Some(cwd.clone()),
    };
    let Some(from) = from else {
        return Ok(false);
    };
    Ok(match tree.below(&from, name, epoch)? {
        Ok(_) => false,
        Err(dead) => matches!(
            tree.find(&dead.directory, &dead.component, epoch)?,
            Found::File(_) | Found::Special
        ),
    })
}
