//! Whether a variant of a toolchain makes the objects that the reference variant makes.
//!
//! Compares golden objects and says how equal they are, against what the toolchain file asks for. Pure: the same sets
//! always give the same answer, so nothing that is kept can be out of date.

use std::fmt;
use std::path::Path;

use super::definition::{Certify, Definition};
use super::golden::Golden;
use super::host::Host;
use super::manifest::{Entry, Manifest};
use super::objects::{Agreement, compare};
use crate::ids::ToolchainId;

/// How a variant stands to the reference of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certification {
    /// The toolchain file has no variants: this is all there is.
    Alone,
    /// It is the reference.
    Reference,
    /// Its objects are as equal as the file asks for.
    Certified {
        /// The reference.
        reference: ToolchainId,
        /// How equal they are.
        level: Certify,
        /// How many were compared.
        objects: usize,
    },
    /// They are not.
    Refused {
        /// The reference.
        reference: ToolchainId,
        /// What differs first.
        why: String,
    },
    /// Nothing can be said.
    Unproven(&'static str),
}

/// One side of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The identity.
    pub id: ToolchainId,
    /// Its golden objects.
    pub golden: &'a Golden,
}

impl Certification {
    /// Returns the reference, and how equal its objects and those of `own` are.
    fn anchor(&self, own: ToolchainId) -> Option<(ToolchainId, Certify)> {
        match self {
            Self::Reference => Some((own, Certify::Identical)),
            Self::Certified { reference, level, .. } => Some((*reference, *level)),
            Self::Alone | Self::Refused { .. } | Self::Unproven(_) => None,
        }
    }
}

/// Says how equal the objects of two identities are, by how each stands to its reference; `None` when nothing certifies that.
pub fn level_between(one: (ToolchainId, &Certification), other: (ToolchainId, &Certification)) -> Option<Certify> {
    let (one, other) = (one.1.anchor(one.0)?, other.1.anchor(other.0)?);
    (one.0 == other.0).then_some(one.1.max(other.1))
}

/// Returns a file of `stand_in` that stands where `own` has its headers and is none of them: a job of `own` could find it.
///
/// Headers of a toolchain are below directories called `include` and `include-fixed`.
pub fn foreign_header<'a>(own: &Manifest, stand_in: &'a Manifest) -> Option<&'a Path> {
    let is_of_headers = |directory: &&Path| {
        let name = directory.file_name().unwrap_or_default();
        (name == "include" || name == "include-fixed") && own.entry(directory).is_some()
    };
    let foreign = stand_in.entries().iter().filter(|(path, entry)| {
        let below_headers = path.ancestors().skip(1).any(|directory| is_of_headers(&directory));
        !matches!(entry, Entry::Directory { .. }) && below_headers && own.entry(path) != Some(entry)
    });
    foreign.map(|(path, _)| path.as_path()).next()
}

/// Says how the variant for `host` stands, by the toolchain file it was pushed with. `reference` is the current identity of
/// the file's first variant, if there is one.
pub fn certify(definition: &Definition, host: Host, variant: Side<'_>, reference: Option<Side<'_>>) -> Certification {
    let Some(first) = definition.variants().first() else {
        return Certification::Alone;
    };
    if first.host == host {
        return Certification::Reference;
    }
    let Ok(asked) = definition.variant(host) else {
        return Certification::Unproven("the toolchain file has no variant for this kind of host");
    };
    let Some(reference) = reference else {
        return Certification::Unproven("the reference variant has not been pushed");
    };
    if variant.golden.is_empty() {
        return Certification::Unproven("it was pushed without golden objects; push it again");
    }
    if reference.golden.is_empty() {
        return Certification::Unproven("the reference was pushed without golden objects; push that again");
    }
    let reference_id = reference.id;
    match agreement(reference.golden, variant.golden) {
        Err(why) => Certification::Refused {
            reference: reference_id,
            why,
        },
        Ok(Certify::SameCode) if asked.certify == Certify::Identical => Certification::Refused {
            reference: reference_id,
            why: "`.comment` differs, and the toolchain file does not say `certify = \"same-code\"`".to_owned(),
        },
        Ok(level) => Certification::Certified {
            reference: reference_id,
            level,
            objects: variant.golden.objects().len(),
        },
    }
}

/// The weakest agreement of all objects, or what differs first.
fn agreement(reference: &Golden, variant: &Golden) -> Result<Certify, String> {
    let (ours, theirs) = (reference.objects(), variant.objects());
    let only = |one: &str, whose: &str| format!("unit `{one}` was compiled for the {whose} only");
    if let Some(unit) = ours.keys().find(|unit| !theirs.contains_key(*unit)) {
        return Err(only(unit, "reference"));
    }
    let mut level = Certify::Identical;
    for (unit, object) in theirs {
        let Some(expected) = ours.get(unit) else {
            return Err(only(unit, "variant"));
        };
        match compare(expected, object) {
            Agreement::Identical => {}
            Agreement::SameCode => level = Certify::SameCode,
            Agreement::Different(what) => return Err(format!("unit `{unit}`: {what} differs")),
        }
    }
    Ok(level)
}

impl fmt::Display for Certification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => f.write_str("the only kind"),
            Self::Reference => f.write_str("reference"),
            Self::Certified {
                reference,
                level,
                objects,
            } => {
                let (level, reference) = (level.as_str(), reference.0.short());
                write!(f, "certified {level}: {objects} objects as those of {reference}")
            }
            Self::Refused { reference, why } => write!(f, "NOT as {}: {why}", reference.0.short()),
            Self::Unproven(why) => write!(f, "unproven: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const FILE: &str = "name = \"t\"\ntarget = \"arm-linux-gnueabihf\"\ncompilers = { c = \"gcc\" }\n\
        [[variant]]\nhost = \"armv7-linux\"\n[[variant]]\nhost = \"x86_64-linux\"\n";

    fn set(objects: &[(&str, &[u8])]) -> Golden {
        let mut golden = Golden::default();
        for (unit, object) in objects {
            golden.add((*unit).to_owned(), object.to_vec()).expect("small");
        }
        golden
    }

    fn said(file: &str, host: &str, variant: &Golden, reference: Option<&Golden>) -> String {
        let definition = Definition::parse(file).expect("a toolchain file");
        let side = |name: &str, golden| Side {
            id: ToolchainId(Digest::of(name.as_bytes())),
            golden,
        };
        let host = host.parse().expect("a kind of host");
        let reference = reference.map(|golden| side("reference", golden));
        certify(&definition, host, side("variant", variant), reference).to_string()
    }

    #[test]
    fn a_variant_is_certified_only_by_equal_objects_of_equal_units() {
        let one = set(&[("a.c -O2", b"1"), ("b.c", b"2")]);
        let check = |variant: &Golden, reference: Option<&Golden>, expected: &str| {
            let said = said(FILE, "x86_64-linux", variant, reference);
            assert!(said.starts_with(expected), "{said}");
        };
        check(&one, Some(&one), "certified identical: 2 objects");
        check(&one, None, "unproven: the reference variant");
        check(&one, Some(&Golden::default()), "unproven: the reference was");
        check(&Golden::default(), Some(&one), "unproven: it was");
        let fewer = set(&[("b.c", b"2")]);
        for (variant, reference) in [(&fewer, &one), (&one, &fewer)] {
            let said = said(FILE, "x86_64-linux", variant, Some(reference));
            assert!(said.starts_with("NOT as") && said.contains("`a.c -O2`"), "{said}");
        }
        let other = set(&[("a.c -O2", b"1"), ("b.c", b"3")]);
        let said_other = said(FILE, "x86_64-linux", &other, Some(&one));
        assert!(said_other.contains("unit `b.c`"), "{said_other}");
        assert_eq!(said(FILE, "armv7-linux", &one, None), "reference");
        let plain = "name = \"t\"\ntarget = \"x\"\ncompilers = { c = \"gcc\" }\n";
        assert_eq!(said(plain, "armv7-linux", &one, None), "the only kind");
    }

    #[test]
    fn two_identities_are_connected_by_one_reference() {
        let id = |name: &str| ToolchainId(Digest::of(name.as_bytes()));
        let certified = |level| Certification::Certified {
            reference: id("reference"),
            level,
            objects: 1,
        };
        let reference = (id("reference"), &Certification::Reference);
        let (same, signed) = (certified(Certify::Identical), certified(Certify::SameCode));
        let refused = Certification::Refused {
            reference: id("reference"),
            why: String::new(),
        };
        let a = |certification| (id("a"), certification);
        let b = |certification| (id("b"), certification);
        let rows = [
            (reference, a(&same), Some(Certify::Identical)),
            (a(&signed), reference, Some(Certify::SameCode)),
            (a(&same), b(&same), Some(Certify::Identical)),
            (a(&same), b(&signed), Some(Certify::SameCode)),
            (reference, a(&refused), None),
            (reference, a(&Certification::Unproven("x")), None),
            (reference, a(&Certification::Alone), None),
            (reference, b(&Certification::Reference), None),
            (b(&Certification::Reference), a(&same), None),
        ];
        for (one, other, expected) in rows {
            assert_eq!(level_between(one, other), expected, "{one:?} {other:?}");
            assert_eq!(level_between(other, one), expected);
        }
    }

    #[test]
    fn headers_in_the_way_of_the_others_are_found() {
        use crate::toolchains::manifest::tests::{directory, file, sample_parts};
        let with = |entries: &[(&str, Entry)]| {
            let mut parts = sample_parts();
            parts.entries.extend(
                entries
                    .iter()
                    .map(|(path, entry)| (Path::new(path).to_path_buf(), entry.clone())),
            );
            parts
                .entries
                .sort_by(|(one, _), (other, _)| one.as_os_str().cmp(other.as_os_str()));
            Manifest::new(parts).expect("a manifest")
        };
        let header = |text: &[u8]| file(0o644, text);
        let own = with(&[
            ("/usr/lib/gcc/include", directory()),
            ("/usr/lib/gcc/include/a.h", header(b"1")),
        ]);
        let same = with(&[
            ("/usr/lib/gcc/include", directory()),
            ("/usr/lib/gcc/include/a.h", header(b"1")),
            ("/usr/lib/gcc/cc1", file(0o755, b"another program")),
        ]);
        assert_eq!(foreign_header(&own, &same), None);
        let more = with(&[
            ("/usr/lib/gcc/include", directory()),
            ("/usr/lib/gcc/include/sub", directory()),
            ("/usr/lib/gcc/include/sub/b.h", header(b"2")),
        ]);
        let found = foreign_header(&own, &more);
        assert_eq!(found, Some(Path::new("/usr/lib/gcc/include/sub/b.h")));
        let other = with(&[
            ("/usr/lib/gcc/include", directory()),
            ("/usr/lib/gcc/include/a.h", header(b"2")),
        ]);
        assert!(foreign_header(&own, &other).is_some());
        // Where the client has no headers of its toolchain's, those of the variant are in nobody's way.
        let elsewhere = with(&[("/usr/include", directory()), ("/usr/include/a.h", header(b"2"))]);
        assert_eq!(foreign_header(&own, &elsewhere), None);
    }
}
