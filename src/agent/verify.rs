//! Is a worker's answer what the local compiler would have left? The checks that need nothing but values.
//!
//! The compiler's own list of what it read has to equal the list that was sent, name by name and in order; every file
//! that came back has to be one that this command writes; an object has to be for the toolchain's machine. A difference
//! is never repaired here, only named. Invariant: a list that cannot be read is a difference.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::fallback::Reason;
use crate::compile::DependencyFile;
use crate::exchange::escape::escape;
use crate::job::{Output, OutputKind};

#[cfg(test)]
mod tests;

/// Names of each kind that a difference tells; a closure has a thousand, and one is mostly enough to see what is wrong.
const NAMES_TOLD: usize = 20;

/// The compiler read other files than it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Read by the compiler, not found by us.
    pub only_read: Vec<PathBuf>,
    /// Found by us, not read by the compiler.
    pub only_found: Vec<PathBuf>,
    /// Whether the compiler's list could be read at all.
    pub readable: bool,
}

/// Compares the compiler's list of dependencies with the files that were found, in gcc's order and spelling.
///
/// `list` is a rule for make, as `-MD` and `SUNPRO_DEPENDENCIES` write it; `found` names what has to stand in it.
pub fn compare_lists<'a>(list: &[u8], found: impl Iterator<Item = &'a Path> + Clone) -> Result<(), Difference> {
    if equal_as_written(list, found.clone()) {
        return Ok(());
    }
    let Ok(read) = DependencyFile::parse(list) else {
        return Err(Difference {
            only_read: Vec::new(),
            only_found: Vec::new(),
            readable: false,
        });
    };
    if read.files().iter().map(PathBuf::as_path).eq(found.clone()) {
        return Ok(());
    }
    let read: Vec<&Path> = read.files().iter().map(PathBuf::as_path).collect();
    let found: Vec<&Path> = found.collect();
    Err(Difference {
        only_read: missing_from(&read, &found),
        only_found: missing_from(&found, &read),
        readable: true,
    })
}

/// Compares without reading: the usual case, names that make needs no escapes for, in one pass over the text.
fn equal_as_written<'a>(list: &[u8], found: impl Iterator<Item = &'a Path>) -> bool {
    let Some(colon) = memchr::memchr_iter(b':', list).find(|at| matches!(list.get(at + 1), Some(b' ' | b'\n'))) else {
        return false;
    };
    let mut rest = &list[colon + 1..];
    for name in found {
        let name = name.as_os_str().as_bytes();
        if name.iter().any(|byte| b" \t\n#$\\".contains(byte)) {
            return false;
        }
        rest = match rest.strip_prefix(b" \\\n ").or_else(|| rest.strip_prefix(b" ")) {
            Some(rest) => rest,
            None => return false,
        };
        rest = match rest.strip_prefix(name) {
            Some(rest) if matches!(rest.first(), Some(b' ' | b'\n')) => rest,
            _ => return false,
        };
    }
    // Behind the rule come at most the empty rules of `-MP`.
    rest.first() == Some(&b'\n')
}

fn missing_from(these: &[&Path], those: &[&Path]) -> Vec<PathBuf> {
    let those: std::collections::BTreeSet<&Path> = those.iter().copied().collect();
    let missing = these.iter().filter(|path| !those.contains(*path));
    missing.take(NAMES_TOLD).map(|path| path.to_path_buf()).collect()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.readable {
            return f.write_str("the compiler's list of dependencies cannot be read");
        }
        if self.only_read.is_empty() && self.only_found.is_empty() {
            return f.write_str("the compiler read the same files in another order");
        }
        let list = |paths: &[PathBuf]| -> String {
            let names: Vec<String> = paths.iter().map(|path| escape(path.as_os_str().as_bytes())).collect();
            names.join(" ")
        };
        if !self.only_read.is_empty() {
            write!(f, "read by the compiler only: {}; ", list(&self.only_read))?;
        }
        write!(f, "found by the scan only: {}", list(&self.only_found))
    }
}

/// What a command writes. Paths are absolute, links in their directories followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The object or assembly.
    pub object: PathBuf,
    /// The list of dependencies that the user asked for.
    pub dependency_file: Option<PathBuf>,
    /// Directories in which side files may appear; empty when the command writes none.
    pub side_file_dirs: Vec<PathBuf>,
    /// Files that the command's options name and that it may write.
    pub named: Vec<PathBuf>,
}

/// Sorts out what came back: keeps what the command writes, drops what gcc leaves in `/tmp`, refuses anything else.
///
/// `inputs` tells whether a path was sent as something to read. The error says which file is wrong, and how.
pub fn sort_outputs(
    outputs: Vec<Output>,
    expected: &Expected,
    success: bool,
    inputs: impl Fn(&Path) -> bool,
) -> Result<Vec<Output>, (Reason, PathBuf)> {
    let mut kept = Vec::with_capacity(outputs.len());
    for output in outputs {
        if expected.is_own(&output.path) || (expected.may_be_side_file(&output.path) && !inputs(&output.path)) {
            kept.push(output);
        } else if output.path.parent() != Some(Path::new("/tmp")) {
            return Err((Reason::OutputUnexpected, output.path));
        }
    }
    let came = |path: &Path| {
        kept.iter()
            .any(|output| output.path == path && matches!(output.kind, OutputKind::File { .. }))
    };
    let missing = [Some(&expected.object), expected.dependency_file.as_ref()]
        .into_iter()
        .flatten()
        .find(|path| success && !came(path));
    match missing {
        Some(path) => Err((Reason::OutputMissing, path.clone())),
        None => Ok(kept),
    }
}

impl Expected {
    fn is_own(&self, path: &Path) -> bool {
        path == self.object
            || self.dependency_file.as_deref() == Some(path)
            || self.named.iter().any(|named| named == path)
    }

    fn may_be_side_file(&self, path: &Path) -> bool {
        self.side_file_dirs
            .iter()
            .any(|directory| path.parent() == Some(directory))
    }
}

/// Tells whether `object` is plainly for another machine than `target`. What is no ELF file, and targets whose machine
/// is not listed here, are let through: this guards against a mixed-up worker, not against a bad compiler.
pub fn is_foreign(object: &[u8], target: &str) -> bool {
    // e_machine of System V's ABI, by the first word of the target's name, both machines for those that have two.
    const MACHINES: [(&str, &[u16]); 9] = [
        ("aarch64", &[183]),
        ("arm", &[40]),
        ("i", &[3]),
        ("loongarch", &[258]),
        ("mips", &[8]),
        ("powerpc", &[20, 21]),
        ("riscv", &[243]),
        ("sh", &[42]),
        ("x86_64", &[62, 3]),
    ];
    let Some(machine) = elf_machine(object) else {
        return false;
    };
    let arch = target.split('-').next().unwrap_or_default();
    let listed = MACHINES.iter().find(|(prefix, _)| arch.starts_with(prefix));
    listed.is_some_and(|(_, machines)| !machines.contains(&machine))
}

fn elf_machine(object: &[u8]) -> Option<u16> {
    let header = object.get(..20).filter(|header| header.starts_with(b"\x7fELF"))?;
    let machine = [header[18], header[19]];
    Some(match header[5] {
        2 => u16::from_be_bytes(machine),
        _ => u16::from_le_bytes(machine),
    })
}
