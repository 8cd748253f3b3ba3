//! A worker's cores where they are of different speed (big.LITTLE): which slots are on which.
//!
//! A worker keeps each job on the cores of one group, and it is the coordinator that says which, since a long job had
//! better wait for a fast core than take a slow one. A worker whose cores are alike has one group. Invariant: `taken` is,
//! for each group, how many of the worker's grants that take a slot are for it.

use super::events::{CoreGroup, WorkerHello};
use crate::ids::CoreGroupId;

/// The groups of one worker's cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cores {
    groups: Vec<Group>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    told: CoreGroup,
    taken: u32,
}

impl Cores {
    /// Starts with all slots free.
    pub fn new(hello: &WorkerHello) -> Self {
        let alike = CoreGroup {
            slots: hello.slots,
            power_milli: hello.power_milli,
        };
        let told = match hello.cores.is_empty() {
            true => std::slice::from_ref(&alike),
            false => &hello.cores,
        };
        let groups = told.iter().map(|told| Group { told: *told, taken: 0 });
        Self {
            groups: groups.collect(),
        }
    }

    /// Whether all cores are of one speed.
    pub fn are_alike(&self) -> bool {
        self.groups.len() == 1
    }

    /// Returns all groups, the fastest first.
    pub fn ids(&self) -> impl Iterator<Item = CoreGroupId> + use<> {
        (0..self.groups.len() as u8).map(CoreGroupId)
    }

    /// Returns where the next job goes that may go to any: the fastest cores that have a slot, or the slowest of all.
    pub fn next(&self) -> CoreGroupId {
        let last = CoreGroupId(self.groups.len().saturating_sub(1) as u8);
        self.ids().find(|id| self.free(*id) > 0).unwrap_or(last)
    }

    /// Returns how many slots of a group are free.
    pub fn free(&self, id: CoreGroupId) -> u32 {
        let group = self.groups.get(usize::from(id.0));
        group.map_or(0, |group| group.told.slots.saturating_sub(group.taken))
    }

    /// Takes a slot, which may be one too many: a worker may run jobs that nobody here gave it.
    pub fn take(&mut self, id: CoreGroupId) {
        if let Some(group) = self.groups.get_mut(usize::from(id.0)) {
            group.taken += 1;
        }
    }

    /// Gives it back.
    pub fn give_back(&mut self, id: CoreGroupId) {
        if let Some(group) = self.groups.get_mut(usize::from(id.0)) {
            group.taken = group.taken.saturating_sub(1);
        }
    }

    /// Returns how many slots of each group are taken.
    pub fn taken(&self) -> impl Iterator<Item = (CoreGroupId, u32)> {
        self.ids().zip(self.groups.iter().map(|group| group.taken))
    }

    /// Returns how much faster than the mean each group is, as logarithm.
    pub fn steps(&self) -> impl Iterator<Item = f64> {
        let slots: f64 = self.groups.iter().map(|group| f64::from(group.told.slots)).sum();
        let power = |group: &Group| f64::from(group.told.power_milli.max(1));
        let all: f64 = self
            .groups
            .iter()
            .map(|group| power(group) * f64::from(group.told.slots))
            .sum();
        let mean = if slots > 0.0 { all / slots } else { 1.0 };
        let steps = self.groups.iter().map(move |group| (power(group) / mean.max(1.0)).ln());
        // A worker without slots tells nothing of its cores.
        steps.map(move |step| if slots > 0.0 { step } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(groups: &[(u32, u32)]) -> Cores {
        let groups = groups.iter().map(|(slots, power_milli)| Group {
            told: CoreGroup {
                slots: *slots,
                power_milli: *power_milli,
            },
            taken: 0,
        });
        Cores {
            groups: groups.collect(),
        }
    }

    #[test]
    fn fastest_free_cores_are_next() {
        let mut cores = cores(&[(2, 2000), (4, 500)]);
        let mut went = Vec::new();
        for _ in 0..7 {
            went.push(cores.next().0);
            cores.take(cores.next());
        }
        assert_eq!(went, [0, 0, 1, 1, 1, 1, 1], "beyond the last slot it is the slowest");
        cores.give_back(CoreGroupId(0));
        assert_eq!(cores.next(), CoreGroupId(0));
    }

    #[test]
    fn steps_are_about_the_mean_of_all_slots() {
        let told: Vec<f64> = cores(&[(2, 2000), (4, 500)]).steps().map(f64::exp).collect();
        assert!((told[0] - 2.0).abs() < 1e-9 && (told[1] - 0.5).abs() < 1e-9, "{told:?}");
        assert_eq!(cores(&[(2, 700)]).steps().collect::<Vec<_>>(), [0.0]);
        assert_eq!(cores(&[(0, 0)]).steps().collect::<Vec<_>>(), [0.0]);
    }
}
