//! gRPC around the registry: decode, one blocking call, encode.
//!
//! A change of the catalogue is told to whoever listens (the scheduler's driver), so that workers look for new
//! toolchains at once.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::farm::AuditLog;
use super::registry::{Push, PushHead, Record, Registry, RegistryError, Replace, Standing};
use crate::digest::{Digest, Hasher};
use crate::ids::{Name, ToolchainId};
use crate::protocol::wire::{self, push_part::Part, show_request::Which};
use crate::protocol::{MESSAGE_BYTES_MAX, PIECE_BYTES_MAX, convert};
use crate::runtime::errors::with_causes;
use crate::runtime::tasks::Tasks;
use crate::toolchains::bundle::BundleRef;
use crate::toolchains::golden::Golden;
use crate::toolchains::host::Host;
use crate::trust::listening::Peer;

/// Pieces of a bundle that wait between network and disk: a megabyte.
const PIECES_MAX: usize = 4;

/// A change of what the farm has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogueChange {
    /// This can be had now, by machines of this kind.
    Added(ToolchainId, Host),
    /// This cannot be had any more.
    Removed(ToolchainId),
}

/// The `Toolchains` service.
pub struct ToolchainService {
    registry: Arc<Registry>,
    tasks: Tasks,
    changes: mpsc::UnboundedSender<CatalogueChange>,
    audit: Arc<AuditLog>,
}

impl ToolchainService {
    /// Serves `registry`. Changes are few (a person makes each), hence the channel without a bound.
    pub fn new(
        registry: Arc<Registry>,
        tasks: Tasks,
        changes: mpsc::UnboundedSender<CatalogueChange>,
        audit: Arc<AuditLog>,
    ) -> Self {
        Self {
            registry,
            tasks,
            changes,
            audit,
        }
    }

    /// Makes the gRPC server of it.
    pub fn into_server(self) -> wire::toolchains_server::ToolchainsServer<Self> {
        wire::toolchains_server::ToolchainsServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, Status> {
        let registry = self.registry.clone();
        self.tasks
            .blocking(move || work(&registry))
            .await
            .map_err(|error| status_of(&error))
    }

    fn told(&self, change: CatalogueChange) {
        // Nobody listens only when the coordinator is about to end.
        let _ = self.changes.send(change);
    }
}

/// Gives the whole chain of causes: the client prints it as it is.
fn status_of(error: &RegistryError) -> Status {
    let text = with_causes(error);
    match error {
        RegistryError::NameTaken { .. } => Status::already_exists(text),
        RegistryError::Unknown(_) => Status::not_found(text),
        RegistryError::Definition(_)
        | RegistryError::OtherName { .. }
        | RegistryError::DefinitionTooLarge
        | RegistryError::Manifest(_)
        | RegistryError::NotAsAnnounced(_)
        | RegistryError::Bundle(_) => Status::invalid_argument(text),
        RegistryError::Damaged(_) => Status::data_loss(text),
        RegistryError::BundleWanted(_) => Status::failed_precondition(text),
        RegistryError::DiskFull { .. } => {
            tracing::error!("{text}");
            Status::resource_exhausted(text)
        }
        RegistryError::Io { .. } => {
            tracing::error!("{text}");
            Status::internal(text)
        }
    }
}

fn who<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<Peer>();
    peer.map_or_else(|| "somebody".to_owned(), Peer::to_string)
}

fn name_of(text: &str) -> Result<Name, Status> {
    Name::new(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn head_of(head: wire::PushHead) -> Result<PushHead, Status> {
    let digest = Digest::from_slice(&head.bundle_digest);
    let mut golden = Golden::default();
    for unit in head.golden {
        let added = golden.add(unit.unit, unit.object);
        added.map_err(|error| Status::invalid_argument(error.to_string()))?;
    }
    Ok(PushHead {
        name: name_of(&head.name)?,
        definition: String::from_utf8(head.definition)
            .map_err(|_| Status::invalid_argument("the toolchain file is not UTF-8"))?,
        manifest: head.manifest,
        bundle: BundleRef {
            digest: digest.map_err(|error| Status::invalid_argument(error.to_string()))?,
            size: head.bundle_size,
        },
        replace: if head.replace { Replace::Allow } else { Replace::Refuse },
        golden,
    })
}

fn summary_of(registry: &Registry, record: &Record) -> wire::ToolchainSummary {
    wire::ToolchainSummary {
        name: record.name.to_string(),
        toolchain: record.id.0.as_bytes().to_vec(),
        current: record.standing == Standing::Current,
        host_kind: record.manifest.host().to_string(),
        target: record.manifest.target().to_owned(),
        bundle_digest: record.bundle.digest.as_bytes().to_vec(),
        bundle_size: record.bundle.size,
        files: record.manifest.entries().len() as u64,
        unpacked_size: record.manifest.content_bytes(),
        pushed_unix_ms: record.pushed_unix_ms,
        certification: registry.certification(record).to_string(),
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<wire::BundleChunk, Status>> + Send>>;

#[tonic::async_trait]
impl wire::toolchains_server::Toolchains for ToolchainService {
    async fn push(&self, request: Request<Streaming<wire::PushPart>>) -> Result<Response<wire::PushReply>, Status> {
        let by = who(&request);
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|part| part.part);
        let Some(Part::Head(head)) = first else {
            return Err(Status::invalid_argument("a push begins with its head"));
        };
        let head = head_of(head)?;
        let pusher = by.clone();
        let (record, known) = match self
            .blocking(move |registry| registry.begin_push(head, &pusher))
            .await?
        {
            Push::Known(record) => (record, true),
            Push::Wanted(mut upload) => {
                while let Some(part) = parts.next().await.transpose()? {
                    let Some(Part::Data(piece)) = part.part else {
                        return Err(Status::invalid_argument("a push has one head"));
                    };
                    upload = self.blocking(move |_| upload.write(&piece).map(|()| upload)).await?;
                }
                (self.blocking(move |registry| registry.commit(upload)).await?, false)
            }
        };
        self.audit
            .note(&by, "toolchain pushed", &format!("{} {}", record.name, record.id));
        self.told(CatalogueChange::Added(record.id, record.manifest.host()));
        Ok(Response::new(wire::PushReply {
            toolchain: record.id.0.as_bytes().to_vec(),
            known,
        }))
    }

    async fn list(&self, _: Request<wire::ListRequest>) -> Result<Response<wire::ListReply>, Status> {
        let toolchains = self.blocking(|registry| {
            let records = registry.list();
            Ok(records.iter().map(|record| summary_of(registry, record)).collect())
        });
        let toolchains = toolchains.await?;
        Ok(Response::new(wire::ListReply { toolchains }))
    }

    async fn show(&self, request: Request<wire::ShowRequest>) -> Result<Response<wire::ToolchainRecord>, Status> {
        let (found, asked) = match request.into_inner().which {
            Some(Which::Name(name)) => (self.registry.by_name(&name_of(&name)?).into_iter().next(), name),
            Some(Which::Toolchain(id)) => {
                let id =
                    convert::toolchain_from_wire(&id).map_err(|error| Status::invalid_argument(error.to_string()))?;
                (self.registry.by_id(id), id.to_string())
            }
            None => return Err(Status::invalid_argument("name a toolchain or its identity")),
        };
        let record = found.ok_or_else(|| status_of(&RegistryError::Unknown(asked)))?;
        Ok(Response::new(wire::ToolchainRecord {
            summary: Some(summary_of(&self.registry, &record)),
            definition: record.definition.clone().into_bytes(),
            manifest: record.manifest.encode(),
        }))
    }

    async fn remove(&self, request: Request<wire::RemoveRequest>) -> Result<Response<wire::RemoveReply>, Status> {
        let by = who(&request);
        let name = name_of(&request.into_inner().name)?;
        let removing = name.clone();
        let removed = self.blocking(move |registry| registry.remove(&removing)).await?;
        self.audit.note(&by, "toolchain removed", name.as_str());
        for id in &removed {
            if self.registry.by_id(*id).is_none() {
                self.told(CatalogueChange::Removed(*id));
            }
        }
        Ok(Response::new(wire::RemoveReply {
            removed: removed.len() as u32,
        }))
    }

    async fn fetch_golden(
        &self,
        request: Request<wire::FetchGoldenRequest>,
    ) -> Result<Response<wire::GoldenSet>, Status> {
        let id = convert::toolchain_from_wire(&request.into_inner().toolchain)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let found = self.registry.golden(id);
        let golden = found.ok_or_else(|| status_of(&RegistryError::Unknown(id.to_string())))?;
        let objects = golden.objects().iter().map(|(unit, object)| wire::GoldenObject {
            unit: unit.clone(),
            object: object.clone(),
        });
        Ok(Response::new(wire::GoldenSet {
            golden: objects.collect(),
        }))
    }

    type FetchBundleStream = Chunks;

    async fn fetch_bundle(&self, request: Request<wire::FetchBundleRequest>) -> Result<Response<Chunks>, Status> {
        let asked = request.into_inner();
        let id = convert::toolchain_from_wire(&asked.toolchain)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let offset = asked.offset;
        let file = self.blocking(move |registry| registry.open_bundle(id, offset)).await?;
        let expected = self.registry.by_id(id).map(|record| record.bundle.digest);
        let (pieces, stream) = mpsc::channel(PIECES_MAX);
        let (registry, tasks) = (self.registry.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            let read = move || send_file(file, &pieces);
            let sent = tasks.blocking(read).await;
            // A whole bundle that was read wrong after all must not be served again unchecked.
            if offset == 0 && sent.is_some() && sent != expected {
                registry.doubt(id);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Sends a file in pieces. Returns the digest of what was sent, or `None` when the peer left or the disk failed.
fn send_file(mut file: std::fs::File, pieces: &mpsc::Sender<Result<wire::BundleChunk, Status>>) -> Option<Digest> {
    let mut hasher = Hasher::default();
    loop {
        let mut data = Vec::with_capacity(PIECE_BYTES_MAX);
        match (&mut file).take(PIECE_BYTES_MAX as u64).read_to_end(&mut data) {
            Ok(0) => return Some(hasher.finish()),
            Ok(_) => hasher.update(&data),
            Err(error) => {
                // The peer may have left already; it is told if it has not.
                let _ = pieces.blocking_send(Err(Status::internal(format!("cannot read the bundle: {error}"))));
                return None;
            }
        }
        pieces.blocking_send(Ok(wire::BundleChunk { data })).ok()?;
    }
}
