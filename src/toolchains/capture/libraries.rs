//! Which files the dynamic loader would load for the programs of a toolchain: the closure of `NEEDED`.
//!
//! Follows the loader's own rules (RPATH, RUNPATH, `ld.so.conf`, built-in directories) without running it. Variants of
//! a library for particular processors (glibc-hwcaps) are never chosen, since the toolchain runs on other machines too.
//! A library that only `ld.so.conf` leads to is remembered by its directory, because a root made from the manifest has
//! no `ld.so.cache`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::CaptureError;
use super::tree::Tree;
use crate::toolchains::elf::{Elf, Machine};

/// How deep `include` lines of `ld.so.conf` may nest; in practice it is one.
const CONF_DEPTH_MAX: usize = 8;

/// One file whose libraries are to be found.
struct Object {
    /// As the loader came to it: this is what `$ORIGIN` means.
    called: PathBuf,
    elf: Elf,
    loader: PathBuf,
    /// RPATH of those that needed it, which it inherits.
    inherited: Vec<PathBuf>,
}

/// Directories that a loader looks into by itself.
#[derive(Debug, Clone, Default)]
struct Loader {
    /// Directories compiled into it.
    built_in: Vec<PathBuf>,
    /// musl: reads no `ld.so.conf`, and is itself libc, libm, ….
    is_musl: bool,
}

/// Gathers loaders and libraries for everything in a [`Tree`].
pub(super) struct Libraries<'a> {
    tree: &'a mut Tree,
    /// What the compiler's own programs are made for. Others (an included system root is full of the target's) are files
    /// like any other: nothing here starts them.
    machines: Vec<Machine>,
    configured: Vec<PathBuf>,
    loaders: BTreeMap<PathBuf, Loader>,
    library_path: BTreeSet<PathBuf>,
}

impl<'a> Libraries<'a> {
    pub(super) fn new(tree: &'a mut Tree, machines: Vec<Machine>) -> Self {
        let mut configured = Vec::new();
        read_conf(Path::new("/etc/ld.so.conf"), CONF_DEPTH_MAX, &mut configured);
        Self {
            tree,
            machines,
            configured,
            loaders: BTreeMap::new(),
            library_path: BTreeSet::new(),
        }
    }

    /// Adds the loader and the libraries of every program and library in the tree. Returns the directories that the
    /// loader would not look into without `ld.so.cache`.
    pub(super) fn close(mut self) -> Result<Vec<PathBuf>, CaptureError> {
        let mut queue = VecDeque::new();
        let mut libraries = Vec::new();
        let mut usual: Vec<(Machine, PathBuf)> = Vec::new();
        for path in self.tree.files() {
            // The compiler's own programs have been read before; a damaged file elsewhere is a file like any other.
            let elf = read_elf(&path).ok().flatten();
            let Some(elf) = elf.filter(|elf| self.machines.contains(&elf.machine)) else {
                continue;
            };
            let Some(interpreter) = elf.interpreter.clone() else {
                libraries.push((path, elf));
                continue;
            };
            let loader = PathBuf::from(interpreter);
            self.add_loader(&path, &loader)?;
            usual.push((elf.machine, loader.clone()));
            queue.push_back(Object {
                called: path,
                elf,
                loader,
                inherited: Vec::new(),
            });
        }
        for (path, elf) in libraries {
            // A plugin is loaded by a program of its own kind. If there is none, nothing here can load it.
            if let Some((_, loader)) = usual.iter().find(|(machine, _)| *machine == elf.machine) {
                queue.push_back(Object {
                    called: path,
                    elf,
                    loader: loader.clone(),
                    inherited: Vec::new(),
                });
            }
        }
        let mut seen = BTreeSet::new();
        while let Some(object) = queue.pop_front() {
            self.add_needed(&object, &mut seen, &mut queue)?;
        }
        Ok(self.library_path.into_iter().collect())
    }

    fn add_loader(&mut self, needed_by: &Path, path: &Path) -> Result<(), CaptureError> {
        if self.loaders.contains_key(path) {
            return Ok(());
        }
        let content = fs::read(path).map_err(|_| CaptureError::MissingLoader {
            file: needed_by.to_owned(),
            loader: path.to_owned(),
        })?;
        self.tree.add(path)?;
        let loader = match musl_architecture(path) {
            None => Loader {
                built_in: built_in_directories(&content),
                is_musl: false,
            },
            Some(architecture) => {
                let conf = PathBuf::from(format!("/etc/ld-musl-{architecture}.path"));
                let built_in = match fs::read_to_string(&conf) {
                    Ok(text) => {
                        self.tree.add(&conf)?;
                        text.split([':', '\n'])
                            .filter(|dir| !dir.is_empty())
                            .map(PathBuf::from)
                            .collect()
                    }
                    Err(_) => ["/lib", "/usr/local/lib", "/usr/lib"].map(PathBuf::from).to_vec(),
                };
                Loader {
                    built_in,
                    is_musl: true,
                }
            }
        };
        self.loaders.insert(path.to_owned(), loader);
        Ok(())
    }

    fn add_needed(
        &mut self,
        object: &Object,
        seen: &mut BTreeSet<PathBuf>,
        queue: &mut VecDeque<Object>,
    ) -> Result<(), CaptureError> {
        let loader = self.loaders.get(&object.loader).cloned().unwrap_or_default();
        let own_rpath = directories(object.elf.rpath.as_deref(), &object.called);
        let runpath = directories(object.elf.runpath.as_deref(), &object.called);
        // RUNPATH switches RPATH off, for this object; what it loads still inherits the rest of the chain.
        let mut rpath = object.inherited.clone();
        if object.elf.runpath.is_none() {
            rpath.splice(0..0, own_rpath);
        }
        for name in &object.elf.needed {
            if loader.is_musl && is_part_of_musl(name) || Path::new(name).file_name() == object.loader.file_name() {
                continue;
            }
            let own = match object.elf.runpath {
                Some(_) => &runpath,
                None => &rpath,
            };
            let (path, elf) = self.find(name, object, own, &loader)?;
            let real = self.tree.add(&path)?;
            if seen.insert(real) {
                queue.push_back(Object {
                    called: path,
                    elf,
                    loader: object.loader.clone(),
                    inherited: rpath.clone(),
                });
            }
        }
        Ok(())
    }

    /// Finds the file that `name` means to `object`.
    fn find(
        &mut self,
        name: &OsStr,
        object: &Object,
        own: &[PathBuf],
        loader: &Loader,
    ) -> Result<(PathBuf, Elf), CaptureError> {
        let fits = |path: &Path| {
            let elf = read_elf(path).ok().flatten()?;
            (elf.machine == object.elf.machine).then_some(elf)
        };
        let missing = |looked: Vec<PathBuf>| CaptureError::MissingLibrary {
            file: object.called.clone(),
            library: name.to_owned(),
            looked,
        };
        if name.as_bytes().contains(&b'/') {
            let path = PathBuf::from(name);
            return match path.is_absolute().then(|| fits(&path)).flatten() {
                Some(elf) => Ok((path, elf)),
                None => Err(missing(vec![path])),
            };
        }
        let configured = match loader.is_musl {
            true => &[][..],
            false => &self.configured,
        };
        let mut looked = Vec::new();
        for (directories, from_conf) in [(own, false), (configured, true), (&loader.built_in[..], false)] {
            for directory in directories {
                let path = directory.join(name);
                if let Some(elf) = fits(&path) {
                    if from_conf && !loader.built_in.contains(directory) {
                        self.library_path.insert(directory.clone());
                    }
                    return Ok((path, elf));
                }
                looked.push(directory.clone());
            }
        }
        Err(missing(looked))
    }
}

/// Returns what the programs and libraries in a tree are made for.
pub(super) fn machines(tree: &Tree) -> Result<Vec<Machine>, CaptureError> {
    let mut found = Vec::new();
    for path in tree.files() {
        if let Some(elf) = read_elf(&path)?
            && !found.contains(&elf.machine)
        {
            found.push(elf.machine);
        }
    }
    Ok(found)
}

fn read_elf(path: &Path) -> Result<Option<Elf>, CaptureError> {
    let file = File::open(path).map_err(|error| CaptureError::io("read", path, error))?;
    Elf::read(&file).map_err(|source| CaptureError::Elf {
        path: path.to_owned(),
        source,
    })
}

/// Splits a search path, with `$ORIGIN` as the directory of `called`. Parts that depend on the processor are left out.
fn directories(list: Option<&OsStr>, called: &Path) -> Vec<PathBuf> {
    let origin = called.parent().unwrap_or(Path::new("/")).as_os_str().as_bytes();
    let mut found = Vec::new();
    for part in list.unwrap_or_default().as_bytes().split(|byte| *byte == b':') {
        let part = replaced(&replaced(part, b"${ORIGIN}", origin), b"$ORIGIN", origin);
        for lib in [&b"lib"[..], b"lib64"] {
            let part = replaced(&replaced(&part, b"${LIB}", lib), b"$LIB", lib);
            let directory = PathBuf::from(OsStr::from_bytes(&part));
            if directory.is_absolute() && !part.contains(&b'$') && !found.contains(&directory) {
                found.push(directory);
            }
        }
    }
    found
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Finds the list of directories compiled into a glibc loader: absolute paths that end in a slash, one after the other,
/// each ended by a zero byte. Distributions differ in this list, and it is what counts inside a root.
fn built_in_directories(loader: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for text in loader.split(|byte| *byte == 0) {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_-.+".contains(byte);
        let is_directory = text.len() > 2
            && text.starts_with(b"/")
            && text.ends_with(b"/")
            && memchr::memmem::find(text, b"lib").is_some()
            && text.iter().all(plain);
        if is_directory {
            let directory = PathBuf::from(OsStr::from_bytes(&text[..text.len() - 1]));
            if !found.contains(&directory) {
                found.push(directory);
            }
        } else if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() {
        found = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from).to_vec();
    }
    found
}

fn musl_architecture(loader: &Path) -> Option<String> {
    let name = loader.file_name()?.to_str()?;
    name.strip_prefix("ld-musl-")?.strip_suffix(".so.1").map(str::to_owned)
}

/// musl answers for these names itself, whatever files of that name exist.
fn is_part_of_musl(name: &OsStr) -> bool {
    ["libc", "libpthread", "librt", "libm", "libdl", "libutil", "libxnet"]
        .iter()
        .any(|part| name.as_bytes().starts_with(format!("{part}.").as_bytes()))
}

/// Reads `ld.so.conf` and what it includes. Files that cannot be read are passed over, as ldconfig does.
fn read_conf(path: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(text) = fs::read(path) else {
        return;
    };
    let text = String::from_utf8_lossy(&text);
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split([' ', '\t', ':', ',']).filter(|word| !word.is_empty());
        match words.next() {
            Some("include") if depth > 0 => {
                for pattern in words {
                    let pattern = path.parent().unwrap_or(Path::new("/")).join(pattern);
                    for included in matching(&pattern) {
                        read_conf(&included, depth - 1, found);
                    }
                }
            }
            Some("include" | "hwcap") | None => {}
            Some(first) => {
                for word in std::iter::once(first).chain(words) {
                    let directory = word.split('=').next().unwrap_or_default().trim_end_matches('/');
                    let directory = PathBuf::from(directory);
                    if directory.is_absolute() && !found.contains(&directory) {
                        found.push(directory);
                    }
                }
            }
        }
    }
}

/// Lists the files that match a pattern with `*` in its last part, sorted.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap_or_default().as_bytes();
    let Some(star) = name.iter().position(|byte| *byte == b'*') else {
        return vec![pattern.to_owned()];
    };
    let (start, end) = (&name[..star], &name[star + 1..]);
    let directory = pattern.parent().unwrap_or(Path::new("/"));
    let fits = |name: &OsString| {
        let name = name.as_bytes();
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
    };
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<OsString> = names.map(|entry| entry.file_name()).filter(fits).collect();
    names.sort();
    names.iter().map(|name| directory.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_paths_expand_their_origin() {
        let cases: &[(&str, &[&str])] = &[
            ("$ORIGIN/../lib", &["/opt/bin/../lib"]),
            ("${ORIGIN}:/x", &["/opt/bin", "/x"]),
            ("/opt/$LIB", &["/opt/lib", "/opt/lib64"]),
            ("/opt/$PLATFORM::rel", &[]),
        ];
        for (list, expected) in cases {
            let found = directories(Some(OsStr::new(list)), Path::new("/opt/bin/cc1"));
            assert_eq!(found, expected.map_paths(), "{list}");
        }
        assert!(directories(None, Path::new("/x")).is_empty());
    }

    trait MapPaths {
        fn map_paths(&self) -> Vec<PathBuf>;
    }

    impl MapPaths for &[&str] {
        fn map_paths(&self) -> Vec<PathBuf> {
            self.iter().map(PathBuf::from).collect()
        }
    }

    #[test]
    fn loader_tells_its_directories() {
        let debian = b"\x01ELF\0/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0x\0/lib/no/\0";
        let expected = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"];
        assert_eq!(built_in_directories(debian), (&expected[..]).map_paths());
        let unknown = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];
        assert_eq!(built_in_directories(b"nothing"), (&unknown[..]).map_paths());
    }

    #[test]
    fn configuration_is_read_with_its_includes() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("ld.so.conf");
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(
            &conf,
            "include d/*.conf\n/a /b:/c/ # note\nhwcap 1 x\n/a=libc6\ninclude absent\n",
        )
        .unwrap();
        fs::write(dir.path().join("d/2.conf"), "/second\n").unwrap();
        fs::write(dir.path().join("d/1.conf"), "/first\n").unwrap();
        fs::write(dir.path().join("d/3.no"), "/no\n").unwrap();
        let mut found = Vec::new();
        read_conf(&conf, CONF_DEPTH_MAX, &mut found);
        let expected = ["/first", "/second", "/a", "/b", "/c"];
        assert_eq!(found, (&expected[..]).map_paths());
    }

    #[test]
    fn musl_names_its_architecture() {
        let musl = |path: &str| musl_architecture(Path::new(path));
        assert_eq!(musl("/lib/ld-musl-armhf.so.1").as_deref(), Some("armhf"));
        assert_eq!(musl("/lib/ld-linux-armhf.so.3"), None);
        assert!(is_part_of_musl(OsStr::new("libc.so")) && !is_part_of_musl(OsStr::new("libcrypt.so.1")));
    }
}
