//! A file reduced to its directives: what evaluation needs, and nothing of the text.
//!
//! Made by `reduce`, evaluated by `scan`, kept once per content by the source tree. Macro bodies stay text until one is
//! needed, since most never are. Invariant: conditionals are balanced, and every `next` names a later operation of the
//! same conditional, so evaluation needs no stack of its own for them.

use std::sync::OnceLock;

use super::dialect::Dialect;
use super::macros::Body;
use super::symbols::{Symbol, Symbols};
use super::token::Token;

/// How a header name was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// `"name"`
    Quote,
    /// `<name>`
    Angle,
}

/// Which directive asks for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Inclusion {
    /// `#include`
    Include,
    /// `#include_next`
    Next,
    /// `#import`
    Import,
}

/// Something that this scanner will not decide when it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// The compiler reports an error here.
    #[error("malformed directive")]
    Malformed,
    /// A line marker may make the rest of the file a system header.
    #[error("line marker")]
    LineMarker,
    /// `#assert`, `#unassert`, `#if #machine(..)`.
    #[error("assertion")]
    Assertion,
    /// `#embed`, whose search path and result belong to newer compilers.
    #[error("`#embed`")]
    Embed,
    /// A pragma that reads another file or a precompiled header.
    #[error("pragma that reads a file")]
    PragmaFile,
    /// `_Pragma` that changes macros or the file's status, where only expansion shows whether it takes effect.
    #[error("`_Pragma` with an effect on inclusion")]
    PragmaOperator,
    /// `.incbin` or `.include` of something other than a plain literal.
    #[error("assembler inclusion that is no plain literal")]
    AssemblerInclusion,
}

/// What the assembler reads by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssemblerInput {
    /// `.incbin`
    Binary,
    /// `.include`
    Source,
}

/// One operation of a reduced file. `next` is where to go when a branch is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Defines the macros `first..end` of the file.
    Define { first: u32, end: u32 },
    /// `#undef`
    Undefine(Symbol),
    /// `#if` with an expression's number.
    If { expression: u32, next: u32 },
    /// `#ifdef`, and `#if defined(X)`.
    IfDefined { name: Symbol, next: u32 },
    /// `#ifndef`, and `#if !defined(X)`.
    IfNotDefined { name: Symbol, next: u32 },
    /// `#elif`
    ElseIf { expression: u32, next: u32 },
    /// `#elifdef`
    ElseIfDefined { name: Symbol, next: u32 },
    /// `#elifndef`
    ElseIfNotDefined { name: Symbol, next: u32 },
    /// `#else`
    Else { next: u32 },
    /// `#endif`
    EndIf,
    /// An inclusion with its name in place.
    Include {
        name: Symbol,
        form: Form,
        inclusion: Inclusion,
    },
    /// An inclusion whose name is an expression's expansion.
    IncludeComputed { expression: u32, inclusion: Inclusion },
    /// The next operation is a `_Pragma`'s. That is text, which the compiler does not look at in a file it reads for
    /// its macros alone.
    Operator,
    /// `#pragma once`
    Once,
    /// `#pragma GCC system_header`
    SystemHeader,
    /// `#pragma push_macro`
    PushMacro(Symbol),
    /// `#pragma pop_macro`
    PopMacro(Symbol),
    /// The assembler will read `path`.
    Assemble { path: Symbol, input: AssemblerInput },
    /// Cannot be decided.
    Refuse(Refusal),
}

/// Things that a file's text mentions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// `__DATE__`, `__TIME__` or `__TIMESTAMP__` stands outside comments and literals.
    pub time: bool,
    /// `__COUNTER__` does.
    pub counter: bool,
    /// `#line` changes what `__LINE__` and `__FILE__` say.
    pub line_directive: bool,
    /// A macro makes a pragma of something that is no plain literal, its argument say.
    pub pragma_maker: bool,
    /// The words of a pragma that changes macros or inclusion stand where a macro could make a pragma of them.
    pub pragma_words: bool,
}

/// A reduced file.
#[derive(Debug)]
pub struct Reduced {
    pub(super) dialect: Dialect,
    pub(super) ops: Box<[Op]>,
    /// Line of each operation, counted from 1.
    pub(super) lines: Box<[u32]>,
    /// Whether an operation's directive stands on one physical line, a bit each.
    pub(super) spliced: Box<[u64]>,
    pub(super) expressions: Box<[(u32, u32)]>,
    pub(super) tokens: Box<[Token]>,
    pub(super) names: Box<[Symbol]>,
    pub(super) spans: Box<[(u32, u32)]>,
    pub(super) text: Box<[u8]>,
    pub(super) bodies: Box<[OnceLock<Box<Body>>]>,
    pub(super) guard: Option<Symbol>,
    pub(super) facts: Facts,
    pub(super) defect: Option<(u32, &'static str)>,
}

impl Reduced {
    /// Returns the macro that makes the file empty while it is defined.
    pub fn guard(&self) -> Option<Symbol> {
        self.guard
    }

    /// Returns what the text mentions.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Returns the rules by which the file was read.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns where and why the compiler will reject the file as a whole: unbalanced conditionals, an open comment.
    pub fn defect(&self) -> Option<(u32, &'static str)> {
        self.defect
    }

    /// Returns the tokens of an expression.
    pub fn expression(&self, number: u32) -> &[Token] {
        let (start, end) = self.expressions[number as usize];
        &self.tokens[start as usize..end as usize]
    }

    /// Returns the text of a macro definition behind the name.
    pub fn definition(&self, number: u32) -> &[u8] {
        let (start, end) = self.spans[number as usize];
        &self.text[start as usize..end as usize]
    }

    /// Returns the body of a macro, made at its first use.
    pub fn body(&self, number: u32, symbols: &Symbols) -> &Body {
        self.bodies[number as usize]
            .get_or_init(|| Box::new(Body::parse(self.definition(number), self.dialect, symbols)))
    }

    /// Says whether the directive of an operation stands on one physical line.
    pub fn is_single_line(&self, op: usize) -> bool {
        self.spliced[op / 64] >> (op % 64) & 1 == 0
    }

    /// Returns the memory held, in bytes, bodies yet to be made guessed at.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.ops)
            + size_of_val(&*self.lines)
            + size_of_val(&*self.spliced)
            + size_of_val(&*self.expressions)
            + size_of_val(&*self.tokens)
            + size_of_val(&*self.names)
            + size_of_val(&*self.spans)
            + size_of_val(&*self.text)
            + size_of_val(&*self.bodies)
    }
}
