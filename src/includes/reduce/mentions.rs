//! The rare parts of a file that are neither conditionals, definitions nor inclusions, yet matter: pragmas, line markers,
//! and words in the text (`_Pragma`, `__TIME__`, `.incbin`).

use memchr::memmem;

use super::{Piece, Place, Reducer, WATCHED};
use crate::includes::dialect::Dialect;
use crate::includes::lexer::{is_blank, is_identifier_part};
use crate::includes::reduced::{AssemblerInput, Op, Refusal};
use crate::includes::symbols::known;
use crate::includes::token::{Kind, Lexer, Token};

impl Reducer<'_> {
    /// Returns what a pragma, given its clean text, does to inclusion or macros.
    pub(super) fn pragma(&self, text: &[u8]) -> Option<Op> {
        let (first, rest) = first_word(text);
        match first {
            b"once" => Some(Op::Once),
            b"push_macro" | b"pop_macro" => {
                let tokens: Vec<Token> = Lexer::new(rest, self.dialect, self.symbols).collect();
                let [open, name, close, ..] = tokens.as_slice() else {
                    return Some(Op::Refuse(Refusal::Malformed));
                };
                if (open.kind, name.kind, close.kind) != (Kind::Open, Kind::Text, Kind::Close) {
                    return Some(Op::Refuse(Refusal::Malformed));
                }
                let name = destringized(&self.symbols.spelling(name.symbol));
                let name = self.symbols.intern(&name);
                Some(if first == b"push_macro" {
                    Op::PushMacro(name)
                } else {
                    Op::PopMacro(name)
                })
            }
            b"GCC" => match first_word(rest).0 {
                b"system_header" => Some(Op::SystemHeader),
                b"dependency" | b"pch_preprocess" => Some(Op::Refuse(Refusal::PragmaFile)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Handles `# 33 "file" 3`, the number taken.
    pub(super) fn line_marker(&mut self) {
        let line = self.cursor.line();
        if self.dialect.has(Dialect::ASSEMBLER) {
            self.text_line(&Piece::End);
            return;
        }
        self.copy_rest();
        self.facts.line_directive = true;
        if self.clean.contains(&b'"') {
            self.push(Op::Refuse(Refusal::LineMarker), line);
        }
    }

    /// Looks closely at a line of text, from `first` on, in a file that mentions a watched word.
    pub(super) fn watched_line(&mut self, first: &Piece) {
        let line = self.cursor.line();
        match first {
            Piece::Identifier(range) | Piece::Number(range) | Piece::Literal(range) => {
                self.cursor.seek(range.start);
            }
            Piece::RawString(range) if !range.is_empty() => self.cursor.seek(range.start),
            Piece::Other(at) => self.cursor.seek(*at),
            Piece::RawString(_) | Piece::Blank | Piece::End => {}
        }
        self.clean.clear();
        self.copy_on(Place::Text);
        let clean = std::mem::take(&mut self.clean);
        if WATCHED.iter().any(|word| memmem::find(&clean, word).is_some()) {
            let mut tokens = Vec::new();
            Lexer::new(&clean, self.dialect, self.symbols).all(&mut tokens);
            for at in 0..tokens.len() {
                if let Some(op) = self.mention(&tokens[at..]) {
                    self.push(op, line);
                }
            }
        }
        self.clean = clean;
    }

    /// Looks at the first of `tokens`, with the others behind it.
    fn mention(&mut self, tokens: &[Token]) -> Option<Op> {
        let first = tokens.first()?;
        match (first.kind, first.symbol) {
            (Kind::Name, known::DATE | known::TIME | known::TIMESTAMP) => {
                self.facts.time = true;
                None
            }
            (Kind::Name, known::COUNTER) => {
                self.facts.counter = true;
                None
            }
            (Kind::Name, known::PRAGMA) => match tokens {
                [_, open, text, close, ..]
                    if (open.kind, text.kind, close.kind) == (Kind::Open, Kind::Text, Kind::Close) =>
                {
                    self.pragma(&destringized(&self.symbols.spelling(text.symbol)))
                }
                _ => Some(Op::Refuse(Refusal::PragmaOperator)),
            },
            (Kind::Punctuator, _) if self.dialect.has(Dialect::ASSEMBLER) => self.assembler_directive(tokens),
            (Kind::Text | Kind::OtherText, _) if !self.dialect.has(Dialect::ASSEMBLER) => {
                let literal = self.symbols.spelling(first.symbol);
                self.assembler_in_literal(&literal)
            }
            _ => None,
        }
    }

    /// `.incbin "path"` in an assembler source.
    fn assembler_directive(&mut self, tokens: &[Token]) -> Option<Op> {
        let [dot, word, rest @ ..] = tokens else {
            return None;
        };
        let glued = word.kind == Kind::Name && word.flags == 0;
        if !glued || self.symbols.spelling(dot.symbol) != b"." {
            return None;
        }
        let input = match self.symbols.spelling(word.symbol).as_slice() {
            b"incbin" => AssemblerInput::Binary,
            b"include" => AssemblerInput::Source,
            _ => return None,
        };
        match rest.first() {
            Some(path) if path.kind == Kind::Text => {
                let spelling = self.symbols.spelling(path.symbol);
                Some(self.assembler_input(&spelling[1..spelling.len() - 1], input))
            }
            _ => Some(Op::Refuse(Refusal::AssemblerInclusion)),
        }
    }

    /// `asm(".incbin \"path\"")` in C.
    fn assembler_in_literal(&mut self, literal: &[u8]) -> Option<Op> {
        let (at, input) = match memmem::find(literal, b".incbin") {
            Some(at) => (at + b".incbin".len(), AssemblerInput::Binary),
            None => {
                let at = memmem::find(literal, b".include")?;
                (at + b".include".len(), AssemblerInput::Source)
            }
        };
        let behind = &literal[at..];
        let behind = behind.strip_prefix(b"\\t").unwrap_or(behind);
        let blanks = behind.iter().take_while(|b| is_blank(**b)).count();
        let path = behind[blanks..].strip_prefix(b"\\\"");
        match path.and_then(|path| memmem::find(path, b"\\\"").map(|end| &path[..end])) {
            Some(path) => Some(self.assembler_input(path, input)),
            // Prose may well say `.include`; only the assembler's own word is taken seriously.
            None if input == AssemblerInput::Source => None,
            None => Some(Op::Refuse(Refusal::AssemblerInclusion)),
        }
    }

    fn assembler_input(&self, path: &[u8], input: AssemblerInput) -> Op {
        if path.is_empty() || path.contains(&b'\\') {
            return Op::Refuse(Refusal::AssemblerInclusion);
        }
        Op::Assemble {
            path: self.symbols.intern(path),
            input,
        }
    }
}

/// Splits off the first identifier, blanks in front of it dropped.
fn first_word(text: &[u8]) -> (&[u8], &[u8]) {
    let start = text.iter().take_while(|b| is_blank(**b)).count();
    let length = text[start..].iter().take_while(|b| is_identifier_part(**b)).count();
    text[start..].split_at(length)
}

/// Undoes a string literal's quotes and the escapes that `_Pragma` knows.
fn destringized(literal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(literal.len());
    let mut rest = &literal[1..literal.len() - 1];
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [next @ (b'\\' | b'"'), tail @ ..]) => {
                out.push(*next);
                tail
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    out
}
