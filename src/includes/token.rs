//! Preprocessing tokens in eight bytes, and how to make them from a directive's clean text.
//!
//! Only what directives evaluate becomes tokens: conditions when a file is reduced, macro bodies when they are first
//! needed. The text has no comments and no splices any more. Invariant: a token's symbol is its exact spelling.

use super::dialect::Dialect;
use super::lexer::{
    is_blank, is_identifier_part, is_identifier_start, is_literal_prefix, is_raw_prefix, literal_close, number_end,
};
use super::symbols::{Symbol, Symbols, known};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// End of the directive, or of a macro argument.
    End,
    /// White space that an expansion left behind; `flags` tell what it stands for.
    Padding,
    /// An identifier.
    Name,
    /// A preprocessing number.
    Number,
    /// A character constant with its prefix.
    Character,
    /// A string literal without prefix.
    Text,
    /// A string literal with a prefix, or a raw one.
    OtherText,
    /// `<name>` where a header name may stand.
    Header,
    /// A macro's parameter; `small` is its position.
    Parameter,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `#`
    Hash,
    /// `##`
    Paste,
    /// `...`
    Ellipsis,
    /// `::`
    Scope,
    /// `!`
    Not,
    /// `~`
    Complement,
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Star,
    /// `/`
    Slash,
    /// `%`
    Percent,
    /// `<<`
    ShiftLeft,
    /// `>>`
    ShiftRight,
    /// `<`
    Less,
    /// `>`
    Greater,
    /// `<=`
    LessEqual,
    /// `>=`
    GreaterEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `&`
    And,
    /// `^`
    Xor,
    /// `|`
    Or,
    /// `&&`
    AndAnd,
    /// `||`
    OrOr,
    /// `?`
    Question,
    /// `:`
    Colon,
    /// Any other punctuator.
    Punctuator,
    /// A byte that is no token.
    Stray,
}

/// White space stands before the token.
pub const PREVIOUS_WHITE: u8 = 1;
/// The name is never to be expanded again.
pub const NO_EXPAND: u8 = 2;
/// In a macro body: `##` follows.
pub const PASTE_LEFT: u8 = 4;
/// In a macro body: `#` stood before the parameter.
pub const STRINGIFY: u8 = 8;
/// On padding: it stands for no token.
pub const NO_SOURCE: u8 = 16;
/// On a name: `small` is the position of the operator it spells in C++.
pub const OPERATOR_NAME: u8 = 32;

/// The value of [`Token::small`] on a number that does not fit.
pub const NOT_SMALL: u16 = u16::MAX;

/// One preprocessing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// A set of the flags above.
    pub flags: u8,
    /// A number's value if it is a plain decimal below [`NOT_SMALL`]; a parameter's position.
    pub small: u16,
    /// Its spelling.
    pub symbol: Symbol,
}

impl Token {
    /// Makes a token without flags.
    pub const fn new(kind: Kind, symbol: Symbol) -> Self {
        Self {
            kind,
            flags: 0,
            small: NOT_SMALL,
            symbol,
        }
    }

    /// The end of a directive or argument.
    pub const END: Self = Self::new(Kind::End, known::EMPTY);

    /// Says whether every flag of `flags` is set.
    pub const fn has(self, flags: u8) -> bool {
        self.flags & flags == flags
    }
}

const fn pair(first: u8, second: u8) -> u16 {
    (first as u16) << 8 | second as u16
}

/// Punctuators of two characters that mean something in directives; the rest only have to be kept together.
fn two_characters(first: u8, second: u8) -> Option<Kind> {
    const fn is(pair_of: &[u8; 2]) -> u16 {
        pair(pair_of[0], pair_of[1])
    }
    const PASTE: u16 = is(b"##");
    const SCOPE: u16 = is(b"::");
    const SHL: u16 = is(b"<<");
    const SHR: u16 = is(b">>");
    const LE: u16 = is(b"<=");
    const GE: u16 = is(b">=");
    const EQ: u16 = is(b"==");
    const NE: u16 = is(b"!=");
    const AND: u16 = is(b"&&");
    const OR: u16 = is(b"||");
    Some(match pair(first, second) {
        PASTE => Kind::Paste,
        SCOPE => Kind::Scope,
        SHL => Kind::ShiftLeft,
        SHR => Kind::ShiftRight,
        LE => Kind::LessEqual,
        GE => Kind::GreaterEqual,
        EQ => Kind::Equal,
        NE => Kind::NotEqual,
        AND => Kind::AndAnd,
        OR => Kind::OrOr,
        _ => match &[first, second] {
            b"->" | b"++" | b"--" | b"+=" | b"-=" | b"*=" | b"/=" | b"%=" | b"&=" | b"|=" | b"^=" => Kind::Punctuator,
            _ => return None,
        },
    })
}

fn one_character(byte: u8) -> Kind {
    match byte {
        b'(' => Kind::Open,
        b')' => Kind::Close,
        b',' => Kind::Comma,
        b'#' => Kind::Hash,
        b'!' => Kind::Not,
        b'~' => Kind::Complement,
        b'+' => Kind::Plus,
        b'-' => Kind::Minus,
        b'*' => Kind::Star,
        b'/' => Kind::Slash,
        b'%' => Kind::Percent,
        b'<' => Kind::Less,
        b'>' => Kind::Greater,
        b'&' => Kind::And,
        b'^' => Kind::Xor,
        b'|' => Kind::Or,
        b'?' => Kind::Question,
        b':' => Kind::Colon,
        b'=' | b'[' | b']' | b'{' | b'}' | b';' | b'.' => Kind::Punctuator,
        _ => Kind::Stray,
    }
}

/// Operators that have names in C++.
fn operator_name(name: &[u8]) -> Option<Kind> {
    Some(match name {
        b"and" => Kind::AndAnd,
        b"or" => Kind::OrOr,
        b"not" => Kind::Not,
        b"not_eq" => Kind::NotEqual,
        b"bitand" => Kind::And,
        b"bitor" => Kind::Or,
        b"xor" => Kind::Xor,
        b"compl" => Kind::Complement,
        b"and_eq" | b"or_eq" | b"xor_eq" => Kind::Punctuator,
        _ => return None,
    })
}

/// Makes tokens from clean text.
#[derive(Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    dialect: Dialect,
    symbols: &'a Symbols,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'a [u8], dialect: Dialect, symbols: &'a Symbols) -> Self {
        Self {
            text,
            at: 0,
            dialect,
            symbols,
        }
    }

    /// Returns where the next token, or the white space before it, starts.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Appends all tokens of the text; `__has_include(<name>)` gets its name as one token.
    pub fn all(mut self, out: &mut Vec<Token>) {
        let first = out.len();
        while let Some(token) = self.next() {
            out.push(token);
            let asks = token.kind == Kind::Open
                && out.len() >= first + 2
                && matches!(
                    out[out.len() - 2].symbol,
                    known::HAS_INCLUDE | known::HAS_INCLUDE_NEXT | known::HAS_EMBED
                );
            if asks && let Some(header) = self.header() {
                out.push(header);
            }
        }
    }

    /// Takes `<name>` if it stands next.
    pub fn header(&mut self) -> Option<Token> {
        let blanks = self.blanks();
        let rest = &self.text[self.at + blanks..];
        if rest.first() != Some(&b'<') {
            return None;
        }
        let length = memchr::memchr(b'>', rest)? + 1;
        self.at += blanks + length;
        Some(Token::new(Kind::Header, self.symbols.intern(&rest[..length])))
    }

    fn blanks(&self) -> usize {
        self.text[self.at..].iter().take_while(|b| is_blank(**b)).count()
    }

    /// Returns where the token of unknown kind that starts at `start` ends, and its kind.
    fn measure(&self, start: usize) -> (usize, Kind) {
        let text = self.text;
        let byte = text[start];
        let next = text.get(start + 1).copied().unwrap_or(0);
        if is_identifier_start(byte) && !self.splits(byte) {
            let part = |b: &u8| is_identifier_part(*b) && !self.splits(*b);
            let length = text[start..].iter().take_while(|b| part(b)).count();
            return self.name_or_literal(start, start + length);
        }
        if byte.is_ascii_digit() || (byte == b'.' && next.is_ascii_digit()) {
            return (number_end(text, start, self.dialect), Kind::Number);
        }
        if matches!(byte, b'"' | b'\'') {
            return self.literal(start, start);
        }
        if text[start..].starts_with(b"...") {
            return (start + 3, Kind::Ellipsis);
        }
        if matches!(&text[start..], [b'<', b'<', b'=', ..] | [b'>', b'>', b'=', ..]) {
            return (start + 3, Kind::Punctuator);
        }
        if self.dialect.has(Dialect::DIGRAPHS)
            && let Some((length, kind)) = digraph(&text[start..])
        {
            return (start + length, kind);
        }
        match two_characters(byte, next) {
            // `::` is two tokens in C before C2X; nothing that is evaluated tells the difference.
            Some(kind) => (start + 2, kind),
            None => (start + 1, one_character(byte)),
        }
    }

    fn name_or_literal(&self, start: usize, end: usize) -> (usize, Kind) {
        let prefix = &self.text[start..end];
        match self.text.get(end) {
            Some(b'"') if is_raw_prefix(prefix, self.dialect) => (self.raw_end(end), Kind::OtherText),
            Some(&quote @ (b'"' | b'\'')) if is_literal_prefix(prefix, quote, self.dialect) => self.literal(start, end),
            // `\u00e9` is a letter like any other to the compiler, and not every character beyond ASCII is one.
            Some(b'\\') if matches!(self.text.get(end + 1), Some(b'u' | b'U')) => (end, Kind::Stray),
            _ if prefix.is_ascii() || is_of_letters(prefix) => (end, Kind::Name),
            _ => (end, Kind::Stray),
        }
    }

    /// Says whether a byte that may be in a name is none here: `$` in assembler.
    fn splits(&self, byte: u8) -> bool {
        byte == b'$' && self.dialect.has(Dialect::ASSEMBLER)
    }

    fn literal(&self, start: usize, quote: usize) -> (usize, Kind) {
        let Some(end) = literal_close(self.text, quote) else {
            return (self.text.len(), Kind::Stray);
        };
        let kind = match self.text[quote] {
            b'\'' => Kind::Character,
            _ if start == quote => Kind::Text,
            _ => Kind::OtherText,
        };
        (end, kind)
    }

    fn raw_end(&self, quote: usize) -> usize {
        let body = &self.text[quote + 1..];
        let end = memchr::memchr(b'(', body).and_then(|open| {
            let close = [b")", &body[..open], b"\""].concat();
            memchr::memmem::find(&body[open..], &close).map(|length| quote + 1 + open + length + close.len())
        });
        end.unwrap_or(self.text.len())
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let blanks = self.blanks();
        let start = self.at + blanks;
        if start >= self.text.len() {
            self.at = self.text.len();
            return None;
        }
        let (end, kind) = self.measure(start);
        self.at = end;
        let spelling = &self.text[start..end];
        let mut token = Token::new(kind, self.symbols.intern(spelling));
        if blanks > 0 {
            token.flags |= PREVIOUS_WHITE;
        }
        if kind == Kind::Number {
            token.small = small_value(spelling);
        }
        if kind == Kind::Name
            && self.dialect.has(Dialect::CXX)
            && !self.dialect.has(Dialect::NO_OPERATOR_NAMES)
            && let Some(operator) = operator_name(spelling)
        {
            token.kind = operator;
            token.flags |= OPERATOR_NAME;
        }
        Some(token)
    }
}

fn is_of_letters(name: &[u8]) -> bool {
    let letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    std::str::from_utf8(name).is_ok_and(|name| name.chars().all(letter))
}

fn digraph(text: &[u8]) -> Option<(usize, Kind)> {
    Some(match text {
        [b'%', b':', b'%', b':', ..] => (4, Kind::Paste),
        [b'%', b':', ..] => (2, Kind::Hash),
        [b'<', b'%', ..] | [b'%', b'>', ..] | [b'<', b':', ..] | [b':', b'>', ..] => (2, Kind::Punctuator),
        _ => return None,
    })
}

/// Returns a plain decimal's value when it is small, so that evaluation needs no look at its spelling.
fn small_value(spelling: &[u8]) -> u16 {
    let digits = spelling
        .strip_suffix(b"L")
        .filter(|rest| !rest.is_empty())
        .unwrap_or(spelling);
    let octal = digits.len() > 1 && digits[0] == b'0';
    if octal || digits.len() > 4 || !digits.iter().all(u8::is_ascii_digit) {
        return NOT_SMALL;
    }
    digits
        .iter()
        .fold(0, |value, digit| value * 10 + u16::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::super::dialect::{Language, Strictness};
    use super::*;

    fn kinds(text: &str) -> Vec<(Kind, String)> {
        let symbols = Symbols::new();
        let dialect = Dialect::new(Language::Cxx, 201_703, Strictness::Gnu);
        let mut tokens = Vec::new();
        Lexer::new(text.as_bytes(), dialect, &symbols).all(&mut tokens);
        tokens
            .iter()
            .map(|token| {
                let spelling = symbols.spelling(token.symbol);
                (token.kind, String::from_utf8_lossy(&spelling).into_owned())
            })
            .collect()
    }

    #[test]
    fn text_becomes_tokens() {
        let check = |text: &str, expected: &[(Kind, &str)]| {
            let expected: Vec<_> = expected
                .iter()
                .map(|(kind, spelling)| (*kind, (*spelling).to_owned()))
                .collect();
            assert_eq!(kinds(text), expected, "{text:?}");
        };
        check("a+1", &[(Kind::Name, "a"), (Kind::Plus, "+"), (Kind::Number, "1")]);
        check(
            "x and y",
            &[(Kind::Name, "x"), (Kind::AndAnd, "and"), (Kind::Name, "y")],
        );
        check("'a' \"b\"", &[(Kind::Character, "'a'"), (Kind::Text, "\"b\"")]);
        check("'a", &[(Kind::Stray, "'a")]);
        check("R\"(a)b\"c)\"", &[(Kind::OtherText, "R\"(a)b\"c)\"")]);
        check("%:%:<:", &[(Kind::Paste, "%:%:"), (Kind::Punctuator, "<:")]);
        check("...", &[(Kind::Ellipsis, "...")]);
        check(
            "__has_include(<a//b>)",
            &[
                (Kind::Name, "__has_include"),
                (Kind::Open, "("),
                (Kind::Header, "<a//b>"),
                (Kind::Close, ")"),
            ],
        );
    }

    #[test]
    fn small_numbers_carry_their_value() {
        for (text, value) in [
            ("0", 0),
            ("64", 64),
            ("12L", 12),
            ("9999", 9999),
            ("012", NOT_SMALL),
            ("10000", NOT_SMALL),
            ("1u", NOT_SMALL),
            ("L", NOT_SMALL),
        ] {
            assert_eq!(small_value(text.as_bytes()), value, "{text}");
        }
    }
}
