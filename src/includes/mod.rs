//! Which files does this unit read?
//!
//! The include closure of a compile, found without running the compiler: each file is reduced once per content to its
//! directives (`reduce`), and a small preprocessor evaluates conditionals and inclusions over the reduced files (`scan`),
//! exactly as gcc does. What it cannot decide exactly it refuses with a place and a reason. It produces no preprocessed
//! text and no diagnostics. Pure but for `source_tree`.
//!
//! Invariant: a closure lists the files that `gcc -M` lists, in its order and spelling, or there is no closure.

pub mod closure;
pub mod dialect;
pub mod expand;
pub mod expression;
mod files;
mod hashing;
pub mod lexer;
pub mod literal;
pub mod macros;
pub mod oracle;
pub mod predefined;
pub mod reduce;
pub mod reduced;
pub mod request;
pub mod scan;
pub mod search;
pub mod source_tree;
pub mod standing;
mod substitute;
pub mod symbols;
pub mod token;
