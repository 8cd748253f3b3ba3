//! ELF files made by hand, of every class and byte order, whole and damaged.

use proptest::prelude::*;

use super::*;

/// Builds a minimal dynamic file: header, program headers, dynamic section, strings.
pub(crate) struct Sample {
    pub wide: bool,
    pub big_endian: bool,
    pub machine: u16,
    pub interpreter: Option<String>,
    pub needed: Vec<String>,
    pub rpath: Option<String>,
    pub runpath: Option<String>,
}

impl Sample {
    /// A 64-bit little-endian x86-64 file that needs `needed`.
    pub(crate) fn new(interpreter: Option<&str>, needed: &[&str]) -> Self {
        Self {
            wide: true,
            big_endian: false,
            machine: 62,
            interpreter: interpreter.map(str::to_owned),
            needed: needed.iter().map(|name| (*name).to_owned()).collect(),
            rpath: None,
            runpath: None,
        }
    }

    fn number(&self, out: &mut Vec<u8>, value: u64, bytes: usize) {
        let little = value.to_le_bytes();
        let mut wanted = little[..bytes].to_vec();
        if self.big_endian {
            wanted.reverse();
        }
        out.extend(wanted);
    }

    fn word(&self, out: &mut Vec<u8>, value: u64) {
        self.number(out, value, if self.wide { 8 } else { 4 });
    }

    fn segment(&self, out: &mut Vec<u8>, kind: u64, offset: u64, address: u64, size: u64) {
        self.number(out, kind, 4);
        if self.wide {
            self.number(out, 0, 4);
        }
        for value in [offset, address, address, size, size] {
            self.word(out, value);
        }
        if !self.wide {
            self.number(out, 0, 4);
        }
        self.word(out, 0);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        // Loaded 0x1000 above its place in the file, so that mistaking one for the other shows.
        const BASE: u64 = 0x1000;
        let mut strings = vec![0];
        let mut add = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.as_bytes());
            strings.push(0);
            at
        };
        let mut tags: Vec<(u64, u64)> = self.needed.iter().map(|name| (DT_NEEDED, add(name))).collect();
        tags.extend(self.rpath.iter().map(|text| (DT_RPATH, add(text))));
        tags.extend(self.runpath.iter().map(|text| (DT_RUNPATH, add(text))));
        let interpreter = self.interpreter.as_ref().map(|text| add(text));
        let (header, segment, step) = if self.wide { (64, 56, 16) } else { (52, 32, 8) };
        let count = 2 + u64::from(interpreter.is_some());
        let dynamic = header + count * segment;
        let table = dynamic + (tags.len() as u64 + 2) * step;
        let whole = table + strings.len() as u64;

        let mut out = MAGIC.to_vec();
        out.extend([1 + u8::from(self.wide), 1 + u8::from(self.big_endian), 1]);
        out.resize(16, 0);
        for (value, bytes) in [(3, 2), (u64::from(self.machine), 2), (1, 4)] {
            self.number(&mut out, value, bytes);
        }
        for value in [0, header, 0] {
            self.word(&mut out, value);
        }
        for (value, bytes) in [(0, 4), (header, 2), (segment, 2), (count, 2), (0, 2), (0, 2), (0, 2)] {
            self.number(&mut out, value, bytes);
        }
        self.segment(&mut out, PT_LOAD, 0, BASE, whole);
        self.segment(&mut out, PT_DYNAMIC, dynamic, BASE + dynamic, table - dynamic);
        if let Some(at) = interpreter {
            self.segment(&mut out, PT_INTERP, table + at, BASE + table + at, 1);
        }
        tags.extend([(DT_STRTAB, BASE + table), (DT_NULL, 0)]);
        for (tag, value) in tags {
            self.word(&mut out, tag);
            self.word(&mut out, value);
        }
        out.extend(strings);
        out
    }
}

#[test]
fn every_class_and_byte_order_is_read() {
    for (wide, big_endian) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut sample = Sample::new(Some("/lib/ld.so"), &["libm.so.6", "libc.so.6"]);
        sample.wide = wide;
        sample.big_endian = big_endian;
        sample.machine = 40;
        sample.rpath = Some("/old".to_owned());
        sample.runpath = Some("$ORIGIN/../lib:/opt/lib".to_owned());
        let elf = Elf::read(&sample.bytes()[..]).unwrap().unwrap();
        let expected = Elf {
            machine: Machine {
                bits: if wide { 64 } else { 32 },
                byte_order: if big_endian { 2 } else { 1 },
                number: 40,
            },
            interpreter: Some("/lib/ld.so".into()),
            needed: vec!["libm.so.6".into(), "libc.so.6".into()],
            rpath: Some("/old".into()),
            runpath: Some("$ORIGIN/../lib:/opt/lib".into()),
        };
        assert_eq!(elf, expected, "{wide} {big_endian}");
    }
}

#[test]
fn this_very_program_is_read() {
    let file = File::open("/proc/self/exe").unwrap();
    let elf = Elf::read(&file).unwrap().unwrap();
    assert_eq!(elf.machine.bits, usize::BITS as u8);
}

#[test]
fn other_files_are_not_elf() {
    for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", b"not an elf file but long enough"] {
        assert!(Elf::read(bytes).unwrap().is_none());
    }
}

#[test]
fn every_truncation_is_an_error_or_harmless() {
    let bytes = Sample::new(Some("/lib/ld.so"), &["libc.so.6"]).bytes();
    for length in 16..bytes.len() {
        assert!(Elf::read(&bytes[..length]).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((0usize..400, any::<u8>()), 1..8)) {
        let mut bytes = Sample::new(Some("/lib/ld.so"), &["libc.so.6"]).bytes();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = Elf::read(&bytes[..]);
    }
}
