//! Says which of C's lexical rules hold: they differ by language and standard, and a file's directives with them.
//!
//! The predefined macros tell the standard, so no `-std=` table has to follow the compilers. Invariant: two units with
//! equal dialects reduce the same bytes to the same directives.

use std::fmt;

/// The language that the preprocessor was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// C, and Objective-C where it is lexed alike.
    C,
    /// C++.
    Cxx,
    /// Assembler with preprocessing (`.S`).
    Assembler,
}

/// A set of lexical rules.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Dialect(u16);

impl Dialect {
    /// `??=` and its like are read as the characters they stand for.
    pub const TRIGRAPHS: Self = Self(1);
    /// `R"x(...)x"` is a string.
    pub const RAW_STRINGS: Self = Self(1 << 1);
    /// `//` starts a comment everywhere.
    pub const LINE_COMMENTS: Self = Self(1 << 2);
    /// `'` may stand between the digits of a number.
    pub const DIGIT_SEPARATORS: Self = Self(1 << 3);
    /// `%:` is `#`.
    pub const DIGRAPHS: Self = Self(1 << 4);
    /// `and`, `or`, `not` and their like are operators, and `true` is 1.
    pub const CXX: Self = Self(1 << 5);
    /// `u"x"`, `U"x"` and `u8"x"` are literals.
    pub const UNICODE_LITERALS: Self = Self(1 << 6);
    /// `u8'x'` is a literal.
    pub const UTF8_CHARACTERS: Self = Self(1 << 7);
    /// A literal may carry a suffix of the user's own.
    pub const USER_LITERALS: Self = Self(1 << 8);
    /// Assembler: unknown directives are comments or pseudo-operations.
    pub const ASSEMBLER: Self = Self(1 << 9);
    /// `-std=c..` or `-ansi`: no GNU reading of what the standard forbids.
    pub const STRICT: Self = Self(1 << 10);
    /// `#elifdef` and `#elifndef` are directives.
    pub const ELIFDEF: Self = Self(1 << 11);
    /// `-fno-operator-names`: `and` and its like are plain identifiers.
    pub const NO_OPERATOR_NAMES: Self = Self(1 << 12);

    /// Derives the rules from what the compiler predefines. `standard` is the value of `__cplusplus` or
    /// `__STDC_VERSION__` (0 when it is not defined), `strict` whether `__STRICT_ANSI__` is.
    pub fn new(language: Language, standard: u64, strict: Strictness) -> Self {
        let strict = strict == Strictness::Standard;
        let set = match language {
            Language::Assembler => {
                return Self::LINE_COMMENTS.with(Self::ASSEMBLER).with(Self::ELIFDEF);
            }
            Language::C => Self::for_c(standard, strict),
            Language::Cxx => Self::for_cxx(standard, strict),
        };
        set.with_if(strict, Self::STRICT)
    }

    fn for_c(standard: u64, strict: bool) -> Self {
        let c99 = standard >= 199_901;
        let c11 = standard >= 201_112;
        // gcc 12 gives C2X as 202000, later ones as 202311.
        let c23 = standard >= 202_000;
        Self::default()
            .with_if(c99 || !strict, Self::LINE_COMMENTS)
            .with_if(standard >= 199_409 || !strict, Self::DIGRAPHS)
            .with_if(c11 || (c99 && !strict), Self::UNICODE_LITERALS)
            .with_if(c99 && !strict, Self::RAW_STRINGS)
            .with_if(c23, Self::DIGIT_SEPARATORS)
            .with_if(c23, Self::UTF8_CHARACTERS)
            .with_if(c23 || !strict, Self::ELIFDEF)
            .with_if(strict, Self::TRIGRAPHS)
    }

    fn for_cxx(standard: u64, strict: bool) -> Self {
        let cxx11 = standard >= 201_103;
        let cxx14 = standard >= 201_402;
        let cxx17 = standard >= 201_703;
        // gcc 12 and 13 give C++23 as 202100, later ones as 202302; C++20 is 202002 or 201709.
        let cxx23 = standard >= 202_100;
        Self::CXX
            .with(Self::LINE_COMMENTS)
            .with(Self::DIGRAPHS)
            .with_if(cxx11, Self::UNICODE_LITERALS)
            .with_if(cxx11, Self::RAW_STRINGS)
            .with_if(cxx11, Self::USER_LITERALS)
            .with_if(cxx14, Self::DIGIT_SEPARATORS)
            .with_if(cxx17, Self::UTF8_CHARACTERS)
            .with_if(cxx23 || !strict, Self::ELIFDEF)
            .with_if(strict && !cxx17, Self::TRIGRAPHS)
    }

    /// Says whether every rule of `other` holds.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds the rules of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds the rules of `other` when `condition` holds.
    #[must_use]
    fn with_if(self, condition: bool, other: Self) -> Self {
        if condition { self.with(other) } else { self }
    }

    /// Returns the set as a number, for keys on disk.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Takes a set back from its number.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialect({:#x})", self.0)
    }
}

/// Whether the GNU extensions of a standard are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// `-std=gnu..`, the default.
    Gnu,
    /// `-std=c..`, `-std=c++..` or `-ansi`.
    Standard,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_follow_language_and_standard() {
        let gnu17 = Dialect::new(Language::C, 201_710, Strictness::Gnu);
        assert!(gnu17.has(Dialect::RAW_STRINGS) && gnu17.has(Dialect::LINE_COMMENTS));
        assert!(!gnu17.has(Dialect::TRIGRAPHS) && !gnu17.has(Dialect::DIGIT_SEPARATORS));
        let c89 = Dialect::new(Language::C, 0, Strictness::Standard);
        assert!(c89.has(Dialect::TRIGRAPHS) && !c89.has(Dialect::LINE_COMMENTS));
        let gnu89 = Dialect::new(Language::C, 0, Strictness::Gnu);
        assert!(gnu89.has(Dialect::LINE_COMMENTS) && !gnu89.has(Dialect::RAW_STRINGS));
        let c11 = Dialect::new(Language::C, 201_112, Strictness::Standard);
        assert!(!c11.has(Dialect::RAW_STRINGS) && !c11.has(Dialect::ELIFDEF));
        let cxx14 = Dialect::new(Language::Cxx, 201_402, Strictness::Standard);
        assert!(cxx14.has(Dialect::TRIGRAPHS) && cxx14.has(Dialect::DIGIT_SEPARATORS));
        let gnuxx17 = Dialect::new(Language::Cxx, 201_703, Strictness::Gnu);
        assert!(!gnuxx17.has(Dialect::TRIGRAPHS) && gnuxx17.has(Dialect::UTF8_CHARACTERS));
        let assembler = Dialect::new(Language::Assembler, 201_710, Strictness::Gnu);
        assert!(assembler.has(Dialect::ASSEMBLER) && !assembler.has(Dialect::RAW_STRINGS));
    }
}
