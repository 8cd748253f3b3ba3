//! Compiles the golden set with a captured toolchain, on the machine that has it.
//!
//! In a directory of its own that is gone afterwards; the objects know it as [`DIRECTORY`].

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{DIRECTORY, ENVIRONMENT, Golden, GoldenError, OBJECT, SOURCES, Source};
use crate::toolchains::capture::Surroundings;
use crate::toolchains::manifest::Manifest;

/// Why there are no golden objects.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler does not take a unit.
    #[error("`{}` does not compile the golden unit `{unit}`: {said}", compiler.display())]
    Refused {
        /// The driver.
        compiler: PathBuf,
        /// The unit.
        unit: String,
        /// The first line that it printed.
        said: String,
    },
    /// A file cannot be written or read, or the compiler not be started.
    #[error("cannot compile the golden units")]
    Io(#[from] io::Error),
    /// The objects are too many or too large.
    #[error(transparent)]
    Bounds(#[from] GoldenError),
}

/// Compiles all units that the toolchain has a driver for.
pub fn compile(manifest: &Manifest, surroundings: &Surroundings) -> Result<Golden, CompileError> {
    let directory = tempfile::tempdir()?;
    let mut golden = Golden::default();
    for source in &SOURCES {
        let Some(driver) = source.driver(manifest) else {
            continue;
        };
        std::fs::write(directory.path().join(source.name), source.text)?;
        for flags in source.flags {
            let object = unit(driver, manifest, source, flags, surroundings, directory.path())?;
            golden.add(source.unit(flags), object)?;
        }
    }
    Ok(golden)
}

fn unit(
    driver: &Path,
    manifest: &Manifest,
    source: &Source,
    flags: &str,
    surroundings: &Surroundings,
    directory: &Path,
) -> Result<Vec<u8>, CompileError> {
    let path: Vec<&OsStr> = surroundings.path.iter().map(|path| path.as_os_str()).collect();
    let mut map = OsString::from("-ffile-prefix-map=");
    map.push(directory);
    map.push("=");
    map.push(DIRECTORY);
    let output = Command::new(driver)
        .args(source.words(manifest, flags))
        .arg(map)
        .current_dir(directory)
        .env_clear()
        .envs(surroundings.environment.iter().map(|(name, value)| (name, value)))
        .env("PATH", path.join(OsStr::new(":")))
        .envs(ENVIRONMENT)
        // Should a wrapper start what stands in for a compiler on `PATH`, that has to stay out of the way.
        .env("RDCC_DISABLE", "1")
        .env("CCACHE_DISABLE", "1")
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(CompileError::Refused {
            compiler: driver.to_owned(),
            unit: source.unit(flags),
            said: said.lines().next().unwrap_or_default().chars().take(300).collect(),
        });
    }
    Ok(std::fs::read(directory.join(OBJECT))?)
}
