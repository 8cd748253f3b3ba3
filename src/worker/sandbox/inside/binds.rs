//! A job's root without overlayfs: a tmpfs in which the layers' files and directories are bind-mounted, read-only.
//!
//! A directory that only one layer has, and that the job will not write to, is one mount, however much it holds. The
//! directories that the job writes to, and all above them, are real, and what the layers hold in them is mounted entry
//! by entry. The job's own outputs, where they stand already, are copies. What such a root cannot do: a job neither removes
//! nor replaces another file of the layers, and writes nowhere but in directories that were named.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode as Bits, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::super::JobUser;
use super::super::upper::{MARKER, TREE, stood};
use super::super::wire::Job;
use super::enter::{DEVICE_LINKS, DEVICES, Template, touch};
use super::root::{give, open_directory};
use super::{At, Failure};

/// What makes a symbolic link, or a copy, known as one of ours when the worker reads the tree: no job has made it in 1970.
const OURS: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

/// Largest output that is copied for the job to replace, bytes. Stand-ins of agents have one byte.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// Names right below `/` that no layer provides.
const RESERVED: &[&str] = &["dev", "proc"];

/// Puts a tree of the job's layers together at `/root`. Returns the tmpfs below the mounts.
pub(super) fn graft(template: &Template, job: &Job) -> Result<OwnedFd, Failure> {
    let tree = format!("job/{TREE}");
    rustix::fs::mkdir(&tree, Bits::from_raw_mode(0o755)).at("making the job's tree")?;
    touch(&format!("job/{MARKER}")).at("making the job's tree")?;
    rustix::mount::mount_bind(&tree, "root").at("mounting the job's tree")?;
    let layers: Vec<PathBuf> = job.layers.iter().map(|layer| Path::new("base").join(layer)).collect();
    let mut real: BTreeSet<PathBuf> = [&job.cwd]
        .into_iter()
        .chain(&job.writable_dirs)
        .map(|dir| below_root(dir))
        .collect();
    let outputs: Vec<PathBuf> = job.outputs.iter().map(|path| below_root(path)).collect();
    real.extend(outputs.iter().filter_map(|path| path.parent().map(Path::to_owned)));
    real.insert("tmp".into());
    let missing = |dir: &PathBuf| !layers.iter().any(|layer| is_directory(&layer.join(dir)));
    real.extend(job.make_dirs.iter().map(|dir| below_root(dir)).filter(missing));
    let grafting = Grafting {
        real,
        outputs,
        owner: template.job_user,
    };
    grafting.skeleton().at("making the job's skeleton")?;
    grafting.merge(Path::new(""), &layers)?;
    open_directory(&tree).at("opening the job's tree")
}

fn below_root(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_path_buf()
}

fn is_directory(path: &Path) -> bool {
    kind(path).is_ok_and(FileType::is_dir)
}

fn kind(path: &Path) -> Result<FileType, Errno> {
    let found = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

/// Where an entry stands on the tmpfs, and where it is seen and mounted upon.
struct Place {
    tree: PathBuf,
    root: PathBuf,
}

fn place(path: &Path) -> Place {
    Place {
        tree: Path::new("job").join(TREE).join(path),
        root: Path::new("root").join(path),
    }
}

struct Grafting {
    /// Directories that have to be real, relative to the root. All above them are, too.
    real: BTreeSet<PathBuf>,
    /// Files that the job writes, relative to the root, in the order of [`Job::outputs`].
    outputs: Vec<PathBuf>,
    /// Who the job is, when it is not us.
    owner: Option<JobUser>,
}

impl Grafting {
    fn skeleton(&self) -> Result<(), Errno> {
        self.make_real(Path::new("tmp"))?;
        for name in RESERVED {
            rustix::fs::mkdir(&place(Path::new(name)).tree, Bits::from_raw_mode(0o755))?;
        }
        for name in DEVICES {
            placeholder(&place(&Path::new("dev").join(name)).tree)?;
        }
        for (name, target) in DEVICE_LINKS {
            link(OsStr::new(target), &place(&Path::new("dev").join(name)).tree)?;
        }
        Ok(())
    }

    /// Merges what `layers`, all of them directories, hold into the real directory at `path`.
    fn merge(&self, path: &Path, layers: &[PathBuf]) -> Result<(), Failure> {
        let step = || format!("putting together `/{}`", path.display());
        let mut entries: BTreeMap<OsString, Vec<&PathBuf>> = BTreeMap::new();
        for layer in layers {
            for name in names(layer).at(step())? {
                entries.entry(name).or_default().push(layer);
            }
        }
        for (name, holders) in entries {
            let reserved = path.as_os_str().is_empty() && RESERVED.iter().any(|reserved| name == **reserved);
            if !reserved {
                let sources: Vec<PathBuf> = holders.into_iter().map(|layer| layer.join(&name)).collect();
                self.entry(&path.join(&name), &sources)?;
            }
        }
        Ok(())
    }

    /// Puts up one entry that `sources`, topmost first, hold.
    fn entry(&self, path: &Path, sources: &[PathBuf]) -> Result<(), Failure> {
        let step = || format!("putting up `/{}`", path.display());
        let Some(first) = sources.first() else {
            return Ok(());
        };
        let place = place(path);
        match kind(first).at(step())? {
            FileType::RegularFile => match self.outputs.iter().position(|output| output == path) {
                Some(output) if is_small(first) => self.copy(first, &place.tree, output).at(step()),
                _ => {
                    placeholder(&place.tree).at(step())?;
                    rustix::mount::mount_bind(first, &place.root).at(step())
                }
            },
            FileType::Symlink => {
                let target = rustix::fs::readlink(first, Vec::new()).at(step())?;
                link(OsStr::from_bytes(target.as_bytes()), &place.tree).at(step())
            }
            FileType::Directory => {
                let merged: Vec<PathBuf> = sources
                    .iter()
                    .take_while(|source| is_directory(source))
                    .cloned()
                    .collect();
                let real = self.real.iter().any(|real| real.starts_with(path));
                if real || merged.len() > 1 {
                    self.make_real(path).at(step())?;
                    self.merge(path, &merged)
                } else {
                    rustix::fs::mkdir(&place.tree, Bits::from_raw_mode(0o755)).at(step())?;
                    rustix::mount::mount_bind(first, &place.root).at(step())
                }
            }
            // A layer holds nothing else that a compile could read.
            _ => Ok(()),
        }
    }

    /// Puts a copy of an output where the job may replace or remove it, and notes that it stood there.
    fn copy(&self, from: &Path, to: &Path, output: usize) -> Result<(), Errno> {
        let mode = Bits::from_raw_mode(rustix::fs::stat(from)?.st_mode);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let source = rustix::fs::open(from, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Bits::empty())?;
        let target = rustix::fs::open(to, flags, mode)?;
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        io::copy(&mut File::from(source).take(COPY_BYTES_MAX), &mut File::from(target)).map_err(errno)?;
        rustix::fs::chmod(to, mode)?;
        if let Some(user) = self.owner {
            give(to, user)?;
        }
        rustix::fs::utimensat(CWD, to, &OURS, AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::linkat(CWD, to, CWD, format!("job/{}", stood(output)), AtFlags::empty())
    }

    /// Makes a directory on the tmpfs, and lets the job write to it when it was named for that.
    fn make_real(&self, path: &Path) -> Result<(), Errno> {
        let place = place(path).tree;
        match rustix::fs::mkdir(&place, Bits::from_raw_mode(0o755)) {
            // `/tmp`, which the skeleton has made.
            Err(Errno::EXIST) => return Ok(()),
            other => other?,
        }
        match self.owner.filter(|_| self.real.contains(path)) {
            Some(user) => give(&place, user),
            None => Ok(()),
        }
    }
}

fn is_small(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|found| u64::try_from(found.st_size).is_ok_and(|size| size <= COPY_BYTES_MAX))
}

/// Makes a file to mount upon. All of them are one file, by which the worker knows them.
fn placeholder(path: &Path) -> Result<(), Errno> {
    rustix::fs::linkat(CWD, format!("job/{MARKER}"), CWD, path, AtFlags::empty())
}

fn link(target: &OsStr, path: &Path) -> Result<(), Errno> {
    rustix::fs::symlink(target, path)?;
    rustix::fs::utimensat(CWD, path, &OURS, AtFlags::SYMLINK_NOFOLLOW)
}

fn names(directory: &Path) -> Result<Vec<OsString>, Errno> {
    let opened = rustix::fs::open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Bits::empty(),
    )?;
    let mut names = Vec::new();
    for entry in Dir::new(opened)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}
