//! Bytes as one line of text, and back: paths in logs and JSON, where a name may hold anything but NUL.
//!
//! UTF-8 stays as it is, so that ordinary names can be read and searched for. A backslash doubles; control characters and
//! bytes that are not UTF-8 become `\xNN`. Invariant: `unescape(&escape(bytes)) == bytes`.

use std::fmt::Write as _;

/// Writes `bytes` as text without control characters.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                // Those beyond ASCII are two bytes long, and nobody names files with them.
                control if control.is_control() => push_hex(&mut text, control.encode_utf8(&mut [0; 4]).as_bytes()),
                plain => text.push(plain),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(text, "\\x{byte:02x}").expect("writing to a string cannot fail");
    }
}

/// Reads what [`escape`] wrote; `None` when it cannot have written that.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                bytes.push(hex(*high)? << 4 | hex(*low)?);
                tail
            }
            (b'\\', _) => return None,
            (plain, tail) => {
                bytes.push(plain);
                tail
            }
        };
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    // At most 15.
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stay_readable_and_others_stay_one_line() {
        for (bytes, text) in [
            (&b"/src/a b.c"[..], "/src/a b.c"),
            ("/näme".as_bytes(), "/näme"),
            (b"a\nb\tc", "a\\x0ab\\x09c"),
            (b"\xff\\x", "\\xff\\\\x"),
            ("\u{85}".as_bytes(), "\\xc2\\x85"),
        ] {
            assert_eq!(escape(bytes), text);
        }
    }

    #[test]
    fn text_that_was_never_escaped_is_refused() {
        for text in ["\\", "\\x1", "\\xg0", "\\n"] {
            assert_eq!(unescape(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            let text = escape(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(unescape(&text), Some(bytes));
        }
    }
}
