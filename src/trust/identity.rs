//! Members of a farm, as certificates name them. Pure.
//!
//! The only name that counts in a certificate is one DNS name made here: the member's name in hexadecimal digits, the
//! role, `rdcc`. It can be checked by any TLS library as a server's name, and read back without another parser. Invariant: two
//! identities never share a DNS name.

use std::fmt;
use std::str::FromStr;

use crate::ids::Name;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Keeps the farm.
    Coordinator,
    /// Runs jobs.
    Worker,
    /// Submits jobs.
    Client,
    /// Submits jobs, pushes and removes toolchains, admits and revokes members.
    Admin,
}

impl Role {
    const ALL: [Role; 4] = [Role::Coordinator, Role::Worker, Role::Client, Role::Admin];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Client => "client",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: use worker, client or admin")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| RoleError(text.chars().take(40).collect()))
    }
}

/// A member of a farm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What it is.
    pub role: Role,
    /// What it is called; unique among those of its role.
    pub name: Name,
}

/// Ends every DNS name of a farm; reserved for nobody, and never looked up.
const DOMAIN: &str = "rdcc";
/// Hexadecimal digits in one label, which may have 63 characters.
const LABEL_DIGITS: usize = 60;

impl Identity {
    /// Returns the coordinator's identity: a farm has one.
    pub fn coordinator() -> Self {
        Self {
            role: Role::Coordinator,
            name: Name::new("coordinator").expect("a name"),
        }
    }

    /// Returns the DNS name that stands for it.
    pub fn dns_name(&self) -> String {
        let digits: String = self.name.as_str().bytes().map(|byte| format!("{byte:02x}")).collect();
        let labels = digits.as_bytes().chunks(LABEL_DIGITS);
        let labels: Vec<&str> = labels
            .map(|label| std::str::from_utf8(label).expect("digits"))
            .collect();
        format!("{}.{}.{DOMAIN}", labels.join("."), self.role)
    }

    /// Reads a DNS name back; `None` when it is not one of these.
    pub fn from_dns_name(text: &str) -> Option<Self> {
        let (rest, domain) = text.rsplit_once('.')?;
        let (digits, role) = rest.rsplit_once('.')?;
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b'.').collect();
        let pairs = digits.chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        let name = String::from_utf8(pairs.collect::<Option<Vec<u8>>>()?).ok()?;
        let identity = Self {
            role: role.parse().ok()?,
            name: Name::new(&name).ok()?,
        };
        // One spelling only: other cuts into labels, or capitals, are not ours.
        (domain == DOMAIN && identity.dns_name() == text).then_some(identity)
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role, name: &str) -> Identity {
        Identity {
            role,
            name: Name::new(name).unwrap(),
        }
    }

    #[test]
    fn dns_names_are_read_back_whatever_the_name() {
        for name in ["a", "node1", "A20_3+x.y-z", &"x".repeat(64), "node.worker.rdcc"] {
            for role in Role::ALL {
                let identity = identity(role, name);
                let text = identity.dns_name();
                assert!(text.split('.').all(|label| (1..=63).contains(&label.len())), "{text}");
                assert_eq!(Identity::from_dns_name(&text), Some(identity), "{text}");
            }
        }
        assert_eq!(identity(Role::Worker, "ab").dns_name(), "6162.worker.rdcc");
    }

    #[test]
    fn anything_else_is_nobody() {
        for text in [
            "",
            "rdcc",
            "worker.rdcc",
            ".worker.rdcc",
            "6162.worker.rdcc.",
            "6162.worker.com",
            "6162.boss.rdcc",
            "616.worker.rdcc",
            "61.62.worker.rdcc",
            "6A.worker.rdcc",
            "6162.Worker.rdcc",
            "2f.worker.rdcc",
            "*.worker.rdcc",
            "zz.worker.rdcc",
        ] {
            assert_eq!(Identity::from_dns_name(text), None, "{text}");
        }
    }
}
