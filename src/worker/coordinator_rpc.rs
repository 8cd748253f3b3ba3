//! Asks the coordinator for toolchains: what they consist of, and their bundles.

use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::executor::Pending;
use super::toolchains::{BundleSource, BundleStream, Offer, SourceError};
use super::variant_checks::Goldens;
use crate::digest::Digest;
use crate::ids::ToolchainId;
use crate::job::{Refusal, RefusalKind};
use crate::protocol::{MESSAGE_BYTES_MAX, wire};
use crate::toolchains::bundle::BundleRef;
use crate::toolchains::golden::Golden;
use crate::toolchains::manifest::Manifest;
use crate::trust::credentials::Trust;
use crate::trust::identity::Identity;

use std::sync::Arc;

/// The coordinator as a source of toolchains. Connects when first asked, and again when that is needed.
#[derive(Debug, Clone)]
pub struct CoordinatorBundles {
    client: wire::toolchains_client::ToolchainsClient<Channel>,
}

impl CoordinatorBundles {
    /// Names the coordinator, `http://HOST:PORT` or `https://HOST:PORT`. Has to be called within a runtime.
    pub fn new(coordinator: &str, trust: &Trust) -> Result<Self, tonic::transport::Error> {
        let channel = trust.endpoint(coordinator, &Identity::coordinator())?.connect_lazy();
        let client = wire::toolchains_client::ToolchainsClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client })
    }
}

impl BundleSource for CoordinatorBundles {
    async fn describe(&self, id: ToolchainId) -> Result<Offer, SourceError> {
        let which = wire::show_request::Which::Toolchain(id.0.as_bytes().to_vec());
        let request = wire::ShowRequest { which: Some(which) };
        let mut client = self.client.clone();
        let record = client.show(request).await.map_err(source_error)?.into_inner();
        let damaged = |what: String| SourceError::Damaged(what);
        let summary = record.summary.ok_or_else(|| damaged("no summary".to_owned()))?;
        let manifest = Manifest::decode(&record.manifest).map_err(|error| damaged(error.to_string()))?;
        let digest = Digest::from_slice(&summary.bundle_digest).map_err(|error| damaged(error.to_string()))?;
        Ok(Offer {
            manifest: Arc::new(manifest),
            bundle: BundleRef {
                digest,
                size: summary.bundle_size,
            },
        })
    }

    async fn fetch(&self, id: ToolchainId, offset: u64) -> Result<BundleStream, SourceError> {
        let request = wire::FetchBundleRequest {
            toolchain: id.0.as_bytes().to_vec(),
            offset,
        };
        let mut client = self.client.clone();
        let chunks = client.fetch_bundle(request).await.map_err(source_error)?.into_inner();
        Ok(Box::pin(
            chunks.map(|chunk| chunk.map(|chunk| chunk.data).map_err(source_error)),
        ))
    }
}

impl Goldens for CoordinatorBundles {
    fn golden(&self, toolchain: ToolchainId) -> Pending<'_, Result<Golden, Refusal>> {
        Box::pin(async move {
            let request = wire::FetchGoldenRequest {
                toolchain: toolchain.0.as_bytes().to_vec(),
            };
            let mut client = self.client.clone();
            let refused = |what: String| Refusal {
                kind: RefusalKind::NoToolchain,
                message: format!("no golden objects of toolchain {}: {what}", toolchain.0.short()),
            };
            let set = client.fetch_golden(request).await;
            let set = set.map_err(|status| refused(status.message().to_owned()))?.into_inner();
            let mut golden = Golden::default();
            for unit in set.golden {
                let added = golden.add(unit.unit, unit.object);
                added.map_err(|error| refused(error.to_string()))?;
            }
            Ok(golden)
        })
    }
}

fn source_error(status: Status) -> SourceError {
    match status.code() {
        Code::NotFound => SourceError::Unknown,
        Code::DataLoss => SourceError::Damaged(status.message().to_owned()),
        _ => SourceError::Unavailable(status.message().to_owned()),
    }
}
