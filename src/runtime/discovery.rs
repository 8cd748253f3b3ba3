//! Finding coordinators on the local network by multicast DNS (RFC 6762, 6763), for those who do not know the address.
//!
//! Finding is not trusting: whoever is on the network may announce whatever they like, so nothing here is used but for
//! being shown to a person, who joins by a token. What comes from the network is made printable and short. Nothing is
//! announced unless it is asked for. Invariant: a search ends after its time, with [`FOUND_MAX`] answers at most.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mdns_sd::{ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

/// What a coordinator is on the network.
const SERVICE: &str = "_rdcc._tcp.local.";
/// Most answers to a search.
const FOUND_MAX: usize = 256;
/// Longest text that is taken from an answer, characters.
const TEXT_MAX: usize = 64;

/// What a coordinator says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// What it is called; unique names are the announcer's business.
    pub name: String,
    /// Where it listens; an unspecified address stands for all of the machine's.
    pub address: SocketAddr,
    /// Whether it asks for certificates.
    pub certificates: bool,
}

/// A coordinator that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it calls itself.
    pub name: String,
    /// Where it says that it listens.
    pub addresses: Vec<SocketAddr>,
    /// Its software, as it says.
    pub version: String,
    /// Whether it says that it asks for certificates.
    pub certificates: bool,
}

/// Multicast DNS cannot be used here.
#[derive(Debug, thiserror::Error)]
#[error("multicast DNS cannot be used on this machine")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// An announcement, until it is dropped.
pub struct Announced(ServiceDaemon);

impl std::fmt::Debug for Announced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announced")
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // It says goodbye by itself; nobody waits for that.
        let _ = self.0.shutdown();
    }
}

/// Announces a coordinator on all networks of this machine. The work is done by a thread of the library's.
pub fn announce(announcement: &Announcement) -> Result<Announced, DiscoveryError> {
    let daemon = ServiceDaemon::new()?;
    let Announcement {
        name,
        address,
        certificates,
    } = announcement;
    let properties = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("certificates", if *certificates { "yes" } else { "no" }),
    ];
    let host = format!("{name}.local.");
    let info = match address.ip() {
        ip if ip.is_unspecified() => {
            ServiceInfo::new(SERVICE, name, &host, "", address.port(), &properties[..])?.enable_addr_auto()
        }
        ip => ServiceInfo::new(SERVICE, name, &host, ip, address.port(), &properties[..])?,
    };
    daemon.register(info)?;
    Ok(Announced(daemon))
}

/// Asks the networks of this machine for coordinators, for that long. Blocks.
pub fn find(wait: Duration) -> Result<Vec<Found>, DiscoveryError> {
    let daemon = ServiceDaemon::new()?;
    let answers = daemon.browse(SERVICE)?;
    let end = Instant::now() + wait;
    let mut found = BTreeMap::new();
    while let Ok(event) = answers.recv_deadline(end) {
        match event {
            ServiceEvent::ServiceResolved(service) if found.len() < FOUND_MAX => {
                found.insert(service.fullname.clone(), taken(&service));
            }
            ServiceEvent::ServiceRemoved(_, name) => drop(found.remove(&name)),
            _ => {}
        }
    }
    // Its thread ends with this process, too.
    let _ = daemon.shutdown();
    Ok(found.into_values().collect())
}

fn taken(service: &ResolvedService) -> Found {
    let property = |name| printable(service.get_property_val_str(name).unwrap_or_default());
    let ips = service.addresses.iter().map(|address| address.to_ip_addr());
    let mut ips: Vec<IpAddr> = ips.collect();
    ips.sort();
    let name = service.fullname.strip_suffix(SERVICE).unwrap_or(&service.fullname);
    Found {
        name: printable(name.trim_end_matches('.')),
        addresses: ips.into_iter().map(|ip| SocketAddr::new(ip, service.port)).collect(),
        version: property("version"),
        certificates: property("certificates") == "yes",
    }
}

/// Takes what a terminal may be shown.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(TEXT_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_the_network_is_made_harmless() {
        assert_eq!(printable("pc-1"), "pc-1");
        assert_eq!(printable("a\x1b[2Jb c\u{202e}"), "a?[2Jb?c?");
        assert_eq!(printable(&"x".repeat(500)).len(), TEXT_MAX);
    }
}
