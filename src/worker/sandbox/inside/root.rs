//! Builds a job's root from the template, out of an overlay or of bind mounts, and moves into it.
//!
//! Runs in the job's first process, in name spaces that end with the job: nothing here needs undoing.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode as Bits, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{Gid, Uid};

use super::super::wire::Job;
use super::super::{JobUser, Mode};
use super::enter::{DEVICES, Template, change_root};
use super::{At, Failure, binds};

/// Files, directories and the like that a job may make. Each holds about a kibibyte of the kernel's memory, which the
/// tmpfs does not count as content.
const INODES_MAX: u64 = 65_536;

/// Builds the root and makes it the calling process's. Returns the writable layer.
pub(super) fn build(template: &Template, job: &Job) -> Result<OwnedFd, Failure> {
    let options = format!("mode=0755,size={},nr_inodes={INODES_MAX}", job.output_bytes.max(1));
    let options = CString::new(options)
        .map_err(|_| Errno::INVAL)
        .at("naming the job's tmpfs")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("job", "job", "tmpfs", flags, options.as_c_str()).at("mounting the job's tmpfs")?;
    let written = match template.mode {
        Mode::UserOverlay => overlay(job, ",userxattr")?,
        Mode::RootOverlay => overlay(job, "")?,
        Mode::UserBinds | Mode::RootBinds => binds::graft(template, job)?,
    };
    for name in DEVICES {
        rustix::mount::mount_bind(format!("dev/{name}"), format!("root/dev/{name}"))
            .at(format!("binding `/dev/{name}` for the job"))?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    rustix::mount::mount("proc", "root/proc", "proc", flags, template.proc_options)
        .at("mounting the job's `/proc`, which needs all of the node's `/proc` to be visible")?;
    rustix::process::chdir("root").at("entering the job's root")?;
    change_root().at("making the job's root the root")?;
    for directory in [&job.cwd].into_iter().chain(&job.make_dirs) {
        make_directory(directory, template.job_user).at(format!("making `{}`", directory.display()))?;
    }
    Ok(written)
}

/// Mounts an overlay of the skeleton and the job's layers at `/root`.
fn overlay(job: &Job, more: &str) -> Result<OwnedFd, Failure> {
    for name in ["job/upper", "job/work"] {
        rustix::fs::mkdir(name, Bits::from_raw_mode(0o755)).at("making the writable layer")?;
    }
    let mut options = b"lowerdir=skeleton".to_vec();
    for layer in &job.layers {
        options.extend_from_slice(b":base/");
        options.extend_from_slice(layer.as_os_str().as_bytes());
    }
    options.extend_from_slice(b",upperdir=job/upper,workdir=job/work");
    options.extend_from_slice(more.as_bytes());
    let options = CString::new(options)
        .map_err(|_| Errno::INVAL)
        .at("naming the layers")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("job", "root", "overlay", flags, options.as_c_str()).at("mounting the overlay")?;
    open_directory("job/upper").at("opening the writable layer")
}

/// Opens a directory for the worker to read later.
pub(super) fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Bits::empty())
}

/// Makes a directory and its parents, and gives those it made to `owner`.
fn make_directory(path: &Path, owner: Option<JobUser>) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Bits::from_raw_mode(0o755)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOENT) => {
            make_directory(path.parent().ok_or(Errno::NOENT)?, owner)?;
            rustix::fs::mkdir(path, Bits::from_raw_mode(0o755))?;
        }
        // What an overlay says of a directory that stands in a layer it may not write to, or in a read-only mount.
        Err(Errno::ROFS | Errno::ACCESS) if is_directory(path) => return Ok(()),
        Err(error) => return Err(error),
    }
    owner.map_or(Ok(()), |user| give(path, user))
}

/// Gives a file or directory to the job's user.
pub(super) fn give(path: &Path, user: JobUser) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn is_directory(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir())
}
