//! Questions and orders to the coordinator, in our own words.
//!
//! Generated types end here. What comes from the coordinator is checked as far as it matters: identities are digests,
//! manifests are decoded by those who need them.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::cluster::{Cluster, ConnectedAgent, Cores, Job, Node, NodeToolchain, Toolchain};
use super::{Context, FAILED, Failure, UNREACHABLE};
use crate::digest::{Digest, Hasher};
use crate::exchange::Complaint;
use crate::ids::{Name, ToolchainId};
use crate::protocol::convert::toolchain_from_wire;
use crate::protocol::wire::coordinator_client::CoordinatorClient;
use crate::protocol::wire::toolchains_client::ToolchainsClient;
use crate::protocol::{MESSAGE_BYTES_MAX, PIECE_BYTES_MAX, wire};
use crate::toolchains::bundle::BundleRef;
use crate::toolchains::golden::Golden;
use crate::trust::credentials::{self, Trust};

/// Time for the coordinator to answer a question. It keeps all it needs in memory.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Pieces of a bundle under way between disk and network.
const PIECES_WAITING: usize = 8;

/// A connected coordinator.
pub(super) struct Coordinator {
    channel: Channel,
    address: String,
}

/// One toolchain with everything that was pushed.
pub(super) struct Record {
    pub(super) summary: Toolchain,
    pub(super) definition: Vec<u8>,
    pub(super) manifest: Vec<u8>,
}

/// What introduces a bundle.
pub(super) struct PushHead {
    pub(super) name: Name,
    pub(super) definition: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    pub(super) bundle: BundleRef,
    pub(super) replace: Replace,
    pub(super) golden: Golden,
}

/// Whether a name may move to another identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replace {
    Allowed,
    Refused,
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    Stored,
    KnownBefore,
    /// Nothing: the coordinator lacks the bundle, and none was sent.
    BundleWanted,
}

impl Coordinator {
    /// Connects to the coordinator that the settings name, with this user's certificate if it asks for one.
    pub(super) async fn connect(context: &Context<'_>) -> Result<Self, Failure> {
        let address = &context.settings.coordinator;
        match trust(context)?.coordinator(address).await {
            Ok(channel) => Ok(Self {
                channel,
                address: address.to_owned(),
            }),
            Err(error) => Err(unreachable(address, Complaint::from_error(&error).causes)),
        }
    }

    pub(super) async fn cluster(&self) -> Result<Cluster, Failure> {
        let mut client = self.coordinator();
        let reply = self.answer(client.status(wire::StatusRequest {})).await?;
        cluster_from_wire(reply).map_err(|error| self.nonsense(&error))
    }

    pub(super) async fn set_drain(&self, worker: &str, on: Draining) -> Result<(), Failure> {
        let request = wire::SetDrainRequest {
            worker: worker.to_owned(),
            on: on == Draining::On,
        };
        self.answer(self.coordinator().set_drain(request)).await.map(drop)
    }

    pub(super) async fn toolchains(&self) -> Result<Vec<Toolchain>, Failure> {
        let mut client = self.registry();
        let reply = self.answer(client.list(wire::ListRequest {})).await?;
        let toolchains = reply.toolchains.into_iter().map(toolchain_summary);
        toolchains
            .collect::<Result<_, _>>()
            .map_err(|error| self.nonsense(&error))
    }

    pub(super) async fn record(&self, toolchain: ToolchainId) -> Result<Record, Failure> {
        let which = wire::show_request::Which::Toolchain(toolchain.0.as_bytes().to_vec());
        let request = wire::ShowRequest { which: Some(which) };
        let reply = self.answer(self.registry().show(request)).await?;
        let summary = reply.summary.unwrap_or_default();
        Ok(Record {
            summary: toolchain_summary(summary).map_err(|error| self.nonsense(&error))?,
            definition: reply.definition,
            manifest: reply.manifest,
        })
    }

    pub(super) async fn remove(&self, name: &Name) -> Result<u32, Failure> {
        let request = wire::RemoveRequest { name: name.to_string() };
        Ok(self.answer(self.registry().remove(request)).await?.removed)
    }

    /// Pushes a toolchain; `bundle` is read as the network takes it. `progress` is told of bytes sent.
    pub(super) async fn push(
        &self,
        head: PushHead,
        mut bundle: impl AsyncRead + Unpin,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Pushed, Failure> {
        let part = |part| wire::PushPart { part: Some(part) };
        let head = part(wire::push_part::Part::Head(wire::PushHead {
            name: head.name.to_string(),
            definition: head.definition,
            manifest: head.manifest,
            bundle_digest: head.bundle.digest.as_bytes().to_vec(),
            bundle_size: head.bundle.size,
            replace: head.replace == Replace::Allowed,
            golden: golden_to_wire(&head.golden),
        }));
        let (send, receive) = tokio::sync::mpsc::channel(PIECES_WAITING);
        let mut client = self.registry();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
        let mut answer = std::pin::pin!(client.push(stream));
        let mut feed = std::pin::pin!(async move {
            let mut sent = 0;
            let mut next = head;
            // The coordinator may answer, and stop listening, before it has everything.
            while send.send(next).await.is_ok() {
                progress(sent);
                let mut piece = vec![0; PIECE_BYTES_MAX];
                let length = bundle.read(&mut piece).await?;
                if length == 0 {
                    break;
                }
                piece.truncate(length);
                sent += length as u64;
                next = part(wire::push_part::Part::Data(piece));
            }
            Ok::<(), std::io::Error>(())
        });
        let reply = tokio::select! {
            reply = &mut answer => reply,
            fed = &mut feed => match fed {
                Ok(()) => answer.await,
                Err(error) => {
                    let complaint = Complaint::new("cannot read the packed bundle").because(error.to_string());
                    return Err(Failure::failed(complaint));
                }
            },
        };
        match reply {
            Ok(reply) if reply.get_ref().known => Ok(Pushed::KnownBefore),
            Ok(_) => Ok(Pushed::Stored),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(Pushed::BundleWanted),
            Err(status) => Err(self.refused(&status)),
        }
    }

    /// Reads the bundle that the coordinator has, and returns its digest. `progress` is told of bytes received.
    pub(super) async fn bundle_digest(
        &self,
        toolchain: ToolchainId,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digest, Failure> {
        let request = wire::FetchBundleRequest {
            toolchain: toolchain.0.as_bytes().to_vec(),
            offset: 0,
        };
        let fetched = self.registry().fetch_bundle(request).await;
        let mut pieces = fetched.map_err(|status| self.refused(&status))?.into_inner();
        let mut hasher = Hasher::default();
        while let Some(piece) = pieces.message().await.map_err(|status| self.refused(&status))? {
            hasher.update(&piece.data);
            progress(hasher.length());
        }
        Ok(hasher.finish())
    }

    /// Returns the connection, for the services besides these.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn coordinator(&self) -> CoordinatorClient<Channel> {
        CoordinatorClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn registry(&self) -> ToolchainsClient<Channel> {
        ToolchainsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(ANSWER_WAIT, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.refused(&status)),
            Err(_) => {
                let late = format!("no answer within {} s", ANSWER_WAIT.as_secs());
                Err(unreachable(&self.address, vec![late]))
            }
        }
    }

    /// Says a refusal in the coordinator's own words.
    fn refused(&self, status: &Status) -> Failure {
        match status.code() {
            Code::Unavailable => unreachable(&self.address, vec![status.message().to_owned()]),
            Code::Unimplemented => {
                let complaint = Complaint::new(format!("the coordinator at `{}` is of another version", self.address));
                Failure::failed(complaint.hint("update it, or this side"))
            }
            code => {
                let mut lines = status.message().lines();
                let mut complaint = Complaint::new(lines.next().unwrap_or_default());
                if complaint.error.is_empty() {
                    complaint.error = format!("the coordinator refuses: {code}");
                }
                complaint.causes = lines.map(|line| line.trim().to_owned()).collect();
                let hint = match code {
                    Code::AlreadyExists => Some(
                        "`--replace` lets the name stand for this compiler; or give the toolchain file another `name`",
                    ),
                    Code::DataLoss => Some("`rdcc toolchain push FILE` on a machine that has this compiler mends it"),
                    Code::ResourceExhausted => {
                        Some("make room there, or remove a toolchain (`rdcc toolchain list`, `rdcc toolchain rm NAME`)")
                    }
                    _ => None,
                };
                complaint.hint = hint.map(str::to_owned);
                Failure {
                    complaint,
                    status: FAILED,
                }
            }
        }
    }

    fn nonsense(&self, error: &dyn std::error::Error) -> Failure {
        let what = format!("the coordinator at `{}` sent something unreadable", self.address);
        Failure::failed(Complaint::new(what).because(error.to_string()))
    }
}

/// Finds out how the coordinator is spoken to.
fn trust(context: &Context<'_>) -> Result<Trust, Failure> {
    let address = &context.settings.coordinator;
    let Some(state_dir) = &context.state_dir else {
        return Ok(Trust::Plain);
    };
    Trust::with(address, &credentials::directory(state_dir)).map_err(|error| {
        let hint = "`rdcc join HOST TOKEN` lets this user into a farm; `rdcc token create` on a member's machine prints the token";
        Failure::failed(Complaint::from_error(&error).hint(hint))
    })
}

/// Whether a node gets no more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Draining {
    On,
    Off,
}

fn unreachable(address: &str, causes: Vec<String>) -> Failure {
    let complaint = Complaint {
        error: format!("cannot reach the coordinator at `{address}`"),
        causes,
        hint: Some("is rdcc-coordinator running? RDCC_COORDINATOR and config.toml name its address".to_owned()),
    };
    Failure {
        complaint,
        status: UNREACHABLE,
    }
}

type WireError = crate::protocol::convert::WireError;

fn cluster_from_wire(reply: wire::StatusReply) -> Result<Cluster, WireError> {
    let mut nodes = reply.workers.into_iter().map(node).collect::<Result<Vec<_>, _>>()?;
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    let mut jobs = reply.jobs.into_iter().map(job).collect::<Result<Vec<_>, _>>()?;
    jobs.sort_by_key(|job| std::cmp::Reverse(job.age_ms));
    let agent = |agent: wire::AgentStatus| ConnectedAgent {
        host: agent.host,
        user: agent.user,
        pid: agent.pid,
        waiting: agent.waiting,
        holding: agent.holding,
    };
    Ok(Cluster {
        version: reply.version,
        warning: reply.warning,
        uptime_s: reply.uptime_ms / 1000,
        queued: reply.queued,
        running: reply.running,
        nodes,
        agents: reply.agents.into_iter().map(agent).collect(),
        jobs,
    })
}

fn node(worker: wire::WorkerStatus) -> Result<Node, WireError> {
    Ok(Node {
        name: worker.name,
        address: worker.address,
        state: worker.state,
        slots: worker.slots,
        busy: worker.busy,
        power: f64::from(worker.power_milli) / 1000.0,
        learned_power: (worker.learned_milli > 0).then(|| f64::from(worker.learned_milli) / 1000.0),
        cores: worker.cores.iter().map(cores).collect(),
        host_kind: worker.host_kind,
        sandbox: worker.sandbox,
        toolchains: worker
            .toolchains
            .into_iter()
            .map(node_toolchain)
            .collect::<Result<_, _>>()?,
        jobs_done: worker.jobs_done,
        faults: worker.faults,
        memory_available_bytes: worker.memory_available_bytes,
        version: worker.version,
        note: worker.note,
    })
}

fn cores(group: &wire::CoreGroup) -> Cores {
    Cores {
        slots: group.slots,
        power: f64::from(group.power_milli) / 1000.0,
    }
}

fn node_toolchain(state: wire::ToolchainState) -> Result<NodeToolchain, WireError> {
    use wire::toolchain_state::State;
    Ok(NodeToolchain {
        toolchain: toolchain_from_wire(&state.toolchain)?,
        state: match state.state() {
            State::Installed => "installed",
            State::Bundle => "bundle",
            State::Fetchable => "fetchable",
            State::Failed => "failed",
            State::Unspecified => "looking",
        },
        message: state.message,
    })
}

fn job(job: wire::RunningJob) -> Result<Job, WireError> {
    Ok(Job {
        grant: job.grant,
        node: job.worker,
        host: job.host,
        toolchain: match job.toolchain.is_empty() {
            true => None,
            false => Some(toolchain_from_wire(&job.toolchain)?),
        },
        age_ms: job.age_ms,
    })
}

fn golden_to_wire(golden: &Golden) -> Vec<wire::GoldenObject> {
    let unit = |(unit, object): (&String, &Vec<u8>)| wire::GoldenObject {
        unit: unit.clone(),
        object: object.clone(),
    };
    golden.objects().iter().map(unit).collect()
}

fn toolchain_summary(summary: wire::ToolchainSummary) -> Result<Toolchain, WireError> {
    let digest = crate::digest::Digest::from_slice(&summary.bundle_digest)?;
    Ok(Toolchain {
        identity: toolchain_from_wire(&summary.toolchain)?,
        name: summary.name,
        current: summary.current,
        host_kind: summary.host_kind,
        target: summary.target,
        bundle_digest: digest.to_string(),
        bundle_bytes: summary.bundle_size,
        files: summary.files,
        unpacked_bytes: summary.unpacked_size,
        pushed_unix_ms: summary.pushed_unix_ms,
        certification: summary.certification,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_that_only_its_node_tells_of_has_no_toolchain_and_hides_nothing_else() {
        let told = |toolchain: &[u8]| wire::StatusReply {
            jobs: vec![wire::RunningJob {
                grant: 7,
                worker: "n1".to_owned(),
                toolchain: toolchain.to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let toolchain = |told| cluster_from_wire(told).map(|cluster| cluster.jobs[0].toolchain);
        assert_eq!(toolchain(told(&[])), Ok(None));
        let known = ToolchainId(Digest::of(b"t"));
        assert_eq!(toolchain(told(known.0.as_bytes())), Ok(Some(known)));
        assert!(toolchain(told(&[1, 2])).is_err());
    }
}
