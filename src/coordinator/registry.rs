//! The farm's toolchains on the coordinator's disk: what each name stands for, and the bundles.
//!
//! One directory per (identity, name), complete before it is renamed into place; one small file per name. Blocking: callers run
//! it where that is allowed. Invariants: a bundle is served only after its digest has been checked since its file last
//! changed; a name moves to another identity only when asked to; a crash leaves the old state or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::digest::Hasher;
use crate::ids::{Name, ToolchainId};
use crate::runtime::clock::unix_ms;
use crate::store::content::digest_of;
use crate::store::stamp::Stamp;
use crate::store::swept;
use crate::toolchains::bundle::{self, BundleRef};
use crate::toolchains::certification::{Certification, Side, certify};
use crate::toolchains::definition::Definition;
use crate::toolchains::golden::Golden;
use crate::toolchains::manifest::Manifest;

mod error;
mod files;
mod pairs;
#[cfg(test)]
mod tests;

pub use error::RegistryError;
use error::failed;
use files::{Stored, put_in_place, read_record, write_whole};

/// Largest toolchain file, bytes: a hundred times the longest one known.
const DEFINITION_BYTES_MAX: usize = 1 << 20;
/// Identities remembered under one name and kind of machine; older ones are removed when a new one is pushed.
const KEPT_PER_NAME: usize = 8;

/// What the registry knows of one identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is called.
    pub name: Name,
    /// Its identity.
    pub id: ToolchainId,
    /// Whether the name stands for this identity now, for its kind of machine.
    pub standing: Standing,
    /// The files.
    pub manifest: std::sync::Arc<Manifest>,
    /// The toolchain file's text.
    pub definition: String,
    /// The bundle.
    pub bundle: BundleRef,
    /// When it was pushed, milliseconds since 1970.
    pub pushed_unix_ms: u64,
    /// What it makes of the golden set; empty when it was pushed without.
    pub golden: std::sync::Arc<Golden>,
}

/// Whether a name stands for an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Current,
    /// It did once; jobs may still ask for it.
    Former,
}

/// Whether a name may be moved from one identity to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// Another identity under the name is an error.
    Refuse,
    /// The name moves; the former identity is kept.
    Allow,
}

/// What a push begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushHead {
    /// What it shall be called.
    pub name: Name,
    /// The toolchain file's text.
    pub definition: String,
    /// The manifest's canonical encoding.
    pub manifest: Vec<u8>,
    /// The bundle that follows.
    pub bundle: BundleRef,
    /// Whether the name may move.
    pub replace: Replace,
    /// What the toolchain makes of the golden set; may be empty.
    pub golden: Golden,
}

/// How a push goes on.
#[derive(Debug)]
pub enum Push {
    /// Everything is here already; no content is needed.
    Known(Record),
    /// The bundle is wanted.
    Wanted(Box<Upload>),
}

#[derive(Debug, Clone)]
struct Kept {
    record: Record,
    /// Stamp of the bundle's file when its digest was last checked in this life.
    checked: Option<Stamp>,
}

/// The registry.
#[derive(Debug)]
pub struct Registry {
    directory: PathBuf,
    kept: Mutex<BTreeMap<Key, Kept>>,
}

/// One identity may have several names, and one name several identities.
type Key = (ToolchainId, Name);

impl Registry {
    /// Opens the registry below `directory`, which is made when missing. What cannot be read is left out and logged:
    /// one damaged toolchain must not keep the farm down.
    pub fn open(directory: &Path) -> Result<Self, RegistryError> {
        for part in ["objects", "incoming", "names"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(failed("make", &path))?;
        }
        let registry = Self {
            directory: directory.to_owned(),
            kept: Mutex::default(),
        };
        registry.drop_leftovers()?;
        let objects = directory.join("objects");
        for entry in fs::read_dir(&objects).map_err(failed("read", &objects))? {
            let path = entry.map_err(failed("read", &objects))?.path();
            match read_record(&path) {
                Ok(record) => {
                    let kept = Kept { record, checked: None };
                    registry.lock().insert(kept.record.key(), kept);
                }
                Err(error) => tracing::error!(path = %path.display(), %error, "toolchain left out"),
            }
        }
        registry.settle_names();
        Ok(registry)
    }

    /// Where toolchains stand on their way in and out.
    fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// Names every identity, current ones first within each name.
    pub fn list(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.lock().values().map(|kept| kept.record.clone()).collect();
        records.sort_by(|a, b| {
            let former = |record: &Record| record.standing == Standing::Former;
            (&a.name, former(a), b.pushed_unix_ms).cmp(&(&b.name, former(b), a.pushed_unix_ms))
        });
        records
    }

    /// Finds what a name stands for: one record for each kind of machine.
    pub fn by_name(&self, name: &Name) -> Vec<Record> {
        let mut records = self.list();
        records.retain(|record| record.name == *name && record.standing == Standing::Current);
        records
    }

    /// Finds an identity, under whichever name.
    pub fn by_id(&self, id: ToolchainId) -> Option<Record> {
        let kept = self.lock();
        let found = kept.iter().find(|((known, _), _)| *known == id);
        found.map(|(_, kept)| kept.record.clone())
    }

    /// Says how an identity's objects compare with those of the current reference of its name. Made anew each time out of
    /// what is stored, so that it holds whatever was pushed since.
    pub fn certification(&self, record: &Record) -> Certification {
        let Ok(definition) = Definition::parse(&record.definition) else {
            return Certification::Unproven("its toolchain file is not understood");
        };
        let first = definition.variants().first().map(|variant| variant.host);
        let group = self.by_name(&record.name);
        let reference = group.iter().find(|other| Some(other.manifest.host()) == first);
        certify(
            &definition,
            record.manifest.host(),
            record.side(),
            reference.map(Record::side),
        )
    }

    /// Begins a push. `by` says who pushes, for the log.
    pub fn begin_push(&self, head: PushHead, by: &str) -> Result<Push, RegistryError> {
        if head.definition.len() > DEFINITION_BYTES_MAX {
            return Err(RegistryError::DefinitionTooLarge);
        }
        let definition = Definition::parse(&head.definition)?;
        if definition.name != head.name {
            return Err(RegistryError::OtherName {
                in_file: definition.name,
                pushed: head.name,
            });
        }
        let manifest = Manifest::decode(&head.manifest)?;
        let id = manifest.id();
        self.check_name(&head, &manifest)?;
        let incoming = self.incoming();
        let prefix = format!("{}-", id.0.short());
        let make = || tempfile::Builder::new().prefix(&prefix).tempdir_in(&incoming);
        let place = swept::in_directory(&incoming, 0o755, make).map_err(failed("make a directory in", &incoming))?;
        let known = self.by_id(id).filter(|known| known.bundle == head.bundle);
        if let Some(known) = known
            && self.check_bundle(&known).is_ok()
        {
            tracing::info!(name = %head.name, id = id.0.short(), by, "toolchain pushed again");
            let (from, to) = (self.object(&known.key()).join("bundle"), place.path().join("bundle"));
            fs::hard_link(&from, &to).map_err(failed("link", &to))?;
            return self.publish(&head, &manifest, place).map(Push::Known);
        }
        let bundle_path = place.path().join("bundle");
        let file = File::create_new(&bundle_path).map_err(failed("make", &bundle_path))?;
        tracing::info!(name = %head.name, id = id.0.short(), by, bytes = head.bundle.size, "toolchain arriving");
        Ok(Push::Wanted(Box::new(Upload {
            head,
            manifest,
            place,
            file,
            hasher: Hasher::default(),
        })))
    }

    /// Checks an upload as a whole and makes it visible.
    pub fn commit(&self, upload: Box<Upload>) -> Result<Record, RegistryError> {
        let Upload {
            head,
            manifest,
            place,
            file,
            hasher,
        } = *upload;
        if hasher.length() == 0 {
            return Err(RegistryError::BundleWanted(manifest.id()));
        }
        if hasher.length() != head.bundle.size {
            return Err(RegistryError::NotAsAnnounced("it ended early"));
        }
        if hasher.finish() != head.bundle.digest {
            return Err(RegistryError::NotAsAnnounced("its digest differs"));
        }
        let path = place.path().join("bundle");
        file.sync_all().map_err(failed("write", &path))?;
        let again = File::open(&path).map_err(failed("read", &path))?;
        bundle::check(again, &manifest)?;
        // Asked once more: another push may have taken the name while this bundle travelled.
        self.check_name(&head, &manifest)?;
        self.publish(&head, &manifest, place)
    }

    /// Puts a directory that holds the checked bundle in place.
    fn publish(&self, head: &PushHead, manifest: &Manifest, place: tempfile::TempDir) -> Result<Record, RegistryError> {
        let key = (manifest.id(), head.name.clone());
        let stored = Stored {
            name: head.name.to_string(),
            bundle_digest: head.bundle.digest.to_string(),
            bundle_size: head.bundle.size,
            pushed_unix_ms: unix_ms(),
        };
        let text = serde_json::to_vec_pretty(&stored).expect("plain fields can be written as JSON");
        for (name, content) in [
            ("definition.toml", head.definition.as_bytes()),
            ("manifest", &head.manifest),
            ("record.json", &text),
        ] {
            write_whole(&place.path().join(name), content)?;
        }
        // Golden objects of the same files are good whoever made them.
        let before = self.lock().get(&key).map(|kept| kept.record.golden.clone());
        let golden = Some(&head.golden).filter(|golden| !golden.is_empty());
        if let Some(golden) = golden.or(before.as_deref()) {
            write_whole(&place.path().join("golden"), &golden.encode())?;
        }
        let target = self.object(&key);
        // What stood there was damaged, or has another bundle or toolchain file: the new one replaces it.
        put_in_place(place, &target)?;
        let record = read_record(&target)?;
        let checked = Stamp::of(&target.join("bundle")).ok();
        self.lock().insert(key.clone(), Kept { record, checked });
        self.make_current(&key)?;
        let current = self.lock().get(&key).map(|kept| kept.record.clone());
        current.ok_or_else(|| RegistryError::Unknown(key.0.to_string()))
    }

    /// Opens a bundle at `offset`, checked since its file last changed. The caller should tell
    /// [`Registry::doubt`] when what it read turns out wrong all the same.
    pub fn open_bundle(&self, id: ToolchainId, offset: u64) -> Result<File, RegistryError> {
        let record = self.by_id(id).ok_or_else(|| RegistryError::Unknown(id.to_string()))?;
        self.check_bundle(&record)?;
        let path = self.object(&record.key()).join("bundle");
        let mut file = File::open(&path).map_err(failed("read", &path))?;
        file.seek(SeekFrom::Start(offset)).map_err(failed("read", &path))?;
        Ok(file)
    }

    /// Has a bundle checked again before it is next served.
    pub fn doubt(&self, id: ToolchainId) {
        for kept in self.lock().values_mut().filter(|kept| kept.record.id == id) {
            kept.checked = None;
        }
    }

    /// Removes a name and all that it stood for. Returns the identities removed.
    pub fn remove(&self, name: &Name) -> Result<Vec<ToolchainId>, RegistryError> {
        let keys: Vec<Key> = self.lock().keys().filter(|(_, known)| known == name).cloned().collect();
        if keys.is_empty() {
            return Err(RegistryError::Unknown(name.to_string()));
        }
        keys.into_iter()
            .map(|key| self.drop_object(&key).map(|()| key.0))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Kept>> {
        // Nothing that runs under this lock panics half-way, so a poisoned one is still whole.
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn object(&self, (id, name): &Key) -> PathBuf {
        self.directory.join("objects").join(format!("{name}@{id}"))
    }

    fn check_name(&self, head: &PushHead, manifest: &Manifest) -> Result<(), RegistryError> {
        let wanted = manifest.id();
        let other = self
            .by_name(&head.name)
            .into_iter()
            .find(|record| record.manifest.host() == manifest.host() && record.id != wanted);
        match (other, head.replace) {
            (Some(other), Replace::Refuse) => Err(RegistryError::NameTaken {
                name: head.name.clone(),
                taken_by: other.id,
                wanted,
            }),
            _ => Ok(()),
        }
    }

    fn check_bundle(&self, record: &Record) -> Result<(), RegistryError> {
        let path = self.object(&record.key()).join("bundle");
        let stamp = Stamp::of(&path).map_err(failed("read", &path))?;
        let checked = self.lock().get(&record.key()).and_then(|kept| kept.checked);
        if checked == Some(stamp) {
            return Ok(());
        }
        let mut file = File::open(&path).map_err(failed("read", &path))?;
        let (digest, size) = digest_of(&mut file, &mut |_| {}).map_err(failed("read", &path))?;
        if (digest, size) != (record.bundle.digest, record.bundle.size) {
            tracing::error!(id = record.id.0.short(), "bundle is damaged on disk");
            return Err(RegistryError::Damaged(record.id));
        }
        if let Some(kept) = self.lock().get_mut(&record.key()) {
            kept.checked = Some(stamp);
        }
        Ok(())
    }

    /// Lets a name stand for an identity from now on, and drops the oldest former ones beyond the bound.
    fn make_current(&self, key: &Key) -> Result<(), RegistryError> {
        let Some(record) = self.lock().get(key).map(|kept| kept.record.clone()) else {
            return Ok(());
        };
        let name_file = self.directory.join("names").join(name_key(&record));
        write_whole(&name_file, record.id.to_string().as_bytes())?;
        self.settle_names();
        let mut former = self.list();
        former.retain(|other| name_key(other) == name_key(&record) && other.id != record.id);
        for old in former.into_iter().skip(KEPT_PER_NAME - 1) {
            self.drop_object(&old.key())?;
        }
        Ok(())
    }

    /// Reads which identity each name stands for. A name whose file is missing stands for the newest.
    fn settle_names(&self) {
        let mut kept = self.lock();
        let mut current: BTreeMap<String, (u64, ToolchainId)> = BTreeMap::new();
        for one in kept.values() {
            let key = name_key(&one.record);
            let written = fs::read_to_string(self.directory.join("names").join(&key)).unwrap_or_default();
            let rank = if written == one.record.id.to_string() {
                u64::MAX
            } else {
                one.record.pushed_unix_ms
            };
            let best = current.entry(key).or_insert((rank, one.record.id));
            *best = (*best).max((rank, one.record.id));
        }
        for one in kept.values_mut() {
            let holds = current
                .get(&name_key(&one.record))
                .is_some_and(|(_, id)| *id == one.record.id);
            one.record.standing = if holds { Standing::Current } else { Standing::Former };
        }
    }

    fn drop_object(&self, key: &Key) -> Result<(), RegistryError> {
        let path = self.object(key);
        // Renamed first, so that a crash leaves a leftover and not half a toolchain.
        let incoming = self.incoming();
        let gone = incoming.join(format!("removed-{}", key.0));
        swept::in_directory(&incoming, 0o755, || fs::rename(&path, &gone)).map_err(failed("remove", &path))?;
        fs::remove_dir_all(&gone).map_err(failed("remove", &gone))?;
        // A name file that names what is gone counts as missing.
        self.lock().remove(key);
        self.settle_names();
        Ok(())
    }

    fn drop_leftovers(&self) -> Result<(), RegistryError> {
        let incoming = self.incoming();
        for entry in fs::read_dir(&incoming).map_err(failed("read", &incoming))? {
            let path = entry.map_err(failed("read", &incoming))?.path();
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

/// A bundle on its way in. Dropped before [`Registry::commit`], it leaves nothing.
pub struct Upload {
    head: PushHead,
    manifest: Manifest,
    place: tempfile::TempDir,
    file: File,
    hasher: Hasher,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload({}, {} bytes)", self.head.name, self.hasher.length())
    }
}

impl Upload {
    /// Takes the next piece. More than was announced is refused at once.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), RegistryError> {
        if self.hasher.length() + piece.len() as u64 > self.head.bundle.size {
            return Err(RegistryError::NotAsAnnounced("it is longer"));
        }
        self.hasher.update(piece);
        let path = self.place.path().join("bundle");
        self.file.write_all(piece).map_err(failed("write", &path))
    }
}

impl Record {
    fn key(&self) -> Key {
        (self.id, self.name.clone())
    }

    fn side(&self) -> Side<'_> {
        Side {
            id: self.id,
            golden: &self.golden,
        }
    }
}

fn name_key(record: &Record) -> String {
    format!("{}@{}", record.name, record.manifest.host())
}
