//! Which member may call what: one table. Pure.
//!
//! Where no certificates are asked for, whoever gets through may do everything, as on one's own machine. Invariant: what is not in the
//! table is allowed to nobody.

use crate::trust::identity::Role::{self, Admin, Client, Worker};
use crate::trust::listening::{Guarded, Peer};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// Members of these roles.
    Roles(&'static [Role]),
    /// Also who has no certificate yet.
    Everybody,
}

/// The methods, as gRPC names them.
const TABLE: &[(&str, Allowed)] = &[
    ("/rdcc.v1.Coordinator/AgentSession", Allowed::Roles(&[Client, Admin])),
    ("/rdcc.v1.Coordinator/WorkerSession", Allowed::Roles(&[Worker])),
    ("/rdcc.v1.Coordinator/Status", Allowed::Roles(&[Client, Admin])),
    ("/rdcc.v1.Coordinator/SetDrain", Allowed::Roles(&[Admin])),
    ("/rdcc.v1.Toolchains/Push", Allowed::Roles(&[Admin])),
    ("/rdcc.v1.Toolchains/List", Allowed::Roles(&[Client, Admin])),
    ("/rdcc.v1.Toolchains/Show", Allowed::Roles(&[Worker, Client, Admin])),
    ("/rdcc.v1.Toolchains/Remove", Allowed::Roles(&[Admin])),
    (
        "/rdcc.v1.Toolchains/FetchBundle",
        Allowed::Roles(&[Worker, Client, Admin]),
    ),
    (
        "/rdcc.v1.Toolchains/FetchGolden",
        Allowed::Roles(&[Worker, Client, Admin]),
    ),
    ("/rdcc.v1.Enrolment/Join", Allowed::Everybody),
    ("/rdcc.v1.Enrolment/Renew", Allowed::Roles(&[Worker, Client, Admin])),
    ("/rdcc.v1.Enrolment/CreateToken", Allowed::Roles(&[Admin])),
    ("/rdcc.v1.Enrolment/ListMembers", Allowed::Roles(&[Admin])),
    ("/rdcc.v1.Enrolment/Revoke", Allowed::Roles(&[Admin])),
];

/// Says whether `peer` may call the method at `path`, or why not, in words for its user.
pub fn check(path: &str, peer: &Peer) -> Result<(), String> {
    if peer.guarded == Guarded::ByAddress {
        return Ok(());
    }
    let (method, allowed) = match TABLE.iter().find(|(method, _)| *method == path) {
        Some((method, allowed)) => (method.rsplit('/').next().unwrap_or(method), *allowed),
        None => return Err("there is no such call".to_owned()),
    };
    match (allowed, &peer.identity) {
        (Allowed::Everybody, _) => Ok(()),
        (Allowed::Roles(_), None) => {
            Err("this farm asks for a certificate: `rdcc join` and `rdcc-worker join` bring one".to_owned())
        }
        (Allowed::Roles(roles), Some(identity)) if roles.contains(&identity.role) => Ok(()),
        (Allowed::Roles(roles), Some(identity)) => {
            let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
            Err(format!(
                "{identity} may not do this ({method}); it takes: {}",
                roles.join(" or ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Name;
    use crate::trust::identity::Identity;

    const PROTOCOLS: [&str; 2] = [
        include_str!("../../proto/rdcc/v1/coordinator.proto"),
        include_str!("../../proto/rdcc/v1/trust.proto"),
    ];

    /// The methods of all services that the coordinator serves.
    fn methods() -> Vec<String> {
        let mut methods = Vec::new();
        let mut service = "";
        for line in PROTOCOLS.iter().flat_map(|text| text.lines()) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("service"), Some(name)) => service = name,
                (Some("rpc"), Some(rest)) => {
                    let method = rest.split('(').next().unwrap();
                    methods.push(format!("/rdcc.v1.{service}/{method}"));
                }
                _ => {}
            }
        }
        methods
    }

    fn peer(role: Option<Role>, guarded: Guarded) -> Peer {
        Peer {
            address: None,
            identity: role.map(|role| Identity {
                role,
                name: Name::new("x").unwrap(),
            }),
            certificate: None,
            guarded,
        }
    }

    #[test]
    fn every_method_has_its_row() {
        let mut methods = methods();
        methods.sort();
        let mut rows: Vec<&str> = TABLE.iter().map(|(path, _)| *path).collect();
        rows.sort_unstable();
        assert_eq!(methods, rows);
    }

    #[test]
    fn members_do_what_their_role_is_for() {
        let may = |path: &str, role| check(path, &peer(role, Guarded::ByCertificates)).is_ok();
        let push = "/rdcc.v1.Toolchains/Push";
        for (path, roles) in [
            ("/rdcc.v1.Coordinator/WorkerSession", [true, false, false]),
            ("/rdcc.v1.Coordinator/AgentSession", [false, true, true]),
            (push, [false, false, true]),
            ("/rdcc.v1.Toolchains/FetchBundle", [true, true, true]),
            ("/rdcc.v1.Enrolment/CreateToken", [false, false, true]),
        ] {
            let found = [Worker, Client, Admin].map(|role| may(path, Some(role)));
            assert_eq!(found, roles, "{path}");
            assert!(!may(path, None), "{path}");
        }
        assert!(may("/rdcc.v1.Enrolment/Join", None));
        assert!(!may("/rdcc.v1.Coordinator/Unknown", Some(Admin)));
        assert!(
            check(push, &peer(None, Guarded::ByAddress)).is_ok(),
            "on one's own machine"
        );
        let words = check(push, &peer(Some(Worker), Guarded::ByCertificates)).unwrap_err();
        assert_eq!(words, "worker `x` may not do this (Push); it takes: admin");
    }
}
