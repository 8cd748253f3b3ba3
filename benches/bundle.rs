//! How long packing a toolchain takes against `tar | zstd -T0` at the same level, on the same files.
//!
//! `cargo bench --bench bundle [-- COMPILER]`. Runs each side five times in turn, after one run that warms the page
//! cache, and prints medians and their ratio: of wall time, which is what counts, and of CPU time, which also says
//! something on a busy machine. The aim is at most 1.10.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdcc::toolchains::bundle::{LEVEL, pack, unpack};
use rdcc::toolchains::capture::{Surroundings, capture};
use rdcc::toolchains::definition::Definition;
use rdcc::toolchains::host::Host;
use rdcc::toolchains::manifest::{Entry, Manifest};

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let compiler = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let compiler = compiler.unwrap_or_else(|| "arm-linux-gnueabi-gcc".to_owned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let surroundings = Surroundings {
        path: std::env::split_paths(&path).collect(),
        own_program: None,
        environment: Vec::new(),
    };
    let target = Command::new(&compiler).arg("-dumpmachine").output()?.stdout;
    let target = String::from_utf8(target)?;
    let text = format!(
        "name = \"bench\"\ntarget = \"{}\"\ncompilers.c = \"{compiler}\"\n",
        target.trim()
    );
    let definition = Definition::parse(&text)?;
    let started = Instant::now();
    let manifest = capture(&definition, Host::current(), &surroundings, &mut |_, _| {})?.manifest;
    let (entries, bytes) = (manifest.entries().len(), manifest.content_bytes());
    println!("capture: {entries} entries, {bytes} bytes, {:?}", started.elapsed());

    let dir = tempfile::tempdir()?;
    let threads = std::thread::available_parallelism()?.get() as u32;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut our_cpu, mut their_cpu) = (Vec::new(), Vec::new());
    let mut digests = Vec::new();
    for round in 0..=ROUNDS {
        let before = cpu_ticks()?;
        let started = Instant::now();
        let file = std::fs::File::create(dir.path().join("ours"))?;
        let (bundle, _) = pack(&manifest, "/".as_ref(), file, threads, &mut |_, _| {})?;
        let packed = started.elapsed();
        let between = cpu_ticks()?;
        let piped = tar_zstd(&manifest, dir.path().join("theirs"), dir.path().join("list"))?;
        let after = cpu_ticks()?;
        digests.push(bundle.digest);
        if round == 0 {
            let size = std::fs::metadata(dir.path().join("theirs"))?.len();
            println!(
                "level {LEVEL}, {threads} threads: {} bytes, tar | zstd {size} bytes",
                bundle.size
            );
        } else {
            ours.push(packed);
            theirs.push(piped);
            our_cpu.push(between - before);
            their_cpu.push(after - between);
        }
    }
    digests.dedup();
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "pack {ours:?}, tar | zstd {theirs:?}, ratio {:.3}",
        ours.as_secs_f64() / theirs.as_secs_f64()
    );
    let (our_cpu, their_cpu) = (median(our_cpu), median(their_cpu));
    let ratio = our_cpu as f64 / their_cpu as f64;
    println!("CPU: pack {our_cpu}, tar | zstd {their_cpu} ticks, ratio {ratio:.3}");
    println!("distinct digests: {}", digests.len());

    let root = dir.path().join("root");
    std::fs::create_dir(&root)?;
    let started = Instant::now();
    let bundle = std::fs::File::open(dir.path().join("ours"))?;
    unpack(bundle, &manifest, &root, &mut |_, _| {})?;
    println!("unpack and verify: {:?}", started.elapsed());
    Ok(())
}

fn tar_zstd(manifest: &Manifest, out: PathBuf, list: PathBuf) -> Result<Duration, Box<dyn Error>> {
    let mut names = std::fs::File::create(&list)?;
    for (path, entry) in manifest.entries() {
        if !matches!(entry, Entry::Directory { .. }) {
            writeln!(names, "{}", path.display())?;
        }
    }
    let started = Instant::now();
    let mut tar = Command::new("tar")
        .args(["-P", "-cf", "-", "-T"])
        .arg(&list)
        .stdout(Stdio::piped())
        .spawn()?;
    let from_tar = tar.stdout.take().ok_or("no pipe")?;
    let zstd = Command::new("zstd")
        .args(["-q", "-T0", &format!("-{LEVEL}"), "-f", "-o"])
        .arg(out)
        .stdin(from_tar)
        .status()?;
    let tar = tar.wait()?;
    if !tar.success() || !zstd.success() {
        return Err("tar | zstd failed".into());
    }
    Ok(started.elapsed())
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort();
    values[values.len() / 2]
}

/// CPU time of this process and of the children it has waited for, in the kernel's ticks.
fn cpu_ticks() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("unknown form of stat")?;
    // utime, stime, cutime, cstime: the 14th to 17th field, the 12th after the name.
    let fields = fields.split_whitespace().skip(11).take(4);
    fields.map(|field| Ok(field.parse::<u64>()?)).sum()
}
