//! Who goes first when space is short: the least recently used, never what is in use.
//!
//! Pure: sizes, times of use and pins in, names out. Times are any growing numbers.

/// Something that takes up space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<K> {
    /// What it is called.
    pub key: K,
    /// How much space would be free without it, bytes.
    pub bytes: u64,
    /// When it was last used; larger is later.
    pub last_use: u64,
    /// How many users it has right now. With any, it stays.
    pub pins: u32,
}

/// What is not in use does not take up enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes are needed, but only {freeable} could be freed; the rest is in use")]
pub struct NotEnough {
    /// Bytes asked for.
    pub wanted: u64,
    /// Bytes that nobody uses.
    pub freeable: u64,
}

/// Chooses what to remove so that at least `wanted` bytes become free, oldest first.
///
/// Takes no more than needed: without the last one chosen, it would not be enough. Equal times are decided by key, so
/// that the choice is the same every time.
pub fn choose<K: Ord>(candidates: impl IntoIterator<Item = Candidate<K>>, wanted: u64) -> Result<Vec<K>, NotEnough> {
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let mut free: Vec<Candidate<K>> = candidates.into_iter().filter(|candidate| candidate.pins == 0).collect();
    let freeable = free
        .iter()
        .fold(0_u64, |sum, candidate| sum.saturating_add(candidate.bytes));
    if freeable < wanted {
        return Err(NotEnough { wanted, freeable });
    }
    free.sort_by(|a, b| (a.last_use, &a.key).cmp(&(b.last_use, &b.key)));
    let mut sum = 0_u64;
    let enough = |candidate: &Candidate<K>| {
        let go_on = sum < wanted;
        sum = sum.saturating_add(candidate.bytes);
        go_on
    };
    Ok(free
        .into_iter()
        .take_while(enough)
        .map(|candidate| candidate.key)
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(key: usize, bytes: u64, last_use: u64, pins: u32) -> Candidate<usize> {
        Candidate {
            key,
            bytes,
            last_use,
            pins,
        }
    }

    #[test]
    fn oldest_goes_first_and_the_pinned_stay() {
        let all = [candidate(1, 10, 3, 0), candidate(2, 10, 1, 1), candidate(3, 10, 2, 0)];
        assert_eq!(choose(all.clone(), 0), Ok(vec![]));
        assert_eq!(choose(all.clone(), 1), Ok(vec![3]));
        assert_eq!(choose(all.clone(), 11), Ok(vec![3, 1]));
        let error = choose(all, 21).unwrap_err();
        assert_eq!((error.wanted, error.freeable), (21, 20));
    }

    proptest! {
        #[test]
        fn choice_is_the_shortest_old_prefix(
            all in prop::collection::vec((0u64..100, 0u64..20, 0u32..3), 0..40), wanted in 0u64..2000
        ) {
            let all: Vec<_> = all
                .into_iter()
                .enumerate()
                .map(|(key, (bytes, last_use, pins))| candidate(key, bytes, last_use, pins))
                .collect();
            let of = |key: &usize| &all[*key];
            let free: u64 = all.iter().filter(|c| c.pins == 0).map(|c| c.bytes).sum();
            match choose(all.clone(), wanted) {
                Err(error) => prop_assert!(free < wanted && error.freeable == free),
                Ok(chosen) => {
                    let sum: u64 = chosen.iter().map(|key| of(key).bytes).sum();
                    prop_assert!(sum >= wanted);
                    if let Some(last) = chosen.last() {
                        prop_assert!(sum - of(last).bytes < wanted, "one too many");
                    }
                    for key in &chosen {
                        prop_assert_eq!(of(key).pins, 0);
                    }
                    let youngest = chosen.iter().map(|key| of(key).last_use).max().unwrap_or(0);
                    for kept in all.iter().filter(|c| c.pins == 0 && !chosen.contains(&c.key)) {
                        prop_assert!(chosen.is_empty() || kept.last_use >= youngest);
                    }
                }
            }
        }
    }
}
