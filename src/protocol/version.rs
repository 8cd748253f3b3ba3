//! Which protocol versions this build speaks.
//!
//! Both sides of a session name the newest version they know; they then speak the older of the two, or part with a
//! message that says which side to update. Invariant: `OLDEST <= NEWEST`.

/// The newest protocol that this build speaks.
pub const NEWEST: u32 = 1;
/// The oldest protocol that this build still speaks.
pub const OLDEST: u32 = 1;

/// Two sides that share no protocol version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{peer}` speaks protocol {theirs}, this side {OLDEST} to {NEWEST}: update `{}`",
    if *theirs < OLDEST { peer.as_str() } else { "this side" }
)]
pub struct VersionSkew {
    peer: String,
    theirs: u32,
}

/// Chooses the version to speak with `peer`, whose newest is `theirs`.
pub fn agree(peer: &str, theirs: u32) -> Result<u32, VersionSkew> {
    // A newer peer is asked to come down to our newest; whether it still can is for it to check in turn.
    let spoken = theirs.min(NEWEST);
    if spoken < OLDEST {
        return Err(VersionSkew {
            peer: peer.to_owned(),
            theirs,
        });
    }
    Ok(spoken)
}

/// Checks the version that the other side settled on.
pub fn accept(peer: &str, settled: u32) -> Result<u32, VersionSkew> {
    if (OLDEST..=NEWEST).contains(&settled) {
        Ok(settled)
    } else {
        Err(VersionSkew {
            peer: peer.to_owned(),
            theirs: settled,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_peer_is_met_at_our_newest() {
        assert_eq!(agree("worker `a`", NEWEST + 7), Ok(NEWEST));
    }

    #[test]
    fn unknown_versions_are_refused_with_the_side_to_update() {
        let error = agree("worker `a`", 0).expect_err("0 is no version");
        assert!(error.to_string().contains("update `worker `a``"), "{error}");
        assert!(accept("coordinator", NEWEST + 1).is_err());
    }
}
