//! How equal two object files are: every byte, or all but the name that the compiler signs with.
//!
//! A small reader of relocatable ELF, of either class and byte order. Invariants: what it does not understand is
//! different, never equal; no bytes make it panic; its work is linear in the sections' length.

use std::fmt;

/// How equal two objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agreement {
    /// Every byte is.
    Identical,
    /// All but the content of `.comment`, and the offsets that move with its length.
    SameCode,
    /// Neither; the text says what differs first.
    Different(Difference),
}

/// What differs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// One of them is no relocatable ELF file that this reader understands.
    Unreadable(&'static str),
    /// The header, which has the number of sections.
    Header,
    /// A section, by the reference's name for it.
    Section(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "an object that cannot be compared: {why}"),
            Self::Header => f.write_str("the ELF header"),
            Self::Section(name) => write!(f, "section `{name}`"),
        }
    }
}

/// Compares an object with the reference's.
pub fn compare(reference: &[u8], other: &[u8]) -> Agreement {
    if reference == other {
        return Agreement::Identical;
    }
    match first_difference(reference, other) {
        Ok(None) => Agreement::SameCode,
        Ok(Some(difference)) => Agreement::Different(difference),
        Err(why) => Agreement::Different(Difference::Unreadable(why)),
    }
}

fn first_difference(reference: &[u8], other: &[u8]) -> Result<Option<Difference>, &'static str> {
    let (one, two) = (Object::read(reference)?, Object::read(other)?);
    if one.header != two.header {
        return Ok(Some(Difference::Header));
    }
    let differs = |(one, two): &(&Section<'_>, &Section<'_>)| {
        let same_rest = (one.name, &one.fields) == (two.name, &two.fields);
        !same_rest || (one.name != b".comment" && one.content != two.content)
    };
    let found = one.sections.iter().zip(&two.sections).find(differs);
    Ok(found.map(|(one, _)| Difference::Section(String::from_utf8_lossy(one.name).into_owned())))
}

/// An object, its bytes sorted into what may differ and what may not.
struct Object<'a> {
    /// The header without the offset of the section table.
    header: Vec<u8>,
    sections: Vec<Section<'a>>,
}

struct Section<'a> {
    name: &'a [u8],
    /// Type, flags, address, link, info, alignment, entry size; and the length of what has no content in the file.
    fields: [u64; 8],
    content: &'a [u8],
}

const RELOCATABLE: u64 = 1;
const NO_BITS: u64 = 8;
/// Section numbers from here on are kept elsewhere. No golden object has a hundred.
const SECTIONS_MAX: u64 = 0xff00;

impl<'a> Object<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let ident = bytes.get(..16).ok_or("it is too short")?;
        if !ident.starts_with(b"\x7fELF") {
            return Err("it is no ELF file");
        }
        let fields = Fields {
            bytes,
            wide: match ident[4] {
                1 => false,
                2 => true,
                _ => return Err("neither 32 nor 64 bits"),
            },
            big_endian: match ident[5] {
                1 => false,
                2 => true,
                _ => return Err("unknown byte order"),
            },
        };
        fields.object()
    }
}

/// Reads numbers of one class and byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    wide: bool,
    big_endian: bool,
}

impl<'a> Fields<'a> {
    fn number(&self, at: u64, length: u64) -> Result<u64, &'static str> {
        let bytes = self.range(at, length)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Ok(match self.big_endian {
            true => bytes.iter().fold(0, fold),
            false => bytes.iter().rev().fold(0, fold),
        })
    }

    fn range(&self, at: u64, length: u64) -> Result<&'a [u8], &'static str> {
        let start = usize::try_from(at).ok();
        let end = at.checked_add(length).and_then(|end| usize::try_from(end).ok());
        let range = start.zip(end).and_then(|(start, end)| self.bytes.get(start..end));
        range.ok_or("it ends too soon")
    }

    fn object(&self) -> Result<Object<'a>, &'static str> {
        // Where the header's fields stand, by class: e_shoff, e_ehsize; the three of the section table follow it.
        let (offset_at, word, size_at) = if self.wide { (40, 8, 52) } else { (32, 4, 40) };
        if self.number(16, 2)? != RELOCATABLE {
            return Err("it is not relocatable");
        }
        let table = self.number(offset_at, word)?;
        let header_bytes = self.number(size_at, 2)?;
        let entry_bytes = self.number(size_at + 6, 2)?;
        let count = self.number(size_at + 8, 2)?;
        let names = self.number(size_at + 10, 2)?;
        let least = if self.wide { 64 } else { 40 };
        let head = if self.wide { 64 } else { 52 };
        if header_bytes != head || entry_bytes != least || count == 0 || count >= SECTIONS_MAX || names >= count {
            return Err("its header is unusual");
        }
        let mut header = self.range(0, header_bytes)?.to_vec();
        header[offset_at as usize..(offset_at + word) as usize].fill(0);
        let at = |number: u64| table.checked_add(number * entry_bytes).ok_or("it ends too soon");
        let name_table = self.content(at(names)?)?;
        let sections = (0..count)
            .map(|number| self.section(at(number)?, name_table))
            .collect::<Result<_, _>>()?;
        Ok(Object { header, sections })
    }

    /// The words of a section's entry: name, type, flags, address, offset, size, link, info, alignment, entry size.
    fn entry(&self, at: u64) -> Result<[u64; 10], &'static str> {
        let wide: [(u64, u64); 10] = [
            (0, 4),
            (4, 4),
            (8, 8),
            (16, 8),
            (24, 8),
            (32, 8),
            (40, 4),
            (44, 4),
            (48, 8),
            (56, 8),
        ];
        let mut out = [0; 10];
        for (number, (offset, length)) in wide.into_iter().enumerate() {
            let (offset, length) = if self.wide {
                (offset, length)
            } else {
                (4 * number as u64, 4)
            };
            out[number] = self.number(at.checked_add(offset).ok_or("it ends too soon")?, length)?;
        }
        Ok(out)
    }

    fn content(&self, at: u64) -> Result<&'a [u8], &'static str> {
        let [_, kind, _, _, offset, size, ..] = self.entry(at)?;
        if kind == NO_BITS {
            return Ok(&[]);
        }
        self.range(offset, size)
    }

    fn section(&self, at: u64, names: &'a [u8]) -> Result<Section<'a>, &'static str> {
        let [name, kind, flags, address, _, size, link, info, alignment, entry_size] = self.entry(at)?;
        let name = usize::try_from(name).ok().and_then(|name| names.get(name..));
        let name = name.ok_or("a section has no name")?;
        let end = name
            .iter()
            .position(|b| *b == 0)
            .ok_or("a section's name does not end")?;
        let empty = if kind == NO_BITS { size } else { 0 };
        Ok(Section {
            name: &name[..end],
            fields: [kind, flags, address, link, info, alignment, entry_size, empty],
            content: self.content(at)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A 32-bit little-endian object with these sections, names in a table of their own at the end.
    fn object(sections: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut names = vec![0];
        let mut placed = Vec::new();
        let mut body = Vec::new();
        for (name, kind, content) in sections.iter().copied().chain([(".shstrtab", 3, &[][..])]) {
            placed.push((names.len() as u32, kind, 52 + body.len() as u32, content.len() as u32));
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            body.extend_from_slice(content);
        }
        if let Some(last) = placed.last_mut() {
            last.3 = names.len() as u32;
        }
        body.extend_from_slice(&names);
        let mut out = b"\x7fELF\x01\x01\x01".to_vec();
        out.resize(16, 0);
        out.extend_from_slice(&[1, 0, 40, 0, 1, 0, 0, 0]);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&(52 + body.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0, 0, 0, 5]);
        for half in [52u16, 0, 0, 40, placed.len() as u16 + 1, placed.len() as u16] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        out.extend_from_slice(&body);
        out.extend_from_slice(&[0; 40]);
        for (name, kind, offset, size) in placed {
            for word in [name, kind, 0, 0, offset, size, 0, 0, 1, 0] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    #[test]
    fn only_the_comment_may_differ() {
        let reference = object(&[
            (".text", 1, b"code"),
            (".comment", 1, b"GCC 12.2.0-14"),
            (".data", 1, b"d"),
        ]);
        let check = |other: &[u8], expected| assert_eq!(compare(&reference, other), expected);
        check(&reference, Agreement::Identical);
        let signed = object(&[
            (".text", 1, b"code"),
            (".comment", 1, b"GCC 12.2.0-14+deb12u1"),
            (".data", 1, b"d"),
        ]);
        check(&signed, Agreement::SameCode);
        let differs = |name: &str| Agreement::Different(Difference::Section(name.to_owned()));
        let code = object(&[(".text", 1, b"cOde"), (".comment", 1, b"x"), (".data", 1, b"d")]);
        check(&code, differs(".text"));
        let kind = object(&[(".text", 1, b"code"), (".comment", 1, b"x"), (".data", 7, b"d")]);
        check(&kind, differs(".data"));
        let named = object(&[(".text", 1, b"code"), (".comment2", 1, b"x"), (".data", 1, b"d")]);
        check(&named, differs(".comment"));
        let fewer = object(&[(".text", 1, b"code"), (".comment", 1, b"x")]);
        check(&fewer, Agreement::Different(Difference::Header));
        let mut header = signed.clone();
        header[39] = 4;
        check(&header, Agreement::Different(Difference::Header));
        for other in [
            &b""[..],
            b"\x7fELF",
            &signed[..signed.len() - 1],
            b"not an object at all",
        ] {
            assert!(matches!(
                compare(&reference, other),
                Agreement::Different(Difference::Unreadable(_))
            ));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn spoilt_objects_never_count_as_equal_by_mistake(at in 0usize..400, byte: u8) {
            let reference = object(&[(".text", 1, b"code"), (".comment", 1, b"GCC"), (".data", 1, b"d")]);
            let mut spoilt = reference.clone();
            let at = at % spoilt.len();
            spoilt[at] = byte;
            let comment = 52 + 4..52 + 7;
            match compare(&reference, &spoilt) {
                Agreement::Identical => prop_assert_eq!(reference[at], byte),
                // Offsets may point to equal bytes elsewhere; nothing else but the comment may change.
                Agreement::SameCode => prop_assert!(comment.contains(&at) || at >= reference.len() - 240 || (32..36).contains(&at)),
                Agreement::Different(_) => {}
            }
        }
    }
}
