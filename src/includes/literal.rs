//! The values of numbers and character constants in `#if`, in 64 bits, as gcc computes them.

use super::dialect::Dialect;

/// A value of `#if` arithmetic: 64 bits that are signed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// The bits, two's complement when signed.
    pub bits: u64,
    /// Whether arithmetic with it is unsigned.
    pub unsigned: bool,
}

impl Value {
    /// A signed value.
    pub const fn signed(value: i64) -> Self {
        Self {
            bits: value as u64,
            unsigned: false,
        }
    }

    /// Says whether it counts as true.
    pub const fn is_true(self) -> bool {
        self.bits != 0
    }

    /// Says whether it is negative.
    pub const fn is_negative(self) -> bool {
        !self.unsigned && (self.bits as i64) < 0
    }
}

/// How the target represents characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Characters {
    /// Plain `char` is unsigned.
    pub char_unsigned: bool,
    /// `wchar_t` is unsigned.
    pub wide_unsigned: bool,
    /// Width of `wchar_t` in bits.
    pub wide_bits: u32,
}

/// Returns the value of a preprocessing number; `None` where gcc rejects it in `#if` (floating, user-defined, bad digit).
pub fn number(spelling: &[u8], dialect: Dialect) -> Option<Value> {
    let (base, digits) = match spelling {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => (16, rest),
        [b'0', b'b' | b'B', rest @ ..] if matches!(rest.first(), Some(b'0' | b'1')) => (2, rest),
        [b'0', ..] => (8, spelling),
        _ => (10, spelling),
    };
    let mut bits: u64 = 0;
    let mut overflow = false;
    let mut at = 0;
    while let Some(&byte) = digits.get(at) {
        if byte == b'\'' && dialect.has(Dialect::DIGIT_SEPARATORS) && at > 0 {
            at += 1;
            continue;
        }
        let Some(digit) = (byte as char).to_digit(if base == 16 { 16 } else { 10 }) else {
            break;
        };
        if digit >= base {
            return None;
        }
        let wide = u128::from(bits) * u128::from(base) + u128::from(digit);
        overflow |= wide > u128::from(u64::MAX);
        // Truncation is what gcc does, with a warning.
        bits = wide as u64;
        at += 1;
    }
    if at == 0 {
        return None;
    }
    let unsigned = integer_suffix(&digits[at..])?;
    Some(Value {
        bits,
        unsigned: unsigned || (!overflow && bits > i64::MAX as u64),
    })
}

/// Says whether an integer suffix makes the number unsigned; `None` when it is no suffix that `#if` takes.
fn integer_suffix(suffix: &[u8]) -> Option<bool> {
    let unsigned = suffix.iter().filter(|b| matches!(b, b'u' | b'U')).count();
    let longs = match suffix {
        [b'u' | b'U', rest @ ..] => rest,
        [rest @ .., b'u' | b'U'] => rest,
        rest => rest,
    };
    matches!(longs, b"" | b"l" | b"L" | b"ll" | b"LL").then_some(unsigned == 1)
}

/// Kinds of character constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Narrow,
    Utf8,
    Utf16,
    Utf32,
    Wide,
}

/// Returns the value of a character constant with its quotes and prefix; `None` where gcc rejects it.
pub fn character(spelling: &[u8], characters: Characters) -> Option<Value> {
    let quote = spelling.iter().position(|b| *b == b'\'')?;
    let width = match &spelling[..quote] {
        b"" => Width::Narrow,
        b"u8" => Width::Utf8,
        b"u" => Width::Utf16,
        b"U" => Width::Utf32,
        b"L" => Width::Wide,
        _ => return None,
    };
    let end = spelling.len() - 1;
    // A suffix of the user's own stands behind the closing quote.
    if end <= quote || spelling[end] != b'\'' {
        return None;
    }
    let units = units(&spelling[quote + 1..end], width)?;
    let (&last, earlier) = units.split_last()?;
    match width {
        Width::Narrow => Some(narrow(&units, characters)),
        // Longer ones are errors or warnings that depend on the version.
        _ if !earlier.is_empty() => None,
        Width::Utf8 => Some(unsigned(last & 0xff)),
        Width::Utf16 => Some(unsigned(last & 0xffff)),
        Width::Utf32 => Some(unsigned(last)),
        Width::Wide => {
            let mask = u32::MAX >> (32 - characters.wide_bits.clamp(8, 32));
            let value = last & mask;
            let negative = !characters.wide_unsigned && value > mask >> 1;
            let bits = if negative {
                u64::from(value) | !u64::from(mask)
            } else {
                u64::from(value)
            };
            Some(Value {
                bits,
                unsigned: characters.wide_unsigned,
            })
        }
    }
}

fn unsigned(value: u32) -> Value {
    Value {
        bits: u64::from(value),
        unsigned: true,
    }
}

fn narrow(units: &[u32], characters: Characters) -> Value {
    if let [single] = units {
        let byte = *single as u8;
        return if characters.char_unsigned {
            unsigned(u32::from(byte))
        } else {
            Value::signed(i64::from(byte as i8))
        };
    }
    // An `int` that keeps the last four.
    let value = units.iter().fold(0u32, |value, unit| value << 8 | (unit & 0xff));
    Value::signed(i64::from(value as i32))
}

/// Decodes the inside of a constant into code units of the given width.
fn units(inside: &[u8], width: Width) -> Option<Vec<u32>> {
    let mut out = Vec::new();
    let mut rest = inside;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'\\' {
            rest = escape(tail, width, &mut out)?;
        } else if first < 0x80 || matches!(width, Width::Narrow | Width::Utf8) {
            out.push(u32::from(first));
            rest = tail;
        } else {
            let length = rest.len().min(4);
            let text = (1..=length).find_map(|length| std::str::from_utf8(&rest[..length]).ok())?;
            out.push(u32::from(text.chars().next()?));
            rest = &rest[text.len()..];
        }
    }
    Some(out)
}

/// Decodes one escape behind its backslash and returns what follows.
fn escape<'a>(text: &'a [u8], width: Width, out: &mut Vec<u32>) -> Option<&'a [u8]> {
    let (&first, rest) = text.split_first()?;
    let plain = match first {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => 10,
        b'r' => 13,
        b't' => 9,
        b'v' => 11,
        b'e' | b'E' => 27,
        b'0'..=b'7' => return Some(digits(text, 8, 3, out)),
        b'x' => {
            rest.first().filter(|b| b.is_ascii_hexdigit())?;
            return Some(digits(rest, 16, usize::MAX, out));
        }
        b'u' | b'U' => {
            let length = if first == b'u' { 4 } else { 8 };
            let code = std::str::from_utf8(rest.get(..length)?).ok()?;
            let character = char::from_u32(u32::from_str_radix(code, 16).ok()?)?;
            if matches!(width, Width::Narrow | Width::Utf8) {
                let mut buffer = [0; 4];
                let bytes = character.encode_utf8(&mut buffer).bytes();
                out.extend(bytes.map(u32::from));
            } else {
                out.push(u32::from(character));
            }
            return Some(&rest[length..]);
        }
        other => u32::from(other),
    };
    out.push(plain);
    Some(rest)
}

fn digits<'a>(text: &'a [u8], base: u32, most: usize, out: &mut Vec<u32>) -> &'a [u8] {
    let mut value: u32 = 0;
    let mut at = 0;
    while let Some(digit) = text
        .get(at)
        .filter(|_| at < most)
        .and_then(|b| (*b as char).to_digit(base))
    {
        value = value.wrapping_mul(base) | digit;
        at += 1;
    }
    out.push(value);
    &text[at..]
}

#[cfg(test)]
mod tests {
    use super::super::dialect::{Language, Strictness};
    use super::*;

    #[test]
    fn numbers_have_gccs_values() {
        let dialect = Dialect::new(Language::Cxx, 201_402, Strictness::Gnu);
        let check = |text: &str, bits: u64, unsigned: bool| {
            let expected = Some(Value { bits, unsigned });
            assert_eq!(number(text.as_bytes(), dialect), expected, "{text}");
        };
        check("0", 0, false);
        check("10L", 10, false);
        check("0x10u", 16, true);
        check("010", 8, false);
        check("0b101ULL", 5, true);
        check("1'000", 1000, false);
        check("9223372036854775808", 1 << 63, true);
        check("0xffffffffffffffff", u64::MAX, true);
        check("18446744073709551616", 0, false);
        for text in [
            "1.0", "08", "1e5", "0x", "1_x", "1lul", "1Ll", "0b2", "1uu", "1i", "0x1p3",
        ] {
            assert_eq!(number(text.as_bytes(), dialect), None, "{text}");
        }
    }

    #[test]
    fn character_constants_have_gccs_values() {
        let target = |char_unsigned| Characters {
            char_unsigned,
            wide_unsigned: false,
            wide_bits: 32,
        };
        let check = |text: &[u8], expected: i64| {
            let value = character(text, target(false)).expect("valid");
            assert_eq!(value.bits as i64, expected, "{}", String::from_utf8_lossy(text));
        };
        check(b"'a'", 97);
        check(b"'\\377'", -1);
        check(b"'\\xff'", -1);
        check(b"'ab'", 0x6162);
        check(b"'\\n'", 10);
        check(b"L'\\xffffffff'", -1);
        check("L'\u{e9}'".as_bytes(), 0xe9);
        check(b"u'\\u00e9'", 0xe9);
        let byte = character(b"'\\377'", target(true)).expect("valid");
        assert_eq!((byte.bits, byte.unsigned), (255, true));
        for text in [b"''".as_slice(), b"'\\x'", b"u8'ab'", b"'a'_s"] {
            assert_eq!(character(text, target(false)), None);
        }
    }
}
