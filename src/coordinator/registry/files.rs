//! One toolchain's directory on the coordinator's disk: what stands in it, and how it is put in place whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Record, RegistryError, Standing, failed};
use crate::digest::Digest;
use crate::ids::Name;
use crate::toolchains::bundle::BundleRef;
use crate::toolchains::golden::Golden;
use crate::toolchains::manifest::Manifest;

/// What is written beside each bundle.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub name: String,
    pub bundle_digest: String,
    pub bundle_size: u64,
    pub pushed_unix_ms: u64,
}

/// Lets the directory `place` take the name `target`; what had that name before goes.
///
/// By an exchange of the two names, so that a crash leaves the old one or the new one. A file system that cannot
/// exchange names has a moment without either; then the toolchain has to be pushed again.
pub(super) fn put_in_place(place: tempfile::TempDir, target: &Path) -> Result<(), RegistryError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let sync = |directory: &Path| {
        let synced = File::open(directory).and_then(|opened| opened.sync_all());
        synced.map_err(failed("write", directory))
    };
    sync(place.path())?;
    let exchanged = target.exists() && renameat_with(CWD, place.path(), CWD, target, RenameFlags::EXCHANGE).is_ok();
    if !exchanged {
        match fs::remove_dir_all(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", target)(error)),
            _ => {}
        }
        fs::rename(place.keep(), target).map_err(failed("put in place", target))?;
    }
    sync(target.parent().unwrap_or(target))
}

pub(super) fn write_whole(path: &Path, content: &[u8]) -> Result<(), RegistryError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed("write in", directory))?;
    file.write_all(content).map_err(failed("write", path))?;
    file.as_file().sync_all().map_err(failed("write", path))?;
    file.persist(path)
        .map_err(|error| failed("put in place", path)(error.error))?;
    Ok(())
}

pub(super) fn read_record(object: &Path) -> Result<Record, RegistryError> {
    let read = |name: &str| {
        let path = object.join(name);
        fs::read(&path).map_err(failed("read", &path))
    };
    let wrong = |what: &str| RegistryError::Io {
        doing: "use",
        path: object.join("record.json"),
        source: io::Error::new(io::ErrorKind::InvalidData, what.to_owned()),
    };
    let stored: Stored = serde_json::from_slice(&read("record.json")?).map_err(|error| wrong(&error.to_string()))?;
    let manifest = Manifest::decode(&read("manifest")?)?;
    let digest: Digest = stored.bundle_digest.parse().map_err(|_| wrong("its digest is none"))?;
    let name = Name::new(&stored.name).map_err(|error| wrong(&error.to_string()))?;
    let wanted = format!("{name}@{}", manifest.id());
    if object.file_name().is_none_or(|found| found.to_string_lossy() != wanted) {
        return Err(wrong("its manifest is of another identity"));
    }
    Ok(Record {
        name,
        id: manifest.id(),
        standing: Standing::Former,
        manifest: std::sync::Arc::new(manifest),
        definition: String::from_utf8(read("definition.toml")?).map_err(|_| wrong("its toolchain file is not text"))?,
        bundle: BundleRef {
            digest,
            size: stored.bundle_size,
        },
        pushed_unix_ms: stored.pushed_unix_ms,
        golden: std::sync::Arc::new(read_golden(&object.join("golden"))),
    })
}

/// Reads golden objects. None, or ones that cannot be read, make a toolchain unproven and no worse.
fn read_golden(path: &Path) -> Golden {
    let Ok(bytes) = fs::read(path) else {
        return Golden::default();
    };
    Golden::decode(&bytes).unwrap_or_else(|error| {
        tracing::error!(path = %path.display(), %error, "golden objects left out");
        Golden::default()
    })
}
