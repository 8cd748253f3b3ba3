//! Walks a file's bytes as the preprocessor's first phases see them: logical lines, comments, literals.
//!
//! A [`Cursor`] hands out one piece at a time, just fine enough to find directives and to copy them without comments
//! and line splices; it neither knows directives nor builds tokens (see `reduce` and `token`). Invariant: every call
//! moves forward, so a walk is linear in the file's length.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memmem};

use super::dialect::Dialect;

/// One piece of a logical line; ranges index [`Cursor::text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The logical line ends here.
    End,
    /// White space or a comment. A comment may have led on to a later line, which is then the current one.
    Blank,
    /// An identifier or keyword.
    Identifier(Range<usize>),
    /// A preprocessing number.
    Number(Range<usize>),
    /// A string or character literal with its prefix, or an unmatched quote with the rest of its line.
    Literal(Range<usize>),
    /// A raw string, complete. When it spans lines the range is empty.
    RawString(Range<usize>),
    /// One byte of anything else.
    Other(usize),
}

/// A position in a file, on one logical line.
#[derive(Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    dialect: Dialect,
    /// The current logical line: borrowed where no splice had to be removed.
    current: Cow<'a, [u8]>,
    /// Where the current line begins in `bytes`; `None` after a splice.
    origin: Option<usize>,
    at: usize,
    line: u32,
    next: usize,
    next_line: u32,
    spliced: bool,
    defect: Option<&'static str>,
}

/// Longest delimiter of a raw string that gcc takes.
const RAW_DELIMITER_BYTES_MAX: usize = 16;

pub(super) const fn is_identifier_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$' || byte >= 0x80
}

pub(super) const fn is_identifier_part(byte: u8) -> bool {
    is_identifier_start(byte) || byte.is_ascii_digit()
}

/// White space within a line; a carriage return is not, as in gcc.
pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | 0)
}

const PLAIN: u8 = 0;
const BLANK: u8 = 1;
const IDENTIFIER: u8 = 2;
const DIGIT: u8 = 3;
const QUOTE: u8 = 4;
const SLASH: u8 = 5;
const DOT: u8 = 6;

static CLASS: [u8; 256] = {
    let mut table = [PLAIN; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = match b {
            b'"' | b'\'' => QUOTE,
            b'/' => SLASH,
            b'.' => DOT,
            _ if b.is_ascii_digit() => DIGIT,
            _ if is_identifier_start(b) => IDENTIFIER,
            _ if is_blank(b) => BLANK,
            _ => PLAIN,
        };
        byte += 1;
    }
    table
};

/// Returns the end of the preprocessing number that starts at `at`.
pub(super) fn number_end(text: &[u8], mut at: usize, dialect: Dialect) -> usize {
    at += 1;
    while let Some(&byte) = text.get(at) {
        let next = text.get(at + 1).copied().unwrap_or(0);
        at += match byte {
            b'e' | b'E' | b'p' | b'P' if matches!(next, b'+' | b'-') => 2,
            b'\'' if dialect.has(Dialect::DIGIT_SEPARATORS) && (next.is_ascii_alphanumeric() || next == b'_') => 2,
            b'.' => 1,
            _ if is_identifier_part(byte) => 1,
            _ => break,
        };
    }
    at
}

/// Returns the position behind the closing quote of the literal whose opening quote is at `at`, if it is closed.
pub(super) fn literal_close(text: &[u8], at: usize) -> Option<usize> {
    let quote = text[at];
    let mut at = at + 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// Says whether `prefix` in front of a quote makes a literal of its own.
pub(super) fn is_literal_prefix(prefix: &[u8], quote: u8, dialect: Dialect) -> bool {
    match prefix {
        b"L" => true,
        b"u" | b"U" => dialect.has(Dialect::UNICODE_LITERALS),
        b"u8" => dialect.has(Dialect::UNICODE_LITERALS) && (quote == b'"' || dialect.has(Dialect::UTF8_CHARACTERS)),
        _ => false,
    }
}

/// Says whether `prefix` in front of a double quote starts a raw string.
pub(super) fn is_raw_prefix(prefix: &[u8], dialect: Dialect) -> bool {
    matches!(prefix, b"R" | b"LR" | b"uR" | b"UR" | b"u8R") && dialect.has(Dialect::RAW_STRINGS)
}

impl<'a> Cursor<'a> {
    /// Starts before the first line of `bytes`, which are free of trigraphs and of a byte order mark.
    pub fn new(bytes: &'a [u8], dialect: Dialect) -> Self {
        Self {
            bytes,
            dialect,
            current: Cow::Borrowed(&[]),
            origin: Some(0),
            at: 0,
            line: 0,
            next: 0,
            next_line: 1,
            spliced: false,
            defect: None,
        }
    }

    /// Returns the current logical line, without its newline.
    pub fn text(&self) -> &[u8] {
        &self.current
    }

    /// Returns the number of the physical line on which the current logical line begins, counted from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// Says whether the current logical line is one physical line.
    pub fn is_single_line(&self) -> bool {
        !self.spliced
    }

    /// Returns where the next piece starts.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Moves to `at` on the current line.
    pub fn seek(&mut self, at: usize) {
        self.at = at;
    }

    /// Returns what is lexically wrong with the file so far.
    pub fn defect(&self) -> Option<&'static str> {
        self.defect
    }

    /// Moves to the next logical line; false at the end of the file.
    pub fn next_line(&mut self) -> bool {
        if self.next >= self.bytes.len() {
            return false;
        }
        self.line = self.next_line;
        self.take_line();
        true
    }

    /// Makes the logical line that begins at `next` the current one.
    fn take_line(&mut self) {
        let bytes = self.bytes;
        let start = self.next;
        let (text, splice) = self.take_physical();
        self.at = 0;
        self.spliced = splice;
        if !splice {
            self.origin = Some(start);
            self.current = Cow::Borrowed(text);
            return;
        }
        self.origin = None;
        let mut joined = text.to_vec();
        while self.next < bytes.len() {
            let (text, splice) = self.take_physical();
            joined.extend_from_slice(text);
            if !splice {
                break;
            }
        }
        self.current = Cow::Owned(joined);
    }

    /// Takes one physical line, and says whether a splice joins it to the next; the splice is cut off.
    fn take_physical(&mut self) -> (&'a [u8], bool) {
        let rest = &self.bytes[self.next..];
        let Some(newline) = memchr(b'\n', rest) else {
            // gcc takes no splice at the very end of a file.
            self.next = self.bytes.len();
            return (rest, false);
        };
        self.next += newline + 1;
        self.next_line += 1;
        let text = &rest[..newline];
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let visible = text.len() - text.iter().rev().take_while(|b| is_blank(**b)).count();
        match text[..visible].last() {
            Some(b'\\') => (&text[..visible - 1], true),
            _ => (text, false),
        }
    }

    /// Returns the next piece of the current line.
    pub fn next_piece(&mut self) -> Piece {
        let text: &[u8] = &self.current;
        let start = self.at;
        let Some(&byte) = text.get(start) else {
            return Piece::End;
        };
        match CLASS[usize::from(byte)] {
            BLANK => {
                let length = text[start..].iter().take_while(|b| is_blank(**b)).count();
                self.at = start + length;
                Piece::Blank
            }
            IDENTIFIER => {
                let mut end = start + 1;
                while end < text.len() && is_identifier_part(text[end]) {
                    end += 1;
                }
                self.identifier_or_literal(start, end)
            }
            DIGIT => {
                self.at = number_end(text, start, self.dialect);
                Piece::Number(start..self.at)
            }
            DOT if text.get(start + 1).is_some_and(u8::is_ascii_digit) => {
                self.at = number_end(text, start, self.dialect);
                Piece::Number(start..self.at)
            }
            QUOTE => self.literal(start, start),
            SLASH => self.slash(start),
            _ => {
                self.at = start + 1;
                Piece::Other(start)
            }
        }
    }

    fn identifier_or_literal(&mut self, start: usize, end: usize) -> Piece {
        let text: &[u8] = &self.current;
        self.at = end;
        match text.get(end) {
            Some(&quote @ (b'"' | b'\'')) if end - start <= 3 => {
                let prefix = &text[start..end];
                if quote == b'"' && is_raw_prefix(prefix, self.dialect) {
                    self.raw_string(start, end)
                } else if is_literal_prefix(prefix, quote, self.dialect) {
                    self.literal(start, end)
                } else {
                    Piece::Identifier(start..end)
                }
            }
            _ => Piece::Identifier(start..end),
        }
    }

    fn literal(&mut self, start: usize, quote: usize) -> Piece {
        let text: &[u8] = &self.current;
        // An unmatched quote takes the rest of its line, comments and all.
        let mut end = literal_close(text, quote).unwrap_or(text.len());
        if self.dialect.has(Dialect::USER_LITERALS) && text.get(end).is_some_and(|b| is_identifier_start(*b)) {
            end += text[end..].iter().take_while(|b| is_identifier_part(**b)).count();
        }
        self.at = end;
        Piece::Literal(start..end)
    }

    fn slash(&mut self, start: usize) -> Piece {
        let text: &[u8] = &self.current;
        match text.get(start + 1) {
            Some(b'*') => {
                self.skip_block_comment(start + 2);
                Piece::Blank
            }
            Some(b'/') if self.dialect.has(Dialect::LINE_COMMENTS) => {
                self.at = text.len();
                Piece::Blank
            }
            _ => {
                self.at = start + 1;
                Piece::Other(start)
            }
        }
    }

    fn skip_block_comment(&mut self, mut from: usize) {
        loop {
            if let Some(end) = memmem::find(&self.current[from..], b"*/") {
                self.at = from + end + 2;
                return;
            }
            let line = self.line;
            if !self.next_line() {
                self.defect = Some("unterminated comment");
                self.at = self.current.len();
                return;
            }
            // The joined line keeps the number of its first part; a directive there is no single line.
            self.line = line;
            from = 0;
            self.spliced = true;
        }
    }

    /// Skips the raw string whose quote is at `quote`. Its bytes are taken as they stand in the file.
    fn raw_string(&mut self, start: usize, quote: usize) -> Piece {
        let Some(origin) = self.origin else {
            self.defect = Some("raw string on a spliced line");
            self.at = self.current.len();
            return Piece::RawString(start..start);
        };
        let body = &self.bytes[origin + quote + 1..];
        let Some(open) = body.iter().take(RAW_DELIMITER_BYTES_MAX + 1).position(|b| *b == b'(') else {
            self.defect = Some("raw string with a malformed delimiter");
            self.at = self.current.len();
            return Piece::RawString(start..start);
        };
        let mut close = Vec::with_capacity(open + 2);
        close.push(b')');
        close.extend_from_slice(&body[..open]);
        close.push(b'"');
        let Some(length) = memmem::find(&body[open + 1..], &close) else {
            self.defect = Some("unterminated raw string");
            self.at = self.current.len();
            self.next = self.bytes.len();
            return Piece::RawString(start..start);
        };
        let end = origin + quote + 1 + open + 1 + length + close.len();
        if end <= origin + self.current.len() {
            self.at = end - origin;
            return Piece::RawString(start..self.at);
        }
        self.resume_behind(origin, end);
        Piece::RawString(0..0)
    }

    /// Goes on at offset `end`, in the middle of a later physical line.
    fn resume_behind(&mut self, origin: usize, end: usize) {
        // The lines up to `next` are counted already; those within the string are not.
        let newlines = |bytes: &[u8]| memchr::memchr_iter(b'\n', bytes).count() as u32;
        if end > self.next {
            self.next_line += newlines(&self.bytes[self.next..end]);
        } else {
            self.next_line -= newlines(&self.bytes[end..self.next]);
        }
        debug_assert!(end > origin);
        self.next = end;
        if end < self.bytes.len() {
            self.take_line();
        } else {
            self.current = Cow::Borrowed(&[]);
            self.at = 0;
        }
        self.spliced = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::{Language, Strictness};
    use super::*;

    fn pieces(text: &[u8], dialect: Dialect) -> String {
        let mut cursor = Cursor::new(text, dialect);
        let mut out = String::new();
        while cursor.next_line() {
            loop {
                let piece = cursor.next_piece();
                let show = |range: Range<usize>| String::from_utf8_lossy(&cursor.text()[range]).into_owned();
                match piece {
                    Piece::End => break,
                    Piece::Blank => out.push('_'),
                    Piece::Identifier(range) => out.push_str(&format!("i({})", show(range))),
                    Piece::Number(range) => out.push_str(&format!("n({})", show(range))),
                    Piece::Literal(range) => out.push_str(&format!("l({})", show(range))),
                    Piece::RawString(range) => out.push_str(&format!("r({})", show(range))),
                    Piece::Other(at) => out.push_str(&show(at..at + 1)),
                }
            }
            out.push_str(&format!("@{};", cursor.line()));
        }
        out
    }

    #[test]
    fn lines_split_into_pieces_as_in_gcc() {
        let c = Dialect::new(Language::C, 201_710, Strictness::Gnu);
        let cxx = Dialect::new(Language::Cxx, 201_703, Strictness::Gnu);
        let strict89 = Dialect::new(Language::C, 0, Strictness::Standard);
        let check = |dialect, text: &str, expected: &str| {
            assert_eq!(pieces(text.as_bytes(), dialect), expected, "{text:?}");
        };
        check(c, "a\\\nb c", "i(ab)_i(c)@1;");
        check(c, "a\\ \t\nb\nc", "i(ab)@1;i(c)@3;");
        check(c, "a\r\n\r\nb", "i(a)@1;@2;i(b)@3;");
        check(c, "a\\", "i(a)\\@1;");
        check(c, "a/*\n\n*/b", "i(a)_i(b)@1;");
        check(c, "/\\\n* x *\\\n/y", "_i(y)@1;");
        check(c, "a//b\\\nc\nd", "i(a)_@1;i(d)@3;");
        check(strict89, "a//b", "i(a)//i(b)@1;");
        check(c, "L\"x\" u'c' xL\"y\"", "l(L\"x\")_l(u'c')_i(xL)l(\"y\")@1;");
        check(c, "'it /* x\ny", "l('it /* x)@1;i(y)@2;");
        check(c, "\"a\\\"b\"c", "l(\"a\\\"b\")i(c)@1;");
        check(c, "1.5e+3 .5 1'0", "n(1.5e+3)_n(.5)_n(1)l('0)@1;");
        check(cxx, "1'0 x", "n(1'0)_i(x)@1;");
        check(c, "R\"(a)\"b", "r(R\"(a)\")i(b)@1;");
        check(c, "R\"x(a\n)\" \\\n)x\"b\nc", "r()i(b)@1;i(c)@4;");
        check(strict89, "R\"(a\")", "i(R)l(\"(a\"))@1;");
        check(cxx, "\"a\"_s'x'", "l(\"a\"_s)l('x')@1;");
    }
}
