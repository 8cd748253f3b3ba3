//! Grant tokens: how a worker knows that the coordinator gave this place to this agent.
//!
//! A token is HMAC-SHA256, under a key that the coordinator drew for this worker's session, over grant, agent session,
//! toolchain, and the variant to run it on if there is one. It says nothing about time: a grant that has ended is voided by
//! name, and each serves once while there is a coordinator, so no clocks need to agree. Invariant: two different (grant,
//! agent, toolchain, variant) never share a token.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::{AgentSessionId, GrantId, ToolchainId};

/// How long worker and agent go on without a coordinator with the places that they have, one job after another. A board
/// that starts again takes a minute; who is revoked meanwhile keeps its places for no longer than this.
pub const REUSED_FOR: Duration = Duration::from_secs(120);

/// What a grant lets run: a job's toolchain, and the variant that it is run with instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantedJob {
    /// The toolchain that was wanted.
    pub toolchain: ToolchainId,
    /// The variant; none when it is run with the toolchain itself.
    pub run_as: Option<ToolchainId>,
}

impl From<ToolchainId> for GrantedJob {
    fn from(toolchain: ToolchainId) -> Self {
        Self {
            toolchain,
            run_as: None,
        }
    }
}

/// Key under which one worker session's tokens are made.
#[derive(Clone, PartialEq, Eq)]
pub struct GrantKey(pub [u8; 32]);

impl std::fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrantKey(…)")
    }
}

impl GrantKey {
    /// Returns the key of the grants that go to one member, by its certificate's name: what it is given is no good in other
    /// hands. Without certificates nobody has a name, and there is one key for all.
    #[must_use]
    pub fn of_holder(&self, holder: &str) -> Self {
        if holder.is_empty() {
            return self.clone();
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"rdcc holder\0");
        mac.update(holder.as_bytes());
        Self(mac.finalize().into_bytes().into())
    }

    fn mac(&self, grant: GrantId, agent: AgentSessionId, job: GrantedJob) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(match job.run_as {
            None => b"rdcc grant 1\0",
            Some(_) => b"rdcc grant 2\0",
        });
        mac.update(&grant.0.to_le_bytes());
        mac.update(&agent.0.to_le_bytes());
        mac.update(job.toolchain.0.as_bytes());
        if let Some(run_as) = job.run_as {
            mac.update(run_as.0.as_bytes());
        }
        mac
    }

    /// Makes the token for a grant.
    pub fn token(&self, grant: GrantId, agent: AgentSessionId, job: impl Into<GrantedJob>) -> [u8; 32] {
        self.mac(grant, agent, job.into()).finalize().into_bytes().into()
    }

    /// Checks a token in constant time.
    pub fn verify(
        &self,
        grant: GrantId,
        agent: AgentSessionId,
        job: impl Into<GrantedJob>,
        token: &[u8],
    ) -> TokenCheck {
        match self.mac(grant, agent, job.into()).verify_slice(token) {
            Ok(()) => TokenCheck::Genuine,
            Err(_) => TokenCheck::Forged,
        }
    }
}

/// What a token turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenCheck {
    /// Made by the coordinator for just this.
    Genuine,
    /// Anything else.
    Forged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn token_is_good_for_its_own_grant_agent_and_toolchain_only() {
        let key = GrantKey([7; 32]);
        let toolchain = ToolchainId(Digest::of(b"t"));
        let token = key.token(GrantId(1), AgentSessionId(2), toolchain);
        let check = |grant, agent, toolchain| key.verify(GrantId(grant), AgentSessionId(agent), toolchain, &token);
        assert_eq!(check(1, 2, toolchain), TokenCheck::Genuine);
        assert_eq!(check(2, 2, toolchain), TokenCheck::Forged);
        assert_eq!(check(1, 1, toolchain), TokenCheck::Forged);
        assert_eq!(check(1, 2, ToolchainId(Digest::of(b"u"))), TokenCheck::Forged);
        let variant = ToolchainId(Digest::of(b"variant"));
        let pair = GrantedJob {
            toolchain,
            run_as: Some(variant),
        };
        let other_way = GrantedJob {
            toolchain: variant,
            run_as: Some(toolchain),
        };
        let of_pair = key.token(GrantId(1), AgentSessionId(2), pair);
        let check_pair = |job: GrantedJob| key.verify(GrantId(1), AgentSessionId(2), job, &of_pair);
        assert_eq!(check_pair(pair), TokenCheck::Genuine);
        for other in [toolchain.into(), variant.into(), other_way] {
            assert_eq!(check_pair(other), TokenCheck::Forged);
        }
        let held = key
            .of_holder("6162.client.rdcc")
            .token(GrantId(1), AgentSessionId(2), toolchain);
        for (holder, expected) in [
            ("6162.client.rdcc", TokenCheck::Genuine),
            ("6163.client.rdcc", TokenCheck::Forged),
            ("", TokenCheck::Forged),
        ] {
            let check = key
                .of_holder(holder)
                .verify(GrantId(1), AgentSessionId(2), toolchain, &held);
            assert_eq!(check, expected, "{holder}");
        }
        assert_eq!(
            key.verify(GrantId(1), AgentSessionId(2), toolchain, &token[..31]),
            TokenCheck::Forged
        );
    }
}
