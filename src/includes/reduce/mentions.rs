//! The rare parts of a file that are neither conditionals, definitions nor inclusions, yet matter: line markers, and words
//! in the text (`_Pragma`, `__TIME__`, `.incbin`).

use memchr::memmem;

use super::pragmas::mentions_pragma;
use super::{Piece, Place, Reducer, WATCHED};
use crate::includes::dialect::Dialect;
use crate::includes::lexer::is_blank;
use crate::includes::reduced::{AssemblerInput, Op, Refusal};
use crate::includes::symbols::known;
use crate::includes::token::{Kind, Lexer, Token};

impl Reducer<'_> {
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
        let mut open = self.open_parentheses;
        self.copy_on(Place::Text);
        let clean = std::mem::take(&mut self.clean);
        self.facts.pragma_words |= self.pragma_suspected && mentions_pragma(&clean);
        if WATCHED.iter().any(|word| memmem::find(&clean, word).is_some()) {
            let mut tokens = Vec::new();
            Lexer::new(&clean, self.dialect, self.symbols).all(&mut tokens);
            for at in 0..tokens.len() {
                for op in self.mention(&tokens[at..], open) {
                    self.push(op, line);
                }
                match tokens[at].kind {
                    Kind::Open => open += 1,
                    Kind::Close => open = open.saturating_sub(1),
                    _ => {}
                }
            }
        }
        self.clean = clean;
    }

    /// Looks at the first of `tokens`, with the others behind it and `open` parentheses open in front of it.
    fn mention(&mut self, tokens: &[Token], open: u64) -> Vec<Op> {
        let Some(first) = tokens.first() else {
            return Vec::new();
        };
        let found = match (first.kind, first.symbol) {
            (Kind::Name, known::DATE | known::TIME | known::TIMESTAMP) => {
                self.facts.time = true;
                None
            }
            (Kind::Name, known::COUNTER) => {
                self.facts.counter = true;
                None
            }
            (Kind::Name, known::PRAGMA) => return self.pragma_operator(tokens, open),
            (Kind::Punctuator, _) if self.dialect.has(Dialect::ASSEMBLER) => self.assembler_directive(tokens),
            (Kind::Text | Kind::OtherText, _) if !self.dialect.has(Dialect::ASSEMBLER) => {
                let literal = self.symbols.spelling(first.symbol);
                self.assembler_in_literal(&literal)
            }
            _ => None,
        };
        found.into_iter().collect()
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
        // The assembler does not tell capital letters from small ones here.
        let input = match self.symbols.spelling(word.symbol).to_ascii_lowercase().as_slice() {
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
        let lower = literal.to_ascii_lowercase();
        let (at, input) = match memmem::find(&lower, b".incbin") {
            Some(at) => (at + b".incbin".len(), AssemblerInput::Binary),
            None => {
                let at = memmem::find(&lower, b".include")?;
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
