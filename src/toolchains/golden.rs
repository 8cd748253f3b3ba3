//! The golden set: small sources that every variant of a toolchain compiles, so that their objects can be compared.
//!
//! The sources need no header, are the same for every target, and stand in a directory that the compiler is told to call
//! `/golden`. [`compile`] makes the objects; how equal they have to be is [`super::certification`]'s. Invariant: a
//! [`Golden`] is within the bounds below.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::defaults::left_open;
use super::definition::Language;
use super::manifest::Manifest;

pub mod compile;

/// Most objects of one toolchain. The set has 22.
pub const OBJECTS_MAX: usize = 128;
/// Largest object, bytes. The largest one known, `-g3` for C++, has 20 KB.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;
/// Largest set, bytes.
pub const SET_BYTES_MAX: usize = 4 << 20;
/// Longest name of a unit, bytes.
const NAME_BYTES_MAX: usize = 200;

/// One source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Its file name.
    pub name: &'static str,
    /// Which driver compiles it. Assembler goes with C.
    pub language: Language,
    /// Its text.
    pub text: &'static str,
    /// The sets of flags that it is compiled with.
    pub flags: &'static [&'static str],
}

/// The sources, with their flags.
pub const SOURCES: [Source; 4] = [
    Source {
        name: "arithmetic.c",
        language: Language::C,
        text: include_str!("golden/arithmetic.c"),
        flags: &[
            "-O0",
            "-O1",
            "-O2",
            "-O3",
            "-Os",
            "-O2 -fPIC",
            "-O2 -g",
            "-O0 -g3",
            "-Os -ffunction-sections -fdata-sections",
        ],
    },
    Source {
        name: "floating.c",
        language: Language::C,
        text: include_str!("golden/floating.c"),
        flags: &["-O0", "-O2", "-O3 -ffast-math", "-Os -g", "-O2 -fPIC -g"],
    },
    Source {
        name: "objects.cc",
        language: Language::Cxx,
        text: include_str!("golden/objects.cc"),
        flags: &["-O0", "-O2", "-O3", "-Os", "-O2 -g", "-O2 -fPIC -g3"],
    },
    Source {
        name: "sections.S",
        language: Language::C,
        text: include_str!("golden/sections.S"),
        flags: &["-O0", "-g"],
    },
];

/// What the objects know the directory of the sources as.
pub const DIRECTORY: &str = "/golden";
/// The object of the unit in hand, in that directory.
pub const OBJECT: &str = "unit.o";
/// Variables that units are compiled with, besides `PATH`.
pub const ENVIRONMENT: [(&str, &str); 2] = [("LC_ALL", "C"), ("SOURCE_DATE_EPOCH", "0")];

impl Source {
    /// Returns the driver that compiles it. A toolchain with C++ only has assembler all the same.
    pub fn driver<'a>(&self, manifest: &'a Manifest) -> Option<&'a Path> {
        let of = |language| manifest.compilers().get(&language).map(PathBuf::as_path);
        match (of(self.language), self.name.ends_with(".S")) {
            (None, true) => of(Language::Cxx),
            (found, _) => found,
        }
    }

    /// Returns the words that compile it with one of its sets of flags, the toolchain's own among them.
    pub fn words(&self, manifest: &Manifest, flags: &str) -> Vec<OsString> {
        let fixed = ["-nostdinc", "-frandom-seed=golden", "-c", self.name, "-o", OBJECT];
        let own = manifest.flags().iter().map(String::as_str);
        let words = own.chain(flags.split_whitespace()).chain(fixed);
        let mut words: Vec<OsString> = words.map(OsString::from).collect();
        words.extend(left_open(manifest.defaults(), &words));
        words
    }

    /// Returns the unit's name in a [`Golden`].
    pub fn unit(&self, flags: &str) -> String {
        format!("{} {flags}", self.name)
    }
}

/// The objects of one toolchain, by unit: `arithmetic.c -O2 -g`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Golden(BTreeMap<String, Vec<u8>>);

/// A set that goes beyond a bound, or text that is no set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("golden objects: {0}")]
pub struct GoldenError(&'static str);

impl Golden {
    /// Adds an object.
    pub fn add(&mut self, unit: String, object: Vec<u8>) -> Result<(), GoldenError> {
        let bytes: usize = self.0.values().map(Vec::len).sum();
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        match () {
            () if self.0.len() >= OBJECTS_MAX => Err(GoldenError("too many")),
            () if object.len() > OBJECT_BYTES_MAX => Err(GoldenError("one is too large")),
            () if bytes + object.len() > SET_BYTES_MAX => Err(GoldenError("they are too large together")),
            () if unit.is_empty() || unit.len() > NAME_BYTES_MAX || !unit.chars().all(plain) => {
                Err(GoldenError("one has no proper name"))
            }
            () => {
                self.0.insert(unit, object);
                Ok(())
            }
        }
    }

    /// Returns the objects, sorted by unit.
    pub fn objects(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.0
    }

    /// Says whether there are none: the toolchain was pushed without.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the set as one file: a line `LENGTH UNIT` in front of each object.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (unit, object) in &self.0 {
            out.extend_from_slice(format!("{} {unit}\n", object.len()).as_bytes());
            out.extend_from_slice(object);
        }
        out
    }

    /// Reads what [`Golden::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, GoldenError> {
        let mut golden = Self::default();
        while !bytes.is_empty() {
            let line = bytes.iter().position(|b| *b == b'\n');
            let (head, rest) = bytes.split_at(line.ok_or(GoldenError("a line does not end"))?);
            let head = std::str::from_utf8(head).ok().and_then(|head| head.split_once(' '));
            let (length, unit) = head.ok_or(GoldenError("a line is none of ours"))?;
            let length: usize = length.parse().map_err(|_| GoldenError("a length is none"))?;
            let object = rest[1..].get(..length).ok_or(GoldenError("an object is cut off"))?;
            golden.add(unit.to_owned(), object.to_vec())?;
            bytes = &rest[1 + length..];
        }
        Ok(golden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_survive_the_disk() {
        let mut golden = Golden::default();
        golden.add("a.c -O2".into(), b"\x7fELF\n1 x\n".to_vec()).expect("small");
        golden.add("b.c".into(), Vec::new()).expect("small");
        assert_eq!(Golden::decode(&golden.encode()), Ok(golden.clone()));
        assert_eq!(Golden::decode(b""), Ok(Golden::default()));
        let whole = golden.encode();
        for end in 1..whole.len() {
            // Cut anywhere it is a shorter set or an error, and never the whole.
            assert_ne!(Golden::decode(&whole[..end]), Ok(golden.clone()));
        }
    }

    #[test]
    fn bounds_hold() {
        let mut golden = Golden::default();
        assert!(golden.add("a\nb".into(), Vec::new()).is_err());
        assert!(golden.add("a".into(), vec![0; OBJECT_BYTES_MAX + 1]).is_err());
        for number in 0..4 {
            golden
                .add(format!("{number}"), vec![0; OBJECT_BYTES_MAX])
                .expect("fits");
        }
        assert!(golden.add("more".into(), vec![0]).is_err());
        assert!(Golden::decode(b"99999999999999999999 x\n").is_err());
    }
}
