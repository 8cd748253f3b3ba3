//! Who belongs to the farm, and who may still come in: a state machine over joins, renewals and revocations.
//!
//! A member is known by the digests of its certificates, the present one and the one before, so that a name that was revoked may be
//! given again without the old certificate being any good. Pure; `farm` keeps it on disk. Invariants: a token serves as often as it says
//! and no longer; nobody takes the name of a member that is there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::Name;
use crate::trust::identity::{Identity, Role};
use crate::trust::join_string::SECRET_BYTES;

/// Members of a farm.
const MEMBERS_MAX: usize = 10_000;
/// Tokens that are good at one time.
const TOKENS_MAX: usize = 1000;

/// A way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    /// Digest of the secret: whoever reads the file cannot join with it.
    secret: String,
    role: String,
    expires_unix_s: u64,
    uses: u32,
    by: String,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// When it joined, seconds since 1970.
    pub joined_unix_s: u64,
    /// When its newest certificate ends.
    pub expires_unix_s: u64,
    /// Who made the token that it joined with.
    pub admitted_by: String,
    /// Digests of the certificates that it may use, the newest last.
    certificates: Vec<String>,
}

/// All members, and all ways in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Members {
    tokens: Vec<Token>,
    /// By the DNS name of the identity.
    members: BTreeMap<String, Member>,
}

/// Why somebody does not come in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// No such token, or not any more. Which of these is nobody's business.
    #[error("this token is not good: it is wrong, used up, or has expired; `rdcc token create` makes another one")]
    Token,
    /// The name is a member's.
    #[error("there is a {0} already: give another name with `--name`, or have it revoked first (`rdcc node revoke {name}`)", name = .0.name)]
    Taken(Identity),
    /// Not a member, or no more.
    #[error("there is no member `{0}`; `rdcc node list` shows them")]
    Unknown(Name),
    /// Beyond the bounds.
    #[error("the farm has {MEMBERS_MAX} members or {TOKENS_MAX} tokens, which is all it takes")]
    Full,
    /// A role that nobody joins as.
    #[error("nobody joins a farm as its {0}")]
    Role(Role),
}

fn mark(secret: &[u8]) -> String {
    Digest::of(secret).to_string()
}

impl Members {
    /// Makes a way in for `uses` machines.
    pub fn add_token(
        &mut self,
        secret: &[u8; SECRET_BYTES],
        role: Role,
        expires_unix_s: u64,
        uses: u32,
        by: &str,
        now_unix_s: u64,
    ) -> Result<(), MembersError> {
        if role == Role::Coordinator {
            return Err(MembersError::Role(role));
        }
        self.drop_expired(now_unix_s);
        if self.tokens.len() >= TOKENS_MAX {
            return Err(MembersError::Full);
        }
        self.tokens.push(Token {
            secret: mark(secret),
            role: role.to_string(),
            expires_unix_s,
            uses,
            by: by.to_owned(),
        });
        Ok(())
    }

    /// Lets in whoever shows a secret, under a name. [`Members::certify`] has to follow.
    pub fn admit(&mut self, secret: &[u8], name: &Name, now_unix_s: u64) -> Result<Identity, MembersError> {
        self.drop_expired(now_unix_s);
        let mark = mark(secret);
        let token = self
            .tokens
            .iter_mut()
            .find(|token| token.secret == mark)
            .ok_or(MembersError::Token)?;
        let identity = Identity {
            role: token.role.parse().map_err(|_| MembersError::Token)?,
            name: name.clone(),
        };
        if self.members.contains_key(&identity.dns_name()) {
            return Err(MembersError::Taken(identity));
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(MembersError::Full);
        }
        token.uses = token.uses.saturating_sub(1);
        let member = Member {
            joined_unix_s: now_unix_s,
            expires_unix_s: now_unix_s,
            admitted_by: token.by.clone(),
            certificates: Vec::new(),
        };
        self.members.insert(identity.dns_name(), member);
        self.tokens.retain(|token| token.uses > 0);
        Ok(identity)
    }

    /// Notes a certificate that was signed for a member.
    pub fn certify(
        &mut self,
        identity: &Identity,
        certificate: Digest,
        expires_unix_s: u64,
    ) -> Result<(), MembersError> {
        let member = self.members.get_mut(&identity.dns_name());
        let member = member.ok_or_else(|| MembersError::Unknown(identity.name.clone()))?;
        // The one before is used until the member has the new one in hand.
        let before = member.certificates.len().saturating_sub(1);
        member.certificates.drain(..before);
        member.certificates.push(certificate.to_string());
        member.expires_unix_s = expires_unix_s;
        Ok(())
    }

    /// Says whether this certificate is one of the member's.
    pub fn knows(&self, identity: &Identity, certificate: &Digest) -> bool {
        let member = self.members.get(&identity.dns_name());
        member.is_some_and(|member| member.certificates.contains(&certificate.to_string()))
    }

    /// Throws out all members of a name, of whatever role.
    pub fn revoke(&mut self, name: &Name) -> Result<Vec<Identity>, MembersError> {
        let found: Vec<Identity> = self
            .list()
            .map(|(identity, _)| identity)
            .filter(|identity| identity.name == *name)
            .collect();
        if found.is_empty() {
            return Err(MembersError::Unknown(name.clone()));
        }
        for identity in &found {
            self.members.remove(&identity.dns_name());
        }
        Ok(found)
    }

    /// Iterates over all members.
    pub fn list(&self) -> impl Iterator<Item = (Identity, &Member)> {
        let identity = |(name, member)| Some((Identity::from_dns_name(name)?, member));
        self.members
            .iter()
            .map(|(name, member)| (name.as_str(), member))
            .filter_map(identity)
    }

    fn drop_expired(&mut self, now_unix_s: u64) {
        self.tokens
            .retain(|token| token.expires_unix_s > now_unix_s && token.uses > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; SECRET_BYTES] = [7; SECRET_BYTES];

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn with_token(uses: u32) -> Members {
        let mut members = Members::default();
        members.add_token(&SECRET, Role::Worker, 100, uses, "boss", 0).unwrap();
        members
    }

    #[test]
    fn token_serves_as_often_as_it_says_until_it_expires() {
        let mut members = with_token(2);
        let admitted = members.admit(&SECRET, &name("a"), 10).unwrap();
        assert_eq!((admitted.role, admitted.name.as_str()), (Role::Worker, "a"));
        assert_eq!(
            members.admit(&[8; SECRET_BYTES], &name("b"), 10),
            Err(MembersError::Token)
        );
        assert_eq!(members.admit(&SECRET[..5], &name("b"), 10), Err(MembersError::Token));
        members.admit(&SECRET, &name("b"), 99).unwrap();
        assert_eq!(
            members.admit(&SECRET, &name("c"), 99),
            Err(MembersError::Token),
            "used up"
        );
        let mut late = with_token(2);
        assert_eq!(
            late.admit(&SECRET, &name("a"), 100),
            Err(MembersError::Token),
            "expired"
        );
        let as_coordinator = late.add_token(&SECRET, Role::Coordinator, 100, 1, "x", 0);
        assert_eq!(as_coordinator, Err(MembersError::Role(Role::Coordinator)));
    }

    #[test]
    fn name_of_a_member_is_not_given_again_and_costs_no_use() {
        let mut members = with_token(2);
        members.admit(&SECRET, &name("a"), 1).unwrap();
        assert!(matches!(
            members.admit(&SECRET, &name("a"), 1),
            Err(MembersError::Taken(_))
        ));
        members.admit(&SECRET, &name("b"), 1).unwrap();
    }

    #[test]
    fn certificates_are_good_until_the_second_renewal_or_revocation() {
        let mut members = with_token(9);
        let identity = members.admit(&SECRET, &name("a"), 1).unwrap();
        let certificates = [1u8, 2, 3].map(|byte| Digest::of(&[byte]));
        let known = |members: &Members| certificates.map(|certificate| members.knows(&identity, &certificate));
        for (certificate, expected) in
            certificates
                .iter()
                .zip([[true, false, false], [true, true, false], [false, true, true]])
        {
            members.certify(&identity, *certificate, 50).unwrap();
            assert_eq!(known(&members), expected);
        }
        assert_eq!(members.revoke(&name("a")), Ok(vec![identity.clone()]));
        assert_eq!(known(&members), [false; 3]);
        assert!(members.certify(&identity, certificates[0], 60).is_err());
        assert_eq!(members.revoke(&name("a")), Err(MembersError::Unknown(name("a"))));
        members.admit(&SECRET, &name("a"), 1).unwrap();
        assert_eq!(
            known(&members),
            [false; 3],
            "the name is given again, the old certificates are not"
        );
    }

    #[test]
    fn file_has_no_secret_in_it_and_says_the_same() {
        let mut members = with_token(3);
        let identity = members.admit(&SECRET, &name("a"), 1).unwrap();
        members.certify(&identity, Digest::of(b"c"), 5).unwrap();
        let text = serde_json::to_string(&members).unwrap();
        assert!(!text.contains(&"07".repeat(SECRET_BYTES)));
        assert_eq!(serde_json::from_str::<Members>(&text).unwrap(), members);
    }
}
