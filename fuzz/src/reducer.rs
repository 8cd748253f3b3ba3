//! The lexer and the reducer of the include scanner, on files that anybody wrote.
//!
//! The first two bytes are lexical rules. Holds: the walk moves forward through logical lines that exist; the reduced file is
//! bounded by the bytes it was made of, and a byte order mark in front changes nothing.

use rdcc::includes::dialect::Dialect;
use rdcc::includes::lexer::{Cursor, Piece};
use rdcc::includes::reduce::reduce;
use rdcc::includes::reduced::Reduced;
use rdcc::includes::symbols::Symbols;
use rdcc::includes::token::Lexer;

/// Bytes of memory for one byte of a file, and for an empty one. The worst known is a line of `#else`: some thirty bytes of
/// bookkeeping for six.
const MEMORY_PER_BYTE: usize = 48;
const MEMORY_OF_NOTHING: usize = 1024;

/// Walks and reduces a file.
pub fn check(bytes: &[u8]) {
    let Some((rules, text)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let dialect = Dialect::from_bits(u16::from_le_bytes(*rules) & 0x1fff);
    walk(text, dialect);
    let symbols = Symbols::new();
    let mut tokens = Vec::new();
    Lexer::new(text, dialect, &symbols).all(&mut tokens);
    assert!(tokens.len() <= 2 * text.len());

    let reduced = reduce(text, dialect, &symbols);
    let memory = reduced.memory_bytes();
    assert!(
        memory <= MEMORY_OF_NOTHING + MEMORY_PER_BYTE * text.len(),
        "{memory} bytes for {}",
        text.len()
    );
    if let Some((line, _)) = reduced.defect() {
        assert!((1..=lines(text)).contains(&line), "a defect in line {line}");
    }
    if !text.starts_with(b"\xef\xbb\xbf") {
        let marked = reduce(&[b"\xef\xbb\xbf", text].concat(), dialect, &symbols);
        assert_eq!(summary(&marked), summary(&reduced));
    }
}

fn summary(reduced: &Reduced) -> impl PartialEq + std::fmt::Debug {
    (
        reduced.guard(),
        reduced.facts(),
        reduced.defect(),
        reduced.memory_bytes(),
    )
}

fn lines(text: &[u8]) -> u32 {
    text.split(|byte| *byte == b'\n').count() as u32
}

fn walk(text: &[u8], dialect: Dialect) {
    let mut cursor = Cursor::new(text, dialect);
    let (mut line, mut pieces) = (0, 0);
    while cursor.next_line() {
        assert!(
            cursor.line() > line || line == 0,
            "line {} behind {line}",
            cursor.line()
        );
        line = cursor.line();
        loop {
            let piece = cursor.next_piece();
            pieces += 1;
            assert!(pieces <= 2 * text.len() + 2, "the walk does not move");
            let length = cursor.text().len();
            match piece {
                Piece::End => break,
                Piece::Blank => {}
                Piece::Identifier(range) | Piece::Number(range) | Piece::Literal(range) => {
                    assert!(!range.is_empty() && range.end <= length);
                }
                Piece::RawString(range) => assert!(range.end <= length),
                Piece::Other(at) => assert!(at < length),
            }
            assert!(cursor.at() <= length);
        }
    }
    assert!(cursor.line() <= lines(text));
}
