//! Golden objects of real compilers: equal for one compiler wherever it stands, unequal for another.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rdcc::toolchains::capture::{Surroundings, capture};
use rdcc::toolchains::certification::{Certification, Side, certify};
use rdcc::toolchains::definition::{Certify, Definition};
use rdcc::toolchains::golden::Golden;
use rdcc::toolchains::golden::compile::compile;
use rdcc::toolchains::manifest::Manifest;

use crate::support::copy_program;

/// A kind of host that stands for the board; nothing runs on one.
const BOARD: &str = "armv7-linux";
const PC: &str = "x86_64-linux";

fn definition(target: &str, compiler: &Path, certify: Certify) -> Definition {
    let text = format!(
        "name = \"board\"\ntarget = \"{target}\"\ncompilers = {{ c = \"{}\" }}\n[[variant]]\nhost = \"{BOARD}\"\n\
         [[variant]]\nhost = \"{PC}\"\ncertify = \"{}\"\n",
        compiler.display(),
        certify.as_str()
    );
    Definition::parse(&text).expect("a toolchain file")
}

/// Captures a compiler as one for `host`, and compiles the golden set with it.
fn golden(definition: &Definition, host: &str) -> (Manifest, Golden) {
    let path = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec();
    let surroundings = Surroundings {
        path,
        ..Surroundings::default()
    };
    let host = host.parse().expect("a kind of host");
    let captured = capture(definition, host, &surroundings, &mut |_, _| {}).expect("a compiler");
    let golden = compile(&captured.manifest, &surroundings).expect("golden objects");
    (captured.manifest, golden)
}

/// A copy of Debian's cross gcc under a prefix of its own: another toolchain by every path, the same compiler.
fn relocated(target: &str, prefix: &Path) -> Option<PathBuf> {
    let driver = fs::canonicalize(format!("/usr/bin/{target}-gcc")).ok()?;
    let (bin, lib) = (prefix.join("bin"), prefix.join("lib"));
    fs::create_dir_all(&bin).ok()?;
    fs::create_dir_all(&lib).ok()?;
    let copy = bin.join(format!("{target}-gcc"));
    copy_program(&driver, &copy);
    symlink("/usr/lib/gcc-cross", lib.join("gcc-cross")).ok()?;
    symlink(format!("/usr/{target}"), prefix.join(target)).ok()?;
    Some(copy)
}

fn certified(definition: &Definition, board: &(Manifest, Golden), pc: &Golden) -> Certification {
    let reference = Side {
        id: board.0.id(),
        golden: &board.1,
    };
    let variant = Side {
        id: board.0.id(),
        golden: pc,
    };
    certify(
        definition,
        PC.parse().expect("a kind of host"),
        variant,
        Some(reference),
    )
}

#[test]
fn one_compiler_in_two_places_makes_the_same_golden_objects() {
    let target = "arm-linux-gnueabi";
    let pc = PathBuf::from(format!("/usr/bin/{target}-gcc"));
    if !pc.exists() {
        println!("skipped: no {target}-gcc here");
        return;
    }
    let prefix = tempfile::tempdir().expect("a directory");
    let copy = relocated(target, prefix.path()).expect("a copy");
    let board_file = definition(target, &copy, Certify::Identical);
    let board = golden(&board_file, BOARD);
    let pc_file = definition(target, &pc, Certify::Identical);
    let (manifest, objects) = golden(&pc_file, PC);
    assert_ne!(manifest.id(), board.0.id(), "two toolchains");
    let said = certified(&pc_file, &board, &objects);
    assert!(
        matches!(
            said,
            Certification::Certified {
                level: Certify::Identical,
                objects: 16,
                ..
            }
        ),
        "{said}"
    );

    // Another package revision signs its objects otherwise, which the file has to allow.
    let mut signed = Golden::default();
    for (unit, object) in objects.objects() {
        let mut object = object.clone();
        let at = object.windows(5).position(|window| window == b"GCC: ");
        if let Some(at) = at {
            object[at + 5] ^= 1;
        }
        signed.add(unit.clone(), object).expect("as large as before");
    }
    let said = certified(&pc_file, &board, &signed);
    assert!(said.to_string().contains("same-code"), "{said}");
    let allowing = definition(target, &pc, Certify::SameCode);
    let said = certified(&allowing, &board, &signed);
    assert!(
        matches!(
            said,
            Certification::Certified {
                level: Certify::SameCode,
                ..
            }
        ),
        "{said}"
    );
}

#[test]
fn another_compiler_makes_other_golden_objects() {
    let (soft, native) = (Path::new("/usr/bin/arm-linux-gnueabi-gcc"), Path::new("/usr/bin/gcc"));
    if !soft.exists() || !native.exists() {
        println!(
            "skipped: not both of {} and {} are here",
            soft.display(),
            native.display()
        );
        return;
    }
    let board = golden(&definition("arm-linux-gnueabi", soft, Certify::Identical), BOARD);
    let machine = std::process::Command::new(native)
        .arg("-dumpmachine")
        .output()
        .expect("gcc runs");
    let machine = String::from_utf8_lossy(&machine.stdout).trim().to_owned();
    let pc_file = definition(&machine, native, Certify::SameCode);
    let (_, objects) = golden(&pc_file, PC);
    let said = certified(&pc_file, &board, &objects);
    assert!(matches!(said, Certification::Refused { .. }), "{said}");
}
