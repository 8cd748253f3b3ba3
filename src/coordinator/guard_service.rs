//! Asks the table of access before each call, and the list of members; a refusal is a gRPC status like any other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::access;
use super::farm::Farm;
use crate::trust::listening::{Guarded, Peer};

/// Puts the guard in front of services.
#[derive(Debug, Clone)]
pub struct GuardLayer {
    farm: Option<Arc<Farm>>,
}

impl GuardLayer {
    /// Guards for a farm, or for a coordinator without one.
    pub fn new(farm: Option<Arc<Farm>>) -> Self {
        Self { farm }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = GuardService<S>;

    fn layer(&self, inner: S) -> GuardService<S> {
        GuardService {
            farm: self.farm.clone(),
            inner,
        }
    }
}

/// A guarded service.
#[derive(Debug, Clone)]
pub struct GuardService<S> {
    farm: Option<Arc<Farm>>,
    inner: S,
}

impl<S> GuardService<S> {
    fn check<B>(&self, request: &Request<B>) -> Result<(), Status> {
        let stranger = Peer {
            address: None,
            identity: None,
            certificate: None,
            guarded: Guarded::ByCertificates,
        };
        // A connection that came through no listener of ours is nobody's.
        let peer = request.extensions().get::<Peer>().unwrap_or(&stranger);
        if self.farm.as_ref().is_some_and(|farm| !farm.is_member(peer)) {
            let words = format!("{peer} is no member of this farm any more; `rdcc token create` lets it join again");
            return Err(Status::unauthenticated(words));
        }
        access::check(request.uri().path(), peer).map_err(|words| {
            tracing::warn!(%peer, call = request.uri().path(), "refused");
            match peer.identity {
                None => Status::unauthenticated(words),
                Some(_) => Status::permission_denied(words),
            }
        })
    }
}

/// The call's answer, or the refusal.
type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<S, B, R> Service<Request<B>> for GuardService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Answer<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.check(&request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}
