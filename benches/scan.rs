//! Times the dependency scanner on a kernel tree that has been built, and checks it against the compiler.
//!
//! `cargo bench --bench scan -- KERNEL-DIR [SUBDIR]`: for every unit whose `.cmd` file lies below SUBDIR, compares the
//! closure with `gcc -M` (kept in KERNEL-DIR/.rdcc-lists for the next time), then prints milliseconds of CPU per scan, first
//! with nothing known, then with everything known.

#[path = "../tests/it/support/gcc.rs"]
mod gcc;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdcc::compile::{CompileCommand, Driver};
use rdcc::includes::source_tree::disk::{Bounds, DiskTree};

struct Unit {
    name: String,
    argv: Vec<OsString>,
    command: Box<CompileCommand>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some(kernel) = arguments.first() else {
        println!("skipped: no kernel tree given (cargo bench --bench scan -- KERNEL-DIR [SUBDIR])");
        return;
    };
    let kernel = fs::canonicalize(kernel).expect("the kernel tree exists");
    let below = kernel.join(arguments.get(1).map_or(".", String::as_str));
    let mut files = Vec::new();
    command_files(&below, &mut files);
    files.sort();
    let units: Vec<(String, Unit)> = files.iter().filter_map(|file| unit(file)).collect();
    let Some((program, _)) = units.first() else {
        println!("no units below {}", below.display());
        return;
    };
    let mut compiler = gcc::Compiler::find(program).expect("the compiler of the kernel runs");
    let units: Vec<Unit> = units.into_iter().map(|(_, unit)| unit).collect();

    let tree = DiskTree::new(Bounds::default());
    let mut files_listed = 0;
    let before = cpu();
    let closures: Vec<_> = units
        .iter()
        .map(|unit| compiler.scan(&unit.command, &kernel, &tree))
        .collect();
    report("cold", cpu() - before, units.len());
    for _ in 0..5 {
        let before = cpu();
        for unit in &units {
            let closure = compiler.scan(&unit.command, &kernel, &tree);
            std::hint::black_box(&closure);
        }
        report("warm", cpu() - before, units.len());
    }
    let (reduced, symbols) = tree.memory_bytes();
    println!(
        "memory: reduced {} kB, spellings {} kB, process {} kB",
        reduced >> 10,
        symbols >> 10,
        resident_kb()
    );

    let mut wrong = 0;
    for (unit, closure) in units.iter().zip(&closures) {
        let theirs = list(&compiler, &kernel, unit);
        let problem = match (closure, theirs) {
            (Ok(closure), Ok(theirs)) => {
                files_listed += closure.listed.len();
                gcc::difference(&gcc::spellings(closure), &theirs)
            }
            (Err(error), _) => Some(error.to_string()),
            (_, Err(complaint)) => Some(complaint),
        };
        if let Some(problem) = problem {
            wrong += 1;
            println!("{}: {problem}", unit.name);
        }
    }
    println!(
        "{} units, {} files listed in each on average, {wrong} differ from gcc -M",
        units.len(),
        files_listed / units.len()
    );
    std::process::exit(i32::from(wrong > 0));
}

fn report(what: &str, cpu: Duration, units: usize) {
    println!(
        "{what}: {:.2} ms of CPU per scan",
        cpu.as_secs_f64() * 1e3 / units as f64
    );
}

/// CPU time of this process so far, its children's left out.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn command_files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below)
        .expect("a directory of the tree can be read")
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            command_files(&path, found);
        } else if name.starts_with('.') && name.ends_with(".o.cmd") {
            found.push(path);
        }
    }
}

/// Reads a unit's command; `None` for what is not a compile by the cross compiler.
fn unit(file: &Path) -> Option<(String, Unit)> {
    let text = fs::read(file).ok()?;
    let line = text.split(|b| *b == b'\n').next()?;
    let command = line
        .windows(4)
        .position(|four| four == b" := ")
        .map(|at| &line[at + 4..])?;
    let mut words = shell_words(command);
    let program = words.first()?.to_str()?.to_owned();
    let source = words.last()?.to_str()?.to_owned();
    if !program.ends_with("-gcc") || !(source.ends_with(".c") || source.ends_with(".S")) {
        return None;
    }
    words.remove(0);
    let command = gcc::parse(&words, &[], Driver::C);
    let unit = Unit {
        name: source,
        argv: words,
        command,
    };
    Some((program, unit))
}

/// Returns the compiler's list, from the last time if there was one.
fn list(compiler: &gcc::Compiler, kernel: &Path, unit: &Unit) -> Result<Vec<Vec<u8>>, String> {
    let kept = kernel.join(".rdcc-lists").join(unit.name.replace('/', "%"));
    if let Ok(kept) = fs::read(&kept) {
        return Ok(kept.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect());
    }
    let list = compiler.list(&unit.argv, &[], kernel)?;
    if fs::create_dir_all(kernel.join(".rdcc-lists")).is_ok() {
        fs::write(&kept, list.join(&b'\n')).map_err(|error| error.to_string())?;
    }
    Ok(list)
}

/// Splits a command line as a shell does, as far as quotes and backslashes go.
fn shell_words(line: &[u8]) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = 0;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\'' | b'"' if quote == 0 => {
                quote = byte;
                word.get_or_insert_default();
            }
            _ if quote != 0 && byte == quote => quote = 0,
            b'\\' if quote != b'\'' => word.get_or_insert_default().extend(bytes.next()),
            b' ' | b'\t' | b'\n' if quote == 0 => words.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words.into_iter().map(OsString::from_vec).collect()
}
