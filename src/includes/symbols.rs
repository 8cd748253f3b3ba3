//! Gives every spelling that directives mention (identifiers, literals, header names) a small number.
//!
//! Evaluation compares and indexes by number and never looks at bytes again. Numbers are handed out once and never
//! taken back; the owner bounds the memory by starting a new table (see `source_tree`). Invariant: equal bytes have
//! equal numbers within one table, and the numbers in [`known`] are the same in every table.

use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock};

/// A spelling's number within one [`Symbols`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(pub u32);

impl Symbol {
    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

macro_rules! known_symbols {
    ($($name:ident = $text:literal,)*) => {
        /// Spellings with a meaning of their own, numbered alike in every table.
        pub mod known {
            use super::Symbol;
            #[expect(non_camel_case_types, reason = "only the positions of the variants are used")]
            #[expect(clippy::upper_case_acronyms, reason = "only the positions of the variants are used")]
            enum Position { $($name,)* }
            $(
                #[doc = concat!("`", $text, "`")]
                pub const $name: Symbol = Symbol(Position::$name as u32);
            )*
        }
        const KNOWN: &[&str] = &[$($text,)*];
    };
}

known_symbols! {
    EMPTY = "",
    DEFINED = "defined",
    VA_ARGS = "__VA_ARGS__",
    VA_OPT = "__VA_OPT__",
    TRUE = "true",
    FALSE = "false",
    PRAGMA = "_Pragma",
    FILE = "__FILE__",
    LINE = "__LINE__",
    BASE_FILE = "__BASE_FILE__",
    FILE_NAME = "__FILE_NAME__",
    INCLUDE_LEVEL = "__INCLUDE_LEVEL__",
    COUNTER = "__COUNTER__",
    DATE = "__DATE__",
    TIME = "__TIME__",
    TIMESTAMP = "__TIMESTAMP__",
    HAS_INCLUDE = "__has_include",
    HAS_INCLUDE_NEXT = "__has_include_next",
    HAS_EMBED = "__has_embed",
    HAS_ATTRIBUTE = "__has_attribute",
    HAS_CPP_ATTRIBUTE = "__has_cpp_attribute",
    HAS_C_ATTRIBUTE = "__has_c_attribute",
    HAS_BUILTIN = "__has_builtin",
    HAS_FEATURE = "__has_feature",
    HAS_EXTENSION = "__has_extension",
}

/// A table of spellings, shared by all scans of a tree.
#[derive(Debug)]
pub struct Symbols {
    hasher: RandomState,
    inner: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// All spellings, one after the other.
    bytes: Vec<u8>,
    /// End of each spelling in `bytes`; its start is the end of the one before.
    ends: Vec<u32>,
    /// Open addressing, a power of two long; 0 is free, n + 1 is symbol n.
    slots: Vec<u32>,
    full: bool,
}

/// Most bytes one table may hold, so that offsets fit 32 bits with room to spare. Real trees stay below 100 MB; past this
/// every new spelling gets the number of the empty one, and [`Symbols::is_full`] says so.
const BYTES_MAX: usize = 1 << 30;

impl Default for Symbols {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbols {
    /// Makes a table that holds the [`known`] spellings.
    pub fn new() -> Self {
        let symbols = Self {
            hasher: RandomState::new(),
            inner: RwLock::new(Table::default()),
        };
        for text in KNOWN {
            symbols.intern(text.as_bytes());
        }
        symbols
    }

    /// Returns the number of `spelling`, a new one if need be.
    pub fn intern(&self, spelling: &[u8]) -> Symbol {
        let hash = self.hasher.hash_one(spelling);
        let found = self.read(|table| table.find(hash, spelling).ok());
        if let Some(symbol) = found {
            return symbol;
        }
        let mut table = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(&self.hasher, hash, spelling)
    }

    /// Calls `use_it` with the bytes of `symbol`. Nothing in `use_it` may call back into this table.
    pub fn with<R>(&self, symbol: Symbol, use_it: impl FnOnce(&[u8]) -> R) -> R {
        self.read(|table| use_it(table.get(symbol)))
    }

    /// Copies the bytes of `symbol`.
    pub fn spelling(&self, symbol: Symbol) -> Vec<u8> {
        self.with(symbol, <[u8]>::to_vec)
    }

    /// Appends the bytes of `symbol` to `out`.
    pub fn append(&self, symbol: Symbol, out: &mut Vec<u8>) {
        self.with(symbol, |bytes| out.extend_from_slice(bytes));
    }

    /// Returns how many numbers have been given out.
    pub fn len(&self) -> usize {
        self.read(|table| table.ends.len())
    }

    /// Always false: the known spellings are there from the start.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns the memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.read(|table| table.bytes.capacity() + 4 * (table.ends.capacity() + table.slots.capacity()))
    }

    /// Says whether the table has reached its hard limit, so that equal numbers no longer mean equal bytes.
    pub fn is_full(&self) -> bool {
        self.read(|table| table.full)
    }

    fn read<R>(&self, use_it: impl FnOnce(&Table) -> R) -> R {
        use_it(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Table {
    fn get(&self, symbol: Symbol) -> &[u8] {
        let index = symbol.index();
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..self.ends[index] as usize]
    }

    /// Finds the symbol, or the slot where it belongs.
    fn find(&self, hash: u64, spelling: &[u8]) -> Result<Symbol, usize> {
        if self.slots.is_empty() {
            return Err(0);
        }
        let mask = self.slots.len() - 1;
        // Truncation is meant: the low bits choose the slot.
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                0 => return Err(slot),
                number => {
                    let symbol = Symbol(number - 1);
                    if self.get(symbol) == spelling {
                        return Ok(symbol);
                    }
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    fn insert(&mut self, hasher: &RandomState, hash: u64, spelling: &[u8]) -> Symbol {
        if self.bytes.len() + spelling.len() > BYTES_MAX {
            self.full = true;
            return known::EMPTY;
        }
        // Half full at most: short probes matter more than the bytes.
        if self.slots.len() < 2 * (self.ends.len() + 1) {
            self.grow(hasher);
        }
        match self.find(hash, spelling) {
            Ok(symbol) => symbol,
            Err(slot) => {
                let number = self.ends.len() as u32;
                self.bytes.extend_from_slice(spelling);
                self.ends.push(self.bytes.len() as u32);
                self.slots[slot] = number + 1;
                Symbol(number)
            }
        }
    }

    fn grow(&mut self, hasher: &RandomState) {
        let length = (2 * self.slots.len()).max(1024);
        self.slots = vec![0; length];
        for number in 0..self.ends.len() as u32 {
            let mut slot = hasher.hash_one(self.get(Symbol(number))) as usize & (length - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (length - 1);
            }
            self.slots[slot] = number + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_bytes_have_equal_numbers() {
        let symbols = Symbols::new();
        let first: Vec<Symbol> = (0..5000)
            .map(|n| symbols.intern(format!("name{n}").as_bytes()))
            .collect();
        for (n, symbol) in first.iter().enumerate() {
            assert_eq!(symbols.intern(format!("name{n}").as_bytes()), *symbol);
            assert_eq!(symbols.spelling(*symbol), format!("name{n}").as_bytes());
        }
        assert_eq!(symbols.len(), 5000 + KNOWN.len());
        assert!(!symbols.is_full());
    }

    #[test]
    fn known_spellings_are_numbered_alike_in_every_table() {
        let symbols = Symbols::new();
        assert_eq!(symbols.intern(b"defined"), known::DEFINED);
        assert_eq!(symbols.intern(b""), known::EMPTY);
        assert_eq!(symbols.spelling(known::HAS_EXTENSION), b"__has_extension");
    }
}
