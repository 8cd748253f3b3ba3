//! Reduces a file's bytes to its directives.
//!
//! Finds the directives, strips comments and splices from them, links the branches of each conditional, and notices
//! include guards. It evaluates nothing. Invariant: linear in the file's length, no recursion, never a panic; what the
//! compiler would reject is marked, not judged.

use std::borrow::Cow;
use std::sync::OnceLock;

use memchr::memmem;

use super::dialect::Dialect;
use super::lexer::{Cursor, Piece, is_blank};
use super::reduced::{Facts, Form, Inclusion, Op, Reduced, Refusal};
use super::symbols::{Symbol, Symbols, known};
use super::token::{Kind, Lexer, OPERATOR_NAME, Token};

mod conditionals;
mod mentions;
mod pragmas;

/// Largest file that is reduced, in bytes. Offsets have 32 bits, and nothing sane comes near.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Reduces `bytes`, at most [`FILE_BYTES_MAX`] of them.
pub fn reduce(bytes: &[u8], dialect: Dialect, symbols: &Symbols) -> Reduced {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bytes = without_trigraphs(bytes, dialect);
    let pragma_suspected = pragmas::mentions_pragma(&bytes);
    let mut reducer = Reducer {
        cursor: Cursor::new(&bytes, dialect),
        dialect,
        symbols,
        watched: pragma_suspected || WATCHED.iter().any(|word| memmem::find(&bytes, word).is_some()),
        clean: Vec::new(),
        ops: Vec::new(),
        lines: Vec::new(),
        spliced: Vec::new(),
        expressions: Vec::new(),
        tokens: Vec::new(),
        names: Vec::new(),
        spans: Vec::new(),
        text: Vec::new(),
        open: Vec::new(),
        guard: Guard::Expected,
        facts: Facts::default(),
        pragma_suspected,
        open_parentheses: 0,
        defect: None,
    };
    reducer.run();
    reducer.finish()
}

/// Words that make a line of text worth a closer look.
const WATCHED: [&[u8]; 7] = [
    b"_Pragma",
    b"__DATE__",
    b"__TIME",
    b"__COUNTER__",
    b".inc",
    b".INC",
    b".Inc",
];

/// Replaces trigraphs where the dialect has them. Raw strings, where they would have to stay, came with the standards
/// that came after; strict C++11 and C++14 have both, and a file that uses both is read wrongly in its strings only.
fn without_trigraphs(bytes: &[u8], dialect: Dialect) -> Cow<'_, [u8]> {
    if !dialect.has(Dialect::TRIGRAPHS) || memmem::find(bytes, b"??").is_none() {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let meant = match bytes[at..] {
            [b'?', b'?', third, ..] => trigraph(third),
            _ => None,
        };
        out.push(meant.unwrap_or(bytes[at]));
        at += if meant.is_some() { 3 } else { 1 };
    }
    Cow::Owned(out)
}

fn trigraph(third: u8) -> Option<u8> {
    Some(match third {
        b'=' => b'#',
        b'/' => b'\\',
        b'\'' => b'^',
        b'(' => b'[',
        b')' => b']',
        b'!' => b'|',
        b'<' => b'{',
        b'>' => b'}',
        b'-' => b'~',
        _ => return None,
    })
}

/// Where the search for an include guard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Nothing but comments so far.
    Expected,
    /// Within `#ifndef NAME`, which was the first thing in the file.
    Within(Symbol),
    /// The matching `#endif` has been seen, and nothing behind it.
    Closed(Symbol),
    /// There is none.
    Absent,
}

/// What is being copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Directive,
    Text,
}

/// An open conditional.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// The branch that a later `#elif`, `#else` or `#endif` has to be linked to.
    branch: usize,
    has_else: bool,
    line: u32,
}

struct Reducer<'a> {
    cursor: Cursor<'a>,
    dialect: Dialect,
    symbols: &'a Symbols,
    watched: bool,
    /// Clean text of the current directive.
    clean: Vec<u8>,
    ops: Vec<Op>,
    lines: Vec<u32>,
    spliced: Vec<u64>,
    expressions: Vec<(u32, u32)>,
    tokens: Vec<Token>,
    names: Vec<Symbol>,
    spans: Vec<(u32, u32)>,
    text: Vec<u8>,
    open: Vec<Open>,
    guard: Guard,
    facts: Facts,
    /// The file has the words of a pragma where a macro could make one of them, if not in a comment.
    pragma_suspected: bool,
    /// Parentheses of the text that are open, as far as it is looked at closely.
    open_parentheses: u64,
    defect: Option<(u32, &'static str)>,
}

impl Reducer<'_> {
    fn run(&mut self) {
        while self.cursor.next_line() {
            match self.skip_blanks() {
                Piece::End => {}
                Piece::Other(at) if self.is_hash(at) => self.directive(),
                piece => self.text_line(&piece),
            }
        }
        if let Some(reason) = self.cursor.defect() {
            self.defect.get_or_insert((self.cursor.line(), reason));
        }
        if let Some(open) = self.open.first() {
            self.defect.get_or_insert((open.line, "unterminated conditional"));
        }
    }

    fn skip_blanks(&mut self) -> Piece {
        loop {
            match self.cursor.next_piece() {
                Piece::Blank => {}
                piece => return piece,
            }
        }
    }

    /// Says whether `#` or `%:` stands at `at`, and moves behind it.
    fn is_hash(&mut self, at: usize) -> bool {
        let rest = &self.cursor.text()[at..];
        let length = match rest {
            // `##` is another token.
            [b'#', b'#', ..] => return false,
            [b'#', ..] => 1,
            [b'%', b':', b'%', b':', ..] => return false,
            [b'%', b':', ..] if self.dialect.has(Dialect::DIGRAPHS) => 2,
            _ => return false,
        };
        self.cursor.seek(at + length);
        true
    }

    /// Handles a line that is no directive from `first` on.
    fn text_line(&mut self, first: &Piece) {
        self.anything();
        if self.watched {
            self.watched_line(first);
        } else {
            while self.cursor.next_piece() != Piece::End {}
        }
    }

    /// Notes that the file has something outside a guard.
    fn anything(&mut self) {
        if matches!(self.guard, Guard::Expected | Guard::Closed(_)) {
            self.guard = Guard::Absent;
        }
    }

    fn directive(&mut self) {
        let name = match self.skip_blanks() {
            Piece::End => return,
            Piece::Identifier(range) => self.cursor.text()[range].to_vec(),
            Piece::Number(range) => {
                self.anything();
                self.cursor.seek(range.end);
                self.line_marker();
                return;
            }
            piece => {
                // gcc rejects this where it is active, and an assembler source may hold anything.
                self.text_line(&piece);
                return;
            }
        };
        let line = self.cursor.line();
        match name.as_slice() {
            b"if" | b"ifdef" | b"ifndef" => self.open_conditional(&name, line),
            b"elif" | b"elifdef" | b"elifndef" | b"else" | b"endif" => {
                let known = !name.starts_with(b"elif") || name == b"elif" || self.dialect.has(Dialect::ELIFDEF);
                if known {
                    self.continue_conditional(&name, line);
                } else {
                    self.text_line(&Piece::End);
                }
            }
            _ => {
                self.anything();
                self.plain_directive(&name, line);
            }
        }
    }

    fn plain_directive(&mut self, name: &[u8], line: u32) {
        match name {
            b"define" => self.define(line),
            b"undef" => self.undefine(line),
            b"include" => self.include(Inclusion::Include, line),
            b"include_next" => self.include(Inclusion::Next, line),
            b"import" => self.include(Inclusion::Import, line),
            b"pragma" => {
                self.copy_rest();
                let clean = std::mem::take(&mut self.clean);
                for op in self.pragma(&clean) {
                    self.push(op, line);
                }
                self.clean = clean;
            }
            b"line" => {
                self.facts.line_directive = true;
                self.copy_rest();
            }
            b"assert" | b"unassert" => {
                self.copy_rest();
                self.push(Op::Refuse(Refusal::Assertion), line);
            }
            b"embed" if !self.dialect.has(Dialect::ASSEMBLER) => {
                self.copy_rest();
                self.push(Op::Refuse(Refusal::Embed), line);
            }
            _ => self.text_line(&Piece::End),
        }
    }

    fn push(&mut self, op: Op, line: u32) {
        let index = self.ops.len();
        if index.is_multiple_of(64) {
            self.spliced.push(0);
        }
        if !self.cursor.is_single_line() {
            self.spliced[index / 64] |= 1 << (index % 64);
        }
        self.ops.push(op);
        self.lines.push(line);
    }

    /// Copies the rest of the directive without comments and splices into `clean`.
    fn copy_rest(&mut self) {
        self.clean.clear();
        self.copy_on(Place::Directive);
    }

    fn copy_on(&mut self, place: Place) {
        // How much of `__has_include (` has been seen, behind which a header name may stand.
        let mut asking = 0;
        loop {
            if asking == 2 {
                self.copy_header_name();
            }
            let piece = self.cursor.next_piece();
            let text = self.cursor.text();
            let (range, now_asking) = match piece {
                Piece::End => break,
                Piece::Blank => {
                    self.clean.push(b' ');
                    continue;
                }
                Piece::Identifier(range) => {
                    let asks = text[range.clone()].starts_with(b"__has_");
                    (range, u8::from(asks))
                }
                Piece::Other(at) => {
                    if place == Place::Text {
                        let open = self.open_parentheses;
                        self.open_parentheses = match text[at] {
                            b'(' => open + 1,
                            b')' => open.saturating_sub(1),
                            _ => open,
                        };
                    }
                    (at..at + 1, if text[at] == b'(' && asking == 1 { 2 } else { 0 })
                }
                Piece::RawString(range) if range.is_empty() => {
                    if place == Place::Directive {
                        self.defect
                            .get_or_insert((self.cursor.line(), "raw string over lines in a directive"));
                    }
                    (0..0, 0)
                }
                Piece::Number(range) | Piece::Literal(range) | Piece::RawString(range) => (range, 0),
            };
            self.clean.extend_from_slice(&text[range]);
            asking = now_asking;
        }
        let blanks = self.clean.iter().rev().take_while(|b| is_blank(**b)).count();
        self.clean.truncate(self.clean.len() - blanks);
    }

    /// Copies `<name>` or `"name"` as it stands, if one stands next: neither comments nor escapes count in it.
    fn copy_header_name(&mut self) {
        loop {
            let at = self.cursor.at();
            let text = self.cursor.text();
            let close = match text.get(at) {
                Some(b'<') => b'>',
                Some(b'"') => b'"',
                Some(b) if is_blank(*b) || *b == b'/' => {
                    // A comment may stand in front of the name; anything else ends the search.
                    if self.cursor.next_piece() == Piece::Blank {
                        self.clean.push(b' ');
                        continue;
                    }
                    self.cursor.seek(at);
                    return;
                }
                _ => return,
            };
            if let Some(length) = memchr::memchr(close, &text[at + 1..]) {
                let end = at + length + 2;
                self.clean.extend_from_slice(&text[at..end]);
                self.cursor.seek(end);
            }
            return;
        }
    }

    fn define(&mut self, line: u32) {
        self.copy_rest();
        let (name, rest) = match self.first_name() {
            Some((token, at)) if may_be_macro(token) => (token.symbol, at),
            _ => {
                self.push(Op::Refuse(Refusal::Malformed), line);
                return;
            }
        };
        if let Some(refusal) = self.refused_body(rest) {
            self.push(Op::Refuse(refusal), line);
            return;
        }
        let start = self.text.len() as u32;
        self.text.extend_from_slice(&self.clean[rest..]);
        let number = self.names.len() as u32;
        self.names.push(name);
        self.spans.push((start, self.text.len() as u32));
        match self.ops.last_mut() {
            // The run goes on when nothing came in between; only then can the numbers meet.
            Some(Op::Define { end, .. }) => *end = number + 1,
            _ => self.push(
                Op::Define {
                    first: number,
                    end: number + 1,
                },
                line,
            ),
        }
    }

    /// Looks into a macro body for what takes effect, if at all, only by expansion in the text.
    fn refused_body(&mut self, rest: usize) -> Option<Refusal> {
        if !self.watched {
            return None;
        }
        let body = &self.clean[rest..];
        self.facts.pragma_words |= self.pragma_suspected && pragmas::mentions_pragma(pragmas::without_parameters(body));
        let has = |word: &[u8]| memmem::find(body, word).is_some();
        self.facts.time |= has(b"__DATE__") || has(b"__TIME__") || has(b"__TIMESTAMP__");
        self.facts.counter |= has(b"__COUNTER__");
        let lower = body.to_ascii_lowercase();
        let reads = |word: &[u8]| memmem::find(&lower, word).is_some();
        if reads(b".incbin") || (self.dialect.has(Dialect::ASSEMBLER) && reads(b".include")) {
            return Some(Refusal::AssemblerInclusion);
        }
        if has(b"_Pragma") {
            self.pragma_in_body(rest)
        } else {
            None
        }
    }

    /// Returns the first token of `clean` if it is a name, and where it ends.
    fn first_name(&self) -> Option<(Token, usize)> {
        let mut lexer = Lexer::new(&self.clean, self.dialect, self.symbols);
        let token = lexer.next()?;
        (token.kind == Kind::Name || token.has(OPERATOR_NAME)).then(|| (token, lexer.at()))
    }

    fn undefine(&mut self, line: u32) {
        self.copy_rest();
        let op = match self.first_name() {
            Some((token, _)) if may_be_macro(token) => Op::Undefine(token.symbol),
            _ => Op::Refuse(Refusal::Malformed),
        };
        self.push(op, line);
    }

    fn include(&mut self, inclusion: Inclusion, line: u32) {
        self.clean.clear();
        self.copy_header_name();
        let named = !self.clean.iter().all(|b| is_blank(*b));
        if named {
            let start = self.clean.iter().take_while(|b| is_blank(**b)).count();
            let name = &self.clean[start + 1..self.clean.len() - 1];
            let op = if name.is_empty() {
                Op::Refuse(Refusal::Malformed)
            } else {
                Op::Include {
                    name: self.symbols.intern(name),
                    form: if self.clean[start] == b'<' {
                        Form::Angle
                    } else {
                        Form::Quote
                    },
                    inclusion,
                }
            };
            self.copy_on(Place::Directive);
            self.push(op, line);
            return;
        }
        self.copy_on(Place::Directive);
        let expression = self.expression();
        self.push(Op::IncludeComputed { expression, inclusion }, line);
    }

    fn finish(self) -> Reduced {
        let bodies = self.names.iter().map(|_| OnceLock::new()).collect();
        Reduced {
            dialect: self.dialect,
            ops: self.ops.into(),
            lines: self.lines.into(),
            spliced: self.spliced.into(),
            expressions: self.expressions.into(),
            tokens: self.tokens.into(),
            names: self.names.into(),
            spans: self.spans.into(),
            text: self.text.into(),
            bodies,
            guard: match self.guard {
                Guard::Closed(name) => Some(name),
                _ => None,
            },
            facts: self.facts,
            defect: self.defect,
        }
    }
}

/// Says whether gcc lets this name be defined or undefined.
fn may_be_macro(token: Token) -> bool {
    !token.has(OPERATOR_NAME) && token.symbol != known::DEFINED
}
