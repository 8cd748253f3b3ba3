//! Amounts as people write them in configuration: `4 GiB`, `500 MiB`, `90 s`, `10 min`.
//!
//! A number without a unit is refused: nobody remembers which unit a setting had. Bytes come in powers of 1024 (`KiB`)
//! or 1000 (`kB`), as written.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Text that is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct QuantityError {
    text: String,
    what: &'static str,
}

const BYTE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
const TIME_UNITS_MS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

fn parse(text: &str, units: &[(&str, u64)], what: &'static str) -> Result<u64, QuantityError> {
    let wrong = || QuantityError {
        text: text.chars().take(80).collect(),
        what,
    };
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = trimmed[..digits].parse().map_err(|_| wrong())?;
    let unit = trimmed[digits..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

impl std::str::FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(
            text,
            BYTE_UNITS,
            "an amount of bytes: write a whole number and a unit, as in `4 GiB`",
        )
        .map(Self)
    }
}

impl std::str::FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let ms = parse(
            text,
            TIME_UNITS_MS,
            "a length of time: write a whole number and a unit, as in `90 s`",
        )?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

struct Written<T>(std::marker::PhantomData<T>, &'static str);

impl<T: std::str::FromStr<Err = QuantityError>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text such as `{}`", self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Written(std::marker::PhantomData, "4 GiB"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Written(std::marker::PhantomData, "90 s"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_with_their_units() {
        assert_eq!("4 GiB".parse(), Ok(Bytes(4 << 30)));
        assert_eq!("500MB".parse(), Ok(Bytes(500_000_000)));
        assert_eq!("0 B".parse(), Ok(Bytes(0)));
        assert_eq!(" 90 s ".parse(), Ok(Span(Duration::from_secs(90))));
        assert_eq!("10min".parse(), Ok(Span(Duration::from_secs(600))));
    }

    #[test]
    fn amounts_without_unit_or_out_of_range_are_refused() {
        for text in [
            "",
            "4",
            "GiB",
            "-1 GiB",
            "1.5 GiB",
            "4 gib",
            "99999999999 TiB",
            "4 GiB x",
            "é",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert!("5 m".parse::<Span>().is_err());
    }
}
