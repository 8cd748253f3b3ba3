//! gRPC around the farm's members: decode, one blocking call, encode.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::farm::{Farm, FarmError, Signed};
use super::members::MembersError;
use crate::ids::Name;
use crate::protocol::wire;
use crate::runtime::tasks::Tasks;
use crate::trust::identity::Role;
use crate::trust::listening::Peer;

/// A refused join is answered after this: ten thousand years for half of all secrets, if a hundred guess at once.
const REFUSED_WAIT: Duration = Duration::from_secs(1);
/// How long tokens may be good for, and for how many machines.
const VALID_MOST_S: u64 = 30 * 24 * 3600;
const USES_MOST: u32 = 1000;

/// The `Enrolment` service.
#[derive(Debug)]
pub struct EnrolmentService {
    farm: Option<Arc<Farm>>,
    tasks: Tasks,
}

impl EnrolmentService {
    /// Serves a farm, or says that there is none.
    pub fn new(farm: Option<Arc<Farm>>, tasks: Tasks) -> Self {
        Self { farm, tasks }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Farm) -> Result<T, FarmError> + Send + 'static,
    ) -> Result<T, Status> {
        let farm = self.farm.clone();
        let farm = farm.ok_or_else(|| {
            Status::failed_precondition("this coordinator has no farm; `rdcc-coordinator init` makes one")
        })?;
        self.tasks
            .blocking(move || work(&farm))
            .await
            .map_err(|error| status_of(&error))
    }
}

fn status_of(error: &FarmError) -> Status {
    match error {
        FarmError::Members(MembersError::Token) => Status::permission_denied(error.to_string()),
        FarmError::Members(MembersError::Taken(_)) => Status::already_exists(error.to_string()),
        FarmError::Members(MembersError::Unknown(_)) => Status::not_found(error.to_string()),
        FarmError::Members(MembersError::Full) => Status::failed_precondition(error.to_string()),
        FarmError::Members(MembersError::Role(_)) | FarmError::Certificate(_) => {
            Status::invalid_argument(error.to_string())
        }
        FarmError::Exists(_) | FarmError::File { .. } | FarmError::Tls(_) => {
            tracing::error!(%error, "the farm's files cannot be used");
            Status::internal(error.to_string())
        }
    }
}

fn peer_of<T>(request: &Request<T>) -> Option<Peer> {
    request.extensions().get::<Peer>().cloned()
}

fn who<T>(request: &Request<T>) -> String {
    peer_of(request).map_or_else(|| "somebody".to_owned(), |peer| peer.to_string())
}

fn name_of(text: &str) -> Result<Name, Status> {
    Name::new(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn membership(signed: Signed) -> Response<wire::Membership> {
    Response::new(wire::Membership {
        role: signed.identity.role.to_string(),
        name: signed.identity.name.to_string(),
        certificate: signed.certificate,
        authority: signed.authority,
        signed_unix_s: signed.signed_unix_s,
        expires_unix_s: signed.expires_unix_s,
    })
}

#[tonic::async_trait]
impl wire::enrolment_server::Enrolment for EnrolmentService {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::Membership>, Status> {
        let from = who(&request);
        let request = request.into_inner();
        let name = name_of(&request.name)?;
        let joined = self
            .blocking(move |farm| farm.join(&request.secret, &name, &request.public_key, &from))
            .await;
        if joined.is_err() {
            tokio::time::sleep(REFUSED_WAIT).await;
        }
        joined.map(membership)
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::Membership>, Status> {
        let identity = peer_of(&request).and_then(|peer| peer.identity);
        let identity = identity.ok_or_else(|| Status::unauthenticated("only a member has a certificate to renew"))?;
        let key = request.into_inner().public_key;
        self.blocking(move |farm| farm.renew(&identity, &key))
            .await
            .map(membership)
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenReply>, Status> {
        let by = who(&request);
        let wire::CreateTokenRequest { role, valid_s, uses } = request.into_inner();
        let role: Role = role
            .parse()
            .map_err(|error: crate::trust::identity::RoleError| Status::invalid_argument(error.to_string()))?;
        if !(1..=VALID_MOST_S).contains(&valid_s) || !(1..=USES_MOST).contains(&uses) {
            let words = format!("a token is good for 1 s to 30 days, and for 1 to {USES_MOST} machines");
            return Err(Status::invalid_argument(words));
        }
        let made = self
            .blocking(move |farm| farm.create_token(role, Duration::from_secs(valid_s), uses, &by))
            .await?;
        Ok(Response::new(wire::CreateTokenReply {
            join_string: made.to_string(),
        }))
    }

    async fn list_members(
        &self,
        _: Request<wire::ListMembersRequest>,
    ) -> Result<Response<wire::ListMembersReply>, Status> {
        let members = self.blocking(|farm| Ok(farm.list())).await?;
        let members = members.into_iter().map(|(identity, member)| wire::Member {
            role: identity.role.to_string(),
            name: identity.name.to_string(),
            joined_unix_s: member.joined_unix_s,
            expires_unix_s: member.expires_unix_s,
            admitted_by: member.admitted_by,
        });
        Ok(Response::new(wire::ListMembersReply {
            members: members.collect(),
        }))
    }

    async fn revoke(&self, request: Request<wire::RevokeRequest>) -> Result<Response<wire::RevokeReply>, Status> {
        let by = who(&request);
        let name = name_of(&request.into_inner().name)?;
        let revoked = self.blocking(move |farm| farm.revoke(&name, &by)).await?;
        Ok(Response::new(wire::RevokeReply {
            revoked: u32::try_from(revoked).unwrap_or(u32::MAX),
        }))
    }
}
