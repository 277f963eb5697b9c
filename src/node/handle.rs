//! How surfaces speak to a node and to one of its shares.
//!
//! Starts what has to run, hands out handles, and ends everything in order: shares, sessions, network.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::actor::{Actor, Fetch, Outcome, Start, set_ready};
use super::addresses::{self, Machine};
use super::buffers::Buffers;
use super::config::{FetchOptions, NodeConfig};
use super::hints::Hints;
use super::hub::Hub;
use super::limiter::Limiter;
use super::memory::Memory;
use super::metadata::Metadata;
use super::report;
use super::session::Shop;
use super::share::{INPUTS_MAX, ReadyShare, Share, ShareInput, Shares};
use super::status::{Fetched, Phase, ShareStatus, Told, Tried, Withheld};
use super::stream::ByteStream;
use crate::content::{
    Bitfield, Link, LinkHints, Manifest, ManifestError, Multiaddr, PeerId, PieceHashes, ShareId,
};
use crate::engine::Source;
use crate::network::{
    self, Keypair, Lease, NetworkConfig, NetworkError, NetworkHandle, host_folder, lease,
};
use crate::storage::{Globs, Imported, PartFolder, StorageError, Target};

/// Events that a slow listener may lag behind before it misses some.
const EVENTS_MAX: usize = 4_096;

/// Ending waits this long for tasks that move bytes.
const TASKS_WAIT: Duration = Duration::from_millis(500);

/// What a node is called towards its peers.
const AGENT: &str = concat!("shoal/", env!("CARGO_PKG_VERSION"));

/// Why a node could not be started or cannot take a share.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The network could not be started.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The share is open in this node already, or too many are.
    #[error("this share is open already")]
    Taken,
}

/// Why a fetch ended without its share.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No peer of the share was ever connected.
    #[error("no peer of this share was found in {} s", after.as_secs())]
    NoPeer {
        /// How long was looked.
        after: Duration,
        /// Every address that was tried.
        tried: Vec<Tried>,
    },
    /// Nothing new arrived for too long. The same fetch resumes.
    #[error(
        "no new data for {} s: {bytes} of {total} bytes are here, {}",
        after.as_secs(),
        lacking(*missing, why.as_ref())
    )]
    Stalled {
        /// Time without a new verified byte.
        after: Duration,
        /// Bytes verified and stored.
        bytes: u64,
        /// Bytes of the share; 0 while unknown.
        total: u64,
        /// Pieces that no connected peer holds.
        missing: u32,
        /// Which file keeps them from coming, if anybody told.
        why: Option<Withheld>,
    },
    /// The bytes were wanted as a stream, and the share is a folder.
    #[error("this share is a folder: only one file can go to stdout")]
    NotOneFile,
    /// Its manifest breaks a rule: nobody can fetch it, and nothing of it was created.
    #[error("this share is refused: {0}")]
    Share(ManifestError),
    /// The share is open in this node already.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Files could not be written, or a target is in the way.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node ended first.
    #[error("the node was stopped")]
    Closed,
}

/// What a fetch that gave up was waiting for.
fn lacking(missing: u32, why: Option<&Withheld>) -> String {
    match (missing, why) {
        (_, None) => format!("{missing} pieces have no holder"),
        (0, Some(why)) => why.to_string(),
        (_, Some(why)) => format!("{missing} pieces have no holder: {why}"),
    }
}

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

struct Inner {
    hub: Arc<Hub>,
}

/// Speaks to a running node; cheap to clone.
#[derive(Clone)]
pub struct NodeHandle(Arc<Inner>);

impl Node {
    /// Leases an identity, opens the network and starts to dial the nodes that the user named.
    ///
    /// # Errors
    /// [`NodeError::Network`] when a port or address that was asked for cannot be listened on.
    pub async fn start(config: NodeConfig) -> Result<NodeHandle, NodeError> {
        let home = config.home.clone();
        let leased = tokio::task::spawn_blocking(move || lease(&home)).await;
        let lease = match leased {
            Ok(Ok(lease)) => lease,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the home cannot be used; this run has a throwaway identity");
                Lease::ephemeral()
            }
            Err(_) => Lease::ephemeral(),
        };
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (network, network_events) = open_network(&config, &lease).await?;
        let listeners = network.listeners().await;
        if let Some(port) = listeners.iter().find_map(port_of) {
            lease.remember_port(port);
        }
        let shop = Arc::new(Shop {
            local_peer: network.local_peer(),
            shares: Shares::default(),
            buffers: Buffers::new(),
            up: Limiter::new(config.up_per_sec),
            down: Limiter::new(config.down_per_sec),
            tasks: TaskTracker::new(),
            agent: AGENT.to_owned(),
        });
        let (memory, notes) = Memory::new(host_folder(&config.home));
        let hub = Arc::new(Hub::new(network, shop, events, memory, lease));
        hub.sign_records().await;
        hub.publish().await;
        hub.shop.tasks.spawn(notes.keep(hub.ending.clone()));
        if config.dht {
            hub.shop.tasks.spawn(Arc::clone(&hub).meet_again());
        }
        hub.shop.tasks.spawn(Arc::clone(&hub).route(network_events));
        hub.shop
            .tasks
            .spawn(Arc::clone(&hub).watch_home(config.home));
        for address in config.peers {
            hub.shop.tasks.spawn(Arc::clone(&hub).keep(address));
        }
        Ok(NodeHandle(Arc::new(Inner { hub })))
    }
}

/// Starts the network; a leased port that is taken by another program is replaced by a free one.
async fn open_network(
    config: &NodeConfig,
    lease: &Lease,
) -> Result<(NetworkHandle, mpsc::Receiver<network::NetworkEvent>), NetworkError> {
    let with_port = |address: &Multiaddr, port: u16| -> Multiaddr {
        let fixed = |part| match part {
            multiaddr::Protocol::Tcp(0) => multiaddr::Protocol::Tcp(port),
            part => part,
        };
        address.iter().map(fixed).collect()
    };
    let everywhere: [Multiaddr; 2] = ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"]
        .map(|text| text.parse().expect("a well-formed address"));
    let listen = if config.listen.is_empty() {
        &everywhere[..]
    } else {
        &config.listen
    };
    let listen_on = |port: u16| {
        listen
            .iter()
            .map(|address| with_port(address, port))
            .collect()
    };
    let start = |port: u16| {
        network::start(NetworkConfig {
            identity: Keypair::clone(&lease.keypair),
            listen: listen_on(port),
            mdns: config.mdns,
            dht: config.dht,
            agent: AGENT.to_owned(),
        })
    };
    if let Some(port) = config.port {
        return start(port).await;
    }
    match start(lease.port.unwrap_or(0)).await {
        Err(NetworkError::AddressInUse { .. })
            if lease.port.is_some() && config.listen.is_empty() =>
        {
            start(0).await
        }
        started => started,
    }
}

/// Tells an actor that does not run yet where its link says to begin looking.
fn give_hints(actor: &Actor, hints: Option<LinkHints>) {
    if let Some(hints) = hints {
        let peers = vec![(hints.peer, hints.addresses)];
        // The queue is empty: the actor does not run yet.
        let _ = actor.share.inputs.try_send(ShareInput::Candidates {
            peers,
            source: Source::Given,
        });
    }
}

fn port_of(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    })
}

impl NodeHandle {
    /// Our own identity.
    #[must_use]
    pub fn local_peer(&self) -> PeerId {
        self.0.hub.shop.local_peer
    }

    /// The addresses we can be reached at, each ending in `/p2p/`.
    pub async fn listeners(&self) -> Vec<Multiaddr> {
        self.0.hub.network.listeners().await
    }

    /// A link to a share that we hold, with our best addresses.
    pub async fn link(&self, manifest: &Manifest) -> Link {
        let listeners = self.listeners().await;
        let addresses = addresses::for_link(&listeners, &Machine::look());
        Link {
            share: manifest.id(),
            hints: Some(LinkHints {
                peer: self.local_peer(),
                name: manifest.name().as_str().to_owned(),
                total_len: manifest.geometry().total_len(),
                addresses,
            }),
        }
    }

    /// What happens from now on. A listener that lags far behind misses events and is told so.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Told> {
        self.0.hub.events.subscribe()
    }

    /// Serves files from where they lie, until the handle is dropped.
    ///
    /// # Errors
    /// [`NodeError::Taken`] when the share is open already.
    pub async fn seed(&self, imported: Imported) -> Result<ShareHandle, NodeError> {
        let Imported {
            manifest,
            hashes,
            store,
            ..
        } = imported;
        let (id, count) = (manifest.id(), manifest.geometry().piece_count());
        let status = report::unknown(id, manifest.name().as_str().to_owned(), None, Phase::Seed);
        let (mut actor, handle) = self.add(id, status, None)?;
        set_ready(&actor.share.ready, manifest, hashes, Arc::new(store));
        actor.begin(Bitfield::full(count));
        self.run(actor).await;
        Ok(handle)
    }

    /// Fetches a share; the outcome is told by [`ShareHandle::completed`], and the share is served from its
    /// first piece until the handle is dropped.
    ///
    /// # Errors
    /// [`NodeError::Taken`] when the share is open already.
    pub async fn fetch(&self, link: Link, options: FetchOptions) -> Result<ShareHandle, NodeError> {
        let (name, total) = link.hints.as_ref().map_or((String::new(), None), |hints| {
            (hints.name.clone(), Some(hints.total_len))
        });
        let status = report::unknown(link.share, name, total, Phase::Find);
        let (outcome, waiting) = oneshot::channel();
        let fetch = Fetch {
            options: options.clone(),
            metadata: Metadata::new(link.share),
            outcome: Some(Outcome::Share(outcome)),
            chosen: None,
            reusable: None,
            hints: Hints::default(),
        };
        let (mut actor, mut handle) = self.add(link.share, status, Some(fetch))?;
        handle.outcome = Some(waiting);
        let share = link.share;
        let earlier =
            tokio::task::spawn_blocking(move || PartFolder::open_existing(&options.target, &share))
                .await;
        match earlier {
            Ok(Ok(Some(earlier))) => {
                actor.open_store(
                    earlier.manifest.clone(),
                    earlier.hashes.clone(),
                    Some(earlier),
                );
            }
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => actor.fail(FetchError::Storage(error)),
        }
        give_hints(&actor, link.hints);
        self.run(actor).await;
        Ok(handle)
    }

    /// Fetches the manifest of a share and nothing else; looks for peers, and waits for an answer, for `timeout`.
    ///
    /// # Errors
    /// [`FetchError::NoPeer`], [`FetchError::Stalled`]; [`FetchError::Node`] when the share is open in this node.
    pub async fn manifest(&self, link: Link, timeout: Duration) -> Result<Manifest, FetchError> {
        let (outcome, waiting) = oneshot::channel();
        self.describe(link, timeout, Outcome::Manifest(outcome), waiting)
            .await
    }

    /// Fetches the manifest of a share and the hashes of its pieces.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn hashes(
        &self,
        link: Link,
        timeout: Duration,
    ) -> Result<(Manifest, PieceHashes), FetchError> {
        let (outcome, waiting) = oneshot::channel();
        self.describe(link, timeout, Outcome::Hashes(outcome), waiting)
            .await
    }

    /// Asks about a share without taking part in it: we are announced to nobody as holding it.
    async fn describe<T>(
        &self,
        link: Link,
        timeout: Duration,
        outcome: Outcome,
        waiting: oneshot::Receiver<Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let status = report::unknown(link.share, String::new(), None, Phase::Find);
        let fetch = Fetch {
            options: FetchOptions {
                target: Target {
                    dir: PathBuf::new(),
                    output: None,
                    overwrite: false,
                },
                timeout,
                stall_timeout: timeout,
                only: Globs::default(),
                sequential: false,
                stream: false,
            },
            metadata: Metadata::new(link.share),
            outcome: Some(outcome),
            chosen: None,
            reusable: None,
            hints: Hints::default(),
        };
        // Dropped at the end, which stops the share.
        let (actor, _handle) = self.add(link.share, status, Some(fetch))?;
        give_hints(&actor, link.hints);
        self.remind(&actor.share);
        self.0.hub.shop.tasks.spawn(actor.run());
        waiting.await.unwrap_or(Err(FetchError::Closed))
    }

    fn add(
        &self,
        id: ShareId,
        status: ShareStatus,
        fetch: Option<Fetch>,
    ) -> Result<(Actor, ShareHandle), NodeError> {
        let hub = Arc::clone(&self.0.hub);
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let share: Share = hub.shop.shares.add(id, sender).ok_or(NodeError::Taken)?;
        let (status, watched) = watch::channel(status);
        let (leading, leading_watched) = watch::channel(None);
        let stop = hub.ending.child_token();
        let handle = ShareHandle {
            status: watched,
            leading: leading_watched,
            ready: Arc::clone(&share.ready),
            outcome: None,
            done: CancellationToken::new(),
            _stop: stop.clone().drop_guard(),
        };
        let actor = Actor::new(Start {
            share,
            hub,
            inputs,
            stop,
            status,
            leading,
            fetch,
        });
        Ok((actor, handle))
    }

    async fn run(&self, actor: Actor) {
        self.0
            .hub
            .network
            .announce(actor.share.id.provider_key())
            .await;
        let share = actor.share.clone();
        self.0.hub.shop.tasks.spawn(actor.run());
        self.0.hub.introduce(&share);
        self.remind(&share);
        self.0.hub.publish().await;
    }

    fn remind(&self, share: &Share) {
        let hub = &self.0.hub;
        hub.shop.tasks.spawn(Arc::clone(hub).remind(share.clone()));
    }

    /// Ends the node in order: shares stop asking, peers hear a goodbye, connections close. Takes at most
    /// about a second.
    pub async fn shutdown(&self) {
        let hub = &self.0.hub;
        for share in hub.shop.shares.all() {
            // A share too busy to hear it is stopped by the token below.
            let _ = share.inputs.try_send(ShareInput::Stop);
        }
        hub.ending.cancel();
        tokio::task::yield_now().await;
        hub.leave_all().await;
        hub.shop.tasks.close();
        // A task that is stuck in a system call is left to the end of the process.
        let _ = tokio::time::timeout(TASKS_WAIT, hub.shop.tasks.wait()).await;
        hub.network.shutdown().await;
    }
}

/// Speaks about one share; dropping it stops the share.
pub struct ShareHandle {
    status: watch::Receiver<ShareStatus>,
    leading: watch::Receiver<Option<u32>>,
    ready: Arc<OnceLock<ReadyShare>>,
    outcome: Option<oneshot::Receiver<Result<Fetched, FetchError>>>,
    done: CancellationToken,
    _stop: DropGuard,
}

impl ShareHandle {
    /// The picture of the share, renewed about five times a second.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ShareStatus> {
        self.status.clone()
    }

    /// The bytes of a share of one file, from its beginning, as they come.
    #[must_use]
    pub fn stream(&self) -> ByteStream {
        ByteStream::new(Arc::clone(&self.ready), self.leading.clone())
    }

    /// Waits for the end of the fetch. Once it has told, and for a share that is seeded, it never resolves;
    /// the share goes on serving.
    ///
    /// # Errors
    /// [`FetchError`] when the fetch failed; it can be resumed.
    ///
    /// # Cancel safety
    /// Nothing is lost by a cancelled call.
    pub async fn completed(&mut self) -> Result<Fetched, FetchError> {
        let Some(outcome) = &mut self.outcome else {
            // Never cancelled: there is no end to wait for.
            self.done.cancelled().await;
            return Err(FetchError::Closed);
        };
        let told = outcome.await;
        self.outcome = None;
        told.unwrap_or(Err(FetchError::Closed))
    }

    /// Stops the share: peers are told, nothing more is asked or served.
    pub async fn stop(self) {
        drop(self);
        tokio::task::yield_now().await;
    }
}
