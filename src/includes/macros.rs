//! Macro definitions and the table of those in force.
//!
//! The table maps a symbol to the place of its definition, so that a run of `#define`s costs one store each; a body is
//! made into tokens only when it is first expanded. Invariant: a [`MacroRef`] in the table always names a definition of
//! a source that the scan holds.

use super::dialect::Dialect;
use super::symbols::{Symbol, Symbols, known};
use super::token::{Kind, Lexer, NOT_SMALL, PASTE_LEFT, PREVIOUS_WHITE, STRINGIFY, Token};

/// A macro's parameters and replacement list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Number of parameters, the variable one included; `None` for an object-like macro.
    pub parameters: Option<u16>,
    /// The last parameter takes any number of arguments.
    pub variadic: bool,
    /// The replacement list; `#` and `##` have become flags.
    pub tokens: Box<[Token]>,
    /// The compiler rejects the definition.
    pub malformed: bool,
}

/// Most parameters that a macro may have here; gcc knows no bound but needs no more either.
const PARAMETERS_MAX: usize = 10_000;

impl Body {
    /// Parses the text of a definition behind the macro's name.
    pub fn parse(text: &[u8], dialect: Dialect, symbols: &Symbols) -> Self {
        let mut lexer = Lexer::new(text, dialect, symbols);
        let mut body = Self {
            parameters: None,
            variadic: false,
            tokens: Box::default(),
            malformed: false,
        };
        let mut names = Vec::new();
        if text.first() == Some(&b'(') {
            lexer.next();
            match parameters(&mut lexer) {
                Some((found, variadic)) => {
                    // The parser bounds the number.
                    body.parameters = u16::try_from(found.len()).ok();
                    body.variadic = variadic;
                    names = found;
                }
                None => body.malformed = true,
            }
        }
        match replacement(&mut lexer, &body, &names, dialect) {
            Some(tokens) if !body.malformed => body.tokens = tokens.into(),
            _ => body.malformed = true,
        }
        body
    }

    /// Returns the value of an object-like macro that is nothing but a small number.
    pub fn small_value(&self) -> Option<u16> {
        match (&*self.tokens, self.parameters) {
            ([token], None) if token.kind == Kind::Number && token.small != NOT_SMALL => Some(token.small),
            _ => None,
        }
    }
}

/// Parses a parameter list behind its opening parenthesis: the names, and whether the last is variable.
fn parameters(lexer: &mut Lexer<'_>) -> Option<(Vec<Symbol>, bool)> {
    let mut names: Vec<Symbol> = Vec::new();
    let mut after_name = false;
    loop {
        let token = lexer.next()?;
        match token.kind {
            Kind::Name if !after_name => {
                if names.contains(&token.symbol) || names.len() >= PARAMETERS_MAX {
                    return None;
                }
                names.push(token.symbol);
                after_name = true;
            }
            Kind::Comma if after_name => after_name = false,
            Kind::Close if after_name || names.is_empty() => return Some((names, false)),
            Kind::Ellipsis => {
                if !after_name {
                    if names.contains(&known::VA_ARGS) {
                        return None;
                    }
                    names.push(known::VA_ARGS);
                }
                let close = lexer.next()?;
                return (close.kind == Kind::Close).then_some((names, true));
            }
            _ => return None,
        }
    }
}

/// Parses a replacement list; `None` where gcc rejects it.
fn replacement(lexer: &mut Lexer<'_>, body: &Body, names: &[Symbol], dialect: Dialect) -> Option<Vec<Token>> {
    let function_like = body.parameters.is_some();
    let mut tokens: Vec<Token> = Vec::new();
    let mut after_paste = false;
    for mut token in lexer {
        if token.kind == Kind::Name
            && let Some(position) = names.iter().position(|name| *name == token.symbol)
        {
            token.kind = Kind::Parameter;
            token.small = position as u16;
        }
        if token.kind == Kind::Paste {
            // Of several in a row only the first counts.
            if !after_paste {
                tokens.last_mut()?.flags |= PASTE_LEFT;
            }
            after_paste = true;
            continue;
        }
        after_paste = false;
        if function_like && let Some(hash) = tokens.last().filter(|t| t.kind == Kind::Hash) {
            let optional = body.variadic && token.symbol == known::VA_OPT;
            if token.kind == Kind::Parameter || optional {
                token.flags = (token.flags & !PREVIOUS_WHITE) | STRINGIFY | (hash.flags & PREVIOUS_WHITE);
                tokens.pop();
            } else if !dialect.has(Dialect::ASSEMBLER) {
                return None;
            }
        }
        tokens.push(token);
    }
    let hash_at_end = tokens.last().is_some_and(|t| t.kind == Kind::Hash);
    if after_paste || (function_like && hash_at_end && !dialect.has(Dialect::ASSEMBLER)) {
        return None;
    }
    if let Some(first) = tokens.first_mut() {
        first.flags &= !PREVIOUS_WHITE;
    }
    Some(tokens)
}

macro_rules! specials {
    ($($name:ident = $symbol:ident,)*) => {
        /// Macros that the compiler computes anew at each use.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Special { $(#[doc = concat!("`", stringify!($symbol), "`")] $name,)* }

        impl Special {
            /// All of them, in the order of their positions.
            pub const ALL: &[Special] = &[$(Special::$name,)*];

            /// Returns the macro's name.
            pub fn symbol(self) -> Symbol {
                match self { $(Special::$name => known::$symbol,)* }
            }
        }
    };
}

specials! {
    File = FILE,
    BaseFile = BASE_FILE,
    FileName = FILE_NAME,
    Line = LINE,
    IncludeLevel = INCLUDE_LEVEL,
    Counter = COUNTER,
    Date = DATE,
    Time = TIME,
    Timestamp = TIMESTAMP,
    Pragma = PRAGMA,
    HasInclude = HAS_INCLUDE,
    HasIncludeNext = HAS_INCLUDE_NEXT,
    HasEmbed = HAS_EMBED,
    HasAttribute = HAS_ATTRIBUTE,
    HasCppAttribute = HAS_CPP_ATTRIBUTE,
    HasCAttribute = HAS_C_ATTRIBUTE,
    HasBuiltin = HAS_BUILTIN,
    HasFeature = HAS_FEATURE,
    HasExtension = HAS_EXTENSION,
}

/// Where a macro's definition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MacroRef {
    source: u32,
    number: u32,
}

/// What a symbol means as a macro.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It is none.
    Undefined,
    /// One that is computed.
    Special(Special),
    /// Definition `number` of the scan's source `source`.
    Defined { source: usize, number: u32 },
}

/// The value of [`MacroRef::source`] for computed macros; sources of definitions follow.
const SPECIAL: u32 = 1;

impl MacroRef {
    /// Definition `number` of source `source`.
    pub fn new(source: u32, number: u32) -> Self {
        Self {
            source: source + SPECIAL + 1,
            number,
        }
    }

    /// Returns what it says.
    pub fn meaning(self) -> Meaning {
        match self.source {
            0 => Meaning::Undefined,
            SPECIAL => Meaning::Special(Special::ALL[self.number as usize]),
            source => Meaning::Defined {
                source: (source - SPECIAL - 1) as usize,
                number: self.number,
            },
        }
    }
}

/// The macros in force.
#[derive(Debug, Default)]
pub struct MacroTable {
    slots: Vec<MacroRef>,
    pushed: Vec<(Symbol, MacroRef)>,
}

impl MacroTable {
    /// Forgets all macros and makes room for `symbols` many.
    pub fn reset(&mut self, symbols: usize) {
        self.slots.clear();
        self.slots.resize(symbols, MacroRef::default());
        self.pushed.clear();
    }

    /// Returns what `symbol` means.
    pub fn get(&self, symbol: Symbol) -> Meaning {
        self.slots
            .get(symbol.index())
            .map_or(Meaning::Undefined, |slot| slot.meaning())
    }

    /// Says whether `symbol` is a macro.
    pub fn is_defined(&self, symbol: Symbol) -> bool {
        self.slots.get(symbol.index()).is_some_and(|slot| slot.source != 0)
    }

    /// Defines `symbol`.
    pub fn define(&mut self, symbol: Symbol, definition: MacroRef) {
        match self.slots.get_mut(symbol.index()) {
            Some(slot) => *slot = definition,
            None => {
                self.slots.resize(symbol.index() + 1, MacroRef::default());
                self.slots[symbol.index()] = definition;
            }
        }
    }

    /// Makes `symbol` a computed macro.
    pub fn define_special(&mut self, special: Special) {
        let number = special as u32;
        self.define(
            special.symbol(),
            MacroRef {
                source: SPECIAL,
                number,
            },
        );
    }

    /// Makes `symbol` no macro.
    pub fn undefine(&mut self, symbol: Symbol) {
        if let Some(slot) = self.slots.get_mut(symbol.index()) {
            *slot = MacroRef::default();
        }
    }

    /// `#pragma push_macro`.
    pub fn push(&mut self, symbol: Symbol) {
        let definition = self.slots.get(symbol.index()).copied().unwrap_or_default();
        self.pushed.push((symbol, definition));
    }

    /// `#pragma pop_macro`.
    pub fn pop(&mut self, symbol: Symbol) {
        if let Some(at) = self.pushed.iter().rposition(|(name, _)| *name == symbol) {
            let (_, definition) = self.pushed.remove(at);
            self.define(symbol, definition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialect::{Language, Strictness};
    use super::*;

    fn body(text: &str) -> (Body, Symbols) {
        let symbols = Symbols::new();
        let dialect = Dialect::new(Language::C, 201_710, Strictness::Gnu);
        (Body::parse(text.as_bytes(), dialect, &symbols), symbols)
    }

    #[test]
    fn definitions_parse_as_gcc_takes_them() {
        let check = |text: &str, parameters: Option<u16>, variadic: bool, tokens: usize| {
            let (body, _) = body(text);
            assert!(!body.malformed, "{text}");
            assert_eq!(body.parameters, parameters, "{text}");
            assert_eq!(body.variadic, variadic, "{text}");
            assert_eq!(body.tokens.len(), tokens, "{text}");
        };
        check("", None, false, 0);
        check(" 1", None, false, 1);
        check(" (a)", None, false, 3);
        check("()", Some(0), false, 0);
        check("(a,b) a ## b", Some(2), false, 2);
        check("(a, ...) #a __VA_ARGS__", Some(2), true, 2);
        check("(a...) a", Some(1), true, 1);
        check("(a) a ## ## 1", Some(1), false, 2);
    }

    #[test]
    fn definitions_that_gcc_rejects_are_malformed() {
        for text in [
            "(a", "(a,a)", "(1)", "(a,)", "(..., a)", "(a) #b", " ##a", " a##", "(a) #",
        ] {
            assert!(body(text).0.malformed, "{text}");
        }
    }

    #[test]
    fn pushed_macros_come_back() {
        let mut table = MacroTable::default();
        table.reset(10);
        let name = Symbol(20);
        table.push(name);
        table.define(name, MacroRef::new(0, 7));
        table.push(name);
        table.undefine(name);
        table.pop(name);
        assert_eq!(table.get(name), Meaning::Defined { source: 0, number: 7 });
        table.pop(name);
        assert!(!table.is_defined(name));
        table.pop(name);
    }
}
