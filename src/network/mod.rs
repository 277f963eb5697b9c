//! How peers are reached: the only folder that names libp2p. It owns our identity on disk, the transport, the
//! Kademlia announcements and lookups, and the two streams of every session; one task owns the libp2p swarm.
//! It never knows pieces, shares or files: a provider key is 32 bytes, a session is two byte streams.
//! Called by `node/`, through [`start`], [`NetworkHandle`] and the receiver of [`NetworkEvent`]s.
//! Source: libp2p specifications (connections, kad-dht, identify, mdns); `PROTOCOL.md` "Discovery" and "A session".

mod addresses;
mod behaviour;
mod crowd;
mod dial_error;
mod dialling;
mod discovery;
mod driver;
mod identity;
mod names;
mod paced;
mod peer_record;
mod provider_store;
mod streams;
mod transport;

#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::Compat;
use tokio_util::task::TaskTracker;

pub use dial_error::{DialError, DialFailure};
pub use identity::{HomeError, Keypair, Lease, LiveRecord, host_folder, lease, live_neighbours};
pub use peer_record::{PeerRecord, RecordError};
#[doc(hidden)] // Only for the tests that feed it what anybody may send.
pub use provider_store::{ProviderStore, Rejected};

use driver::{Command, Driver};

/// Commands that wait for the driver. When the queue is full the caller waits: the driver takes one in microseconds.
const COMMANDS_MAX: usize = 256;

/// Events that wait for the reader of the receiver. When the queue is full the driver keeps a bounded overflow, drops
/// hints first, and refuses new inbound sessions by name; it never waits.
const EVENTS_MAX: usize = 64;

/// What [`NetworkHandle::shutdown`] waits at most for the driver to end: its own 300 ms of flushing, and some slack.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(600);

/// What the network needs to start.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Who we are. Two running processes must never share one: see [`lease`].
    pub identity: Keypair,
    /// Where to listen: `/ip4/../tcp/..` or `/ip6/../tcp/..`, each with QUIC beside it on the same port number; port 0
    /// lets the system choose, one for all. May be empty: then the node only dials.
    pub listen: Vec<Multiaddr>,
    /// Whether to speak mDNS (UDP 5353) with the local network.
    pub mdns: bool,
    /// Whether to take part in the Kademlia table; without it announcements and lookups do nothing.
    pub dht: bool,
    /// Name and version told to peers through identify, for example `shoal/0.1.0`; at most 64 characters are used.
    pub agent: String,
}

/// Why the network could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A fixed port is held by another program: choose another one, or 0.
    #[error("cannot listen on `{address}`: the port is in use")]
    AddressInUse {
        /// The address asked for.
        address: Multiaddr,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on `{address}`: {source}")]
    Listen {
        /// The address asked for.
        address: Multiaddr,
        /// What the system said.
        source: io::Error,
    },
    /// An address is no TCP address.
    #[error("`{address}` is not an address to listen on: only /ip4 or /ip6 with /tcp")]
    UnsupportedAddress {
        /// The address asked for.
        address: Multiaddr,
    },
    /// The encryption could not be set up from the identity key.
    #[error("cannot set up encryption: {reason}")]
    Encryption {
        /// What TLS or noise said.
        reason: String,
    },
}

/// One bidirectional stream to a peer; both ends may read and write. End of stream is never success: a reset reads as
/// a clean end.
pub type PeerStream = Compat<libp2p::Stream>;

/// Names one connection of this process; never reused. Larger is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey(pub u64);

/// The two streams of one session with a peer. The connection lives as long as one of them does.
#[derive(Debug)]
pub struct SessionStreams {
    /// The peer, proven by the handshake.
    pub peer: PeerId,
    /// The connection both streams run on.
    pub connection: ConnectionKey,
    /// Whether we dialled that connection.
    pub dialled_by_us: bool,
    /// Whether we began this session; on the same connection the peer may have begun another.
    pub opened_by_us: bool,
    /// Where the peer is: the dialled address, or where its connection came from. Without `/p2p/`.
    pub remote_address: Multiaddr,
    /// To be kept for as long as the session goes on.
    pub in_use: InUse,
    /// Messages.
    pub control: PeerStream,
    /// Piece bytes.
    pub data: PeerStream,
}

/// Held by a session while it goes on: of a node that is full, connections that carry none make room for others.
#[derive(Debug)]
pub struct InUse {
    _counted: Arc<()>,
}

/// Which local means found a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoverySource {
    /// Multicast DNS on the local network.
    Mdns,
}

/// What the network reports, in the order it happened.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the queue holds 64; a box would only add an allocation"
)]
pub enum NetworkEvent {
    /// We can be reached at this address.
    Listening {
        /// Concrete address, ending in `/p2p/`.
        address: Multiaddr,
    },
    /// We can no longer be reached at this address: its interface has gone.
    NotListening {
        /// The address as it was told, ending in `/p2p/`.
        address: Multiaddr,
    },
    /// A peer began a session with us; it has been told that we took it.
    InboundSession(SessionStreams),
    /// A peer was found nearby; its addresses are already known to [`NetworkHandle::open_session`]. A hint: dropped
    /// when the reader lags.
    Discovered {
        /// The peer; may speak other protocols than ours.
        peer: PeerId,
        /// Its addresses, without `/p2p/`.
        addresses: Vec<Multiaddr>,
        /// By what means.
        source: DiscoverySource,
    },
    /// A dial, ours or one of Kademlia, led to a node that speaks our protocol, as handshake and identify showed. A hint:
    /// dropped when the reader lags.
    Reached {
        /// The node.
        peer: PeerId,
        /// Where it was dialled, without `/p2p/`.
        address: Multiaddr,
    },
    /// A lookup found peers that were not in an earlier event of the same lookup; never ourselves. Open sessions at once:
    /// their addresses are known now. A hint: dropped when the reader lags.
    Providers {
        /// The key looked up.
        key: [u8; 32],
        /// Who claims to provide it, at least one, and where it may be.
        peers: Vec<(PeerId, Vec<Multiaddr>)>,
    },
    /// A lookup ended, with or without providers.
    LookupDone {
        /// The key looked up.
        key: [u8; 32],
    },
}

/// Starts the network: listens, then spawns the driver task. Call it within a tokio runtime.
///
/// Returns once the listeners know their first concrete addresses (at most half a second). The driver ends after
/// [`NetworkHandle::shutdown`] or when the last handle is dropped.
///
/// # Errors
/// [`NetworkError`] when an address of `config.listen` cannot be listened on; nothing is left running then. An
/// unspecified IPv6 address on a system without IPv6 is skipped when another listener works.
pub async fn start(
    config: NetworkConfig,
) -> Result<(NetworkHandle, mpsc::Receiver<NetworkEvent>), NetworkError> {
    let identity = config.identity.clone();
    let (commands, commands_receiver) = mpsc::channel(COMMANDS_MAX);
    let (events, events_receiver) = mpsc::channel(EVENTS_MAX);
    let driver = Driver::start(config, commands_receiver, events).await?;
    let tasks = TaskTracker::new();
    tasks.spawn(driver.run());
    tasks.close();
    let handle = NetworkHandle {
        local_peer: identity.peer_id(),
        identity,
        commands,
        tasks,
    };
    Ok((handle, events_receiver))
}

/// Asks the driver for things; cheap to clone. Every method is cancel-safe, and does nothing once the driver has ended.
#[derive(Clone)]
pub struct NetworkHandle {
    local_peer: PeerId,
    identity: Keypair,
    commands: mpsc::Sender<Command>,
    tasks: TaskTracker,
}

impl NetworkHandle {
    /// Our own identity.
    #[must_use]
    pub fn local_peer(&self) -> PeerId {
        self.local_peer
    }

    /// Opens a session: on the newest direct connection to `peer` if there is one, else by dialling.
    ///
    /// `addresses` (with or without `/p2p/`) are tried together with every other address known for `peer`. Without
    /// `peer` they are all dialled and whoever answers first is the session's peer. Concurrent calls for one peer
    /// share the dial. The answer comes within 8 seconds, and means that the peer took the session. Addresses that name a
    /// host are looked up first, in at most 6 seconds; the others do not wait for them.
    ///
    /// # Errors
    /// [`DialError`] names each address tried and why it failed.
    pub async fn open_session(
        &self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
    ) -> Result<SessionStreams, DialError> {
        let (named, plain) = names::part(addresses);
        if named.is_empty() {
            return self.open_session_at(peer, plain).await;
        }
        let by_number = async {
            match plain.is_empty() {
                false => self.open_session_at(peer, plain).await,
                true => Err(DialError::closed()),
            }
        };
        let by_name = async {
            let found = names::look_up(named).await;
            let opened = self.open_session_at(peer, found.addresses).await;
            opened.map_err(|error| error.and(found.failed))
        };
        tokio::pin!(by_number, by_name);
        match select(by_number, by_name).await {
            Either::Left((Ok(opened), _)) | Either::Right((Ok(opened), _)) => Ok(opened),
            Either::Left((Err(error), other)) => {
                other.await.map_err(|other| error.and(other.tried))
            }
            Either::Right((Err(error), other)) => {
                other.await.map_err(|other| other.and(error.tried))
            }
        }
    }

    /// Opens a session as [`Self::open_session`] does; no address names a host.
    async fn open_session_at(
        &self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
    ) -> Result<SessionStreams, DialError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::OpenSession {
            peer,
            addresses,
            reply,
        };
        if self.commands.send(command).await.is_err() {
            return Err(DialError::closed());
        }
        answer.await.unwrap_or_else(|_| Err(DialError::closed()))
    }

    /// Our own record with these addresses, for peers to pass on; `None` when none of them can be dialled.
    #[must_use]
    pub fn sign_record(&self, addresses: &[Multiaddr]) -> Option<PeerRecord> {
        PeerRecord::sign(&self.identity, addresses)
    }

    /// The addresses we can be reached at now, each ending in `/p2p/`; loopback last.
    pub async fn listeners(&self) -> Vec<Multiaddr> {
        let (reply, answer) = oneshot::channel();
        if self
            .commands
            .send(Command::Listeners { reply })
            .await
            .is_err()
        {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// Tells which of our addresses others reach most likely, best first, with or without `/p2p/`: of a machine with many
    /// interfaces peers are told of eight addresses only, and these come first.
    pub async fn prefer(&self, addresses: Vec<Multiaddr>) {
        let bare = |address| addresses::split_peer(&address).0;
        let addresses = addresses.into_iter().map(bare).collect();
        self.tell(Command::Prefer { addresses }).await;
    }

    /// Tells where `peer` may be reached: a hint for later dials and for the routing table. Unusable addresses and
    /// those of ourselves are ignored.
    pub async fn add_addresses(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.tell(Command::AddAddresses { peer, addresses }).await;
    }

    /// Dials a node that was reached in an earlier run, unless it is connected; when it answers it joins the routing
    /// table, like any node that is met. One that does not answer costs nothing else.
    pub async fn meet(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        self.tell(Command::Meet { peer, addresses }).await;
    }

    /// Announces that we provide `key`, and keeps announcing: as soon as the routing table has a peer, when it grows,
    /// when our address changes, and every 20 minutes.
    pub async fn announce(&self, key: [u8; 32]) {
        self.tell(Command::Announce { key }).await;
    }

    /// Stops announcing `key`; other nodes forget it within an hour.
    pub async fn withdraw(&self, key: [u8; 32]) {
        self.tell(Command::Withdraw { key }).await;
    }

    /// Looks for providers of `key`. They arrive as [`NetworkEvent::Providers`], several times, then
    /// [`NetworkEvent::LookupDone`]. With an empty routing table the lookup waits up to 10 seconds for a first peer.
    pub async fn lookup(&self, key: [u8; 32]) {
        self.tell(Command::Lookup { key }).await;
    }

    /// Closes every connection, lets what was written leave (at most 300 ms), and ends the driver. Returns when it has
    /// ended; a second call returns at once.
    pub async fn shutdown(&self) {
        self.tell(Command::Shutdown).await;
        // A driver that does not end in time is left to the runtime: there is nothing more to wait for.
        let _ = tokio::time::timeout(SHUTDOWN_WAIT, self.tasks.wait()).await;
    }

    async fn tell(&self, command: Command) {
        // The driver has ended: there is nobody left to tell, and every caller is leaving as well.
        let _ = self.commands.send(command).await;
    }
}

impl fmt::Debug for NetworkHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkHandle")
            .field("local_peer", &self.local_peer)
            .finish_non_exhaustive()
    }
}
