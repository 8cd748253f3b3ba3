//! Questions in `#if` that only the compiler can answer, such as `__has_attribute(packed)`.
//!
//! The scan asks an [`QueryOracle`]; what it does not know is collected, the caller runs the compiler once over
//! [`question_source`], reads [`parse_answers`], and scans again. Answers hold for one compiler with one set of flags.

use std::collections::BTreeMap;

use super::macros::Special;
use super::symbols::Symbols;

/// One question to the compiler.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// The operator.
    pub operator: Special,
    /// Its operand, without parentheses.
    pub operand: Vec<u8>,
}

/// Knows answers.
pub trait QueryOracle {
    /// Returns the value that the compiler gives, if known.
    fn answer(&self, query: &Query) -> Option<i64>;
}

/// Answers held in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers(BTreeMap<Query, i64>);

impl Answers {
    /// Adds what the compiler said.
    pub fn add(&mut self, query: Query, value: i64) {
        self.0.insert(query, value);
    }

    /// Returns how many answers are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over all answers, sorted by query.
    pub fn iter(&self) -> impl Iterator<Item = (&Query, i64)> {
        self.0.iter().map(|(query, value)| (query, *value))
    }
}

impl QueryOracle for Answers {
    fn answer(&self, query: &Query) -> Option<i64> {
        self.0.get(query).copied()
    }
}

/// Values that an operator of gcc's is known to return: 0, 1, and the dates of the standards' attributes.
const DATES: std::ops::Range<i64> = 200_000..203_500;

/// Starts the lines of the compiler's answers.
const MARK: &str = "rdcc_answer";

/// Returns a source text which, preprocessed by the compiler (`-E`, same flags), answers the queries.
///
/// The value stands behind the mark where the operator is taken in text; an operator that is taken in `#if` only is
/// caught by the conditional around it.
pub fn question_source(queries: &[Query], symbols: &Symbols) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        let operator = symbols.spelling(query.operator.symbol());
        let call = [&operator, b"(".as_slice(), &query.operand, b")"].concat();
        let mark = format!("{MARK} {number} ");
        for (condition, value) in [(b"== 0".as_slice(), b"0".as_slice()), (b"== 1", b"1")] {
            out.extend_from_slice(b"#if ");
            out.extend_from_slice(&call);
            out.extend_from_slice(b" ");
            out.extend_from_slice(condition);
            out.extend_from_slice(b"\n");
            out.extend_from_slice(mark.as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\n#else\n");
        }
        out.extend_from_slice(mark.as_bytes());
        out.extend_from_slice(&call);
        out.extend_from_slice(b"\n#endif\n#endif\n");
    }
    out
}

/// Reads the compiler's output for [`question_source`]. Queries that it did not answer are left out.
pub fn parse_answers(queries: &[Query], output: &[u8]) -> Vec<(Query, i64)> {
    let text = String::from_utf8_lossy(output);
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            if words.next()? != MARK {
                return None;
            }
            let query = queries.get(words.next()?.parse::<usize>().ok()?)?;
            let value = words.next()?.trim_end_matches('L').parse::<i64>().ok()?;
            let plausible = words.next().is_none() && ((0..=1).contains(&value) || DATES.contains(&value));
            plausible.then(|| (query.clone(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_from_the_compilers_output() {
        let query = |operand: &str| Query {
            operator: Special::HasAttribute,
            operand: operand.as_bytes().to_vec(),
        };
        let queries = [query("packed"), query("nonsense"), query("nodiscard")];
        let source = question_source(&queries, &Symbols::new());
        let source = String::from_utf8(source).expect("plain text");
        assert!(source.contains("#if __has_attribute(packed) == 0\nrdcc_answer 0 0\n"));
        let output = b"# 1 \"<stdin>\"\nrdcc_answer 0 1\nrdcc_answer 1 0\nrdcc_answer 2 201907\nrdcc_answer 9 1\n";
        let answers = parse_answers(&queries, output);
        assert_eq!(
            answers,
            [
                (queries[0].clone(), 1),
                (queries[1].clone(), 0),
                (queries[2].clone(), 201_907)
            ]
        );
    }
}
