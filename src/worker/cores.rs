//! Cores of different speed (big.LITTLE): which there are, and lists of processors in the kernel's notation.
//!
//! Pure. A worker that names groups of cores keeps each job on those of one group, so that what the coordinator knows of
//! a slot's speed holds. Invariant: a [`CpuList`] is not empty, and names no processor above [`CpuList::HIGHEST`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Processors, as in `0-3,6`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct CpuList(BTreeSet<u16>);

/// Text that is no [`CpuList`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no list of processors, such as \"4-5\" or \"0-2,7\"")]
pub struct CpuListError(String);

impl CpuList {
    /// The highest number that the kernel's usual sets of processors have room for.
    pub const HIGHEST: u16 = 1023;

    /// Takes numbers. `None` when there are none, or one is too high.
    pub fn new(numbers: impl IntoIterator<Item = u16>) -> Option<Self> {
        let numbers: BTreeSet<u16> = numbers.into_iter().collect();
        let fits = numbers.last().is_some_and(|last| *last <= Self::HIGHEST);
        fits.then_some(Self(numbers))
    }

    /// One processor.
    pub fn only(number: u8) -> Self {
        Self(BTreeSet::from([u16::from(number)]))
    }

    /// Returns them, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether some are in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// Whether all are in `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }
}

impl FromStr for CpuList {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        let number = |text: &str| {
            text.trim()
                .parse::<u16>()
                .ok()
                .filter(|number| *number <= Self::HIGHEST)
        };
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Some(number(first)?..=number(last)?),
            None => number(part).map(|only| only..=only),
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let right = ranges.filter(|ranges| ranges.iter().all(|range| !range.is_empty()));
        right
            .and_then(|ranges| Self::new(ranges.into_iter().flatten()))
            .ok_or_else(|| CpuListError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for CpuList {
    type Error = CpuListError;

    fn try_from(text: String) -> Result<Self, CpuListError> {
        text.parse()
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.numbers().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| *next == last + 1) {
                last = next;
            }
            match first == last {
                true => write!(f, "{separator}{first}")?,
                false => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Cores of one speed, as the settings have them.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreGroup {
    /// Which they are.
    pub cpus: CpuList,
    /// Jobs on them at one time.
    pub slots: u32,
    /// One of these slots against one reference core; `None`: to be measured.
    pub power: Option<f64>,
}

/// The same, complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Which they are.
    pub cpus: CpuList,
    /// Jobs on them at one time.
    pub slots: u32,
    /// One of these slots against one reference core.
    pub power: f64,
}

/// Puts the fastest groups first, which is how they are numbered.
pub fn in_order(mut groups: Vec<Group>) -> Vec<Group> {
    groups.sort_by(|one, other| other.power.total_cmp(&one.power));
    groups
}

/// Returns the mean power of all slots; 1.0 when there are none.
pub fn mean_power(groups: &[Group]) -> f64 {
    let slots: f64 = groups.iter().map(|group| f64::from(group.slots)).sum();
    let all: f64 = groups.iter().map(|group| f64::from(group.slots) * group.power).sum();
    if slots > 0.0 { all / slots } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        for (text, shown) in [
            ("4-5", "4-5"),
            ("0,1,2,7", "0-2,7"),
            (" 3 , 1 ", "1,3"),
            ("5-5", "5"),
            ("1023", "1023"),
        ] {
            assert_eq!(
                text.parse::<CpuList>().map(|list| list.to_string()),
                Ok(shown.to_owned())
            );
        }
        for text in ["", "-", "a", "3-1", "1-", "1,,2", "1024", "0-70000", "-1"] {
            let error = text.parse::<CpuList>().expect_err(text).to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn groups_are_numbered_by_speed_and_their_mean_is_that_of_slots() {
        let group = |cpus: &str, slots, power| Group {
            cpus: cpus.parse().expect("a list"),
            slots,
            power,
        };
        let groups = in_order(vec![group("0-3", 4, 0.5), group("4-5", 2, 2.0)]);
        assert_eq!(groups[0].cpus.to_string(), "4-5");
        assert!((mean_power(&groups) - 1.0).abs() < 1e-9);
    }
}
