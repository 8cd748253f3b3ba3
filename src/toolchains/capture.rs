//! From a toolchain file to the manifest of the compiler that is installed here.
//!
//! Asks the compiler what it consists of, follows wrappers and links, adds loaders and libraries, and reads everything
//! once. Taken: what compiling needs. Left out: what only linking needs (start files, archives, target libraries),
//! headers other than the compiler's own (they travel with the jobs that include them), message catalogues and
//! manuals. Decides nothing about who may use the result.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::store::stamp::Stamp;
use crate::toolchains::definition::{Command, Definition, Language, NoVariant, Variant, same_target};
use crate::toolchains::elf::ElfError;
use crate::toolchains::host::Host;
use crate::toolchains::manifest::{Manifest, ManifestError, Parts};

mod driver;
mod libraries;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod wrapper;

pub use driver::{NotFound, find, is_launcher};

use driver::Driver;
use libraries::Libraries;
use tree::Tree;

/// Programs that gcc starts. `objcopy` is for `-gsplit-dwarf`. The link-time ones are taken along although links run
/// locally: gcc sets up their names for every compile, and partial links may become jobs.
const PROGRAMS: &[&str] = &[
    "as",
    "cc1",
    "cc1plus",
    "collect2",
    "ld",
    "lto-wrapper",
    "lto1",
    "objcopy",
];
/// How many wrappers may stand in front of one another.
const WRAPPERS_MAX: usize = 8;
/// A script longer than this is not a compiler wrapper.
const SCRIPT_BYTES_MAX: u64 = 256 << 10;

/// What capture has to know about the process that it runs in.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Directories of `PATH`, in order.
    pub path: Vec<PathBuf>,
    /// The running rdcc, which is never taken for a compiler.
    pub own_program: Option<PathBuf>,
    /// The environment; only what the toolchain file names is handed to the compiler.
    pub environment: Vec<(OsString, OsString)>,
}

/// A manifest together with what it takes to notice a change cheaply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The files.
    pub manifest: Manifest,
    /// Stamps of every file and link, and of the directories in which a new file would change the manifest.
    pub stamps: Vec<(PathBuf, Stamp)>,
    /// Programs that gcc leaves to `PATH` (Debian's native gcc does so with `as`), as they were found. With another
    /// `PATH` the local compiler might start another one.
    pub by_path: Vec<(String, PathBuf)>,
}

/// Why a toolchain cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The toolchain file says nothing about this kind of machine.
    #[error(transparent)]
    NoVariant(#[from] NoVariant),
    /// No such compiler here.
    #[error("compiler `{command}` for {language} not found; {}", describe(.not_found))]
    CompilerNotFound {
        /// The language.
        language: Language,
        /// As the toolchain file names it.
        command: Command,
        /// Where it was looked for.
        not_found: NotFound,
    },
    /// It does not answer as gcc does.
    #[error("`{}` is not gcc, or a wrapper around it that hides it: it does not say what it was called by (`-v`)", .compiler.display())]
    NotGcc {
        /// The compiler.
        compiler: PathBuf,
    },
    /// It makes code for another machine.
    #[error("`{}` makes code for `{found}`, but the toolchain file says target `{expected}`", .compiler.display())]
    WrongTarget {
        /// The compiler.
        compiler: PathBuf,
        /// From the toolchain file.
        expected: String,
        /// From `-dumpmachine`.
        found: String,
    },
    /// It failed when asked about itself.
    #[error("`{} {question}` failed: {said}", .compiler.display())]
    Refused {
        /// The compiler.
        compiler: PathBuf,
        /// The option.
        question: String,
        /// First line of its stderr.
        said: String,
    },
    /// A part without which it cannot compile.
    #[error("`{}` has no `{program}`: is the compiler for {language} installed whole?", .compiler.display())]
    MissingProgram {
        /// The driver.
        compiler: PathBuf,
        /// The part.
        program: &'static str,
        /// The language that needs it.
        language: Language,
    },
    /// A dynamic loader that does not exist.
    #[error("`{}` needs the loader `{}`, which is missing; install it, or add the place where it is to `include`", .file.display(), .loader.display())]
    MissingLoader {
        /// The program.
        file: PathBuf,
        /// Its `PT_INTERP`.
        loader: PathBuf,
    },
    /// A library that does not exist.
    #[error("`{}` needs the library `{}`, found in none of {}; install it, or add its directory to /etc/ld.so.conf", .file.display(), .library.display(), list(.looked))]
    MissingLibrary {
        /// The program or library that needs it.
        file: PathBuf,
        /// The name it asks for.
        library: OsString,
        /// The directories looked into.
        looked: Vec<PathBuf>,
    },
    /// A wrapper whose compiler could not be found out.
    #[error("`{}` is a wrapper, and {problem}; name the real compiler in `compilers`, or add what the wrapper executes to `include`", .script.display())]
    Wrapper {
        /// The wrapper.
        script: PathBuf,
        /// What is unclear.
        problem: String,
    },
    /// Neither file, directory nor link.
    #[error("`{}` is a device, socket or pipe and cannot be part of a toolchain", .path.display())]
    Special {
        /// The path.
        path: PathBuf,
    },
    /// Changed under our hands.
    #[error("`{}` changed while it was read; try again when the toolchain is at rest", .path.display())]
    Changed {
        /// The path.
        path: PathBuf,
    },
    /// A damaged program.
    #[error("`{}`", .path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ElfError,
    },
    /// The disk.
    #[error("cannot {doing} `{}`", .path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The result is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl CaptureError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Captures the compilers that `definition` names for `host`.
///
/// Blocks: starts the compiler some thirty times and reads every file once (100 to 150 MB for a gcc). `progress` is
/// told how many bytes of how many have been read.
pub fn capture(
    definition: &Definition,
    host: Host,
    surroundings: &Surroundings,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Captured, CaptureError> {
    let variant = definition.variant(host)?;
    let mut surroundings = surroundings.clone();
    surroundings.environment.retain(|(name, _)| {
        let named = |wanted: &String| name.as_bytes() == wanted.as_bytes();
        definition.environment.iter().any(named)
    });
    let mut gathering = Gathering {
        definition,
        variant: &variant,
        surroundings: &surroundings,
        tree: Tree::default(),
        by_path: Vec::new(),
    };
    let mut compilers = std::collections::BTreeMap::new();
    for (language, command) in &variant.compilers {
        let path = find(command, &variant.path, &surroundings).map_err(|not_found| CaptureError::CompilerNotFound {
            language: *language,
            command: command.clone(),
            not_found,
        })?;
        gathering.add_compiler(*language, &path)?;
        compilers.insert(*language, path);
    }
    let machines = libraries::machines(&gathering.tree)?;
    for path in &variant.include {
        gathering.tree.add_all(path)?;
    }
    let Gathering {
        mut tree, mut by_path, ..
    } = gathering;
    add_merged_usr(&mut tree)?;
    let library_path = Libraries::new(&mut tree, machines).close()?;
    for directory in &library_path {
        tree.add(directory)?;
    }
    let gathered = tree.finish(progress)?;
    by_path.sort();
    by_path.dedup();
    Ok(Captured {
        manifest: Manifest::new(Parts {
            host,
            target: definition.target.clone(),
            compilers,
            flags: definition.flags.clone(),
            defaults: variant.defaults.clone(),
            library_path,
            entries: gathered.entries,
        })?,
        stamps: gathered.stamps,
        by_path,
    })
}

/// Adds the links of a merged `/usr`, so that `/bin/gcc` is the compiler where `/usr/bin/gcc` is.
fn add_merged_usr(tree: &mut Tree) -> Result<(), CaptureError> {
    for (link, target) in [("/bin", "/usr/bin"), ("/lib", "/usr/lib")] {
        let leads_there = fs::canonicalize(link).is_ok_and(|real| real == Path::new(target));
        if leads_there && tree.contains(Path::new(target)) {
            tree.add(Path::new(link))?;
        }
    }
    Ok(())
}

struct Gathering<'a> {
    definition: &'a Definition,
    variant: &'a Variant,
    surroundings: &'a Surroundings,
    tree: Tree,
    by_path: Vec<(String, PathBuf)>,
}

impl Gathering<'_> {
    fn add_compiler(&mut self, language: Language, path: &Path) -> Result<(), CaptureError> {
        let driver = Driver {
            path,
            flags: &self.definition.flags,
            surroundings: self.surroundings,
        };
        let real = self.tree.add(path)?;
        let followed = self.follow(path, &real, WRAPPERS_MAX)?;
        let behind = driver.behind_wrappers()?.ok_or_else(|| match followed {
            true => CaptureError::Wrapper {
                script: real.clone(),
                problem: "what it executes does not answer as gcc does".to_owned(),
            },
            false => CaptureError::NotGcc {
                compiler: path.to_owned(),
            },
        })?;
        self.add_behind(path, &real, &behind)?;
        let found = driver.target()?;
        if !same_target(&found, &self.variant.target) {
            return Err(CaptureError::WrongTarget {
                compiler: path.to_owned(),
                expected: self.variant.target.clone(),
                found,
            });
        }
        self.add_programs(language, &driver)?;
        self.add_own_files(&driver)
    }

    /// Adds what the wrapper at `called` starts, if it is one of the kinds that can be read. Tells whether it was.
    fn follow(&mut self, called: &Path, real: &Path, depth: usize) -> Result<bool, CaptureError> {
        let unclear = |problem: String| CaptureError::Wrapper {
            script: real.to_owned(),
            problem,
        };
        if depth == 0 {
            return Err(unclear(format!("more than {WRAPPERS_MAX} wrappers stand in a row")));
        }
        if let Some(target) = wrapper::buildroot_target(called, real).filter(|target| target.exists()) {
            let target_real = self.tree.add(&target)?;
            self.follow(&target, &target_real, depth - 1)?;
            return Ok(true);
        }
        let io = |error| CaptureError::io("read", real, error);
        if fs::metadata(real).map_err(io)?.len() > SCRIPT_BYTES_MAX {
            return Ok(false);
        }
        let script = match wrapper::read_script(&fs::read(real).map_err(io)?, called, real) {
            None => return Ok(false),
            Some(Err(wrapper::Unreadable::Interpreter(name))) => {
                return Err(unclear(format!("scripts for `{name}` cannot be followed")));
            }
            Some(Ok(script)) => script,
        };
        let missing = |command: &Command| unclear(format!("what it executes, `{command}`, is not to be found"));
        for command in script.interpreters.iter().chain(&script.targets) {
            let found = find(command, &[], self.surroundings).map_err(|_| missing(command))?;
            let found_real = self.tree.add(&found)?;
            if let Command::Named(name) = command {
                self.by_path.push((name.clone(), found.clone()));
            }
            if script.targets.contains(command) && found_real != real {
                self.follow(&found, &found_real, depth - 1)?;
            }
        }
        for tool in script.tools {
            if let Ok(found) = find(&Command::Named(tool.to_owned()), &[], self.surroundings) {
                self.tree.add(&found)?;
                self.by_path.push((tool.to_owned(), found));
            }
        }
        Ok(true)
    }

    /// Adds the compiler that answered in the end, `behind` being what it was called by.
    fn add_behind(&mut self, path: &Path, real: &Path, behind: &OsString) -> Result<(), CaptureError> {
        let behind_path = PathBuf::from(behind);
        if behind_path.is_absolute() {
            self.tree.add(&behind_path)?;
            return Ok(());
        }
        let command = Command::Named(behind.to_string_lossy().into_owned());
        match find(&command, &[], self.surroundings) {
            // Asked by its full path, so a bare name comes from a wrapper that leaves the choice to `PATH`.
            Ok(found) if !behind.as_bytes().contains(&b'/') && found != path => {
                self.tree.add(&found)?;
                self.by_path.push((command.to_string(), found));
                Ok(())
            }
            _ => Err(CaptureError::Wrapper {
                script: real.to_owned(),
                problem: format!("what it executes, `{command}`, is not to be found"),
            }),
        }
    }

    fn add_programs(&mut self, language: Language, driver: &Driver<'_>) -> Result<(), CaptureError> {
        let own_compiler = match language {
            Language::C => "cc1",
            Language::Cxx => "cc1plus",
        };
        for name in PROGRAMS {
            match driver.program(name)? {
                Some(program) => {
                    self.tree.add(&program.path)?;
                    if program.by_path {
                        self.by_path.push(((*name).to_owned(), program.path));
                    }
                }
                None if *name == own_compiler || *name == "as" => {
                    return Err(CaptureError::MissingProgram {
                        compiler: driver.path.to_owned(),
                        program: name,
                        language,
                    });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Adds the compiler's own headers, its plugins and its specs.
    fn add_own_files(&mut self, driver: &Driver<'_>) -> Result<(), CaptureError> {
        for name in ["include", "include-fixed"] {
            if let Some(directory) = driver.file(name)? {
                self.tree.add_all(&directory)?;
            }
        }
        if let Some(plugin) = driver.file("liblto_plugin.so")? {
            self.tree.add(&plugin)?;
        }
        if let Some(directory) = driver.file("plugin")? {
            // Beside the plugins stand the headers for making some, 10 MB that no compile reads.
            self.add_some(&directory, |name| memchr::memmem::find(name, b".so").is_some())?;
        }
        // newlib has its specs beside its libraries (`--specs=nano.specs`), gcc its own beside libgcc.
        for name in ["specs", "libgcc.a", "include", "nano.specs"] {
            if let Some(directory) = driver.file(name)?.as_deref().and_then(Path::parent) {
                self.add_some(directory, |name| name.ends_with(b"specs") || name.ends_with(b".spec"))?;
            }
        }
        Ok(())
    }

    /// Adds the files in a directory whose names `wanted` likes.
    fn add_some(&mut self, directory: &Path, wanted: fn(&[u8]) -> bool) -> Result<(), CaptureError> {
        let directory = self.tree.add(directory)?;
        for path in self.tree.list(&directory)? {
            if wanted(path.file_name().unwrap_or_default().as_bytes()) && path.is_file() {
                self.tree.add(&path)?;
            }
        }
        Ok(())
    }
}

fn describe(not_found: &NotFound) -> String {
    let mut text = match not_found.looked.is_empty() {
        true => "PATH is empty".to_owned(),
        false => format!("looked at {}", list(&not_found.looked)),
    };
    if !not_found.launchers.is_empty() {
        let launchers = list(&not_found.launchers);
        let _ = write!(text, "; passed over {launchers}, which only start another compiler");
    }
    text
}

fn list(paths: &[PathBuf]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    quoted.join(", ")
}
