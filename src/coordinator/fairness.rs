//! Who is served next when several wait: whoever holds the least.
//!
//! What an account holds is the power of the slots that its grants take, so two builds with equal appetite get equal
//! parts of the farm whatever the length of their jobs and the mix of nodes, and no prediction can be wrong about it. On
//! a tie the account that was served longest ago goes first. The rule is applied twice: among agents, then among the
//! builds of the agent. Invariant: an account's `held_milli` is the sum over its grants that take a slot.

/// One agent's, or one build's, account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Share {
    /// Sum of the powers of the slots it holds, in thousandths of a reference core.
    held_milli: u64,
    /// When it was served last, counted in grants.
    served: u64,
}

impl Share {
    /// Books a slot of this power, taken by grant number `turn`.
    pub fn charge(&mut self, power_milli: u32, turn: u64) {
        self.held_milli += u64::from(power_milli);
        self.served = turn;
    }

    /// Gives a slot of this power back.
    pub fn release(&mut self, power_milli: u32) {
        self.held_milli = self.held_milli.saturating_sub(power_milli.into());
    }

    /// Power held now, in thousandths of a reference core.
    pub fn held_milli(&self) -> u64 {
        self.held_milli
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_held_goes_first_then_least_recently_served() {
        let (mut big, mut early, mut late) = (Share::default(), Share::default(), Share::default());
        big.charge(2000, 1);
        early.charge(1000, 2);
        late.charge(1000, 3);
        assert!(early < late && late < big);
        big.release(2000);
        assert!(big < early);
    }
}
