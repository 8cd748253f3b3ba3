//! Pragmas that change which files are read: as directives, as `_Pragma("..")`, and made by macros.
//!
//! A macro may make a pragma out of its argument (`#define DO(x) _Pragma(#x)`). Expanding all text to see what becomes of
//! that would cost what this scanner exists to save; so a file says whether it defines such a macro, and whether its text
//! has the words of a pragma that matters where a macro could take them. A unit with both is not decided.

use memchr::memmem;

use super::Reducer;
use crate::includes::lexer::{is_blank, is_identifier_part, is_identifier_start};
use crate::includes::reduced::{Op, Refusal};
use crate::includes::symbols::known;
use crate::includes::token::{Kind, Lexer, Token};

impl Reducer<'_> {
    /// Returns what a pragma, given its clean text, does to inclusion or macros.
    pub(super) fn pragma(&self, text: &[u8]) -> Vec<Op> {
        let (first, rest) = first_word(text);
        match first {
            b"once" => vec![Op::Once],
            b"push_macro" | b"pop_macro" => vec![match self.kept_macro(rest) {
                None => Op::Refuse(Refusal::Malformed),
                Some(name) if first == b"push_macro" => Op::PushMacro(name),
                Some(name) => Op::PopMacro(name),
            }],
            b"GCC" => match first_word(rest) {
                (b"system_header", _) => vec![Op::SystemHeader],
                (b"dependency" | b"pch_preprocess", _) => vec![Op::Refuse(Refusal::PragmaFile)],
                // A poisoned macro is none any more; the compiler complains wherever the name is used again.
                (b"poison", names) => Lexer::new(names, self.dialect, self.symbols)
                    .take_while(|token| token.kind == Kind::Name)
                    .map(|token| Op::Undefine(token.symbol))
                    .collect(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Parses `("name")`; `None` for anything else, also for a name that is no identifier.
    fn kept_macro(&self, text: &[u8]) -> Option<crate::includes::symbols::Symbol> {
        let tokens: Vec<Token> = Lexer::new(text, self.dialect, self.symbols).take(3).collect();
        let [open, name, close] = tokens.as_slice() else {
            return None;
        };
        if (open.kind, name.kind, close.kind) != (Kind::Open, Kind::Text, Kind::Close) {
            return None;
        }
        let name = destringized(&self.symbols.spelling(name.symbol));
        let plain =
            name.first().is_some_and(|b| is_identifier_start(*b)) && name.iter().all(|b| is_identifier_part(*b));
        plain.then(|| self.symbols.intern(&name))
    }

    /// Looks at the `_Pragma` that begins `tokens`, with `open` parentheses open in front of it.
    pub(super) fn pragma_operator(&self, tokens: &[Token], open: u64) -> Vec<Op> {
        let effects = self.operator_effects(tokens, open);
        effects.into_iter().flat_map(|op| [Op::Operator, op]).collect()
    }

    fn operator_effects(&self, tokens: &[Token], open: u64) -> Vec<Op> {
        let [_, parenthesis, text, close, ..] = tokens else {
            return vec![Op::Refuse(Refusal::PragmaOperator)];
        };
        if (parenthesis.kind, text.kind, close.kind) != (Kind::Open, Kind::Text, Kind::Close) {
            return vec![Op::Refuse(Refusal::PragmaOperator)];
        }
        let effects = self.pragma(&destringized(&self.symbols.spelling(text.symbol)));
        // Within a macro's argument it takes effect once, often or never.
        match effects.is_empty() || open == 0 {
            true => effects,
            false => vec![Op::Refuse(Refusal::PragmaOperator)],
        }
    }

    /// Looks into a macro body that mentions `_Pragma` for what takes effect, if at all, only by expansion in the text.
    pub(super) fn pragma_in_body(&mut self, rest: usize) -> Option<Refusal> {
        let body = &self.clean[rest..];
        let effects: [&[u8]; 5] = [b"push_macro", b"pop_macro", b"system_header", b"once", b"poison"];
        if effects.iter().any(|word| memmem::find(body, word).is_some()) {
            return Some(Refusal::PragmaOperator);
        }
        let tokens: Vec<Token> = Lexer::new(body, self.dialect, self.symbols).collect();
        self.facts.pragma_maker |= tokens.iter().enumerate().any(|(at, token)| {
            let literal = matches!(tokens[at..], [_, open, text, close, ..]
                if (open.kind, text.kind, close.kind) == (Kind::Open, Kind::Text, Kind::Close));
            token.symbol == known::PRAGMA && !literal
        });
        None
    }
}

/// Says whether the words of a pragma that matters stand where a macro could make one of them: not behind `#pragma` or
/// `_Pragma("`. Asked of a file as a whole, comments and all, and where that says yes of each of its lines without them.
pub(super) fn mentions_pragma(bytes: &[u8]) -> bool {
    let at_word = |word: &[u8], at: usize| -> Option<(&[u8], &[u8])> {
        let (before, behind) = (&bytes[..at], &bytes[at + word.len()..]);
        let whole = |byte: Option<&u8>| !byte.is_some_and(|b| is_identifier_part(*b));
        (whole(before.last()) && whole(behind.first())).then(|| (trimmed_end(before), trimmed_start(behind)))
    };
    let any = |word: &'static [u8], matters: &dyn Fn(&[u8], &[u8]) -> bool| {
        memmem::find_iter(bytes, word)
            .filter_map(|at| at_word(word, at))
            .any(|(before, behind)| !is_pragma(before) && matters(before, behind))
    };
    // An argument may stand on a line of its own.
    let opens = |before: &[u8]| before.last().is_none_or(|b| matches!(b, b'(' | b',' | b'\n'));
    let argument = |before: &[u8]| opens(before) || before.ends_with(b"GCC");
    let ends = |behind: &[u8]| behind.first().is_none_or(|b| matches!(b, b')' | b',' | b'\r' | b'\n'));
    let named = |behind: &[u8]| behind.first().is_some_and(|b| is_identifier_start(*b));
    any(b"push_macro", &|_, _| true)
        || any(b"pop_macro", &|_, _| true)
        || any(b"once", &|before, behind| argument(before) && ends(behind))
        || any(b"system_header", &|before, behind| argument(before) && ends(behind))
        || any(b"poison", &|before, behind| argument(before) && named(behind))
}

/// Drops the parameter list in front of a macro's replacement list.
pub(super) fn without_parameters(body: &[u8]) -> &[u8] {
    match body.first() {
        Some(b'(') => memchr::memchr(b')', body).map_or(body, |end| &body[end + 1..]),
        _ => body,
    }
}

/// Says whether `text` ends in `#pragma`, `#pragma GCC`, or `_Pragma("` with or without `GCC`.
fn is_pragma(text: &[u8]) -> bool {
    let text = trimmed_end(text.strip_suffix(b"GCC").unwrap_or(text));
    let operand = text.strip_suffix(b"\"").map(trimmed_end);
    match operand {
        None => text.ends_with(b"pragma"),
        Some(text) => text
            .strip_suffix(b"(")
            .is_some_and(|text| trimmed_end(text).ends_with(b"_Pragma")),
    }
}

fn trimmed_end(text: &[u8]) -> &[u8] {
    &text[..text.len() - text.iter().rev().take_while(|b| is_blank(**b)).count()]
}

fn trimmed_start(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|b| is_blank(**b)).count()..]
}

/// Splits off the first identifier, blanks in front of it dropped.
fn first_word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = trimmed_start(text);
    text.split_at(text.iter().take_while(|b| is_identifier_part(**b)).count())
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

#[cfg(test)]
mod tests {
    use super::{mentions_pragma, without_parameters};

    #[test]
    fn words_that_a_macro_could_make_a_pragma_of_are_told_from_pragmas() {
        for text in [
            "#pragma once\n#pragma push_macro(\"A\")\n # pragma  GCC system_header\n#pragma GCC poison x",
            "_Pragma(\"push_macro(\\\"A\\\")\") _Pragma ( \"GCC poison A\") _Pragma(\"once\")",
            "int once; f(once_more, at(once + 1)); // only once. (once)x",
            "poison(x); system_header; // a system_header (in prose)",
            "push_macros pop_macro_",
        ] {
            assert_eq!(mentions_pragma(text.as_bytes()), text.contains("(once)"), "{text}");
        }
        for text in [
            "DO(push_macro(\"A\"))",
            "PR(\"pop_macro(\\\"A\\\")\")",
            "DO( once )",
            "DO(GCC system_header)",
            "DO(GCC  poison A)",
            "GCCDO(poison A)",
        ] {
            assert!(mentions_pragma(text.as_bytes()), "{text}");
        }
        assert!(!mentions_pragma(without_parameters(b"(once, level) once + level")));
        assert!(mentions_pragma(without_parameters(b" DO(once)")));
    }
}
