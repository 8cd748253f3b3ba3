//! `rdcc-worker doctor`: what this node can do to isolate jobs, what that means, and what to change.
//!
//! Tries each way to build a job's root for real, and reads the kernel's own account of the rest. Changes nothing.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process;
use super::sandbox::{Mode, SandboxError, SandboxSettings, landlock_is_enough, landlock_version, modes, start_with};
use crate::job::{Terminal, Usage};

/// Trial jobs, of which the median counts: enough to be off the first one's cold caches.
const TRIALS: usize = 21;

/// What a node can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The way that jobs will run and the median cost of one that does nothing, or why none can run.
    pub sandbox: Result<(Mode, Usage), String>,
    /// Each thing looked at, in the order of its weight.
    pub findings: Vec<Finding>,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub subject: &'static str,
    /// Whether it is there, and how the kernel refuses it if not.
    pub state: State,
    /// What having it, or lacking it, means for jobs.
    pub meaning: &'static str,
    /// What to change, when it is missing and something can be done.
    pub remedy: Option<&'static str>,
}

/// Whether a thing is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is.
    Yes,
    /// It is not, for this reason.
    No(String),
}

/// Looks at the node as a worker with these settings would.
pub async fn examine(settings: SandboxSettings) -> Report {
    let mut trials = Vec::new();
    let mut sandbox = Err("nothing isolates jobs here".to_owned());
    for &mode in modes() {
        match start_with(settings.clone(), &[mode]) {
            Ok(launcher) => {
                if sandbox.is_err() {
                    sandbox = cost(&launcher).await.map(|usage| (mode, usage));
                }
                trials.push((mode, State::Yes));
            }
            Err(SandboxError::NoIsolation(refused)) => {
                trials.extend(refused.into_iter().map(|(mode, why)| (mode, State::No(why))));
            }
            Err(other) => {
                sandbox = Err(with_cause(&other));
                trials.push((mode, State::No(with_cause(&other))));
            }
        }
    }
    let mut findings: Vec<Finding> = trials.into_iter().map(|(mode, state)| tried(mode, state)).collect();
    findings.extend(kernel());
    findings.push(terminal());
    findings.extend(control_groups());
    findings.extend(second_walls());
    Report { sandbox, findings }
}

async fn cost(launcher: &super::sandbox::Launcher) -> Result<Usage, String> {
    let mut usages = Vec::with_capacity(TRIALS);
    for _ in 0..TRIALS {
        usages.push(launcher.trial().await.map_err(|error| with_cause(&error))?);
    }
    usages.sort_by_key(|usage| usage.user + usage.system);
    Ok(usages[TRIALS / 2])
}

fn with_cause(error: &SandboxError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Says what it means that a mode works or not, and by the step that failed what would help.
fn tried(mode: Mode, state: State) -> Finding {
    let (subject, meaning) = match mode {
        Mode::UserOverlay => (
            "jobs in a user name space, overlay",
            "the best way: a job has no privilege on the node, and writes wherever it may at home",
        ),
        Mode::RootOverlay => (
            "jobs set up by root, overlay",
            "as good for the job's result; a hole in the set-up would be root's, and processes are bounded for the node \
             as a whole",
        ),
        Mode::UserBinds => (
            "jobs in a user name space, bind mounts",
            "a job writes only to its working directory, to where its command says, and to /tmp",
        ),
        Mode::RootBinds => (
            "jobs set up by root, bind mounts",
            "the last resort: needs nothing of the kernel but mount, process, network and IPC name spaces",
        ),
    };
    let remedy = match &state {
        State::Yes => None,
        State::No(why) => REMEDIES
            .iter()
            .find(|(step, _)| why.starts_with(step))
            .map(|(_, remedy)| *remedy),
    };
    Finding {
        subject,
        state,
        meaning,
        remedy,
    }
}

/// The steps of a launcher's set-up that fail on real nodes, by how they begin, and what helps.
const REMEDIES: &[(&str, &str)] = &[
    (
        "making a user name space",
        "build the kernel with CONFIG_USER_NS=y; set sysctl user.max_user_namespaces above 0, on Debian \
         kernel.unprivileged_userns_clone=1, and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a \
         container, allow unshare",
    ),
    (
        "mapping the",
        "set sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give rdcc-worker an AppArmor profile with `userns`",
    ),
    (
        "making a mount",
        "set sysctl user.max_mnt_namespaces above 0; in a container, allow mounts",
    ),
    (
        "making a network",
        "build the kernel with CONFIG_NET_NS=y; set sysctl user.max_net_namespaces above 0",
    ),
    (
        "making an IPC",
        "build the kernel with CONFIG_IPC_NS=y; set sysctl user.max_ipc_namespaces above 0",
    ),
    (
        "forking into new name spaces",
        "build the kernel with CONFIG_PID_NS=y; set sysctl user.max_pid_namespaces above 0",
    ),
    (
        "mounting a tmpfs",
        "build the kernel with CONFIG_TMPFS=y; in a container, allow mounts",
    ),
    (
        "mounting the overlay",
        "build the kernel with CONFIG_OVERLAY_FS (`modprobe overlay` if it is a module); without root it takes Linux 5.11",
    ),
    (
        "removing a lower file",
        "use Linux 5.8 or later: before it, an overlay without root cannot note that a file is gone",
    ),
    (
        "mounting the job's `/proc`",
        "in a container, leave /proc unmasked (podman and docker: --security-opt unmask=ALL)",
    ),
    (
        "becoming the job's user",
        "choose a user for jobs that exists on this node or in this container",
    ),
    (
        "entering the base directory",
        "let the worker's state directory exist and be searchable for the worker",
    ),
    (
        "searching the base directory",
        "let the jobs' user search the directory that holds mirrors and toolchains: chmod 711",
    ),
];

/// What the kernel has by its own account.
fn kernel() -> Vec<Finding> {
    let space = |subject, file: &str, meaning, remedy| {
        let state = present(Path::new("/proc/self/ns").join(file));
        finding(subject, state, meaning, remedy)
    };
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let file_system = |subject, name: &str, meaning, remedy| {
        let known = file_systems
            .lines()
            .any(|line| line.split_whitespace().last() == Some(name));
        let state = if known {
            State::Yes
        } else {
            State::No("not loaded".to_owned())
        };
        finding(subject, state, meaning, remedy)
    };
    vec![
        space(
            "user name spaces",
            "user",
            "jobs are isolated without root",
            "build the kernel with CONFIG_USER_NS=y (since Linux 3.8)",
        ),
        space(
            "mount name spaces",
            "mnt",
            "a job sees its own root",
            "build the kernel with CONFIG_NAMESPACES=y",
        ),
        space(
            "process name spaces",
            "pid",
            "a job is killed as a whole",
            "build the kernel with CONFIG_PID_NS=y",
        ),
        space(
            "network name spaces",
            "net",
            "a job has no network",
            "build the kernel with CONFIG_NET_NS=y",
        ),
        space(
            "IPC name spaces",
            "ipc",
            "a job shares no memory with others",
            "build the kernel with CONFIG_IPC_NS=y",
        ),
        file_system(
            "overlayfs",
            "overlay",
            "a job may write anywhere, and only its own layer changes",
            "modprobe overlay, or build the kernel with CONFIG_OVERLAY_FS",
        ),
        file_system(
            "tmpfs",
            "tmpfs",
            "what a job writes is bounded",
            "build the kernel with CONFIG_TMPFS=y",
        ),
    ]
}

fn terminal() -> Finding {
    let made = process::terminal(Terminal { columns: 80, rows: 24 });
    let state = made.map_or_else(|error| State::No(error.to_string()), |_| State::Yes);
    let meaning = "diagnostics come in the colours and the width of the client's terminal";
    finding(
        "pseudo-terminals",
        state,
        meaning,
        "mount devpts on /dev/pts, and build the kernel with CONFIG_UNIX98_PTYS=y",
    )
}

/// Whether this worker may make control groups of its own. Nothing depends on them yet.
fn control_groups() -> Vec<Finding> {
    let own = own_control_group();
    let controller = |subject, name: &str, meaning| {
        let state = match &own {
            Err(why) => State::No(why.clone()),
            Ok(group) => delegated(group, name),
        };
        let remedy = "run the worker as a systemd service with Delegate=yes, on a kernel with control groups version 2";
        finding(subject, state, meaning, remedy)
    };
    vec![
        controller(
            "control of processes, delegated",
            "pids",
            "processes could be bounded by group, too",
        ),
        controller(
            "control of memory, delegated",
            "memory",
            "memory could be bounded for a job as a whole",
        ),
    ]
}

fn own_control_group() -> Result<PathBuf, String> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.ok_or("no control groups version 2")?;
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let mount = mounts
        .iter()
        .find(|mount| Path::new(mount).join("cgroup.controllers").exists());
    Ok(Path::new(mount.ok_or("no control groups version 2")?).join(path))
}

fn delegated(group: &Path, controller: &str) -> State {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|name| name == controller) {
        return State::No(format!("`{}` does not have it", group.display()));
    }
    match rustix::fs::access(group, rustix::fs::Access::WRITE_OK) {
        Ok(()) => State::Yes,
        Err(error) => State::No(format!("`{}`: {error}", group.display())),
    }
}

/// Walls behind the name spaces. Nothing depends on them.
fn second_walls() -> Vec<Finding> {
    let landlock = match landlock_version() {
        Ok(version) if landlock_is_enough(version) => State::Yes,
        Ok(version) => State::No(format!(
            "the kernel has version {version} of it, and version 2 is needed"
        )),
        Err(error) => State::No(error.to_string()),
    };
    vec![
        finding(
            "seccomp filters",
            present(Path::new("/proc/sys/kernel/seccomp/actions_avail").to_owned()),
            "jobs are kept from some fifty system calls that compilers do not need",
            "build the kernel with CONFIG_SECCOMP_FILTER=y",
        ),
        finding(
            "landlock",
            landlock,
            "jobs are tied to the files below their root a second time",
            "use Linux 5.19 or later with CONFIG_SECURITY_LANDLOCK=y and `landlock` in lsm=",
        ),
    ]
}

fn present(path: PathBuf) -> State {
    if path.exists() {
        State::Yes
    } else {
        State::No(format!("no `{}`", path.display()))
    }
}

fn finding(subject: &'static str, state: State, meaning: &'static str, remedy: &'static str) -> Finding {
    Finding {
        subject,
        remedy: (state != State::Yes).then_some(remedy),
        state,
        meaning,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sandbox {
            Ok((mode, usage)) => {
                let cpu = usage.user + usage.system;
                writeln!(f, "jobs run isolated: {mode}")?;
                writeln!(
                    f,
                    "a job that does nothing takes {} CPU, {} in all",
                    millis(cpu),
                    millis(usage.wall)
                )?;
            }
            Err(why) => writeln!(f, "no job can run here: {why}")?,
        }
        writeln!(f)?;
        for finding in &self.findings {
            let answer = if finding.state == State::Yes { "yes" } else { "no" };
            writeln!(f, "{answer:3}  {:38}  {}", finding.subject, finding.meaning)?;
            if let State::No(why) = &finding.state {
                writeln!(f, "       because: {why}")?;
            }
            if let Some(remedy) = finding.remedy {
                writeln!(f, "       to have it: {remedy}")?;
            }
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_mode_names_the_step_and_what_helps() {
        let why = "making a user name space: No space left on device (os error 28)";
        let finding = tried(Mode::UserOverlay, State::No(why.to_owned()));
        assert!(
            finding
                .remedy
                .is_some_and(|remedy| remedy.contains("user.max_user_namespaces"))
        );
        assert_eq!(tried(Mode::UserBinds, State::Yes).remedy, None);
        let report = Report {
            sandbox: Err("nothing isolates jobs here".to_owned()),
            findings: vec![finding],
        };
        let text = report.to_string();
        for expected in [
            "no job can run here",
            "because: making a user",
            "to have it: build the kernel",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn what_works_is_told_with_its_cost() {
        let usage = Usage {
            user: Duration::from_micros(300),
            system: Duration::from_micros(700),
            wall: Duration::from_micros(1500),
            ..Usage::default()
        };
        let report = Report {
            sandbox: Ok((Mode::UserOverlay, usage)),
            findings: vec![finding("tmpfs", State::Yes, "what a job writes is bounded", "")],
        };
        let expected = "jobs run isolated: user name space, overlay\n\
                        a job that does nothing takes 1.0 ms CPU, 1.5 ms in all\n\n\
                        yes  tmpfs                                   what a job writes is bounded\n";
        assert_eq!(report.to_string(), expected);
    }
}
