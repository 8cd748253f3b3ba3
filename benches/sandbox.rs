//! What a job costs beyond the plain program: CPU of the worker's side, the launcher and the kernel, in each mode.
//!
//! `cargo bench --bench sandbox [-- JOBS]`. The program does nothing, so that all that is measured is starting and
//! clearing up. Prints the median of all jobs, once as whoever runs it, and when that is root again as an
//! ordinary user. The aim is at most one to two milliseconds on a PC. Kernel threads clear up some of what a job leaves;
//! what they do for others at the time is counted along.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use rdcc::worker::sandbox::{Command, JobLimits, JobUser, Launcher, Mode, SandboxSettings, start_with};

/// Set for the run as an ordinary user: where the launcher and the program are, as descriptors, since their directories
/// may be closed to it.
const LAUNCHER: &str = "RDCC_BENCH_LAUNCHER";
const PROGRAM: &str = "RDCC_BENCH_PROGRAM";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let jobs: u32 = arguments
        .map(|argument| argument.parse())
        .next()
        .transpose()?
        .unwrap_or(500);
    let directory = tempfile::tempdir()?;
    let program = match std::env::var_os(PROGRAM) {
        Some(program) => PathBuf::from(program),
        None => compile(directory.path())?,
    };
    let launcher = std::env::var_os(LAUNCHER);
    let launcher = launcher.unwrap_or_else(|| env!("CARGO_BIN_EXE_rdcc-worker").into());
    measure(&program, launcher.as_ref(), jobs)?;
    if rustix::process::geteuid().is_root() {
        as_ordinary_user(&program, launcher.as_ref(), jobs)?;
    }
    Ok(())
}

fn compile(directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let program = directory.join("nothing");
    let source = directory.join("nothing.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let status = Program::new("cc")
        .args(["-static", "-O1", "-o"])
        .args([&program, &source])
        .status()?;
    if status.success() {
        Ok(program)
    } else {
        Err("the C compiler failed".into())
    }
}

fn as_ordinary_user(program: &Path, launcher: &OsStr, jobs: u32) -> Result<(), Box<dyn Error>> {
    let inherited = |path: &Path| -> Result<(File, String), Box<dyn Error>> {
        let file = File::open(path)?;
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok((file, name))
    };
    let (_own, own) = inherited(&std::env::current_exe()?)?;
    let (_program, program) = inherited(program)?;
    let (_launcher, launcher) = inherited(launcher.as_ref())?;
    let mut command = Program::new(own);
    command
        .arg(jobs.to_string())
        .env(LAUNCHER, launcher)
        .env(PROGRAM, program);
    let status = command.uid(65534).gid(65534).current_dir("/").status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the run as an ordinary user failed".into())
    }
}

fn measure(program: &Path, launcher: &OsStr, jobs: u32) -> Result<(), Box<dyn Error>> {
    let root = rustix::process::geteuid().is_root();
    println!("as {}:", if root { "root" } else { "an ordinary user" });
    let base = tempfile::tempdir()?;
    fs::set_permissions(base.path(), Permissions::from_mode(0o711))?;
    let layer = base.path().join("layer");
    fs::create_dir(&layer)?;
    // By another process, which then does not have it open for writing when it is executed.
    Program::new("cp").arg(program).arg(layer.join("nothing")).status()?;
    fs::set_permissions(layer.join("nothing"), Permissions::from_mode(0o755))?;
    let plain = plain(&layer.join("nothing"), jobs)?;
    println!("  {:12} {plain:6.0?} CPU", "plain");
    let modes: &[Mode] = if root {
        lchown(&layer, Some(65534), Some(65534))?;
        &[Mode::UserOverlay, Mode::RootOverlay, Mode::UserBinds, Mode::RootBinds]
    } else {
        &[Mode::UserOverlay, Mode::UserBinds]
    };
    for mode in modes {
        let settings = SandboxSettings {
            launcher_program: launcher.into(),
            lower_base: base.path().to_owned(),
            job_user: JobUser::default(),
            niceness: 0,
        };
        let launcher = start_with(settings, &[*mode])?;
        sandboxed(jobs, plain, &launcher, &layer)?;
    }
    Ok(())
}

/// Runs one job. Returns the CPU time inside its name spaces.
async fn job(launcher: &Launcher, layer: &Path) -> Result<Duration, Box<dyn Error>> {
    let command = Command {
        lower: vec![layer.to_owned()],
        program: "/nothing".into(),
        argv: vec!["nothing".into()],
        env: vec![("PATH".into(), "/usr/bin".into())],
        cwd: "/home/user/project".into(),
        umask: 0o022,
        terminal: None,
        limits: JobLimits {
            memory_bytes: 1 << 30,
            cpu: Duration::from_secs(60),
            wall: Duration::from_secs(60),
            processes: 64,
            output_bytes: 64 << 20,
            text_bytes: 1 << 20,
        },
        cpus: None,
        make_dirs: Vec::new(),
        writable_dirs: Vec::new(),
        outputs: Vec::new(),
    };
    let finished = launcher.run(command).await?.finished().await?;
    if finished.status.success() {
        Ok(finished.usage.user + finished.usage.system)
    } else {
        Err(format!("{:?}", finished.status).into())
    }
}

/// Runs the program by itself. Returns the CPU time of one run, this process's share included.
fn plain(program: &Path, jobs: u32) -> Result<Duration, Box<dyn Error>> {
    let (own, children) = (scheduled("self")?, children_waited_for()?);
    for _ in 0..jobs {
        Program::new(program).status()?;
    }
    Ok((scheduled("self")? - own + children_waited_for()?.saturating_sub(children)) / jobs)
}

/// Runs jobs and prints what the median one costs, and how much more that is than `plain`.
fn sandboxed(jobs: u32, plain: Duration, launcher: &Launcher, layer: &Path) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(job(launcher, layer))?;
    let children = fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()))?;
    let process = children.split_whitespace().next().ok_or("no launcher")?;
    let (mut worker, mut forks, mut inside, mut all, mut wall) = (vec![], vec![], vec![], vec![], vec![]);
    let kernel = kernel_threads_cpu()?;
    for _ in 0..jobs {
        let (own, launching, started) = (scheduled("self")?, scheduled(process)?, Instant::now());
        let used = runtime.block_on(job(launcher, layer))?;
        wall.push(started.elapsed());
        worker.push(scheduled("self")?.saturating_sub(own));
        forks.push(scheduled(process)?.saturating_sub(launching));
        inside.push(used);
        all.push(worker[worker.len() - 1] + forks[forks.len() - 1] + used);
    }
    let kernel = kernel_threads_cpu()?.saturating_sub(kernel) / jobs;
    let [worker, forks, inside, all, wall] = [worker, forks, inside, all, wall].map(median);
    println!(
        "  {:12} {all:6.0?} CPU = worker {worker:.0?} + launcher {forks:.0?} + inside {inside:.0?}; {:.0?} more than plain; \
         kernel threads {kernel:.0?}; {wall:.0?} wall",
        format!("{:?}", launcher.report().mode),
        all.saturating_sub(plain),
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// CPU time so far of a process with one thread.
fn scheduled(process: &str) -> Result<Duration, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    Ok(Duration::from_nanos(
        text.split_whitespace().next().ok_or("no schedstat")?.parse()?,
    ))
}

/// CPU time so far of the children waited for, in ticks of 10 ms.
fn children_waited_for() -> Result<Duration, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit_once(')').ok_or("no name in stat")?.1;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// CPU time so far of all kernel threads.
fn kernel_threads_cpu() -> Result<Duration, Box<dyn Error>> {
    let mut total = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1));
        if parent == Some("2") {
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            total += text
                .split_whitespace()
                .next()
                .and_then(|field| field.parse().ok())
                .unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(total))
}
