//! Asks the coordinator about the farm's members.

use super::Failure;
use super::coordinator_rpc::Coordinator;
use crate::ids::Name;
use crate::protocol::wire::{self, enrolment_client::EnrolmentClient};
use crate::trust::identity::Role;

/// A member, as the coordinator tells of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Member {
    /// Its role.
    pub(super) role: String,
    /// Its name.
    pub(super) name: String,
    /// When it joined, seconds since 1970.
    pub(super) joined_unix_s: u64,
    /// When its certificate ends.
    pub(super) expires_unix_s: u64,
    /// Who made its token.
    pub(super) admitted_by: String,
}

/// Has a token made, and returns the join string.
pub(super) async fn create_token(
    coordinator: &Coordinator,
    role: Role,
    valid_s: u64,
    uses: u32,
) -> Result<String, Failure> {
    let request = wire::CreateTokenRequest {
        role: role.to_string(),
        valid_s,
        uses,
    };
    let mut client = EnrolmentClient::new(coordinator.channel());
    Ok(coordinator.answer(client.create_token(request)).await?.join_string)
}

/// Lists the members.
pub(super) async fn list(coordinator: &Coordinator) -> Result<Vec<Member>, Failure> {
    let mut client = EnrolmentClient::new(coordinator.channel());
    let reply = coordinator
        .answer(client.list_members(wire::ListMembersRequest {}))
        .await?;
    let member = |member: wire::Member| Member {
        role: member.role,
        name: member.name,
        joined_unix_s: member.joined_unix_s,
        expires_unix_s: member.expires_unix_s,
        admitted_by: member.admitted_by,
    };
    Ok(reply.members.into_iter().map(member).collect())
}

/// Throws members of a name out, and returns how many there were.
pub(super) async fn revoke(coordinator: &Coordinator, name: &Name) -> Result<u32, Failure> {
    let request = wire::RevokeRequest { name: name.to_string() };
    let mut client = EnrolmentClient::new(coordinator.channel());
    Ok(coordinator.answer(client.revoke(request)).await?.revoked)
}
